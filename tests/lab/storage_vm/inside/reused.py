# SPDX-License-Identifier: Apache-2.0
"""One storm for every transport: the volume's LUN or namespace is given to another volume, and orders keep coming.

Each order is sent twice, with connection data and without, before and after a rescan by somebody else, and to an
agent that has just started. The guest must keep its size through all of them.
"""

from collections.abc import Callable
from typing import Any

from tests.lab.storage_vm.inside.commands import sh
from tests.lab.storage_vm.inside.matrix import STEP, Bench
from tests.lab.storage_vm.inside.results import say


def reused(bench: Bench, give: Callable[[], None], rescan: Callable[[], None]) -> dict[str, Any]:
    """Return {"reports": {when: report}, "before", "guest"}; `give` hands the number over to another volume."""
    bench.order(bench.volume.connection)
    before = bench.guest.prints(bench.size)
    bench.grow()
    give()
    reports = {
        "first": bench.order(bench.volume.connection),
        "second": bench.order(bench.volume.connection),
        "local": bench.order(None),
    }
    rescan()
    reports |= {
        "after somebody's rescan": bench.order(bench.volume.connection),
        "after somebody's rescan, local": bench.order(None),
    }
    bench.restart_agent()
    rescan()
    reports |= {
        "after a restart, local": bench.order(None),
        "after a restart": bench.order(bench.volume.connection),
    }
    say(f"reused: {[(when, report['outcome'], report['detail']) for when, report in reports.items()]}")
    return {"reports": reports, "before": before, "guest": bench.guest.prints(before)}


def attached_anew(bench: Bench, grow: Callable[[int], None]) -> dict[str, Any]:
    """After `reused`: detach and attach again what the number leads to by now; the next extend is accepted.

    `grow` makes that other volume larger.
    """
    bench.detach()
    bench.attach()
    bench.size += STEP
    grow(bench.size)
    report = bench.order(bench.volume.connection)
    bench.restart_agent()
    again = bench.order(None)
    return {"report": report, "again": again, "wanted": bench.size, "guest": bench.guest.prints(bench.size)}


def rescanned_first(bench: Bench, give: Callable[[], None], rescan: Callable[[], None]) -> dict[str, Any]:
    """The same where the stranger was rescanned before any order: nova-compute, multipathd or a person did it."""
    bench.order(bench.volume.connection)
    before = bench.guest.prints(bench.size)
    bench.grow()
    give()
    rescan()
    reports = {"local": bench.order(None), "connection": bench.order(bench.volume.connection)}
    return {"reports": reports, "before": before, "guest": bench.guest.prints(before)}


def rescan_scsi(bench: Bench) -> Callable[[], None]:
    """What `rescan-scsi-bus.sh -s` or another os-brick does to the disk, or to each path of the map."""

    def rescan() -> None:
        name = sh("readlink", "-f", bench.path).rsplit("/", 1)[-1]
        sh(
            "sh", "-c",
            f'for d in {name} $(ls /sys/block/{name}/slaves); do f=/sys/block/$d/device/rescan; '
            "[ ! -e $f ] || echo 1 > $f; done",
            check=False,
        )  # fmt: skip

    return rescan
