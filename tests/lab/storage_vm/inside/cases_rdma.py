# SPDX-License-Identifier: Apache-2.0
"""iSER and NVMe over RDMA, on Soft-RoCE."""

from functools import partial
from pathlib import Path
from typing import Any

from tests.lab.storage_vm.inside import matrix, rdma
from tests.lab.storage_vm.inside.agent import Agent
from tests.lab.storage_vm.inside.commands import sh
from tests.lab.storage_vm.inside.compute import Compute, connect
from tests.lab.storage_vm.inside.matrix import START, Bench
from tests.lab.storage_vm.inside.rdma import ADDRESSES, IserTarget, IserVolume, RdmaTarget, RdmaVolume
from tests.lab.storage_vm.inside.results import Results
from tests.lab.storage_vm.inside.reused import rescan_scsi, reused


def run_iser(results: Results, compute: Compute, agent: Agent, *, long: bool) -> None:
    """iSCSI extensions for RDMA."""
    rdma.start()
    sh("modprobe", "-a", "ib_iser", "ib_isert")
    target = IserTarget("iser", ADDRESSES[:1])
    volume, other = (IserVolume(target.add(f"iser-{name}", START)) for name in ("a", "b"))
    bench = Bench(compute, agent, volume, lambda: rdma.connect_iser(volume))
    if long:
        matrix.run(results, "iser", bench)
    else:
        matrix.run_short(results, "iser", bench)

    def wrong_lun() -> dict[str, Any]:
        rdma.connect_iser(other)
        before = bench.guest.prints(bench.size)
        other.grow(bench.grow())
        return {
            "report": bench.order(other.connection), "guest": bench.guest.prints(before), "before": before,
        }  # fmt: skip

    def session_down() -> dict[str, Any]:
        portal = partial(target.portal, 0)
        return matrix.path_lost(bench, compute, partial(portal, up=False), partial(portal, up=True))

    def give() -> None:
        other.grow(bench.size)
        target.reuse(volume.inner, other.inner, portals=slice(0, 1))

    if long:
        results.run("iser_wrong_lun", wrong_lun)
        results.run("iser_session_down", session_down)
    results.run("iser_reused", lambda: reused(bench, give, rescan_scsi(bench)))


def run_nvme(results: Results, compute: Compute, agent: Agent, *, long: bool) -> None:
    """NVMe over RDMA, both forms of its properties."""
    rdma.start()
    sh("modprobe", "-a", "nvmet", "nvmet_rdma", "nvme_rdma")
    target = RdmaTarget("rdma", ADDRESSES[:1])
    inner, stranger = target.add(30, START), target.add(31, START)
    volume, other = RdmaVolume(inner), RdmaVolume(stranger)
    bench = Bench(compute, agent, volume, lambda: connect(volume, multipath=False))
    if long:
        matrix.run(results, "nvr", bench)
    else:
        matrix.run_short(results, "nvr", bench)
    second = RdmaVolume(inner, second_form=True).connection
    results.run("nvr_second_form", lambda: bench.extend("running", second))

    def wrong_namespace() -> dict[str, Any]:
        before = bench.guest.prints(bench.size)
        other.grow(bench.grow())
        reports = {
            "first form": bench.order(other.connection),
            "second form": bench.order(RdmaVolume(stranger, second_form=True).connection),
        }
        return {"reports": reports, "before": before, "guest": bench.guest.prints(before)}

    def two_portals() -> dict[str, Any]:
        twice = RdmaTarget("rdma-twice", ADDRESSES)
        spread = RdmaVolume(twice.add(40, START), second_form=True)
        twin = Bench(compute, agent, spread, lambda: connect(spread, multipath=True))
        both = [twin.extend("running", spread.connection), twin.extend("running", None)]
        names = [path.parent for path in Path("/sys/class/nvme").glob("nvme*/subsysnqn") if _is(path, twice.nqn)]
        twice.portal(ADDRESSES[1], up=False)
        compute.until_any([str(name / "state") for name in names], {"connecting"}, seconds=120)
        one = [twin.extend("running", spread.connection), twin.extend("running", None)]
        return {"controllers": len(names), "both": both, "one": one}

    if long:
        results.run("nvr_wrong_namespace", wrong_namespace)
        results.run("nvr_two_portals", two_portals)


def _is(path: Path, nqn: str) -> bool:
    return path.read_text().strip() == nqn
