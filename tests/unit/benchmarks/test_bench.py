# SPDX-License-Identifier: Apache-2.0
"""tools/bench: what is measured is on SQLite and small here; that it measures and judges is what is tested."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.benchmarks import __main__ as bench
from tests.benchmarks import agent, audit, registry
from tests.benchmarks.measure import Row, quantile, table
from tests.benchmarks.rig import Rig, post
from tests.benchmarks.scale_table import Fleet, missed
from tests.benchmarks.scale_table import table as scale_table
from tests.benchmarks.workspace import Workspace


def test_a_budget_is_an_upper_bound_unless_it_is_the_least_there_has_to_be() -> None:
    assert Row(what="a", value=5, budget=5).met
    assert not Row(what="a", value=6, budget=5).met
    assert Row(what="a", value=6, budget=5, least=True).met
    assert not Row(what="a", value=4, budget=5, least=True).met
    assert Row(what="a", value=4).met


def test_the_table_says_what_is_over_and_what_the_bare_library_takes() -> None:
    text = table([Row(what="slow", value=1234, budget=10, bare=5, bare_what="json"), Row(what="free", value=1)])
    _, slow, free = text.splitlines()
    assert slow.split() == ["slow", "1,234", "µs", "≤", "10", "µs", "OVER", "5", "µs", "json"]
    assert free.split() == ["free", "1", "µs", "-"]


def test_a_quantile_is_a_value_that_was_measured() -> None:
    assert quantile([], 0.99) == 0
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile(list(range(100)), 0.99) == 99


def test_the_rig_takes_extends_from_their_arrival_to_their_end(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("rig")
    rig = Rig(f"sqlite:///{directory / 'journal.sqlite3'}", directory, servers=30)
    post(rig.app, rig.some(3))
    reports = rig.dispatched(24)
    assert len(reports) >= 24
    rig.close()


def test_a_fleet_is_held_to_its_budgets() -> None:
    small = Fleet(
        hosts=10, volumes=100, extend=100, beat=100, inventory=100, start=0, start_took=0, reconcile=0, peak=70
    )
    fits = replace(small, hosts=10_000, volumes=100_000, extend=119, reconcile=5.9, peak=199)
    assert fits.talk == pytest.approx(10_000 / 20 * 100e-6 + 100_000 / 600 * 100e-6)
    assert missed([small, fits]) == []
    over = replace(fits, extend=121, beat=200, reconcile=6.1, peak=201)
    assert [text.partition(" of ")[0] for text in missed([small, over])] == [
        "an extend", "heartbeats and inventories", "a reconcile pass", "memory",
    ]  # fmt: skip
    lines = scale_table([small, over]).splitlines()
    assert lines[0].split() == ["hosts", "10", "10,000"]
    assert lines[3].split()[-2:] == ["1.00", "1.21"]


def _over(_workspace: Workspace) -> Iterator[Row]:
    yield Row(what="over", value=2, budget=1)


def test_json_tells_each_figure_and_the_exit_code_whether_all_budgets_hold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = {
        "audit": registry.Bench(about="quick", rows=audit.rows),
        "over": registry.Bench(about="slow", rows=_over),
    }
    monkeypatch.setattr(bench, "BENCHES", quick)
    monkeypatch.setattr("logging.disable", lambda _level: None)
    assert bench.main(["--json", "--share", "0.01"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert [(row["what"], row["met"]) for row in said["rows"]][-1] == ("over", False)
    assert {row["what"].partition(",")[0] for row in said["rows"]} == {"audit line", "over"}
    assert len(said["calibration_ms"]) == 2
    assert bench.main(["--only", "over"]) == 1
    assert "over" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--only", "nonsense"], ["--share", "0"], ["--share", "x"]])
def test_what_cannot_be_used_is_refused_in_words(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        bench.main(argv)
    assert ended.value.code == 2
    assert argv[1] in capsys.readouterr().err


def test_the_agents_bench_takes_every_order_to_its_report() -> None:
    """With one volume that is slower than the others, which is the last."""
    pytest.importorskip("libvirt")
    keys = agent.some_keys(8)
    slow = keys[0].volume_id
    came = agent.run(keys, agent.OverBrick(hanging=frozenset({slow}), hang=0.5))
    assert came.keys() == {key.volume_id for key in keys}
    assert max(came, key=lambda volume_id: came[volume_id]) == slow
