# SPDX-License-Identifier: Apache-2.0
"""tools/test: the stages of a run, cheapest first. Standard library only."""

import argparse
import ctypes
import json
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab import install
from tests.lab.install import (
    BROKER_PACKAGES,
    CEPH_PACKAGES,
    DATABASE_PACKAGES,
    GUESTS_PACKAGES,
    HYPERVISOR_PACKAGES,
    LASTMILE_PACKAGES,
    MODEL_PACKAGES,
    OPERATOR_PACKAGES,
    PACKAGING_PACKAGES,
    STORAGE_PACKAGES,
    TREE,
    say,
)
from tests.lab.leftovers import TIMES


@dataclass(frozen=True)
class Stage:
    """Commands of a run; `{bin}` is the virtualenv's bin directory."""

    name: str
    about: str
    commands: tuple[tuple[str, ...], ...]
    thorough: tuple[tuple[str, ...], ...] = ()  # the commands with --long, where there are others
    only_long: bool = False  # runs with --long or when it is named, never by default
    real: bool = False  # needs the hypervisor and the broker
    again: bool = False  # a few tests that fail are run once more, by themselves, and named
    packages: tuple[str, ...] = ()  # Debian packages that only this stage needs


_SIDE_BY_SIDE: Final = "-n2"
"""Tests in two processes: real parts are mostly waited for. Each process has real parts of its own."""

STAGES: Final = (
    Stage(
        "lint",
        "ruff, format, spelling, layers",
        (
            ("{bin}/ruff", "check", "-q", "."),
            ("{bin}/ruff", "format", "-q", "--check", "."),
            ("{bin}/codespell", "-q", "3"),
            ("{bin}/lint-imports", "--no-cache"),
        ),
    ),
    Stage("type", "mypy --strict", (("{bin}/mypy",),)),
    Stage(
        "unit",
        "unit tests, with every import of eventlet and greenlet blocked",
        (("{bin}/pytest", "-q", _SIDE_BY_SIDE, "-p", "tests.lab.noeventlet", "tests/unit"),),
    ),
    Stage("wire", "the API's contract, in this process", (("{bin}/pytest", "-q", "tests/wire"),)),
    Stage(
        "fuzz",
        "20,000 mutated notifications through the listener's parser; 1,000,000 with --long",
        (
            ("{bin}/python", "-m", "tests.fuzz", "--count", "20000"),
            ("{bin}/python", "-m", "tests.fuzz.audit", "--edits", "300", "--honest", "40"),
        ),
        thorough=(
            ("{bin}/python", "-m", "tests.fuzz", "--count", "1000000"),
            ("{bin}/python", "-m", "tests.fuzz.audit", "--edits", "10000", "--honest", "400"),
        ),
    ),
    Stage(
        "model",
        "the model of the way of an extend, checked exhaustively by Spin",
        (("{bin}/pytest", "-q", _SIDE_BY_SIDE, "tests/model"),),
        packages=MODEL_PACKAGES,
    ),
    Stage(
        "docs",
        "documentation without warnings, release notes",
        (
            ("{bin}/sphinx-build", "-q", "-W", "-b", "html", "doc/source", "doc/build/html"),
            ("{bin}/reno", "-q", "lint"),
        ),
    ),
    Stage(
        "demo",
        "the README's demo, each way",
        (
            ("tools/demo",),
            ("tools/demo", "--disk", "raw"),
            ("tools/demo", "--disk", "qcow2"),
            ("tools/demo", "--broker", "rabbitmq"),
            ("tools/demo", "--driver", "qmp"),
        ),
        real=True,
    ),
    Stage(
        "functional",
        "real RabbitMQ, libvirt, Ceph and guests",
        (("{bin}/pytest", _SIDE_BY_SIDE, "tests/functional"),),
        thorough=(
            ("{bin}/pytest", _SIDE_BY_SIDE, "tests/functional"),
            ("env", "EXTEND_BRIDGE_STEPS=2100", "{bin}/pytest", "-s", "tests/functional/qemu/test_never_shrink.py"),
            ("env", "EXTEND_BRIDGE_LONG=1", "{bin}/pytest", "tests/functional/audit/test_scale.py"),
        ),
        packages=CEPH_PACKAGES,
        real=True,
        again=True,
    ),
    Stage(
        "contract",
        "the promises of the seam, by libvirt, plain QEMU and a driver from outside the tree",
        (
            (
                "{bin}/pytest",
                "-q",
                "tests/contract/test_promises.py",
                "tests/contract/test_outside.py",
                "tests/contract/test_never_shrink.py",
            ),
        ),
        thorough=(
            ("{bin}/pytest", "tests/contract"),
            ("env", "EXTEND_BRIDGE_STEPS=2100", "{bin}/pytest", "-s", "tests/contract/test_never_shrink.py"),
        ),
        real=True,
    ),
    Stage(
        "failover",
        "Galera with three nodes, and the product's own limits on a frozen database",
        (("env", "EXTEND_BRIDGE_LONG=1", "{bin}/pytest", "tests/functional/journal"),),
        packages=DATABASE_PACKAGES,
        only_long=True,
    ),
    Stage(
        "storage",
        "iSCSI, multipath, NVMe, Fibre Channel, RDMA and NFS on Debian's kernel in a throw-away VM",
        (("{bin}/pytest", "tests/storage"),),
        thorough=(("env", "EXTEND_BRIDGE_STORAGE=long", "{bin}/pytest", "tests/storage"),),
        packages=STORAGE_PACKAGES,
        again=True,
    ),
    Stage(
        "guests",
        "a guest with Debian's kernel is told of its disks' size; every way, bus and backing with --long",
        (("{bin}/python", "-m", "tests.guests", "--short"),),
        thorough=(("{bin}/python", "-m", "tests.guests"),),
        packages=(*GUESTS_PACKAGES, *CEPH_PACKAGES),
        real=True,
    ),
    Stage(
        "packages",
        "Debian package, Ansible role, OCI images and the README's install, on bare chroots of Debian 13",
        (("{bin}/pytest", "tests/packages"),),
        packages=PACKAGING_PACKAGES,
        only_long=True,
        real=True,
    ),
    Stage(
        "lastmile",
        "file systems in a Debian guest follow their volumes; every layout and power cuts with --long",
        (("{bin}/python", "-m", "tests.lab.lastmile", "--short"),),
        thorough=(("{bin}/python", "-m", "tests.lab.lastmile"),),
        packages=LASTMILE_PACKAGES,
    ),
    Stage(
        "chaos",
        "every part killed under load, nothing lost; a planted bug, which must be found",
        (("{bin}/pytest", "tests/chaos"),),
        thorough=(
            ("env", "EXTEND_BRIDGE_GRAY=1", "{bin}/pytest", "tests/chaos"),
            (
                "env",
                "EXTEND_BRIDGE_GRAY=1",
                "{bin}/pytest",
                "tests/functional/libvirtd/test_away.py",
                "-k",
                "silent",
            ),
        ),
        real=True,
    ),
    Stage(
        "attack",
        "strangers and liars against running daemons, beside callers and hosts that do no wrong",
        (("{bin}/python", "-m", "tests.attack", "--short", "--p99", "0"),),
        thorough=(("{bin}/python", "-m", "tests.attack", "--p99", "0"),),
        real=True,
    ),
)


