"""The world of the end-to-end tests: one for each module and each Postfix."""

from collections.abc import Iterator

import pytest

from tests.world.mail import Extras, World, mail_world
from tests.world.postfix import INSTALLATIONS, Installation


@pytest.fixture(scope="module")
def extras() -> Extras:
    """A module whose world has more than the usual defines this fixture for itself."""
    return Extras()


def of_the_parameter(request: pytest.FixtureRequest) -> Installation:
    """The Postfix that is the parameter of a fixture; the test is skipped if it is not there."""
    chosen: Installation = request.param
    if why := chosen.missing():
        pytest.skip(why)
    return chosen


@pytest.fixture(scope="module", params=INSTALLATIONS, ids=lambda installation: installation.name)
def installation(request: pytest.FixtureRequest) -> Installation:
    """A module that is about some versions of Postfix only defines this fixture for itself."""
    return of_the_parameter(request)


@pytest.fixture(scope="module")
def world(installation: Installation, extras: Extras) -> Iterator[World]:
    with mail_world(installation, extras) as running:
        yield running
    assert [line for line in running.daemon.log if not line.startswith(("info: ", "warning: "))] == []


@pytest.fixture(autouse=True)
def _empty_queue(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that has a world leaves it no mail."""
    world: World | None = request.getfixturevalue("world") if "world" in request.fixturenames else None
    yield
    if world:
        world.postfix.forget_all()
