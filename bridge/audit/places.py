# SPDX-License-Identifier: Apache-2.0
"""Checks of places: lines with a known place must keep their order and the number of bytes between them."""

from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from bridge.audit.logtext import LogText, Piece

_MANY: Final = 0.1
_FEW: Final = 3


@dataclass(frozen=True, slots=True)
class Displaced:
    """A row that was moved, or before which bytes were inserted or removed.

    `bytes` is 0 for a moved row, positive for inserted bytes and negative for removed bytes. The bytes are between
    the rows `first` and `row`.
    """

    row: int
    first: int
    bytes: int


def out_of_order(values: Sequence[int]) -> list[int]:
    """Return the smallest set of indexes whose removal leaves the other values in ascending order."""
    if all(one <= two for one, two in pairwise(values)):
        return []
    tails: list[int] = []
    at: list[int] = []
    before = array("q", [-1]) * len(values)
    for index, value in enumerate(values):
        place = bisect_right(tails, value)
        before[index] = at[place - 1] if place else -1
        if place == len(tails):
            tails.append(value)
            at.append(index)
        else:
            tails[place] = value
            at[place] = index
    kept = set[int]()
    index = at[-1]
    while index >= 0:
        kept.add(index)
        index = before[index]
    return [index for index in range(len(values)) if index not in kept]


def moved_rows(log: LogText) -> list[int] | None:
    """Return the rows that are not in the order of their places.

    Return None for too many such rows, because then a person assembled the file from several files.
    """
    moved: list[int] = []
    known = 0
    for rows in _runs(log):
        known += len(rows)
        moved += [rows[index] for index in out_of_order([log.written[row] for row in rows])]
    return None if len(moved) > max(_FEW, known * _MANY) else moved


def _runs(log: LogText) -> Iterator[list[int]]:
    """Yield the rows with known places, separately for each original file in an assembled file."""
    runs: dict[str, list[int]] = {}
    may_restart: defaultdict[str, bool] = defaultdict(bool)
    for row, place in enumerate(log.written):
        home = log.homes.get(row)
        if row in log.openings:
            may_restart[home] = True
        if place < 0 or log.kinds[row] == Piece.NAMED:
            continue
        run = runs.setdefault(home, [])
        if run and place < log.written[run[-1]] and may_restart[home]:
            yield run  # the next rows are of another file with the same inode
            run = runs[home] = []
        elif run:
            may_restart[home] = False
        run.append(row)
    yield from runs.values()


def uneven_gaps(log: LogText, moved: Sequence[int]) -> Iterator[Displaced]:
    """Yield the gaps between two rows of known place whose number of bytes changed since the rows were written.

    A gap that contains a named line is skipped. A gap between rows of different files is also skipped.
    """
    skip = set(moved)
    left = -1
    named = False
    for row, place in enumerate(log.written):
        if log.kinds[row] == Piece.NAMED or row in skip:
            named = True
            continue
        if place < 0:
            home = log.homes.get(row)
            if home and left >= 0 and home != log.homes.get(left):
                named = True
            continue
        if left >= 0 and not named and log.homes.get(left) == log.homes.get(row) and place > log.written[left]:
            here = log.starts[row] - log.starts[left]
            then = place - log.written[left]
            if here != then:
                yield Displaced(row, left, here - then)
        left, named = row, False
