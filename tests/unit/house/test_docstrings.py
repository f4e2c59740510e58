# SPDX-License-Identifier: Apache-2.0
"""Docstrings of the product follow the rule of CONTRIBUTING."""

from pathlib import Path

import pytest

from tests.lab.paths import ROOT
from tests.lab.prose import broken, findings

FOLDERS = ("bridge", "listener", "hostagent")
SHOWN = 15


def modules() -> list[Path]:
    """Return every module of the product."""
    return sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def test_docstrings_follow_the_rule() -> None:
    wrong = [str(found) for path in modules() for found in findings(path)]
    assert not wrong, f"{len(wrong)} docstrings break the rule of CONTRIBUTING:\n" + "\n".join(wrong[:SHOWN])


@pytest.mark.parametrize(
    ("text", "is_function"),
    [
        ("What is done with the messages of one batch.", False),
        ("How long a caller waits before it is refused.", True),
        ("See cliff.", True),
        ("As an operator does it by hand.", True),
        ("It was refreshed just now.", True),
        ("Nothing.", True),
        ("The rows that are due now.", True),
        ("Seconds until the next attempt.", True),
    ],
)
def test_the_rule_refuses(text: str, is_function: bool) -> None:
    assert broken(text, is_function=is_function)


@pytest.mark.parametrize(
    ("text", "is_function"),
    [
        ("Return the rows that are due now.", True),
        ("The lease of the reconcile sweep.", False),
        ("`Order` and `Report`: the messages between engine and agent.", False),
        ("Claim due rows; a row that another engine claims first is left out.", True),
    ],
)
def test_the_rule_accepts(text: str, is_function: bool) -> None:
    assert not broken(text, is_function=is_function)
