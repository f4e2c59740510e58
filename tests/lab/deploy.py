# SPDX-License-Identifier: Apache-2.0
"""The bridge deployed for the demo and for tests: all in one process, or four processes over a RabbitMQ node."""

import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import requests

from bridge.cmd import all_in_one
from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import ServerState
from bridge.journal.accept import Journal, open_journal
from bridge.journal.settings import JournalSettings
from tests.lab.cinder_bus import CinderBus
from tests.lab.ports import steady_port
from tests.lab.waiting import LONGEST

MODULES: Final = {
    "engine": "bridge.cmd.engine",
    "api": "bridge.cmd.api",
    "hostagent": "hostagent.cmd",
    "listener": "listener.cmd",
}


@dataclass(kw_only=True)
class Site:
    """One installation: a directory, a bus, a Cinder, a hypervisor; its configuration file and its traces."""

    directory: Path
    bus_url: str
    cinder_url: str
    libvirt_uri: str = "test:///default"
    qmp_sockets: str = ""
    host: str = "host-1"
    extra: str = ""
    ports: dict[str, int] = field(default_factory=lambda: {name: steady_port() for name in (*MODULES, "bind")})

    def __post_init__(self) -> None:
        wake = steady_port(socket.SOCK_DGRAM)
        self.audit_file = self.directory / "audit.jsonl"
        self.conf = self.directory / "extend-bridge.conf"
        self.api_url = f"http://127.0.0.1:{self.ports['bind']}/v2.1"
        self.conf.write_text(
            f"""\
[bus]
transport_url = {self.bus_url}
[notifications]
transport_url = {self.bus_url}
[audit]
file = {self.audit_file}
[journal]
connection = {self.journal_url}
sync_on_startup = true
[cinder]
auth_type = none
endpoint_override = {self.cinder_url}
[endpoint]
auth_type = none
endpoint_override = {self.api_url}
[api]
bind_port = {self.ports["bind"]}
wake_port = {wake}
ops_port = {self.ports["api"]}
[engine]
wake_port = {wake}
ops_port = {self.ports["engine"]}
[listener]
ops_port = {self.ports["listener"]}
[hostagent]
host = {self.host}
{self._hypervisor()}
state_path = {self.directory}
ops_port = {self.ports["hostagent"]}
{self.extra}
"""
        )

    def _hypervisor(self) -> str:
        """Return the options of the driver: plain QEMU where its sockets are given, else libvirt."""
        if not self.qmp_sockets:
            return f"libvirt_uri = {self.libvirt_uri}"
        return f"driver = qmp\n[qmp]\nsockets = {self.qmp_sockets}\n[hostagent]"

    @property
    def journal_url(self) -> str:
        """SQLAlchemy URL of the journal."""
        return f"sqlite:///{self.directory / 'journal.sqlite3'}"

    def journal(self) -> Journal:
        """The journal, for looking into it; dispose of its database after use."""
        return open_journal(JournalSettings(connection=self.journal_url))

    def knows(self, server_id: str) -> bool:
        """Whether the host's inventory with this server has arrived."""
        journal = self.journal()
        try:
            return journal.standing([server_id]).get(server_id) is ServerState.ON_HOST
        except JournalUnavailableError:
            return False  # no tables yet
        finally:
            journal.database.dispose()


class Processes:
    """The daemons of a site, each a process of its own, its log in the site's directory."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        """Start these, or all four."""
        for name in names or tuple(MODULES):
            with self.log(name).open("ab") as output:
                self._running[name] = subprocess.Popen(
                    [sys.executable, "-m", MODULES[name], "--config-file", str(self.site.conf)],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                )  # fmt: skip

    def kill(self, name: str) -> None:
        """SIGKILL."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def stop(self, *names: str) -> dict[str, int]:
        """SIGTERM to these, or all; their exit codes. One that hangs is killed."""
        stopping = {name: self._running.pop(name) for name in names or tuple(self._running)}
        for process in stopping.values():
            process.terminate()
        for process in stopping.values():
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        return {name: process.returncode for name, process in stopping.items()}

    def check(self) -> None:
        """Raises RuntimeError, with the end of its log, when one has ended by itself."""
        for name, process in self._running.items():
            if process.poll() is not None:
                said = self.log(name).read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{said}")

    def runs(self, name: str) -> bool:
        """Return True where the daemon was started and not stopped since."""
        return name in self._running

    def pid(self, name: str) -> int:
        """The pid of one that runs."""
        return self._running[name].pid

    def log(self, name: str) -> Path:
        """The log of one."""
        return self.site.directory / f"{name}.log"

    def ready(self, name: str) -> bool:
        """Whether its ops port says so."""
        try:
            return bool(requests.get(self._ops(name, "healthz/ready"), timeout=2).status_code == requests.codes.ok)
        except requests.RequestException:
            return False

    def wait_ready(self, *names: str, seconds: float = LONGEST) -> None:
        """Wait until these, or all four, are ready; raises RuntimeError or TimeoutError."""
        deadline = time.monotonic() + seconds
        for name in names or tuple(MODULES):
            while not self.ready(name):
                self.check()
                if time.monotonic() > deadline:
                    said = self.shown(name, "healthz/ready").decode(errors="replace")
                    raise TimeoutError(f"{name} is not ready within {seconds:.0f} s: {said}")
                time.sleep(0.05)

    def metric(self, name: str, sample: str) -> float:
        """One sample of its metrics, by its name with labels; 0 where there is none (yet)."""
        try:
            text = requests.get(self._ops(name, "metrics"), timeout=2).text
        except requests.RequestException:
            return 0.0
        lines = (line for line in text.splitlines() if line.startswith(f"{sample} "))
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def shown(self, name: str, path: str) -> bytes:
        """What its ops port answers at a path, whatever the status."""
        return requests.get(self._ops(name, path), timeout=120).content

    def _ops(self, name: str, path: str) -> str:
        return f"http://127.0.0.1:{self.site.ports[name]}/{path}"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A running bridge with Cinder's side of its bus."""

    about: str
    seconds: float
    site: Site
    bus: CinderBus
    processes: Processes | None = None

    def check(self) -> None:
        """Raises RuntimeError when a part of it has ended."""
        if self.processes is not None:
            self.processes.check()


def run_all_in_one(site: Site, stack: ExitStack) -> Deployment:
    """Everything in this process, the bus in its memory."""
    started = time.monotonic()
    bus = _cinder_bus(site, stack)
    argv = ["--config-file", str(site.conf), "--log-file", str(site.directory / "all-in-one.log")]
    daemon, _ = all_in_one.daemon(argv)
    stack.enter_context(daemon.running())
    return Deployment(
        about="listener, API, engine and host agent in one process",
        seconds=time.monotonic() - started,
        site=site,
        bus=bus,
    )


def run_processes(site: Site, stack: ExitStack) -> Deployment:
    """Four processes over the site's RabbitMQ, ready."""
    started = time.monotonic()
    bus = _cinder_bus(site, stack)
    processes = Processes(site)
    stack.callback(processes.stop)
    processes.start()
    processes.wait_ready()
    return Deployment(
        about=f"{len(MODULES)} processes, RabbitMQ at {site.bus_url.rpartition('@')[2]}",
        seconds=time.monotonic() - started,
        site=site,
        bus=bus,
        processes=processes,
    )


def _cinder_bus(site: Site, stack: ExitStack) -> CinderBus:
    """Cinder's side of the bus, its queues declared: the listener waits for them."""
    bus = CinderBus(site.bus_url)
    stack.callback(bus.close)
    return bus
