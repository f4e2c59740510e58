# SPDX-License-Identifier: Apache-2.0
"""Commands of the VM."""

import subprocess
from pathlib import Path


def sh(*command: str | Path, check: bool = True, data: bytes | None = None) -> str:
    """Run one command; what it printed. Its words go with the error."""
    done = subprocess.run(
        [str(part) for part in command], input=data, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    text = done.stdout.decode(errors="replace").strip()
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}: {text[-1000:]}")
    return text


def put(path: Path, value: object) -> None:
    """Write to a file of sysfs or configfs."""
    path.write_text(f"{value}\n")
