# SPDX-License-Identifier: Apache-2.0
"""What Nova says of a server: its host, its power, and the other host while it migrates.

Mirrors GET /servers/{id} at 2.69, where a server of a cell that is down is an answer with few keys and the status
UNKNOWN, and GET /servers/{id}/migrations (live migrations in progress). A user without the role admin sees other
projects' servers as 404 and no host: both are told apart from the truth.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import ClientException

from bridge.core.messages import GuestState
from bridge.core.reasons import Reason

LOG = logging.getLogger(__name__)

_HEADERS: Final = {"OpenStack-API-Version": "compute 2.69", "Accept": "application/json"}
ONCE_MORE: Final[Mapping[str, Any]] = {"connect_retries": 1, "connect_retry_delay": 0.05}
"""uWSGI in front of Nova ends kept connections without a word; the next request on one looks like an outage."""
_HOST: Final = "OS-EXT-SRV-ATTR:host"
_TASK: Final = "OS-EXT-STS:task_state"
_POWER: Final = "OS-EXT-STS:power_state"
_UP: Final = frozenset({1, 3})  # nova.compute.power_state: RUNNING, PAUSED
_OK, _NOT_FOUND = 200, 404
_REFUSED: Final = frozenset({401, 403})
_RIGHTS_HOLD: Final = 300.0  # seconds a proof of our rights is believed


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The hosts a server is on, with what each has of it: none, one, or both sides of a live migration."""

    hosts: Mapping[str, GuestState]
    moving: bool = False


@dataclass(frozen=True, slots=True)
class Deleted:
    """Nova does not know the server, and our user may see all of them."""


@dataclass(frozen=True, slots=True)
class Unsure:
    """Nova could not be asked, or does not tell us; says nothing about the server."""

    reason: Reason


Answer = Server | Deleted | Unsure


class NovaReader:
    """Reads; one request per question, no retries: the journal has those."""

    def __init__(self, adapter: Adapter, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._adapter = adapter
        self._clock = clock
        self._may_until = -_RIGHTS_HOLD

    def server(self, server_id: str) -> Answer:
        """Where the server is now. Never raises for what Nova does."""
        status, body = self._get(f"/servers/{server_id}")
        if status == _NOT_FOUND:
            return self._deleted()
        answer = read_server(status, body)
        if not isinstance(answer, Server) or not answer.moving:
            return answer
        status, body = self._get(f"/servers/{server_id}/migrations")
        return with_migrations(answer, status, body)

    def _deleted(self) -> Answer:
        """A 404 is believed of a user who may list every project's servers: others' are 404 to anybody else."""
        if self._clock() < self._may_until:
            return Deleted()
        status, _ = self._get("/servers?all_tenants=1&limit=1")
        if status == _OK:
            self._may_until = self._clock() + _RIGHTS_HOLD
            return Deleted()
        return Unsure(Reason.NOVA_REFUSED if status in _REFUSED else Reason.NOVA_UNREACHABLE)

    def _get(self, path: str) -> tuple[int | None, Any]:
        try:
            response = self._adapter.get(path, headers=dict(_HEADERS), raise_exc=False, log=False, **ONCE_MORE)
        except ClientException as ex:
            LOG.warning("Nova cannot be asked for %s: %s", path, type(ex).__name__)
            return None, None
        try:
            return response.status_code, response.json()
        except ValueError:
            return response.status_code, None


def read_server(status: int | None, body: object) -> Answer:
    """What an answer of GET /servers/{id} means; 404 is another question."""
    if status in _REFUSED:
        return Unsure(Reason.NOVA_REFUSED)
    if status != _OK:
        return Unsure(Reason.NOVA_UNREACHABLE)
    record = body.get("server") if isinstance(body, Mapping) else None
    if not isinstance(record, Mapping):
        return Unsure(Reason.NOVA_BAD_ANSWER)
    if _HOST not in record:
        return Unsure(Reason.NOVA_CELL_DOWN if record.get("status") == "UNKNOWN" else Reason.NOVA_REFUSED)
    host = record[_HOST]
    if not isinstance(host, str | None):
        return Unsure(Reason.NOVA_BAD_ANSWER)
    state = GuestState.ACTIVE if record.get(_POWER) in _UP else GuestState.OFF
    return Server(hosts={host: state} if host else {}, moving=record.get(_TASK) == "migrating")


def with_migrations(server: Server, status: int | None, body: object) -> Server | Unsure:
    """The same with the other side of a live migration."""
    if status in _REFUSED:
        return Unsure(Reason.NOVA_REFUSED)
    if status == _NOT_FOUND:
        return server
    if status != _OK:
        return Unsure(Reason.NOVA_UNREACHABLE)
    rows = body.get("migrations") if isinstance(body, Mapping) else None
    if not isinstance(rows, list):
        return Unsure(Reason.NOVA_BAD_ANSWER)
    sides = (
        row.get(side) for row in rows if isinstance(row, Mapping) for side in ("source_compute", "dest_compute")
    )
    others = {side: GuestState.INCOMING for side in sides if isinstance(side, str) and side not in server.hosts}
    return Server(hosts={**server.hosts, **others}, moving=True)
