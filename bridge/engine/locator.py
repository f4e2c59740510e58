# SPDX-License-Identifier: Apache-2.0
"""Where the servers of claimed extends are: by what the host agents report, or by what Nova says."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol

from bridge.core.reasons import Reason
from bridge.engine.nova import Answer, Deleted, Server, Unsure
from bridge.engine.plan import Whereabouts
from bridge.journal.claims import Claims
from bridge.journal.hosts import Location
from bridge.journal.states import Extend
from bridge.runtime.health import Health

NOVA: Final = "engine.nova"
_AWAY: Final = Unsure(Reason.NOVA_UNREACHABLE)
_AWAY_AFTER: Final = 3  # unreachable in a row: the rest of the batch is not asked for
_KEPT_MOST: Final = 10_000


class Locator(Protocol):
    """Finds servers."""

    def locate(self, claimed: Sequence[Extend]) -> Mapping[str, Whereabouts]:
        """By server. One that is absent is on no host. Raises JournalUnavailableError."""


class InventoryLocator:
    """By the agents' reports."""

    def __init__(self, work: Claims, *, host_timeout: float) -> None:
        self._work = work
        self._host_timeout = host_timeout

    def locate(self, claimed: Sequence[Extend]) -> Mapping[str, Whereabouts]:
        """See Locator."""
        return self._work.locate(claimed, host_timeout=self._host_timeout)


class NovaLookup(Protocol):
    """Whom it is asked."""

    def server(self, server_id: str) -> Answer:
        """Where a server is."""


class NovaLocator:
    """By Nova's word; whether the host's agent lives is the journal's. For one thread."""

    def __init__(
        self,
        nova: NovaLookup,
        *,
        living: Callable[[Collection[str]], Collection[str]],
        keep: float,
        health: Health,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`living` says which of some hosts are alive; an answer is believed for `keep` seconds."""
        self._nova = nova
        self._living = living
        self._keep = keep
        self._health = health
        self._clock = clock
        self._kept: dict[str, tuple[float, Server]] = {}
        health.ok(NOVA, "not asked yet")

    def locate(self, claimed: Sequence[Extend]) -> Mapping[str, Whereabouts]:
        """See Locator."""
        answers = self._ask(dict.fromkeys(extend.key.server_id for extend in claimed))
        hosts = {host for answer in answers.values() if isinstance(answer, Server) for host in answer.hosts}
        living = self._living(hosts) if hosts else ()
        return {server_id: _where(answer, living) for server_id, answer in answers.items()}

    def _ask(self, server_ids: Collection[str]) -> dict[str, Answer]:
        answers: dict[str, Answer] = {}
        unreachable = 0
        for server_id in server_ids:
            answer: Answer | None = self._known(server_id)
            if answer is None:
                answer = _AWAY if unreachable >= _AWAY_AFTER else self._nova.server(server_id)
                unreachable = unreachable + 1 if answer == _AWAY else 0
                self._remember(server_id, answer)
            answers[server_id] = answer
        self._say(answers)
        return answers

    def _known(self, server_id: str) -> Server | None:
        until, server = self._kept.get(server_id, (0.0, None))
        return server if self._clock() < until else None

    def _remember(self, server_id: str, answer: Answer) -> None:
        """A server on its way is asked for again: the answer is wrong as soon as it has arrived."""
        self._kept.pop(server_id, None)
        if isinstance(answer, Server) and answer.hosts and not answer.moving:
            if len(self._kept) >= _KEPT_MOST:
                self._kept.clear()
            self._kept[server_id] = (self._clock() + self._keep, answer)

    def _say(self, answers: Mapping[str, Answer]) -> None:
        troubles = [answer.reason for answer in answers.values() if isinstance(answer, Unsure)]
        general = [reason for reason in troubles if reason is not Reason.NOVA_CELL_DOWN]
        if general and len(general) == len(answers):
            self._health.bad(NOVA, general[-1].text)
        elif answers:
            self._health.ok(NOVA)


def _where(answer: Answer, living: Collection[str]) -> Whereabouts:
    match answer:
        case Deleted():
            return Reason.SERVER_DELETED
        case Unsure(reason):
            return reason
        case Server():
            return [Location(host=h, state=state, fresh=h in living) for h, state in answer.hosts.items()]
