# SPDX-License-Identifier: Apache-2.0
"""A good word without an end is a check that stays ready while its part stands still: no part says one."""

import ast
from collections.abc import Iterator

from tests.lab.paths import ROOT

_PRODUCT = ("bridge", "listener", "hostagent")
_OWN_LOOP = "bridge/runtime/daemon.py"  # its word stands behind the check of a loop, which ends by itself


def endless(tree: ast.AST) -> Iterator[int]:
    """Yield the lines with a call `health.ok(...)` without good_for."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or any(word.arg == "good_for" for word in node.keywords):
            continue
        called = node.func
        if isinstance(called, ast.Attribute) and called.attr == "ok" and "health" in ast.unparse(called.value):
            yield node.lineno


def test_every_good_word_of_the_product_has_an_end() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in _PRODUCT
        for path in sorted((ROOT / folder).rglob("*.py"))
        if str(path.relative_to(ROOT)) != _OWN_LOOP
        for line in endless(ast.parse(path.read_text()))
    ]
    assert found == []


def test_a_word_without_an_end_is_seen() -> None:
    assert list(endless(ast.parse("self._health.ok(CHECK)\nhealth.ok(CHECK, good_for=3)\nresult.ok()\n"))) == [1]
