"""The Debian package, built from the files that git knows in a Debian that has what the build takes and no network."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.world.root import Root, changeable

PROJECT = Path(__file__).parents[2]
BUILD = "/build"  # In a root.


@dataclass(frozen=True)
class Built:
    """What came of a build: the files, by their names, and what it said."""

    files: Mapping[str, bytes]
    log: str

    @property
    def deb(self) -> str:
        """The name of the file of postfix-mtasts."""
        return self.debs["postfix-mtasts"]

    @property
    def debs(self) -> Mapping[str, str]:
        """The names of the files of all packages, by the names of the packages."""
        return {name.partition("_")[0]: name for name in self.files if name.endswith(".deb")}

    def put(self, folder: Path) -> None:
        """Write the files into a folder."""
        folder.mkdir(exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def source(folder: Path) -> Path:
    """The source of the package, as `make deb` builds it; `folder` is made for it."""
    subprocess.run(["make", "--silent", "source", f"DIST={folder}"], cwd=PROJECT, check=True)
    return folder


def build(
    root: Root, files: Path, *words: str, environment: Mapping[str, str] | None = None, place: str = BUILD
) -> Built:
    """Build a source in a root, with these options of dpkg-buildpackage."""
    folder = root.path / place.lstrip("/")
    shutil.copytree(files, folder, symlinks=True)
    command = ["dpkg-buildpackage", "--no-sign", *words]
    log = root.run(*command, folder=f"{place}/postfix-mtasts", environment=environment)
    return Built({file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}, log)


def build_in(
    name: str, files: Path, *words: str, environment: Mapping[str, str] | None = None, place: str = BUILD
) -> Built:
    """Build in a root of this name, which is as it was afterwards."""
    with changeable(name) as root:
        return build(root, files, *words, environment=environment, place=place)


def renamed(root: Root, built: Built, version: str) -> Built:
    """The same package with a later version, to upgrade to."""
    built.put(root.path / "tmp/later")
    root.run("dpkg-deb", "--raw-extract", f"/tmp/later/{built.deb}", "/tmp/later/content")
    control = root.path / "tmp/later/content/DEBIAN/control"
    lines = [
        f"Version: {version}" if line.startswith("Version: ") else line for line in control.read_text().splitlines()
    ]
    control.write_text("\n".join(lines) + "\n")
    name = f"postfix-mtasts_{version}_all.deb"
    root.run("dpkg-deb", "--build", "--root-owner-group", "/tmp/later/content", f"/tmp/later/{name}")
    return Built({name: (root.path / "tmp/later" / name).read_bytes()}, "")
