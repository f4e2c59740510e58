# SPDX-License-Identifier: Apache-2.0
"""Locators of the servers of claimed extends: by the host agents' reports, or by Nova's answers."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol

from cachetools import TTLCache

from bridge.core.reasons import Reason
from bridge.engine.nova import NOVA_REASONS, Deleted, NovaAnswer, Server, Unsure
from bridge.engine.plan import Whereabouts
from bridge.engine.upstream import GOOD_FOR, OutageBreaker
from bridge.journal.claims import Claims
from bridge.journal.hosts import Location
from bridge.journal.states import Extend
from bridge.runtime.health import Health

NOVA: Final = "engine.nova"
_KEPT_MOST: Final = 10_000
_LONGEST: Final = 20.0  # seconds of asking Nova for one batch; the rest is put off, uncounted
_TOO_LATE: Final = Unsure(Reason.NOVA_TIMED_OUT, f"the servers before took {_LONGEST:g} s")


class Locator(Protocol):
    """A source of the hosts of servers."""

    def locate(self, claimed: Sequence[Extend]) -> Mapping[str, Whereabouts]:
        """Return the hosts by server; an absent server is on no host. Raises JournalUnavailableError."""


class InventoryLocator:
    """A locator that reads the agents' reports."""

    def __init__(self, work: Claims, *, host_timeout: float) -> None:
        self._work = work
        self._host_timeout = host_timeout

    def locate(self, claimed: Sequence[Extend]) -> Mapping[str, Whereabouts]:
        """Return the hosts that report each server."""
        return self._work.locate(claimed, host_timeout=self._host_timeout)


class NovaLookup(Protocol):
    """A reader of servers in Nova."""

    def server(self, server_id: str) -> NovaAnswer:
        """Read the hosts of a server."""


class NovaLocator:
    """A locator that asks Nova; the journal tells which agents are alive. For one thread."""

    def __init__(
        self,
        nova: NovaLookup,
        *,
        living: Callable[[Collection[str]], Collection[str]],
        keep: float,
        health: Health,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the readers. `living` returns which of the given hosts are alive. `keep`: seconds an answer is
        reused.
        """
        self._nova = nova
        self._living = living
        self._health = health
        self._kept: TTLCache[str, Server] = TTLCache(maxsize=_KEPT_MOST, ttl=keep, timer=clock)

    def locate(self, claimed: Sequence[Extend]) -> Mapping[str, Whereabouts]:
        """Return the hosts Nova names. Raises JournalUnavailableError."""
        answers = self._ask(dict.fromkeys(extend.key.server_id for extend in claimed))
        hosts = {host for answer in answers.values() if isinstance(answer, Server) for host in answer.hosts}
        living = self._living(hosts) if hosts else ()
        return {server_id: _where(answer, living) for server_id, answer in answers.items()}

    def _ask(self, server_ids: Collection[str]) -> dict[str, NovaAnswer]:
        answers: dict[str, NovaAnswer] = {}
        breaker, began = OutageBreaker(NOVA_REASONS), time.monotonic()
        for server_id in server_ids:
            answer: NovaAnswer | None = self._kept.get(server_id) or breaker.open()
            if answer is None and time.monotonic() - began > _LONGEST:
                answer = _TOO_LATE
            if answer is None:
                answer = self._nova.server(server_id)
                breaker.note(answer)
                # A server in migration is asked for again, because the answer is wrong as soon as the migration
                # ends.
                if isinstance(answer, Server) and answer.hosts and not answer.moving:
                    self._kept[server_id] = answer
            answers[server_id] = answer
        self._show(answers)
        return answers

    def _show(self, answers: Mapping[str, NovaAnswer]) -> None:
        troubles = [answer for answer in answers.values() if isinstance(answer, Unsure)]
        general = [trouble for trouble in troubles if trouble.reason is not Reason.NOVA_CELL_DOWN]
        if general and len(general) == len(answers):
            self._health.bad(NOVA, str(general[-1]))
        elif answers:
            self._health.ok(NOVA, good_for=GOOD_FOR)


def _where(answer: NovaAnswer, living: Collection[str]) -> Whereabouts:
    match answer:
        case Deleted():
            return Reason.SERVER_DELETED
        case Unsure(reason):
            return reason
        case Server():
            return [Location(host=h, state=state, fresh=h in living) for h, state in answer.hosts.items()]
