# SPDX-License-Identifier: Apache-2.0
"""What a seed decides of gray faults, and when a second counts as blind."""

import subprocess
import sys

import pytest

from tests.chaos.blind import StandingStill
from tests.chaos.gray_plan import LINK_FAULTS, USES, Gray, GrayFault, Service, gray_plan, gray_spread
from tests.chaos.ledger import DiskId
from tests.chaos.options import options
from tests.lab.paths import ROOT

ONE: DiskId = ("server-1", "volume-1")
TWO: DiskId = ("server-2", "volume-2")


def faults(*more: str) -> list[GrayFault]:
    return gray_plan(options(["--gray", *more]))


def test_the_same_seed_gives_the_same_faults() -> None:
    assert faults("--seed", "7") == faults("--seed", "7")
    assert faults("--seed", "7") != faults("--seed", "8")


def test_a_dry_run_needs_nothing_but_python() -> None:
    """It is the first thing that is tried on a machine where nothing is installed."""
    blocked = "import sys; sys.modules.update(dict.fromkeys(('sqlalchemy', 'kombu', 'amqp', 'oslo_config')))"
    show = "from tests.chaos.options import options; from tests.chaos.plan import show; show(options(['--gray']))"
    done = subprocess.run([sys.executable, "-c", f"{blocked}; {show}"], cwd=ROOT, capture_output=True, check=True)
    assert b"freeze-old" in done.stdout


@pytest.mark.parametrize("db", ["sqlite", "postgresql", "mariadb"])
def test_every_fault_meets_every_link_in_time(db: str) -> None:
    every = faults("--kills", "200", "--db", db)
    links = {
        (kind, service)
        for kind, services in USES.items()
        for service in services
        if db != "sqlite" or service is not Service.JOURNAL
    }
    met = {(fault.kind, fault.service, fault.fault) for fault in every if fault.service is not None}
    assert met >= {(*link, fault) for link in links for fault in LINK_FAULTS}
    of_servers = {fault.fault for fault in every if fault.service is None}
    of_database = {Gray.LOCKED, Gray.FULL} if db == "sqlite" else {Gray.LOCKED, Gray.READ_ONLY}
    assert of_servers == {Gray.BLOCKED, *of_database}


def test_the_first_half_comes_alone_and_lasts_longer_than_a_check_may_be_silent() -> None:
    every = faults("--kills", "20")
    alone = every[:10]
    for one, next_one in zip(alone, every[1:11], strict=True):
        assert one.at + one.seconds + 15 < next_one.at
    assert all(fault.seconds > 30 for fault in every if fault.fault is not Gray.RESET)
    assert gray_spread(options(["--gray", "--kills", "20"])) == max(f.at + f.seconds for f in every)


def test_the_oldest_disk_that_does_not_move_counts() -> None:
    standing = StandingStill()
    assert standing.look({}, 0) == 0
    assert standing.look({ONE: 1}, 10) == 0
    assert standing.look({ONE: 1, TWO: 1}, 30) == 20
    assert standing.look({ONE: 2, TWO: 1}, 45) == 15, "the first one has moved"
    assert standing.look({TWO: 1}, 50) == 20
    assert standing.look({}, 60) == 0
    assert standing.look({TWO: 1}, 70) == 0, "it is behind anew"
