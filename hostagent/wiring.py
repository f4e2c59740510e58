# SPDX-License-Identifier: Apache-2.0
"""Wiring of the host agent: its parts and their tools, from top to bottom the picture of the process."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from bridge.core.errors import ConfigError
from bridge.core.inventory import Inventory
from bridge.core.messages import Order, Report
from bridge.core.outcome import Outcome
from bridge.runtime.broker import kombu_connection
from bridge.runtime.bus_url import check_url
from bridge.runtime.daemon import Part, Supervised
from bridge.runtime.health import LIMIT, Health
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
from hostagent.devices.length import length_of
from hostagent.domain import Disk
from hostagent.drivers.base import DriverTools, HypervisorHost, HypervisorSession
from hostagent.extend import ExtendTools, extend
from hostagent.guest.keeper import GuestKeeper, GuestLimits
from hostagent.guest.mode import FileSystemMode
from hostagent.guest.wishes import GrowWishes
from hostagent.heap import give_back_free_memory
from hostagent.identity import DeviceMemory
from hostagent.inventory import InventoryKeeper, Touched
from hostagent.knowledge import ToldDisks
from hostagent.observe import ObserveTools, observe
from hostagent.ports import Encryptor
from hostagent.refresh import DeviceWait
from hostagent.reporter import Outbox, Reporter, ToEngine
from hostagent.rpc import OrderConsumer
from hostagent.settings import HostAgentSettings
from hostagent.storage_reads import StorageReads
from hostagent.telling import Teller
from hostagent.workers import FairTurn, Workers

LOG = logging.getLogger(__name__)

_CHANGES: Final = frozenset({Outcome.RESIZED, Outcome.ALREADY})
"""Outcomes after which the inventory says something new of the guest: its size, or that it was told."""
_READS_MAX: Final = 64
"""Reads of storage that may hang at once; each holds a thread."""
_LOOKS: Final = 6
"""Call limits of the hypervisor that one look at a guest may take; then its thread counts as stuck."""
_INVENTORY_SHARE: Final = 0.25
"""Of the calls that may hang: where the storage of many guests hangs, the others' orders must still pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAccess:
    """Access to the host. `open_hypervisor` opens the driver; `parts` have to run for the strategies.

    `encryptor`: None unless the operator opted in to volumes' keys.
    """

    open_hypervisor: Callable[[DriverTools], HypervisorHost]
    strategies: Sequence[Strategy]
    parts: Sequence[Part] = ()
    encryptor: Encryptor | None = None


def this_host(settings: HostAgentSettings) -> HostAccess:
    """Return the hypervisor and os-brick; for an agent that only looks, the hypervisor alone."""
    open_hypervisor = partial(settings.driver.driver.open, settings.driver.settings)
    if settings.read_only:
        return HostAccess(open_hypervisor=open_hypervisor, strategies=())
    if (missing := key_manager.missing(opted_in=settings.brick.key_manager is not None)) is not None:
        raise ConfigError(missing)
    lock.prepare(settings.brick.lock_path, own=settings.brick.own_locks)
    if settings.brick.key_manager is not None:
        LOG.info("keys of encrypted volumes are read from the key manager of [key_manager]")
    brick = BrickPool(settings.brick)
    return HostAccess(
        open_hypervisor=open_hypervisor,
        strategies=all_strategies(brick),
        parts=[brick],
        encryptor=brick if settings.brick.key_manager is not None else None,
    )


class WorkerTool:
    """The tool of one worker: its session and its work on an order."""

    def __init__(self, session: HypervisorSession, work: Callable[[Order], Report]) -> None:
        self._session = session
        self._work = work

    def __call__(self, order: Order) -> Report:
        """Work on one order; does not raise."""
        return self._work(order)

    def close(self) -> None:
        """Give back what the session holds."""
        self._session.close()


class PartWithCleanup:
    """A part with two steps around its end: `wake` when it is told to stop, `after` when it has ended."""

    def __init__(
        self, part: Part, *, wake: Callable[[], None] = lambda: None, after: Callable[[], None] = lambda: None
    ) -> None:
        self._part = part
        self._wake = wake
        self._after = after

    def start(self) -> None:
        """Start the wrapped part."""
        self._part.start()

    def stop(self) -> None:
        """Tell the part to stop, then wake it."""
        self._part.stop()
        self._wake()

    def join(self, seconds: float) -> bool:
        """Wait for the part, then give back what it used."""
        ended = self._part.join(seconds)
        self._after()
        return ended


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """Objects that several parts use."""

    settings: HostAgentSettings
    outside: HostAccess
    hypervisor: HypervisorHost
    headers: LuksHeaders
    devices: RememberedDevices
    told: ToldDisks
    stopping: threading.Event
    guests: GuestKeeper | None


