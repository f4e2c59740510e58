# SPDX-License-Identifier: Apache-2.0
"""Requests nobody means well with, as bytes, from a seed: so that a run that found something can be had again."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Final

PATH: Final = "/v2.1/os-server-external-events"
PLANTED: Final = "PLANTED-BY-A-STRANGER"
"""Stands in whatever could be carried into a log."""
_GOOD: Final = json.dumps(
    {
        "events": [
            {
                "name": "volume-extended",
                "server_uuid": "99999999-9999-4999-8999-999999999999",
                "tag": "0e63d806-6fe4-4ffc-99bf-f3dd056574c0",
            }
        ]
    }
).encode()
_HEAD: Final = (
    "Host: 127.0.0.1\r\nX-Auth-Token: <admin>\r\nOpenStack-API-Version: compute 2.51\r\n"
    "Content-Type: application/json\r\n"
)


def requests(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """`count` of them: a name for the report, and the bytes of a whole connection."""
    chance = random.Random(seed)
    kinds = [kind for name, kind in globals().items() if name.startswith("_send_")]
    for n in range(count):
        kind: Callable[[random.Random], bytes] = kinds[n % len(kinds)]
        yield kind.__name__.removeprefix("_send_"), kind(chance)


def _post(headers: str = _HEAD, body: bytes = _GOOD, path: str = PATH, method: str = "POST") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode("latin-1", "replace") + body


def _noise(chance: random.Random, most: int) -> bytes:
    return chance.randbytes(chance.randint(1, most))


def _send_noise(chance: random.Random) -> bytes:
    return _noise(chance, 5000)


def _send_tls_hello(chance: random.Random) -> bytes:
    return b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(500)


def _send_broken_body(chance: random.Random) -> bytes:
    body = bytearray(_GOOD)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(body))
        body[at : at + chance.randint(0, 8)] = _noise(chance, 8)
    return _post(body=bytes(body))


def _send_deep_json(chance: random.Random) -> bytes:
    return _post(body=b'{"events": ' + chance.choice([b"[", b'{"a":']) * chance.randint(100, 18_000))


def _send_huge_numbers(chance: random.Random) -> bytes:
    digits = b"9" * chance.choice([400, 4300, 4301, 100_000])
    return _post(body=b'{"events": ' + chance.choice([digits, b"1e" + digits, b"-" + digits]) + b"}")


def _send_encodings(chance: random.Random) -> bytes:
    text = _GOOD.decode()
    coded = chance.choice([text.encode("utf-16"), text.encode("utf-32"), text.encode("utf-7"), b"\xff" + _GOOD])
    charset = chance.choice(["utf-16", "utf-7", "x" * 3000, PLANTED])
    encoding = chance.choice(["", "Content-Encoding: gzip\r\n", "Content-Encoding: br, gzip\r\n"])
    return _post(f"{_HEAD[:-2]}; charset={charset}\r\n{encoding}", coded)


def _send_large(chance: random.Random) -> bytes:
    return _post(body=_GOOD.ljust(chance.choice([114_689, 500_000, 1_048_577, 3_000_000])))


def _send_lengths(chance: random.Random) -> bytes:
    length = chance.choice(
        ["-1", "+5", "0x10", "1_0", "1e3", "", "9" * 30, "5, 5", "\uff15", PLANTED, "10\r\nContent-Length: 5"]
    )
    return f"POST {PATH} HTTP/1.1\r\n{_HEAD}Content-Length: {length}\r\n\r\n".encode() + _GOOD


def _send_broken_off(chance: random.Random) -> bytes:
    whole = _post()
    return whole[: chance.randrange(1, len(whole))]


def _send_smuggled(chance: random.Random) -> bytes:
    inner = _post(body=_GOOD.replace(b"9999", b"1111"))
    coding = chance.choice(
        ["chunked", "Chunked", "\tchunked", "chunked, identity", "x", "chunked\r\nTransfer-Encoding: x"]
    )
    head = f"POST {PATH} HTTP/1.{chance.choice('01')}\r\n{_HEAD}Transfer-Encoding: {coding}\r\n"
    return f"{head}Content-Length: {chance.choice([4, 0, 9000])}\r\n\r\n0\r\n\r\n".encode() + inner


def _send_chunks(chance: random.Random) -> bytes:
    size = chance.choice(
        [
            b"zz",
            b"-1",
            b"FFFFFFFFFFFFFFFF",
            b"5;" + b"x" * 5000,
            b"",
            b"0x5",
            b"1\n",
            b"%x" % (len(_GOOD) + 9),
            b" 5",
            b"200000",
        ]
    )
    head = f"POST {PATH} HTTP/1.1\r\n{_HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()
    return head + size + b"\r\n" + _GOOD + chance.choice([b"\r\n0\r\n\r\n", b"", b"\r\n", b"0\r\nX: y\r\n\r\n"])


def _send_pipelined(chance: random.Random) -> bytes:
    return _post() * chance.randint(2, 30) + _noise(chance, 50)


def _send_paths(chance: random.Random) -> bytes:
    path = chance.choice(
        [
            "/../../../etc/passwd",
            "/v2.1/%2e%2e/%2e%2e/os-server-external-events",
            "/v2.1/" + "%00" * 40,
            "/v2.1/" + "a" * 60_000,
            "/v2.1/%ff%fe/os-server-external-events",
            "http://elsewhere.example/v2.1/os-server-external-events",
            "//elsewhere.example/v2.1/",
            "elsewhere.example:80",
            "*",
            f"/v2.1/%0d%0a{PLANTED}:%20x",
            f"/{PLANTED}%0aERROR",
            "/v2.1/os-server-external-events?" + "a=b&" * 9000,
            "/" + "/" * 5000,
            "/\\..\\..\\",
            "/<script>alert(1)</script>",
            "/v2.1/${jndi:ldap://x}/",
        ]
    )
    return _post(
        path=path, method=chance.choice(["GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "TRACE", "FOO"])
    )


def _send_request_lines(chance: random.Random) -> bytes:
    line = chance.choice(
        [
            "GET",
            "GET /",
            "GET / HTTP/9.9",
            "GET / HTTP/1",
            "GET / HTTP/a.b",
            "GET / FTP/1.1",
            " GET / HTTP/1.1",
            "GET  /  HTTP/1.1",
            "get / HTTP/1.1",
            "G\x00T / HTTP/1.1",
            "X" * 70_000,
            "PRI * HTTP/2.0",
            "",
            "\r\n\r\n\r\nGET / HTTP/1.1",
            "GET / HTTP/" + "9" * 5000 + ".1",
        ]
    )
    end = chance.choice(["\r\n", "\n", "\r", ""])
    return f"{line}{end}Host: x{end}{end}".encode("latin-1")


def _send_headers(chance: random.Random) -> bytes:
    header = chance.choice(
        [
            "X: " + "a" * 70_000,
            "\r\n".join(f"X-{n}: y" for n in range(500)),
            " folded: x",
            "X: a\r\n b\r\n\tc",
            "No-Colon",
            ": no name",
            "Sp ace: x",
            "Host : other",
            "Host: second.example",
            "X: \x00\x01\x1b[31m",
            "X: a\rX-Auth-Token: <admin>",
            "X: a\nX-Auth-Token: <admin>",
            "X_Auth_Token: <admin>",
            "X-Auth-Token: <admin>\r\nX-Auth-Token: <demo>",
            "X-Auth-Token: " + "a" * 30_000,
            "X-Identity-Status: Confirmed\r\nX-Roles: admin\r\nX-User-Id: x",
            "Expect: 100-continue",
            f"Expect: {PLANTED}",
            "Connection: keep-alive, close, upgrade\r\nUpgrade: websocket",
            "X-Forwarded-For: " + "1.1.1.1, " * 2000,
            f"X-Forwarded-Proto: https\r\nX-Forwarded-Host: {PLANTED}",
            f"Forwarded: for={PLANTED};host=x;proto=javascript",
            f"X-OpenStack-Request-ID: req-{PLANTED}\x1b[2K",
            f"User-Agent: {PLANTED}\x08\x08",
            f"Referer: {PLANTED}",
            "OpenStack-API-Version: compute " + "9" * 5000 + ".1",
            "OpenStack-API-Version: " + "compute 2.51," * 4000,
            "X-OpenStack-Nova-API-Version: 2.\u00b2",
            "Accept: " + "a/b;q=0." + "1" * 400 + "," * 3000,
            "Accept-Language: " + "de;q=nan," * 1000,
            "Range: bytes=" + "0-1," * 1000,
            "\xff\xfe: x",
        ]
    )
    return _post(f"{_HEAD}{header}\r\n")


def _send_no_token(chance: random.Random) -> bytes:
    token = chance.choice(["", "<nobody>", "' OR 1=1 --", "g" * 8000, "\xe9", PLANTED])
    return _post(_HEAD.replace("<admin>", token), chance.choice([_GOOD, b"x" * 100_000]))


def _send_ids(chance: random.Random) -> bytes:
    value = chance.choice(
        [
            "' OR 1=1 --",
            "../" * 80,
            "\ud800",
            "\u0000",
            f"{PLANTED}\r\nERROR",
            "{0.__class__}",
            "%s%n",
            "x" * 255,
            "\u202e",
        ]
    )
    event = {"name": "volume-extended", "server_uuid": "11111111-1111-4111-8111-111111111101", "tag": value}
    event[chance.choice(["tag", "server_uuid", "name", "status", value])] = value
    return _post(body=json.dumps({"events": [event] * chance.randint(1, 50)}).encode())
