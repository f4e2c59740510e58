# SPDX-License-Identifier: Apache-2.0
"""Readiness says why the journal cannot be used, and gets well by itself."""

import threading

from bridge.api.healthcheck import CHECK, journal_probe
from bridge.core.errors import JournalUnavailableError
from bridge.runtime.health import Health


def test_it_follows_the_journal() -> None:
    """Away, without tables, in order; preparing is tried until it succeeds, then never again."""
    health, seen, prepared = Health(), [], []
    done = threading.Event()
    answers = iter([JournalUnavailableError("no route to the database"), None, "run db sync", None])

    def prepare() -> None:
        prepared.append(True)
        if len(prepared) == 1:
            raise JournalUnavailableError("the database is starting")

    def ping() -> str | None:
        check = health.checks()[CHECK]
        seen.append((check.ok, check.reason))
        answer = next(answers, StopIteration)
        if answer is StopIteration:
            done.set()
            return None
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    part = journal_probe(ping, health, prepare=prepare, every=0.001)
    assert not health.ready()
    part.start()
    assert done.wait(10)
    part.stop()
    assert part.join(5)
    assert seen[:5] == [
        (False, "the database is starting"),
        (False, "no route to the database"),
        (True, "ok"),
        (False, "run db sync"),
        (True, "ok"),
    ]
    assert len(prepared) == 2
