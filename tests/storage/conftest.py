# SPDX-License-Identifier: Apache-2.0
"""One VM for the whole run: it works the cases off in its own order, the tests read what each saw."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import missing
from tests.lab.storage_vm.machine import Machine, lacking, running_machine
from tests.storage.checks import LONG

Case = Callable[[str], dict[str, Any]]
_SILENCE = 1800.0  # seconds from one case to the next, boot included; a busy machine runs the VM ten times slower


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    """The VM."""
    if (what := lacking()) is not None:
        missing(what)
    with (
        tempfile.TemporaryDirectory(prefix="eb-vm-") as directory,
        running_machine(Path(directory), form="long" if LONG else "short") as running,
    ):
        yield running


@pytest.fixture
def case(machine: Machine) -> Case:
    """What one case saw."""

    def get(name: str) -> dict[str, Any]:
        found = machine.result(name, silence=_SILENCE)
        assert "failed" not in found, found["failed"]
        return found

    return get
