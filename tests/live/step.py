# SPDX-License-Identifier: Apache-2.0
"""A step of a walk of tools/live."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class LiveStep(Generic[C]):
    """One step in a cloud. `play` returns the words for its line; it raises where the guest stays behind."""

    name: str
    about: str
    play: Callable[[C], str]
