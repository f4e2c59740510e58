# SPDX-License-Identifier: Apache-2.0
"""The host agent as a process of its own, and what stands on the other side of its bus: casts out, reports in."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

import kombu

from bridge.core.inventory import DomainSeen
from bridge.core.messages import HostMessage, Report
from bridge.core.outcome import Outcome
from bridge.runtime.broker import (
    BROKER_ERRORS,
    REPORTS_QUEUE,
    QueueSpec,
    ensure_queue,
    kombu_connection,
)
from tests.lab.oslo_rpc import oslo_caster
from tests.lab.paths import ROOT
from tests.lab.waiting import LONGEST

T = TypeVar("T")


class Agent:
    """`python -m hostagent.cmd`, its configuration and its ops port."""

    def __init__(
        self,
        directory: Path,
        *,
        url: str,
        libvirt_uri: str,
        host: str,
        more: str = "",
        prefix: Sequence[str] = (),
    ) -> None:
        """`prefix`: what becomes the agent in the end, as `nice` does."""
        self.log = directory / f"{host}.log"
        self._conf = directory / f"{host}.conf"
        self.host = host
        self._prefix = tuple(prefix)
        self._before = 0
        self._conf.write_text(
            f"[bus]\ntransport_url = {url}\n[hostagent]\nhost = {host}\nlibvirt_uri = {libvirt_uri}\n"
            f"state_path = {directory / 'state'}\ndevice_wait = 0.2\n{more}\n"
            f"{'' if 'heartbeat_interval' in more else 'heartbeat_interval = 0.5'}\n"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        self._before = len(self.text()) if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._prefix, sys.executable, "-m", "hostagent.cmd", "--config-file", str(self._conf)],
                cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip

    def text(self) -> str:
        """All it logged so far."""
        return self.log.read_text(errors="replace")

    def checks(self) -> dict[str, dict[str, object]]:
        """/healthz/ready, once the ops port is known."""
        checks: dict[str, dict[str, object]] = json.loads(self._ops("healthz/ready"))["checks"]
        return checks

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self.process is not None
        return self.process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(signal.SIGKILL)

    def ready(self) -> bool:
        """Whether all of its checks are well."""
        return all(check["ok"] for check in self.checks().values())

    def reason(self, check: str) -> str:
        """What one check says."""
        return str(self.checks()[check]["reason"])

    def in_flight(self) -> bool:
        """Whether it works on an order now."""
        return b"\nextend_bridge_hostagent_in_flight 1.0" in self._ops("metrics")

    def _ops(self, path: str) -> bytes:
        port = wait_for(lambda: re.findall(r"http://127\.0\.0\.1:(\d+)/?\s", self.text()[self._before :]), self)[0]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=120) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as ex:
            return ex.read()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(120)


def wait_for(
    look: Callable[[], T | Literal[False] | None], agent: Agent | None = None, *, seconds: float = LONGEST
) -> T:
    """Return the first true value; when it never comes, the error is the end of the agent's log."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, agent.text()[-4000:] if agent else "nothing came"
        time.sleep(0.05)
    return seen


class Reports:
    """The reports queue, as the engine has it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: kombu.Connection | None = None
        self.messages: list[HostMessage] = []

    def drain(self) -> list[HostMessage]:
        """All that came so far."""
        try:
            if self._connection is None:
                self._connection = kombu_connection(self._url, heartbeat=30, name="test")
                ensure_queue(self._connection, QueueSpec(name=REPORTS_QUEUE))
            with self._connection.channel() as channel:
                queue = kombu.Queue(REPORTS_QUEUE, channel=channel)
                while (message := queue.get(no_ack=True)) is not None:
                    self.messages.append(HostMessage.from_wire(json.loads(message.body)))
        except BROKER_ERRORS:
            self._connection = None
        return self.messages

    def report(self, attempt_id: str) -> Report | None:
        """The last of one attempt."""
        found = [r for m in self.drain() for r in m.reports if r.attempt_id == attempt_id]
        return found[-1] if found else None

    def outcomes(self, attempt_id: str) -> set[Outcome]:
        """Return the outcomes of all reports of one attempt."""
        return {r.outcome for m in self.drain() for r in m.reports if r.attempt_id == attempt_id}

    def outcome(self, attempt_id: str) -> Outcome | None:
        """Of one attempt."""
        found = self.report(attempt_id)
        return found.outcome if found else None

    def domains(self, host: str) -> dict[str, DomainSeen]:
        """What the host has by all it said so far, by server id, as the engine puts it together."""
        known: dict[str, DomainSeen] = {}
        for inventory in (m.inventory for m in self.drain() if m.host == host and m.inventory is not None):
            if inventory.full:
                known.clear()
            known.update({domain.server_id: domain for domain in inventory.domains})
            for server_id in inventory.gone:
                known.pop(server_id, None)
        return known

    def size(self, host: str, server_id: str) -> int | None:
        """What the host says a guest sees of its first volume; None where it says nothing."""
        domain = self.domains(host).get(server_id)
        return domain.disks[0].size if domain is not None and domain.disks else None


def caster(url: str) -> Callable[[str, Sequence[object]], None]:
    """Orders as an engine of 0.1.0 casts them."""
    return oslo_caster(url)
