# SPDX-License-Identifier: Apache-2.0
"""Lies from the other side: a Cinder that answers what is no volume, and notifications that Cinder did not send."""

import gzip
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from bridge.core.extend import GIB, new_id
from bridge.http.server import StartResponse
from bridge.journal.tables import extends
from tests.attack.bus_ground import HONEST, BusGround
from tests.attack.frame import Attack
from tests.lab.cinder_bus import resize_end
from tests.lab.odd_headers import ODD_HEADERS
from tests.lab.waiting import until

_SECONDS: Final = 60.0
_MANY_MIB: Final = 64
_BOMB: Final = gzip.compress(bytes(64 << 20))
_FALSE: Final = 2000  # GiB
_Lie = Callable[[StartResponse], Iterable[bytes]]


def _says(body: bytes, *, status: str = "200 OK", headers: Sequence[tuple[str, str]] = ()) -> _Lie:
    def answer(start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, [("Content-Type", "application/json"), *headers])
        return [body]

    return answer


def _streams(pieces: Callable[[], Iterator[bytes]]) -> _Lie:
    def answer(start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "application/json")])
        return pieces()

    return answer


def _dripped() -> Iterator[bytes]:
    for _ in range(100):
        yield b" "
        time.sleep(0.3)


def _false_answers(volume: Mapping[str, Any]) -> Iterator[tuple[str, _Lie]]:
    def changed(**fields: object) -> bytes:
        return json.dumps({"volume": {**volume, **fields}}).encode()

    sizes: tuple[object, ...] = (-1, 0, "2000", 2.5, 10**30, 2**63, None, True, [], {})
    for size in sizes:
        yield f"size {size!r}", _says(changed(size=size))
    yield "another volume", _says(changed(id=new_id()))
    yield "no id", _says(changed(id=None))
    attachments: tuple[object, ...] = ("all", 5, {"a": 1}, [None, 3, "x"], [{}], [{"server_id": 5}])
    for rows in attachments:
        yield f"attachments {rows!r}", _says(changed(attachments=rows))
    yield "not JSON", _says(b"<html>volume 2000</html>")
    yield "half of it", _says(changed()[:-9])
    yield "a list", _says(b"[]")
    yield "deep", _says(b'{"volume":' + b"[" * 100_000)
    yield "NaN", _says(changed().replace(b'"size": ', b'"size": NaN, "was": '))
    yield "a redirect", _says(b"", status="302 Found", headers=[("Location", "http://127.0.0.1:1/")])
    yield "no gzip", _says(changed(), headers=[("Content-Encoding", "gzip")])
    yield "a bomb", _says(_BOMB, headers=[("Content-Encoding", "gzip")])
    yield "too much", _streams(lambda: (b" " * (1 << 20) for _ in range(_MANY_MIB)))
    yield "a drip", _streams(_dripped)
    yield "many headers", _says(changed(), headers=[(f"X-{n}", "y" * 100) for n in range(2000)])
    for status in ("204 No Content", "401 Unauthorized", "403 Forbidden", "418 Teapot", "500 Oops", "599 Nothing"):
        yield status, _says(b"", status=status)


def lying_cinder(ground: BusGround, seconds: float) -> Sequence[str]:
    """Answer for one volume what is no volume: its disk does not change, its extend stays open, others go on."""
    complaints: list[str] = []
    key, ledger = ground.quiet, ground.ledgers[HONEST[0]]
    row = {
        "server_id": key.server_id,
        "attachment_id": new_id(),
        "host_name": HONEST[0],
        "volume_id": key.volume_id,
    }
    truth = {"id": key.volume_id, "status": "in-use", "size": _FALSE, "attachments": [row]}
    open_now = sa.select(extends.c.id).where(extends.c.volume_id == key.volume_id, extends.c.open == 1)
    deadline = time.monotonic() + seconds * 4
    before = ledger.size((key.server_id, key.volume_id))
    ground.grow(key)
    try:
        for name, lie in _false_answers(truth):
            ground.cinder.lies[key.volume_id] = lie
            asked = ground.cinder.asked[key.volume_id]
            ground.post(key)
            _until_more(ground, key.volume_id, asked + 1)
            if (size := ledger.size((key.server_id, key.volume_id))) != before:
                complaints.append(f"{name}: the disk has {size / GIB:.0f} GiB")
            if complaints or time.monotonic() > deadline:
                break
        if not complaints and not ground.rows(open_now):
            complaints.append("a lie ended its extend")
    finally:
        ground.cinder.lies.clear()
        ground.post(key)
    return complaints


def _until_more(ground: BusGround, volume: str, count: int) -> None:
    until(lambda: ground.cinder.asked[volume] > count, "Cinder is asked again", seconds=_SECONDS)


def false_notifications(ground: BusGround, seconds: float) -> Sequence[str]:
    """Publish as Cinder does: sizes that are not true, pairs that do not belong together, no notifications."""
    del seconds
    one, two, quiet = ground.honest[1], ground.honest[-1], ground.quiet
    bus = ground.cinders_bus()
    try:
        for size in (1, 0, -5, 10**9, 10**30):
            bus.publish(_notification(one.server_id, one.volume_id, size))
        for server, volume in (
            (one.server_id, two.volume_id),
            (two.server_id, one.volume_id),
            (new_id(), one.volume_id),
            (one.server_id, new_id()),
            ("\x1b[2J", "\ud800"),
            ("../../etc", "' OR 1=1"),
        ):
            bus.publish(_notification(server, volume, _FALSE))
        true = _notification(one.server_id, one.volume_id, 2)
        for body in (
            b"",
            b"null",
            b"[" * 300_000,
            true[:-20],
            true * 2,
            b"\xff\xfe" + true,
            true + b" " * (1 << 24),
        ):
            bus.publish(body)
        for encoding in ("utf-16", "nothing", "x" * 200):
            bus.publish(true, content_encoding=encoding)
        for kind in ("application/x-python-serialize", "application/x-yaml", "application/data", "x" * 200):
            bus.publish(true, content_type=kind)
        for headers in ODD_HEADERS.values():
            bus.publish(true, headers=headers)
        bus.publish(_BOMB, headers={"compression": "application/x-gzip"})
        bus.publish(true, priority="error")
        ground.grow(quiet)
        bus.publish(_notification(quiet.server_id, quiet.volume_id, 1))
    finally:
        bus.close()
    ledger, wanted = ground.ledgers[HONEST[0]], ground.sizes[quiet] * GIB
    until(
        lambda: ledger.size((quiet.server_id, quiet.volume_id)) == wanted,
        "a true notification behind all of it is heard",
        seconds=_SECONDS,
    )
    return []


def _notification(server: str, volume: str, size: int) -> bytes:
    return resize_end(volume_id=volume, server_id=server, attachment_id=new_id(), host=HONEST[0], size=size)[0]


ATTACKS: Final = (
    Attack(
        name="lying-cinder",
        about="a Cinder answers what is no volume",
        ground="bus",
        run=lying_cinder,
        short=False,
    ),
    Attack(
        name="false-notifications",
        about="notifications that Cinder did not send",
        ground="bus",
        run=false_notifications,
        short=False,
    ),
)
