# SPDX-License-Identifier: Apache-2.0
"""What is done to which part: decided by the seed, and in a rolling restart by the list of processes."""

from tests.chaos.options import options
from tests.chaos.plan import Kind, plan, processes


def test_a_rolling_restart_ends_every_process_once_one_after_the_other_within_the_load() -> None:
    chosen = options(["--rolling", "--agents", "2"])
    faults = plan(chosen)
    assert [fault.part for fault in faults] == processes(2)
    assert {fault.kind for fault in faults} == {Kind.RESTART}
    times = [fault.at for fault in faults]
    assert times == sorted(times)
    assert times[-1] < chosen.spread


def test_the_same_seed_plans_the_same_faults() -> None:
    assert plan(options(["--seed", "3"])) == plan(options(["--seed", "3"])) != plan(options(["--seed", "4"]))
