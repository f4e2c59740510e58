# SPDX-License-Identifier: Apache-2.0
"""The parts of a cloud that every walk of tools/live needs: all real, on loopback."""

import base64
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from hostagent.drivers.libvirt.connect import open_libvirt
from tests.lab.broker_tls import TlsFiles, tls_node, tls_url
from tests.lab.ceph import USER, CephCluster
from tests.lab.databases import MariaDB
from tests.lab.keystone import Keystone
from tests.lab.libvirtd import private_libvirtd
from tests.live.bridge import PASSWORD, VHOST, BridgeSite
from tests.live.cinder import RealCinder
from tests.live.volumes import CinderUser

HOST: Final = "compute-1"
BUS_PARTS: Final = ("listener", "engine", "hostagent")
"""The parts with a broker user, in the order in which the users are made."""


class CloudGround:
    """Keystone, MariaDB, RabbitMQ that speaks TLS, Ceph with cephx, Cinder and a libvirtd."""

    def __init__(self, directory: Path, stack: ExitStack, *, token_seconds: int, nova_region: str) -> None:
        """`nova_region`: the region of the catalogue in which Cinder looks for Nova."""
        self.directory, self._stack = directory, stack
        self.keystone = Keystone(cached=True)
        stack.callback(self.keystone.close)
        self.keystone.start(token_seconds=token_seconds).populate()
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
        self.secret_id = str(uuid.uuid4())
        self.cinder = self._cinder(nova_region)
        self.keystone.offer("block-storage", f"{self.cinder.url}/%(project_id)s")
        self.libvirtd = stack.enter_context(private_libvirtd(directory / HOST, name=HOST))
        self.connection: Any = open_libvirt(self.libvirtd.uri)
        self._give_key()
        self.user = CinderUser(self.keystone, self.cinder, self.ceph, secret_id=self.secret_id)

    @property
    def rabbit(self) -> str:
        """The options of [oslo_messaging_rabbit] that an OpenStack service needs for the broker's TLS."""
        return f"ssl = true\nssl_ca_file = {self._ca}\n"

    @property
    def openstack_bus(self) -> str:
        """The transport_url of OpenStack's services."""
        return f"rabbit://guest:guest@localhost:{self._tls_port}/"

    def services(self) -> Iterator[tuple[str, Path]]:
        """Yield (name, directory with logs and configuration) of OpenStack's services."""
        yield "cinder", self.cinder.directory

    def bridge_url(self, user: str, vhost: str) -> str:
        """Return the transport_url of a broker user of the bridge."""
        url = tls_url(self._tls_port, vhost=vhost, ssl_ca_file=self._ca)
        return url.replace("guest:guest", f"{user}:{PASSWORD}")

    def configure_stand_alone(self, site: BridgeSite) -> None:
        """Write the configuration of a bridge without Nova, with the broker users that the site has.

        One process has its own SQLite and Cinder's own user of the broker, as its sample says.
        """
        one = site.directory / "state" / "journal.sqlite3"
        users = dict(zip(BUS_PARTS, site.users, strict=True))
        cinders, listeners = tls_url(self._tls_port, ssl_ca_file=self._ca), self.bridge_url(users["listener"], "")
        site.configure(
            {
                "notifications": {"transport_url": cinders if site.in_one else listeners},
                "journal": {"connection": f"sqlite:///{one}" if site.in_one else self.database.new_url()},
                "endpoint": {"endpoint_override": f"http://127.0.0.1:{site.api_port}/v2.1"},
                "cinder": self.auth(),
                "hostagent": {
                    "host": HOST, "libvirt_uri": self.libvirtd.uri, "state_path": str(site.directory / "state"),
                },
            },
            {part: self.bridge_url(user, VHOST) for part, user in users.items()},
        )  # fmt: skip

    def auth(self) -> Mapping[str, str]:
        """Return the options of a section that logs in to Keystone."""
        return {"auth_url": self.keystone.url, "username": "cinder", "password": self.keystone.password}

    def reconnect(self) -> None:
        """Connect again to a libvirtd that was restarted."""
        self.connection = open_libvirt(self.libvirtd.uri)

    def _cinder(self, nova_region: str) -> RealCinder:
        return self._stack.enter_context(
            RealCinder(
                keystone=self.keystone,
                ceph=self.ceph,
                database=self.database.new_url(),
                bus=self.openstack_bus,
                rabbit=self.rabbit,
                nova_region=nova_region,
                secret_id=self.secret_id,
            )
        )

    def _give_key(self) -> None:
        self.connection.secretDefineXML(
            f"<secret ephemeral='no' private='no'><uuid>{self.secret_id}</uuid>"
            f"<usage type='ceph'><name>client.{USER}</name></usage></secret>"
        ).setValue(base64.b64decode(self.ceph.key()))
