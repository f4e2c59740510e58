# SPDX-License-Identifier: Apache-2.0
"""Limits of a host's messages to the engine, and the effect beyond each: the table of doc/source/limits.rst."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One limit. `of` names the counted things, `beyond` the effect on the rest."""

    most: int
    of: str
    beyond: str


MESSAGE_BYTES: Final = Limit(
    most=8 * 1024 * 1024, of="bytes of one message", beyond="the message is dropped, with an alarm"
)
HOST_NAME: Final = Limit(most=255, of="characters of a host's name", beyond="the message is dropped")
REPORTS: Final = Limit(
    most=1000, of="reports in one message", beyond="the others are left out; their orders are sent again"
)
FILE_SYSTEMS: Final = Limit(
    most=1000, of="file systems in one message", beyond="the others are left out until the next query"
)
STEPS: Final = Limit(most=64, of="steps in one report", beyond="the others are left out")
DETAIL: Final = Limit(most=500, of="characters of a report's or a step's detail", beyond="cut off")
CODE: Final = Limit(most=64, of="characters of a reason, a step's name or a volume type", beyond="cut off")
DOMAINS: Final = Limit(
    most=4000,
    of="domains in one inventory, and removed domains in it",
    beyond="the others keep their last known state, with an alarm",
)
DISKS: Final = Limit(most=256, of="volumes of one domain", beyond="the others are left out, with an alarm")
VOLUMES: Final = Limit(
    most=20_000,
    of="volumes in one inventory",
    beyond="the other domains keep their last known state, with an alarm",
)
VOLUME_TYPES: Final = Limit(
    most=64, of="volume types that a host can extend, and those that it cannot", beyond="left out"
)
WHY: Final = Limit(most=200, of="characters of the reason why a volume type cannot be extended", beyond="cut off")
SIZE: Final = Limit(most=2**63 - 1, of="bytes of a disk", beyond="the disk's size counts as unknown")
ROWS: Final = Limit(
    most=2000,
    of="domains, volumes and reports in one transaction",
    beyond="they are written in several transactions",
)

ALL: Final = (
    MESSAGE_BYTES, HOST_NAME, REPORTS, FILE_SYSTEMS, STEPS, DETAIL, CODE, DOMAINS, DISKS, VOLUMES, VOLUME_TYPES,
    WHY, SIZE, ROWS,
)  # fmt: skip
"""All limits, in the order of the documentation."""
