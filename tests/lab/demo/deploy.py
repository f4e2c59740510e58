# SPDX-License-Identifier: Apache-2.0
"""The two ways the demo runs the bridge: all in one process, or four processes over a private RabbitMQ node."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.cmd import all_in_one as one
from tests.lab.cinder_bus import CinderBus
from tests.lab.rabbitmq import RabbitNode

_DAEMONS: Final = {
    "engine": "bridge.cmd.engine",
    "api": "bridge.cmd.api",
    "hostagent": "hostagent.cmd",
    "listener": "listener.cmd",
}


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A running bridge. `check` raises RuntimeError when a part of it has ended."""

    about: str
    started: float
    audit_file: Path
    journal_url: str
    bus: CinderBus
    check: Callable[[], None]

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.started


def all_in_one(directory: Path, stack: ExitStack, *, cinder_url: str, libvirt_uri: str, host: str) -> Deployment:
    """Everything in this process, the bus in its memory."""
    started = time.monotonic()
    conf = _config(directory, "memory://", cinder_url=cinder_url, libvirt_uri=libvirt_uri, host=host)
    bus = _cinder_bus("memory://", stack)
    daemon = one.daemon(["--config-file", str(conf), "--log-file", str(directory / "all-in-one.log")])
    stack.enter_context(daemon.running())
    return Deployment(
        about="listener, API, engine and host agent in one process",
        started=started,
        audit_file=directory / "audit.jsonl",
        journal_url=_journal(directory),
        bus=bus,
        check=lambda: None,
    )


def four_processes(
    directory: Path, stack: ExitStack, *, cinder_url: str, libvirt_uri: str, host: str
) -> Deployment:
    """A private RabbitMQ node and four processes."""
    started = time.monotonic()
    node = stack.enter_context(RabbitNode())
    conf = _config(directory, node.url, cinder_url=cinder_url, libvirt_uri=libvirt_uri, host=host)
    bus = _cinder_bus(node.url, stack)
    running = {name: _start(name, module, conf, directory, stack) for name, module in _DAEMONS.items()}

    def check() -> None:
        for name, process in running.items():
            if process.poll() is not None:
                log = (directory / f"{name}.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{name} ended with {process.returncode}:\n{log}")

    return Deployment(
        about=f"RabbitMQ at {node.url.rpartition('@')[2]} and {len(running)} processes",
        started=started,
        audit_file=directory / "audit.jsonl",
        journal_url=_journal(directory),
        bus=bus,
        check=check,
    )


def _cinder_bus(url: str, stack: ExitStack) -> CinderBus:
    """Cinder's side of the bus, its queues declared: the listener waits for them."""
    bus = CinderBus(url)
    stack.callback(bus.close)
    return bus


def _start(name: str, module: str, conf: Path, directory: Path, stack: ExitStack) -> subprocess.Popen[bytes]:
    log = directory / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, "--config-file", str(conf)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _config(directory: Path, url: str, *, cinder_url: str, libvirt_uri: str, host: str) -> Path:
    api, wake = _free_port(socket.SOCK_STREAM), _free_port(socket.SOCK_DGRAM)
    conf = directory / "extend-bridge.conf"
    conf.write_text(
        f"""\
[bus]
transport_url = {url}
[notifications]
transport_url = {url}
[audit]
file = {directory}/audit.jsonl
[journal]
connection = {_journal(directory)}
sync_on_startup = true
[cinder]
auth_type = none
endpoint_override = {cinder_url}
[endpoint]
auth_type = none
endpoint_override = http://127.0.0.1:{api}/v2.1
[api]
bind_port = {api}
wake_port = {wake}
[engine]
wake_port = {wake}
[hostagent]
host = {host}
libvirt_uri = {libvirt_uri}
state_path = {directory}
"""
    )
    return conf


def _journal(directory: Path) -> str:
    return f"sqlite:///{directory}/journal.sqlite3"


def _free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
