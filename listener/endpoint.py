# SPDX-License-Identifier: Apache-2.0
"""The endpoint of the listener: requests of events, split until a spoiling event is sent alone."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

from bridge.core.extend import ExtendKey
from bridge.runtime.rest import Answer, NoAnswer
from listener.verdicts import Hold, Judgement, Kind, Settle, Split, judge

_SEEN_LATELY: Final = 1800.0  # seconds; less than an event's retry, because a lost role must not park events


class Endpoint(Protocol):
    """The receiver of events: NovaEventsClient."""

    def post(
        self, events: Sequence[ExtendKey], request_id: str, traces: Mapping[ExtendKey, str]
    ) -> Answer | NoAnswer:
        """Send one request; never raises for faults of the endpoint or the network."""


class EndpointClient:
    """A client of one endpoint, which remembers the last time at which the endpoint knew a server.

    `clock` in seconds, monotonic.
    """

    def __init__(self, endpoint: Endpoint, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._seen: float | None = None

    def deliver(
        self, events: Sequence[ExtendKey], request_id: str, traces: Mapping[ExtendKey, str] | None = None
    ) -> Iterator[Judgement]:
        """Send events, and split a refused request until the event that spoils it is sent alone.

        Yields one value per request; ends at the first Hold. Events without a verdict are sent again later,
        which is harmless. Between two requests the caller services its broker connection. `traces`: the events'
        traceparents.
        """
        waiting: list[Sequence[ExtendKey]] = [events] if events else []
        while waiting:
            part = waiting.pop()
            judgement = judge(
                part, self._endpoint.post(part, request_id, traces or {}), sees_servers=self._sees_servers()
            )
            if isinstance(judgement, Settle) and any(v.kind is Kind.DELIVERED for v in judgement.verdicts.values()):
                self._seen = self._clock()
            yield judgement
            if isinstance(judgement, Hold):
                return
            if isinstance(judgement, Split):
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]

    def _sees_servers(self) -> bool:
        """Return True where the endpoint knew a server lately, so that a 404 concerns the servers."""
        return self._seen is not None and self._clock() - self._seen < _SEEN_LATELY
