# SPDX-License-Identifier: Apache-2.0
"""A short run of tools/chaos: clean as the code is, and not clean with a bug in it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.audit import logfiles
from tests.conftest import missing
from tests.lab.paths import ROOT
from tests.lab.rabbitmq import have_rabbitmq
from tests.lab.told_story import differences

pytestmark = pytest.mark.functional

HEALED = re.compile(r"lost (\d+) shrunk (\d+) stuck (\d+) healed (\d+) named (\d+) passes \d+ healed_in [\d.]+ s")
LAST_LINE = re.compile(r"lost (\d+) shrunk (\d+) stuck (\d+) parked \d+ duplicates \d+ recovered_in [\d.]+ s")


def chaos(
    *arguments: str, keep: Path, line: re.Pattern[str] = LAST_LINE, seconds: float = 600
) -> tuple[int, list[int], str]:
    """Exit code; the numbers of the last line, lost, shrunk and stuck first; all it said."""
    if not have_rabbitmq():
        missing("RabbitMQ")
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *arguments, "--keep", str(keep)],
        cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False,
    )  # fmt: skip
    last = line.fullmatch(done.stdout.splitlines()[-1]) if done.stdout else None
    assert last is not None, done.stdout + done.stderr
    return done.returncode, [int(number) for number in last.groups()], done.stdout


def assert_told_as_kept(run: Path) -> None:
    """Assert in the long form that the logs tell no other story of any extend than the journal keeps."""
    if not os.environ.get("EXTEND_BRIDGE_GRAY"):
        return
    logs = logfiles.find([str(run / "*.audit.jsonl*")])
    assert list(differences(logs, run / "journal" / "journal.sqlite3", killed=True)) == []


GRAY_LINE = re.compile(
    r"lost (\d+) shrunk (\d+) stuck (\d+) blind (\d+) s parked \d+ duplicates \d+ restarts (\d+) "
    r"recovered_in [\d.]+ s"
)
LONG = pytest.mark.skipif(not os.environ.get("EXTEND_BRIDGE_GRAY"), reason="the long form: tools/test --long chaos")


def test_a_rolling_restart_of_every_part_loses_nothing(tmp_path: Path) -> None:
    """Every process of the bridge is told to end in turn, under load, and started again: all extends arrive."""
    code, numbers, said = chaos("--events", "300", "--rolling", "--spread", "30", keep=tmp_path / "run")
    assert (code, numbers) == (0, [0, 0, 0]), said
    assert "faults: 9 restart" in said, said
    assert "ended by themselves" not in said, said
    assert "grace time" not in said, said
    assert "NOT DONE" not in said, said
    assert_told_as_kept(tmp_path / "run")


def test_a_planted_loss_is_found(tmp_path: Path) -> None:
    """An engine that trusts its casts: a chaos that calls this clean proves nothing."""
    code, numbers, said = chaos(
        "--events", "200", "--kills", "8", "--spread", "20", "--patience", "60", "--break", "cast-only",
        keep=tmp_path / "run",
    )  # fmt: skip
    assert code == 1, said
    assert sum(numbers) > 0, said


def test_after_a_weekend_without_hosts_one_pass_heals_every_guest_or_names_it(tmp_path: Path) -> None:
    """Half of what happened was told to nobody; one host stays off, one never had an agent."""
    code, numbers, said = chaos(
        "--events", "60", "--fault", "weekend", "--spread", "4", keep=tmp_path / "run", line=HEALED
    )
    assert (code, numbers[:3]) == (0, [0, 0, 0]), said
    assert numbers[3] > 0, said
    assert numbers[4] > 1, said
    assert "host_down" in said, said
    assert "1 no_agent" in said, said
    assert_told_as_kept(tmp_path / "run")


def test_a_reconciliation_that_sees_nothing_is_found(tmp_path: Path) -> None:
    """Without notifications nothing else would heal these guests."""
    code, numbers, said = chaos(
        "--events", "30", "--fault", "no-notifications", "--spread", "2", "--patience", "2", "--break", "blind",
        keep=tmp_path / "run", line=HEALED,
    )  # fmt: skip
    assert (code, numbers[3]) == (1, 0), said
    assert numbers[0] > 0, said


def test_beside_a_nova_that_loses_casts_it_is_told_again_until_the_size_is_read_back(tmp_path: Path) -> None:
    """The agents touch nothing; guests of a host Nova never gets to are named."""
    code, numbers, said = chaos(
        "--events", "40", "--fault", "nova-loses-casts", "--spread", "2", keep=tmp_path / "run", line=HEALED
    )
    assert (code, numbers[:3]) == (0, [0, 0, 0]), said
    assert numbers[3] > 0, said
    assert "nova_not_there" in said, said
    assert_told_as_kept(tmp_path / "run")


def test_frozen_connections_are_replaced_and_no_second_is_blind(tmp_path: Path) -> None:
    """Those over which Cinder's notifications come: open, and nothing moves on them any more."""
    code, numbers, said = chaos(
        "--gray",
        "--events",
        "40",
        "--kills",
        "1",
        "--seed",
        "1",
        "--agents",
        "1",
        keep=tmp_path / "run",
        line=GRAY_LINE,
        seconds=3500,
    )
    assert (code, numbers) == (0, [0, 0, 0, 0, 0]), said
    assert "gray faults: 1 (freeze-old)" in said


