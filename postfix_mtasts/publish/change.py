"""Changes what is published: from an event to a stored state, and to the file that follows from it."""

import functools
import getpass
import os
import time
from collections.abc import Callable

from postfix_mtasts.config import Publish
from postfix_mtasts.publish import files
from postfix_mtasts.publish.events import Decision, Event, RefusedError
from postfix_mtasts.publish.follows import follows
from postfix_mtasts.publish.rules import decide
from postfix_mtasts.publish.state import Stage, State
from postfix_mtasts.publish.store import Store
from postfix_mtasts.sts.domain import PolicyDomain
from postfix_mtasts.sts.policy import Policy


class Publisher:
    """What is published here. `clock` gives the time; `user` is who changes it. Raises StoreError."""

    def __init__(self, settings: Publish, clock: Callable[[], float] = time.time, user: str = "") -> None:
        self._folder = settings.policies
        self._clock = clock
        self._user = user or who()
        self.store = Store(settings.path)

    def state(self, domain: PolicyDomain) -> State:
        """The state of a domain that is published. Raises RefusedError and StoreError."""
        state = self.store.get(domain)
        if not state or state.stage is Stage.REMOVED:
            raise RefusedError("is not published here", "postfix-mtasts-publish list")
        return state

    def draft(self, domain: PolicyDomain, event: Event) -> Policy | None:
        """The policy that an event would put into the file in place of another one; None if it would not.

        Raises RefusedError and StoreError.
        """
        state = self.store.get(domain)
        after = decide(state, event, self._clock()).publication.file
        return None if state and after == state.file() else after

    def happened(self, domain: PolicyDomain, event: Event) -> Decision:
        """Store what follows from an event, and then publish it. Raises RefusedError, StoreError and FileError."""
        with self.store.changing():
            now = self._clock()
            decision = decide(self.store.get(domain), event, now)
            self.store.save(decision, self._user, now)
            files.publish(self._folder, domain, decision.publication.file)
        return decision

    def publish(self, domain: PolicyDomain) -> State:
        """Let the file be as it is to be, also if it was deleted or a power cut came between, and return the state.

        Raises RefusedError, StoreError and FileError.
        """
        with self.store.changing():
            state = self.state(domain)
            files.publish(self._folder, domain, follows(state).publication.file)
        return state


@functools.cache
def who() -> str:
    """Who runs the command, for the history. It is asked first before root goes on as another user."""
    if name := os.environ.get("SUDO_USER"):
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # The user has no name. Which of the two is raised depends on the version of Python.
        return f"uid {os.getuid()}"
