# SPDX-License-Identifier: Apache-2.0
"""Verification of audit logs: lines that were edited, removed, moved, cut off or inserted, and unproved lines.

There are three kinds of evidence:

- The chain of each writer (bridge.core.audit) proves its lines and their numbers.
- Heads prove the end of a chain. The journal and a daemon's own log keep heads, and later writers name heads.
- The places of lines prove the order of different writers' lines in one file, and the bytes between lines.
  Lines of 0.1.0 have no chain. The places show when such a line was inserted or removed between two known places.

The traces of honest operation are not findings. Writers leave such traces when they are killed, when the disk is
full, or when several writers share a file. Operators leave such traces when they rotate, gzip, assemble or sort
files. Lines of 0.1.0 are not findings either.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from bridge.audit.chains import ChainGap, ChainReader, TornPiece, rewritten
from bridge.audit.entry import stamp
from bridge.audit.evidence import Damage, Evidence, LogFinding, Verified
from bridge.audit.logtext import LogText, Piece, read_pieces
from bridge.audit.place_judge import PlaceJudge
from bridge.audit.writer_chain import HeldLine, WriterChain
from bridge.core.audit import ChainHead

_PART: Final = re.compile(rb'"part":"([a-z0-9_-]+)"')
_TIME: Final = re.compile(rb'\{"schema":\d+,"time":"([^"]{1,40})"')
_LOOK: Final = 100  # pieces that are searched for a file's first record
_LATE: Final = 5.0  # seconds in which a writer certainly notices that its file was moved away
NOWHERE: Final = "-"


class Verifier:
    """The judge of the chains. `complete`: the files are all files of the log, not a selection."""

    def __init__(self, evidence: Evidence, chains: ChainReader, *, complete: bool) -> None:
        self._evidence = evidence
        self._chains = chains
        self._complete = complete
        self._copies: set[int] = set()

    def finish(self) -> Verified:
        """Judge all files and return the result; no file may be read afterwards."""
        self._chains.finish()
        for gap in self._chains.gaps:
            self._judge_gap(gap)
        for held in self._chains.strays:
            self._evidence.find(
                Damage.INSERTED, held.file, held.row, "does not belong to a chain: no writer wrote this line here"
            )
        self._judge_repeats()
        for writer in self._chains.writers.values():
            self._judge_end(writer)
        self._judge_unseen()
        self._judge_broken()
        judge = PlaceJudge(self._evidence, self._chains.writers, self._copies)
        for file, log in enumerate(self._evidence.logs):
            judge.judge(file, log)
        result = self._evidence.result
        result.writers = sum(writer.next is not None for writer in self._chains.writers.values())
        order = {str(log.path): n for n, log in enumerate(self._evidence.logs)}
        for found in (result.findings, result.notes):
            found.sort(key=lambda f: (order.get(f.file, -1), f.line, f.kind))
        return result

    def _judge_gap(self, gap: ChainGap) -> None:
        after = gap.after
        assert after is not None  # noqa: S101 - _judge_end handles a gap without a line behind it
        missing = gap.last - gap.first + 1
        about = gap.writer.about()
        here = gap.before if gap.before is not None and gap.before.file == after.file else None
        self._evidence.logs[after.file].breaks.append((here.row if here is not None else -1, after.row))
        same_file = gap.before is None or here is not None or not after.link.opened("after")
        if same_file:
            missing -= self._edited_between(gap, about)
            if missing <= 0:
                return
        if not same_file and gap.before is not None:
            self._judge_gap_of_files(gap, gap.before, after)
            return
        self._evidence.find(
            Damage.REMOVED,
            after.file,
            after.row,
            f"{about}: {_numbers(gap.first, gap.last)} gone from before this line",
        )
        if gap.unverified:
            self._evidence.note(
                after.file, after.row, "its own text is not proved, because the line before it is missing"
            )

    def _judge_gap_of_files(self, gap: ChainGap, before: HeldLine, after: HeldLine) -> None:
        """Judge lines that are missing between the newest line of one file and the first line of another.

        `from` in the opening line tells which file held the missing lines.
        """
        begun = after.link.opens.get("from") if after.link.opens is not None else None
        begun = begun if isinstance(begun, int) and begun > before.link.seq else gap.last + 1
        if begun > gap.first:
            self._cut_off(gap.writer, before, begun - 1)
        if begun <= gap.last:
            self._missing_file(gap.writer, after, begun, gap.last)

    def _missing_file(self, writer: WriterChain, near: HeldLine, first: int, last: int) -> None:
        what = f"{writer.about()}: {_numbers(first, last)}"
        if not self._complete:
            self._evidence.note(near.file, near.row, f"{what} in a file that is not here")
        elif (left := self._remains(writer.part, last - first + 1)) is not None:
            self._evidence.find(Damage.EDITED, *left, f"{what} gone, and no line of this file is proved")
        else:
            self._evidence.find(Damage.REMOVED, near.file, near.row, f"{what} in a file that is not here")

    def _remains(self, part: str, lines: int) -> tuple[int, int] | None:
        """Return the file and row of what may be left of missing lines: a file in which no line has a chain."""
        for file, log in enumerate(self._evidence.logs):
            if log.homes.names or not 0 < len(log.numbers) <= lines + 1:
                continue
            broken = [torn for torn in self._chains.broken if torn.file == file]
            if fitting := [torn for torn in broken if _may_be_of(part, torn)]:
                self._chains.broken = [torn for torn in self._chains.broken if torn not in fitting]
                return file, fitting[0].row
            if not broken and len(log.numbers) <= lines:
                return file, 0
        return None

    def _edited_between(self, gap: ChainGap, about: str) -> int:
        """Name the edited lines at the place of missing lines; return their number."""
        after = gap.after
        assert after is not None  # noqa: S101 - _judge_gap checked it
        low = gap.before.row if gap.before is not None and gap.before.file == after.file else -1
        found = 0
        room = gap.last - gap.first + 1
        for held in [h for h in self._chains.strays if h.file == after.file]:
            if found < room and (self._chains.follows(after.link, held.link.hash) or low < held.row < after.row):
                self._chains.strays.remove(held)
                self._evidence.find(
                    Damage.EDITED, held.file, held.row, f"was written by {about} and names another writer"
                )
                found += 1
        for entry in [repeat for repeat in self._chains.repeats if repeat[0].file == after.file and not repeat[1]]:
            if found < room and self._chains.follows(after.link, entry[0].link.hash):
                self._chains.repeats.remove(entry)
                self._evidence.find(
                    Damage.EDITED, entry[0].file, entry[0].row, f"was written by {about} with another number"
                )
                found += 1
        for broken in [b for b in self._chains.broken if b.file == after.file and low < b.row < after.row]:
            if found < room:
                self._chains.broken.remove(broken)
                self._evidence.find(
                    Damage.EDITED,
                    broken.file,
                    broken.row,
                    f"was a line of {about} and is not a valid line any more",
                )
                found += 1
        return found

    def _judge_end(self, writer: WriterChain) -> None:
        newest = writer.newest
        if newest is None:
            return
        if writer.first > 0 and not any(gap.writer is writer and gap.first == 0 for gap in self._chains.gaps):
            self._judge_beginning(writer)
        if writer.doubtful:
            if writer.claimed == self._chains.key_name:
                self._chains.doubts_are_edits(writer)
            else:
                self._note_writer(writer, "its lines are not proved: they were written with another key file")
        elif writer.decided and writer.key is None and self._chains.key_name:
            self._note_writer(
                writer, "was written without the key, so any program that may write this file can have written it"
            )
        self._judge_late_heads(writer)
        last = max(writer.heads, default=-1)
        if last > newest.link.seq:
            head = writer.heads[last]
            if not head.file or head.file in set(writer.files.values()):
                self._cut_off(writer, newest, last)
            else:
                self._missing_file(writer, newest, newest.link.seq + 1, last)
        elif last < newest.link.seq or not writer.heads[last].final:
            known = f"number {last} was kept elsewhere" if last >= 0 else "none was kept elsewhere"
            self._note_writer(
                writer, f"it did not end in order (killed, or still running): {known}, and the newest here is "
                f"{newest.link.seq}; what came after that is not known"
            )  # fmt: skip

    def _judge_beginning(self, writer: WriterChain) -> None:
        """Judge the numbers before a writer's first line.

        The file with these numbers was deleted, or they are gone from a file that is here.
        """
        numbers = _numbers(0, writer.first - 1)
        for head in writer.heads.values():
            place = self._homes().get(f"{head.host} {head.file}") if head.file and head.seq < writer.first else None
            if place is not None and self._is_older(place, head):
                last = len(self._evidence.logs[place].numbers) - 1
                text = f"{writer.about()}: {numbers} gone from behind this line"
                self._evidence.find(Damage.CUT_OFF, place, last, text)
                return
        self._note_writer(writer, f"{numbers} in files that are not here")

    def _homes(self) -> dict[str, int]:
        """Return the files by the names of their hosts and files."""
        return {home: file for file, log in enumerate(self._evidence.logs) for home in log.homes.names}

    def _cut_off(self, writer: WriterChain, newest: HeldLine, last: int) -> None:
        """Name the lines up to number `last` that are missing at the end of a file."""
        log, first = self._evidence.logs[newest.file], newest.link.seq + 1
        log.breaks.append((newest.row, len(log.numbers)))
        broken = next((b for b in self._chains.broken if self._ends(writer, newest, b)), None)
        if broken is not None:
            self._chains.broken.remove(broken)
            text = f"was a line of {writer.about()} and is not a valid line any more"
            self._evidence.find(Damage.EDITED, broken.file, broken.row, text)
            first += 1
        if first <= last:
            text = f"{writer.about()}: {_numbers(first, last)} gone from behind this line"
            self._evidence.find(Damage.CUT_OFF, newest.file, newest.row, text)

    def _ends(self, writer: WriterChain, newest: HeldLine, broken: TornPiece) -> bool:
        behind = broken.file == newest.file and broken.row > newest.row and not broken.excused
        return behind and _may_be_of(writer.part, broken)

    def _judge_late_heads(self, writer: WriterChain) -> None:
        """Compare lines with heads that became known after the lines were read."""
        for seq, head in writer.heads.items():
            if writer.digest(seq) in {"", head.hash} or writer.rewritten:
                continue
            file, row = next(
                (file, rows[numbers.index(seq)]) for file, (rows, numbers) in writer.rows.items() if seq in numbers
            )
            if self._evidence.logs[file].kinds[row] != Piece.NAMED:
                writer.rewritten = True
                self._evidence.find(Damage.EDITED, file, row, rewritten(writer))

    def _judge_unseen(self) -> None:
        """Name writers with a kept head but without a line in these files."""
        homes = self._homes()
        since = self._since()
        for name, heads in self._chains.heads.items():
            if (name in self._chains.writers and self._chains.writers[name].next is not None) or not heads:
                continue
            head = heads[max(heads)]
            place = homes.get(f"{head.host} {head.file}") if head.file else None
            text = f"{head.part or 'a'} writer {name}: its {head.seq + 1} lines"
            if place is not None and self._covers(place, head):
                last = len(self._evidence.logs[place].numbers) - 1
                self._evidence.find(Damage.REMOVED, place, last, f"{text} are gone from this file")
            elif (near := self._belongs(head, since)) is not None:
                last = len(self._evidence.logs[near].numbers) - 1
                text = f"{text}, written to {head.path} after the first line of this file, are gone"
                self._evidence.find(Damage.REMOVED, near, last, text)
            elif (
                self._complete
                and any(_may_be_of(head.part, torn) for torn in self._chains.broken)
                and (left := self._remains(head.part, head.seq + 1))
            ):
                self._evidence.find(Damage.EDITED, *left, f"{text} are gone, and no line of this file is proved")
            elif self._evidence.logs:
                self._evidence.result.notes.append(
                    LogFinding(Damage.UNPROVED, NOWHERE, 0, f"{text} on {head.host} are not among these logs")
                )

    def _since(self) -> dict[str, list[tuple[float, int]]]:
        """Return the files of each log by its host and path, with the time of each file's first line."""
        if not self._complete:
            return {}
        found: defaultdict[str, dict[int, float]] = defaultdict(dict)
        for name, heads in self._chains.heads.items():
            writer = self._chains.writers.get(name)
            paths = {f"{head.host} {head.path}" for head in heads.values() if head.path}
            for file in writer.rows if writer is not None and len(paths) == 1 else ():
                began = stamp((self._evidence.logs[file].times or ("", ""))[0])
                if began is not None:
                    found[min(paths)][file] = began
        return {name: sorted((began, file) for file, began in files.items()) for name, files in found.items()}

    @staticmethod
    def _belongs(head: ChainHead, since: dict[str, list[tuple[float, int]]]) -> int | None:
        """Return the file near which the lines of this head were written, if all files of its log are here.

        The head must be newer than the oldest of these files, because older files are deleted in order.
        """
        files = since.get(f"{head.host} {head.path}", ())
        return max(((began, file) for began, file in files if began + _LATE <= head.at), default=(0.0, None))[1]

    def _covers(self, file: int, head: ChainHead) -> bool:
        """Return whether the file held the lines of the head's writer.

        A head with `at` 0 comes from another line of the file. For other heads the file's times must include `at`.
        """
        if head.at == 0:
            return True
        oldest, newest = map(stamp, self._evidence.logs[file].times or ("", ""))
        return oldest is not None and newest is not None and oldest <= head.at <= newest

    def _is_older(self, file: int, head: ChainHead) -> bool:
        """Return whether the file was there when the head was kept, and no earlier file had its name."""
        oldest = stamp((self._evidence.logs[file].times or ("", ""))[0])
        return self._complete and oldest is not None and 0 < oldest <= head.at

    def _judge_repeats(self) -> None:
        copies = Counter(held.file for held, same in self._chains.repeats if same)
        for held, same in self._chains.repeats:
            log = self._evidence.logs[held.file]
            if not same:
                writer = self._chains.writers[held.link.writer]
                if held.link.seq < writer.first:
                    text = (
                        f"{writer.about()}: number {held.link.seq} is not proved, because lines after it are "
                        "missing"
                    )
                    self._evidence.note(held.file, held.row, text)
                else:
                    text = f"{writer.about()} wrote another line as number {held.link.seq}"
                    self._evidence.find(Damage.INSERTED, held.file, held.row, text)
            elif not self._is_a_copy(held.file, copies[held.file]):
                self._evidence.find(
                    Damage.INSERTED, held.file, held.row, "is a copy of a line that is elsewhere in the log"
                )
            else:
                log.kinds[held.row] = Piece.NAMED
        for file, number in copies.items():
            if self._is_a_copy(file, number):
                self._copies.add(file)
                self._evidence.note(file, 0, f"{number} lines of this file are in another one as well")

    def _is_a_copy(self, file: int, copies: int) -> bool:
        """Return whether a person copied the lines of this file; a single one beside others was put in."""
        log = self._evidence.logs[file]
        return copies * 2 >= len(log.numbers) and not (copies == 1 and log.homes.names)

    def _judge_broken(self) -> None:
        """Note torn lines of a full disk or of a killed writer, and report all other broken pieces as findings."""
        for torn in reversed(self._chains.broken):
            torn.excused = torn.excused or (torn.behind is not None and torn.behind.excused)
        for torn in self._chains.broken:
            log = self._evidence.logs[torn.file]
            if log.kinds[torn.row] == Piece.PREFIX:
                if not log.prefixed:
                    self._evidence.find(Damage.EDITED, torn.file, torn.row, "has text in front of its record")
            elif torn.excused or (torn.is_beginning and not torn.text.endswith(b"}")):
                text = "is the beginning of a line: its writer was killed, or the disk was full"
                self._evidence.note(torn.file, torn.row, text)
            else:
                self._evidence.find(
                    Damage.INSERTED, torn.file, torn.row, "is not a valid line, and no writer wrote one here"
                )

    def _note_writer(self, writer: WriterChain, text: str) -> None:
        assert writer.newest is not None  # noqa: S101 - the writer has lines
        self._evidence.note(writer.newest.file, writer.newest.row, f"{writer.about()}: {text}")


def _may_be_of(part: str, broken: TornPiece) -> bool:
    named = _PART.search(broken.text)
    return named is None or named[1].decode() == part


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Return files sorted by the time of their first record; equal times are sorted by the record's number."""
    return sorted(paths, key=_began)


def _began(path: Path) -> tuple[str, int, str]:
    for count, piece in enumerate(read_pieces(LogText(path))):
        time = _TIME.match(piece.text)
        if time is not None or count > _LOOK:
            link = piece.link
            return time[1].decode() if time is not None else "", link.seq if link is not None else -1, path.name
    return "", -1, path.name


def verify(
    paths: Sequence[Path], *, heads: Iterable[ChainHead] = (), key: bytes | None = None, complete: bool = True
) -> Verified:
    """Verify these files, which are sorted by their beginning. Raises OperatorError."""
    evidence = Evidence()
    chains = ChainReader(evidence, heads, key)
    for path in paths:
        chains.read(path)
    return Verifier(evidence, chains, complete=complete).finish()


def _numbers(first: int, last: int) -> str:
    return f"number {first} is" if first == last else f"numbers {first} to {last} are"
