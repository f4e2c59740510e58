# SPDX-License-Identifier: Apache-2.0
"""iSCSI over one path."""

from functools import partial
from typing import Any

from tests.lab.storage_vm.inside import matrix
from tests.lab.storage_vm.inside.agent import Agent
from tests.lab.storage_vm.inside.compute import Compute, connect
from tests.lab.storage_vm.inside.matrix import START, Bench
from tests.lab.storage_vm.inside.results import Results
from tests.lab.storage_vm.inside.reused import attached_anew, rescan_scsi, rescanned_first, reused
from tests.lab.storage_vm.inside.targets import IscsiTarget, IscsiVolume


def run(results: Results, compute: Compute, agent: Agent, *, long: bool) -> None:
    """Every case."""
    target = IscsiTarget("single", ("127.0.0.1",))
    volume, other, third, fourth = (target.add(name, START) for name in ("single", "other", "third", "fourth"))
    bench = Bench(compute, agent, volume, lambda: connect(volume, multipath=False))
    matrix.run(results, "iscsi", bench)

    def again() -> dict[str, Any]:
        return {"report": bench.order(volume.connection), "wanted": bench.size}

    def never() -> dict[str, Any]:
        before = bench.size
        bench.size += matrix.STEP
        report = bench.order(volume.connection)
        bench.size = before
        return {"report": report, "guest": bench.guest.prints(before), "before": before}

    def wrong_lun() -> dict[str, Any]:
        connect(other, multipath=False)
        before = bench.size
        other.grow(bench.grow())
        report = bench.order({**other.connection})
        return {"report": report, "guest": bench.guest.prints(before), "before": before}

    def path_down() -> dict[str, Any]:
        portal = partial(target.portal, 0)
        return matrix.path_lost(bench, compute, partial(portal, up=False), partial(portal, up=True))

    results.run("iscsi_again", again)
    results.run("iscsi_late", partial(matrix.late, bench))
    results.run("iscsi_never", never)
    results.run("iscsi_wrong_lun", wrong_lun)
    results.run("iscsi_path_down", path_down)
    give = partial(_give, target, volume, other, bench)
    results.run("iscsi_reused", lambda: reused(bench, give, rescan_scsi(bench)))
    results.run("iscsi_attached_anew", lambda: attached_anew(bench, other.grow))
    if long:
        quiet = Bench(compute, agent, third, lambda: connect(third, multipath=False))
        give = partial(_give, target, third, fourth, quiet)
        results.run("iscsi_rescanned", lambda: rescanned_first(quiet, give, rescan_scsi(quiet)))


def _give(target: IscsiTarget, old: IscsiVolume, new: IscsiVolume, bench: Bench) -> None:
    """The array gives the LUN to another volume, which is as large as the order says."""
    new.grow(bench.size)
    target.reuse(old, new, portals=slice(0, 1))
