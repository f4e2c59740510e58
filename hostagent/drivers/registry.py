# SPDX-License-Identifier: Apache-2.0
"""The drivers that are installed here, found by the entry points extend_bridge.drivers, and the chosen one."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, Final

from oslo_config import cfg

from bridge.core.errors import ConfigError
from hostagent.drivers.base import HypervisorDriver

LOG = logging.getLogger(__name__)

GROUP: Final = "extend_bridge.drivers"
_OURS: Final = {
    "libvirt": "hostagent.drivers.libvirt.driver:DRIVER",
    "qmp": "hostagent.drivers.qmp.driver:DRIVER",
}
"""Our own drivers, which a checkout that is not installed has as well."""
_SHARED: Final = "hostagent"

DRIVER_OPT: Final = cfg.StrOpt(
    "driver",
    default="libvirt",
    help="The driver of this host's hypervisor, by the name of its entry point in extend_bridge.drivers: libvirt, "
    "qmp (plain QEMU over its QMP sockets, options in [qmp]), or the name of a package of your own.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDriver:
    """An entry point and its driver; `why_not` tells why there is none."""

    name: str
    driver: HypervisorDriver | None = None
    why_not: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenDriver:
    """The driver that the configuration names, and its settings."""

    driver: HypervisorDriver
    settings: Any

    @property
    def name(self) -> str:
        """The name of its entry point."""
        return self.driver.name


@cache
def found_drivers() -> Mapping[str, FoundDriver]:
    """Return the installed drivers by name. Our own names cannot be taken by another package."""
    others = {point.name: point for point in entry_points(group=GROUP) if point.name not in _OURS}
    ours = {name: EntryPoint(name=name, value=value, group=GROUP) for name, value in _OURS.items()}
    return MappingProxyType({name: _load(point) for name, point in sorted({**others, **ours}.items())})


def driver_options() -> Sequence[tuple[str, Sequence[cfg.Opt]]]:
    """Return the option groups of the installed drivers."""
    return [
        group for found in found_drivers().values() if found.driver is not None for group in found.driver.options()
    ]


def choose_driver(conf: cfg.ConfigOpts) -> ChosenDriver:
    """Return the driver of [hostagent] driver with its settings; raises ConfigError."""
    name = conf.hostagent.driver
    drivers = found_drivers()
    if name not in drivers:
        raise ConfigError(f"[hostagent] driver: no driver {name!r} is installed; found: {', '.join(drivers)}")
    found = drivers[name]
    if found.driver is None:
        raise ConfigError(f"[hostagent] driver: {name} cannot be used: {found.why_not}")
    return ChosenDriver(driver=found.driver, settings=found.driver.settings(conf))


def _load(point: EntryPoint) -> FoundDriver:
    """Load one driver. A broken package does not stop the agent from using another driver."""
    try:
        driver: HypervisorDriver = point.load()
        why_not = _trouble(point.name, driver)
    except Exception as ex:  # noqa: BLE001 - whatever another package's import raises
        why_not = f"{point.value}: {type(ex).__name__}: {ex}"
    if not why_not:
        return FoundDriver(name=point.name, driver=driver)
    LOG.debug("driver %s: %s", point.name, why_not)
    return FoundDriver(name=point.name, why_not=" ".join(why_not.split()))


def _trouble(name: str, driver: HypervisorDriver) -> str:
    """Return the fault in a driver's name or options; empty without one."""
    if driver.name != name:
        return f"its entry point is {name}, its name is {driver.name}"
    allowed = {name, _SHARED} if name in _OURS else {name}
    groups = {group for group, _options in driver.options()}
    return "" if groups <= allowed else f"its options must be in [{name}], not in {', '.join(sorted(groups))}"
