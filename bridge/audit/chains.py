# SPDX-License-Identifier: Apache-2.0
"""The chain of each writer, followed from line to line. The lines may be in any order.

A missing line holds back the later lines. The later lines are released when the missing line is read from another
place. The missing line is judged as removed when all files are read. A line that does not fit the chain is judged
as edited when the later lines fit its hash.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bridge.audit.evidence import Damage, Evidence
from bridge.audit.logtext import LogPiece, LogText, Piece, read_pieces
from bridge.audit.writer_chain import DIGEST, HELD, HeldLine, WriterChain
from bridge.core.audit import ChainHead, ChainLink, key_name, link_hash

_SUSPECT: Final = 8  # later lines after which a line that does not fit is judged as edited
_PART: Final = re.compile(rb'"part":"([a-z0-9_-]+)"')
_RECORD: Final = re.compile(rb'\{"schema":\d+,"time":"\d')
_BEGINNING: Final = b'{"schema":1,"time":"'
_EXCERPT: Final = 4096


@dataclass(slots=True)
class TornPiece:
    """A piece that is not a whole record.

    `excused`: the piece has no newline, or the next line is of a writer that lost lines. `behind`: the next torn
    piece.
    """

    file: int
    row: int
    text: bytes
    excused: bool
    behind: "TornPiece | None" = None

    @property
    def is_beginning(self) -> bool:
        """True when the text is the beginning of a record."""
        return _RECORD.match(self.text) is not None or _BEGINNING.startswith(self.text)


@dataclass(slots=True)
class ChainGap:
    """A gap in a writer's lines: the numbers `first` to `last` are missing."""

    writer: "WriterChain"
    first: int
    last: int
    before: HeldLine | None
    after: HeldLine | None
    unverified: bool


