# SPDX-License-Identifier: Apache-2.0
"""What `audit verify` says of logs. Random edits and honest logs by the thousand: tests/fuzz/audit.py."""

import gzip
import json
import os
import random
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from bridge.audit.evidence import Damage
from bridge.audit.verify import in_order, verify
from bridge.cli.app import main
from bridge.core.audit import AuditEvent, AuditRecord, ChainHead, key_name, read_head, read_link
from bridge.core.errors import ConfigError
from bridge.journal import migrate
from bridge.journal.audit_heads import AuditHeads
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from bridge.journal.tables import audit_heads
from bridge.runtime.audit import StreamAudit
from bridge.runtime.audit_heads import AuditProof, read_key
from tests.fuzz.audit import Tally, edited_logs, honest_logs
from tests.lab.audit_logs import HonestLogs, read, write


def record(number: int) -> AuditRecord:
    """A record."""
    return AuditRecord(event=AuditEvent.CLOSED, at=1795348580.0 + number, volume=f"v{number}", outcome="resized")


def written(path: Path, count: int = 6, *, part: str = "engine", proof: AuditProof | None = None) -> StreamAudit:
    """A log with that many lines."""
    log = StreamAudit(part, str(path), proof=proof)
    for number in range(count):
        log.write(record(number))
    return log


def kinds(path: Path, *heads: ChainHead, key: bytes | None = None) -> list[tuple[Damage, int]]:
    """Findings: kind and line."""
    return [(f.kind, f.line) for f in verify([path], heads=heads, key=key).findings]


def test_no_honest_log_is_accused_and_each_random_edit_is_named_with_its_line() -> None:
    tally = Tally()
    for seed in range(12):
        honest_logs(seed, tally)
    for seed in range(3):
        edited_logs(seed, tally)
    assert tally.accused == []
    assert tally.missed == []
    assert tally.named.total() > 30


def test_an_outcome_that_is_rewritten_is_named(tmp_path: Path) -> None:
    """Before, each `resized` rewritten to `already`, or all lines of a volume deleted, went unseen."""
    path = tmp_path / "audit.log"
    written(path)
    lines = read(path)
    write(path, [line.replace(b"resized", b"already") for line in lines])
    assert kinds(path)[1:] == [(Damage.EDITED, n) for n in range(2, 7)]
    write(path, [line for line in lines if b'"v2"' not in line])
    assert kinds(path) == [(Damage.REMOVED, 3)]


def test_lines_cut_off_are_named_by_a_head_kept_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    kept: list[ChainHead] = []
    log = written(path, proof=AuditProof(keep=kept.append, every=0.01))
    log.close()
    assert (kept[-1].seq, kept[-1].final) == (5, True)
    assert read_head(f"2026-11-27 INFO bridge.runtime.audit {kept[-1].to_text()}") == kept[-1]
    assert kinds(path, *kept) == []
    write(path, read(path)[:4])
    assert kinds(path, *kept) == [(Damage.CUT_OFF, 4)]
    assert "did not end in order" in verify([path]).notes[0].text


def test_a_head_a_second_costs_one_row_a_minute(tmp_path: Path) -> None:
    """The row moves with the newest line; the row of a file that was rotated stays, and a lost row comes again."""
    database = Database(JournalSettings(connection=f"sqlite:///{tmp_path / 'journal.sqlite3'}"))
    migrate.upgrade(database)
    heads = AuditHeads(database)

    def keep(seq: int, at: float, file: str = "a", *, final: bool = False) -> list[tuple[int, str, bool]]:
        head = ChainHead(
            writer="f" * 16, seq=seq, hash=f"{seq:032x}", part="api", host="h", file=file, at=at, offset=seq,
            final=final,
        )  # fmt: skip
        heads.keep(head)
        return sorted((head.seq, head.file, head.final) for head in heads.all())

    assert keep(0, 100.0) == [(0, "a", False)]
    assert keep(7, 101.0) == [(7, "a", False)]
    assert keep(8, 161.0) == [(7, "a", False), (8, "a", False)]
    assert keep(9, 162.0, "b") == [(7, "a", False), (8, "a", False), (9, "b", False)]
    database.write(lambda connection: connection.execute(sa.delete(audit_heads)))
    assert keep(11, 163.0, "b") == [(11, "b", False)]
    assert keep(11, 163.0, "b", final=True) == [(11, "b", True)]
    assert heads.all()[0].offset == 11
    database.dispose()


def test_a_chain_that_was_computed_anew_differs_from_the_head_kept_elsewhere(tmp_path: Path) -> None:
    """Without a key whoever can write the file can make a chain that fits in itself."""
    path = tmp_path / "audit.log"
    kept: list[ChainHead] = []
    log = written(path, proof=AuditProof(keep=kept.append, every=0.01))
    log.close()
    writer = log._writer.chain.writer
    forged = StreamAudit("engine", str(tmp_path / "forged"))
    forged._writer.chain.__init__(writer)  # type: ignore[misc]
    for number in (0, 1, 2, 9, 4, 5):
        forged.write(record(number))
    assert kinds(tmp_path / "forged") == []
    assert {kind for kind, _ in kinds(tmp_path / "forged", *kept)} == {Damage.EDITED}


