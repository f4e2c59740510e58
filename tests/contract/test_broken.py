# SPDX-License-Identifier: Apache-2.0
"""The suite's one command on our own drivers, each with a promise broken: it fails, and says which."""

import os
import subprocess
import sys

import pytest

from tests.conftest import missing
from tests.contract.breakages import BREAK
from tests.lab.hypervisor import have_hypervisor
from tests.lab.paths import ROOT
from tests.lab.plain_qemu import have_qemu

pytestmark = pytest.mark.functional
FACTORIES = {
    "libvirt": "tests.contract.libvirt_guests:LibvirtFactory", "qmp": "tests.contract.qmp_guests:QmpFactory",
}  # fmt: skip


@pytest.mark.parametrize("driver", sorted(FACTORIES))
def test_a_broken_promise_is_noticed(driver: str) -> None:
    if not (have_hypervisor() and have_qemu()):
        missing("libvirt with QEMU")
    done = subprocess.run(
        [
            sys.executable, "-m", "hostagent.drivers.contract", "--driver", driver, "--factory", FACTORIES[driver],
            "-p", "tests.contract.breakages", "-k", "a_resize_is_in_bytes and 512",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600, env={**os.environ, BREAK: driver},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-1000:]
    assert "promises.py::test_a_resize_is_in_bytes[512]" in done.stdout
