"""What a check makes of TLS reports: mode enforce, if that is left to us, or an alarm. Never a step back."""

import logging
from collections.abc import Sequence

from postfix_mtasts.config import Config
from postfix_mtasts.log.journal import journal_handler
from postfix_mtasts.publish.change import Publisher
from postfix_mtasts.publish.events import Decision, ModeAsked
from postfix_mtasts.publish.look import Looker
from postfix_mtasts.publish.ready import readiness, stops_mail
from postfix_mtasts.publish.show import status_of
from postfix_mtasts.publish.state import Stage, State
from postfix_mtasts.publish.told import told
from postfix_mtasts.query.domain.remark import Remark, error, warning
from postfix_mtasts.query.output import QueryError, Status
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Mode

_PROGRAM = "postfix-mtasts-publish"
_CHECK = "reports"  # The kind of these remarks.


class Scale:
    """Weighs what is reported of domains that were just looked at."""

    def __init__(self, settings: Config, publisher: Publisher, looker: Looker) -> None:
        self.settings = settings
        self._publisher = publisher
        self._looker = looker
        self._log = logging.getLogger(_PROGRAM)
        plain = logging.StreamHandler()
        plain.setFormatter(logging.Formatter(f"{_PROGRAM}: error: %(message)s"))
        self._log.handlers = [journal_handler(_PROGRAM, plain) or plain]

    async def weigh(self, decision: Decision, remarks: Sequence[Remark]) -> tuple[Decision, tuple[Remark, ...]]:
        """Do what reports call for after a check with these remarks. Return what holds then, and more remarks.

        Raises RefusedError, StoreError and FileError.
        """
        state = decision.state
        may_enforce = self.settings.publish.auto and state.wanted.mode is Mode.TESTING
        if state.stage is not Stage.PUBLISHED or not (may_enforce or state.wanted.mode is Mode.ENFORCE):
            return decision, ()
        try:
            facts = told(self.settings.reports, state, state.clock.at)
        except QueryError as failure:
            return decision, (warning(str(failure), _CHECK),)
        if alarm := stops_mail(state, facts):
            return decision, (self._alarm(state.domain, alarm),)
        if may_enforce and readiness(state, facts).ready and status_of(decision, remarks) is Status.OK:
            return await self._enforce(state, decision)
        return decision, ()

    async def _enforce(self, state: State, decision: Decision) -> tuple[Decision, tuple[Remark, ...]]:
        event = ModeAsked(Mode.ENFORCE, auto=True)
        draft = self._publisher.draft(state.domain, event)
        judged = await self._looker.judge(state.domain, draft) if draft else ()
        wrong = tuple(remark for remark in judged if remark.status is not Status.OK)
        return (decision, wrong) if wrong else (self._publisher.happened(state.domain, event), ())

    def _alarm(self, domain: PolicyDomain, alarm: str) -> Remark:
        text = f"{alarm}: `postfix-mtasts-reports results --domain {domain}` says what failed"
        self._log.error("%s: %s", domain, text, extra={"journal": {"MTASTS_DOMAIN": domain.name}})
        return error(text, _CHECK)
