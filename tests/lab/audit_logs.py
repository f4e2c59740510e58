# SPDX-License-Identifier: Apache-2.0
"""Audit logs for tests: honest ones, with everything that happens to logs, and random edits of them."""

import gzip
import math
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from bridge.core.audit import AuditEvent, AuditRecord, ChainHead
from bridge.runtime.audit import StreamAudit
from bridge.runtime.audit_heads import AuditProof

PARTS: Final = ("listener", "api", "engine")


@dataclass
class HonestLogs:
    """A directory with the logs of one installation. `heads`: what was kept elsewhere meanwhile."""

    directory: Path
    rng: random.Random
    key: bytes | None = None
    shared: bool = True
    heads: list[ChainHead] = field(default_factory=list)
    _at: float = 1_764_000_000.0
    _writers: dict[str, StreamAudit] = field(default_factory=dict)
    _rotations: int = 0
    _rotated: float = 0.0
    _kept: float = 0.0

    def path(self, part: str) -> Path:
        """The log a part writes to."""
        return self.directory / ("audit.log" if self.shared else f"{part}.audit.log")

    def files(self) -> list[Path]:
        """All files, packed ones as well."""
        return sorted(self.directory.iterdir())

    def run(self, steps: int, odds: Mapping[str, float]) -> None:
        """Write that many times; `odds` of each thing that may happen in between."""
        happenings: dict[str, Callable[[], None]] = {
            "kill": self.kill, "tear": self.tear, "rotate": self.rotate, "pack": self.pack, "old": self.old_line,
            "full": self.full_disk, "keep": self.keep, "stop": self.stop_one,
        }  # fmt: skip
        for _ in range(steps):
            self.write(self.rng.choice(PARTS))
            for name, odd in odds.items():
                if self.rng.random() < odd:
                    happenings[name]()

    def write(self, part: str) -> None:
        """One to four lines in one write. A second after a rotation all look; heads are kept each second."""
        if self._at - self._rotated > 1:
            for log in self._writers.values():
                log._looked = float("-inf")
            self._rotated = math.inf
        self.writer(part).write(*self.records(self.rng.choice([1, 1, 1, 2, 4])))
        if self._at - self._kept > 1:
            self.keep()
            self._kept = self._at

    def writer(self, part: str) -> StreamAudit:
        """The living writer of a part."""
        if part not in self._writers:
            self._writers[part] = StreamAudit(part, str(self.path(part)), proof=AuditProof(key=self.key))
        return self._writers[part]

    def records(self, count: int) -> list[AuditRecord]:
        """That many records of one moment."""
        self._at += self.rng.random()
        volume = f"{self.rng.getrandbits(128):032x}"
        return [
            AuditRecord(
                event=self.rng.choice(list(AuditEvent)),
                at=self._at,
                volume=volume,
                server=f"{n:036d}",
                reason=self.rng.choice(["size_reached", None, "a\u00e9\ud800"]),
                data={"n": self.rng.randrange(9**9)},
            )
            for n in range(count)
        ]

    def kill(self) -> None:
        """A writer is gone; its successor comes with its next line."""
        self._writers.pop(self.rng.choice(PARTS), None)

    def stop_one(self) -> None:
        """A writer ends in order."""
        log = self._writers.pop(self.rng.choice(PARTS), None)
        if log is not None:
            self._keep(log, final=True)

    def stop(self) -> None:
        """All end in order."""
        for log in self._writers.values():
            self._keep(log, final=True)
        self._writers.clear()

    def keep(self) -> None:
        """Each head is kept elsewhere."""
        for log in self._writers.values():
            self._keep(log, final=False)

    def _keep(self, log: StreamAudit, *, final: bool) -> None:
        head = log._writer.head(final=final)
        if head is not None:
            self.heads.append(head)

    def tear(self) -> None:
        """A writer is killed in the middle of its write."""
        part = self.rng.choice(PARTS)
        if (log := self._writers.pop(part, None)) is not None and log._fd is not None:
            line = log._writer.chain.link([self.records(1)[0].to_line(part)])[0][0]
            os.write(log._fd, line[: self.rng.randrange(1, len(line))])

    def full_disk(self) -> None:
        """A write ends in the middle; the lines behind it are lost."""
        log = self.writer(self.rng.choice(PARTS))
        put = log._put

        def cut(fd: int | None, data: bytes) -> int:
            return put(fd, data[: self.rng.randrange(len(data))])

        log._put = cut  # type: ignore[method-assign]
        log.write(*self.records(self.rng.choice([1, 3])))
        del log._put

    def rotate(self) -> None:
        """As logrotate does: moved away; each writer looks soon."""
        self._rotations += 1
        self._rotated = self._at
        for path in {self.path(part) for part in PARTS}:
            if path.exists():
                path.rename(path.with_name(f"{path.name}-2026{self._rotations:04d}"))
        for log in self._writers.values():
            if self.rng.random() < 0.8:
                log._looked = float("-inf")

    def pack(self) -> None:
        """As logrotate does with older files, when each writer has looked for a while."""
        for log in self._writers.values():
            log._looked = float("-inf")
        for path in sorted(self.directory.glob("*-2026????"))[:-1]:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()

    def old_line(self) -> None:
        """A part that still runs 0.1.0 writes to the same file."""
        part = self.rng.choice(PARTS)
        with self.path(part).open("ab") as file:
            file.write(f"{self.records(1)[0].to_line(part)}\n".encode())


