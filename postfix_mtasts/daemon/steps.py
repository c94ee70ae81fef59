"""The steps of a discovery, which take turns, so that known domains are answered meanwhile, however many are new."""

from postfix_mtasts.dns.resolver import Resolver
from postfix_mtasts.log import events
from postfix_mtasts.remote.fetcher import Fetcher
from postfix_mtasts.sts.decide import Action, FetchPolicy, LookUpRecord
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.entry import Unavailable
from postfix_mtasts.sts.observation import DiscoveryObservation, Failure, PolicyFetched, Stage
from postfix_mtasts.turns import Turns

# Of the event loop, by what they cost: a policy is twenty times the work of a record, most of it the TLS handshake.
_ROUNDS_FOR_RECORD, _ROUNDS_FOR_POLICY = 1, 7


class Steps:
    """Performs actions with the resolver and the fetcher."""

    def __init__(self, resolver: Resolver, fetcher: Fetcher) -> None:
        self._resolver = resolver
        self._fetcher = fetcher
        self._turns = Turns()

    async def perform(self, domain: PolicyDomain, action: Action) -> DiscoveryObservation:
        """What an action observes."""
        match action:
            case LookUpRecord():
                await self._turns.take(_ROUNDS_FOR_RECORD)
                return await self._resolver.record(domain)
            case FetchPolicy(record_id):
                await self._turns.take(_ROUNDS_FOR_POLICY)
                fetched = await self._fetcher.fetch(domain, record_id)
                if isinstance(fetched, PolicyFetched) and fetched.findings:
                    events.found_in_policy(domain, fetched.findings)
                return fetched


def too_late(answer_within: float, *, defer: bool) -> Unavailable:
    """What Postfix is answered when a discovery has no result after `answer_within` seconds."""
    words = f"no result within {answer_within:g} s; it goes on"
    # What was slow is not known, so it has no name of RFC 8460.
    return Unavailable(Failure(Stage.DISCOVERY, words, result_type=None), defer=defer)
