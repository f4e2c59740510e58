# SPDX-License-Identifier: Apache-2.0
"""Common parts of the reads of Cinder and Nova."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol

from bridge.core.reasons import Reason
from bridge.runtime.health import LIMIT, Health
from bridge.runtime.rest import Answer, NoAnswer

REFUSED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_NOT_THE_API: Final = frozenset(
    {
        HTTPStatus.MULTIPLE_CHOICES,  # the list of versions: the URL lacks /v3 or /v2.1
        HTTPStatus.MOVED_PERMANENTLY,
        HTTPStatus.FOUND,
        HTTPStatus.TEMPORARY_REDIRECT,
        HTTPStatus.PERMANENT_REDIRECT,
        HTTPStatus.NOT_FOUND,
        HTTPStatus.METHOD_NOT_ALLOWED,
    }
)
_AWAY_AFTER: Final = 3  # requests without an answer in a row, after which a batch's rest is not sent
_RIGHTS_HOLD: Final = 300.0  # seconds a proof of our rights is believed


PROBE_EVERY: Final = 10.0  # seconds between two looks at a service
GOOD_FOR: Final = LIMIT  # seconds a good answer counts


class RestReader(Protocol):
    """A client of one endpoint."""

    def get(self, path: str, headers: Mapping[str, str]) -> Answer | NoAnswer:
        """Read one resource. Never raises for an error of the endpoint or the network."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """The reason why a request got no answer about its resource.

    `detail` names the address, what happened, and the option to set.
    """

    reason: Reason
    detail: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.reason.text}: {self.detail}" if self.detail else self.reason.text


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceReasons:
    """The reason codes of one service for errors of any request."""

    section: str
    unreachable: Reason
    timed_out: Reason
    unauthorized: Reason
    no_endpoint: Reason
    refused: Reason
    wrong_url: Reason
    wrong_version: Reason

    def trouble(self, answer: Answer | NoAnswer, path: str) -> Trouble:
        """Return the meaning of an answer other than 200 that is not about the requested resource."""
        if isinstance(answer, NoAnswer):
            reasons = {
                Reason.TIMED_OUT: self.timed_out,
                Reason.UNAUTHORIZED: self.unauthorized,
                Reason.NO_ENDPOINT: self.no_endpoint,
            }
            return Trouble(reasons.get(answer.reason, self.unreachable), answer.detail)
        said = f"{answer.status} for GET {path.partition('?')[0]}"
        if answer.status in REFUSED:
            return Trouble(self.refused, said)
        if answer.status == HTTPStatus.NOT_ACCEPTABLE:
            return Trouble(self.wrong_version, said)
        if answer.status in _NOT_THE_API:
            return Trouble(self.wrong_url, f"{said}: check [{self.section}] endpoint_override or the catalogue")
        return Trouble(self.unreachable, said)

    def about_the_service(self, reason: Reason) -> bool:
        """Return True if the next request will get no answer for this reason either."""
        return reason in {self.unreachable, self.timed_out, self.unauthorized, self.no_endpoint}


class OutageBreaker:
    """A counter of a batch's requests without an answer: after some in a row the rest is not sent."""

    def __init__(self, reasons: ServiceReasons) -> None:
        self._reasons = reasons
        self._in_a_row = 0
        self._last: Trouble | None = None

    def open(self) -> Trouble | None:
        """Return the answer to assume for a request that is not worth sending; None to send the request."""
        return self._last if self._in_a_row >= _AWAY_AFTER else None

    def note(self, answer: object) -> None:
        """Count an answer of the batch."""
        if isinstance(answer, Trouble) and self._reasons.about_the_service(answer.reason):
            self._in_a_row, self._last = self._in_a_row + 1, answer
        else:
            self._in_a_row = 0


class RightsProof:
    """The proof that our user sees the resources of every project; believed for five minutes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until = -_RIGHTS_HOLD

    def holds(self) -> bool:
        """Return True while the last proof is fresh."""
        return self._clock() < self._until

    def renew(self) -> None:
        """Note that the proof was given now."""
        self._until = self._clock() + _RIGHTS_HOLD


class ServiceProbe:
    """A look at a service now and then, because without due work nothing else notices that the service is gone.

    `check` returns why the service cannot be used, None where it can. A good word lasts as long as a few looks, so
    the check also goes bad where a look itself does not come back.
    """

    def __init__(
        self,
        name: str,
        check: Callable[[], Trouble | None],
        health: Health,
        *,
        every: float = PROBE_EVERY,
        good_for: float = GOOD_FOR,
    ) -> None:
        self._name = name
        self._check = check
        self._health = health
        self._every = every
        self._good_for = good_for
        health.ok(name, "not asked yet", good_for=good_for)

    def run(self, stop: threading.Event) -> None:
        """Look until `stop` is set, the first time after one interval."""
        while not stop.wait(self._every):
            self.look()

    def look(self) -> None:
        """Ask once and say what came of it."""
        trouble = self._check()
        self._health.looked(self._name, None if trouble is None else str(trouble), good_for=self._good_for)
