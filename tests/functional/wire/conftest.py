# SPDX-License-Identifier: Apache-2.0
"""A real API process with the servers of the recordings and the lab's tokens."""

from collections.abc import Iterator

import pytest

from tests.lab.conformance.exchange import read_rows
from tests.lab.conformance.site import Site
from tests.lab.paths import ROOT

TOKENS = {
    "<admin>": {"project_id": "a" * 32, "roles": ["admin"]},
    "<service>": {"project_id": "b" * 32, "roles": ["service"]},
    "<demo>": {"project_id": "c" * 32, "roles": ["member"]},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Running until the module's tests end."""
    rows = read_rows(ROOT / "tests" / "fixtures" / "nova34" / "rows.json")
    with Site(tmp_path_factory.mktemp("site"), rows, TOKENS) as running:
        yield running
