# SPDX-License-Identifier: Apache-2.0
"""The servers behind a recording, put into a journal as host agents would report them."""

import time
import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.inventory import DomainSeen, GuestState, Inventory
from bridge.core.messages import HostMessage
from bridge.journal import hosts, migrate
from bridge.journal.accept import Journal
from tests.lab.conformance.known import unmapped

_LEFT: Final = "host-they-left"


def load(journal: Journal, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Create the tables and report each server: on its host, or as gone from one where its host is null."""
    migrate.upgrade(journal.database)
    by_host: dict[str, list[str]] = {}
    for server, row in rows.items():
        if not unmapped(row):
            by_host.setdefault(row["host"] or _LEFT, []).append(server)
    messages = [_message(host, 1, servers) for host, servers in by_host.items()]
    _report(journal, [*messages, _message(_LEFT, 2, [])])


def _report(journal: Journal, messages: Iterable[HostMessage]) -> None:
    now = time.time()
    alive = hosts.Alive(since=now - 60, until=now + 60)
    for message in messages:
        journal.database.write(partial(_hear, message, now, alive))


def _hear(message: HostMessage, now: float, alive: hosts.Alive, connection: sa.Connection) -> None:
    hosts.hear(connection, message, now=now, alive=alive)


def _message(host: str, seq: int, servers: Iterable[str]) -> HostMessage:
    domains = tuple(DomainSeen(server_id=server, state=GuestState.ACTIVE) for server in servers)
    return HostMessage(
        host=host,
        boot_id=str(uuid.uuid5(uuid.NAMESPACE_DNS, host)),
        seq=seq,
        sent_at=time.time(),
        inventory=Inventory(full=True, domains=domains),
    )
