# SPDX-License-Identifier: Apache-2.0
"""The engine's way out: claim, group, cast over a real broker; and Cinder's reads, against the stand-in."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import requests
from oslo_config import cfg
from prometheus_client import CollectorRegistry

from bridge.core.extend import Arrival, ExtendKey, gib, new_id
from bridge.core.messages import Order
from bridge.engine.cinder import Attached, CinderAnswer, CinderReader, CinderVolume
from bridge.engine.dispatch import Cinder, Dispatcher
from bridge.engine.locator import InventoryLocator
from bridge.engine.rpc import OrderSender
from bridge.engine.settings import engine_groups, engine_settings
from bridge.runtime.broker import kombu_connection
from bridge.runtime.config import load
from bridge.runtime.endpoints import open_client
from bridge.runtime.health import Health
from bridge.runtime.metrics import EngineMetrics
from bridge.runtime.wakeup import Wake
from tests.benchmarks.measure import Row, median, per_item
from tests.benchmarks.rig import HOST, Rig
from tests.benchmarks.site import Place, place, played_host
from tests.benchmarks.workspace import Workspace

_BATCH: Final = 200
_ROUNDS: Final = 6


class _Known:
    """A Cinder that answers at once: its reads have a figure of their own."""

    def __init__(self, keys: Sequence[ExtendKey]) -> None:
        self._volumes = {
            key.volume_id: CinderVolume(
                id=key.volume_id, size=gib(2), extending=False,
                attached=(Attached(server_id=key.server_id, attachment_id=key.volume_id, host=HOST),),
            )
            for key in keys
        }  # fmt: skip

    def volume(self, volume_id: str, *, global_request_id: str | None = None) -> CinderAnswer:
        """Of the volumes there are."""
        del global_request_id
        return self._volumes[volume_id]

    def volumes(self, volume_ids: Sequence[str]) -> Mapping[str, CinderVolume]:
        """All of them."""
        return {volume_id: self._volumes[volume_id] for volume_id in volume_ids}

    def connections(self, attachments: Sequence[Attached]) -> Mapping[str, Mapping[str, Any]]:
        """None: each is asked for by itself."""
        del attachments
        return {}

    def connection(self, attachment: Attached, *, global_request_id: str | None = None) -> Mapping[str, Any] | None:
        """What an NFS driver gives."""
        del attachment, global_request_id
        return {
            "driver_volume_type": "nfs",
            "data": {"export": "10.0.0.1:/share", "name": "volume", "format": "raw"},
        }


def known_volumes(keys: Sequence[ExtendKey]) -> Cinder:
    """A Cinder with these volumes, 2 GiB each."""
    return _Known(keys)


def rows(workspace: Workspace) -> Iterator[Row]:
    """The figures, as they come."""
    rig = Rig(f"sqlite:///{workspace.directory / 'engine.sqlite3'}", workspace.directory)
    with place(workspace, _BATCH) as here:
        yield _claim_and_cast(workspace, rig, here)
        yield from _reads(workspace, here)
    rig.close()


def _claim_and_cast(workspace: Workspace, rig: Rig, here: Place) -> Row:
    """Without the reads; locate, attempts, audit lines and the broker's confirm included."""
    conf = _conf(here)
    agents = OrderSender(lambda: kombu_connection(here.site.bus_url, heartbeat=0, name="bench"), health=Health())
    health = Health()
    dispatcher = Dispatcher(
        settings=dataclasses.replace(engine_settings(conf), host_timeout=600),
        work=rig.work, cinder=_Known(rig.keys),
        locator=InventoryLocator(rig.work, host_timeout=600), agents=agents, wake=Wake(("127.0.0.1", 0)),
        health=health,
        metrics=EngineMetrics(CollectorRegistry()), audit=rig.audit,
    )  # fmt: skip
    count = min(_BATCH, workspace.count(_BATCH))
    ours: list[float] = []
    alone: list[float] = []
    with played_host(here, host=HOST, report=False, known=False):
        for _ in range(_ROUNDS):
            rig.journal.accept([Arrival(key=key, request_id=f"req-{new_id()}") for key in rig.some(count)])
            ours.append(per_item(dispatcher.round, count))
            alone.append(per_item(lambda: _cast_alone(agents, rig, count), count))
    return Row(
        what="engine: claim, group, cast, 200 at a time", value=median(ours), budget=180, bare=median(alone),
        bare_what="oslo.messaging: the same casts alone",
    )  # fmt: skip


def _cast_alone(agents: OrderSender, rig: Rig, count: int) -> None:
    orders = [
        Order(attempt_id=new_id(), key=key, gen=1, target=gib(2), connection=_Known(()).connection(_NOBODY))
        for key in rig.some(count)
    ]
    for start in range(0, count, 50):
        assert agents.cast(HOST, orders[start : start + 50]) is None


_NOBODY: Final = Attached(server_id="", attachment_id="", host=None)


def _reads(workspace: Workspace, here: Place) -> Iterator[Row]:
    """Volume and attachment, as for each extend."""
    conf = _conf(here)
    reader = CinderReader(open_client(conf, "cinder", user_agent="bench"))
    keys = here.volumes[: workspace.count(_BATCH)]
    attached = []
    for key in keys:
        volume = reader.volume(key.volume_id)
        assert isinstance(volume, CinderVolume)
        attached.append((key.volume_id, volume.attached[0]))

    def read() -> None:
        for volume_id, attachment in attached:
            reader.volume(volume_id)
            assert reader.connection(attachment) is not None

    session, url = requests.Session(), f"{here.site.cinder_url}/volumes"

    def alone() -> None:
        for volume_id, attachment in attached:
            session.get(f"{url}/{volume_id}").json()
            session.get(f"{here.site.cinder_url}/attachments/{attachment.attachment_id}").json()

    ours = median([per_item(read, len(attached)) for _ in range(3)])
    bare = median([per_item(alone, len(attached)) for _ in range(3)])
    yield Row(
        what="engine: Cinder's volume and attachment read", value=ours, budget=2200, bare=bare,
        bare_what="requests: the same two GETs",
    )  # fmt: skip

    def in_pages() -> None:
        found = reader.volumes([volume_id for volume_id, _ in attached])
        reader.connections([found[volume_id].attached[0] for volume_id, _ in attached if volume_id in found])

    if len(attached) >= _BATCH:
        yield Row(
            what="engine: the same of 200 that wait, in pages", value=median(
                [per_item(in_pages, len(attached)) for _ in range(3)]
            ),
            budget=300, bare=bare, bare_what="requests: two GETs for each",
        )  # fmt: skip


def _conf(here: Place) -> cfg.ConfigOpts:
    return load("bench", engine_groups(), ["--config-file", str(here.site.conf)], description="")
