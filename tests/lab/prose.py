# SPDX-License-Identifier: Apache-2.0
"""The rule for docstrings, as a check: CONTRIBUTING says it in words."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_NEVER_FIRST: Final = frozenset(("what", "who", "whom", "whose", "how", "whether", "as", "it", "its", "see"))
_NO_VERB: Final = frozenset((
    "the", "a", "an", "this", "that", "these", "those", "all", "every", "each", "one", "no", "not", "none",
    "nothing", "some", "any", "for", "from", "in", "of", "on", "by", "with", "where", "when", "which", "why",
    "to", "at", "and", "or", "true", "false", "two", "several", "both", "only", "more", "most", "less",
    "seconds", "here", "there", "we", "they", "he", "if", "so", "without", "after", "before", "until", "once",
    "again", "still", "bytes", "ours", "else", "everything", "everybody", "nobody", "somebody", "whoever",
))  # fmt: skip
"""Words that begin a description of a value or of a moment: an imperative does not begin with them."""
_FEWEST: Final = 4
_WORD: Final = re.compile(r"[\w`'\-/.*\[\]]+")
_VALUES: Final = ("property", "fixture", "setter")
"""Decorators that make a function a value, which may be named by its noun."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class ProseFinding:
    """A docstring that breaks the rule."""

    path: Path
    line: int
    text: str
    why: str

    def __str__(self) -> str:
        return f'{self.path}:{self.line}: "{self.text}": {self.why}'


def findings(path: Path) -> Iterator[ProseFinding]:
    """Yield the docstrings of a file that break the rule."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, Documented):
            continue
        text = ast.get_docstring(node)
        if text is not None and (why := broken(text, is_function=_is_function(node))):
            yield ProseFinding(path=path, line=getattr(node, "lineno", 1), text=text.split("\n")[0], why=why)


def broken(text: str, *, is_function: bool) -> str:
    """Return the rule that a docstring breaks, in words; empty when it breaks none."""
    words = _WORD.findall(text.split("\n\n", maxsplit=1)[0])
    first = words[0].strip("`*.'").lower() if words else ""
    if first in _NEVER_FIRST:
        verb = 'a verb ("Return", "Claim")' if is_function else "the noun of what it describes"
        return f'never begin with "{words[0]}"; begin with {verb}, and delete a docstring that only says "See X"'
    if len(words) < _FEWEST:
        return f"{len(words)} words say too little; say what a reader needs, or delete the docstring"
    if is_function and first in _NO_VERB:
        return f'"{words[0]}" is not a verb; begin with a verb in the imperative ("Return {words[0].lower()} ...")'
    return ""


def _is_function(node: Documented) -> bool:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return not any(value in ast.unparse(decorator) for decorator in node.decorator_list for value in _VALUES)