class ChainReader:
    """The reader of all chains in the files.

    `gaps`: missing numbers. `strays`: lines that do not belong to a chain. `repeats`: lines whose number is already
    used, with True for a copy of the same line. `broken`: pieces that are not a whole record.
    """

    def __init__(self, evidence: Evidence, heads: Iterable[ChainHead], key: bytes | None) -> None:
        self.key_name = key_name(key)
        self.writers: dict[str, WriterChain] = {}
        self.heads: defaultdict[str, dict[int, ChainHead]] = defaultdict(dict)
        self.gaps: list[ChainGap] = []
        self.strays: list[HeldLine] = []
        self.repeats: list[tuple[HeldLine, bool]] = []
        self.broken: list[TornPiece] = []
        self._evidence = evidence
        self._keys: tuple[bytes | None, ...] = (None,) if key is None else (key, None)
        for head in heads:
            kept = self.heads[head.writer].get(head.seq)
            if kept is None or head.final or kept.offset is None:
                self.heads[head.writer][head.seq] = head

    def read(self, path: Path) -> None:
        """Read one file. Older files must be read first."""
        log, file = LogText(path), len(self._evidence.logs)
        self._evidence.logs.append(log)
        torn: TornPiece | None = None
        last: LogPiece | None = None
        for piece in read_pieces(log):
            before, torn = torn, None
            if before is not None:
                before.excused = before.excused or (piece.link is not None and piece.link.lost > 0)
            if piece.kind is Piece.LINKED:
                self._linked(file, piece)
            elif piece.kind is Piece.BROKEN or (piece.kind is Piece.PREFIX and not log.prefixed):
                torn = TornPiece(file, piece.row, _excerpt(piece.text), not piece.ended)
                self.broken.append(torn)
                if before is not None:
                    before.behind = torn
            self._evidence.result.lines += piece.kind in {Piece.LINKED, Piece.PLAIN}
            self._evidence.result.plain += piece.kind is Piece.PLAIN
            last = piece
        if last is not None and last.link is not None and not last.ended:
            self._evidence.note(file, last.row, "has no newline at its end")
        if len(log.numbers) and not log.homes.names and all(kind != Piece.LINKED for kind in log.kinds):
            self._evidence.note(file, 0, "no line of this file has a chain, so changes cannot be detected")
        if log.damaged:
            self._evidence.note(
                file, len(log.numbers) - 1, "the compressed file is cut short or damaged after this line"
            )

    def _linked(self, file: int, piece: LogPiece) -> None:
        link = piece.link
        assert link is not None  # noqa: S101 - a LINKED piece has a link
        held = HeldLine(file, piece.row, piece.number, link)
        writer = self.writers.get(link.writer)
        if writer is None:
            writer = self.writers[link.writer] = WriterChain(link.writer)
            writer.heads = self.heads.get(link.writer, {})
            part = _PART.search(piece.text)
            writer.part = part[1].decode() if part else "?"
        if link.opens is not None:
            writer.claimed = link.opened("key")
            writer.host = link.opened("host")
        if writer.next is not None and link.seq < writer.first and writer.late is not None:
            self._begin_again(writer)
        if writer.next is None and (link.seq == 0 or (link.opened("after") and not writer.ahead)):
            self._begin(writer, link)
        self._take(writer, held)

    def _begin(self, writer: WriterChain, link: ChainLink) -> None:
        writer.next = writer.first = link.seq
        writer.before = link.opened("after") or link.writer
        writer.late = [] if link.seq else None

    def _begin_again(self, writer: WriterChain) -> None:
        """Hold back the accepted lines, because a line with a smaller number than the first one was read.

        A copy of a late opening line in front of a log must not leave the lines after it without a judgement.
        """
        for held in writer.late or ():
            writer.ahead.setdefault(held.link.seq, []).append(held)
            writer.held += 1
        self._evidence.result.proved -= writer.proved
        writer.next = writer.before = writer.instead = writer.newest = writer.late = None
        writer.first, writer.proved, writer.proved_to = 0, 0, -1
        writer.digests.clear()
        writer.backward.clear()
        writer.files.clear()
        writer.rows.clear()
        writer.write.clear()

    def _take(self, writer: WriterChain, held: HeldLine) -> None:
        seq = held.link.seq
        if writer.next is not None and seq < writer.next:
            self._repeated(writer, held)
            return
        if writer.next == seq and not writer.ahead and self._fits(writer, held):
            self._accept(writer, held)
            return
        writer.ahead.setdefault(seq, []).append(held)
        writer.held += 1
        self._drain(writer)
        if writer.held > HELD:
            self._skip(writer)
            self._drain(writer)

    def _repeated(self, writer: WriterChain, held: HeldLine) -> None:
        """Take a line whose number is used. Its own text must fit its hash, which may have been left as it was."""
        seq = held.link.seq
        same = writer.digest(seq) == held.link.hash
        if same and writer.decided and (before := writer.digest(seq - 1)):
            same = held.link.follows(before, writer.key)
        elsewhere = writer.backward.pop(seq, None) if same else None
        if elsewhere is not None:
            writer.move(elsewhere, held)
        self.repeats.append((elsewhere or held, same))

    def _fits(self, writer: WriterChain, held: HeldLine) -> bool:
        """Return whether a line is the next line of the chain.

        The hash decides once the key is known. Until then the line is accepted and kept as doubtful.
        """
        before = writer.before
        if before is None:
            return True  # the previous line is missing, which is a finding of its own
        if writer.decided:
            return held.link.follows(before, writer.key) or (
                writer.instead is not None and held.link.follows(writer.instead, writer.key)
            )
        for key in self._keys:
            if held.link.follows(before, key):
                writer.key, writer.decided = key, True
                self.doubts_are_edits(writer)
                return True
        writer.doubtful.setdefault((held.file, held.row), held)
        return True

    def doubts_are_edits(self, writer: WriterChain) -> None:
        for held in writer.doubtful.values():
            text = f"is not what {writer.about()} wrote as number {held.link.seq}"
            self._evidence.find(Damage.EDITED, held.file, held.row, text)
        writer.doubtful.clear()

    def follows(self, link: ChainLink, before: str) -> bool:
        return any(link.follows(before, key) for key in self._keys)

    def _accept(self, writer: WriterChain, held: HeldLine, *, edited: bool = False) -> None:
        link, log = held.link, self._evidence.logs[held.file]
        proved = writer.before is not None and writer.decided and not edited
        self._evidence.result.proved += proved
        writer.proved += proved
        writer.instead = None
        if edited:
            self._evidence.find(
                Damage.EDITED, held.file, held.row, f"is not what {writer.about()} wrote as number {link.seq}"
            )
            writer.instead = link_hash(writer.before or "", link.body, writer.key)
        if link.offset is not None and writer.write and not edited:
            self._place(writer, link.offset)
        begins_a_write = link.offset is not None or bool(link.opened("file"))
        if begins_a_write:
            writer.write.clear()
        if begins_a_write or writer.write:
            writer.write.append((held.file, held.row))
            if edited:
                writer.write.append((-1, -1))  # later lines of this write have no known place
        writer.put(held)
        if link.opens is not None:
            log.openings.add(held.row)
            writer.files[held.file] = link.opened("file")
            for other, seq, digest in link.seen:
                self._seen(writer, link, other, seq, digest)
        if held.file in writer.files:
            log.homes.put(held.row, f"{writer.host} {writer.files[held.file]}")
        writer.lost += link.lost > 0
        head = writer.heads.get(link.seq)
        if head is not None:
            self._judge_head(writer, held, head)
        writer.advance(held)

    def _place(self, writer: WriterChain, offset: int) -> None:
        """Record the places of the lines in the writer's last write: contiguous, from `offset` on."""
        for file, row in writer.write:
            if file < 0:
                return
            log = self._evidence.logs[file]
            log.written[row] = offset
            offset += log.lengths[row] + 1

    def _seen(self, by: WriterChain, link: ChainLink, other: str, seq: int, digest: str) -> None:
        """Remember a head that an opening line names, in the same way as a head that is kept elsewhere."""
        heads = self.heads[other]
        if seq not in heads:
            heads[seq] = ChainHead(
                writer=other, seq=seq, hash=digest, part="", host=by.host, file=link.opened("file"), at=0.0
            )
        if other in self.writers:
            self.writers[other].heads = heads

    def _drain(self, writer: WriterChain, *, force: bool = False) -> None:
        while writer.next is not None and (found := writer.ahead.get(writer.next)):
            fitting = (one for one in sorted(found, key=_behind(writer)) if self._fits(writer, one))
            held = next(fitting, None)
            if held is None:
                later = sum(map(len, (writer.ahead.get(writer.next + n, ()) for n in range(1, _SUSPECT + 1))))
                if not force and later < _SUSPECT:
                    return
                after = writer.ahead.get(writer.next + 1, ())
                held = next(
                    (one for one in found for two in after if self.follows(two.link, one.link.hash)), found[0]
                )
                self._accept_one_of(writer, found, held, edited=True)
            else:
                self._accept_one_of(writer, found, held, edited=False)

    def _accept_one_of(self, writer: WriterChain, found: list[HeldLine], held: HeldLine, *, edited: bool) -> None:
        writer.held -= len(found)
        del writer.ahead[held.link.seq]
        self._accept(writer, held, edited=edited)
        for other in found:
            if other is not held:
                self._repeated(writer, other)

    def _skip(self, writer: WriterChain) -> None:
        """Continue behind missing numbers and record the gap."""
        seq = min(writer.ahead)
        candidates = writer.ahead[seq]
        after = next((one for one in candidates if one.link.opened("after")), candidates[0])
        start = writer.next if writer.next is not None else 0
        if writer.next is None:
            writer.first = seq
            if after.link.opened("after"):
                writer.next, writer.before = seq, after.link.opened("after")
                return
        else:
            writer.digests += bytes(DIGEST * (seq - start))
        known = self.heads.get(writer.writer, {}).get(seq - 1)
        before = after.link.opened("after") or (known.hash if known is not None else "")
        self.gaps.append(ChainGap(writer, start, seq - 1, writer.newest, after, not before))
        writer.next, writer.before, writer.instead = seq, before or None, None
        writer.write.clear()

    def _drain_all(self, writer: WriterChain) -> None:
        if writer.next is None and writer.held and not self._is_a_chain(writer):
            self.strays += [held for found in writer.ahead.values() for held in found]
            writer.ahead.clear()
            writer.held = 0
        self._drain(writer, force=True)
        while writer.ahead:
            self._skip(writer)
            self._drain(writer, force=True)

    def _is_a_chain(self, writer: WriterChain) -> bool:
        """Return whether two lines of a writer without a first line follow each other.

        An invented writer has no two such lines.
        """
        return any(
            self.follows(two.link, one.link.hash)
            for seq, found in writer.ahead.items()
            for one in found
            for two in writer.ahead.get(seq + 1, ())
        )

    def _judge_head(self, writer: WriterChain, held: HeldLine, head: ChainHead) -> None:
        if head.hash == held.link.hash:
            writer.proved_to = held.link.seq
            if head.offset is not None and head.file == writer.files.get(held.file):
                self._place(writer, head.offset)
        elif not writer.rewritten and not self._evidence.named(held.file, held.row):
            writer.rewritten = True
            self._evidence.find(Damage.EDITED, held.file, held.row, rewritten(writer))

    def finish(self) -> None:
        """Follow all lines that were held back."""
        for writer in list(self.writers.values()):
            self._drain_all(writer)


def _behind(writer: WriterChain) -> Callable[[HeldLine], tuple[bool, int, int]]:
    """Return an order of lines with one number: those that are behind the writer's newest line come first."""
    newest = writer.newest
    file, row = (newest.file, newest.row) if newest is not None else (0, -1)
    return lambda held: ((held.file, held.row) < (file, row), held.file, held.row)


def _excerpt(text: bytes) -> bytes:
    """Return the part of a broken piece that is needed to judge the piece."""
    return text if len(text) <= 2 * _EXCERPT else text[:_EXCERPT] + text[-_EXCERPT:]


def rewritten(writer: WriterChain) -> str:
    return (
        f"{writer.about()}: this line, or one from number {writer.proved_to + 1} on, was rewritten: its hash is "
        "not the stored hash"
    )
