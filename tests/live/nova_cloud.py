# SPDX-License-Identifier: Apache-2.0
"""The cloud of tools/live --nova: a whole Nova extends; the bridge posts to it and observes."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final

from tests.lab.guest import Guest
from tests.live.bridge import VHOST, BridgeSite, install
from tests.live.edge import EdgeStandIn
from tests.live.ground import BUS_PARTS, HOST, CloudGround
from tests.live.nova import NovaServices
from tests.live.servers import NovaUser
from tests.live.volumes import LiveVolume

_TOKEN_SECONDS: Final = 3600
_NO_NOVA: Final = "http://127.0.0.1:9/v2.1"


class NovaRegion(StrEnum):
    """Regions in which Cinder looks for Nova."""

    TRUE = "RegionOne"  # Cinder tells Nova itself
    CUT = "RegionCut"  # nothing answers there: Cinder's own call is lost


class NovaCloud(CloudGround):
    """Everything that runs. `programs`: a virtualenv's bin to take the bridge from, None to install it."""

    def __init__(self, directory: Path, stack: ExitStack, *, programs: Path | None) -> None:
        super().__init__(directory, stack, token_seconds=_TOKEN_SECONDS, nova_region=NovaRegion.CUT)
        edge = stack.enter_context(EdgeStandIn())
        self.nova = NovaServices(self, edge.root)
        self.keystone.offer("compute", _NO_NOVA, region=NovaRegion.CUT)
        self.keystone.offer("compute", self.nova.url)
        self.keystone.offer("image", edge.root)
        self.keystone.offer("network", edge.root)
        stack.enter_context(self.nova)
        self.operator = NovaUser(self.keystone, self.nova, self.user, self.ceph)
        self.operator.wait_compute()
        self.operator.make_flavor()
        self._programs = programs
        self.bridge = self._bridge(programs)

    def services(self) -> Iterator[tuple[str, Path]]:
        """Yield (name, directory with logs and configuration) of OpenStack's services."""
        yield from super().services()
        yield "nova", self.nova.directory

    def new_guest(self) -> tuple[Guest, LiveVolume]:
        """Boot a server with a volume of 1 GiB; return both once the guest prints the size."""
        guest = self.operator.boot()
        return guest, self.operator.attach(guest, self.user.create(1))

    def remove(self, guest: Guest, volume: LiveVolume) -> None:
        """Delete the server and its volume."""
        self.operator.delete(guest)
        self.user.wait_status(volume.volume_id, "available")
        self.user.delete(volume.volume_id)

    @contextmanager
    def stand_alone(self) -> Iterator[BridgeSite]:
        """Run a bridge that extends by itself, without Nova, in the place of the bridge that observes."""
        home = Path(tempfile.mkdtemp(prefix="stand-alone-", dir=self.directory))
        for place in ("control", "hypervisor"):
            (home / place).symlink_to(self.bridge.directory / place)
        site = BridgeSite(home, self._programs, self.broker, HOST)
        site.users = self.bridge.users
        self.configure_stand_alone(site)
        site.run("extend-bridge-manage", "--config-file", str(site.conf("api")), "db", "sync")
        self.bridge.close()
        try:
            site.start()
            site.wait_ready()
            yield site
        finally:
            site.close()
            self.bridge.start()
            self.bridge.wait_ready()

    def _bridge(self, programs: Path | None) -> BridgeSite:
        home = self.directory / "bridge"
        home.mkdir()
        if programs is None:
            install(home)
        site = BridgeSite(home, programs, self.broker, HOST, parts=BUS_PARTS, deployment="beside-nova")
        self._stack.callback(site.close)
        site.make_broker_users()
        users = dict(zip(BUS_PARTS, site.users, strict=True))
        nova = {**self.auth(), "region_name": NovaRegion.TRUE.value}
        site.configure(
            {
                "notifications": {"transport_url": self.bridge_url(users["listener"], "")},
                "journal": {"connection": self.database.new_url()},
                "endpoint": nova,
                "nova": nova,
                "cinder": self.auth(),
                "engine": {"reconcile_interval": "10", "observe_wait": "5", "retry_first": "2"},
                "hostagent": {
                    "host": HOST, "libvirt_uri": self.libvirtd.uri, "state_path": str(home / "state"),
                    "inventory_interval": "5",
                },
            },
            {part: self.bridge_url(user, VHOST) for part, user in users.items()},
        )  # fmt: skip
        site.run("extend-bridge-manage", "--config-file", str(site.conf("engine")), "db", "sync")
        site.start()
        site.wait_ready("engine", "hostagent")
        self.user.delete(self.user.create(1))  # Cinder declares its queue with its first notification
        site.wait_ready()
        return site
