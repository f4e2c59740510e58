# SPDX-License-Identifier: Apache-2.0
"""The host agent's parts and what each is given. Read from top to bottom, it is the picture of the process."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from bridge.core.errors import ConfigError
from bridge.core.messages import Inventory, Order, Report
from bridge.core.outcome import Outcome
from bridge.runtime.broker import kombu_connection
from bridge.runtime.bus_url import check_url
from bridge.runtime.daemon import Part, Supervised
from bridge.runtime.metrics import AgentMetrics
from bridge.runtime.process import Process
from bridge.runtime.publisher import BusPublisher
from hostagent import hostcheck
from hostagent.brick import key_manager, lock
from hostagent.brick.pool import BrickPool
from hostagent.capabilities import volume_types
from hostagent.devices import all_strategies
from hostagent.devices.base import Strategy
from hostagent.devices.guard import RememberedDevices
from hostagent.devices.headers import LuksHeaders
from hostagent.devices.image import QemuImages, RbdStrategy
from hostagent.drivers.libvirt.connect import open_libvirt, open_read_only
from hostagent.drivers.libvirt.session import Abandoned, Session
from hostagent.extend import DeviceWait, ExtendTools, extend
from hostagent.heap import give_back_free_memory
from hostagent.identity import DeviceMemory
from hostagent.inventory import InventoryKeeper, Touched
from hostagent.knowledge import ToldDisks
from hostagent.observe import ObserveTools, observe
from hostagent.ports import Encryptor
from hostagent.reporter import Outbox, Reporter, ToEngine
from hostagent.rpc import RpcServer
from hostagent.settings import HostAgentSettings
from hostagent.storage_reads import StorageReads
from hostagent.telling import Teller
from hostagent.workers import FairTurn, Workers

LOG = logging.getLogger(__name__)

_CHANGES: Final = frozenset({Outcome.RESIZED, Outcome.ALREADY})
"""Outcomes after which the inventory says something new of the guest: its size, or that it was told."""
_READS_MAX: Final = 64
"""Reads of storage that may hang at once; each holds a thread."""
_INVENTORY_SHARE: Final = 0.25
"""Of [hostagent] abandoned_max: where the storage of many guests hangs, the others' orders must still pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAccess:
    """What of its host the agent touches: `connect(uri)` gives a virConnect; `parts` have to run for the rest.

    `encryptor`: None unless the operator opted in to volumes' keys.
    """

    connect: Callable[[str], Any]
    strategies: Sequence[Strategy]
    parts: Sequence[Part] = ()
    encryptor: Encryptor | None = None


def this_host(settings: HostAgentSettings) -> HostAccess:
    """The real thing: libvirt and os-brick; of an agent that only looks, libvirt for reading and nothing else."""
    if settings.read_only:
        return HostAccess(connect=open_read_only, strategies=())
    if (missing := key_manager.missing(opted_in=settings.brick.key_manager is not None)) is not None:
        raise ConfigError(missing)
    lock.prepare(settings.brick.lock_path, own=settings.brick.own_locks)
    hostcheck.warn(settings.nova_conf, settings.brick)
    if settings.brick.key_manager is not None:
        LOG.info("volumes' keys are asked for, with [key_manager] backend")
    brick = BrickPool(settings.brick)
    return HostAccess(
        connect=open_libvirt,
        strategies=all_strategies(brick),
        parts=[brick],
        encryptor=brick if settings.brick.key_manager is not None else None,
    )


class WorkerTool:
    """One worker's tool: its libvirt session and what it does with an order."""

    def __init__(self, session: Session, work: Callable[[Order], Report]) -> None:
        self._session = session
        self._work = work

    def __call__(self, order: Order) -> Report:
        """See worker.Tool."""
        return self._work(order)

    def close(self) -> None:
        """See worker.Tool."""
        self._session.close()


class PartWithCleanup:
    """A part, with what has to be woken when it is told to stop and what is given back when it has ended."""

    def __init__(
        self, part: Part, *, wake: Callable[[], None] = lambda: None, after: Callable[[], None] = lambda: None
    ) -> None:
        self._part = part
        self._wake = wake
        self._after = after

    def start(self) -> None:
        """Start the part."""
        self._part.start()

    def stop(self) -> None:
        """Tell it, then wake it."""
        self._part.stop()
        self._wake()

    def join(self, seconds: float) -> bool:
        """Wait for it, then give back what it used."""
        ended = self._part.join(seconds)
        self._after()
        return ended


def _longest_order(settings: HostAgentSettings) -> float:
    """Return the seconds after which an order cannot be on its way any more: the sum of its limits, twice over."""
    brick = settings.brick.limit + settings.brick.lock_limit
    return 2 * (settings.device_wait + brick + 8 * settings.libvirt_limit + settings.storage_limit)


