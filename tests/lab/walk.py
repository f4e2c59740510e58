# SPDX-License-Identifier: Apache-2.0
"""The walk of a message through the product: the modules whose functions run, in order, in one thread."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

from tests.lab.paths import ROOT

_PRODUCT: Final = tuple(f"{ROOT}/{folder}/" for folder in ("bridge", "listener", "hostagent"))
_SKIPPED: Final = frozenset(
    ("<module>", "<genexpr>", "<listcomp>", "<dictcomp>", "<setcomp>", "__init__", "__repr__")
)


@dataclass
class Walk:
    """The modules in the order of their first call, and the calls that follow a call in another module."""

    modules: list[str] = field(default_factory=list)
    changes: int = 0
    depth: int = 0
    _stack: list[str] = field(default_factory=list)
    _last: str = ""

    def profile(self, frame: FrameType, event: str, _arg: Any) -> None:
        """Note the call or the return of a function; this is given to sys.setprofile."""
        file = frame.f_code.co_filename
        if not file.startswith(_PRODUCT) or frame.f_code.co_name in _SKIPPED:
            return
        module = file.removeprefix(f"{ROOT}/")
        if event == "call":
            self._stack.append(module)
            self.depth = max(self.depth, len(self._stack))
            self._enter(module)
        elif event == "return" and self._stack:
            self._stack.pop()

    def _enter(self, module: str) -> None:
        if module not in self.modules:
            self.modules.append(module)
        if module != self._last:
            self.changes += bool(self._last)
            self._last = module


def walk_of(work: Callable[[], object]) -> Walk:
    """Return the walk of a function in this thread."""
    walk = Walk()
    before = sys.getprofile()
    sys.setprofile(walk.profile)
    try:
        work()
    finally:
        sys.setprofile(before)
    return walk