def test_with_a_key_only_who_has_it_can_write_lines(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    written(path, proof=AuditProof(key=b"k" * 32))
    assert kinds(path, key=b"k" * 32) == []
    wrong = verify([path], key=b"x" * 32)
    assert (wrong.findings, wrong.proved) == ([], 0)
    assert any("another key file" in note.text for note in wrong.notes)
    link = read_link(read(path)[0].rstrip())
    assert link is not None
    assert link.opened("key") == key_name(b"k" * 32)


def test_a_line_without_a_chain_is_0_1_0s_where_it_always_stood_and_inserted_where_it_was_put_later(
    tmp_path: Path,
) -> None:
    path = tmp_path / "audit.log"
    log = written(path, 3)
    with path.open("ab") as file:
        file.write(f"{record(3).to_line('listener')}\n".encode())
    log.write(record(4))
    log.write(record(5))
    assert kinds(path) == []
    lines = read(path)
    write(path, [*lines[:2], f"{record(9).to_line('engine')}\n".encode(), *lines[2:]])
    assert kinds(path) == [(Damage.INSERTED, 3)]
    write(path, [line for line in lines if b"listener" not in line])
    assert kinds(path) == [(Damage.REMOVED, 4)]


def test_lines_of_two_writers_that_changed_places_are_named(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    logs = [StreamAudit(part, str(path)) for part in ("api", "engine")]
    for number in range(6):
        logs[number % 2].write(record(0))
    lines = read(path)
    lines[2], lines[3] = lines[3], lines[2]
    write(path, lines)
    assert [kind for kind, _ in kinds(path)] == [Damage.REORDERED]


def test_a_killed_writer_is_no_tampering_and_its_successor_names_its_last_line(tmp_path: Path) -> None:
    """SIGKILL in the middle of writing, several times; then the end of what the first one wrote is cut off."""
    path = tmp_path / "audit.log"
    code = (
        "from bridge.runtime.audit import StreamAudit; from tests.unit.audit.test_verify import record\n"
        f"log = StreamAudit('engine', {str(path)!r})\n"
        "for n in range(10**9): log.write(record(n), record(n))\n"
    )
    for _ in range(3):
        before = path.stat().st_size if path.exists() else 0
        process = subprocess.Popen([sys.executable, "-c", code])
        deadline = time.monotonic() + 60
        while (not path.exists() or path.stat().st_size < before + 20_000) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        process.wait()
    made = verify([path])
    assert made.findings == []
    assert made.writers == 3
    lines = read(path)
    first = next(n for n, line in enumerate(lines) if n and b'"opens"' in line)
    write(path, lines[: first - 1] + lines[first:])
    assert (Damage.CUT_OFF, first - 1) in kinds(path)


def test_a_full_disk_loses_lines_and_says_so_in_the_chain(tmp_path: Path) -> None:
    logs = HonestLogs(tmp_path, random.Random(1))
    logs.run(30, {"full": 0.5})
    made = verify(in_order(logs.files()))
    assert made.findings == []
    assert any(b'"lost":' in line for line in read(tmp_path / "audit.log"))


def test_rotation_and_packing_keep_the_chain_and_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    logs = HonestLogs(tmp_path, random.Random(2))
    for _ in range(4):
        logs.run(20, {})
        logs.rotate()
        for log in logs._writers.values():
            log._looked = float("-inf")
    logs.run(20, {})
    logs.pack()
    logs.stop()
    files = in_order(logs.files())
    assert [path.suffix for path in files[:2]] == [".gz", ".gz"]
    assert verify(files, heads=logs.heads).findings == []
    without = [*files[:1], *files[2:]]
    assert {f.kind for f in verify(without, heads=logs.heads).findings} == {Damage.REMOVED}
    assert verify(without, heads=logs.heads, complete=False).findings == []


def test_the_journal_keeps_heads_and_the_command_compares_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'journal.sqlite3'}"
    database = Database(JournalSettings(connection=url))
    migrate.upgrade(database)
    path = tmp_path / "audit.log"
    log = written(path, proof=AuditProof(keep=AuditHeads(database).keep, every=0.01))
    log.close()
    assert [head.final for head in AuditHeads(database).all()][-1]
    database.dispose()
    conf = tmp_path / "bridge.conf"
    conf.write_text(f"[audit]\nfile = {path}\n[journal]\nconnection = {url}\n")
    assert main(["audit", "verify", "--config-file", str(conf)]) == 0
    write(path, read(path)[:-1])
    capsys.readouterr()
    assert main(["audit", "verify", "-f", "json", "--config-file", str(conf)]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)[0]["Kind"] == "cut off"
    assert "5 proved" in said.err
    assert main(["audit", "check", "--config-file", str(conf)]) == 1
    assert f"cut off: {path}:5" in capsys.readouterr().out


@pytest.mark.parametrize("mask", [0, 0o077])
def test_the_mode_of_the_log_is_ours_whatever_the_umask_is(tmp_path: Path, mask: int) -> None:
    path, old = tmp_path / "audit.log", tmp_path / "old.log"
    before = os.umask(mask)
    try:
        written(path)
        old.touch(0o666)
        old.chmod(0o666)
        written(old)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE(old.stat().st_mode) == 0o640


def test_a_link_in_the_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "audit.log").symlink_to(target)
    with pytest.raises(ConfigError, match="symbolic link"):
        written(tmp_path / "audit.log")
    assert not target.exists()