def read(path: Path) -> list[bytes]:
    """The lines of a file, packed or not, with their newlines."""
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines(keepends=True)


def write(path: Path, lines: list[bytes]) -> None:
    """Put lines back."""
    data = b"".join(lines)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


class LogEdit(NamedTuple):
    """One random change of a file: its name, the line (from 1) at which it can be seen, and if it was made."""

    kind: str
    line: int
    made: bool = True


def random_edit(rng: random.Random, lines: list[bytes], other: list[bytes]) -> LogEdit:
    """Change one thing of a file; `other` are lines of any file."""
    at = rng.randrange(len(lines))
    kind = rng.choice(sorted(EDITS))
    return LogEdit(kind, at + 1, EDITS[kind](rng, lines, at, other))


def _replace(lines: list[bytes], at: int, line: bytes) -> bool:
    changed = lines[at] != line
    lines[at] = line
    return changed


def _byte(rng: random.Random, lines: list[bytes], at: int, _: list[bytes]) -> bool:
    line, place = lines[at], rng.randrange(len(lines[at]) - 1)
    return _replace(lines, at, line[:place] + bytes([line[place] ^ (1 << rng.randrange(7))]) + line[place + 1 :])


def _value(rng: random.Random, lines: list[bytes], at: int, _: list[bytes]) -> bool:
    word = rng.choice([b"closed", b"size_reached", b"engine", b'"event":"', b"server", b'"chain"'])
    return _replace(lines, at, lines[at].replace(word, b"x" + word[:-1], 1))


def _digit(rng: random.Random, lines: list[bytes], at: int, _: list[bytes]) -> bool:
    line = lines[at]
    place = rng.choice([n for n, c in enumerate(line) if chr(c).isdigit()] or [0])
    return _replace(lines, at, line[:place] + str((line[place] - 47) % 10).encode() + line[place + 1 :])


def _remove(rng: random.Random, lines: list[bytes], at: int, _: list[bytes]) -> bool:
    del lines[at : at + rng.choice([1, 1, 2, 8])]
    return True


def _tail(_: random.Random, lines: list[bytes], at: int, __: list[bytes]) -> bool:
    del lines[at:]
    return True


def _swap(rng: random.Random, lines: list[bytes], at: int, _: list[bytes]) -> bool:
    two = rng.randrange(len(lines))
    lines[at], lines[two] = lines[two], lines[at]
    return lines[at] != lines[two]


def _move(rng: random.Random, lines: list[bytes], at: int, _: list[bytes]) -> bool:
    two = rng.randrange(len(lines))
    lines.insert(two, lines.pop(at))
    return two != at


def _copy(rng: random.Random, lines: list[bytes], at: int, other: list[bytes]) -> bool:
    lines.insert(at, rng.choice(other))
    return True


def _forge(_: random.Random, lines: list[bytes], at: int, __: list[bytes]) -> bool:
    lines.insert(at, lines[at].replace(b'"event":"', b'"event":"x'))
    return True


def _foreign(_: random.Random, lines: list[bytes], at: int, __: list[bytes]) -> bool:
    lines.insert(at, b"no record of ours\n")
    return True


def _without_chain(_: random.Random, lines: list[bytes], at: int, __: list[bytes]) -> bool:
    begin = lines[at].find(b',"chain"')
    lines.insert(at, lines[at][:begin] + b"}\n" if begin > 0 else lines[at])
    return True


def _cut(rng: random.Random, lines: list[bytes], at: int, _: list[bytes]) -> bool:
    return _replace(lines, at, lines[at][: rng.randrange(1, len(lines[at]) - 1)] + b"\n")


def _glue(_: random.Random, lines: list[bytes], at: int, __: list[bytes]) -> bool:
    return _replace(lines, at, lines[at].removesuffix(b"\n"))


def _split(rng: random.Random, lines: list[bytes], at: int, _: list[bytes]) -> bool:
    place = rng.randrange(1, len(lines[at]) - 1)
    return _replace(lines, at, lines[at][:place] + b"\n" + lines[at][place:])


EDITS: Final[Mapping[str, Callable[[random.Random, list[bytes], int, list[bytes]], bool]]] = {
    "byte": _byte, "value": _value, "digit": _digit, "remove": _remove, "tail": _tail, "swap": _swap, "move": _move,
    "copy": _copy, "forge": _forge, "foreign": _foreign, "old": _without_chain, "cut": _cut, "glue": _glue,
    "split": _split,
}  # fmt: skip
AT_A_LINE: Final = frozenset({"byte", "value", "digit", "forge", "foreign", "old", "cut", "glue", "split"})
"""Edits that a finding has to name at the very line, or at the next one."""
