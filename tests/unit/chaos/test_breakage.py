# SPDX-License-Identifier: Apache-2.0
"""A planted bug must be found for what it does, not because the part with it cannot be called."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos import breakage
from tests.chaos.options import Break


@pytest.mark.parametrize("bug", Break)
def test_each_planted_bug_fits_where_it_is_put(bug: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[str] = []

    def only_look(owner: object, name: str, new: Callable[..., Any]) -> None:
        breakage.check_fits(owner, name, new)
        put.append(name)

    monkeypatch.setattr(breakage, "_put", only_look)
    for part in ("listener", "api", "engine", "hostagent"):
        breakage.plant(bug, part)
    assert put, "it is in no part"


def test_one_that_lacks_an_argument_does_not_fit() -> None:
    class Part:
        def work(self, size: int, *, header: int) -> int:
            return size + header

    with pytest.raises(TypeError, match="work takes no header"):
        breakage.check_fits(Part, "work", lambda self, size: size)
    breakage.check_fits(Part, "work", lambda self, size, **more: size)
