# SPDX-License-Identifier: Apache-2.0
"""Secrets that Cinder's messages and answers carry are nowhere else afterwards.

Exempt by name: Cinder's own intake queue and the unreadable lane.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import kombu
import pytest

from bridge.audit import report
from bridge.audit.page import render
from bridge.core.extend import new_id
from bridge.core.inventory import DomainSeen, GuestState, Inventory
from bridge.core.messages import HostMessage
from bridge.runtime.broker import AGENT_EXCHANGE, AGENT_TOPIC, PARKED_QUEUE, REPORTS_QUEUE, QueueSpec, ensure_queue
from bridge.runtime.publisher import SafePublisher
from bridge.standin.cinder import Attachment, StandInCinder
from listener.cli.record import Tap
from listener.retry_policy import SlowDelay
from tests.functional.conftest import Vhost
from tests.lab.cinder_bus import CinderBus
from tests.lab.deploy import Processes, Site
from tests.lab.paths import ROOT
from tests.lab.recording import Recorded, read_recording
from tests.lab.secrets import secrets_of
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

STREAM = ROOT / "bridge" / "standin" / "recorded.jsonl"
HOST = "cmp-1"
CANARY = "canary7f3a91"
KEY_ID = new_id()


def resize_payloads(recorded: list[Recorded]) -> Iterator[dict[str, Any]]:
    """The payloads of every volume.resize.end."""
    for message in recorded:
        inner = json.loads(json.loads(message.body)["oslo.message"])
        if inner["event_type"] == "volume.resize.end":
            yield inner["payload"]


def cinder_of(recorded: list[Recorded]) -> tuple[StandInCinder, list[str]]:
    """A Cinder that answers with the recording's volumes and connection data, secrets included; its servers."""
    cinder, servers = StandInCinder(), []
    for payload in resize_payloads(recorded):
        attachments = [
            Attachment(
                id=row["id"],
                server_id=row["instance_uuid"],
                host=row["attached_host"],
                connection_info=json.loads(row["connection_info"] or "{}"),
            )
            for row in payload["volume_attachment"]
        ]
        servers += [a.server_id for a in attachments if a.server_id]
        encryption = {"encryption_key_id": KEY_ID, "of_a_cinder_nobody_knows": f"{CANARY}-passphrase"}
        cinder.add_volume(
            payload["volume_id"], payload["size"], *attachments, encrypted=True, encryption=encryption
        )
    return cinder, servers


def planted(message: Recorded) -> Recorded:
    """With a canary in every place Cinder, or a backend of its, may put a secret."""
    outer = json.loads(message.body)
    inner = json.loads(outer["oslo.message"])
    if inner["event_type"] != "volume.resize.end":
        return message
    inner |= {"_context_auth_token": f"{CANARY}-token", "_context_service_catalog": [{"password": f"{CANARY}-cat"}]}
    inner["payload"]["admin_metadata"] = {"password": f"{CANARY}-meta"}
    for row in inner["payload"]["volume_attachment"]:
        info = json.loads(row["connection_info"] or "{}")
        info |= {
            "keyring": f"[client.cinder]\n\tkey = {CANARY}-keyring",
            "discovery_auth_password": f"{CANARY}-discovery",
            "options": f"-o username=u,password={CANARY}-smb",
            "encryption_key": f"{CANARY}-luks",
            "of_a_driver_nobody_knows": {"nested": [f"{CANARY}-nested"]},
        }
        row["connection_info"] = json.dumps(info)
        row["volume"] = {**(row["volume"] or {}), "provider_auth": f"CHAP u {CANARY}-chap"}
    outer["oslo.message"] = json.dumps(inner)
    return replace(message, body=json.dumps(outer).encode())


def recording_of(recorded: list[Recorded]) -> bytes:
    """What `extend-bridge record` would write of them."""
    output = StringIO()
    tap = Tap(output, wanted=lambda _: True, count=None)
    for message in recorded:
        tap.take(message.body)
    assert tap.written
    return output.getvalue().encode()


def drain(connection: kombu.Connection, queue: str) -> list[bytes]:
    """Every message of a queue, raw."""
    bodies = []
    bound = kombu.Queue(queue, channel=connection.channel(), no_declare=True)
    while (message := bound.get(accept=None)) is not None:
        bodies.append(bytes(message.body) if not isinstance(message.body, str) else message.body.encode())
        message.ack()
    return bodies


