# SPDX-License-Identifier: Apache-2.0
"""Audit logs for tests: honest ones, with everything that happens to logs, and random edits of them."""

import gzip
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bridge.core.audit import AuditEvent, AuditRecord
from bridge.core.audit_chain import ChainHead
from bridge.runtime.audit import AuditProof, StreamAudit

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
        """One to four lines in one write."""
        self.writer(part).write(*self.records(self.rng.choice([1, 1, 1, 2, 4])))

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
                event=self.rng.choice(list(AuditEvent)), at=self._at, volume=volume, server=f"{n:036d}",
                reason=self.rng.choice(["size_reached", None, "a\u00e9\ud800"]), data={"n": self.rng.randrange(9**9)},
            )
            for n in range(count)
        ]  # fmt: skip

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


def random_edit(rng: random.Random, lines: list[bytes], other: list[bytes]) -> tuple[str, int]:
    """Change one thing of a file; its name and the number of the line (from 1) where it can be seen."""
    at = rng.randrange(len(lines))
    kind = rng.choice(["byte", "value", "digit", "remove", "span", "swap", "move", "copy", "forge", "foreign",
                       "tail", "cut", "glue", "split", "old"])  # fmt: skip
    line = lines[at]
    match kind:
        case "byte":
            place = rng.randrange(len(line) - 1)
            lines[at] = line[:place] + bytes([line[place] ^ (1 << rng.randrange(7))]) + line[place + 1 :]
        case "value":
            word = rng.choice([b"closed", b"size_reached", b"engine", b'"event":"', b"server"])
            if word not in line:
                return "nothing", 0
            lines[at] = line.replace(word, b"x" + word[:-1], 1)
        case "digit":
            places = [n for n, c in enumerate(line) if chr(c).isdigit()]
            place = rng.choice(places)
            lines[at] = line[:place] + str((line[place] - 47) % 10).encode() + line[place + 1 :]
        case "remove":
            del lines[at]
        case "span":
            del lines[at : at + rng.randrange(2, 9)]
        case "swap":
            two = rng.randrange(len(lines))
            if lines[at] == lines[two]:
                return "nothing", 0
            lines[at], lines[two] = lines[two], lines[at]
        case "move":
            two = rng.randrange(len(lines))
            if two == at:
                return "nothing", 0
            lines.insert(two, lines.pop(at))
        case "copy":
            lines.insert(rng.randrange(len(lines)), rng.choice(other))
        case "forge":
            lines.insert(at, line.replace(b"2025", b"2024"))
        case "foreign":
            lines.insert(at, b"nothing of ours\n")
        case "old":
            begin = line.find(b',"chain"')
            if begin < 0:
                return "nothing", 0
            lines.insert(at, line[:begin] + b"}\n")
        case "tail":
            del lines[at:]
        case "cut":
            lines[at] = line[: rng.randrange(1, len(line) - 1)] + b"\n"
        case "glue":
            lines[at] = line[:-1]
        case _:
            place = rng.randrange(1, len(line) - 1)
            lines[at] = line[:place] + b"\n" + line[place:]
    return kind, at + 1
