# SPDX-License-Identifier: Apache-2.0
"""What every case is held to."""

import os
from typing import Any

import pytest

CELLS = [f"{state}_{way}" for state in ("running", "paused", "off") for way in ("connection", "local")]

in_the_vm = [pytest.mark.functional, pytest.mark.timeout(7200)]
"""Tests wait for the VM, on a busy machine for minutes; its silence ends them, see conftest."""


LONG = os.environ.get("EXTEND_BRIDGE_STORAGE") == "long"

long_form = pytest.mark.skipif(not LONG, reason="tools/test storage --long")
"""Cases that the short form leaves out: they take the VM minutes."""


RUNNING_CELLS = [cell if cell.startswith("running") else pytest.param(cell, marks=long_form) for cell in CELLS]
"""The cells, of which the short form takes those of a running guest."""


def grew(seen: dict[str, Any], state: str) -> None:
    """The report says so, and the guest itself printed it once it ran."""
    report = seen["report"]
    if state == "off":
        assert report["outcome"] == "guest_off", report
        assert seen["host"] == seen["wanted"] - seen.get("hidden", 0)
    else:
        assert report["outcome"] == "resized", report
        assert report["after_bytes"] == seen["wanted"]
    assert seen["guest"] == seen["wanted"] - seen.get("hidden", 0)


def held_back(seen: dict[str, Any], outcome: str, *words: str) -> None:
    """With connection data and without: the same outcome, its words, and a guest that kept its size."""
    for report in (seen["report"], seen["local"]):
        assert report["outcome"] == outcome, report
        assert all(word in report["detail"] for word in words), report["detail"]
        assert [step["name"] for step in report["steps"]][-1] != "resize"
    assert seen["guest"] == seen["before"]


def healed(seen: dict[str, Any]) -> None:
    """The same order again, once the cause is gone."""
    assert seen["healed"]["outcome"] == "resized", seen["healed"]
    assert seen["healed_guest"] == seen["wanted"]


def accepted_anew(seen: dict[str, Any]) -> None:
    """After a detach and a new attach the number's new volume is the guest's, also for the agent's next run."""
    grew(seen, "running")
    assert seen["again"]["outcome"] == "already", seen["again"]


def refused_always(seen: dict[str, Any], *words: str) -> None:
    """Every order ended as `refused`, none came to the resize, and the guest kept its size."""
    for when, report in seen["reports"].items():
        assert (report["outcome"], report["reason"]) == ("refused", "wrong_device"), (when, report)
        assert all(word in report["detail"] for word in words), (when, report["detail"])
        assert "resize" not in [step["name"] for step in report["steps"]], (when, report)
    assert seen["guest"] == seen["before"]