def test_no_secret_of_cinders_leaves_the_listener_or_the_cinder_reader(vhost: Vhost, tmp_path: Path) -> None:
    recorded = [planted(message) for message in read_recording(STREAM)]
    secrets = secrets_of(STREAM) | {CANARY}
    assert sum(CANARY.encode() in message.body for message in recorded) > 2
    assert len(secrets) > 10, "the recording must hold secrets, or this test proves nothing"
    cinder, servers = cinder_of(recorded)
    unknown = servers[-1]
    with ExitStack() as stack:
        server = cinder.server()
        server.start()
        stack.callback(lambda: (server.stop(), server.join(120)))
        site = Site(
            directory=tmp_path,
            bus_url=vhost.url,
            cinder_url=f"{server.url}/v3",
            host=HOST,
            extra="[DEFAULT]\ndebug = true\n",  # the worst case for a log
        )
        processes = Processes(site)
        stack.callback(processes.stop)
        processes.start("engine", "api", "listener")
        connection = stack.enter_context(vhost.connection())
        casts = f"{AGENT_TOPIC}.{HOST}"
        # the agent's queue without the agent: what the engine casts stays in it and can be looked at
        agent = kombu.Exchange(AGENT_EXCHANGE, type="topic", durable=False)
        kombu.Queue(casts, exchange=agent, routing_key=casts, durable=False)(connection.channel()).declare()
        tell_inventory(connection, [s for s in servers if s != unknown], processes)
        until(lambda: site.knows(servers[0]), "the inventory arrives")
        bus = CinderBus(vhost.url)
        stack.callback(bus.close)
        for message in recorded:
            bus.publish(message.body)
        until(
            lambda: (
                processes.metric("listener", "extend_bridge_listener_messages_total") >= len(recorded)
                and processes.metric("listener", "extend_bridge_listener_in_hand") == 0
            ),
            "the listener settles everything",
        )
        known = {(p["volume_id"], r["instance_uuid"]) for p in resize_payloads(recorded)
                 for r in p["volume_attachment"] if r["instance_uuid"] not in (None, unknown)}  # fmt: skip
        sent = 'extend_bridge_engine_casts_total{result="sent"}'
        until(lambda: processes.metric("engine", sent) >= len(known), "every known extend is cast")
        shown = {f"{part} {path}": processes.shown(part, path)
                 for part in ("engine", "api", "listener") for path in ("metrics", "healthz/ready")}  # fmt: skip
        codes = processes.stop()
        slow, orders = drain(connection, SlowDelay.SHORT.queue), drain(connection, casts)
        parked = drain(connection, PARKED_QUEUE)
    assert slow, "the event of the unknown server must be in the slow lane, or it proves nothing"
    assert b"".join(orders).count(b"driver_volume_type") >= len(known)
    assert b"".join(orders).count(KEY_ID.encode()) >= len(known), (
        "the id of the key is no secret, the agent needs it"
    )
    assert set(codes.values()) == {0}
    assert all(b"extend_bridge_build_info" in text for place, text in shown.items() if place.endswith("metrics"))
    page = render(report.make([tmp_path / "audit.jsonl"], older_than=0.0)).encode()
    assert servers[0].encode() in page
    places = {
        "slow lane": b"".join(slow), "casts": b"".join(orders), "parked lane": b"".join(parked),
        "recording": recording_of(recorded), "HTML report": page, **shown,
    }  # fmt: skip
    for path in tmp_path.iterdir():  # logs at debug, audit log, journal with its write-ahead log
        if path.is_file():
            places[path.name] = path.read_bytes()
    assert {"audit.jsonl", "journal.sqlite3", "listener.log", "engine.log", "api.log"} <= set(places)
    found = {
        (place, secret) for place, content in places.items() for secret in secrets if secret.encode() in content
    }
    assert not found


def tell_inventory(connection: kombu.Connection, servers: list[str], processes: Processes) -> None:
    """What the host agent would say of its guests."""
    ensure_queue(connection, QueueSpec(name=REPORTS_QUEUE))
    domains = tuple(DomainSeen(server_id=s, state=GuestState.ACTIVE) for s in dict.fromkeys(servers))
    message = HostMessage(
        host=HOST, boot_id=new_id(), seq=1, sent_at=0.0, inventory=Inventory(full=True, domains=domains)
    )
    with SafePublisher(connection) as publisher:
        publisher.publish(REPORTS_QUEUE, json.dumps(message.to_wire()).encode())
    processes.wait_ready("engine", "api")
