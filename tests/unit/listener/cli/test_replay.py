# SPDX-License-Identifier: Apache-2.0
"""Replay: the same decisions as the listener's, nothing sent without --send, nothing sent twice."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bridge.cli.app import main
from bridge.core.extend import REPLAY_MARK
from listener.cli.record import scrubbed
from listener.notification import ResizeEnd, parse
from tests.lab.endpoint import Event, RecordingEndpoint, Reply, takes_all
from tests.lab.paths import ROOT
from tests.lab.trail import extend, lines, made_id

STREAM = ROOT / "bridge" / "standin" / "recorded.jsonl"
SKIPPED = {"no_server": 1, "not_attached": 1, "other_event": 17, "same_server": 2}


@pytest.fixture
def endpoint() -> Iterator[RecordingEndpoint]:
    """Takes every event."""
    with RecordingEndpoint() as listening:
        yield listening


def replay(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the summary, {verdict or verdict/reason: count}."""
    code = main(["replay", "-f", "json", *argv])
    out = capsys.readouterr().out
    rows = json.loads(out) if out else []
    return code, {"/".join(filter(None, (r["Verdict"], r["Reason"]))): r["Count"] for r in rows}


def sends(
    capsys: pytest.CaptureFixture[str], endpoint: RecordingEndpoint, *argv: str
) -> tuple[int, dict[str, Any]]:
    """The same with --send to this endpoint."""
    return replay(capsys, "--send", "--endpoint", endpoint.url, *argv)


@pytest.fixture
def many(tmp_path: Path) -> str:
    """An audit log of 250 extends: three requests."""
    path = tmp_path / "audit.log"
    path.write_text("".join(f"{line}\n" for n in range(250) for line in lines(extend(n))))
    return str(path)


def goes_away(endpoint: RecordingEndpoint) -> None:
    """After one good answer."""

    def behaviour(events: Sequence[Event]) -> Reply:
        return takes_all(events) if len(endpoint.requests) == 1 else Reply(status=503)

    endpoint.behaviour = behaviour


def test_a_dry_run_is_the_default_and_counts_as_the_listener_does(
    capsys: pytest.CaptureFixture[str], endpoint: RecordingEndpoint
) -> None:
    """Nobody is called."""
    code, counts = replay(capsys, "--endpoint", endpoint.url, str(STREAM))
    assert code == 0
    assert (counts["messages"], counts["events"], counts["would send/endpoint"]) == (25, 6, 6)
    assert {name[8:]: count for name, count in counts.items() if name.startswith("skipped/")} == {
        **SKIPPED, "other_event": counts["skipped/other_event"],
    }  # fmt: skip
    assert endpoint.requests == []


def test_send_delivers_the_same_events_under_the_mark(
    capsys: pytest.CaptureFixture[str], endpoint: RecordingEndpoint, tmp_path: Path
) -> None:
    """The header has the form Nova takes; nothing is left behind beside the recording."""
    state = tmp_path / "state"
    code, counts = sends(capsys, endpoint, "--state", str(state), str(STREAM))
    assert (code, counts["delivered/delivered"]) == (0, 6)
    assert len(endpoint.events) == 6
    for headers, _ in endpoint.requests:
        sent_as = (
            headers["X-Openstack-Request-Id"]
            if "X-Openstack-Request-Id" in headers
            else headers["X-OpenStack-Request-ID"]
        )
        assert sent_as.startswith(REPLAY_MARK)
        assert re.fullmatch(r"req-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", sent_as)
    assert not state.exists()


def test_an_interrupted_replay_goes_on_and_sends_nothing_twice(
    capsys: pytest.CaptureFixture[str], endpoint: RecordingEndpoint, many: str
) -> None:
    """The endpoint goes away in the middle: exit code 3, and the next run sends the rest."""
    goes_away(endpoint)
    code, _ = sends(capsys, endpoint, many)
    assert code == 3
    taken = list(endpoint.requests[0][1])
    endpoint.requests.clear()
    endpoint.behaviour = takes_all
    code, counts = sends(capsys, endpoint, many)
    assert (code, counts["delivered/delivered"]) == (0, 150)
    everything = Counter((e["server_uuid"], e["tag"]) for e in taken) + Counter(endpoint.events)
    assert len(everything) == 250
    assert set(everything.values()) == {1}


def test_one_that_fails_at_its_last_request_goes_on_with_that(
    capsys: pytest.CaptureFixture[str], endpoint: RecordingEndpoint, many: str
) -> None:
    """And not from the start."""
    endpoint.behaviour = lambda events: takes_all(events) if len(endpoint.requests) <= 2 else Reply(status=503)
    assert sends(capsys, endpoint, many)[0] == 3
    endpoint.requests.clear()
    endpoint.behaviour = takes_all
    code, counts = sends(capsys, endpoint, many)
    assert (code, counts["delivered/delivered"], len(endpoint.events)) == (0, 50, 50)


