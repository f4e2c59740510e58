# SPDX-License-Identifier: Apache-2.0
"""Stories: which lines belong together, and how an extend stands."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.audit import trace
from bridge.audit.entry import Entry, read_entry
from bridge.audit.story import Story, StoryState, stories
from bridge.core.audit import AuditEvent, AuditRecord
from tests.lab.trail import START, extend, lines, made_id

Lines = list[tuple[str, AuditRecord]]


def told(records: Lines) -> list[Story]:
    """The stories of these lines, in the order of time."""
    entries = [entry for line in lines(records) if (entry := read_entry(line.encode())) is not None]
    return stories(sorted(entries, key=lambda entry: entry.at))[0]


@pytest.mark.parametrize(
    ("result", "standing"),
    [
        ("resized", StoryState.CLOSED),
        ("guest_off", StoryState.CLOSED),
        ("unsupported", StoryState.FAILED),
        ("parked", StoryState.PARKED),
        ("open", StoryState.WORKING),
    ],
)
def test_one_extend_is_one_story_that_stands_as_its_last_line_says(result: str, standing: StoryState) -> None:
    """From the listener's line to the engine's."""
    (story,) = told(extend(1, result=result))
    assert story.standing is standing
    assert story.result == (result if standing in {StoryState.CLOSED, StoryState.FAILED} else standing.value)


def test_an_answer_written_down_after_the_end_belongs_to_the_same_story() -> None:
    """The engine may close an extend before the listener has written that it was delivered."""
    records = extend(1, took=0.02)
    late = [(p, replace(r, at=START + 5) if r.event is AuditEvent.POSTED else r) for p, r in records]
    (story,) = told(late)
    assert story.standing is StoryState.CLOSED


def test_a_second_resize_after_the_end_is_a_second_story() -> None:
    """As it is a second row in the journal."""
    second = [
        (
            part,
            replace(r, extend_id=made_id(9, 5) if r.extend_id else None, message_id=r.message_id and made_id(9, 4)),
        )
        for part, r in extend(1, at=START + 60)
    ]
    assert [s.standing for s in told([*extend(1), *second])] == [StoryState.CLOSED, StoryState.CLOSED]


def test_an_acceptance_while_one_is_open_is_the_same_story() -> None:
    """As it is a generation of the same row."""
    again = [x for x in extend(1, at=START + 0.5, result="open") if x[1].event is AuditEvent.ACCEPTED]
    (story,) = told([*extend(1, took=2), *again])
    assert story.standing is StoryState.CLOSED


def test_a_report_that_came_again_after_a_kill_closes_what_nobody_said_was_closed() -> None:
    """The engine was killed between closing it and its audit line; such a report has no age."""
    records = [
        (p, replace(r, event=AuditEvent.LATE, seconds=None) if r.event is AuditEvent.CLOSED else r)
        for p, r in extend(1)
    ]
    (story,) = told(records)
    assert (story.standing, story.result) == (StoryState.CLOSED, "resized")


def test_a_late_report_of_an_open_extend_closes_nothing() -> None:
    """An older attempt reports; a newer one is under way."""
    records = [(p, replace(r, event=AuditEvent.LATE) if r.event is AuditEvent.CLOSED else r) for p, r in extend(1)]
    assert told(records)[0].standing is StoryState.WORKING


def test_another_engine_that_was_still_at_it_opens_nothing() -> None:
    """Its lines may come after the end."""
    waiting = AuditRecord(
        event=AuditEvent.WAITING, at=START + 3, volume=made_id(1, 1), server=made_id(1, 2), extend_id=made_id(1, 5),
        reason="cinder_unreachable",
    )  # fmt: skip
    assert told([*extend(1), ("engine", waiting)])[0].standing is StoryState.CLOSED


def test_two_guests_of_one_volume_have_a_story_each() -> None:
    """A multi-attached volume."""
    both = [(p, replace(r, extend_id=r.extend_id and made_id(8, 5))) for p, r in extend(1, guest=7, result="open")]
    assert {s.standing for s in told([*extend(1), *both])} == {StoryState.CLOSED, StoryState.WORKING}


def test_hops_have_the_times_between_their_lines() -> None:
    """By the writers' clocks, Cinder's own included."""
    hops = dict(told(extend(1, took=1.0))[0].hops())
    assert hops["cinder to listener"] == pytest.approx(0.01, abs=1e-4)
    assert hops["cinder to guest"] == pytest.approx(1.01, abs=1e-4)
    assert hops["accepted to closed"] == pytest.approx(0.99, abs=1e-4)
    assert hops["step resize"] == pytest.approx(0.2)


def test_clocks_that_disagree_give_no_negative_hop() -> None:
    """The listener's clock is ahead of the API's."""
    skewed = [(p, replace(r, at=r.at + 5) if p == "listener" else r) for p, r in extend(1)]
    story = told(skewed)[0]
    assert story.standing is StoryState.CLOSED
    assert all(seconds >= 0 for _, seconds in story.hops())


def test_any_line_that_is_missing_breaks_nothing() -> None:
    """Whatever a log lacks, the rest is told."""
    chance, records = random.Random(4), extend(1)
    for _ in range(60):
        some = [record for record in records if chance.random() < 0.6]
        assert len(told(some)) == bool(some)


@pytest.mark.parametrize(
    "line",
    [b"", b"{}", b"[]", b"\xff", b'{"schema":1,"time":3,"part":"x","event":"y"}', b'{"time":"2026"}', b"{" * 99999],
)
def test_what_is_no_line_is_none(line: bytes) -> None:
    """Never an error."""
    assert read_entry(line) is None


def test_an_event_of_a_newer_release_is_kept() -> None:
    """It is shown in a trace and changes no standing."""
    line = lines(extend(1))[0].replace('"received"', '"teleported"').encode()
    entry = read_entry(line)
    assert isinstance(entry, Entry)
    assert entry.event == "teleported"
    assert stories([entry])[0][0].standing is StoryState.RECEIVED


def histories(at: float = START) -> tuple[Lines, Lines]:
    """What reconciliation opened while the event sat in the slow lane, and the later post of the same event."""
    volume, server, user = made_id(1, 1), made_id(1, 2), f"req-{made_id(1, 3)}"
    both: dict[str, Any] = {"volume": volume, "server": server}
    message: dict[str, Any] = {**both, "message_id": made_id(1, 4), "global_request_id": user}

    def engine(extend_id: str, start: float) -> Lines:
        order: dict[str, Any] = {**both, "extend_id": extend_id, "host": "h1", "attempt": 1}
        return [
            ("engine", AuditRecord(event=AuditEvent.DISPATCHED, at=start, **order)),
            ("engine", AuditRecord(event=AuditEvent.CLOSED, at=start + 1, outcome="resized", **order)),
        ]

    first = [
        ("listener", AuditRecord(event=AuditEvent.RECEIVED, at=at, **message)),
        ("listener", AuditRecord(event=AuditEvent.DEFERRED, at=at + 1, reason="event_unknown", **message)),
        ("engine", AuditRecord(event=AuditEvent.BEHIND, at=at + 2, data={"source": "reconcile"}, **both)),
        *engine(made_id(1, 5), at + 3),
    ]
    accepted: dict[str, Any] = {
        **both,
        "extend_id": made_id(2, 5),
        "request_id": "req-api",
        "global_request_id": "req-batch",
    }
    second = [
        ("api", AuditRecord(event=AuditEvent.ACCEPTED, at=at + 30, **accepted)),
        ("listener", AuditRecord(event=AuditEvent.POSTED, at=at + 30.1, outcome="delivered",
                                 data={"posted_as": "req-batch"}, **message)),
        *engine(made_id(2, 5), at + 31),
    ]  # fmt: skip
    return first, second


def test_an_extend_that_reconciliation_opened_lacks_nothing_and_a_later_post_opens_one_of_its_own(
    tmp_path: Path,
) -> None:
    """The first is missing or cut in the API's log; no listener sent the second."""
    first, second = histories()
    made = told([*first, *second])
    assert [story.extend_id for story in made] == [made_id(1, 5), made_id(2, 5)]
    assert [len(story.entries) for story in made] == [len(first), len(second)]
    log = tmp_path / "audit.log"
    log.write_text("".join(f"{line}\n" for line in lines([*first, *second])))
    assert list(trace.unknown(trace.trace([log], made_id(1, 1)))) == []


