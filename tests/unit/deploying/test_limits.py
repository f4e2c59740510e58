# SPDX-License-Identifier: Apache-2.0
"""The page of limits has each limit of the code, with its number."""

import pytest

from bridge.core import limits
from bridge.core.limits import Limit
from tests.lab.paths import ROOT

PAGE = " ".join((ROOT / "doc" / "source" / "limits.rst").read_text().split())


@pytest.mark.parametrize("limit", limits.ALL, ids=lambda limit: limit.of)
def test_each_limit_is_on_the_page(limit: Limit) -> None:
    number = "2\\ :sup:`63` - 1" if limit is limits.SIZE else f"{limit.most:,}"
    of, beyond = (f"{text[0].upper()}{text[1:]}" for text in (limit.of, limit.beyond))
    assert f"* - {of} - {number} - {beyond}" in PAGE
