# SPDX-License-Identifier: Apache-2.0
"""NVMe over TCP."""

from pathlib import Path
from typing import Any

from tests.lab.storage_vm.inside import matrix
from tests.lab.storage_vm.inside.agent import Agent
from tests.lab.storage_vm.inside.commands import sh
from tests.lab.storage_vm.inside.compute import Compute, connect
from tests.lab.storage_vm.inside.matrix import START, Bench
from tests.lab.storage_vm.inside.nvmet import NvmeTarget
from tests.lab.storage_vm.inside.results import Results
from tests.lab.storage_vm.inside.reused import reused


def run(results: Results, compute: Compute, agent: Agent) -> None:
    """Every case."""
    _load()
    target = NvmeTarget("volumes")
    volume, other = target.add(10, START), target.add(11, START)
    bench = Bench(compute, agent, volume, lambda: connect(volume, multipath=False))
    matrix.run(results, "nvme", bench)
    results.run("nvme_v2", lambda: bench.extend("running", volume.connection_v2))

    def wrong_namespace() -> dict[str, Any]:
        before = bench.size
        other.grow(bench.grow())
        reports = [bench.order(other.connection), bench.order(other.connection_v2)]
        return {"reports": reports, "before": before, "guest": bench.guest.prints(before)}

    results.run("nvme_wrong_namespace", wrong_namespace)

    twice = NvmeTarget("twice", ("127.0.0.1", "127.0.0.2"))
    spread = twice.add(20, START)

    def two_portals() -> dict[str, Any]:
        twin = Bench(compute, agent, spread, lambda: connect(spread.as_v2(), multipath=True))
        both = [twin.extend("running", spread.connection_v2), twin.extend("running", None)]
        controllers = [path.parent for path in Path("/sys/class/nvme").glob("nvme*/subsysnqn") if mine(path)]
        twice.portal("127.0.0.2", up=False)
        states = [str(controller / "state") for controller in controllers]
        compute.until_any(states, {"connecting"})
        one = [twin.extend("running", spread.connection_v2), twin.extend("running", None)]
        return {"controllers": len(controllers), "both": both, "one": one}

    def mine(path: Path) -> bool:
        return path.read_text().strip() == twice.nqn

    results.run("nvme_two_portals", two_portals)


def _load() -> None:
    sh("modprobe", "-a", "nvmet", "nvmet_tcp", "nvme_tcp")


def run_reused(results: Results, compute: Compute, agent: Agent) -> None:
    """Run last: a namespace that was taken away under a guest can hold up later scans of the same kernel."""
    _load()
    target = NvmeTarget("reused")
    volume, other = target.add(50, START), target.add(51, START)
    bench = Bench(compute, agent, volume, lambda: connect(volume, multipath=False))

    def give() -> None:
        other.grow(bench.size)
        target.reuse(volume, other)

    def rescan() -> None:
        for path in Path("/sys/class/nvme").glob("nvme*/rescan_controller"):
            sh("sh", "-c", f"echo 1 > {path}", check=False)

    results.run("nvme_reused", lambda: reused(bench, give, rescan))
