# SPDX-License-Identifier: Apache-2.0
"""The pytest fixtures of the promises: a driver from its entry point, opened on the guests of its factory."""

import importlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import entry_points
from typing import Any, Final

import pytest
from oslo_config import cfg
from prometheus_client import CollectorRegistry, Gauge

from bridge.runtime.health import Health
from hostagent.devices.length import length_of
from hostagent.drivers.base import DriverTools, GuestArrival, HypervisorHost, HypervisorSession, ProbeFacts
from hostagent.drivers.contract.factory import Ability, ContractFactory, ContractGuest
from hostagent.drivers.registry import FoundDriver, found_drivers
from hostagent.storage_reads import StorageReads

GROUP: Final = "extend_bridge.contract"
_ENDS: Final = 30.0  # seconds for the driver's threads to end
DISK: Final = 64 << 20


@dataclass
class HeardEvents:
    """A receiver of events that keeps them."""

    changes: set[str] = field(default_factory=set)
    removals: set[tuple[str, str]] = field(default_factory=set)
    arrivals: set[tuple[str, GuestArrival]] = field(default_factory=set)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def changed(self, server_id: str) -> None:
        """Keep the guest of a change."""
        self._keep(self.changes, server_id)

    def disk_removed(self, server_id: str, alias: str) -> None:
        """Keep the disk that left."""
        self._keep(self.removals, (server_id, alias))

    def arrived(self, server_id: str, how: GuestArrival) -> None:
        """Keep the way of a guest that came."""
        self._keep(self.arrivals, (server_id, how))

    def wait(self, look: Callable[[], bool], seconds: float) -> bool:
        """Return whether it came to this within so many seconds."""
        with self._changed:
            return self._changed.wait_for(look, seconds)

    def _keep(self, kept: set[Any], one: object) -> None:
        with self._changed:
            kept.add(one)
            self._changed.notify_all()


class ContractBench:
    """The driver under test, on this factory's guests. `patience`: seconds that anything real may take."""

    def __init__(self, driver: FoundDriver, factory: ContractFactory, patience: float) -> None:
        self.driver = driver
        self.factory = factory
        self.patience = patience
        self._hosts: list[HypervisorHost] = []
        self._guests: list[ContractGuest] = []

    def settings(self, **more: Any) -> Any:
        """Return the driver's settings for this factory; `more`: options of the driver's first group."""
        assert self.driver.driver is not None
        conf = cfg.ConfigOpts()
        for group, options in self.driver.driver.options():
            conf.register_opts(options, group=group)
        conf([], default_config_files=[], default_config_dirs=[])
        for group, values in self.factory.options().items():
            for name, value in values.items():
                conf.set_override(name, value, group=group)
        for name, value in more.items():
            conf.set_override(name, value, group=self.driver.driver.options()[0][0])
        return self.driver.driver.settings(conf)

    def open(self, *, read_only: bool = False) -> HypervisorHost:
        """Open the driver as the agent does, its parts started."""
        assert self.driver.driver is not None
        health, registry = Health(), CollectorRegistry()
        reads = StorageReads(limit=5.0, most=8, health=health, gauge=Gauge("reads", "x", registry=registry))
        tools = DriverTools(
            health=health,
            hanging=Gauge("hanging", "x", registry=registry),
            file_size=partial(length_of, reads),
            facts=ProbeFacts(read_only=read_only),
        )
        host = self.driver.driver.open(self.settings(), tools)
        for part in host.parts:
            part.start()
        self._hosts.append(host)
        return host

    def guest(self, *sizes: int, **more: Any) -> ContractGuest:
        """Start a guest that ends with its test."""
        guest = self.factory.start(list(sizes) or [DISK], **more)
        self._guests.append(guest)
        return guest

    def needs(self, *abilities: Ability) -> None:
        """Skip the test where the factory cannot do these things."""
        if missing := [ability.value for ability in abilities if ability not in self.factory.can]:
            pytest.skip(f"unproved: the factory cannot {', '.join(missing)}")

    def end(self) -> None:
        """End the guests and the opened drivers of one test."""
        for guest in self._guests:
            with suppress(Exception):
                guest.thaw()
            guest.stop()
        for host in self._hosts:
            for part in host.parts:
                part.stop()
            for part in host.parts:
                part.join(_ENDS)
            host.close()
        self._guests, self._hosts = [], []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the suite."""
    group = parser.getgroup("extend-bridge driver contract")
    group.addoption("--driver", metavar="NAME", help="the driver under test, by its entry point")
    group.addoption(
        "--factory",
        metavar="MODULE:NAME",
        help="the factory of its guests (default: the entry point of extend_bridge.contract with the driver's "
        "name)",
    )
    group.addoption(
        "--patience",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="seconds that an operation on a real guest may take",
    )


@pytest.fixture(scope="session")
def driver_name(request: pytest.FixtureRequest) -> str:
    """The name of the driver under test."""
    name: str | None = request.config.getoption("--driver")
    if name is None:
        pytest.fail("--driver NAME: which driver is to be tested?")
    return name


@pytest.fixture(scope="session")
def guest_factory(driver_name: str, request: pytest.FixtureRequest) -> Iterator[ContractFactory]:
    """The guests of the driver under test."""
    factory: ContractFactory = _factory_of(driver_name, request.config.getoption("--factory"))()
    yield factory
    factory.close()


@pytest.fixture(scope="session")
def found_driver(driver_name: str) -> FoundDriver:
    """The driver, found as the agent finds it."""
    drivers = found_drivers()
    assert driver_name in drivers, f"no driver {driver_name!r} is installed; found: {', '.join(drivers)}"
    return drivers[driver_name]


@pytest.fixture
def bench(
    found_driver: FoundDriver, guest_factory: ContractFactory, request: pytest.FixtureRequest
) -> Iterator[ContractBench]:
    """The driver and its guests for one promise."""
    made = ContractBench(found_driver, guest_factory, request.config.getoption("--patience"))
    yield made
    made.end()


@pytest.fixture
def host(bench: ContractBench) -> HypervisorHost:
    """The driver, opened as the agent opens it."""
    return bench.open()


@pytest.fixture
def session(host: HypervisorHost) -> Iterator[HypervisorSession]:
    """A session of this thread."""
    made = host.session()
    yield made
    made.close()


def _factory_of(driver: str, named: str | None) -> Callable[[], ContractFactory]:
    if named is not None:
        module, _, name = named.partition(":")
        made: Callable[[], ContractFactory] = getattr(importlib.import_module(module), name)
        return made
    points: Sequence[Any] = [point for point in entry_points(group=GROUP) if point.name == driver]
    if not points:
        pytest.fail(f"no entry point {driver!r} in {GROUP}, and no --factory MODULE:NAME")
    loaded: Callable[[], ContractFactory] = points[0].load()
    return loaded
