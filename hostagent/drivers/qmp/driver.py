# SPDX-License-Identifier: Apache-2.0
"""The driver of plain QEMU: its options, its probes, and the host it opens."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from oslo_config import cfg

from bridge.runtime.daemon import Part, Supervised
from hostagent.domain import SourceKind
from hostagent.drivers.base import DriverCapabilities, DriverTools, Probe, ProbeFacts
from hostagent.drivers.qmp.host import QmpSockets, is_there
from hostagent.drivers.qmp.session import QmpSession
from hostagent.drivers.qmp.settings import QMP_OPTS, QmpSettings, qmp_settings

_CAN: Final = DriverCapabilities(sources=frozenset({SourceKind.BLOCK, SourceKind.FILE}), agent=True)
"""No image of QEMU's own clients: their keys lie in QEMU, which gives none away to read the true size with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QmpHost:
    """The opened driver. `parts`: the threads that connect to guests and read their events."""

    settings: QmpSettings
    tools: DriverTools
    sockets: QmpSockets
    parts: Sequence[Part]
    capabilities: DriverCapabilities = field(default=_CAN)

    @property
    def limit(self) -> float:
        """The value of [qmp] limit."""
        return self.settings.limit

    def session(self, share: float = 1.0) -> QmpSession:
        """Return a session. Nothing of it can hang beyond the limit, so all have the same share."""
        del share
        return QmpSession(
            self.sockets,
            file_size=self.tools.file_size,
            agent_suffix=self.settings.agent_suffix,
            read_only=self.tools.facts.read_only,
        )

    def close(self) -> None:
        """Drop the connections to all guests."""
        self.sockets.close()


class QmpDriver:
    """The driver's entry point."""

    name = "qmp"

    def options(self) -> Sequence[tuple[str, Sequence[cfg.Opt]]]:
        """Return the options of [qmp]."""
        return [("qmp", QMP_OPTS)]

    def settings(self, conf: cfg.ConfigOpts) -> QmpSettings:
        """Read the options; raises ConfigError."""
        return qmp_settings(conf)

    def probes(self, settings: QmpSettings, facts: ProbeFacts) -> Iterator[Probe]:
        """Look for the directories of the sockets. Guests are not connected to: the agent may be, already."""
        for pattern in settings.sockets:
            place = facts.root / Path(pattern).parent.relative_to("/")
            there = is_there(str(place))
            wrong = None if there else f"[qmp] sockets: no directory {place}: is it the host's, and mounted here?"
            yield Probe(about=f"the sockets {pattern}", wrong=wrong)

    def open(self, settings: QmpSettings, tools: DriverTools) -> QmpHost:
        """Return the host; its parts connect to the guests."""
        sockets = QmpSockets(settings, tools.health)
        slow = 4 * settings.limit + settings.scan_interval
        return QmpHost(
            settings=settings,
            tools=tools,
            sockets=sockets,
            parts=(
                Supervised("hostagent.qmp_connect", sockets.keep_connected, tools.health, moves_within=slow),
                Supervised("hostagent.qmp_events", sockets.read_events, tools.health, moves_within=slow),
            ),
        )


DRIVER: Final = QmpDriver()
