# SPDX-License-Identifier: Apache-2.0
"""A journal in memory and an API around it, for tests that need no database."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import falcon
from falcon import testing
from prometheus_client import CollectorRegistry

from bridge.api.app import build
from bridge.api.events import Choice
from bridge.api.faults import unauthorized
from bridge.api.identity import Authenticator, Identity, Policy
from bridge.api.settings import ApiSettings
from bridge.core.audit import AuditRecord
from bridge.core.errors import JournalUnavailableError
from bridge.core.extend import Arrival, ExtendKey, ServerState
from bridge.http.server import WsgiApp
from bridge.journal.settings import JournalSettings
from bridge.runtime.metrics import ApiMetrics

ON_HOST = "11111111-1111-4111-8111-111111111101"
ON_HOST_2 = "11111111-1111-4111-8111-111111111103"
NO_HOST = "33333333-3333-4333-8333-333333333301"
UNKNOWN = "99999999-9999-4999-8999-999999999999"
VOLUME = "0e63d806-6fe4-4ffc-99bf-f3dd056574c0"
VOLUME_2 = "7b1f4d0a-52a1-4f1e-9d5b-0a8f6a3c1e77"
PATH = "/v2.1/os-server-external-events"

INVENTORY: Mapping[str, ServerState] = {
    ON_HOST: ServerState.ON_HOST,
    ON_HOST_2: ServerState.ON_HOST,
    NO_HOST: ServerState.NO_HOST,
}


def settings(**changes: object) -> ApiSettings:
    """[api] as its defaults, waking nobody."""
    return ApiSettings(**{"journal": JournalSettings(connection="sqlite://"), "wake_port": 0, **changes})  # type: ignore[arg-type]


class FakeJournal:
    """Keeps what it accepted. `away` makes it unavailable; `broken` makes it fail as no journal should."""

    def __init__(self, known: Mapping[str, ServerState] = INVENTORY) -> None:
        self.known = dict(known)
        self.accepted: list[Arrival] = []
        self.away = False
        self.broken: Exception | None = None

    def admit(self, server_ids: Collection[str], choose: Choice) -> Mapping[ExtendKey, str]:
        arrivals = choose({server: self.known[server] for server in server_ids if server in self.known})
        if not arrivals:
            return {}
        if self.broken is not None:
            raise self.broken
        if self.away:
            raise JournalUnavailableError("the disk is full", retry_after=7.0)
        self.accepted.extend(arrivals)
        return {arrival.key: f"extend of {arrival.key.volume_id}" for arrival in arrivals}

    def ping(self) -> str | None:
        return "the disk is full" if self.away else None

    @property
    def keys(self) -> list[ExtendKey]:
        return [arrival.key for arrival in self.accepted]


class ListAudit:
    """Keeps records."""

    def __init__(self) -> None:
        self.records: list[AuditRecord] = []

    def write(self, *records: AuditRecord) -> None:
        self.records.extend(records)


class Open:
    """Takes each caller for an administrator."""

    def authenticate(self, req: falcon.Request) -> Identity:
        del req
        return Identity(user="noauth", roles=frozenset({"admin"}))


class AllowAll:
    """A policy without rules."""

    def check(self, who: Identity) -> None:
        del who


class Tokens:
    """Knows callers by X-Auth-Token."""

    def __init__(self, known: Mapping[str, Identity]) -> None:
        self.known = known

    def authenticate(self, req: falcon.Request) -> Identity:
        who = self.known.get(req.get_header("X-Auth-Token") or "")
        if who is None:
            raise unauthorized('Keystone uri="http://127.0.0.1:5000/v3"')
        return who


@dataclass
class Api:
    """An application, what stands behind it, and a client."""

    journal: FakeJournal = field(default_factory=FakeJournal)
    audit: ListAudit = field(default_factory=ListAudit)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    woken: int = 0
    auth: Authenticator = field(default_factory=Open)
    policy: Policy = field(default_factory=AllowAll)
    changes: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.app: WsgiApp = build(
            settings(**self.changes),
            self.journal,
            ApiMetrics(self.registry),
            self.audit,
            wake=self._wake,
            auth=self.auth,
            policy=self.policy,
            ping=self.journal.ping,
        )
        self.client = testing.TestClient(self.app)

    def post(
        self, *events: Mapping[str, object], headers: Mapping[str, str] | None = None, path: str = PATH
    ) -> testing.Result:
        """POST events in compute 2.51."""
        return self.client.simulate_post(
            path,
            json={"events": list(events)},
            headers={"OpenStack-API-Version": "compute 2.51", **(headers or {})},
        )

    def count(self, name: str, **labels: str) -> float:
        """The value of a counter."""
        return self.registry.get_sample_value(f"extend_bridge_api_{name}_total", labels) or 0.0

    def _wake(self) -> None:
        self.woken += 1


def event(server: str = ON_HOST, tag: object = VOLUME, **more: object) -> dict[str, object]:
    """One volume-extended; a tag of None leaves it out."""
    whole: dict[str, object] = {"name": "volume-extended", "server_uuid": server}
    if tag is not None:
        whole["tag"] = tag
    return {**whole, **more}
