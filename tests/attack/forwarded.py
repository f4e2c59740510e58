# SPDX-License-Identifier: Apache-2.0
"""Callers that invent where they come from, directly and through a proxy that hands on what they say."""

import base64
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from tests.attack.clients import exchange, status
from tests.attack.frame import Attack
from tests.attack.grounds import FAILURE_BURST, FAILURE_LIMIT, PATH, ApiGround

_GUESSES: Final = 120
_SPELLINGS: Final = ("10.0.0.9", "::ffff:10.0.0.9", "::FFFF:a00:9", "[0::ffff:10.0.0.9]:80", " 10.0.0.9")

_DISGUISES: Final[dict[str, Callable[[int], str]]] = {
    "Forwarded beside the proxy's X-Forwarded-For": lambda n: (
        f"Forwarded: for=1.2.{n // 250}.{n % 250}\r\nX-Forwarded-For: 10.0.0.9\r\n"
    ),
    "a proxy that appends": lambda n: f"X-Forwarded-For: 1.3.{n // 250}.{n % 250}, 10.0.0.9\r\n",
    "two headers": lambda n: f"X-Forwarded-For: 1.4.{n // 250}.{n % 250}\r\nX-Forwarded-For: 10.0.0.9\r\n",
    "underscores": lambda n: f"X-Forwarded-For: 10.0.0.9\r\nX_Forwarded_For: 1.5.0.{n}\r\n",
    "look-alikes": lambda n: f"X-Real-IP: 1.6.0.{n}\r\nX-Client-IP: 1.7.0.{n}\r\nX-Forwarded-For: 10.0.0.9\r\n",
    "one network of IPv6": lambda n: f"X-Forwarded-For: 2001:db8::{n:x}\r\n",
    "ports": lambda n: f"X-Forwarded-For: 10.0.0.9:{1000 + n}\r\n",
    "spellings": lambda n: f"X-Forwarded-For: {_SPELLINGS[n % len(_SPELLINGS)]}\r\n",
    "no address": lambda n: f"X-Forwarded-For: unknown-{n}\r\n",
    "long": lambda n: f"X-Forwarded-For: {n:06d}{'a' * 9000}\r\n",
}


def guess(ground: ApiGround, seconds: float) -> Sequence[str]:
    """Guess passwords under each disguise: no more are looked at than of one address."""
    del seconds
    complaints = []
    for name, disguise in _DISGUISES.items():
        seen: Counter[int] = Counter()
        started = time.monotonic()
        for n in range(_GUESSES):
            pair = base64.b64encode(f"cinder:guess-{n}".encode()).decode()
            request = (
                f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {pair}\r\n{disguise(n)}"
                "Content-Length: 0\r\nConnection: close\r\n\r\n"
            )
            seen[status(exchange(ground.port, request.encode(), seconds=30))] += 1
        allowed = FAILURE_BURST + FAILURE_LIMIT * (time.monotonic() - started) + 1
        if seen[401] > allowed:
            complaints.append(f"{name}: {seen[401]} of {_GUESSES} guesses were looked at, {allowed:.0f} may be")
        if set(seen) - {401, 429, 0}:
            complaints.append(f"{name}: answered {dict(seen)}")
    return complaints


def links(ground: ApiGround, seconds: float) -> Sequence[str]:
    """Ask for version documents whose links would lead elsewhere."""
    del seconds
    cases = {
        "scheme": "Forwarded: for=6.6.6.6;host=evil.example;proto=javascript\r\n",
        "X-Forwarded-Proto": "X-Forwarded-Proto: javascript\r\n",
        "X-Forwarded-Host": 'X-Forwarded-Host: evil.example"><script>\r\n',
        "X-Forwarded-Prefix": "X-Forwarded-Prefix: //evil.example/\r\n",
        "X-Forwarded-Prefix of dots": "X-Forwarded-Prefix: /../../evil\r\n",
        "X-Script-Name": "X-Script-Name: /evil\r\nX-Forwarded-Script-Name: /evil\r\nScript-Name: /evil\r\n",
        "X-Original-URL": "X-Original-URL: /evil\r\nX-Rewrite-URL: /evil\r\n",
        "Host": "Host: evil.example/evil?\r\n",
    }
    complaints = []
    for name, header in cases.items():
        host = "" if name == "Host" else "Host: api.example\r\n"
        request = f"GET / HTTP/1.1\r\n{host}{header}Connection: close\r\n\r\n"
        answer = exchange(ground.port, request.encode())
        if b"evil" in answer or b"javascript" in answer or status(answer) not in {200, 400}:
            complaints.append(f"{name}: {answer[-200:]!r}")
    return complaints


ATTACKS: Final = (
    Attack(name="disguised", about="guess passwords under invented addresses", ground="basic", run=guess),
    Attack(name="links", about="make the version documents lead elsewhere", ground="basic", run=links),
)