_TESTS_FAILED: Final = 1
"""pytest's exit code for that; every other code but 0 says that the run itself went wrong."""
_FEW: Final = 3
"""Tests of real parts that may fail at the first try: a machine that stood still, not a defect they share."""
_LAST_FAILED: Final = Path(".pytest_cache/v/cache/lastfailed")
_SILENT: Final = 7200.0
"""Seconds after which a command hangs when neither the command nor one of its tests has ended."""
_LOOK_EVERY: Final = 60.0  # seconds
_SLOWEST: Final = 10
_EXTRAS: Final = ("docs", "hostagent", "keymanager", "mysql", "otel", "postgresql", "serving", "test")
_PR_SET_PDEATHSIG: Final = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages; 0 when all passed."""
    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(
        prog="tools/test",
        description="Runs what CI runs, cheapest stage first, and installs what it needs (apt as root, PyPI).",
        epilog="Example: tools/test lint unit",
    )
    parser.add_argument("stage", nargs="*", help=f"stages to run, of {', '.join(names)}; all by default")
    parser.add_argument(
        "--long", action="store_true", help="run every stage, each in its long form where it has one"
    )
    parser.add_argument("--storage", action="store_true", help="the same as naming the stage storage")
    parser.add_argument("--prepare", action="store_true", help="install what the stages need and end")
    parser.add_argument("--list", action="store_true", help="say what each stage does and end")
    options = parser.parse_args(argv)
    if options.list:
        for stage in STAGES:
            print(f"{stage.name:12} {stage.about}{' (--long)' if stage.only_long else ''}")
        return 0
    if unknown := sorted(set(options.stage) - set(names)):
        parser.error(f"no stage named {', '.join(unknown)}; there are {', '.join(names)}")
    named = [*options.stage, *(["storage"] if options.storage else [])]
    wanted = [
        stage for stage in STAGES if stage.name in named or (not named and (options.long or not stage.only_long))
    ]
    real = any(stage.real for stage in wanted)
    particular = dict.fromkeys(package for stage in wanted for package in stage.packages)
    packages = [
        *HYPERVISOR_PACKAGES,
        *particular,
        *((*BROKER_PACKAGES, *DATABASE_PACKAGES, *OPERATOR_PACKAGES) if real else ()),
    ]
    python = install.ensure(packages=packages, extras=_EXTRAS)
    if real:
        subprocess.run([python, "-m", "tests.lab.hypervisor", "prepare"], cwd=TREE, check=True)
    if options.prepare:
        return 0
    return _run(wanted, python.parent, long=options.long)


def _run(stages: Sequence[Stage], bin_directory: Path, *, long: bool) -> int:
    """Run stages in order; in CI a stage that fails does not keep the others from running."""
    path = f"{bin_directory}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    times: list[tuple[str, float]] = []
    failed: list[str] = []
    unsteady: list[str] = []
    with tempfile.NamedTemporaryFile("r", prefix="eb-times-") as ended:
        environment = dict(os.environ, PYTHONPATH=str(TREE), PATH=path, **{TIMES: ended.name})
        for stage in stages:
            say(f"=== {stage.name}: {stage.about}")
            started, cpu = time.monotonic(), _cpu()
            commands = [
                [part.format(bin=bin_directory) for part in command]
                for command in (stage.thorough if long else ()) or stage.commands
            ]
            wrong = next((line for line in commands if not _passes(stage, line, environment, unsteady)), None)
            took, used = time.monotonic() - started, _cpu() - cpu
            times.append((stage.name, took))
            if wrong is None:
                say(f"=== {stage.name} passed in {took:.1f} s ({used:.1f} s of CPU)")
                continue
            command = " ".join(wrong).replace(str(bin_directory), ".venv/bin")
            say(f"=== {stage.name} failed after {took:.1f} s: {command}")
            failed.append(stage.name)
            if environment.get("CI") != "true":
                break
        for seconds, test in slowest(ended.read()):
            say(f"=== {seconds:6.1f} s {test}")
    say("=== " + ", ".join(f"{name} {took:.1f} s" for name, took in times))
    for test in unsteady:
        say(f"=== passed at the second try only, find out why: {test}")
    if failed:
        say(f"=== failed: {', '.join(failed)}")
    return 1 if failed else 0


def slowest(ended: str) -> list[tuple[float, str]]:
    """Return the slowest tests; `ended` has a line of seconds and name for each phase of a test."""
    seconds: Counter[str] = Counter()
    for line in ended.splitlines():
        took, _, test = line.partition(" ")
        seconds[test] += float(took)  # type: ignore[assignment]
    return [(took, test) for test, took in seconds.most_common(_SLOWEST)]


def _passes(stage: Stage, line: Sequence[str], environment: dict[str, str], unsteady: list[str]) -> bool:
    """Run a command; where the stage may, a few failed tests once more."""
    if not stage.again:
        return _run_within(line, environment) == 0
    last_failed = TREE / _LAST_FAILED
    last_failed.unlink(missing_ok=True)
    if (code := _run_within(line, environment)) != _TESTS_FAILED:
        return code == 0
    few = sorted(json.loads(last_failed.read_text())) if last_failed.exists() else []
    if not 0 < len(few) <= _FEW:
        return False
    say(f"=== {stage.name}: once more {', '.join(few)}")
    if _run_within([*(part for part in line[:-1] if part != _SIDE_BY_SIDE), *few], environment) != 0:
        return False
    unsteady += few
    return True


def _run_within(command: Sequence[str], environment: dict[str, str]) -> int:
    """Return the exit code of a command, which ends with this process.

    A command that hangs is aborted: pytest then shows the stack of each of its threads.
    """
    ended = Path(environment.get(TIMES, os.devnull))
    began = time.time()
    with subprocess.Popen(command, cwd=TREE, env=environment, preexec_fn=_end_with_parent) as process:  # noqa: PLW1509
        try:
            while True:
                try:
                    return process.wait(_LOOK_EVERY)
                except subprocess.TimeoutExpired:
                    if time.time() - max(began, ended.stat().st_mtime) > _SILENT:
                        process.send_signal(signal.SIGABRT)
        finally:
            process.terminate()


def _end_with_parent() -> None:
    """Have the kernel end this command when tools/test is gone, in whatever way."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _cpu() -> float:
    """Return the seconds of CPU that ended children used."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
