"""Takes messages in: from the spool, through the parser and DKIM, into the database."""

import dataclasses
import datetime
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from postfix_mtasts import config
from postfix_mtasts.reports.reading import read_data
from postfix_mtasts.reports.records import Message, write
from postfix_mtasts.reports.report import Dkim, DkimState, Reading
from postfix_mtasts.reports.spool import Spool, received
from postfix_mtasts.reports.store import Store, StoreError
from postfix_mtasts.reports.trust import Verifier
from postfix_mtasts.reports.verdict import State, verdict

# A transaction ends when it has as many messages, or failures: they are in memory until then.
_MAX_MESSAGES = 100
_MAX_FAILURES = 5000
_MAX_REASON = 300  # Characters.
_MAX_NAMED, _MAX_NAME = 5, 100  # Domains in a summary, and characters of one.


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message."""

    name: str  # In the spool.
    state: State
    reason: str
    keys: Sequence[str]  # Of the reports that are new.
    problems: Sequence[str]  # Of the report.
    summary: str  # What became of it, in a few words.


@dataclass(frozen=True, slots=True)
class _Earlier:
    """What is known of a message that was taken in before."""

    dkim: Dkim
    accepted: bool
    digest: str


@dataclass(frozen=True, slots=True)
class _Read:
    """A message that is to be written."""

    message: Message
    reading: Reading


class Intake:
    """Takes messages in, some in one transaction."""

    def __init__(self, spool: Spool, store: Store, verifier: Verifier, settings: config.Reports) -> None:
        self._spool = spool
        self._store = store
        self._verifier = verifier
        self._domains = settings.domains
        self._read: list[_Read] = []
        self._failures = 0

    async def take(
        self, names: Iterable[str], now: datetime.datetime, *, again: bool = False, accept: bool = False
    ) -> AsyncIterator[Outcome]:
        """Take messages of the spool in. Those that are in the database are left out, unless they are taken `again`.

        Raises StoreError and OSError. What was not written then is still new in the spool.
        """
        for name in names:
            try:
                data = self._spool.read(name)
            except (FileNotFoundError, IsADirectoryError, PermissionError):
                # Its time is over, or another process has dropped it. What somebody put there, which is no mail or may
                # not be read, holds up no other.
                continue
            earlier = self._earlier(name)
            # If its file has been damaged since, what it said stays.
            if earlier and (not again or earlier.digest != _digest(data)):
                self._spool.done(name)
                continue
            await self._read_one(name, data, earlier, now, accept=accept)
            del data
            if len(self._read) >= _MAX_MESSAGES or self._failures >= _MAX_FAILURES:
                for outcome in self._flush(now):
                    yield outcome
        for outcome in self._flush(now):
            yield outcome

    async def _read_one(
        self, name: str, data: bytes, earlier: _Earlier | None, now: datetime.datetime, *, accept: bool
    ) -> None:
        # Who was verified once stays so: senders withdraw their keys when they have new ones.
        known = earlier.dkim if earlier and earlier.dkim.state is DkimState.VERIFIED else None
        reading = await self._reading(name, data, now, known)
        accepted = accept or bool(earlier and earlier.accepted)
        seconds = received(name)
        age = datetime.timedelta(seconds=now.timestamp() - seconds)
        if reading.report:
            state, reason = verdict(reading.report, reading.dkim, age, self._domains, accepted=accepted)
            self._failures += sum(len(policy.failures) for policy in reading.report.policies)
        else:
            state, reason = State.QUARANTINED, reading.rejected
        message = Message(name, _digest(data), len(data), seconds, state, reason, reading.dkim, accepted)
        self._read.append(_Read(message, reading))

    async def _reading(self, name: str, data: bytes, now: datetime.datetime, known: Dkim | None) -> Reading:
        try:
            return await read_data(name, data, self._verifier, now, known)
        except (OSError, MemoryError):  # They are not of the message.
            raise
        except Exception as error:  # noqa: BLE001 - a defect of ours must not hold up other messages
            return Reading(name, None, Dkim(DkimState.NONE), _defect(error))

    def _flush(self, now: datetime.datetime) -> list[Outcome]:
        """Write what was read in one transaction, and then move it in the spool."""
        read, self._read, self._failures = self._read, [], 0
        if not read:
            return []
        try:
            outcomes = self._write(read, now)
        except (StoreError, OSError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - as in _reading
            if len(read) > 1:
                return [outcome for one in read for outcome in self._write_alone(one, now)]
            outcomes = self._write([_defective(read[0], error)], now)
        for one in read:
            self._spool.done(one.message.name)
        return outcomes

    def _write_alone(self, read: _Read, now: datetime.datetime) -> list[Outcome]:
        self._read = [read]
        return self._flush(now)

    def _write(self, several: Sequence[_Read], now: datetime.datetime) -> list[Outcome]:
        outcomes = []
        with self._store.transaction():
            for read in several:
                state, keys = write(self._store, read.message, read.reading.report, int(now.timestamp()))
                outcomes.append(_outcome(read, state, keys))
        return outcomes

    def _earlier(self, name: str) -> _Earlier | None:
        row = self._store.one(
            "SELECT dkim, signer, dkim_reason, accepted, digest FROM messages WHERE name = ?", (name,)
        )
        return _Earlier(Dkim(DkimState(row[0]), row[1], row[2]), bool(row[3]), row[4]) if row else None


def _defect(error: Exception) -> str:
    return f"internal error, {type(error).__name__}: {error}"[:_MAX_REASON]


def _defective(read: _Read, error: Exception) -> _Read:
    """A message at which our own program fails."""
    reason = _defect(error)
    message = dataclasses.replace(read.message, state=State.QUARANTINED, reason=reason)
    return _Read(message, dataclasses.replace(read.reading, report=None, rejected=reason))


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _outcome(read: _Read, state: State, keys: Sequence[str]) -> Outcome:
    """What became of a message, without the report itself, which may be large."""
    message, report = read.message, read.reading.report
    summary = message.reason
    if report:
        dkim = message.dkim
        sender = dkim.domain if dkim.state is DkimState.VERIFIED else f"not verified ({dkim.reason})"
        domains = sorted({policy.domain for policy in report.policies if policy.domain})
        listed = ", ".join(domain[:_MAX_NAME] for domain in domains[:_MAX_NAMED]) or "no domain"
        failed = sum(policy.failed for policy in report.policies)
        summary = f"{sender} about {listed}: {failed} failed" + (f": {message.reason}" if message.reason else "")
    problems = report.problems if report else ()
    return Outcome(message.name, state, message.reason, keys, problems, f"{state.value}: {summary}")
