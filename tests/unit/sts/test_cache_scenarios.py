"""`decide` against the contract of the cache, time line by time line (tests/data/cache_scenarios.txt)."""

import pytest

from postfix_mtasts.sts.decide import Action, Decision, FetchPolicy, LookUpRecord, Notice, decide
from postfix_mtasts.sts.entry import Answer, Entry
from postfix_mtasts.sts.observation import (
    Asked,
    DnsFailed,
    Due,
    Failure,
    FetchFailed,
    Observation,
    PolicyFetched,
    PolicyInvalid,
    RecordAbsent,
    RecordFound,
    RecordInvalid,
    ResultType,
    Stage,
)
from postfix_mtasts.sts.record import Record
from tests.world.scenarios import Scenario, Words, read, seconds

POLICIES, SCENARIOS = read()


class PureWorld:
    """A DNS, a policy host and one entry."""

    def __init__(self) -> None:
        self.entry = Entry()
        self.words = Words(POLICIES, start=0)
        self._dns: tuple[str, ...] = ()
        self._https = ""

    def dns(self, *words: str) -> None:
        self._dns = words

    def https(self, word: str) -> None:
        self._https = word

    def happens(self, observation: Observation, now: float) -> str:
        """What comes of an observation, in the words of the file."""
        answers: list[Answer] = []
        asked: list[str] = []
        notices: list[Notice] = []
        decision: Decision = decide(self.entry, observation, now)
        while True:
            notices += decision.notices
            if decision.answer:
                answers.append(decision.answer)
            if decision.entry is None:
                self.entry = Entry()
                return "forgotten"
            self.entry = decision.entry
            if not decision.action:
                break
            asked.append("dns" if isinstance(decision.action, LookUpRecord) else "https")
            decision = decide(self.entry, self.observe(decision.action), now)
        told = ", then ".join(dict.fromkeys(map(self.words.answer, answers))) or "nothing"
        assert decision.answer or not asked, "work without an answer for those who wait for it"
        return "; ".join([told, *([", ".join(asked)] if asked else []), *map(self.words.notice, notices)])

    def observe(self, action: Action) -> Observation:
        """What an action observes in this world."""
        if isinstance(action, FetchPolicy):
            match self._https:
                case "fails":
                    return FetchFailed(Failure(Stage.RESPONSE, "status 404"), action.record_id)
                case "bad":
                    reason = Failure(Stage.POLICY, "no mode line", ResultType.POLICY_INVALID)
                    return PolicyInvalid(reason, action.record_id)
                case name:
                    return PolicyFetched(POLICIES[name], str(POLICIES[name]), action.record_id)
        match self._dns:
            case ("id", record_id):
                return RecordFound(Record(record_id))
            case ("none", ttl):
                return RecordAbsent(seconds(ttl))
            case ("twice",):
                return RecordInvalid("2 records begin with v=STSv1;", ttl=300)
            case ("broken",):
                return RecordInvalid("no id", ttl=300)
            case ("fails",):
                return DnsFailed(Failure(Stage.RECORD, "SERVFAIL", result_type=None))
        raise AssertionError(self._dns)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.title)
def test_scenario(scenario: Scenario) -> None:
    world = PureWorld()
    seen = []
    for step in scenario.steps:
        match step.verb:
            case "dns":
                world.dns(*step.words)
            case "https":
                world.https(*step.words)
            case "ask":
                seen.append((step.line, world.happens(Asked(), step.time)))
            case "refresh":
                seen.append((step.line, world.happens(Due(), step.time)))
            case "known":
                seen.append((step.line, world.words.entry(world.entry)))
    assert seen == [(step.line, step.expected) for step in scenario.steps if step.expected]
