# SPDX-License-Identifier: Apache-2.0
"""Requests that a page in a browser on the operator's machine can send to an open API on loopback."""

from collections.abc import Sequence
from typing import Final

from tests.attack.clients import exchange, status
from tests.attack.frame import Attack
from tests.attack.grounds import BODY, PATH, ApiGround

_JSON: Final = "Content-Type: application/json\r\n"
_CASES: Final = {
    "a form of text/plain": "Host: 127.0.0.1\r\nContent-Type: text/plain\r\nOrigin: https://evil.example\r\n",
    "text/plain without Origin": "Host: 127.0.0.1\r\nContent-Type: text/plain\r\n",
    "text/plain with a charset": "Host: 127.0.0.1\r\nContent-Type: text/plain;charset=UTF-8\r\n",
    "no Content-Type": "Host: 127.0.0.1\r\n",
    "an empty Content-Type": "Host: 127.0.0.1\r\nContent-Type: \r\n",
    "a form": "Host: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n",
    "multipart": "Host: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n",
    "a rebound name": f"Host: evil.example:8786\r\n{_JSON}",
    "a rebound name that looks local": f"Host: localhost.evil.example\r\n{_JSON}",
    "a rebound address": f"Host: 127.0.0.1.nip.example\r\n{_JSON}",
    "another address": f"Host: 192.0.2.1\r\n{_JSON}",
    "an absolute target": f"Host: 127.0.0.1\r\n{_JSON}",
    "an Origin": f"Host: 127.0.0.1\r\n{_JSON}Origin: http://evil.example\r\n",
    "the Origin null": f"Host: 127.0.0.1\r\n{_JSON}Origin: null\r\n",
    "a cross-site fetch": f"Host: 127.0.0.1\r\n{_JSON}Sec-Fetch-Site: cross-site\r\n",
    "a no-cors fetch": f"Host: 127.0.0.1\r\n{_JSON}Sec-Fetch-Mode: no-cors\r\n",
    "a referring page": f"Host: 127.0.0.1\r\n{_JSON}Referer: http://evil.example/\r\n",
}


def pages(ground: ApiGround, seconds: float) -> Sequence[str]:
    """Send what pages can send; each is refused, and no preflight is granted."""
    del seconds
    complaints = []
    for name, headers in _CASES.items():
        target = f"http://evil.example{PATH}" if name == "an absolute target" else PATH
        head = f"POST {target} HTTP/1.1\r\n{headers}OpenStack-API-Version: compute 2.51\r\n"
        request = f"{head}Content-Length: {len(BODY)}\r\nConnection: close\r\n\r\n".encode() + BODY
        answer = exchange(ground.port, request)
        if status(answer) not in {400, 403, 415, 421}:
            complaints.append(f"{name}: answered {status(answer)}")
    preflight = (
        f"OPTIONS {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example\r\n"
        "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Private-Network: true\r\n"
        "Connection: close\r\n\r\n"
    )
    if b"access-control-allow" in exchange(ground.port, preflight.encode()).lower():
        complaints.append("a preflight was granted")
    return complaints


ATTACKS: Final = (
    Attack(name="pages", about="what a page in the operator's browser can send", ground="noauth", run=pages),
)