def test_an_acceptance_that_no_listener_posted_is_still_said_to_have_come_from_elsewhere(tmp_path: Path) -> None:
    """And an extend that neither the API nor reconciliation opened is cut."""
    first, second = histories()
    log = tmp_path / "audit.log"
    kept = [pair for pair in second if pair[1].event is not AuditEvent.POSTED]
    log.write_text("".join(f"{line}\n" for line in lines([*kept, *extend(7)])))
    said = "; ".join(trace.unknown(trace.trace([log], made_id(1, 1))))
    assert "no listener sent this" in said
    log.write_text("".join(f"{line}\n" for line in lines(first[3:])))
    assert "missing or cut" in "; ".join(trace.unknown(trace.trace([log], made_id(1, 1))))


def test_a_retry_by_an_operator_opens_a_story_that_no_listener_had_to_send(tmp_path: Path) -> None:
    """After a discard as well; "it came by HTTP from somebody else" was said of it."""
    both: dict[str, Any] = {"volume": made_id(1, 1), "server": made_id(1, 2)}
    first = extend(1, result="open")
    discarded = AuditRecord(event=AuditEvent.DISCARDED, at=START + 50, extend_id=made_id(1, 5), **both)
    retried = AuditRecord(
        event=AuditEvent.ACCEPTED, at=START + 60, extend_id=made_id(2, 5), data={"retried": made_id(1, 5)}, **both
    )
    records: Lines = [*first, ("operator", discarded), ("operator", retried)]
    assert [story.standing for story in told(records)] == [StoryState.DISCARDED, StoryState.ACCEPTED]
    log = tmp_path / "audit.log"
    log.write_text("".join(f"{line}\n" for line in lines(records)))
    assert list(trace.unknown(trace.trace([log], made_id(1, 1)))) == []


def test_what_a_host_reports_after_a_discard_changes_nothing() -> None:
    both: dict[str, Any] = {"volume": made_id(1, 1), "server": made_id(1, 2), "extend_id": made_id(1, 5)}
    ends = [
        ("operator", AuditRecord(event=AuditEvent.DISCARDED, at=START + 50, **both)),
        ("engine", AuditRecord(event=AuditEvent.STEP, at=START + 55, outcome="ok", **both)),
    ]
    (story,) = told([*extend(1, result="open"), *ends])
    assert story.standing is StoryState.DISCARDED


def test_a_message_that_is_parked_and_discarded_does_not_end_the_extend_that_the_journal_works_on() -> None:
    """The API accepted an earlier post, whose answer was lost."""
    message: dict[str, Any] = {"volume": made_id(1, 1), "server": made_id(1, 2), "message_id": made_id(1, 4)}
    ends = [
        ("listener", AuditRecord(event=AuditEvent.PARKED, at=START + 50, **message)),
        ("operator", AuditRecord(event=AuditEvent.DISCARDED, at=START + 55, **message)),
    ]
    (story,) = told([*extend(1, result="open"), *ends])
    assert story.standing is StoryState.WORKING
