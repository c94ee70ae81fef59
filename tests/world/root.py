"""A Debian for one test: a root that tests/package-roots made, below a layer in memory that takes all changes."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.world.postfix import ROOTS, unfit


@dataclass(frozen=True)
class Root:
    """A root that can be changed; its changes are gone with the block that made it."""

    path: Path

    def run(self, *words: str, folder: str = "/", environment: Mapping[str, str] | None = None) -> str:
        """What a command prints that succeeds, errors and all."""
        done = self.ask(*words, folder=folder, environment=environment)
        assert done.returncode == 0, f"{words}: status {done.returncode}\n{done.stdout}"
        return done.stdout

    def ask(
        self, *words: str, folder: str = "/", environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command, with an environment like that of a new login."""
        return subprocess.run(
            ["chroot", self.path, "env", "--chdir", folder, *words],
            env={**_ENVIRONMENT, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=300,
        )


_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}


def missing(name: str) -> str | None:
    """What a test in this root needs and does not have here, in words for `pytest.skip`."""
    if why := unfit():
        return why
    return None if (ROOTS / name / "recipe").exists() else f"needs the root {name}: run `sudo make roots`"


@contextmanager
def changeable(name: str) -> Iterator[Root]:
    """A root by its name, in mounts that only our namespace sees."""
    with tempfile.TemporaryDirectory() as folder:
        layer, root = Path(folder, "layer"), Path(folder, "root")
        layer.mkdir()
        root.mkdir()
        _mount("-t", "tmpfs", "tmpfs", str(layer))
        try:
            for part in ("changes", "work"):
                (layer / part).mkdir()
            options = f"lowerdir={ROOTS / name},upperdir={layer / 'changes'},workdir={layer / 'work'}"
            _mount("-t", "overlay", "-o", options, "overlay", str(root))
            for place in ("proc", "dev"):
                _mount("--rbind", f"/{place}", str(root / place))
            yield Root(root)
        finally:
            _end_all_in(root)
            # Lazily: what was killed may take a moment to go.
            subprocess.run(["umount", "--recursive", "--lazy", root], check=False)
            subprocess.run(["umount", "--lazy", layer], check=True)


def _end_all_in(root: Path) -> None:
    """Kill what a package started there, such as a Postfix: it would go on taking connections to its ports."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # It has ended.
            if (process / "root").readlink() == root:
                os.kill(int(process.name), signal.SIGKILL)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)
