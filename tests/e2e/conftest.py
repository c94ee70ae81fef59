"""The world of the end-to-end tests, once for all tests of a module."""

from collections.abc import Iterator

import pytest

from tests.world import postfix
from tests.world.mail import World, mail_world


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    if why := postfix.missing():
        pytest.skip(why)
    with mail_world() as running:
        yield running
    assert [line for line in running.daemon.log if not line.startswith(("info: ", "warning: "))] == []


@pytest.fixture(autouse=True)
def _empty_queue(world: World) -> Iterator[None]:
    yield
    world.postfix.forget_all()
