# SPDX-License-Identifier: Apache-2.0
"""Half-dead databases: frozen, dripping, read-only, locked. Every transaction ends, and what can heals."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa

from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import Arrival, ExtendKey
from bridge.journal import migrate
from bridge.journal.accept import Journal
from bridge.journal.connect import LIMITS, DatabaseLimits
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from bridge.journal.tables import passes
from bridge.journal.watch import DatabaseCheck, DatabaseProbe, prove_write
from bridge.runtime.health import Health
from tests.lab.databases import MariaDB, PostgreSQL, Server
from tests.lab.proxy import Link, Proxy, Way, Which
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

SOON = DatabaseLimits(connect=3, ping=1, idle=0.2, lock=1, statement=3, checkout=3, total=8, abandoned=4)
"""The product's limits, shortened."""
ENDS = 60.0
"""Seconds within which a call that is limited to `SOON.total` has to end on any machine."""


class Line:
    """A database behind a proxy."""

    def __init__(self, server: Server, url: str, proxy: Proxy) -> None:
        self.server = server
        self.url = url
        self.proxy = proxy
        self.database = Database(JournalSettings(connection=proxy.url(url)), limits=SOON)
        self.journal = Journal(self.database)
        migrate.upgrade(self.database)

    def direct(self) -> Database:
        """The same database without the proxy and its faults."""
        return Database(JournalSettings(connection=self.url))


@pytest.fixture
def line(server: Server) -> Iterator[Line]:
    with Proxy(server.port) as proxy:
        made = Line(server, server.new_url(), proxy)
        yield made
        made.database.dispose()


@contextmanager
def ending() -> Iterator[None]:
    """A block that must end: the product's own limits, with room for a slow machine."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < ENDS


def fill_pool(database: Database, count: int) -> None:
    """Leave so many idle connections in the pool."""
    connections = [database.engine.connect() for _ in range(count)]
    for connection in connections:
        connection.exec_driver_sql("SELECT 1")
    for connection in connections:
        connection.close()


@pytest.mark.parametrize("fault", [Proxy.freeze, Proxy.lose])
def test_after_a_failover_that_leaves_old_connections_open_and_silent_a_write_succeeds(
    fault: Callable[[Proxy], None], line: Line, key: ExtendKey
) -> None:
    fill_pool(line.database, 4)
    fault(line.proxy)
    with ending():
        line.journal.accept([Arrival(key=key)])
    assert line.direct().read(lambda c: c.scalar(sa.text("SELECT COUNT(*) FROM extends"))) == 1


def in_clear(server: Server) -> str:
    """Return the URL of an empty database without TLS, which PyMySQL uses where the server has it (MariaDB 11)."""
    url = server.new_url()
    return f"{url}&ssl_disabled=true" if url.startswith("mysql") else url


def test_a_statement_that_was_under_way_is_given_up_and_done_anew(server: Server, key: ExtendKey) -> None:
    """Frozen at the INSERT, when the pool has no idle connection that could be pinged."""
    armed = threading.Event()

    def look(link: Link, way: Way, piece: bytes) -> bytes:
        if way is Way.UP and armed.is_set() and b"INSERT INTO extends" in piece:
            armed.clear()
            link.freeze()
        return piece

    with Proxy(server.port, look=look) as proxy:
        line = Line(server, in_clear(server), proxy)
        line.journal.accept([Arrival(key=ExtendKey(key.volume_id, key.server_id))])
        armed.set()
        with ending():
            line.journal.accept([Arrival(key=key)])
        assert not armed.is_set()
        line.database.dispose()


def test_the_answer_to_a_commit_is_lost_and_the_event_is_not(server: Server, key: ExtendKey) -> None:
    """It may then be there twice as a generation, never not at all."""
    armed = threading.Event()

    def look(link: Link, way: Way, piece: bytes) -> bytes:
        if way is Way.UP and armed.is_set() and b"COMMIT" in piece:
            armed.clear()
            link.freeze(Way.DOWN)
        return piece

    with Proxy(server.port, look=look) as proxy:
        line = Line(server, in_clear(server), proxy)
        armed.set()
        with ending():
            line.journal.accept([Arrival(key=key)])
        assert not armed.is_set()
        rows = line.direct().read(lambda c: c.scalar(sa.text("SELECT COUNT(*) FROM extends WHERE open = 1")))
        assert rows == 1
        line.database.dispose()


@pytest.mark.parametrize("fault", ["freeze", "drip", "lose", "refuse"])
def test_a_server_that_cannot_be_talked_to_is_an_error_in_words_in_time_and_heals(
    fault: str, line: Line, key: ExtendKey
) -> None:
    if fault == "drip":
        line.proxy.drip(20, Which.ALL, Way.DOWN)  # each byte resets a timeout of the socket
    elif fault == "refuse":
        line.proxy.reset()
        line.proxy.refuse()
    else:
        getattr(line.proxy, fault)(Which.ALL)
    with ending(), pytest.raises(JournalUnavailableError, match="cannot be used") as caught:
        line.journal.accept([Arrival(key=key)])
    assert "eb@" not in str(caught.value) or "127.0.0.1" in str(caught.value)  # which server
    line.proxy.heal()

    def works() -> bool:
        try:
            line.journal.accept([Arrival(key=key)])
        except JournalUnavailableError:
            return False
        return True

    until(works, "the journal works again", seconds=ENDS)


def test_a_lock_that_is_held_is_not_waited_for_without_end(line: Line, key: ExtendKey) -> None:
    line.journal.accept([Arrival(key=key)])
    with line.direct().engine.connect() as other:
        other.exec_driver_sql("UPDATE extends SET failures = 0")  # and no commit
        with ending(), pytest.raises(JournalUnavailableError, match="other transactions hold these rows"):
            line.journal.accept([Arrival(key=key)])
        other.rollback()
    line.journal.accept([Arrival(key=key)])


def test_a_table_that_a_backup_or_a_migration_has_locked_is_not_waited_for_without_end(
    line: Line, key: ExtendKey
) -> None:
    with line.direct().engine.connect() as other:
        if isinstance(line.server, MariaDB):
            other.exec_driver_sql("FLUSH TABLES WITH READ LOCK")
        else:
            other.exec_driver_sql("LOCK TABLE extends IN ACCESS EXCLUSIVE MODE")
        with ending(), pytest.raises(JournalUnavailableError):
            line.journal.accept([Arrival(key=key)])
        if isinstance(line.server, MariaDB):
            other.exec_driver_sql("UNLOCK TABLES")
    line.journal.accept([Arrival(key=key)])


def test_a_client_that_died_with_locks_in_its_hand_is_ended_by_the_server(line: Line, key: ExtendKey) -> None:
    """Its host lost power: no FIN, no RST, and the server's own patience is hours."""
    line.journal.accept([Arrival(key=key)])
    dead = Database(JournalSettings(connection=line.proxy.url(line.url)), limits=SOON)
    with dead.engine.connect() as connection:
        connection.exec_driver_sql("UPDATE extends SET failures = 0")  # and no commit
        line.proxy.freeze()
        direct = Journal(Database(JournalSettings(connection=line.url), limits=SOON))

        def works() -> bool:
            try:
                direct.accept([Arrival(key=key)])
            except JournalUnavailableError:
                return False
            return True

        until(works, "the lock is free", seconds=ENDS)
        line.proxy.reset()
        connection.invalidate()


