# SPDX-License-Identifier: Apache-2.0
"""Requests made up from a seed: good in most places, odd in some, so that the order of checks is met as well."""

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.lab.conformance.exchange import Request

_PATH: Final = "/v2.1/os-server-external-events"
_VOLUME: Final = "0e63d806-6fe4-4ffc-99bf-f3dd056574c0"
_VERSIONS: Final = (
    "2.0", "2.1", "2.2", "2.26", "2.50", "2.51", "2.52", "2.75", "2.76", "2.82", "2.93", "2.104", "2.105", "3.0",
    "2.x", "2", "latest", "LATEST", "2.051", "", " 2.51 ", "2.51 x",
)  # fmt: skip
_NAMES: Final[tuple[object, ...]] = (
    "network-changed", "network-vif-plugged", "network-vif-unplugged", "network-vif-deleted", "power-update",
    "accelerator-request-bound", "volume-reimaged", "Volume-Extended", "", "it's", 'say "x"', None, 1, [], {"a": 1},
)  # fmt: skip
_TAGS: Final[tuple[object, ...]] = (
    "",
    "x",
    "x" * 255,
    "x" * 256,
    "\u0434\u0438\u0441\u043a",
    None,
    1,
    True,
    [],
    "POWER_ON",
    "a\nb",
    "%s",
)
_SERVERS: Final[tuple[object, ...]] = (
    "",
    "x",
    None,
    1,
    [],
    True,
    "11111111111141118111111111111101",
    "{%s}",
    "urn:uuid:%s",
    "%s ",
)
_TYPES: Final = (
    "application/json; charset=utf-8", "application/json ; charset=utf-8", "Application/JSON", "text/plain",
    "text/html",
    "application/xml", "application/vnd.openstack.compute+json", "application/x-www-form-urlencoded", "json",
)  # fmt: skip
_ACCEPTS: Final = (
    "*/*", "text/html", "application/xml", "application/vnd.openstack.compute+json", "application/*", "nonsense",
    "application/json;q=0.1, application/vnd.openstack.compute+json", "text/*;q=0.5, */*;q=0.1",
)  # fmt: skip
_BODIES: Final = (
    "",
    "null",
    "[]",
    "1",
    '"x"',
    "{",
    "{}",
    '{"events": []}',
    '{"events": null}',
    '{"more": 1}',
    "NaN",
    "  ",
)
_PATHS: Final = (
    "/", "/v2.1", "/v2.1/", "/v2/", "/v2/os-server-external-events", "/v2.1/os-nothing", "/x/y", "/v2.1/aaaa/",
    "/v2.1/aaaa/os-server-external-events", "/v2.1/zz/os-server-external-events", f"{_PATH}/", f"{_PATH}.json",
    "/v2.1/89a3d909ccda438da2cab32ecf0e57cd/os-server-external-events", f"{_PATH}?a=b", "/v9",
)  # fmt: skip
_TOKENS: Final = ("<demo>", "<service>", "<nobody>", None)
_METHODS: Final = ("GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")


def made_up(chance: random.Random, rows: Mapping[str, Any]) -> Request:
    """One request."""
    method = _odd(chance, 12, _METHODS, "POST")
    headers = [("Accept", _odd(chance, 8, _ACCEPTS, "application/json"))]
    if token := _odd(chance, 10, _TOKENS, "<admin>"):
        headers.append(("X-Auth-Token", token))
    headers += _versions(chance)
    if chance.randrange(15):
        headers.append(("Content-Type", _odd(chance, 10, _TYPES, "application/json")))
    body = _odd(chance, 10, _BODIES, None) if method in {"POST", "PUT", "PATCH"} else ""
    if body is None:
        body = _body(chance, list(rows))
    return Request(
        method=method,
        path=_odd(chance, 6, _PATHS, _PATH),
        headers=tuple(headers),
        body=body.encode() if method in {"POST", "PUT", "PATCH"} else None,
    )


def _odd(chance: random.Random, one_in: int, odd: Sequence[Any], usual: Any) -> Any:
    return usual if chance.randrange(one_in) else chance.choice(odd)


def _versions(chance: random.Random) -> list[tuple[str, str]]:
    version = _odd(chance, 3, _VERSIONS, "2.51")
    pair = f"{_odd(chance, 10, ('nova', 'COMPUTE', 'volume'), 'compute')} {version}"
    more = _odd(chance, 8, (", volume 3.60", ",compute 2.1", ", compute", ","), "")
    found = [] if not chance.randrange(8) else [("OpenStack-API-Version", pair + more)]
    if not chance.randrange(8):
        found.append(("X-OpenStack-Nova-API-Version", chance.choice(_VERSIONS)))
    return found


def _body(chance: random.Random, servers: Sequence[str]) -> str:
    events = [_event(chance, servers) for _ in range(chance.choice((1, 1, 1, 2, 3, 5)))]
    whole: dict[str, Any] = {"events": events}
    if not chance.randrange(20):
        whole["more"] = 1
    return json.dumps(whole)


def _event(chance: random.Random, servers: Sequence[str]) -> Any:
    if not chance.randrange(40):
        return chance.choice((None, 1, "x", [], {}))
    known = chance.choice(servers[:30])
    server = known if chance.randrange(6) else "99999999-9999-4999-8999-999999999999"
    odd = chance.choice(_SERVERS)
    server = _odd(chance, 20, (odd % known if isinstance(odd, str) and "%s" in odd else odd,), server)
    event = {
        "name": _odd(chance, 8, _NAMES, "volume-extended"),
        "server_uuid": server,
        "tag": _odd(chance, 6, _TAGS, _VOLUME),
        "status": _odd(chance, 6, ("ok", None, "failed"), "completed"),
    }
    for key in list(event):
        if not chance.randrange(2 if key == "status" else 12):
            del event[key]
    if not chance.randrange(25):
        event[chance.choice(("code", "a", ""))] = 1
    keys = list(event)
    chance.shuffle(keys)
    return {key: event[key] for key in keys}
