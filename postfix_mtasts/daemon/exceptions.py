"""The exceptions, those of the configuration and those added by command; their use; what the log is told of them.

A day ends where this machine's clock shows midnight, in its time zone: a date in a configuration is the date of whoever
wrote it. How they were used, and what the log was told, outlives the process in a file of its own.
"""

import asyncio
import datetime
import pathlib
import time
from collections.abc import Callable, Iterable

from postfix_mtasts.cache import exceptions as file
from postfix_mtasts.cache.exceptions import ExceptionsError
from postfix_mtasts.cache.uses import Key, Use, Uses, printed
from postfix_mtasts.config import ExceptionSetting
from postfix_mtasts.log import events
from postfix_mtasts.postfix.socketmap import Reply
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.exception import PolicyException, exception_for

_TICK = 60.0  # Seconds between two looks at what ends.
WARN_WITHIN = 7 * 86400.0  # Seconds before the end.
_SHOWN = 30 * 86400.0  # Seconds after the end, for which one that was added is still shown.
_HOUR = 3600.0
_FIRST, _LAST = datetime.date(1971, 1, 1), datetime.date(9998, 12, 31)  # In any time zone these have a midnight.
NOTED = 5  # Of the domains that an exception has changed the answer for: the last ones.


class RefusedError(Exception):
    """An exception cannot be added or removed. The message says why."""


