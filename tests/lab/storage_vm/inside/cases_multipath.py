# SPDX-License-Identifier: Apache-2.0
"""iSCSI over two portals, dm-multipath on the host."""

from pathlib import Path
from typing import Any, Final

from hostagent.devices import sysfs
from tests.lab.storage_vm.inside import matrix
from tests.lab.storage_vm.inside.agent import Agent
from tests.lab.storage_vm.inside.commands import sh
from tests.lab.storage_vm.inside.compute import Compute, connect
from tests.lab.storage_vm.inside.matrix import START, Bench
from tests.lab.storage_vm.inside.results import Results
from tests.lab.storage_vm.inside.targets import IscsiTarget
from tests.lab.waiting import until

_CONF: Final = "defaults {\n find_multipaths yes\n user_friendly_names no\n polling_interval 2\n}\n"


def have_multipathd() -> None:
    """Configure and start multipathd unless it runs already."""
    if "idle" in sh("multipathd", "show", "daemon", check=False):
        return
    sh("modprobe", "-a", "dm_mod", "dm_multipath")
    Path("/etc/multipath.conf").write_text(_CONF)
    start_multipathd()


def start_multipathd() -> None:
    """Start multipathd and wait until it has read what is there and answers."""
    sh("multipathd")
    until(lambda: "idle" in sh("multipathd", "show", "daemon", check=False), "multipathd is idle")


def run(results: Results, compute: Compute, agent: Agent, plain: Agent, *, long: bool) -> None:
    """Every case. `plain`: an agent without use_multipath. The short form leaves out guests that do not run."""
    have_multipathd()
    target = IscsiTarget("multi", ("127.0.0.1", "127.0.0.2"))
    volume = target.add("multi", START)
    bench = Bench(compute, agent, volume, lambda: connect(volume, multipath=True))
    (matrix.run if long else matrix.run_short)(results, "multipath", bench)

    def slaves() -> list[str]:
        device = Path(sh("readlink", "-f", bench.path)).name
        return sorted(path.name for path in Path(f"/sys/block/{device}/slaves").iterdir())

    def path_down() -> dict[str, Any]:
        before, names = bench.size, slaves()
        bench.grow()
        target.portal(1, up=False)
        compute.until_any([f"/sys/block/{name}/device/state" for name in names], {"transport-offline", "blocked"})
        down = [name for name in names if Path(f"/sys/block/{name}/device/state").read_text().strip() != "running"]
        report, local = bench.order(volume.connection), bench.order(None)
        guest = bench.guest.prints(before)
        target.portal(1, up=True)
        for name in names:
            compute.until(f"/sys/block/{name}/device/state", "running")
        return {
            "report": report, "local": local, "down": down, "before": before, "guest": guest,
            "healed": bench.order(volume.connection), "healed_guest": bench.guest.prints(bench.size),
            "wanted": bench.size, "paths": names,
        }  # fmt: skip

    def map_fails() -> dict[str, Any]:
        before = bench.size
        bench.grow()
        sh("multipathd", "shutdown", check=False)  # 1 also when it did
        report, local = bench.order(volume.connection), bench.order(None)
        guest = bench.guest.prints(before)
        start_multipathd()
        return {
            "report": report, "local": local, "before": before, "guest": guest,
            "healed": bench.order(volume.connection), "healed_guest": bench.guest.prints(bench.size),
            "wanted": bench.size,
        }  # fmt: skip

    results.run("multipath_setting_off", lambda: bench.extend("running", volume.connection, by=plain))
    results.run("multipath_path_down", path_down)
    results.run("multipath_map_fails", map_fails)

    stranger = target.add("stranger", START)

    def reused() -> dict[str, Any]:
        before, paths = bench.size, wwids()
        bench.grow()
        stranger.grow(bench.size)
        target.reuse(volume, stranger, portals=slice(1, 2))
        report, left = bench.order(volume.connection), wwids()
        everyone = {name: Path(f"/sys/block/{name}/device/wwid").read_text().strip() for name in paths}
        return {
            "report": report, "before": before, "guest": bench.guest.prints(report["after_bytes"] or before),
            "paths": paths, "left": left, "everyone": everyone,
        }  # fmt: skip

    def wwids() -> dict[str, str]:
        return sysfs.wwids(sysfs.device_number(bench.path) or "")

    uneven = target.add("uneven", START, apart=True)
    half = Bench(compute, agent, uneven, lambda: connect(uneven, multipath=True))

    results.run("multipath_uneven", lambda: matrix.uneven_paths(half, uneven.backings))
    results.run("multipath_reused", reused)
