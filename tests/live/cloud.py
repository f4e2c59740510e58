# SPDX-License-Identifier: Apache-2.0
"""The cloud of tools/live without Nova: a guest per step; the bridge installed stand-alone."""

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from bridge.core.extend import gib
from tests.lab.guest import Guest, new_guest
from tests.lab.waiting import until
from tests.live.bridge import ALL_IN_ONE, BridgeSite, install
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
        self._programs = programs
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

    def new_guest(self, volume_id: str | None = None) -> tuple[Guest, LiveVolume]:
        """Start a guest with a volume; return both once the guest prints the size.

        `volume_id`: a volume that is there; by default one of 1 GiB is made.
        """
        server_id = str(uuid.uuid4())
        volume = self.user.attach(volume_id or self.user.create(1), server_id, HOST)
        guest = new_guest([volume], self.directory, server_id=server_id)
        self.connection.defineXML(guest.xml())
        self.domain(guest).create()
        guest.wait_size(gib(volume.size))
        return guest, volume

    def domain(self, guest: Guest) -> Any:
        """Return the guest's virDomain."""
        return self.connection.lookupByUUIDString(guest.server_id)

    def remove(self, guest: Guest, volume: LiveVolume) -> None:
        """End the guest and delete its volume."""
        self.end_guest(guest, volume)
        self.user.delete(volume.volume_id)

    def end_guest(self, guest: Guest, volume: LiveVolume) -> None:
        """End the guest and detach its volume."""
        domain = self.domain(guest)
        if domain.isActive():
            domain.destroy()
        domain.undefine()
        self.user.detach(volume)

    @contextmanager
    def all_in_one(self) -> Iterator[BridgeSite]:
        """Run the one process in the place of the four, with a journal of its own."""
        home = Path(tempfile.mkdtemp(prefix="one-", dir=self.directory))
        for place in ("control", "hypervisor"):
            (home / place).symlink_to(self.bridge.directory / place)
        site = BridgeSite(home, self._programs, self.broker, HOST, parts=(ALL_IN_ONE,), deployment=ALL_IN_ONE)
        site.users = self.bridge.users
        self.configure_stand_alone(site)
        four, self.bridge = self.bridge, site
        four.close()
        try:
            site.start()
            site.wait_ready()
            yield site
        finally:
            site.close()
            self.bridge = four
            four.start()
            four.wait_ready()

    def events(self, state: str | None = None) -> str:
        """Return the open extends, as an operator lists them."""
        more = () if state is None else ("--state", state)
        part = self.bridge.journal_part
        conf = str(self.bridge.conf(part))
        return self.bridge.run(
            "extend-bridge", "--config-file", conf, "event", "list", "-f", "json", *more, part=part
        )

    def wait_closed(self) -> None:
        """Wait until the journal has no open extend."""
        until(lambda: self.events().strip() == "[]", lambda: f"no extend is open: {self.events()}")