def test_a_state_of_another_replay_is_refused(
    capsys: pytest.CaptureFixture[str], endpoint: RecordingEndpoint, many: str
) -> None:
    """Else the wrong events would count as sent."""
    goes_away(endpoint)
    sends(capsys, endpoint, many)
    assert sends(capsys, endpoint, "--only", made_id(3, 1), many)[0] == 2


def test_a_state_that_cannot_be_kept_is_said_before_anything_is_sent(
    capsys: pytest.CaptureFixture[str], endpoint: RecordingEndpoint, many: str, tmp_path: Path
) -> None:
    """Else the next run would send it all again."""
    code = main(["replay", "--send", "--endpoint", endpoint.url, "--state", str(tmp_path / "gone" / "state"), many])
    assert (code, endpoint.requests) == (2, [])
    assert "cannot be written" in capsys.readouterr().err


def test_an_endpoint_that_was_away_from_the_start_binds_nobody_to_that_replay(
    capsys: pytest.CaptureFixture[str], endpoint: RecordingEndpoint, many: str
) -> None:
    """Nothing was sent: other options may be chosen."""
    endpoint.behaviour = lambda _: Reply(status=503)
    assert sends(capsys, endpoint, many)[0] == 3
    assert not Path(f"{many}.replay").exists()
    endpoint.behaviour = takes_all
    endpoint.requests.clear()
    assert sends(capsys, endpoint, "--only", made_id(3, 1), many)[0] == 0
    assert len(endpoint.events) == 1


def test_only_and_map_choose_and_rename(
    capsys: pytest.CaptureFixture[str], endpoint: RecordingEndpoint, many: str
) -> None:
    """A recording of one cloud, replayed in another."""
    sends(capsys, endpoint, "--only", made_id(3, 1), "--map", f"{made_id(3, 2)}={made_id(7, 7)}", many)
    assert endpoint.events == [(made_id(7, 7), made_id(3, 1))]


def test_what_the_replay_did_is_in_the_audit_log(
    capsys: pytest.CaptureFixture[str], endpoint: RecordingEndpoint, many: str, tmp_path: Path
) -> None:
    """With the mark, and with the id of what was replayed."""
    trail, conf = tmp_path / "trail.log", tmp_path / "x.conf"
    conf.write_text(f"[audit]\nfile = {trail}\n")
    sends(capsys, endpoint, "--config-file", str(conf), "--only", made_id(3, 1), many)
    first, second = map(json.loads, trail.read_text().splitlines())
    assert (first["event"], second["event"], second["outcome"]) == ("replayed", "posted", "delivered")
    assert first["data"]["of"] == f"req-{made_id(3, 3)}"
    assert first["global_request_id"].startswith(REPLAY_MARK)
    assert main(["audit", "check", "--log", str(trail)]) == 0


def test_a_rate_is_kept(capsys: pytest.CaptureFixture[str], endpoint: RecordingEndpoint, many: str) -> None:
    """Events that are not due yet are not sent with those that are."""
    sends(capsys, endpoint, "--rate", "1000", many)
    assert len(endpoint.requests) > 3
    assert len(endpoint.events) == 250


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["--speed", "fast"], "--speed"),
        (["--rate", "0"], "--rate"),
        (["--map", "a=b"], "--map"),
        (["/nowhere/x.jsonl"], "/nowhere/x.jsonl"),
    ],
)
def test_wrong_usage_is_one_line(argv: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, nothing sent."""
    assert main(["replay", str(STREAM), *argv]) == 2
    said = capsys.readouterr().err
    assert word in said
    assert "Traceback" not in said


@pytest.mark.parametrize("line", ["{", "[1]", '{"x": 1}', '{"body_b64": "*"}'])
def test_a_line_nobody_can_use_is_named(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """File and line number."""
    path = tmp_path / "r.jsonl"
    path.write_text(f"\n{line}\n")
    assert main(["replay", str(path)]) == 2
    assert "line 2" in capsys.readouterr().err


def test_what_is_recorded_parses_to_the_same_and_holds_no_secret() -> None:
    """Every volume.resize.end of the captures: the same events, and nothing the parser does not know."""
    seen = 0
    for line in STREAM.read_text().splitlines():
        row = json.loads(line)
        read = parse(row["body"].encode(), max_bytes=10**7, max_rows=10**4)
        if isinstance(read, ResizeEnd):
            seen += 1
            ours = scrubbed(read)
            again = parse(ours, max_bytes=10**7, max_rows=10**4)
            assert isinstance(again, ResizeEnd)
            assert (again.volume_id, again.size, again.origin) == (read.volume_id, read.size, read.origin)
            assert again.rows == read.rows
            assert not re.search(rb"auth_|password|provider|connection|context_auth_token", ours)
    assert seen >= 5
