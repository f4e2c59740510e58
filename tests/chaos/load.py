# SPDX-License-Identifier: Apache-2.0
"""What Cinder does in a run: volumes that grow, and the notifications of it as they come out. Decided by the seed.

Each volume grows a few times within some seconds and never again, so that whatever is lost at any time of the run
stays lost: a later extend would bring the disk up and hide it. Pure.
"""

import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.chaos.options import Options
from tests.chaos.plan import Kind, plan

_GROWTHS: Final = (1, 1, 1, 2, 3, 4, 6)  # one of these: what is lost of a volume that grows once stays lost
_WITHIN: Final = (0.3, 6.0)  # seconds in which a volume grows for the first and the last time
_AT_ONCE: Final = 0.7  # of those that grow again do so for the last time while the time before is on its way
_AT_ONCE_IN: Final = (0.1, 0.9)  # seconds
_VOLUMES_PER_SERVER: Final = 4
_ON_TWO_SERVERS: Final = 0.1
_AGAIN: Final = 0.1  # of the notifications come twice
_LATE: Final = 0.2  # of the notifications are overtaken by later ones
_LATE_BY: Final = (0.1, 3.0)  # seconds
_NOISE: Final = 1.0  # other notifications for each one
_POISON: Final = 0.08
_KINDS_OF_POISON: Final = 19
_AFTER: Final = (0.7, 1.7)  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A volume of `size` GiB, by server the attachment that is its own."""

    id: str
    size: int
    attachments: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Growth:
    """`at` seconds after the start Cinder has the new size (GiB); `told_at`: when each notification of it comes."""

    at: float
    volume: Volume = field(compare=False)
    size: int = field(compare=False)
    told_at: tuple[float, ...] = field(compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`hosts`: the servers of each host; `noise` and `poison`: when another, or a bad, message comes."""

    hosts: Sequence[Sequence[str]]
    volumes: Sequence[Volume]
    growths: Sequence[Growth]
    noise: Sequence[float]
    poison: Sequence[float]


def load(options: Options) -> Load:
    """The load of a seed; the same for the same options."""
    rng = random.Random(f"load {options.seed}")
    counts = list(_growth_counts(options.events, rng))
    per_host = max(2, -(-len(counts) // (_VOLUMES_PER_SERVER * options.agents)))
    hosts = [[_id(rng) for _ in range(per_host)] for _ in range(options.agents)]
    volumes = [_volume(hosts, rng) for _ in counts]
    growths = [
        growth
        for volume, n in zip(volumes, counts, strict=True)
        for growth in _grow(volume, n, options.spread, rng)
    ]
    return Load(
        hosts=hosts,
        volumes=volumes,
        growths=sorted(growths),
        noise=[rng.uniform(0, options.spread) for _ in range(int(options.events * _NOISE))],
        poison=sorted(
            [
                *(rng.uniform(0, options.spread) for _ in range(int(options.events * _POISON))),
                *_after_deletes(options, rng),
            ]
        ),
    )


def _after_deletes(options: Options, rng: random.Random) -> list[float]:
    """One of each kind of bad message behind each queue that is deleted: listeners still take it for there."""
    gone = [fault.at for fault in plan(options) if fault.kind is Kind.DELETE]
    return [at + rng.uniform(*_AFTER) for at in gone for _ in range(_KINDS_OF_POISON)]


def _growth_counts(events: int, rng: random.Random) -> list[int]:
    counts: list[int] = []
    while (left := events - sum(counts)) > 0:
        counts.append(min(left, rng.choice(_GROWTHS)))
    return counts


def _volume(hosts: Sequence[Sequence[str]], rng: random.Random) -> Volume:
    two = len(hosts) > 1 and rng.random() < _ON_TWO_SERVERS
    on = rng.sample(range(len(hosts)), 2 if two else 1)
    return Volume(
        id=_id(rng), size=rng.randint(1, 20), attachments={rng.choice(hosts[host]): _id(rng) for host in on}
    )


def _grow(volume: Volume, times: int, spread: float, rng: random.Random) -> list[Growth]:
    within = min(rng.uniform(*_WITHIN), spread)
    first = rng.uniform(0, spread - within)
    size, growths = volume.size, []
    moments = sorted(first + rng.uniform(0, within) for _ in range(times))
    if times > 1 and rng.random() < _AT_ONCE:
        moments[-1] = moments[-2] + rng.uniform(*_AT_ONCE_IN)
    for at in moments:
        size += rng.randint(1, 4)
        told = [at + (rng.uniform(*_LATE_BY) if rng.random() < _LATE else 0.0)]
        if rng.random() < _AGAIN:
            told.append(told[0] + rng.uniform(0, 3.0))
        growths.append(Growth(at=at, volume=volume, size=size, told_at=tuple(told)))
    return growths


def _id(rng: random.Random) -> str:
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))
