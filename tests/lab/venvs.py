# SPDX-License-Identifier: Apache-2.0
"""Virtualenvs for real services whose libraries and ours need not agree: made once per working tree."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.lab.paths import lab_cache


def own_python(name: str, requirements: Sequence[str]) -> Path:
    """The python of the virtualenv of that name, which is made where it is missing; raises RuntimeError."""
    directory = lab_cache() / name
    python, stamp = directory / "bin" / "python", directory / ".requirements"
    wanted = "\n".join(requirements)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(directory, ignore_errors=True)
    for command in (
        [sys.executable, "-m", "venv", str(directory)],
        # what is not imported need not be compiled: a service brings thousands of modules
        [str(python), "-m", "pip", "install", "-q", "--no-compile", "--disable-pip-version-check", *requirements],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{name} cannot be installed:\n{(done.stdout + done.stderr)[-2000:]}")
    stamp.write_text(wanted)
    return python
