# SPDX-License-Identifier: Apache-2.0
"""Reports from log files as they really are: several, packed, out of order, cut in the middle of a line."""

import gzip
import random
from pathlib import Path

import pytest

from bridge.audit import logfiles, page, report, trace
from bridge.audit.histogram import Durations
from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.errors import OperatorError
from bridge.core.extend import ExtendKey
from tests.lab.trail import START, extend, lines, made_id

ALL = ["resized", "resized", "already", "unsupported", "parked", "open"]


def logs(directory: Path, *, without: str = "") -> list[Path]:
    """A log per part, each in a mixed order, the listener's packed."""
    parts: dict[str, list[str]] = {}
    for number, result in enumerate(ALL):
        for part, record in extend(number, result=result, at=START + number):
            parts.setdefault(part, []).append(record.to_line(part))
    random.Random(3).shuffle(parts["engine"])
    for part, told in parts.items():
        text = "".join(f"{line}\n" for line in told).encode()
        if part == "listener":
            (directory / "audit-listener.log.1.gz").write_bytes(gzip.compress(text))
        elif part != without:
            (directory / f"audit-{part}.log").write_bytes(text)
    return logfiles.find([str(directory)])


def test_totals_are_of_extends_not_of_lines(tmp_path: Path) -> None:
    """Whatever order the lines stand in."""
    made = report.make(logs(tmp_path), older_than=1.0)
    assert dict(made.results) == {"resized": 2, "already": 1, "unsupported": 1, "parked": 1, "working": 1}
    assert (made.extends, made.opened, made.volumes) == (6, 5, 6)
    assert [b.volume for b in made.parked] == [made_id(4, 1)]
    assert [b.volume for b in made.behind] == [made_id(3, 1)]
    assert made.missing == []


def test_guests_that_see_the_size_at_their_restart_are_named_and_no_alarm(tmp_path: Path) -> None:
    """By the reason of the extend's end."""
    lines = [record.to_line(part) for part, record in extend(1, result="resized")]
    lines[-1] = lines[-1].replace('"size_reached"', '"seen_at_restart"')
    (tmp_path / "audit.log").write_text("".join(f"{line}\n" for line in lines))
    made = report.make(logfiles.find([str(tmp_path)]), older_than=1.0)
    assert ([b.volume for b in made.at_restart], made.at_restarts) == ([made_id(1, 1)], 1)
    assert made.wrong.total() == 0


def test_only_what_is_open_for_too_long_is_stuck(tmp_path: Path) -> None:
    """Measured at the newest line of the logs, or at a given time."""
    paths = logs(tmp_path)
    assert report.make(paths, older_than=60.0).wrong["stuck"] == 0
    assert report.make(paths, older_than=60.0, now=START + 100).wrong["stuck"] == 1


def test_what_came_well_in_the_end_is_neither_parked_nor_behind(tmp_path: Path) -> None:
    """The newest extend of a disk decides."""
    path = tmp_path / "audit.log"
    told = [*extend(1, result="parked"), *extend(1, at=START + 60), *extend(2, result="refused")]
    retried = [(p, r) for p, r in extend(2, at=START + 60)]
    path.write_text("".join(f"{line}\n" for line in lines([*told, *retried])))
    assert report.make([path]).wrong.total() == 0


def test_the_span_is_of_when_extends_began(tmp_path: Path) -> None:
    """Their later lines count all the same."""
    made = report.make(logs(tmp_path), since=START + 1, until=START + 3)
    assert dict(made.results) == {"resized": 1, "already": 1}


@pytest.mark.parametrize(("without", "word"), [("engine", "engine"), ("api", "API")])
def test_a_missing_log_is_said_in_words(tmp_path: Path, without: str, word: str) -> None:
    """What cannot be known is not made up: nothing counts as stuck for want of an engine's log."""
    made = report.make(logs(tmp_path, without=without), older_than=1.0, now=START + 9999)
    assert any(word in line for line in made.missing)
    assert made.wrong["stuck"] == (0 if without == "engine" else 1)


