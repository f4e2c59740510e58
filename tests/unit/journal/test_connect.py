# SPDX-License-Identifier: Apache-2.0
"""Options of drivers: ours by default, the operator's where the URL has them; and what an error means."""

import sqlite3
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from bridge.journal.begin import begin_of_postgresql
from bridge.journal.connect import LIMITS, engine_options
from bridge.journal.errors import error_code, explain, is_general, is_useless, is_worth_another_try

PG = "postgresql+psycopg://eb:pw@db/journal"
MARIA = "mysql+pymysql://eb:pw@db/journal"


def options(url: str) -> dict[str, Any]:
    return engine_options(sa.make_url(url), LIMITS)[1]


def test_every_driver_has_limits_by_default() -> None:
    pg, maria = options(PG), options(MARIA)
    assert (pg["connect_timeout"], pg["tcp_user_timeout"], pg["keepalives"]) == (5, 15000, 1)
    assert pg["prepare_threshold"] is None
    assert (maria["connect_timeout"], maria["read_timeout"], maria["write_timeout"]) == (5, 17, 17)
    for name in ("innodb_lock_wait_timeout", "lock_wait_timeout", "max_statement_time", "idle_transaction_timeout"):
        assert name in maria["init_command"]
    assert options("sqlite:////x")["timeout"] == 10


@pytest.mark.parametrize("url", [f"{MARIA}?read_timeout=5&init_command=SELECT+1", f"{PG}?connect_timeout=2"])
def test_an_option_of_the_url_replaces_ours(url: str) -> None:
    assert not set(sa.make_url(url).query) & set(options(url))


@pytest.mark.parametrize(("words", "value"), [("5", 5), ("0", 0), ("None", None), ("", None)])
def test_the_prepare_threshold_of_the_url_is_a_number_or_none(words: str, value: int | None) -> None:
    url, arguments = engine_options(sa.make_url(f"{PG}?prepare_threshold={words}&sslmode=require"), LIMITS)
    assert arguments["prepare_threshold"] == value
    assert dict(url.query) == {"sslmode": "require"}


def test_limits_of_a_transaction_travel_with_its_begin_unless_the_url_has_them() -> None:
    begin = begin_of_postgresql(sa.make_url(PG), LIMITS)
    assert begin.startswith("BEGIN; SET LOCAL statement_timeout = 15000; SET LOCAL lock_timeout = 10000")
    given = sa.make_url(f"{PG}?options=-cstatement_timeout%3D3000")
    assert "statement_timeout" not in begin_of_postgresql(given, LIMITS)
    assert "SET LOCAL statement_timeout = 0" in begin_of_postgresql(sa.make_url(PG), None)


class RefusalError(Exception):
    """As psycopg's: with a SQLSTATE."""

    def __init__(self, text: str, sqlstate: str) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


def wrapped(orig: BaseException) -> OperationalError:
    return OperationalError("SELECT 1", {}, orig)


class MariaError(Exception):
    """As PyMySQL's: the number first; newer ones have a SQLSTATE as well, which tells little."""

    sqlstate = "HY000"


class BrokenError(Exception):
    """One of class 08S01 with a number of no list."""

    sqlstate = "08S01"


@pytest.mark.parametrize("state", ["25006", "57P03", "57P01", "08006", "08P01"])
def test_a_postgresql_that_takes_no_writes_or_does_not_serve_is_left(state: str) -> None:
    assert is_useless(wrapped(RefusalError("x", state)))
    assert is_useless(RefusalError("x", state))


@pytest.mark.parametrize("kind", [MariaError, Exception])
@pytest.mark.parametrize("number", [1290, 1792, 1836, 1047, 1053, 1158])
def test_a_mariadb_that_takes_no_writes_or_does_not_serve_is_left(number: int, kind: type[Exception]) -> None:
    assert is_useless(wrapped(kind(number, "x")))
    assert is_useless(BrokenError(4999, "x"))


@pytest.mark.parametrize("state", ["23505", "42P01", "0800", "40001", "08004"])
def test_other_errors_of_postgresql_leave_the_connection_alone(state: str) -> None:
    assert not is_useless(wrapped(RefusalError("x", state)))


@pytest.mark.parametrize("first", [1062, 1205, 1213, 1040, "database is locked"])
def test_other_errors_leave_the_connection_alone(first: object) -> None:
    assert not is_useless(wrapped(MariaError(first, "x")))


@pytest.mark.parametrize(
    "orig", [RefusalError("x", "40P01"), RefusalError("x", "55P03"), MariaError(1205, "x"), Exception(1213, "x")]
)
def test_conflicts_are_tried_again(orig: Exception) -> None:
    assert is_worth_another_try(wrapped(orig))
    assert not is_general(wrapped(orig))


def test_reasons_say_what_to_look_at() -> None:
    read_only = wrapped(MariaError(1290, "The MariaDB server is running with the --read-only option"))
    assert "target_session_attrs=read-write" in explain(read_only, expired_after=None)
    assert "no answer within 15 s" in explain(read_only, expired_after=15.2)
    assert "free space" in explain(wrapped(RefusalError("no space left", "53100")), expired_after=None)


def test_errors_of_sqlite_have_their_names() -> None:
    with sqlite3.connect(":memory:") as connection, pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("SELECT * FROM nothing")
    assert error_code(wrapped(caught.value)) == "SQLITE_ERROR"
