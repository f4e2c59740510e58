# SPDX-License-Identifier: Apache-2.0
"""The cloud of tools/live: every service real, on loopback; a guest per step; the bridge beside them."""

import base64
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from hostagent.drivers.libvirt.connect import open_libvirt
from tests.lab.broker_tls import TlsFiles, tls_node, tls_url
from tests.lab.ceph import USER, CephCluster
from tests.lab.databases import MariaDB
from tests.lab.guest import Guest, new_guest
from tests.lab.keystone import Keystone
from tests.lab.libvirtd import private_libvirtd
from tests.lab.waiting import until
from tests.live.bridge import PASSWORD, VHOST, BridgeSite, install
from tests.live.cinder import RealCinder
from tests.live.volumes import CinderUser, LiveVolume

HOST: Final = "compute-1"
TOKEN_SECONDS: Final = 60
"""The life of a token: each service has to get new ones during the walk."""
_NO_NOVA: Final = "http://127.0.0.1:9/v2.1"
"""The catalogue's compute endpoint: Cinder's own call is lost, and the listener is the only way."""


class LiveCloud:
    """Everything that runs. `programs`: a virtualenv's bin to take the bridge from, None to install it."""

    def __init__(self, directory: Path, stack: ExitStack, *, programs: Path | None) -> None:
        self.directory, self._stack = directory, stack
        self.keystone = Keystone(cached=True)
        stack.callback(self.keystone.close)
        self.keystone.start(token_seconds=TOKEN_SECONDS).populate()
        self.database = stack.enter_context(MariaDB())
        tls = TlsFiles(directory / "tls")
        self.broker, self._tls_port = tls_node(tls)
        self._ca = tls.ca
        stack.callback(self.broker.close)
        self.broker.start()
        self.broker.ctl("add_vhost", VHOST)
        self.ceph = CephCluster()
        stack.callback(self.ceph.stop)
        self.ceph.start()
        self.cinder = self._cinder()
        self.keystone.offer("block-storage", f"{self.cinder.url}/%(project_id)s")
        self.keystone.offer("compute", _NO_NOVA)
        self.libvirtd = stack.enter_context(private_libvirtd(directory / HOST, name=HOST))
        self.connection: Any = open_libvirt(self.libvirtd.uri)
        self._secret = str(uuid.uuid4())
        self._give_key()
        self.user = CinderUser(self.keystone, self.cinder, self.ceph, secret_id=self._secret)
        self.bridge = self._bridge(programs)

    def _cinder(self) -> RealCinder:
        return self._stack.enter_context(
            RealCinder(
                keystone=self.keystone,
                ceph=self.ceph,
                database=self.database.new_url(),
                bus=f"rabbit://guest:guest@localhost:{self._tls_port}/",
                rabbit=f"ssl = true\nssl_ca_file = {self._ca}\n",
            )
        )

    def _give_key(self) -> None:
        self.connection.secretDefineXML(
            f"<secret ephemeral='no' private='no'><uuid>{self._secret}</uuid>"
            f"<usage type='ceph'><name>client.{USER}</name></usage></secret>"
        ).setValue(base64.b64decode(self.ceph.key()))

    def _bridge(self, programs: Path | None) -> BridgeSite:
        home = self.directory / "bridge"
        home.mkdir()
        if programs is None:
            install(home)
        site = BridgeSite(home, programs, self.broker, HOST)
        self._stack.callback(site.close)
        site.make_broker_users()
        users = dict(zip(("listener", "engine", "hostagent"), site.users, strict=True))
        site.configure(
            {
                "notifications": {"transport_url": self._url(users["listener"], "")},
                "journal": {"connection": self.database.new_url()},
                "endpoint": {"endpoint_override": f"http://127.0.0.1:{site.api_port}/v2.1"},
                "cinder": {
                    "auth_url": self.keystone.url, "username": "cinder", "password": self.keystone.password,
                },
                "hostagent": {
                    "host": HOST, "libvirt_uri": self.libvirtd.uri, "state_path": str(home / "state"),
                },
            },
            {part: self._url(user, VHOST) for part, user in users.items()},
        )  # fmt: skip
        site.run("extend-bridge-manage", "--config-file", str(site.conf("api")), "db", "sync")
        site.start()
        site.wait_ready("api", "engine", "hostagent")
        self.user.delete(self.user.create(1))  # Cinder declares its queue with its first notification
        site.wait_ready()
        return site

    def _url(self, user: str, vhost: str) -> str:
        url = tls_url(self._tls_port, vhost=vhost, ssl_ca_file=self._ca)
        return url.replace("guest:guest", f"{user}:{PASSWORD}")

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

    def reconnect(self) -> None:
        """Connect again to a libvirtd that was restarted."""
        self.connection = open_libvirt(self.libvirtd.uri)

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
