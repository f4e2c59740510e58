# SPDX-License-Identifier: Apache-2.0
"""Where the lab keeps what is worth keeping between runs: the built guest, QEMU's probed capabilities."""

import os
import tempfile
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[2]
LAB: Final = "EXTEND_BRIDGE_LAB"
"""The environment variable with the directory for what is kept."""


def lab_cache() -> Path:
    """`.lab` in the working tree (git ignores it), or a directory of this user's where the tree is read-only."""
    named = os.environ.get(LAB)
    if named:
        path = Path(named)
    elif os.access(ROOT, os.W_OK):
        path = ROOT / ".lab"
    else:
        path = Path(tempfile.gettempdir()) / f"extend-bridge-lab-{os.getuid()}"
    path.mkdir(parents=True, exist_ok=True)
    return path
