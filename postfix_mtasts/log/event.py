"""The kinds of events, and how one of them becomes a record."""

import enum
import logging

from postfix_mtasts.sts.domain import PolicyDomain

_log = logging.getLogger("postfix_mtasts")


class Event(enum.Enum):
    """The kinds of events. The values are their MESSAGE_ID in the journal, and never change."""

    NOT_STARTED = "36f8f8bb1664488ebdd36e632c32fe0d"
    EVENT_LOOP = "e390f3c653174a279a4647a0d424ae0f"
    READY = "8aa94aa9b0a2420bb1a7f4f7c8ed39c9"
    LISTENER_NOT_PASSED = "89e8e12eda3d42288486316962cdeeb6"
    LISTENER_NOT_CONFIGURED = "189c9cd4923d4b7b99c0642d299964b0"
    OPEN_TO_ALL = "7a1c52c5f0c24b1f9d0e7f1e3b1f2a66"
    REPLY_RULES = "8e5c8d2b0d834b3db06625687be5feb4"
    NO_CONTROL = "c361808b4bc64a6bbf959b06d64b4eda"
    NO_CONTROL_GROUP = "5d0f1d4e7c3b4b5e9a6e2f0c8b7a4d31"
    SHADOW = "b7d9a1f04c5e4f0f9c6a3d21e8f7b560"
    WOULD_BE = "4e2c8f6a1b7d4d53a09e5c3f7b8d6e12"
    SHADOW_TROUBLE = "c3a6e5d8f1b24709b8d4e6f2a1c3957d"
    RELOADED = "0f4d4a192b48499d825875c6c4f9ed70"
    NOT_RELOADED = "d6c5250d8ca940c9b99d2642373ca497"
    WATCHDOG = "a0142fac2321498888c58b6c2c4d19c5"
    STOPPING = "0e5d50bcfb6f4f2194bdf18c6919c311"
    DECIDED = "34c5c6f1a2644ba583b1e06399d21485"
    POLICY_FINDINGS = "dde752ccb3b349fb90f03ee3d1b558d2"
    POLICY_CHANGED = "32c890003ecd48d1ad4a59d3069726dd"
    POLICY_NOT_RENEWED = "b023244078274f20bb8a90abfad83b82"
    POLICY_EXPIRED = "5b2c7e07b6fc410ea7b55e751f217ba5"
    NOT_SOCKETMAP = "5ef5c33a468f4db1a31b9d92a88141d4"
    ROW_IGNORED = "5e6736c49d3a43609b9d61f865abbb7e"
    DATABASE_TROUBLE = "2a395ca7ae104d7fa66971b707dda055"
    EXCEPTION_USED = "8063242969184424aff8528b7a89a266"
    EXCEPTION_ENDS = "1e9c37fce4dd4224a4983735bdf00b2c"
    EXCEPTION_ENDED = "bb97d89480b04869b455421528d4ad83"
    EXCEPTION_CHANGED = "fe47de57be724e7eb10a06570c3dfed6"
    EXCEPTION_TROUBLE = "223054b2305c4fa382f0d061bb2fe043"
    FLEET_WORKS = "b0c8c1d3fd1e4d0a9b9a4a1a5ab0f6b7"
    FLEET_TROUBLE = "6d3f0f5a57c24a0f8b7ce7f3b6fd5e0c"
    INTERNAL_ERROR = "32abc457a2b4439e9be8c2962e6d89c3"


def tell(
    event: Event,
    level: int,
    text: str,
    *arguments: object,
    domain: PolicyDomain | None = None,
    result: str = "",
    error: BaseException | None = None,
) -> None:
    """Log a line, with the fields that the journal has of it; `error` with its traceback."""
    fields = {"MESSAGE_ID": event.value}
    if domain:
        fields["MTASTS_DOMAIN"] = str(domain)
        text = "domain=%s, " + text
        arguments = (domain, *arguments)
    if result:
        fields["MTASTS_RESULT"] = result
    _log.log(level, text, *arguments, extra={"journal": fields}, exc_info=error)
