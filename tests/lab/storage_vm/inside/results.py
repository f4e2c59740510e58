# SPDX-License-Identifier: Apache-2.0
"""The way out of the VM: JSON lines on a serial port for the tests, words on the console for people."""

import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge.core.messages import Report


def say(text: str) -> None:
    """A line on the console, with the seconds since boot."""
    uptime = Path("/proc/uptime").read_text().split()[0]
    sys.stdout.write(f"[{uptime:>7}] {text}\n")
    sys.stdout.flush()


def seen(report: Report) -> dict[str, Any]:
    """A report as the tests read it."""
    return report.to_wire()


class Results:
    """Runs cases and writes what each saw; one that fails does not keep the others from running."""

    def __init__(self, port: Path) -> None:
        self._port = port.open("w", buffering=1)

    def group(self, name: str, work: Callable[[], None]) -> None:
        """Run one transport's cases; where it cannot be set up, its tests say why and the others go on."""
        say(f"group {name}")
        try:
            work()
        except Exception:  # noqa: BLE001 - told by the tests of this group
            self._tell({"case": f"group {name}", "failed": traceback.format_exc()})

    def run(self, case: str, what: Callable[[], dict[str, Any]]) -> None:
        """One line, {"case", ...what it saw} or {"case", "failed": traceback}."""
        say(f"{case} ...")
        began = time.monotonic()
        try:
            found = what()
        except Exception:  # noqa: BLE001 - it is the test's failure, told there
            found = {"failed": traceback.format_exc()}
        took = round(time.monotonic() - began, 1)
        self._tell({"case": case, "seconds": took, **found})
        say(f"{case} took {took} s: {json.dumps(found)[:1500]}")

    def _tell(self, line: dict[str, Any]) -> None:
        self._port.write(json.dumps(line) + "\n")
        self._port.flush()
