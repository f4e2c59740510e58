# SPDX-License-Identifier: Apache-2.0
"""The step of tools/live --nova that measures: Cinder's answer until the guest is told, and the CPU of each part.

Three ways on the same volume in the same run: Cinder tells Nova itself; the listener tells Nova; the bridge extends
without Nova. Cinder's answer is that of its API (202), so each way has Cinder's own work in it.
"""

import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.core.extend import gib
from tests.lab.guest import Guest
from tests.live.nova import DAEMONS
from tests.live.nova_cloud import NovaCloud, NovaRegion
from tests.live.nova_walk import DISK, guest_of
from tests.live.step import LiveStep
from tests.live.volumes import LiveVolume

_TIMES: Final = 10
_IDLE_SECONDS: Final = 10.0
_TICK: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class WayMeasured:
    """One way: seconds of each extend, and milliseconds of CPU an extend by part, beyond what an idle part uses."""

    name: str
    seconds: tuple[float, ...]
    cpu_ms: Mapping[str, float]

    def __str__(self) -> str:
        low, middle, high = min(self.seconds), statistics.median(self.seconds), max(self.seconds)
        cpu = ", ".join(f"{part} {ms:.0f}" for part, ms in self.cpu_ms.items())
        return f"  {self.name:38} {low:.2f} / {middle:.2f} / {high:.2f} s; ms of CPU an extend: {cpu}"


def group_cpu(group: int, proc: Path = Path("/proc")) -> float:
    """Return the CPU seconds of all processes of a process group, those of ended children included."""
    total = 0
    for file in proc.glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[2]) == group:
            total += sum(map(int, fields[11:15]))
    return total / _TICK


def _measured(
    cloud: NovaCloud, guest: Guest, volume: LiveVolume, *, name: str, groups: Mapping[str, int]
) -> WayMeasured:
    _seen_after(cloud, guest, volume)  # a service that has just started is slower once
    idle_from = _cpu(groups)
    time.sleep(_IDLE_SECONDS)  # the length of the idle measurement
    idle = {part: (now - idle_from[part]) / _IDLE_SECONDS for part, now in _cpu(groups).items()}
    before, began = _cpu(groups), time.monotonic()
    seconds = [_seen_after(cloud, guest, volume) for _ in range(_TIMES)]
    lasted = time.monotonic() - began
    used = {part: now - before[part] - idle[part] * lasted for part, now in _cpu(groups).items()}
    cpu = {part: max(0.0, seconds_used) * 1000 / _TIMES for part, seconds_used in used.items()}
    return WayMeasured(name=name, seconds=tuple(seconds), cpu_ms=cpu)


def _seen_after(cloud: NovaCloud, guest: Guest, volume: LiveVolume) -> float:
    """Extend by 1 GiB; return the seconds from Cinder's answer until the guest is told."""
    cloud.user.extend(volume, by="api")
    took = guest.wait_size(gib(volume.size), DISK)
    cloud.user.extended(volume)
    return took


def _cpu(groups: Mapping[str, int]) -> dict[str, float]:
    return {part: group_cpu(group) for part, group in groups.items()}


def latency(cloud: NovaCloud) -> str:
    """Extend one volume by the three ways, several times each."""
    nova = {f"nova-{name}": cloud.nova.pid(name) for name in ("nova", *DAEMONS) if name != "scheduler"}
    with guest_of(cloud) as (guest, volume):
        cloud.bridge.close()
        cloud.cinder.look_for_nova_in(NovaRegion.TRUE)
        groups = {**nova, "cinder-volume": cloud.cinder.pid("volume")}
        found = [_measured(cloud, guest, volume, name="Cinder tells Nova itself", groups=groups)]
        cloud.cinder.look_for_nova_in(NovaRegion.CUT)
        cloud.bridge.start()
        cloud.bridge.wait_ready()
        groups["cinder-volume"] = cloud.cinder.pid("volume")
        ours = {**groups, **{part: cloud.bridge.pid(part) for part in cloud.bridge.parts}}
        found.append(_measured(cloud, guest, volume, name="the listener tells Nova", groups=ours))
        with cloud.stand_alone() as site:
            alone = {"cinder-volume": groups["cinder-volume"], **{part: site.pid(part) for part in site.parts}}
            found.append(_measured(cloud, guest, volume, name="the bridge extends, without Nova", groups=alone))
    return "\n".join(["least / median / most, from Cinder's answer until the guest is told", *map(str, found), ""])


STEPS: Final[tuple[LiveStep[NovaCloud], ...]] = (
    LiveStep(name="latency", about="Nova's own way and ours on one volume: latency and CPU", play=latency),
)
