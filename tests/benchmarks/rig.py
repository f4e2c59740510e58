# SPDX-License-Identifier: Apache-2.0
"""A journal with servers, and what works on it: API, engine's work and reports in this process."""

import io
import json
import random
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry

from bridge.api.app import build
from bridge.api.auth import guarded, strategy
from bridge.api.policy import OsloPolicy
from bridge.api.settings import API_GROUPS, api_settings
from bridge.core.extend import Arrival, Bytes, ExtendKey, gib, new_id
from bridge.core.inventory import DomainSeen, GuestState, Inventory
from bridge.core.messages import HostMessage, Report
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.http.server import WsgiApp
from bridge.journal import migrate
from bridge.journal.accept import Journal
from bridge.journal.claims import Claims, NewAttempt
from bridge.journal.database import Database
from bridge.journal.reports import Reported
from bridge.journal.settings import JournalSettings
from bridge.runtime.audit import StreamAudit
from bridge.runtime.config import load
from bridge.runtime.metrics import ApiMetrics
from bridge.runtime.retry import Backoff

HOST: Final = "h1"
_SERVERS: Final = 1000


class Rig:
    """`keys` are disks of servers on HOST; their ids are random, as Nova's and Cinder's are."""

    def __init__(self, url: str, directory: Path, *, servers: int = _SERVERS) -> None:
        settings = JournalSettings(connection=url)
        self.database = Database(settings)
        migrate.upgrade(self.database)
        self.keys = [ExtendKey(str(uuid.uuid4()), str(uuid.uuid4())) for _ in range(servers)]
        self.work = Claims(self.database)
        self.reported = Reported(self.database, backoff=Backoff(), host_timeout=600)
        self.journal = Journal(self.database)
        self.audit = StreamAudit("bench", str(directory / "audit.log"))
        self.app = self._api(url)
        self._boot, self._seq = new_id(), 0
        self._random = random.Random(1)
        domains = tuple(DomainSeen(server_id=k.server_id, state=GuestState.ACTIVE) for k in self.keys)
        self.reported.take(
            [HostMessage.from_wire(json.loads(self.wire((), Inventory(full=True, domains=domains))))]
        )

    def _api(self, url: str) -> WsgiApp:
        """As the built-in server has it, without authentication."""
        argv = ["--config-file", "/dev/null"]
        conf = load("bench", API_GROUPS, argv, description="")
        for option, value in (
            ("auth_strategy", "noauth"), ("wake_port", 0), ("access_log", False), ("rate_limit", 0),
        ):  # fmt: skip
            conf.set_override(option, value, group="api")
        conf.set_override("connection", url, group="journal")
        settings = api_settings(conf)
        return build(
            settings, self.journal, ApiMetrics(CollectorRegistry()), self.audit,
            auth=guarded(strategy(settings, conf), settings), policy=OsloPolicy(conf), ping=lambda: None,
        )  # fmt: skip

    def some(self, count: int) -> list[ExtendKey]:
        """Disks drawn from all of them: neighbours in a request are none in an index."""
        return self._random.sample(self.keys, min(count, len(self.keys)))

    def arriving(self, count: int) -> list[ExtendKey]:
        """Disks of a request: one alone has no open extend yet, as nearly all that arrive."""
        keys = self.some(count)
        return [ExtendKey(keys[0].server_id, new_id())] if count == 1 else keys

    def wire(self, reports: tuple[Report, ...], inventory: Inventory | None = None) -> bytes:
        """A message of the host, as it travels."""
        self._seq += 1
        message = HostMessage(
            host=HOST, boot_id=self._boot, seq=self._seq, sent_at=0.0, reports=reports, inventory=inventory
        )
        return json.dumps(message.to_wire()).encode()

    def dispatched(self, count: int) -> list[Report]:
        """Extends from their arrival to their attempt; the reports that end them."""
        self.journal.accept([Arrival(key=key, request_id=f"req-{new_id()}") for key in self.some(count)])
        new: list[NewAttempt] = []
        while claimed := self.work.claim(200, report_within=600):
            new += [NewAttempt(id=new_id(), extend=x, host=HOST, target=gib(2)) for x in claimed]
        self.work.write_attempts(new)
        return [_report(attempt, number) for number, attempt in enumerate(new)]

    def close(self) -> None:
        """Let go of the database."""
        self.database.dispose()


def _report(attempt: NewAttempt, number: int) -> Report:
    """Each disk of another size, as it is in life."""
    return Report(
        attempt_id=attempt.id, key=attempt.extend.key, gen=attempt.extend.wanted_gen, outcome=Outcome.RESIZED,
        reason=Reason.SIZE_REACHED.value, target=attempt.target, before=gib(1),
        after=Bytes(attempt.target + number * 512),
    )  # fmt: skip


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
