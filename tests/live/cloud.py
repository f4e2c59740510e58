# SPDX-License-Identifier: Apache-2.0
"""The cloud of tools/live without Nova: a guest per step; the bridge installed stand-alone."""

import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from tests.lab.guest import Guest, new_guest
from tests.lab.waiting import until
from tests.live.bridge import BridgeSite, install
from tests.live.ground import HOST, CloudGround
from tests.live.volumes import LiveVolume

TOKEN_SECONDS: Final = 60
"""The life of a token: each service has to get new ones during the walk."""
_NO_NOVA: Final = "http://127.0.0.1:9/v2.1"
"""The catalogue's compute endpoint: Cinder's own call is lost, and the listener is the only way."""


class LiveCloud(CloudGround):
    """Everything that runs. `programs`: a virtualenv's bin to take the bridge from, None to install it."""

    def __init__(self, directory: Path, stack: ExitStack, *, programs: Path | None) -> None:
        super().__init__(directory, stack, token_seconds=TOKEN_SECONDS, nova_region="RegionOne")
        self.keystone.offer("compute", _NO_NOVA)
        self.bridge = self._bridge(programs)

    def _bridge(self, programs: Path | None) -> BridgeSite:
        home = self.directory / "bridge"
        home.mkdir()
        if programs is None:
            install(home)
        site = BridgeSite(home, programs, self.broker, HOST)
        self._stack.callback(site.close)
        site.make_broker_users()
        self.configure_stand_alone(site)
        site.run("extend-bridge-manage", "--config-file", str(site.conf("api")), "db", "sync")
        site.start()
        site.wait_ready("api", "engine", "hostagent")
        self.user.delete(self.user.create(1))  # Cinder declares its queue with its first notification
        site.wait_ready()
        return site

    def new_guest(self) -> tuple[Guest, LiveVolume]:
        """Start a guest with a volume of 1 GiB; return both once the guest prints the size."""
        server_id = str(uuid.uuid4())
        volume = self.user.attach(self.user.create(1), server_id, HOST)
        guest = new_guest([volume], self.directory, server_id=server_id)
        self.connection.defineXML(guest.xml())
        self.domain(guest).create()
        guest.wait_size(1 << 30)
        return guest, volume

    def domain(self, guest: Guest) -> Any:
        """Return the guest's virDomain."""
        return self.connection.lookupByUUIDString(guest.server_id)

    def remove(self, guest: Guest, volume: LiveVolume) -> None:
        """End the guest and delete its volume."""
        domain = self.domain(guest)
        if domain.isActive():
            domain.destroy()
        domain.undefine()
        self.user.detach(volume)
        self.user.delete(volume.volume_id)

    def events(self, state: str | None = None) -> str:
        """Return the open extends, as an operator lists them."""
        more = () if state is None else ("--state", state)
        return self.bridge.run(
            "extend-bridge", "--config-file", str(self.bridge.conf("engine")), "event", "list", "-f", "json", *more
        )

    def wait_closed(self) -> None:
        """Wait until the journal has no open extend."""
        until(lambda: self.events().strip() == "[]", lambda: f"no extend is open: {self.events()}")