def test_a_key_that_others_can_read_or_that_is_short_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef0123456789abcdef\n")
    key.chmod(0o600)
    assert read_key(str(key)) == b"0123456789abcdef0123456789abcdef"
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="others cannot read"):
        read_key(str(key))
    key.chmod(0o600)
    key.write_bytes(b"short")
    with pytest.raises(ConfigError, match="16"):
        read_key(str(key))


def test_a_packed_file_that_is_cut_short_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "audit.log.gz"
    written(tmp_path / "audit.log", 200)
    path.write_bytes(gzip.compress((tmp_path / "audit.log").read_bytes())[:-200])
    assert any("cut short" in note.text for note in verify([path]).notes)


def test_a_file_of_a_log_that_is_gone_is_named_by_the_heads_of_its_writers(tmp_path: Path) -> None:
    """Lines of a process that lived in this one file alone leave no gap in another writer's numbers."""
    path = tmp_path / "audit.log"
    kept: list[ChainHead] = []

    def lived(at: float) -> None:
        log = StreamAudit("api", str(path), proof=AuditProof(keep=kept.append, every=0.01))
        log.write(AuditRecord(event=AuditEvent.ACCEPTED, at=at, volume="v"))
        log.close()

    for number, at in enumerate((1000.0, 2000.0, 3000.0)):
        lived(at)
        if number < 2:
            path.rename(tmp_path / f"audit.log.{number}")
    files = [tmp_path / "audit.log.0", tmp_path / "audit.log.1", path]
    assert verify(files, heads=kept).findings == []
    named = verify([files[0], path], heads=kept).findings
    assert [(f.kind, f.file, f.line) for f in named] == [(Damage.REMOVED, str(files[0]), 1)]
    assert verify(files[1:], heads=kept).findings == []  # the oldest was deleted
    assert verify([files[0], path], heads=kept, complete=False).findings == []  # files named one by one


def rotated(tmp_path: Path, *counts: int) -> list[Path]:
    """Files of one writer, oldest first, with that many lines each."""
    path, number = tmp_path / "audit.log", 0
    files: list[Path] = []
    log = StreamAudit("engine", str(path))
    for count in counts:
        for _ in range(count):
            log.write(record(number))
            number += 1
        files.append(path.rename(tmp_path / f"audit.log.{len(files)}"))
        log._looked = float("-inf")
    log.close()
    return files


def found(files: list[Path]) -> list[tuple[Damage, str, int]]:
    """Findings: kind, file and line."""
    return [(f.kind, Path(f.file).name, f.line) for f in verify(files).findings]


def test_a_late_line_in_front_of_a_log_hides_no_edit_of_the_lines_after_it(tmp_path: Path) -> None:
    first, second, third = rotated(tmp_path, 5, 5, 5)
    assert found([first, second, third]) == []
    lines = read(first)
    lines[2] = lines[2].replace(b"resized", b"already")
    write(first, [read(third)[0], *lines])
    assert found([first, second, third]) == [
        (Damage.INSERTED, "audit.log.0", 1),
        (Damage.EDITED, "audit.log.0", 4),
    ]


def test_an_edited_copy_of_a_file_does_not_pass_for_a_copy(tmp_path: Path) -> None:
    (first,) = rotated(tmp_path, 6)
    copy = tmp_path / "copy"
    lines = read(first)
    write(copy, lines)
    assert found([first, copy]) == []
    write(copy, [*lines[:3], lines[3].replace(b"resized", b"already"), *lines[4:]])
    assert (Damage.INSERTED, "copy", 4) in found([first, copy])


def test_the_only_line_of_a_file_is_named_there_however_it_was_edited(tmp_path: Path) -> None:
    first, second, third = rotated(tmp_path, 4, 1, 4)
    (line,) = read(second)
    for edited in (line[:90] + b"\n", line.replace(b'"chain"', b'"chaim"'), line.replace(b"resized", b"already")):
        write(second, [edited])
        assert (Damage.EDITED, "audit.log.1", 1) in found([first, second, third]), edited
    write(second, [line])
    lines = read(first)
    write(first, [*lines[:2], line, *lines[2:]])
    assert found([first, second, third]) == [(Damage.INSERTED, "audit.log.0", 3)]
