# SPDX-License-Identifier: Apache-2.0
"""Places: lines whose place in the file is known stand in that order, with just as many bytes between them."""

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
    """A row that stands elsewhere than it was written (`bytes` is 0), or before which so many bytes were put in
    (more than 0) or are gone (less). `first` is the row behind which they are."""

    row: int
    first: int
    bytes: int


def out_of_order(values: Sequence[int]) -> list[int]:
    """Return the indexes of values to take out so that the rest ascends: as few as can be."""
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
    """Return the rows that do not stand in the order of their places; None where so many do not that the file was
    put together by a person."""
    moved: list[int] = []
    known = 0
    for rows in _runs(log):
        known += len(rows)
        moved += [rows[index] for index in out_of_order([log.written[row] for row in rows])]
    return None if len(moved) > max(_FEW, known * _MANY) else moved


def _runs(log: LogText) -> Iterator[list[int]]:
    """Yield the rows with known places, file by file of those that were put together to this one."""
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
            yield run  # another file that got the same inode
            run = runs[home] = []
        elif run:
            may_restart[home] = False
        run.append(row)
    yield from runs.values()


def uneven_gaps(log: LogText, moved: Sequence[int]) -> Iterator[Displaced]:
    """Yield where the bytes between two neighbours of known place are not as many as when they were written.

    A gap with a line that is named already says nothing, nor do neighbours of different files.
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
