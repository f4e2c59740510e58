# SPDX-License-Identifier: Apache-2.0
"""The agent as an ordinary user with sudo, as etc/sudoers.d allows it, beside a real libvirtd and a real device."""

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from bridge.core.outcome import Outcome
from hostagent.drivers.libvirt.connect import open_libvirt
from tests.conftest import missing
from tests.functional.libvirtd.conftest import GIB, Machine
from tests.lab.disks import LoopDevice
from tests.lab.ordinary_user import HELPER, SUDOERS, USER, as_ordinary_user, have_sudo

pytestmark = pytest.mark.functional

FINE = ("--privsep_context", "os_brick.privileged.default", "--privsep_sock_path", "/tmp/tmpabcd_123/privsep.sock")


@pytest.fixture(autouse=True)
def _sudo() -> None:
    if not have_sudo():
        missing("sudo and util-linux, as root")


def test_an_extend_works_as_an_ordinary_user(machine: Machine) -> None:
    """os-brick's command on the device goes through sudo: the user itself may not even open it."""
    prefix = as_ordinary_user(machine.directory)
    state = machine.directory / "state"
    state.mkdir()
    os.chown(state, pwd.getpwnam(USER).pw_uid, -1)
    host = machine.libvirtd()
    guest, disk = machine.guest("disk", LoopDevice)
    machine.stack.callback(disk.close)
    libvirt = open_libvirt(host.uri)
    libvirt.createXML(guest.xml(), 0)
    libvirt.close()
    guest.wait_size(GIB)
    agent = machine.agent(host, prefix=prefix)
    assert Path(f"/proc/{agent.pid}").stat().st_uid == pwd.getpwnam(USER).pw_uid
    disk.grow(2 * GIB)
    report = machine.extend(agent, guest, 2 * GIB)
    assert (report.outcome, report.before, report.after) == (Outcome.RESIZED, GIB, 2 * GIB), report
    guest.wait_size(2 * GIB)
    assert agent.end() == 0


def test_sudo_takes_our_rules() -> None:
    """As they are shipped."""
    done = subprocess.run(["visudo", "-c", "-f", str(SUDOERS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("command", "allowed"),
    [
        ([str(HELPER), *FINE], True),
        (["/usr/bin/id"], False),
        ([str(HELPER)], False),
        ([str(HELPER), "--config-file", "/tmp/mine", *FINE], False),
        ([str(HELPER), *FINE, "--config-file", "/tmp/mine"], False),
        ([str(HELPER), FINE[0], "os.system", *FINE[2:]], False),
        ([str(HELPER), *FINE[:3], "/tmp/tmpabc/../../etc/privsep.sock"], False),
    ],
)
def test_sudo_lets_the_helper_through_with_its_arguments_alone(
    tmp_path: Path, command: Sequence[str], allowed: bool
) -> None:
    """`sudo -l COMMAND` says whether it would run it."""
    prefix = as_ordinary_user(tmp_path)
    asked = subprocess.run([*prefix, "sudo", "-n", "-l", *command], capture_output=True, text=True, check=False)
    assert (asked.returncode == 0) is allowed, asked.stdout + asked.stderr