class Exceptions:
    """Exceptions by their domains. `on_change` is called when others hold. `clock` gives seconds since the epoch."""

    def __init__(self, path: pathlib.Path, clock: Callable[[], float] = time.time) -> None:
        self.trouble = ""  # Why the file cannot be used.
        self.since = clock()
        self.on_change: Callable[[], None] = lambda: None
        self._path = path
        self._clock = clock
        self._configured: dict[str, PolicyException] = {}
        self._added: dict[str, PolicyException] = {}
        self._uses: dict[Key, Use] = {}
        self._file_of_uses = Uses(path.with_name(f"{path.stem}-used.json"))
        self._saved = ""  # What stands in that file; empty until it was read.
        self._changing = asyncio.Lock()

    def now(self) -> float:
        """The time by which they hold and end."""
        return self._clock()

    def of(self, domain: PolicyDomain) -> PolicyException | None:
        """The exception that holds for a domain now."""
        if not self._added and not self._configured:
            return None
        return exception_for(domain, self._clock(), self._added, self._configured)

    def all(self) -> list[PolicyException]:
        """All exceptions, also those that have ended, by their domains without `*.`.

        Of those that were added, not what ended a month ago. It stays in the file until the next is added, lest a wrong
        clock delete it.
        """
        since = self._clock() - _SHOWN
        found = [*(one for one in self._added.values() if not one.is_over(since)), *self._configured.values()]
        return sorted(found, key=lambda one: (one.domain.removeprefix("*."), one.domain, not one.added))

    def holding(self) -> list[PolicyException]:
        """Those that have not ended, and that no other one for the same name overrules; the first to end first."""
        now = self._clock()
        both = self._configured | {name: one for name, one in self._added.items() if not one.is_over(now)}
        return sorted((one for one in both.values() if not one.is_over(now)), key=lambda one: one.ends_at)

    def is_overruled(self, exception: PolicyException) -> bool:
        """Whether one that was added for the same name counts in place of one of the configuration."""
        added = self._added.get(exception.domain)
        return bool(added and not exception.added and not added.is_over(self._clock()))

    def use_of(self, exception: PolicyException) -> Use:
        """How it was used."""
        return self._uses.setdefault((exception.added, exception.domain), Use())

    def used(self, domain: PolicyDomain, exception: PolicyException, told: Reply, without: Reply) -> None:
        """Note that an exception has changed a reply; the log is told in the first such case of each hour."""
        use, now = self.use_of(exception), self._clock()
        use.count += 1
        use.last = now
        use.domains.pop(domain, None)
        use.domains[domain] = None
        if len(use.domains) > NOTED:
            del use.domains[next(iter(use.domains))]
        if use.hour != now // _HOUR:
            use.hour = now // _HOUR
            events.excepted(domain, exception, told, without)

    async def load(self, configured: Iterable[ExceptionSetting]) -> None:
        """Take the exceptions of a configuration, and read the file with the others again."""
        async with self._changing:
            if not self._saved:
                await self._load_uses()
            self._configured = {one.domain: policy_exception(one, added=False) for one in configured}
            try:
                self._adopt(await asyncio.to_thread(file.read, self._path))
            except ExceptionsError as error:
                self._note_trouble(str(error))
            self._changed()

    async def add(self, setting: ExceptionSetting) -> bool:
        """Add an exception. Return whether it replaces one that was added before. Raises RefusedError."""
        added = policy_exception(setting, added=True)
        if added.is_over(self._clock()):
            raise RefusedError(f"{added.until} is over: name today or a later day")
        async with self._changing:
            known = await self._read()
            since = self._clock() - _SHOWN
            shown = [one for one in known if not policy_exception(one, added=True).is_over(since)]
            rest = [one for one in shown if one.domain != setting.domain]
            if len(rest) >= file.MAX_EXCEPTIONS:
                raise RefusedError(f"there are {len(rest)} exceptions already, the most that may be added")
            await self._write([*rest, setting])
            self._uses.pop((True, setting.domain), None)
        events.exception_added(added)
        return len(rest) < len(shown)

    async def remove(self, domain: str) -> bool:
        """Remove an exception that was added, and return whether there was one. Raises RefusedError."""
        async with self._changing:
            known = await self._read()
            gone = self._added.get(domain)
            if not gone and domain in self._configured:
                raise RefusedError(f"{domain} is in the configuration: remove it there, and reload the daemon")
            if gone:
                await self._write([one for one in known if one.domain != domain])
        if gone:
            events.exception_removed(gone)
        return bool(gone)

    async def run(self) -> None:
        """Once a minute, tell the log what ends, forever."""
        while True:
            self.tick(self._clock())
            await self.save()
            await asyncio.sleep(_TICK)

    def tick(self, now: float) -> None:
        """Tell the log what ends, at the time `now`."""
        for one in self.all():
            use = self.use_of(one)
            if one.is_over(now):
                if use.end != one.ends_at:
                    use.end = one.ends_at
                    events.exception_ended(one)
                continue
            use.end = 0.0  # If the clock was put back, its end is yet to come.
            if one.ends_at - now <= WARN_WITHIN and use.day != (day := _day(now)):
                use.day = day
                events.exception_ends(one, one.ends_at - now)

    async def save(self) -> None:
        """Write how exceptions were used, if that has changed."""
        content = printed(self.since, self._uses)
        if content != self._saved:
            try:
                await asyncio.to_thread(self._file_of_uses.write, content)
            except OSError:
                return  # It is tried again. The database, which is on the same disk, tells of it.
            self._saved = content

    async def _load_uses(self) -> None:
        if known := await asyncio.to_thread(self._file_of_uses.read):
            self.since, self._uses = known
        self._saved = printed(self.since, self._uses)

    async def _read(self) -> tuple[ExceptionSetting, ...]:
        """What is in the file, which may be another daemon's too. Raises RefusedError."""
        try:
            known = await asyncio.to_thread(file.read, self._path)
        except ExceptionsError as error:
            self._note_trouble(str(error))
            raise RefusedError(str(error)) from error
        self._adopt(known)
        return known

    async def _write(self, exceptions: list[ExceptionSetting]) -> None:
        try:
            await asyncio.to_thread(file.write, self._path, exceptions)
        except ExceptionsError as error:
            self._note_trouble(str(error))
            raise RefusedError(str(error)) from error
        self._adopt(exceptions)

    def _adopt(self, exceptions: Iterable[ExceptionSetting]) -> None:
        self.trouble = ""
        self._added = {one.domain: policy_exception(one, added=True) for one in exceptions}
        self._changed()

    def _changed(self) -> None:
        if not self.trouble:  # Otherwise those that were added may be unknown, and still be there.
            known = {(one.added, one.domain) for one in self.all()}
            self._uses = {key: use for key, use in self._uses.items() if key in known}
        self.on_change()

    def _note_trouble(self, reason: str) -> None:
        if self.trouble != reason:
            events.exceptions_trouble(reason)
        self.trouble = reason


def policy_exception(setting: ExceptionSetting, *, added: bool) -> PolicyException:
    """An exception as the rule has it."""
    until, ends_at = setting.until.isoformat(), end_of(setting.until)
    return PolicyException(setting.domain, until, ends_at, setting.reason, setting.level, setting.dane, added)


def end_of(day: datetime.date) -> float:
    """The end of a day in the time zone of this machine, in seconds since the epoch."""
    next_day = min(max(day, _FIRST), _LAST) + datetime.timedelta(1)
    return datetime.datetime.combine(next_day, datetime.time()).timestamp()


def _day(now: float) -> str:
    return datetime.datetime.fromtimestamp(now).date().isoformat()  # noqa: DTZ006 - the day of this machine
