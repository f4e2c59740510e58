# SPDX-License-Identifier: Apache-2.0
"""[locator]: who is asked where a server is. API and engine must agree on it."""

from dataclasses import dataclass
from enum import StrEnum

from oslo_config import cfg


class Driver(StrEnum):
    """Who knows where a server is."""

    INVENTORY = "inventory"  # the host agents, by what they report
    NOVA = "nova"  # Nova's API


LOCATOR_OPTS = [
    cfg.StrOpt(
        "driver",
        default=Driver.INVENTORY.value,
        choices=[
            (Driver.INVENTORY.value, "The host agents' own reports; needs no Nova."),
            (Driver.NOVA.value, "Nova's API ([nova]); needs the role admin and Nova 19 (Stein) or newer."),
        ],
        help="Who is asked where a server is. The same for API and engine. With nova a server is known before its "
        "host's agent has reported it: the API accepts events of any server, and the engine looks for it.",
    ),
    cfg.FloatOpt("cache_seconds", default=10, min=0, help="Seconds an answer of Nova's is believed."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class LocatorSettings:
    """As [locator]."""

    driver: Driver = Driver.INVENTORY
    cache_seconds: float = 10


def locator_settings(conf: cfg.ConfigOpts) -> LocatorSettings:
    """Read it."""
    return LocatorSettings(driver=Driver(conf.locator.driver), cache_seconds=conf.locator.cache_seconds)
