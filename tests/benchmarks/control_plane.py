# SPDX-License-Identifier: Apache-2.0
"""API, journal and engine on SQLite, in this process: no broker, no Cinder, no HTTP server in the figures."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import falcon
from prometheus_client import CollectorRegistry

from bridge.api.app import build
from bridge.api.settings import ApiSettings
from bridge.core.extend import Bytes, ExtendKey, gib, new_id
from bridge.core.messages import DomainSeen, GuestState, HostMessage, Inventory, Report
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.core.trail import Event, Record
from bridge.journal import schema
from bridge.journal.database import Database
from bridge.journal.reported import Reported
from bridge.journal.settings import JournalSettings
from bridge.journal.store import Journal
from bridge.journal.work import NewAttempt, Work
from bridge.runtime.audit_log import StreamAudit
from bridge.runtime.backoff import Backoff
from bridge.runtime.metrics import ApiMetrics
from tests.benchmarks.measure import Row, per_item

_SERVERS = 1000
_ROUNDS = 10


class Rig:
    """A journal with servers, and what works on it."""

    def __init__(self, directory: Path) -> None:
        connection = f"sqlite:///{directory / 'journal.sqlite3'}"
        self.database = Database(JournalSettings(connection=connection))
        schema.upgrade(self.database)
        self.keys = [ExtendKey(new_id(), new_id()) for _ in range(_SERVERS)]
        self.boot, self.seq = new_id(), 0
        self.work = Work(self.database)
        self.reported = Reported(self.database, backoff=Backoff(), host_timeout=60)
        domains = tuple(DomainSeen(server_id=k.server_id, state=GuestState.ACTIVE) for k in self.keys)
        self.take((), Inventory(full=True, domains=domains))
        self.audit = StreamAudit("bench", str(directory / "audit.log"))
        settings = ApiSettings(journal=JournalSettings(connection=connection), wake_port=0)
        self.app = build(settings, Journal(self.database), ApiMetrics(CollectorRegistry()), self.audit)

    def take(self, reports: tuple[Report, ...], inventory: Inventory | None = None) -> None:
        """One message of the host."""
        self.seq += 1
        message = HostMessage(
            host="h1", boot_id=self.boot, seq=self.seq, sent_at=0.0, reports=reports, inventory=inventory
        )
        wire = json.loads(json.dumps(message.to_wire()))
        self.reported.take([HostMessage.from_wire(wire)])


def post(app: Any, keys: Sequence[ExtendKey]) -> None:
    """One request with an event for each key, straight into the WSGI application."""
    events = [{"name": "volume-extended", "server_uuid": k.server_id, "tag": k.volume_id} for k in keys]
    body = json.dumps({"events": events}).encode()
    environ = {
        "REQUEST_METHOD": "POST", "PATH_INFO": "/v2.1/os-server-external-events", "SCRIPT_NAME": "",
        "QUERY_STRING": "", "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body)),
        "SERVER_NAME": "x", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body), "wsgi.errors": io.StringIO(), "REMOTE_ADDR": "127.0.0.1",
        "HTTP_OPENSTACK_API_VERSION": "compute 2.51", "HTTP_ACCEPT": "application/json",
    }  # fmt: skip
    seen: list[str] = []
    b"".join(app(environ, lambda status, headers, exc=None: seen.append(status)))
    assert seen[0].startswith("200"), seen


def rows(directory: Path) -> Iterator[Row]:
    """The figures, as they come."""
    rig = Rig(directory)
    bare = falcon.App()
    bare.add_route("/v2.1/os-server-external-events", _Bare())
    post(rig.app, rig.keys[:100])
    groups = [rig.keys[n : n + 100] for n in range(0, _SERVERS, 100)]
    hundred = per_item(lambda: [post(rig.app, g) for g in groups], _SERVERS)
    bare_hundred = per_item(lambda: [post(bare, g) for g in groups], _SERVERS)
    yield Row(
        what="API, 100 events per request, commit and audit included", value=hundred, budget=150, bare=bare_hundred,
        bare_what="falcon, json in and out",
    )  # fmt: skip
    one = per_item(lambda: [post(rig.app, [k]) for k in rig.keys[:200]], 200)
    bare_one = per_item(lambda: [post(bare, [k]) for k in rig.keys[:200]], 200)
    yield Row(what="API, one event per request", value=one, budget=2500, bare=bare_one, bare_what="falcon")
    yield from _engine(rig)
    record = Record(event=Event.ACCEPTED, at=1.0, server=new_id(), volume=new_id(), request_id="req-x", attempt=1)
    lines = per_item(lambda: [rig.audit.write(record) for _ in range(5000)], 5000)
    bare_json = per_item(lambda: [json.dumps({"a": new_id(), "b": 1, "c": "x"}) for _ in range(5000)], 5000)
    yield Row(
        what="audit line, written one by one", value=lines, budget=15, bare=bare_json, bare_what="one uuid, json"
    )
    rig.database.dispose()


def _engine(rig: Rig) -> Iterator[Row]:
    figures = [_round(rig) for _ in range(_ROUNDS)]
    claim, take = (sum(column) / _ROUNDS for column in zip(*figures, strict=True))
    yield Row(what="engine: claim and attempts, without the cast", value=claim, budget=180)
    yield Row(what="engine: report taken and closed, in groups of 12", value=take, budget=120)


def _round(rig: Rig) -> tuple[float, float]:
    """200 extends from their arrival to their end: µs each for dispatch and for their reports."""
    post(rig.app, rig.keys[:200])
    new: list[NewAttempt] = []

    def dispatch() -> None:
        claimed = rig.work.claim(200, report_within=300)
        new.extend(NewAttempt(id=new_id(), extend=x, host="h1", target=gib(2)) for x in claimed)
        rig.work.write_attempts(new)

    claim = per_item(dispatch, 200)
    reports = [_report(attempt) for attempt in new]
    groups = [tuple(reports[n : n + 12]) for n in range(0, len(reports), 12)]
    return claim, per_item(lambda: [rig.take(group) for group in groups], len(reports))


def _report(attempt: NewAttempt) -> Report:
    return Report(
        attempt_id=attempt.id, key=attempt.extend.key, gen=attempt.extend.wanted_gen, outcome=Outcome.RESIZED,
        reason=Reason.SIZE_REACHED.value, target=attempt.target, before=Bytes(1), after=Bytes(attempt.target),
    )  # fmt: skip


class _Bare:
    """The least an answer to the same request costs."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Read the JSON, add a code to each event, write it."""
        events = json.loads(req.bounded_stream.read())["events"]
        resp.data = json.dumps({"events": [{**e, "status": "completed", "code": 200} for e in events]}).encode()
