# SPDX-License-Identifier: Apache-2.0
"""A Nova that answers 200 and loses its casts: a few times for each disk, and on one host always.

What it does in the end is what nova-compute does: it reads the size from Cinder and gives it to the guest.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from tests.chaos.ledger import DiskId, Ledger
from tests.lab.endpoint import Event, RecordingEndpoint, Reply, takes_all

_LOSES: Final = 3


class LossyNova(RecordingEndpoint):
    """Deaf until it is given its hosts."""

    def __init__(self) -> None:
        super().__init__()
        self.behaviour = self._take
        self.told: Counter[DiskId] = Counter()
        self.resized = 0
        self._ledgers: Mapping[str, Ledger] = {}
        self._never: Collection[str] = ()
        self._wanted: Callable[[], Mapping[DiskId, int]] = dict

    def has(
        self, ledgers: Mapping[str, Ledger], *, never: Collection[str], wanted: Callable[[], Mapping[DiskId, int]]
    ) -> None:
        """The ledger each server's disks are in; the servers of the host it never gets to; Cinder's sizes."""
        self._ledgers, self._never, self._wanted = ledgers, never, wanted

    def _take(self, events: Sequence[Event]) -> Reply:
        for event in events:
            disk = event["server_uuid"], event["tag"]
            self.told[disk] += 1
            if self.told[disk] > _LOSES and disk[0] in self._ledgers and disk[0] not in self._never:
                self._resize(disk)
        return takes_all(events)

    def _resize(self, disk: DiskId) -> None:
        ledger, wanted = self._ledgers[disk[0]], self._wanted()[disk]
        if ledger.size(disk) < wanted:
            ledger.put(disk, wanted)
            self.resized += 1
