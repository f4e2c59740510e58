# SPDX-License-Identifier: Apache-2.0
"""File systems on their way from a guest's agent to the operator: four daemons, a real broker, a real libvirt."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Final

import pytest

from bridge.cli.app import main
from bridge.core.extend import gib
from bridge.journal.file_systems import FileSystems
from tests.conftest import missing
from tests.functional.conftest import Vhost
from tests.functional.small_cloud import SmallCloud, small_cloud
from tests.lab.deploy import Deployment, run_processes
from tests.lab.hypervisor import have_hypervisor
from tests.lab.played_guest import PlayedGuest, reply_of
from tests.lab.waiting import until

pytestmark = pytest.mark.functional
_GIB: Final = 1024  # MiB


class SeenCloud:
    """A small cloud whose guest has an ext4 on the last partition of its volume; its agent is played."""

    def __init__(self, stack: ExitStack, vhost: Vhost) -> None:
        self.inside = PlayedGuest(disk=_GIB, partition=_GIB - 1, covered=_GIB - 1)
        self.small: SmallCloud = small_cloud(
            stack, vhost, extra="[guest]\nfilesystems = grow", agent=reply_of(self.inside)
        )
        self.inside.serial = self.small.disk.volume_id[:20]
        self.bridge: Deployment = run_processes(self.small.site, stack)
        until(lambda: self.small.site.knows(self.small.guest.server_id), "the guest is known")

    def extend(self, size: int) -> str:
        """Grow the volume (GiB); return the id of the user's request."""
        self.inside.disk = size * _GIB
        body, request_id = self.small.grow(size)
        self.bridge.bus.publish(body)
        self.small.guest.wait_size(gib(size))
        return request_id

    def wait_state(self, state: str, size: int) -> None:
        """Wait until the journal has the volume's file system in this state, on a disk of so many GiB."""
        until(lambda: self._states() == {state: gib(size)}, lambda: f"{state}: {self._states()}")

    def _states(self) -> dict[str, Any]:
        journal = self.small.site.journal()
        try:
            found = FileSystems(journal.database)
            rows = {row.seen.state.value: row.seen.disk for row in found.behind(limit=10)}
            return rows or dict.fromkeys(found.counts(), gib(self.inside.disk // _GIB))
        finally:
            journal.database.dispose()

    def told(self) -> list[dict[str, Any]]:
        """Return the lines of the audit log about file systems."""
        lines = map(json.loads, self.small.site.audit_file.read_text().splitlines())
        return [line for line in lines if line["event"] == "filesystem"]


@pytest.fixture
def cloud(vhost: Vhost) -> Iterator[SeenCloud]:
    """Everything ready, the guest known."""
    if not have_hypervisor():
        missing("QEMU, libvirt or gcc")
    with ExitStack() as stack:
        yield SeenCloud(stack, vhost)


def test_a_file_system_that_stays_behind_is_shown_and_grows_when_its_owner_asks(
    cloud: SeenCloud, capsys: pytest.CaptureFixture[str]
) -> None:
    conf, volume_id = str(cloud.small.site.conf), cloud.small.disk.volume_id
    cloud.extend(2)
    cloud.wait_state("behind", 2)
    assert cloud.inside.ran == [], "nobody asked: no command runs in the guest"
    assert main(["behind", "--filesystem", "-f", "json", "--config-file", conf]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["Volume"], row["State"], row["Type"], row["Layout"]) == (volume_id, "behind", "ext4", "partition")

    cloud.small.cinder.volumes.change(volume_id, metadata={"extend_bridge_grow": "true"})
    request_id = cloud.extend(3)
    cloud.wait_state("grown", 3)
    assert cloud.inside.touched == ["growpart", "resize2fs"]
    until(lambda: any(line.get("reason") == "fs_grown" for line in cloud.told()), "the line of the growth")
    (grown,) = [line for line in cloud.told() if line.get("reason") == "fs_grown"]
    assert request_id in json.dumps(grown), "under the request of the owner"
    assert main(["behind", "--filesystem", "-f", "json", "--config-file", conf]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert main(["status", "-f", "json", "--config-file", conf]) in {0, 1}
    assert '"file systems seen": 1' in capsys.readouterr().out.replace("'", '"')
