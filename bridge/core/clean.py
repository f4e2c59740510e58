# SPDX-License-Identifier: Apache-2.0
"""Foreign text made safe: cleaned when it arrives from a host, and again before a person reads it.

A host's text can hold escape sequences for a terminal, or the beginning of a spreadsheet's formula. It can also
hold lone surrogates that encoders refuse, and marks that reverse the direction of a line.
"""

import unicodedata
from typing import Any, Final

_MARK: Final = "\N{REPLACEMENT CHARACTER}"
_LAYOUT: Final = frozenset("\n\t")
_FORMULA: Final = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def clean(text: str, most: int | None = None) -> str:
    """Return one line of printable characters, at most `most` of them."""
    short = text if most is None else text[:most]
    return short if short.isprintable() else "".join(c if c.isprintable() else _replacement(c) for c in short)


def clean_lines(text: str) -> str:
    """Return the same text for a terminal: line breaks and tabs stay, other unprintable characters go."""
    if text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(c if c.isprintable() or c in _LAYOUT else _replacement(c) for c in text)


def clean_value(value: Any) -> Any:
    """Return a value of a cell with each text in it cleaned; a text keeps its line breaks."""
    match value:
        case str():
            return clean_lines(value)
        case list() | tuple():
            return [clean_value(item) for item in value]
        case dict():
            return {clean_value(key): clean_value(item) for key, item in value.items()}
        case _:
            return value


def for_spreadsheet(value: Any) -> Any:
    """Return a cell that a spreadsheet shows unchanged; a text that looks like a formula gets an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.lstrip().startswith(_FORMULA) else value


def for_shell(value: Any) -> Any:
    """Escape a text for the inside of a shell's double quotes; the quotes themselves are escaped by cliff."""
    if not isinstance(value, str):
        return value if value is None or isinstance(value, bool | int | float) else for_shell(str(value))
    return "".join(f"\\{c}" if c in "\\$`" else c for c in value)


def _replacement(character: str) -> str:
    return " " if unicodedata.category(character) == "Zs" or character in _LAYOUT else _MARK
