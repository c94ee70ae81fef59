"""Commands of Postfix that do not end."""

import asyncio
import time
from pathlib import Path

import pytest

from postfix_mtasts.postfix.installation import NoPostfix, local_postfix, run


def test_a_command_that_was_killed_is_not_waited_for_without_limit(tmp_path: Path) -> None:
    """A process in a session of its own keeps the pipes of the command open."""
    (tmp_path / "postconf").write_text("#!/bin/sh\nsetsid sleep 30 &\nkill -STOP $$\n")
    (tmp_path / "postconf").chmod(0o755)
    begin = time.monotonic()
    with pytest.raises(NoPostfix, match="did not answer within 5 s"):
        asyncio.run(local_postfix(str(tmp_path)))
    assert time.monotonic() - begin < 25


def test_what_a_command_prints_is_kept_up_to_a_megabyte(tmp_path: Path) -> None:
    (tmp_path / "postconf").write_text("#!/bin/sh\nhead -c 3000000 /dev/zero\necho x >&2\n")
    (tmp_path / "postconf").chmod(0o755)
    done = asyncio.run(run(str(tmp_path / "postconf")))
    assert (done.status, len(done.output), done.errors) == (0, 2**20, "x\n")
