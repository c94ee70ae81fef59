"""What a smtp(8) in a chroot reads there."""

import shutil
from pathlib import Path

from tests.world.postfix import Postfix


def fill_jail(postfix: Postfix) -> None:
    """Put it below the queue directory; Debian's start of the service does that."""
    etc = postfix.queue / "etc"
    etc.mkdir(exist_ok=True)  # Later Debians have made it.
    for name in ("hosts", "services", "nsswitch.conf"):
        shutil.copy(postfix.installation.root / "etc" / name, etc)
    shutil.copy(Path("/etc/resolv.conf"), etc)
