# SPDX-License-Identifier: Apache-2.0
"""Portions of a batch of host messages: each is one transaction, short enough for the other writers."""

from collections.abc import Iterator, Sequence
from typing import Final

from bridge.core import limits
from bridge.core.inventory import DomainSeen
from bridge.core.messages import HostMessage
from bridge.journal.hosts import is_heartbeat

_INVENTORY: Final = 20  # rows whose work it costs to compare an inventory with what the journal has of the host


def portions(messages: Sequence[HostMessage]) -> Iterator[list[HostMessage]]:
    """Split a batch into portions of one transaction each, because a long one would hold up every other writer."""
    portion: list[HostMessage] = []
    size = 0
    for message in messages:
        if portion and size + weight(message) > limits.ROWS.most:
            yield portion
            portion, size = [], 0
        portion.append(message)
        size += weight(message)
    if portion:
        yield portion


def weight(message: HostMessage) -> int:
    """Return the approximate number of rows of a message."""
    own = 1 + len(message.reports) + len(message.file_systems)
    if message.inventory is None or is_heartbeat(message):
        return own
    domains = message.inventory.domains
    return _INVENTORY + own + len(domains) + sum(len(d.disks) for d in domains) + len(message.inventory.gone)


def slices(domains: Sequence[DomainSeen]) -> Iterator[list[DomainSeen]]:
    """Split the domains of an inventory that is too large for one transaction."""
    some: list[DomainSeen] = []
    size = 0
    for domain in domains:
        some.append(domain)
        size += 1 + len(domain.disks)
        if size >= limits.ROWS.most:
            yield some
            some, size = [], 0
    if some:
        yield some
