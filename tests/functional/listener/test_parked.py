# SPDX-License-Identifier: Apache-2.0
"""The parked lane on a real broker: looking leaves no trace, sending and throwing away leave an audit line."""

import json
from pathlib import Path

import pytest

from bridge.cli.app import main
from bridge.core.extend import new_id
from bridge.core.reasons import Reason
from bridge.runtime.broker import PARKED_QUEUE, kombu_connection
from listener.lanes import Lanes, Parked
from listener.notification import Origin
from tests.conftest import missing
from tests.lab.endpoint import RecordingEndpoint
from tests.lab.rabbitmq import RabbitNode, have_rabbitmq

pytestmark = pytest.mark.functional


def test_looking_counts_as_no_delivery_and_order_and_content_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ten looks under a delivery limit of two; then one is sent and one thrown away."""
    if not have_rabbitmq():
        missing("RabbitMQ")
    with RabbitNode() as node, RecordingEndpoint() as endpoint:
        _limit(node)
        conf, audit = tmp_path / "x.conf", tmp_path / "audit.log"
        conf.write_text(
            f"[notifications]\ntransport_url = {node.url}\n[audit]\nfile = {audit}\n"
            f"[endpoint]\nendpoint_override = {endpoint.url}\n"
        )

        complaints: list[str] = []

        def shell(*argv: str) -> tuple[int, str]:
            code = main([*argv, "--config-file", str(conf)])
            out, err = capsys.readouterr()
            complaints.append(err)
            return code, out

        lanes = Lanes(lambda: kombu_connection(node.url, heartbeat=0, name="test"))
        volumes = [new_id() for _ in range(3)]
        for volume in volumes:
            lanes.park(
                Parked(
                    reason=Reason.EVENT_BAD, volume_id=volume, server_id=new_id(), origin=Origin(message_id="m"),
                    first_seen=1.0,
                )
            )  # fmt: skip
        lanes.close()
        looks = [json.loads(shell("parked", "list", "-f", "json")[1]) for _ in range(10)]
        assert [row["Volume id"] for row in looks[-1]] == volumes
        assert all(look == looks[0] for look in looks)
        with kombu_connection(node.url, heartbeat=0, name="test") as connection, connection.channel() as channel:
            message = channel.basic_get(PARKED_QUEUE)
            assert (message.headers or {}).get("x-delivery-count", 0) == 0
        first, second, third = (row["ID"] for row in looks[0])
        assert shell("parked", "replay", first)[0] == 0
        assert [tag for _, tag in endpoint.events] == volumes[:1]
        assert "event_bad" in shell("parked", "show", third)[1]
        assert shell("parked", "discard", second)[0] == 0
        assert [row["ID"] for row in json.loads(shell("parked", "list", "-f", "json")[1])] == [third]
        assert shell("parked", "discard", second)[0] == 1
        assert complaints[-1] == f"nothing with the id {second} is parked\n"
        shell("parked", "discard", third)
        assert shell("parked", "list") == (0, "")
        assert complaints[-1] == "nothing is parked\n"
    events = [json.loads(line)["event"] for line in audit.read_text().splitlines()]
    assert events == ["replayed", "posted", "discarded", "discarded"]


def _limit(node: RabbitNode) -> None:
    node.ctl("set_policy", "limit", ".*", '{"delivery-limit":2}', "--apply-to", "queues")