def test_a_torn_last_line_costs_only_itself(tmp_path: Path) -> None:
    """As after a crash or a full disk; also inside a gzip file, and with other lines in between."""
    whole = "".join(f"{line}\n" for line in lines([*extend(1), *extend(2)]))
    torn, packed = tmp_path / "a.log", tmp_path / "b.log.gz"
    torn.write_text("Nov 01 host extend-bridge: hello\n" + whole[:-40])
    packed.write_bytes(gzip.compress(whole.encode())[:-9])
    made = report.make([torn])
    assert (made.results["resized"], made.results["working"], made.reading.torn, made.reading.foreign) == (
        1,
        1,
        1,
        1,
    )
    assert report.make([packed]).reading.damaged == 1


def test_a_prefix_of_syslog_is_left_out(tmp_path: Path) -> None:
    """journalctl -o short puts one before each line."""
    path = tmp_path / "x"
    path.write_text("".join(f"Nov 01 12:00:00 ctl engine[7]: {line}\n" for line in lines(extend(1))))
    assert report.make([path]).results["resized"] == 1


def test_lines_are_dealt_into_many_files_without_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded by parts; the result is the same."""
    paths = logs(tmp_path)
    whole = report.make(paths)
    monkeypatch.setattr("bridge.audit.grouping._PART_BYTES", 100)
    parted = report.make(paths)
    assert (parted.results, parted.wrong, parted.reasons) == (whole.results, whole.wrong, whole.reasons)


def test_no_log_is_an_error_in_words(tmp_path: Path) -> None:
    """Not an empty report, which would look like peace."""
    with pytest.raises(OperatorError, match="--log"):
        logfiles.find([str(tmp_path / "nothing*")])


def test_percentiles_are_right_to_a_percent() -> None:
    """Beside a sorted list."""
    chance, hop = random.Random(1), Durations()
    values = sorted(chance.lognormvariate(0, 2) for _ in range(5000))
    for value in values:
        hop.add(value)
    for percent in (50, 95, 99):
        assert hop.percentile(percent) == pytest.approx(values[int(len(values) * percent / 100) - 1], rel=0.012)
    assert hop.longest == values[-1]
    assert Durations().percentile(50) == 0


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5])
def test_a_trace_finds_the_whole_story_by_any_of_its_ids(tmp_path: Path, kind: int) -> None:
    """Volume, server, request, message, extend: the lines without that id belong to it as well."""
    needle = made_id(0, kind) if kind != 3 else f"req-{made_id(0, 3)}"
    found = trace.trace(logs(tmp_path), needle)
    assert [len(story.entries) for story in found.stories] == [6]
    assert list(trace.unknown(found)) == []


def test_a_trace_says_what_a_missing_log_hides(tmp_path: Path) -> None:
    """In words, for that volume."""
    found = trace.trace(logs(tmp_path, without="engine"), made_id(0, 1))
    (line,) = trace.unknown(found)
    assert "engine" in line
    assert made_id(0, 1) in line


def test_file_systems_are_counted_by_their_newest_line_and_are_no_extends(tmp_path: Path) -> None:
    """Their steps are no file systems; those that leave room are on the page."""
    written = [
        AuditRecord.of(
            ExtendKey(made_id(n, 2), made_id(n, 1)), AuditEvent.FILESYSTEM, START + at, host="h", outcome=outcome,
            reason=reason, data=data,
        ).to_line("engine")
        for n, at, outcome, reason, data in (
            (1, 1, "behind", "fs_can_follow", {"unused": 99}),
            (1, 2, "ok", None, {"step": "partition"}),
            (1, 3, "grown", "fs_grown", {}),
            (2, 1, "refused", "fs_luks", {"unused": 123456}),
        )
    ]  # fmt: skip
    (tmp_path / "audit.log").write_text("".join(f"{line}\n" for line in written))
    made = report.make(logfiles.find([str(tmp_path)]))
    assert dict(made.file_systems) == {"grown": 1, "refused": 1}
    assert (made.extends, made.wrong.total()) == (0, 0)
    shown = page.render(made)
    assert "File systems in guests" in shown
    assert "123456" in shown
