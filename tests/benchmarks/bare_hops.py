# SPDX-License-Identifier: Apache-2.0
"""What lies between a notification and its cast, with nothing of ours: one process, bare libraries, no decision."""

import sqlite3
from types import TracebackType
from typing import Self

import requests

from bridge.runtime.broker import kombu_connection
from tests.benchmarks.site import Place

_QUEUE = "bare"


class BareHops:
    """A message over the broker, an HTTP request, a commit; a commit, two HTTP requests, a commit, a message."""

    def __init__(self, here: Place) -> None:
        """The requests go to the Cinder of the place, the commits into a SQLite file beside the journal."""
        self._connection = kombu_connection(here.site.bus_url, heartbeat=0, name=_QUEUE)
        self._queue = self._connection.SimpleQueue(_QUEUE)
        self._url = here.site.cinder_url
        self._session = requests.Session()
        self._database = sqlite3.connect(here.site.directory / "bare.sqlite3", isolation_level=None)
        self._database.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE rows (id INTEGER PRIMARY KEY, x TEXT)"
        )

    def once(self, volume_id: str) -> None:
        """All of them, one after the other."""
        self._message()
        self._request(volume_id)
        self._commit()
        self._commit()
        self._request(volume_id)
        self._request(volume_id)
        self._commit()
        self._message()

    def _message(self) -> None:
        self._queue.put("x" * 1000)
        self._queue.get(timeout=30).ack()

    def _request(self, volume_id: str) -> None:
        self._session.get(f"{self._url}/volumes/{volume_id}", timeout=30).json()

    def _commit(self) -> None:
        self._database.execute("INSERT INTO rows (x) VALUES (?)", (_QUEUE,))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, ex: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._queue.close()
        self._connection.release()
        self._session.close()
        self._database.close()
