# SPDX-License-Identifier: Apache-2.0
"""The bare library of a bench: the statements of a transaction, whoever executes them."""

from pathlib import Path

import sqlalchemy as sa

from tests.benchmarks.replay import caught, replay


def test_statements_on_the_drivers_own_cursor_are_caught_and_given_again(tmp_path: Path) -> None:
    """Otherwise the bare library would do less than the transaction it stands beside."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'bench.sqlite3'}")

    def work() -> None:
        with engine.begin() as connection:
            connection.execute(sa.text("CREATE TABLE IF NOT EXISTS item (name TEXT)"))
            cursor = connection.connection.cursor()
            cursor.execute("INSERT INTO item VALUES (?)", ("one",))
            cursor.executemany("INSERT INTO item VALUES (?)", [("two",), ("three",)])
            cursor.close()

    statements = caught(engine, work)
    assert [text.split()[0] for text, _, _ in statements] == ["CREATE", "INSERT", "INSERT"]
    replay(engine, [statements])
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM item")).scalar_one() == 6
    engine.dispose()
