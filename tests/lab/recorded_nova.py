# SPDX-License-Identifier: Apache-2.0
"""An endpoint that answers as the recorded Nova did: the recorded answer where these events were recorded, else one
made by the same rules from the servers behind the recording."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bridge.core.extend import is_uuid
from tests.lab.conformance.exchange import Exchange
from tests.lab.conformance.known import Rows, code_of, unmapped
from tests.lab.endpoint import Event, Reply

_MAX_BODY: Final = 114688
_PATH: Final = "/v2.1/os-server-external-events"
_WHOLE: Final = ("name", "server_uuid", "tag")


def listeners_own(exchange: Exchange) -> bool:
    """Whether the listener could have sent this request: its path, its version, its kind of events."""
    request = exchange.request
    return (
        request.method == "POST"
        and request.path == _PATH
        and request.header("OpenStack-API-Version") == "compute 2.51"
        and request.header("Content-Type") == "application/json"
        and bool(request.events)
        and all(tuple(event) == _WHOLE and event["name"] == "volume-extended" for event in request.events)
        and all(is_uuid(event["server_uuid"]) and is_uuid(event["tag"]) for event in request.events)
    )


class RecordedNova:
    """A `Behaviour` of RecordingEndpoint. `fault` is a recorded answer given to everybody (a bad token, say)."""

    def __init__(self, exchanges: Sequence[Exchange], rows: Rows, *, fault: Exchange | None = None) -> None:
        self._recorded = {
            _key(exchange.request.events): exchange
            for exchange in exchanges
            if listeners_own(exchange)
            and exchange.request.header("X-Auth-Token") == "<admin>"
            and exchange.response.length is None
        }
        self._rows = rows
        self._fault = fault

    def __call__(self, events: Sequence[Event]) -> Reply:
        """The answer."""
        exchange = self._fault or self._recorded.get(_key(events))
        if exchange is not None:
            return _replayed(exchange)
        if len(json.dumps({"events": list(events)})) > _MAX_BODY:
            return Reply(status=413, body=b'{"code": "413 Request Entity Too Large"}')
        if any(unmapped(self._rows.get(event["server_uuid"], {})) for event in events):
            return Reply(status=500, body=b'{"computeFault": {"code": 500, "message": "Unexpected API Error."}}')
        rows = [{**event, "status": "", "code": code_of(event, self._rows)} for event in events]
        status = 200 if all(row["code"] == 200 for row in rows) else 207
        return Reply(status=status, body=json.dumps({"events": rows}).encode())


def _replayed(exchange: Exchange) -> Reply:
    kept = {name: value for name, value in exchange.response.headers if name.lower() == "www-authenticate"}
    return Reply(status=exchange.response.status, body=exchange.response.body.encode(), headers=kept)


def _key(events: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps(list(events), sort_keys=True)
