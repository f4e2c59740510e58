# SPDX-License-Identifier: Apache-2.0
"""A libvirt that takes a connection and then says nothing: its guests do not wait for that connection."""

import threading
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Gauge

from bridge.core.extend import new_id
from bridge.core.reasons import Reason
from bridge.runtime.health import Health
from hostagent.drivers.libvirt.session import Abandoned, Session
from hostagent.errors import StepFailedError

_SECONDS = 60.0


class _Connection:
    """A connection whose only domain is off; `asked` counts the look-ups."""

    def __init__(self) -> None:
        self.asked = 0

    def lookupByUUIDString(self, _server_id: str) -> "_Connection":  # noqa: N802 - libvirt's name
        self.asked += 1
        return self

    def state(self, _flags: int = 0) -> tuple[int, int]:
        return 5, 0

    def isAlive(self) -> int:  # noqa: N802 - libvirt's name
        return 1

    def close(self) -> None:
        """Do nothing."""


def test_a_guest_does_not_wait_for_an_open_that_never_ends_and_its_late_call_is_not_made() -> None:
    server_id, silent, made = new_id(), threading.Event(), list[_Connection]()

    def connect(_uri: str) -> Any:
        connection = _Connection()
        made.append(connection)
        if len(made) == 1:
            silent.wait(_SECONDS)
        return connection

    gauge = Gauge("hung", "x", registry=CollectorRegistry())
    abandoned = Abandoned(4, Health(), gauge)
    session = Session("test:///", limit=0.2, abandoned=abandoned, connect=connect)
    with pytest.raises(StepFailedError) as first:
        session.state(server_id)
    assert first.value.reason is Reason.HYPERVISOR_TIMED_OUT
    assert gauge._value.get() == 1
    patient = Session("test:///", limit=_SECONDS, abandoned=abandoned, connect=connect)
    assert patient.state(server_id) is not None
    silent.set()
    ended = threading.Event()
    for _ in range(600):
        if gauge._value.get() == 0:
            break
        ended.wait(0.1)
    assert gauge._value.get() == 0
    assert made[0].asked == 0
    assert made[1].asked == 1
