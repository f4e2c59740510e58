# SPDX-License-Identifier: Apache-2.0
"""As many volumes as the agent has workers on a share that hangs, and one healthy volume beside them."""

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Order
from bridge.core.outcome import Outcome
from hostagent.drivers.libvirt.connect import open_libvirt
from tests.conftest import missing
from tests.functional.libvirtd.conftest import GIB, Machine
from tests.lab.agent import wait_for
from tests.lab.guest import new_guest
from tests.lab.luks import PASSPHRASE, make_luks_image
from tests.lab.waiting import until

pytestmark = pytest.mark.functional
_VOLUMES: Final = 8  # [hostagent] workers
MIB: Final = 1 << 20


@dataclass(slots=True)
class _OnShare:
    """A LUKS1 volume that QEMU decrypts, in a file of the share."""

    path: Path
    secret_id: str
    volume_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def xml(self, target: str) -> str:
        """As Nova writes it."""
        secret = f"<encryption format='luks'><secret type='passphrase' uuid='{self.secret_id}'/></encryption>"
        return (
            f"<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='{self.path}'>{secret}"
            f"</source><target dev='{target}' bus='virtio'/><serial>{self.volume_id}</serial></disk>"
        )

    def grow(self, size: int) -> None:
        """The backend is not needed."""

    def close(self) -> None:
        """Nothing is held."""


@contextmanager
def _share(directory: Path, names: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """Files that a FUSE server of QEMU's serves: stopped, it is a share that hangs."""
    served, kept = directory / "share", directory / "kept"
    served.mkdir()
    kept.mkdir()
    command = ["qemu-storage-daemon"]
    for number, name in enumerate(names):
        image, mount = kept / name, served / name
        mount.touch()
        if number == 0:
            make_luks_image(image, "64M")
        else:
            shutil.copy(kept / names[0], image)
        command += ["--blockdev", f"driver=file,node-name=f{number},filename={image},locking=off"]
        export = f"type=fuse,id=e{number},node-name=f{number},mountpoint={mount},writable=on,growable=on"
        command += ["--export", f"{export},allow-other=off"]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield server
    finally:
        server.send_signal(signal.SIGCONT)
        for name in names:
            subprocess.run(["umount", "-l", served / name], check=False, capture_output=True)
        server.kill()
        server.wait()


def test_a_hung_share_costs_its_own_volumes_and_no_others(machine: Machine) -> None:
    """The healthy guest's order is done, the inventory goes on, the checks name the share; all heals with it."""
    if shutil.which("qemu-storage-daemon") is None or not os.access("/dev/fuse", os.W_OK):
        missing("qemu-storage-daemon with FUSE")
    names = [f"v{number}" for number in range(_VOLUMES)]
    server = machine.stack.enter_context(_share(machine.directory, names))
    secret_id = str(uuid.uuid4())
    hung = [_OnShare(machine.directory / "share" / name, secret_id) for name in names]
    wait_for_files(hung)
    host = machine.libvirtd()  # has a mount namespace of its own, and sees what was mounted before
    libvirt: Any = open_libvirt(host.uri)
    libvirt.secretDefineXML(
        f"<secret ephemeral='yes' private='yes'><uuid>{secret_id}</uuid><usage type='volume'>"
        f"<volume>{secret_id}</volume></usage></secret>"
    ).setValue(PASSPHRASE)
    stuck = new_guest(hung, machine.directory)
    healthy, _disk = machine.guest()
    domains = [libvirt.createXML(guest.xml(), 0) for guest in (stuck, healthy)]
    stuck.wait_ready()
    healthy.wait_size(GIB)
    server.send_signal(signal.SIGSTOP)
    agent = machine.agent(host, "inventory_interval = 2\nlibvirt_limit = 3\nstorage_limit = 1")
    orders = [
        Order(attempt_id=new_id(), key=ExtendKey(stuck.server_id, disk.volume_id), gen=1, target=Bytes(128 * MIB))
        for disk in hung
    ]
    machine.cast(host.name, [order.to_wire() for order in orders])
    report = machine.extend(agent, healthy, 2 * GIB)
    assert report.outcome is Outcome.RESIZED, report
    healthy.wait_size(2 * GIB)
    before = len(machine.reports.messages)

    def listed_again() -> bool:
        machine.reports.drain()
        newer = [message.inventory for message in machine.reports.messages[before:]]
        return any(inventory is not None and inventory.full for inventory in newer)

    wait_for(listed_again, agent)
    assert machine.reports.domains(host.name).keys() >= {stuck.server_id, healthy.server_id}
    for order in orders:
        answer = wait_for(lambda order=order: machine.reports.report(order.attempt_id), agent)  # type: ignore[misc]
        assert answer is not None
        assert answer.outcome in {Outcome.DEVICE_STALE, Outcome.HYPERVISOR_FAILED, Outcome.BUSY}, answer
    assert "abandoned" in str(agent.checks()["hostagent.libvirt_calls"]["reason"])
    server.send_signal(signal.SIGCONT)
    wait_for(lambda: agent.checks()["hostagent.libvirt_calls"]["reason"] == "ok", agent)
    assert machine.extend(agent, stuck, 128 * MIB).outcome is Outcome.RESIZED, "it heals with its share"
    for domain in domains:
        with suppress(Exception):
            domain.destroy()
    libvirt.close()


def wait_for_files(volumes: Sequence[_OnShare]) -> None:
    """Wait until the server serves all of them."""
    until(lambda: all(volume.path.read_bytes()[:4] == b"LUKS" for volume in volumes), "the share is served")
