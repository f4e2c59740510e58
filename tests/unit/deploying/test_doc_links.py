# SPDX-License-Identifier: Apache-2.0
"""Links of the README and the documentation: those inside the tree lead somewhere, the others are addresses."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.lab.paths import ROOT

README = ROOT / "README.md"
PAGES = sorted((ROOT / "doc" / "source").glob("*.rst"))
_LOOPBACK = ("127.0.0.1", "localhost")
_EXAMPLES = ("keystone", "nova", "cinder", "api", "control", "bridge", "broker", "proxy", "collector")


_NAMED = re.compile(r"(?<![\w./-])((?:etc|doc|tools|tests|bridge|listener|hostagent)/[\w./-]*\w)")


def inside_links() -> Iterator[tuple[Path, str]]:
    """Yield each link to another file of the tree, and the names of files in running text."""
    for target in re.findall(r"\]\(([^)]+)\)", README.read_text()):
        if "://" not in target:
            yield README, target
    for page in [README, *PAGES]:
        for name in _NAMED.findall(page.read_text()):
            yield page, name


def addresses() -> Iterator[tuple[Path, str]]:
    """Yield each address."""
    for page in [README, *PAGES]:
        for address in re.findall(r"https?://[^\s`'\"<>),;\]]+", page.read_text()):
            yield page, address.rstrip(".:")


def test_links_inside_the_tree_lead_somewhere() -> None:
    links = list(inside_links())
    assert len(links) > 40
    dead = {f"{page.name}: {target}" for page, target in links if not (ROOT / target.partition("#")[0]).exists()}
    assert dead == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_is_in_the_index(page: Path) -> None:
    index = (ROOT / "doc" / "source" / "index.rst").read_text()
    assert page.stem == "index" or re.search(rf"^   {re.escape(page.stem)}$", index, re.MULTILINE)


def test_addresses_are_complete() -> None:
    """Of the web without a look there, of this machine and of examples with a host."""
    for page, address in addresses():
        parts = urlsplit(re.sub(r"\b[A-Z_]+\b", "1", address))  # HOST:PORT is to be filled in
        assert parts.hostname, f"{page.name}: {address}"
        known = parts.hostname in _LOOPBACK or "." in parts.hostname or parts.hostname.startswith((*_EXAMPLES, "1"))
        assert known, f"{page.name}: {address}"