def test_an_empty_pool_is_not_waited_for_without_end(line: Line) -> None:
    kept = [line.database.engine.connect() for _ in range(15)]
    with ending(), pytest.raises(JournalUnavailableError):
        line.database.read(lambda c: c.exec_driver_sql("SELECT 1"))
    for connection in kept:
        connection.close()


def test_a_statement_that_takes_too_long_is_ended_by_the_server_first(line: Line) -> None:
    sleep = "SELECT SLEEP(60)" if isinstance(line.server, MariaDB) else "SELECT pg_sleep(60)"
    with ending(), pytest.raises(JournalUnavailableError):
        line.database.write(lambda c: c.exec_driver_sql(sleep))
    line.database.write(prove_write)


def test_a_migration_may_take_longer_than_a_transaction_of_a_daemon(line: Line) -> None:
    patient = line.database.without_limits()
    sleep = "SELECT SLEEP(4)" if isinstance(line.server, MariaDB) else "SELECT pg_sleep(4)"
    patient.write(lambda c: c.exec_driver_sql(sleep).fetchall())
    patient.dispose()


def test_readiness_follows_a_frozen_database_and_its_return(line: Line) -> None:
    health = Health()
    check = DatabaseCheck(health, "engine.database")
    line.database.results = check
    part = DatabaseProbe(line.database, check, every=0.2).part("engine.database", health)
    part.start()
    try:
        until(health.ready, "ready")
        line.proxy.freeze(Which.ALL)
        until(lambda: not health.ready(), "not ready", seconds=ENDS)
        reason = health.checks()["engine.database"].reason
        assert "127.0.0.1" in reason
        line.proxy.heal()
        until(health.ready, "ready again", seconds=ENDS)
        line.proxy.freeze()  # the connections that are open now; new ones work
        line.proxy.wait_accepted(line.proxy.accepted + 1)
        until(health.ready, "ready on a new connection", seconds=ENDS)
    finally:
        part.stop()
        assert part.join(ENDS)


