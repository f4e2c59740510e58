# SPDX-License-Identifier: Apache-2.0
"""Fibre Channel: one path, and two fabrics under dm-multipath."""

import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.lab.storage_vm.inside import matrix
from tests.lab.storage_vm.inside.agent import Agent
from tests.lab.storage_vm.inside.cases_multipath import have_multipathd
from tests.lab.storage_vm.inside.commands import sh
from tests.lab.storage_vm.inside.compute import Compute, connect
from tests.lab.storage_vm.inside.fibre_channel import FcVolume, FibreChannel
from tests.lab.storage_vm.inside.matrix import START, STEP, Bench
from tests.lab.storage_vm.inside.results import Results
from tests.lab.storage_vm.inside.reused import rescan_scsi, rescanned_first, reused
from tests.lab.waiting import until

_OUTLIVES_THE_CABLE: Final = 600
_GONE_SOON: Final = 5


def run(results: Results, compute: Compute, agent: Agent, *, long: bool) -> None:
    """One path. The short form keeps what no other transport shows: LUN and port of each path."""
    target = FibreChannel(1)
    volume, other, third, fourth = (target.add(f"fc-{name}", START) for name in ("a", "b", "c", "d"))
    target.connect()
    bench = Bench(compute, agent, volume, lambda: connect(volume, multipath=False))
    if long:
        matrix.run(results, "fc", bench)
    else:
        matrix.run_short(results, "fc", bench)

    def wrong_lun() -> dict[str, Any]:
        connect(other, multipath=False)
        before = bench.guest.prints(bench.size)
        other.grow(bench.grow())
        report = bench.order(other.connection)
        rescan_scsi(bench)()
        again = bench.order(other.connection)
        guest = bench.guest.prints(before)
        return {"reports": {"first": report, "own disk rescanned": again}, "guest": guest, "before": before}

    def cable_out() -> dict[str, Any]:
        bench.grow()
        target.patience(0, fail=5, loss=_OUTLIVES_THE_CABLE)
        cable = partial(target.cable, 0)
        return matrix.path_lost(bench, compute, partial(cable, plugged=False), partial(cable, plugged=True))

    if long:
        results.run("fc_late", partial(matrix.late, bench))
        results.run("fc_cable_out", cable_out)
        results.run("fc_smaller", partial(_smaller, bench, volume))
    results.run("fc_wrong_lun", wrong_lun)
    give = partial(_give, target, volume, other, bench)
    results.run("fc_reused", lambda: reused(bench, give, rescan_scsi(bench)))
    if long:
        quiet = Bench(compute, agent, third, lambda: connect(third, multipath=False))
        give = partial(_give, target, third, fourth, quiet)
        results.run("fc_rescanned", lambda: rescanned_first(quiet, give, rescan_scsi(quiet)))


def _smaller(bench: Bench, volume: FcVolume) -> dict[str, Any]:
    """The array says less than the guest has."""
    before = bench.guest.prints(bench.size)
    volume.grow(before - STEP)
    bench.size = before + STEP
    report, local = bench.order(volume.connection), bench.order(None)
    bench.size = before
    volume.grow(before)
    rescan_scsi(bench)()
    return {"report": report, "local": local, "guest": bench.guest.prints(before), "before": before}


def _give(target: FibreChannel, old: FcVolume, new: FcVolume, bench: Bench) -> None:
    """The array gives the LUN to another volume, which is as large as the order says."""
    new.grow(bench.size)
    target.reuse(old, new, fabrics=slice(None))


def run_multipath(results: Results, compute: Compute, agent: Agent, plain: Agent) -> None:
    """Two fabrics. `plain`: an agent without use_multipath."""
    have_multipathd()
    target = FibreChannel(2, first=1)
    volume, stranger = target.add("fcm-a", START), target.add("fcm-b", START)
    uneven = target.add("fcm-c", START, apart=True)
    third, fourth = target.add("fcm-d", START), target.add("fcm-e", START)
    target.connect()
    for fabric in (0, 1):
        target.patience(fabric, fail=3, loss=_OUTLIVES_THE_CABLE)
    bench = Bench(compute, agent, volume, lambda: connect(volume, multipath=True))
    half = Bench(compute, agent, uneven, lambda: connect(uneven, multipath=True))
    matrix.run(results, "fcmp", bench)
    results.run("fcmp_setting_off", lambda: bench.extend("running", volume.connection, by=plain))

    def paths() -> list[str]:
        device = Path(sh("readlink", "-f", bench.path)).name
        return sorted(path.name for path in Path(f"/sys/block/{device}/slaves").iterdir())

    def state(name: str) -> str:
        return Path(f"/sys/block/{name}/device/state").read_text().strip()

    def path_down() -> dict[str, Any]:
        before, names = bench.guest.prints(bench.size), paths()
        bench.grow()
        target.cable(1, plugged=False)
        files = [f"/sys/block/{name}/device/state" for name in names]
        compute.until_any(files, {"blocked", "transport-offline"}, seconds=90)
        down = [name for name in names if state(name) != "running"]
        report, local = bench.order(volume.connection), bench.order(None)
        guest = bench.guest.prints(before)
        target.cable(1, plugged=True)
        for file in files:
            compute.until(file, "running")
        return {
            "report": report, "local": local, "down": down, "before": before, "guest": guest, "paths": names,
            "healed": bench.order(volume.connection), "healed_guest": bench.guest.prints(bench.size),
            "wanted": bench.size,
        }  # fmt: skip

    def dev_loss() -> dict[str, Any]:
        """The second fabric is away for longer than dev_loss_tmo: its path leaves the map, and comes back."""
        target.patience(1, fail=1, loss=_GONE_SOON)
        target.cable(1, plugged=False)
        until(lambda: len(paths()) == 1, "the path left the map")
        bench.grow()
        alone, alone_guest = bench.order(volume.connection), bench.guest.prints(bench.size)
        alone_wanted = bench.size
        target.cable(1, plugged=True)
        until(lambda: len(paths()) == 2, "the path is back in the map")
        time.sleep(1)  # multipathd reloads the map once more
        bench.grow()
        return {
            "report": alone, "guest": alone_guest, "wanted": alone_wanted,
            "healed": bench.order(volume.connection), "healed_guest": bench.guest.prints(bench.size),
            "healed_wanted": bench.size,
        }  # fmt: skip

    results.run("fcmp_path_down", path_down)
    results.run("fcmp_dev_loss", dev_loss)
    results.run("fcmp_uneven", partial(matrix.uneven_paths, half, uneven.backings))

    quiet = Bench(compute, agent, third, lambda: connect(third, multipath=True))
    quiet.guest.prints(START)  # now, because a map that has lost its paths holds up what looks at every device
    give = partial(_give, target, volume, stranger, bench)
    results.run("fcmp_reused", lambda: reused(bench, give, rescan_scsi(bench)))
    give_quiet = partial(_give, target, third, fourth, quiet)
    results.run("fcmp_rescanned", lambda: rescanned_first(quiet, give_quiet, rescan_scsi(quiet)))
