# SPDX-License-Identifier: Apache-2.0
"""Cinder's side, which nobody kills: sizes, the REST API the engines ask, notifications published with confirms."""

import heapq
import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from amqp.exceptions import MessageNacked

from bridge.core.extend import gib
from bridge.http.server import HttpServer, StartResponse, WsgiApp
from bridge.runtime.broker import BROKER_ERRORS
from bridge.standin.cinder import Attachment, StandInCinder
from listener.notification import Bad, Unreadable, parse
from tests.chaos.ledger import DiskId
from tests.chaos.load import Growth, Load
from tests.chaos.poison import Poison, poison
from tests.lab.cinder_bus import CinderBus, resize_end
from tests.lab.paths import ROOT
from tests.lab.recording import read_recording

_STREAM: Final = ROOT / "bridge" / "standin" / "recorded.jsonl"
_AGAIN: Final = 0.3  # seconds between tries to publish
_ROUND: Final = 11.0  # seconds: seven of fair weather, three in which each answer is late, one without answers
_SLOW_FROM: Final = 7.0
_DOWN_FROM: Final = 10.0
_LATE: Final = 0.2  # seconds: an engine's round takes long enough for much to happen meanwhile


Act = Callable[[threading.Event], object]


@dataclass(slots=True)
class Told:
    """What the broker has confirmed."""

    disks: set[DiskId] = field(default_factory=set)
    sizes: dict[DiskId, int] = field(default_factory=dict)  # bytes, the largest told of
    growths: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    to_lanes: int = 0  # messages that have to end in the parked or the unreadable lane


class CinderSide:
    """Plays a load. `connect` makes Cinder's own connection to the bus; `tells`: whether a growth is announced."""

    def __init__(
        self,
        load: Load,
        connect: Callable[[], CinderBus],
        *,
        tells: Callable[[Growth], bool] = lambda _: True,
    ) -> None:
        self._load = load
        self._connect = connect
        self._tells = tells
        self._bus: CinderBus | None = None
        self._cinder = StandInCinder()
        self._began = time.monotonic()
        self.told = Told()
        for volume in load.volumes:
            rows = [
                Attachment(id=attachment_id, server_id=server_id, host=None)
                for server_id, attachment_id in volume.attachments.items()
            ]
            self._cinder.add_volume(volume.id, volume.size, *rows)

    def server(self) -> HttpServer:
        """The API as a part, slow at times."""
        self._cinder.app = self._weather(self._cinder.app)
        return self._cinder.server()

    def have(self, disk: DiskId, size: int, *, host: str) -> None:
        """A volume of `size` GiB beside the load's, on a server of that host."""
        self._cinder.add_volume(disk[1], size, Attachment(server_id=disk[0], host=host))

    def wanted(self) -> dict[DiskId, int]:
        """The size in bytes each disk should have now."""
        return {
            (attachment.server_id, volume.id): gib(volume.size)
            for volume in self._cinder.volumes.all()
            for attachment in volume.attachments
            if attachment.server_id is not None
        }

    def play(self, stop: threading.Event) -> None:
        """Grow and tell, each at its time; returns when all of it is confirmed or `stop` is set."""
        agenda = self._agenda()
        self._began = time.monotonic()
        while agenda and not stop.is_set():
            at, _, act = heapq.heappop(agenda)
            if stop.wait(max(0.0, self._began + at - time.monotonic())):
                break
            act(stop)
        self._began = math.inf

    def close(self) -> None:
        """Let go of the broker."""
        if self._bus is not None:
            self._bus.close()

    def _agenda(self) -> list[tuple[float, int, Act]]:
        number = itertools.count()
        acts: list[tuple[float, Act]] = []
        for growth in self._load.growths:
            acts.append((growth.at, partial(self._grow, growth)))
            body = _body(growth)
            if self._tells(growth):
                acts += [(at, partial(self._tell, growth, body)) for at in growth.told_at]
        noise = itertools.cycle(m for m in read_recording(_STREAM) if b"volume.resize.end" not in m.body)
        for at in self._load.noise:
            other = next(noise)
            message = (other.body, other.content_type, other.content_encoding)
            acts.append((at, partial(self._publish, message, other.routing_key.rpartition(".")[2])))
        if self._load.growths:
            bad = itertools.cycle(poison(_body(self._load.growths[0])))
            acts += [(at, partial(self._poison, next(bad))) for at in self._load.poison]
        agenda = [(at, next(number), act) for at, act in acts]
        heapq.heapify(agenda)
        return agenda

    def _weather(self, app: WsgiApp) -> WsgiApp:
        """The API as it is on a bad day, until the load is over."""

        def under_it(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            phase = max(0.0, time.monotonic() - self._began) % _ROUND
            if phase >= _DOWN_FROM:
                start_response("503 Service Unavailable", [("Content-Length", "0")])
                return []
            if phase >= _SLOW_FROM:
                time.sleep(_LATE)
            return app(environ, start_response)

        return under_it

    def _grow(self, growth: Growth, _stop: threading.Event) -> None:
        self._cinder.volumes.change(growth.volume.id, size=growth.size)

    def _tell(self, growth: Growth, body: bytes, stop: threading.Event) -> None:
        if self._publish((body, "application/json", "utf-8"), "info", stop):
            disks = [(server_id, growth.volume.id) for server_id in growth.volume.attachments]
            self.told.disks.update(disks)
            self.told.sizes.update({disk: max(gib(growth.size), self.told.sizes.get(disk, 0)) for disk in disks})
            self.told.growths += 1

    def _poison(self, bad: Poison, stop: threading.Event) -> None:
        if self._publish(bad, "info", stop):
            read = parse(bad[0], max_bytes=1 << 24, max_rows=10_000)
            self.told.to_lanes += isinstance(read, Bad | Unreadable)
            self.told.counts["poison"] += 1

    def _publish(self, message: Poison, priority: str, stop: threading.Event) -> bool:
        """Until the broker confirms it, as Cinder's own publisher would try; whether it has."""
        body, content_type, encoding = message
        while not stop.is_set():
            try:
                if self._bus is None:
                    self._bus = self._connect()
                self._bus.publish(body, priority=priority, content_type=content_type, content_encoding=encoding)
            except (MessageNacked, *BROKER_ERRORS):
                self._drop()
                stop.wait(_AGAIN)
            else:
                return True
        return False

    def _drop(self) -> None:
        bus, self._bus = self._bus, None
        try:
            if bus is not None:
                bus.close()
        except BROKER_ERRORS:
            return


def _body(growth: Growth) -> bytes:
    (server_id, attachment_id), *others = growth.volume.attachments.items()
    body, _ = resize_end(
        volume_id=growth.volume.id,
        server_id=server_id,
        attachment_id=attachment_id,
        host="chaos",
        size=growth.size,
        also=others,
    )
    return body
