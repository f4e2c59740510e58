# SPDX-License-Identifier: Apache-2.0
"""Reads of a server in Nova: its host, its power state, and the other host of a migration.

The requests are GET /servers/{id} at 2.69 and GET /servers/{id}/migrations (live migrations in progress). A server
of a cell that is down is an answer with few keys and the status UNKNOWN. A user without the role admin gets 404 for
other projects' servers, and no host. Both answers are told apart from the truth.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from bridge.core.inventory import GuestState
from bridge.core.reasons import Reason
from bridge.engine.upstream import RestReader, RightsProof, ServiceReasons, Trouble
from bridge.runtime.rest import Answer, NoAnswer

_HEADERS: Final = {"OpenStack-API-Version": "compute 2.69"}
_HOST: Final = "OS-EXT-SRV-ATTR:host"
_TASK: Final = "OS-EXT-STS:task_state"
_POWER: Final = "OS-EXT-STS:power_state"
_UP: Final = frozenset({1, 3})  # nova.compute.power_state: RUNNING, PAUSED
_ANYTHING: Final = "/servers?limit=1"
_ALL: Final = "/servers?all_tenants=1&limit=1"

NOVA_REASONS: Final = ServiceReasons(
    section="nova",
    unreachable=Reason.NOVA_UNREACHABLE,
    timed_out=Reason.NOVA_TIMED_OUT,
    unauthorized=Reason.NOVA_UNAUTHORIZED,
    no_endpoint=Reason.NOVA_NO_ENDPOINT,
    refused=Reason.NOVA_REFUSED,
    wrong_url=Reason.NOVA_WRONG_URL,
    wrong_version=Reason.NOVA_WRONG_VERSION,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The hosts a server is on, with its state on each: none, one, or both sides of a live migration."""

    hosts: Mapping[str, GuestState]
    moving: bool = False


@dataclass(frozen=True, slots=True)
class Deleted:
    """An answer that Nova does not know the server, given to a user who may see all servers."""


Unsure = Trouble
"""A request that got no usable answer from Nova; says nothing about the server."""

NovaAnswer = Server | Deleted | Unsure


class NovaReader:
    """Reads of Nova. Each call sends its requests once, because the journal retries."""

    def __init__(self, rest: RestReader, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rest = rest
        self._rights = RightsProof(clock)

    def check(self) -> Unsure | None:
        """Ask for what any user may read; return why Nova cannot be used, None where it can."""
        answer = self._rest.get(_ANYTHING, _HEADERS)
        if isinstance(answer, Answer) and answer.status == HTTPStatus.OK:
            return None
        return NOVA_REASONS.trouble(answer, _ANYTHING)

    def server(self, server_id: str) -> NovaAnswer:
        """Read the server's hosts now. Never raises for an error of Nova."""
        path = f"/servers/{server_id}"
        found = self._rest.get(path, _HEADERS)
        if isinstance(found, Answer) and found.status == HTTPStatus.NOT_FOUND:
            return self._deleted()
        answer = read_server(found)
        if not isinstance(answer, Server) or not answer.moving:
            return answer
        return with_migrations(answer, self._rest.get(f"{path}/migrations", _HEADERS))

    def _deleted(self) -> NovaAnswer:
        """Believe a 404 only if our user may list every project's servers, because Nova hides them from other
        users.
        """
        if self._rights.holds():
            return Deleted()
        answer = self._rest.get(_ALL, _HEADERS)
        if isinstance(answer, Answer) and answer.status == HTTPStatus.OK:
            self._rights.renew()
            return Deleted()
        return NOVA_REASONS.trouble(answer, _ALL)


def read_server(answer: Answer | NoAnswer) -> NovaAnswer:
    """Return the meaning of an answer of GET /servers/{id}, unless the answer is a 404."""
    if not isinstance(answer, Answer) or answer.status != HTTPStatus.OK:
        return NOVA_REASONS.trouble(answer, "/servers/{id}")
    record = answer.body.get("server") if isinstance(answer.body, Mapping) else None
    if not isinstance(record, Mapping):
        return Unsure(Reason.NOVA_BAD_ANSWER)
    if _HOST not in record:
        return Unsure(Reason.NOVA_CELL_DOWN if record.get("status") == "UNKNOWN" else Reason.NOVA_REFUSED)
    host = record[_HOST]
    if not isinstance(host, str | None):
        return Unsure(Reason.NOVA_BAD_ANSWER)
    state = GuestState.ACTIVE if record.get(_POWER) in _UP else GuestState.OFF
    return Server(hosts={host: state} if host else {}, moving=record.get(_TASK) == "migrating")


def with_migrations(server: Server, answer: Answer | NoAnswer) -> Server | Unsure:
    """Return the same server with the other side of a live migration."""
    if isinstance(answer, Answer) and answer.status == HTTPStatus.NOT_FOUND:
        return server
    if not isinstance(answer, Answer) or answer.status != HTTPStatus.OK:
        return NOVA_REASONS.trouble(answer, "/servers/{id}/migrations")
    rows = answer.body.get("migrations") if isinstance(answer.body, Mapping) else None
    if not isinstance(rows, list):
        return Unsure(Reason.NOVA_BAD_ANSWER)
    sides = (
        row.get(side) for row in rows if isinstance(row, Mapping) for side in ("source_compute", "dest_compute")
    )
    others = {side: GuestState.INCOMING for side in sides if isinstance(side, str) and side not in server.hosts}
    return Server(hosts={**server.hosts, **others}, moving=True)
