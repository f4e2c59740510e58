# SPDX-License-Identifier: Apache-2.0
"""A cloud of one guest: its volume of 1 GiB, a Cinder that knows it, and the settings of a bridge for them."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bridge.core.extend import gib, new_id
from bridge.standin.cinder import Attachment, StandInCinder
from tests.functional.conftest import Vhost
from tests.lab.agent_socket import Reply, SocketAgent
from tests.lab.cinder_bus import resize_end
from tests.lab.deploy import Site
from tests.lab.disks import Disk, Qcow2File
from tests.lab.guest import Guest, new_guest
from tests.lab.hypervisor import Hypervisor, private_hypervisor
from tests.lab.waiting import LONGEST

HOST = "host-1"


@dataclass(kw_only=True)
class SmallCloud:
    """Guest, volume, Cinder and site. No daemon of the bridge runs yet."""

    hypervisor: Hypervisor
    guest: Guest
    disk: Disk
    cinder: StandInCinder
    attachment_id: str
    site: Site

    def grow(self, size: int) -> tuple[bytes, str]:
        """Grow the volume (GiB) as Cinder does; return the notification and the id of the user's request."""
        self.cinder.extend(self.disk.volume_id, size)
        return self.notification(size)

    def notification(self, size: int) -> tuple[bytes, str]:
        """Return a notification that the volume has grown to `size` GiB, and its request id."""
        return resize_end(
            volume_id=self.disk.volume_id,
            server_id=self.guest.server_id,
            attachment_id=self.attachment_id,
            host=HOST,
            size=size,
        )

    def show_logs(self) -> None:
        """Print the end of each log: pytest shows it with a test that failed."""
        for log in sorted(self.site.directory.glob("*.log")):
            print(f"--- {log.name}")
            print("".join(log.read_text(errors="replace").splitlines(keepends=True)[-40:]))


def small_cloud(
    stack: ExitStack, vhost: Vhost, *, extra: str = "", patience: float = LONGEST, agent: Reply | None = None
) -> SmallCloud:
    """Return a cloud that lives as long as `stack`. `extra`: lines of the bridge's configuration.

    `agent`: the replies of the guest's agent; without them the guest has none.
    """
    directory = Path(stack.enter_context(TemporaryDirectory(prefix="eb-")))
    channel = directory / "agent" if agent is not None else None
    if agent is not None and channel is not None:
        stack.enter_context(SocketAgent(channel, agent))
    hypervisor = stack.enter_context(private_hypervisor(directory / "lv"))
    disk = Qcow2File(directory / "volume.qcow2", gib(1))
    guest = new_guest([disk], directory, agent=channel)
    hypervisor.start(guest.xml())
    guest.wait_size(gib(1), seconds=patience)
    cinder, attachment_id = StandInCinder(), new_id()
    info = {"driver_volume_type": "nfs", "format": "qcow2"}
    attachment = Attachment(id=attachment_id, server_id=guest.server_id, host=HOST, connection_info=info)
    cinder.add_volume(disk.volume_id, 1, attachment)
    server = cinder.server()
    server.start()
    stack.callback(lambda: (server.stop(), server.join(120)))
    site = Site(
        directory=directory,
        bus_url=vhost.url,
        cinder_url=f"{server.url}/v3",
        libvirt_uri=hypervisor.uri,
        host=HOST,
        extra=extra,
    )
    cloud = SmallCloud(
        hypervisor=hypervisor,
        guest=guest,
        disk=disk,
        cinder=cinder,
        attachment_id=attachment_id,
        site=site,
    )
    stack.callback(cloud.show_logs)
    return cloud