def build(
    settings: HostAgentSettings,
    process: Process,
    *,
    look_outside: Callable[[HostAgentSettings], HostAccess] = this_host,
) -> Sequence[Part]:
    """Return the parts in the order they start; they stop in reverse, so that the last reports still go out.

    Raises ConfigError.
    """
    check_url(settings.bus.transport_url, "[bus] transport_url")
    health, metrics = process.health, AgentMetrics(process.registry)
    outbox, touched = Outbox(metrics), Touched()
    shared = _shared(settings, look_outside(settings), health, metrics, outbox)
    sender = BusPublisher(
        lambda: kombu_connection(
            settings.bus.transport_url, heartbeat=0, name=f"extend-bridge-hostagent {settings.host}"
        ),
        on_blocked=process.on_blocked,
    )
    workers = Workers(
        settings.workers,
        make_tool=lambda: _worker_tool(shared, workers.crowded),
        report=partial(_hand_over, outbox, touched),
        stopping=shared.stopping,
        metrics=metrics,
        health=health,
        stuck_after=_longest_order(settings, shared.hypervisor.limit),
    )
    teller = _teller(shared, workers, touched)
    looks_within, beats_within = _LOOKS * shared.hypervisor.limit, LIMIT + settings.heartbeat_interval
    keeper = _keeper(shared, outbox, touched, teller, health)
    reporter = Reporter(
        settings.host,
        outbox,
        lambda: ToEngine(sender, settings.host),
        heartbeat_interval=settings.heartbeat_interval,
        health=health,
    )
    orders = OrderConsumer(
        lambda: kombu_connection(
            settings.bus.transport_url,
            heartbeat=settings.bus.heartbeat,
            name=f"extend-bridge-hostagent {settings.host} orders",
        ),
        settings.host,
        workers.submit,
        health,
    )
    return [
        PartWithCleanup(
            Supervised("hostagent.reporter", reporter.run, health, moves_within=beats_within),
            wake=outbox.close,
            after=partial(_close, sender, shared),
        ),
        PartWithCleanup(
            Supervised("hostagent.inventory", keeper.run, health, moves_within=looks_within), wake=touched.close
        ),
        *shared.outside.parts,
        *shared.hypervisor.parts,
        PartWithCleanup(
            Supervised("hostagent.teller", teller.run, health, moves_within=looks_within), wake=teller.close
        ),
        *([shared.guests] if shared.guests is not None else []),
        workers,
        Supervised("hostagent.orders", orders.run, health),
    ]


def _shared(
    settings: HostAgentSettings, outside: HostAccess, health: Health, metrics: AgentMetrics, outbox: Outbox
) -> _Shared:
    reads = StorageReads(limit=settings.storage_limit, most=_READS_MAX, health=health, gauge=metrics.storage_reads)
    memory = DeviceMemory(None if settings.read_only else settings.state_path, health)
    tools = DriverTools(
        health=health,
        hanging=metrics.abandoned,
        file_size=partial(length_of, reads),
        facts=hostcheck.facts_of(settings),
    )
    hypervisor = outside.open_hypervisor(tools)
    return _Shared(
        settings=settings,
        outside=outside,
        hypervisor=hypervisor,
        guests=_guests(settings, hypervisor, outbox),
        headers=LuksHeaders(reads),
        devices=RememberedDevices(memory, reads),
        told=ToldDisks(watches=settings.read_only),
        stopping=threading.Event(),
    )


def _guests(settings: HostAgentSettings, hypervisor: HypervisorHost, outbox: Outbox) -> GuestKeeper | None:
    """Return the threads that look into guests, None unless the operator opted in."""
    chosen = settings.guest
    if chosen.filesystems is FileSystemMode.OFF:
        return None
    return GuestKeeper(
        chosen.filesystems,
        chosen.workers,
        make_session=lambda: hypervisor.session(_INVENTORY_SHARE),
        tell=outbox.add_file_systems,
        wishes=GrowWishes(settings.state_path if chosen.filesystems is FileSystemMode.GROW else None),
        limits=GuestLimits(call=chosen.call_limit, growth=chosen.growth_limit, interval=chosen.interval),
    )