def test_nothing_but_our_own_words_reaches_the_log(
    line: Line, key: ExtendKey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for fault in (line.proxy.reset, line.proxy.freeze):
        fill_pool(line.database, 3)
        fault()
        line.journal.accept([Arrival(key=key)])
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.skipif(os.environ.get("EXTEND_BRIDGE_LONG") != "1", reason="30 s each: tools/test --long failover")
def test_the_limits_of_the_product_hold_on_a_frozen_server(server: Server, key: ExtendKey) -> None:
    """As configured by default, an engine's or API's transaction ends within 30 seconds."""
    with Proxy(server.port) as proxy:
        url = server.new_url()
        database = Database(JournalSettings(connection=proxy.url(url)))
        migrate.upgrade(database)
        proxy.freeze(Which.ALL)
        began = time.monotonic()
        with pytest.raises(JournalUnavailableError):
            Journal(database).accept([Arrival(key=key)])
        assert time.monotonic() - began < LIMITS.total + 5
        database.dispose()


class TestPostgreSQL:
    """What only PostgreSQL does."""

    @pytest.fixture(autouse=True)
    def only(self, server: Server) -> None:
        if not isinstance(server, PostgreSQL):
            pytest.skip("PostgreSQL")

    def test_a_session_that_became_read_only_is_left_for_one_that_writes(self, line: Line, key: ExtendKey) -> None:
        fill_pool(line.database, 3)
        role = "ALTER ROLE eb SET default_transaction_read_only = off"  # for new sessions: the new primary
        demote = "ALTER SYSTEM SET default_transaction_read_only = on"  # for those that are there
        self._admin(line, role, demote)
        try:
            with line.direct().engine.connect() as other:
                assert other.exec_driver_sql("SHOW default_transaction_read_only").scalar() == "off"
            line.journal.accept([Arrival(key=key)])
        finally:
            self._admin(line, "ALTER SYSTEM RESET default_transaction_read_only", "ALTER ROLE eb RESET ALL")

    def test_a_server_that_stays_read_only_is_not_ready_in_words(self, line: Line) -> None:
        self._admin(line, "ALTER SYSTEM SET default_transaction_read_only = on")
        try:
            health = Health()
            check = DatabaseCheck(health, "api.database")
            line.database.results = check
            probe = DatabaseProbe(line.database, check)
            assert not probe.probe()
            assert "target_session_attrs=read-write" in health.checks()["api.database"].reason
        finally:
            self._admin(line, "ALTER SYSTEM RESET default_transaction_read_only")
        until(probe.probe, "a write")
        assert health.ready()

    def test_the_limits_hold_for_the_session_of_a_pooler_only_while_a_transaction_lasts(self, line: Line) -> None:
        inside = line.database.read(lambda c: c.exec_driver_sql("SHOW statement_timeout").scalar())
        assert inside == "3s"
        raw = line.database.engine.raw_connection()
        cursor = raw.cursor()
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)
        raw.close()

    @staticmethod
    def _admin(line: Line, *statements: str) -> None:
        engine = sa.create_engine(line.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("SET default_transaction_read_only = off")
            before = connection.exec_driver_sql("SELECT pg_conf_load_time()").scalar()
            for statement in statements:
                connection.exec_driver_sql(statement)
            connection.exec_driver_sql("SELECT pg_reload_conf()")
            load_time = sa.text("SELECT pg_conf_load_time() > :before")
            until(lambda: connection.scalar(load_time, {"before": before}), "the configuration was read")
        engine.dispose()


class TestMariaDB:
    """What only MariaDB does."""

    @pytest.fixture(autouse=True)
    def only(self, server: Server) -> None:
        if not isinstance(server, MariaDB):
            pytest.skip("MariaDB")

    def test_a_primary_that_became_read_only_is_left_for_the_new_one(self, line: Line, key: ExtendKey) -> None:
        name = sa.make_url(line.url).database
        with MariaDB() as second:
            other = second.new_url()
            for url in (line.url, other):
                self._run(
                    url,
                    "CREATE OR REPLACE USER eb@'127.0.0.1' IDENTIFIED BY 'pw'",
                    f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb4",
                    f"GRANT ALL ON {name}.* TO eb@'127.0.0.1'",
                )
            url = f"mysql+pymysql://eb:pw@127.0.0.1:{{port}}/{name}?charset=utf8mb4"
            for port in (line.server.port, second.port):
                made = Database(JournalSettings(connection=url.format(port=port)))
                migrate.upgrade(made)
                made.dispose()
            database = Database(JournalSettings(connection=url.format(port=line.proxy.port)), limits=SOON)
            fill_pool(database, 3)
            self._run(line.url, "SET GLOBAL read_only = 1")
            try:
                with pytest.raises(JournalUnavailableError, match="this server is read-only"):
                    database.write(prove_write)
                line.proxy.retarget(second.port)
                Journal(database).accept([Arrival(key=key)])
            finally:
                self._run(line.url, "SET GLOBAL read_only = 0")
            assert database.read(lambda c: c.scalar(sa.text("SELECT @@port"))) == second.port
            database.dispose()

    def test_a_session_has_its_limits(self, line: Line) -> None:
        names = "innodb_lock_wait_timeout", "lock_wait_timeout", "max_statement_time", "idle_transaction_timeout"
        select = f"SELECT {', '.join(f'@@{name}' for name in names)}"
        row = line.database.read(lambda c: c.exec_driver_sql(select).one())
        assert tuple(map(float, row)) == (1, 1, 3, 4)

    @staticmethod
    def _run(url: str, *statements: str) -> None:
        engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        engine.dispose()


def test_a_probe_leaves_no_row(line: Line) -> None:
    line.database.write(prove_write)
    assert line.database.read(lambda c: c.scalar(sa.select(sa.func.count()).select_from(passes))) == 0
