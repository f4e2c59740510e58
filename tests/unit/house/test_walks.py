# SPDX-License-Identifier: Apache-2.0
"""The walks of doc/source/architecture.rst are what runs: each is traced, and its modules are the page's."""

import logging
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from falcon import testing
from keystoneauth1.adapter import Adapter
from keystoneauth1.session import Session
from keystoneauth1.token_endpoint import Token

from bridge.core.outcome import Outcome
from bridge.journal import migrate
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from bridge.runtime import config
from bridge.runtime.rest import NovaEventsClient, RestClient
from bridge.wsgi import CONFIG_VARIABLE, Application
from hostagent.devices.image import FileStrategy
from hostagent.extend import extend
from listener.endpoint import EndpointClient
from tests.lab.endpoint import RecordingEndpoint
from tests.lab.paths import ROOT
from tests.lab.walk import Walk, walk_of
from tests.unit.api.fakes import ON_HOST, PATH, event
from tests.unit.hostagent.fakes import MIB, FakeDisk, FakeHypervisor, order, tools
from tests.unit.journal.conftest import Bench as JournalBench
from tests.unit.listener.test_delivery import Bench as ListenerBench
from tests.unit.listener.test_delivery import key as disk_key
from tests.unit.listener.test_delivery import resize

OPENING = {"bridge/journal/sqlite_file.py", "bridge/journal/begin.py"}
"""The modules that run only while a connection is opened, which is not of each walk."""
PAGE = ROOT / "doc" / "source" / "architecture.rst"


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    """Write no log, because the handlers of other tests are not of a walk."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def page(walk: str) -> list[str]:
    """Return the modules that the page names for a walk, in its order."""
    text = PAGE.read_text().partition(f".. walk: {walk}\n")[2].partition(".. end of walk")[0]
    assert text, f"{PAGE} has no walk {walk}"
    return re.findall(r"^\* ``([\w/.]+)``", text, re.MULTILINE)


def check(name: str, walk: Walk, *, modules: int | None = None, changes: int | None = None) -> None:
    """Compare a traced run with the page, and with the most that a reader should have to cross."""
    ran = [module for module in walk.modules if module not in OPENING]
    assert page(name) == ran, f"{name}: the run went through\n" + "\n".join(ran)
    assert modules is None or len(ran) <= modules
    assert changes is None or walk.changes <= changes, walk.changes


def test_a_notification_to_the_post() -> None:
    with RecordingEndpoint() as nova:
        session = Session(auth=Token(nova.url, "token"))
        rest = RestClient(Adapter(session, endpoint_override=nova.url), timeout=120, once_more=False)
        bench = ListenerBench()
        bench.worker._client = EndpointClient(NovaEventsClient(rest))
        messages = []
        bench.work(resize(disk_key(1)))
        walk = walk_of(lambda: messages.extend(bench.work(resize(disk_key(2)))))
        assert [message.acked for message in messages] == [True]
        assert len(nova.events) == 2
    check("notification", walk, modules=12)


def test_an_event_to_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "setup_logging", lambda *_: None)
    conf = tmp_path / "extend-bridge.conf"
    url = f"sqlite:///{tmp_path}/journal.sqlite3"
    conf.write_text(
        f"[journal]\nconnection = {url}\n[audit]\nfile = {tmp_path}/audit.log\n"
        "[api]\nwake_port = 0\nforce_noauth = true\n"
    )
    monkeypatch.setenv(CONFIG_VARIABLE, str(conf))
    client = testing.TestClient(Application())
    migrate.upgrade(Database(JournalSettings(connection=url)))
    with sqlite3.connect(tmp_path / "journal.sqlite3") as reader:
        columns = [row[1] for row in reader.execute("pragma table_info(domains)")]
        values = {"server_id": ON_HOST, "host": "cmp-1", "state": "active"}
        row = [values.get(column, 0) for column in columns]
        reader.execute(f"insert into domains values ({','.join('?' * len(row))})", row)

    def post() -> None:
        headers = {"OpenStack-API-Version": "compute 2.51"}
        answer = client.simulate_post(PATH, json={"events": [event()]}, headers=headers)
        assert answer.json["events"][0]["code"] == 200

    post()
    check("event", walk_of(post), modules=15)


def test_an_order_to_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hostagent.extend.check_identity", lambda _disk, _connection: None)
    hypervisor, disk = FakeHypervisor(), FakeDisk()
    server_id = hypervisor.add(disk)
    made = tools(hypervisor, FileStrategy())
    outcomes = []
    walk = walk_of(lambda: outcomes.append(extend(order(server_id, disk.volume_id, 128 * MIB), made).outcome))
    assert outcomes == [Outcome.RESIZED]
    check("order", walk, modules=16)


def test_a_report_to_the_closed_row(tmp_path: Path) -> None:
    database = Database(JournalSettings(connection=f"sqlite:///{tmp_path}/journal.sqlite3"))
    migrate.upgrade(database)
    journal = JournalBench(database)
    disk = disk_key(1)
    journal.has("host-1", disk)
    journal.arrive(disk)
    [claimed] = journal.claim()
    [attempt] = journal.dispatch(claimed, "host-1")
    walk = walk_of(lambda: journal.report(attempt, Outcome.RESIZED))
    assert journal.claim() == []
    database.dispose()
    check("report", walk, changes=40)
