# SPDX-License-Identifier: Apache-2.0
"""The set-up of the tools: pip downloads while apt installs, and compiles only after apt."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.lab import install

_LONG = 60  # seconds for what happens in moments


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the set-up of a bare machine does, in order; apt ends only after pip has begun."""
    done: list[str] = []
    downloads = threading.Event()

    def step(what: str, command: Sequence[str], *_: object, **__: object) -> bool:
        done.append(f"{what}: {' '.join(command)}")
        if what == "Python packages":
            downloads.set()
        return True

    def add_packages(wanted: Sequence[str]) -> None:
        if "gcc" in wanted:
            assert downloads.wait(_LONG), "pip waits for apt"
        done.append(f"apt {' '.join(wanted)}")

    monkeypatch.setattr(install, "VENV", tmp_path)
    monkeypatch.setattr(install, "LEFT_OUT", tmp_path / "left-out")
    monkeypatch.setattr(install, "_STAMP", tmp_path / "stamp")
    monkeypatch.setattr(install, "_step", step)
    monkeypatch.setattr(install, "add_packages", add_packages)
    monkeypatch.setattr(install, "_python_packages", lambda: ["python3-venv", "python3-dev"])
    return done


def test_pip_downloads_while_apt_installs_and_compiles_after_it(steps: list[str]) -> None:
    install.ensure(packages=["gcc", "libvirt-dev"], extras=["hostagent", "serving"])
    venv, made, downloaded, apt, project = steps
    assert venv == "apt python3-venv"
    assert made.startswith("virtualenv .venv")
    assert "os-brick" in downloaded
    assert "libvirt-python" not in downloaded
    assert "uWSGI" not in downloaded
    assert apt.startswith("apt gcc libvirt-dev")
    assert project.endswith("[hostagent,serving]")
