# SPDX-License-Identifier: Apache-2.0
"""Extend an attached volume of a running guest; the guest has to see the size without a restart."""

from pathlib import Path
from typing import Any, Final

from tempest import config, test
from tempest.common import waiters
from tempest.lib.common import api_microversion_fixture
from tempest.lib.common.utils import data_utils, test_utils
from tempest.lib.decorators import idempotent_id

from bridge.tempest.evidence import console_shows, size_on_hosts, wait_for

CONF: Final = config.CONF
_MICROVERSION: Final = "3.42"  # the first in which Cinder extends an attached volume
_GIB: Final = 1 << 30


class _GuestSizes(test.BaseTestCase):
    """The base of the tests: extends by 1 GiB, and waits until host and guest have the size."""

    @classmethod
    def skip_checks(cls) -> None:
        """Skip where Cinder is not there or cannot extend attached volumes."""
        super().skip_checks()
        if not CONF.service_available.cinder:
            raise cls.skipException("[service_available] cinder is false")
        if not CONF.volume_feature_enabled.extend_attached_volume:
            raise cls.skipException("[volume-feature-enabled] extend_attached_volume is false")

    def setUp(self) -> None:
        """Use the microversion of Cinder that extends attached volumes."""
        super().setUp()
        self.useFixture(api_microversion_fixture.APIMicroversionFixture(volume_microversion=_MICROVERSION))

    def extend(self, client: Any, volume_id: str) -> int:
        """Extend a volume by 1 GiB and wait until Cinder has done so; return the size in bytes."""
        size = client.show_volume(volume_id)["volume"]["size"] + 1
        client.extend_volume(volume_id, new_size=size)
        waiters.wait_for_volume_resource_status(client, volume_id, "in-use")
        found = client.show_volume(volume_id)["volume"]["size"]
        if found != size:
            self.fail(f"Cinder shows {found} GiB after the extend, not {size}")
        return int(size) * _GIB

    def wait_console(self, text: Any, size: int) -> None:
        """Wait until the console's text names a size."""
        patterns = CONF.extend_bridge.console_pattern
        if not wait_for(lambda: console_shows(text(), patterns, size), CONF.extend_bridge.seen_timeout):
            self.fail(f"no pattern of {patterns} matches the guest's console for {size} bytes: {text()[-2000:]}")

    def wait_host(self, volume_id: str, size: int) -> None:
        """Wait until the bridge's inventory has the size, where the operator CLI is configured."""
        command = CONF.extend_bridge.command
        if not command:
            return
        if not wait_for(lambda: size_on_hosts(command, volume_id) == size, CONF.extend_bridge.seen_timeout):
            self.fail(f"the guest has {size_on_hosts(command, volume_id)} bytes on its host, not {size}")


class ExtendAttachedBesideNovaTest(_GuestSizes):
    """A server of Nova with a volume."""

    credentials = ("primary",)

    @classmethod
    def skip_checks(cls) -> None:
        """Skip where there is no Nova, or no console to read."""
        super().skip_checks()
        if not CONF.service_available.nova:
            raise cls.skipException("[service_available] nova is false")
        if not CONF.compute_feature_enabled.console_output:
            raise cls.skipException("[compute-feature-enabled] console_output is false")

    @classmethod
    def setup_credentials(cls) -> None:
        """Ask for a network for the server."""
        cls.set_network_resources(network=True, subnet=True)
        super().setup_credentials()

    @idempotent_id("0f2f5f9e-6f0e-4f5e-9a55-3b0b6f7cbb9e")  # type: ignore[untyped-decorator, unused-ignore]
    def test_guest_sees_the_new_size(self) -> None:
        """Read the old size on the console after the attach, and the new size after the extend."""
        volumes, servers = self.os_primary.volumes_client_latest, self.os_primary.servers_client
        server_id = self._boot(servers)
        volume_id = self._attached(servers, volumes, server_id)

        def console() -> str:
            return str(servers.get_console_output(server_id)["output"])

        self.wait_console(console, volumes.show_volume(volume_id)["volume"]["size"] * _GIB)
        size = self.extend(volumes, volume_id)
        self.wait_console(console, size)
        self.wait_host(volume_id, size)

    def _boot(self, servers: Any) -> str:
        network = self.get_tenant_network()
        networks = {"networks": [{"uuid": network["id"]}]} if network else {}
        name = data_utils.rand_name("extend-bridge")
        server_id = str(
            servers.create_server(
                name=name, imageRef=CONF.compute.image_ref, flavorRef=CONF.compute.flavor_ref, **networks
            )["server"]["id"]
        )
        gone = test_utils.call_and_ignore_notfound_exc
        self.addCleanup(gone, waiters.wait_for_server_termination, servers, server_id)
        self.addCleanup(gone, servers.delete_server, server_id)
        waiters.wait_for_server_status(servers, server_id, "ACTIVE")
        return server_id

    def _attached(self, servers: Any, volumes: Any, server_id: str) -> str:
        made = volumes.create_volume(name=data_utils.rand_name("extend-bridge"), size=CONF.volume.volume_size)
        volume_id = str(made["volume"]["id"])
        self.addCleanup(volumes.wait_for_resource_deletion, volume_id)
        self.addCleanup(volumes.delete_volume, volume_id)
        waiters.wait_for_volume_resource_status(volumes, volume_id, "available")
        servers.attach_volume(server_id, volumeId=volume_id)
        self.addCleanup(waiters.wait_for_volume_resource_status, volumes, volume_id, "available")
        self.addCleanup(servers.detach_volume, server_id, volume_id)
        waiters.wait_for_volume_resource_status(volumes, volume_id, "in-use")
        return volume_id


class ExtendAttachedStandAloneTest(_GuestSizes):
    """A volume that is attached to a guest which Nova does not know."""

    credentials = ("admin",)

    @classmethod
    def skip_checks(cls) -> None:
        """Skip where no volume is configured, or nothing to read its size from."""
        super().skip_checks()
        if not CONF.extend_bridge.volume_id:
            raise cls.skipException("[extend_bridge] volume_id is not set")
        if not (CONF.extend_bridge.command or CONF.extend_bridge.console_file):
            raise cls.skipException("neither [extend_bridge] command nor console_file is set")

    @idempotent_id("d0f8b5f4-2a2e-4f9b-8a7f-6b5c6c2f6f0b")  # type: ignore[untyped-decorator, unused-ignore]
    def test_guest_sees_the_new_size(self) -> None:
        """Extend the configured volume; read the new size on the console and on the host."""
        volumes, volume_id = self.os_admin.volumes_client_latest, CONF.extend_bridge.volume_id
        size = self.extend(volumes, volume_id)
        console = CONF.extend_bridge.console_file
        if console:
            self.wait_console(lambda: Path(console).read_text(errors="replace"), size)
        self.wait_host(volume_id, size)
