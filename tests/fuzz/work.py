# SPDX-License-Identifier: Apache-2.0
"""What one process of the fuzz does; a module of its own, since a child imports it by name."""

import json
import random
import resource
from collections import Counter

from tests.fuzz.judge import judged
from tests.fuzz.mutate import mutated
from tests.unit.listener.messages import FIXTURES, opened, recorded, secrets


def portion(given: tuple[int, int, int]) -> tuple[list[str], Counter[str], float]:
    """One worker's share: what was wrong, how many were read as what, MiB of growth so far."""
    seed, first, count = given
    names = sorted(path.stem for path in FIXTURES.glob("*.json"))
    bodies = [recorded(name) for name in names]
    hidden = frozenset(secret for body in bodies for secret in secrets(opened(body)))
    base = _START or _begin()
    found: list[str] = []
    seen: Counter[str] = Counter()
    for number in range(first, first + count):
        draw = random.Random(f"{seed} {number}")
        body = mutated(bodies, draw)
        kind, wrong = judged(body, hidden)
        seen[kind] += 1
        if wrong is not None:
            found.append(f"seed {seed} number {number}: {wrong}: {json.dumps(body[:200].decode('latin-1'))}")
    return found, seen, _peak() - base


_START = 0.0


def _begin() -> float:
    """What the worker has before its first message, the recorded ones read."""
    global _START  # noqa: PLW0603 - of one worker
    _START = _peak()
    return _START


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
