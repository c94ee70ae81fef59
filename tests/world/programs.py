"""Programs of Debian packages whose installation would start a service: `.ci/need` only unpacks these packages."""

import os
import shutil
from pathlib import Path

import pytest

UNPACKED = Path(__file__).parents[2] / ".ci/programs"


def program(name: str) -> str:
    """The path of a program, installed or unpacked; a test that needs it is skipped where it is missing."""
    places = [os.environ["PATH"], *(str(path) for path in UNPACKED.glob("*/usr/bin"))]
    found = shutil.which(name, path=os.pathsep.join(places))
    if not found:
        pytest.skip(f"needs {name}: run .ci/need test")
    return found