def _images(shared: _Shared, session: HypervisorSession) -> QemuImages:
    return QemuImages(session.secret, limit=shared.hypervisor.limit / 2)


def _worker_tool(shared: _Shared, crowded: Callable[[], bool]) -> WorkerTool:
    session = shared.hypervisor.session()
    images = _images(shared, session)
    if shared.settings.read_only:
        return WorkerTool(session, partial(observe, eyes=_observe_tools(shared, session, images)))
    turn = FairTurn(shared.stopping, crowded, shared.settings.crowded_wait)
    tools = ExtendTools(
        hypervisor=session,
        strategies=[*shared.outside.strategies, RbdStrategy(images)],
        patience=DeviceWait(device_wait=shared.settings.device_wait, nudge_every=shared.settings.nudge_every),
        images=images,
        encryptor=shared.outside.encryptor,
        guard=shared.devices,
        headers=shared.headers,
        sleep=turn.sleep,
        told=shared.told,
        driver=shared.hypervisor.capabilities,
    )

    def work(order: Order) -> Report:
        turn.begin()
        report = extend(order, tools)
        if shared.guests is not None:
            shared.guests.note(order, report)
        return report

    return WorkerTool(session, work)


def _observe_tools(shared: _Shared, session: HypervisorSession, images: QemuImages) -> ObserveTools:
    return ObserveTools(
        hypervisor=session,
        wait=shared.settings.observe_wait,
        sleep=shared.stopping.wait,
        clock=time.monotonic,
        hidden=partial(shared.headers.hidden_bytes, images=images),
        told=shared.told,
    )


def _teller(shared: _Shared, workers: Workers, touched: Touched) -> Teller:
    session = shared.hypervisor.session(_INVENTORY_SHARE)
    images = _images(shared, session)
    return Teller(
        session,
        shared.told,
        owners=workers,
        images=images,
        hidden=partial(shared.headers.hidden_bytes, images=images),
        on_told=touched.add,
        guard=shared.devices,
    )


def _keeper(shared: _Shared, outbox: Outbox, touched: Touched, teller: Teller, health: Health) -> InventoryKeeper:
    settings, session = shared.settings, shared.hypervisor.session(_INVENTORY_SHARE)
    images, can = _images(shared, session), shared.hypervisor.capabilities
    strategies, multipath = [*shared.outside.strategies, RbdStrategy(images)], settings.brick.use_multipath
    return InventoryKeeper(
        session,
        tell=partial(_send_inventory, outbox, shared.guests),
        touched=touched,
        volume_types={} if settings.read_only else volume_types(strategies, can, use_multipath=multipath),
        hidden=partial(shared.headers.hidden_bytes, images=images),
        devices=shared.devices,
        told=shared.told,
        want_told=_tell_nobody if settings.read_only else teller.want,
        interval=settings.inventory_interval,
        health=health,
        check=f"hostagent.{settings.driver.name}",
        good_for=LIMIT + shared.hypervisor.limit,
    )


def _close(sender: BusPublisher, shared: _Shared) -> None:
    """Give back what was shared, after all other parts have ended."""
    sender.close()
    shared.hypervisor.close()


def _tell_nobody(_server_id: str, _disks: Sequence[Disk], _came_back: bool) -> None:
    """Do nothing: an agent that only looks changes no guest."""


def _send_inventory(outbox: Outbox, guests: GuestKeeper | None, inventory: Inventory) -> None:
    outbox.add_inventory(inventory)
    if guests is not None:
        guests.present(inventory)
    if inventory.full:
        give_back_free_memory()


def _hand_over(outbox: Outbox, touched: Touched, reports: Sequence[Report]) -> None:
    outbox.add_reports(reports)
    touched.add({report.key.server_id for report in reports if report.outcome in _CHANGES})


def _longest_order(settings: HostAgentSettings, call_limit: float) -> float:
    """Return the seconds after which an order cannot be on its way any more: the sum of its limits, twice over."""
    brick = settings.brick.limit + settings.brick.lock_limit
    return 2 * (settings.device_wait + brick + 8 * call_limit + settings.storage_limit)
