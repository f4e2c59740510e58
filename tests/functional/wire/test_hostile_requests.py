# SPDX-License-Identifier: Apache-2.0
"""A thousand requests nobody means well with: good ones are answered, memory stays, no traceback is logged."""

import http.client
import json
import re
import socket
from pathlib import Path

import pytest

from tests.lab import hostile
from tests.lab.conformance.site import Site
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

COUNT = 1000
SEED = 4
GROWTH = 8 * 1024 * 1024  # bytes; one body kept of each request would be more
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[^\x00-\x1f\x7f-\x9f\u202e]*")
ACCESS = " bridge.api.access "
HEADERS = {"X-Auth-Token": "<admin>", "OpenStack-API-Version": "compute 2.51", "Content-Type": "application/json"}
EVENT = {
    "name": "volume-extended",
    "server_uuid": "11111111-1111-4111-8111-111111111101",
    "tag": "0e63d806-6fe4-4ffc-99bf-f3dd056574c0",
}


def throw(port: int, data: bytes, *, half_closed: bool) -> list[bytes]:
    """Send the bytes of one connection; the status lines that came back. Ends by closing, in full or by halves."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            if half_closed:
                return []
            while chunk := connection.recv(65536):
                got += chunk
        except OSError:
            pass
    return re.findall(rb"HTTP/1\.1 \d{3}", got)


def good(port: int) -> int:
    """The status of a good request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", hostile.PATH, json.dumps({"events": [EVENT]}), HEADERS)
        return connection.getresponse().status
    finally:
        connection.close()


def resident(pid: int) -> int:
    """Bytes of memory the process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_a_thousand_hostile_requests(site: Site) -> None:
    """Among them a good one from time to time, which is always answered."""
    unanswered, before = [], 0
    for n, (kind, data) in enumerate(hostile.requests(SEED, COUNT)):
        statuses = throw(site.port, data, half_closed=n % 7 == 0)
        if any(status == b"HTTP/1.1 500" for status in statuses):
            unanswered.append((n, kind, data[:200]))
        if n % 50 == 0:
            assert good(site.port) == 200, f"after number {n}, {kind}"
        if n == COUNT // 3:
            before = resident(site.pid)
    assert unanswered == []
    until(lambda: good(site.port) == 200, "a good request is answered")
    assert resident(site.pid) - before < GROWTH
    text = site.log.read_text(errors="replace")
    assert "Traceback" not in text
    # a path may be in the access log, quoted; nothing else of a stranger's, and no line of a stranger's making
    assert [line for line in text.splitlines() if hostile.PLANTED in line and ACCESS not in line] == []
    assert [line for line in text.split("\n") if line and not LINE.fullmatch(line)] == []
