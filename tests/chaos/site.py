# SPDX-License-Identifier: Apache-2.0
"""The installation under test: a configuration file for each process, and patience short enough for a run."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.gray_plan import Service
from tests.chaos.members import Daemon
from tests.chaos.options import Break
from tests.chaos.part import BREAK, DROP
from tests.lab.paths import ROOT
from tests.lab.ports import steady_port

HOST: Final = "chaos-host-"

_CONF: Final = """\
[bus]
transport_url = {bus}
heartbeat = {heartbeat}
[notifications]
transport_url = {notifications}
[audit]
file = {audit}
[journal]
connection = {journal}
[cinder]
auth_type = none
endpoint_override = {cinder}/v3
timeout = 3
[endpoint]
auth_type = none
endpoint_override = {endpoint}
timeout = 3
[listener]
retry_cap = 3
hold_seconds = 2
ops_port = {ops_port}
[api]
bind_port = {api_port}
wake_port = {wake_port}
ops_port = {ops_port}
[nova]
auth_type = none
endpoint_override = {endpoint}
[engine]
mode = {mode}
reconcile_interval = {reconcile}
reconcile_page = 50
reconcile_pause = 0.1
reconcile_opens = 6000
wake_port = {wake_port}
report_within = 10
host_timeout = 5
overdue_after = 60
retry_first = 0.2
retry_cap = 5
ops_port = {ops_port}
[hostagent]
host = {host}
read_only = {read_only}
observe_wait = 0.5
libvirt_uri = chaos://{state}
state_path = {state}
workers = 8
libvirt_limit = 2
device_wait = 3
nudge_every = 1
inventory_interval = 10
heartbeat_interval = 1
ops_port = {ops_port}
"""

_KEYSTONE_CONF: Final = """\
[api]
auth_strategy = keystone
[locator]
driver = nova
cache_seconds = 1
[nova]
timeout = 3
"""
_LOGIN: Final = """\
[{group}]
auth_type = password
auth_url = {keystone}
username = u
password = p
user_domain_id = default
project_name = service
project_domain_id = default
"""
_LOGINS: Final = ("endpoint", "cinder", "nova", "keystone_authtoken")


def straight(_process: str, _service: Service, url: str) -> str:
    """Return the URL as it is: no proxy."""
    return url


@dataclass(frozen=True, kw_only=True)
class Site:
    """A directory and the URLs of what the parts need. An API serves the listener of its own number."""

    directory: Path
    bus: str
    journal: str
    cinder: str
    planted: Break | None
    reconcile: float = 0  # seconds from pass to pass, 0: never
    nova: str | None = None  # URL of a Nova that extends, beside which the bridge only looks
    through: Callable[[str, Service, str], str] = straight  # the way of a process to a service
    heartbeat: int = 8
    keystone: str | None = None  # URL; None: no tokens
    located_by: str | None = None  # URL of the Nova that the engines ask where a server is, None: by inventory
    api_urls: dict[str, str] = field(default_factory=dict)  # of each API, once its configuration is written

    def daemons(self, names: Sequence[str]) -> dict[str, Daemon]:
        """A process for each name, its configuration written, not started."""
        numbers = {name: name.rpartition("-")[2] for name in names}
        api_ports = {number: steady_port() for number in numbers.values()}
        wake_port = steady_port()
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            DROP: str(self.dropping),
            **({BREAK: self.planted.value} if self.planted else {}),
        }
        daemons = {}
        for name in names:
            state = self.state(numbers[name])
            state.mkdir(exist_ok=True)
            conf, ops_port = self.directory / f"{name}.conf", steady_port()
            text = (
                _CONF.format(
                    bus=self.through(name, Service.BUS, self.bus), audit=self.audit(name),
                    notifications=self.through(name, Service.NOTIFICATIONS, self.bus), heartbeat=self.heartbeat,
                    journal=self.through(name, Service.JOURNAL, self.journal),
                    cinder=self.through(name, Service.CINDER, self.cinder),
                    api_port=api_ports[numbers[name]], wake_port=wake_port, ops_port=ops_port,
                    host=f"{HOST}{numbers[name]}", state=state,
                    reconcile=self.reconcile, mode="observe" if self.nova else "extend",
                    read_only=self.nova is not None,
                    endpoint=self.nova
                    or self.through(
                        name, Service.ENDPOINT, f"http://127.0.0.1:{api_ports[numbers[name]]}/v2.1"
                    ),
                )
            )  # fmt: skip
            conf.write_text(text + self._with_keystone(name))
            if name.startswith("api-"):
                self.api_urls[name] = f"http://127.0.0.1:{api_ports[numbers[name]]}/v2.1"
            daemons[name] = Daemon(name, conf, self.directory / f"{name}.log", environment, ops_port)
        return daemons

    def _with_keystone(self, name: str) -> str:
        """Return what a process needs besides, where there are tokens and a Nova."""
        if self.keystone is None or self.located_by is None:
            return ""
        keystone = self.through(name, Service.KEYSTONE, self.keystone)
        logins = "".join(_LOGIN.format(group=group, keystone=keystone) for group in _LOGINS)
        nova = self.through(name, Service.NOVA, self.located_by)
        return f"{_KEYSTONE_CONF}endpoint_override = {nova}\n{logins}"

    @property
    def dropping(self) -> Path:
        """While there is this file, host agents lose the orders they get."""
        return self.directory / "casts-dropped"

    def state(self, number: str | int) -> Path:
        """What is the host's own of one agent."""
        return self.directory / f"host-{number}"

    def audit(self, name: str) -> Path:
        """The audit log of one process."""
        return self.directory / f"{name}.audit.jsonl"
