"""Asks the running daemon just as Postfix does: on the socket and with the map name of main.cf."""

import asyncio

from postfix_mtasts.config import Config, Endpoint
from postfix_mtasts.query.domain.at_hand import AtHand
from postfix_mtasts.query.output import Output, QueryError, Status, worst
from postfix_mtasts.query.running.client import ask_as_postfix, sockets

_SLACK = 5.0  # Seconds that the daemon may take beyond `server.answer_within`.
_DEFAULT_NAME = "postfix"
_REFUSALS = ("TEMP", "PERM", "TIMEOUT")


async def run(keys: list[str], settings: Config, found: AtHand, output: Output) -> Status:
    """Ask for each key just as given: Postfix also asks for keys that are not domains. Raises QueryError."""
    endpoint, name = await asyncio.to_thread(_where, settings, found)
    deadline = settings.server.answer_within + _SLACK
    statuses = []
    for key in keys:
        answer = await ask_as_postfix(endpoint, key, deadline, name)
        reply = answer.reply.rstrip()
        status = Status.ERROR if reply.startswith(_REFUSALS) else Status.OK
        statuses.append(status)
        if output.json:
            document = {"key": key, "endpoint": str(endpoint), "map": name, "reply": reply, "seconds": answer.seconds}
            output.document({**document, "status": status.name.lower()})
        else:
            deferred = "; Postfix defers the mail" if status is Status.ERROR else ""
            output.text(f"{key}: {reply} ({answer.seconds * 1000:.1f} ms, {endpoint}:{name}){deferred}", status)
    return worst(statuses)


def _where(settings: Config, found: AtHand) -> tuple[Endpoint, str]:
    """The socket and map name of main.cf that lead to this daemon, or else the first socket that it serves."""
    served = sockets(settings)
    if not served:
        raise QueryError("server.listen names no socket", status=Status.CONFIG)
    return found.asks(served) or (served[0], _DEFAULT_NAME)
