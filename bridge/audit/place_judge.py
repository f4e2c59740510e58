# SPDX-License-Identifier: Apache-2.0
"""Judgement of the places of lines in one file: moved lines, bytes that were put in or removed, foreign text."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Final

from bridge.audit.evidence import Damage, Evidence
from bridge.audit.logtext import LogText, Piece
from bridge.audit.places import Displaced, moved_rows, out_of_order, uneven_gaps
from bridge.audit.writer_chain import WriterChain

_FEW_GAPS: Final = 5


class PlaceJudge:
    """The judge of places. `copies`: the files that are copies of other files."""

    def __init__(self, evidence: Evidence, writers: Mapping[str, WriterChain], copies: Collection[int]) -> None:
        self._evidence = evidence
        self._writers = writers
        self._copies = copies

    def judge(self, file: int, log: LogText) -> None:
        """Find moved lines, and places where bytes were inserted or removed."""
        if log.prefixed:
            return  # another program wrote this file
        self._judge_foreign(file, log)
        moved: list[int] = []
        if not log.in_order:  # a file in order may have been sorted with `sort`
            moved = self._judge_order(file, log)
        gaps = [gap for gap in uneven_gaps(log, moved) if gap.bytes > 0 or not _is_broken(log, gap)]
        plain = sum(kind == Piece.PLAIN for kind in log.kinds)
        if gaps and (self._is_put_together(file) or len(gaps) > max(_FEW_GAPS, plain // 5)):
            self._evidence.note(
                file, 0, "other lines were put into this file: its lines without a chain are not proved"
            )
            return
        for gap in gaps:
            self._judge_uneven(file, log, gap)
        self._judge_front(file, log)

    def _is_put_together(self, file: int) -> bool:
        """Return whether a person assembled this file from several files, sorted the file, or copied the file."""
        log = self._evidence.logs[file]
        return (
            len(log.homes.names) > 1
            or file in self._copies
            or (
                log.in_order
                and any(out_of_order(w.rows[file][0]) for w in self._writers.values() if file in w.rows)
            )
        )

    def _judge_foreign(self, file: int, log: LogText) -> None:
        """Name text that is not a record, unless the file is also a log of other programs."""
        foreign = [row for row, kind in enumerate(log.kinds) if kind == Piece.FOREIGN]
        if len(foreign) > max(_FEW_GAPS, len(log.kinds) // 20) or not log.homes.names:
            return
        for row in foreign:
            self._evidence.find(Damage.INSERTED, file, row, "is not a line of an audit log")

    def _judge_front(self, file: int, log: LogText) -> None:
        """Compare the bytes in front of the first line of known place with the line's original place."""
        row = next((row for row, place in enumerate(log.written) if place >= 0), None)
        if row is None or self._is_put_together(file):
            return
        surplus = log.starts[row] - log.written[row]
        gap = Displaced(row, -1, surplus)
        if surplus < 0 and not _is_broken(log, gap):
            text = f"{-surplus} bytes are missing at the beginning of this file"
            self._evidence.find(Damage.REMOVED, file, row, text)
        elif surplus > 0 and not any(log.kinds[before] == Piece.NAMED for before in range(row)):
            self._evidence.note(file, 0, f"{surplus} bytes before line {log.where(row)} were added later")

    def _judge_order(self, file: int, log: LogText) -> list[int]:
        for writer in self._writers.values():
            homes: defaultdict[str, list[int]] = defaultdict(list)
            rows, numbers = writer.rows.get(file, ((), ()))
            for place, row in enumerate(rows):
                homes[log.homes.get(row)].append(place)
            for places in homes.values():
                for index in out_of_order([rows[place] for place in places]):
                    text = f"{writer.about()}: number {numbers[places[index]]} does not stand where it was written"
                    self._evidence.find(Damage.REORDERED, file, rows[places[index]], text)
        moved = moved_rows(log)
        if moved is None:
            self._evidence.note(file, 0, "lines of several files were put together: their order is not proved")
            return []
        for row in moved:
            self._evidence.find(
                Damage.REORDERED, file, row, "is not where it was written, among other writers' lines"
            )
        return moved

    def _judge_uneven(self, file: int, log: LogText, gap: Displaced) -> None:
        between = range(gap.first + 1, gap.row)
        loose = [row for row in between if log.kinds[row] in {Piece.PLAIN, Piece.FOREIGN, Piece.BROKEN}]
        behind = f"line {log.where(gap.first)}"
        if gap.bytes < 0:
            text = f"{-gap.bytes} bytes are missing between {behind} and this line"
            self._evidence.find(Damage.REMOVED, file, gap.row, text)
        elif not loose:
            text = f"{gap.bytes} bytes were inserted between {behind} and this line"
            self._evidence.find(Damage.INSERTED, file, gap.row, text)
        for row in loose if gap.bytes > 0 else ():
            text = (
                "was inserted here"
                if len(loose) == 1
                else f"is one of {len(loose)} lines, of which one or more were inserted"
            )
            self._evidence.find(Damage.INSERTED, file, row, f"{text}: {gap.bytes} bytes too many behind {behind}")


def _is_broken(log: LogText, gap: Displaced) -> bool:
    """Return whether lines of a chain are missing in the gap, because then a finding exists already."""
    return any(low < gap.row and gap.first < high for low, high in log.breaks)
