# SPDX-License-Identifier: Apache-2.0
"""A call of a guest's agent that hangs in libvirt holds up no call that a resize needs."""

import threading
from typing import Any

import libvirt_qemu
import pytest
from prometheus_client import CollectorRegistry, Gauge

from bridge.runtime.health import Health
from hostagent.drivers.libvirt.session import Abandoned, Session
from hostagent.errors import NotAskedError, StepFailedError

SERVER = "11111111-2222-4333-8444-555555555555"


class PlayedDomain:
    """A virDomain as far as a size needs it."""

    def blockInfo(self, _target: str) -> list[int]:  # noqa: N802 - libvirt's name
        return [1 << 30, 1 << 30, 1 << 30]


class PlayedConnection:
    """A virConnect with one domain."""

    def lookupByUUIDString(self, _uuid: str) -> PlayedDomain:  # noqa: N802 - libvirt's name
        return PlayedDomain()

    def isAlive(self) -> int:  # noqa: N802 - libvirt's name
        return 1

    def close(self) -> int:
        return 0


def test_sizes_are_read_and_disks_resized_while_the_guests_agent_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    released, asked = threading.Event(), threading.Event()

    def hang(*_arguments: Any) -> str:
        asked.set()
        released.wait()
        return '{"return": 1}'

    monkeypatch.setattr(libvirt_qemu, "qemuAgentCommand", hang)
    health = Health()
    abandoned = Abandoned(16, health, Gauge("g", "g", registry=CollectorRegistry()))
    sessions = [
        Session("test:///", limit=limit, abandoned=abandoned, connect=lambda _uri: PlayedConnection())
        for limit in (0.2, 30.0)
    ]
    try:
        with pytest.raises(StepFailedError):
            sessions[0].agent(SERVER, {"execute": "guest-get-fsinfo"}, 10)
        assert asked.is_set()
        with pytest.raises(NotAskedError):
            sessions[0].agent(SERVER, {"execute": "guest-get-fsinfo"}, 10)
        assert sessions[1].capacity(SERVER, "vda").capacity == 1 << 30
        assert sessions[1].on_guest(SERVER, lambda _guest, wanted: wanted())
    finally:
        released.set()
        for session in sessions:
            session.close()