def build(
    settings: HostAgentSettings,
    process: Process,
    *,
    look_outside: Callable[[HostAgentSettings], HostAccess] = this_host,
) -> Sequence[Part]:
    """The parts, in the order they start; they stop in reverse, so that the last reports still go out.

    Raises ConfigError.
    """
    check_url(settings.bus.transport_url, "[bus] transport_url")
    health, metrics = process.health, AgentMetrics(process.registry)
    abandoned = Abandoned(settings.abandoned_max, health, metrics.abandoned)
    stopping = threading.Event()
    outside = look_outside(settings)
    outbox, touched, told = Outbox(metrics), Touched(), ToldDisks(watches=settings.read_only)
    reads = StorageReads(limit=settings.storage_limit, most=_READS_MAX, health=health, gauge=metrics.storage_reads)
    headers = LuksHeaders(reads)
    devices = RememberedDevices(DeviceMemory(None if settings.read_only else settings.state_path, health), reads)
    sender = BusPublisher(
        lambda: kombu_connection(
            settings.bus.transport_url, heartbeat=0, name=f"extend-bridge-hostagent {settings.host}"
        ),
        on_blocked=process.on_blocked,
    )

    def session(share: float = 1.0) -> Session:
        return Session(
            settings.libvirt_uri,
            limit=settings.libvirt_limit,
            abandoned=abandoned,
            connect=outside.connect,
            share=share,
        )

    def bench() -> WorkerTool:
        own = session()
        if settings.read_only:
            eyes = ObserveTools(
                hypervisor=own, wait=settings.observe_wait, sleep=stopping.wait, clock=time.monotonic,
                hidden=partial(headers.hidden_bytes, images=images_of(own)), told=told,
            )  # fmt: skip
            return WorkerTool(own, lambda order: observe(order, eyes))
        patience = DeviceWait(device_wait=settings.device_wait, nudge_every=settings.nudge_every)
        images = images_of(own)
        strategies = [*outside.strategies, RbdStrategy(images)]
        turn = FairTurn(stopping, workers.crowded, settings.crowded_wait)
        tools = ExtendTools(
            hypervisor=own,
            strategies=strategies,
            patience=patience,
            images=images,
            encryptor=outside.encryptor,
            guard=devices,
            headers=headers,
            sleep=turn.sleep,
            told=told,
        )

        def work(order: Order) -> Report:
            turn.begin()
            return extend(order, tools)

        return WorkerTool(own, work)

    def images_of(own: Session) -> QemuImages:
        return QemuImages(own.secret, limit=settings.libvirt_limit / 2)

    def can_extend() -> Mapping[str, str]:
        if settings.read_only:
            return {}
        every = [*outside.strategies, RbdStrategy(images_of(looking))]
        return volume_types(every, use_multipath=settings.brick.use_multipath)

    def tell(inventory: Inventory) -> None:
        outbox.add_inventory(inventory)
        if inventory.full:
            give_back_free_memory()

    def hand_over(reports: Sequence[Report]) -> None:
        outbox.add_reports(reports)
        touched.add({r.key.server_id for r in reports if r.outcome in _CHANGES})

    reporter = Reporter(
        settings.host,
        outbox,
        lambda: ToEngine(sender),
        heartbeat_interval=settings.heartbeat_interval,
        health=health,
    )
    workers = Workers(
        settings.workers, make_tool=bench, report=hand_over, stopping=stopping, metrics=metrics, health=health,
        stuck_after=_longest_order(settings),
    )  # fmt: skip
    telling = session(_INVENTORY_SHARE)
    teller = Teller(
        telling,
        told,
        owners=workers,
        images=images_of(telling),
        hidden=partial(headers.hidden_bytes, images=images_of(telling)),
        on_told=touched.add,
    )
    looking = session(_INVENTORY_SHARE)
    keeper = InventoryKeeper(
        looking,
        tell=tell,
        touched=touched,
        volume_types=can_extend(),
        hidden=partial(headers.hidden_bytes, images=images_of(looking)),
        devices=devices,
        told=told,
        want_told=(lambda _server_id, _disks: None) if settings.read_only else teller.want,
        interval=settings.inventory_interval,
        health=health,
    )
    rpc = RpcServer(process.conf, settings.bus.transport_url, settings.host, workers.submit, health)
    return [
        PartWithCleanup(
            Supervised("hostagent.reporter", reporter.run, health), wake=outbox.close, after=sender.close
        ),
        PartWithCleanup(Supervised("hostagent.inventory", keeper.run, health), wake=touched.close),
        *outside.parts,
        PartWithCleanup(Supervised("hostagent.teller", teller.run, health), wake=teller.close),
        workers,
        rpc,
    ]