@LONG
def test_a_request_without_a_deadline_is_found(tmp_path: Path) -> None:
    """The kept connections to Keystone freeze: an engine that waits for an hour there extends nothing any more."""
    code, numbers, said = chaos(
        "--gray", "--events", "30", "--kills", "1", "--link", "engine:keystone:freeze", "--lasts", "8",
        "--agents", "1", "--patience", "10", "--break", "no-read-timeout", keep=tmp_path / "run", line=GRAY_LINE,
    )  # fmt: skip
    assert code == 1, said
    assert numbers[2] > 0, said


@LONG
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("bug", "links"),
    [
        ("cast-only", ("hostagent:libvirt:freeze",)),
        ("no-read-timeout", ("engine:bus:freeze-old",)),
        ("no-read-timeout", ("engine:keystone:freeze",)),
        ("no-read-timeout", ("engine:nova:freeze",)),
        ("no-read-timeout", ("engine:cinder:freeze",)),
        ("no-read-timeout", ("listener:keystone:freeze",)),
        ("polite-close", ("engine:bus:freeze-old",)),
        ("last-word", ("engine:bus:freeze",)),
        ("last-word", ("engine:keystone:freeze",)),
        ("last-word", ("engine:nova:freeze",)),
        ("last-word", ("hostagent:libvirt:freeze",)),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_planted_bug_is_found_by_half_dead_links(tmp_path: Path, bug: str, links: tuple[str, ...]) -> None:
    chosen = [word for link in links for word in ("--link", link)]
    code, numbers, said = chaos(
        "--gray", "--events", "60", "--kills", "1", *chosen, "--lasts", "45", "--agents", "1", "--patience", "30",
        "--break", bug, keep=tmp_path / "run", line=GRAY_LINE, seconds=800,
    )  # fmt: skip
    assert code == 1, said
    assert sum(numbers) > 0, said


@LONG
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("db", ["sqlite", "postgresql", "mariadb"])
@pytest.mark.parametrize("seed", ["1", "2"])
def test_half_alive_in_every_way_and_no_second_is_blind(tmp_path: Path, db: str, seed: str) -> None:
    code, numbers, said = chaos(
        "--gray",
        "--events",
        "2000",
        "--kills",
        "24",
        "--seed",
        seed,
        "--db",
        db,
        keep=tmp_path / "run",
        line=GRAY_LINE,
        seconds=3500,
    )
    assert (code, numbers) == (0, [0, 0, 0, 0, 0]), said
