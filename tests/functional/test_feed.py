# SPDX-License-Identifier: Apache-2.0
"""tools/feed: what a recording becomes, as its last line says."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.lab.endpoint import RecordingEndpoint
from tests.lab.paths import ROOT
from tests.lab.rabbitmq import have_rabbitmq

pytestmark = pytest.mark.functional

STREAM = ROOT / "bridge" / "standin" / "recorded.jsonl"


def test_a_recording_with_a_message_nobody_can_read_and_one_nobody_can_act_on(tmp_path: Path) -> None:
    if not have_rabbitmq():
        missing("RabbitMQ")
    odd = [
        {"body_b64": base64.b64encode(b"\xff\xfe\x00volume.resize.end").decode()},
        {"body": {"event_type": "volume.resize.end", "payload": None}, "routing_key": "notifications.error"},
    ]
    path = tmp_path / "recording.jsonl"
    path.write_text(STREAM.read_text() + "".join(f"{json.dumps(row)}\n" for row in odd))
    # a process of its own, as for a user: it sets up logging for the whole of its process
    fed = subprocess.run(
        [sys.executable, "-m", "tests.lab.feed", str(path)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    counts = json.loads(fed.stdout.splitlines()[-1])
    assert counts == {
        "messages": 27,
        "events": 6,
        "delivered": 6,
        "retried": 0,
        "parked": 1,
        "unreadable": 1,
        "skipped": {"no_server": 1, "not_attached": 1, "other_event": 18, "same_server": 2},
    }
    with RecordingEndpoint() as endpoint:
        dry = replayed(path)
        sent = replayed(path, "--send", "--endpoint", endpoint.url)
    for said in (dry, sent):
        assert said["messages"] == {"": counts["messages"]}
        assert said["events"] == {"": counts["events"]}
        assert said["skipped"] == counts["skipped"]
        assert [sum(said[kind].values()) for kind in ("parked", "unreadable")] == [1, 1]
    assert dry["would send"] == {"endpoint": counts["events"]}
    assert sent["delivered"] == {"delivered": counts["delivered"]}
    assert len(endpoint.events) == counts["delivered"]


def replayed(path: Path, *options: str) -> dict[str, dict[str, int]]:
    """The summary of `extend-bridge replay`, counts by verdict and reason."""
    done = subprocess.run(
        [sys.executable, "-m", "bridge.cli.app", "replay", "-f", "json", *options, str(path)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    said: dict[str, dict[str, int]] = {}
    for row in json.loads(done.stdout):
        said.setdefault(row["Verdict"], {})[row["Reason"]] = row["Count"]
    return said
