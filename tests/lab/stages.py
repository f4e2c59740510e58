# SPDX-License-Identifier: Apache-2.0
"""tools/test: the stages of a run, cheapest first. Standard library only."""

import argparse
import json
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab import install
from tests.lab.install import (
    BROKER_PACKAGES,
    CEPH_PACKAGES,
    DATABASE_PACKAGES,
    HYPERVISOR_PACKAGES,
    OPERATOR_PACKAGES,
    STORAGE_PACKAGES,
    TREE,
    say,
)


@dataclass(frozen=True)
class Stage:
    """Commands of a run; `{bin}` is the virtualenv's bin directory.

    `limit` in seconds of CPU time, None: no limit. Not of the clock: a busy machine is no fault of the tests; and
    half as much again as is wanted, since virtual machines change their speed from minute to minute.
    """

    name: str
    about: str
    commands: tuple[tuple[str, ...], ...]
    limit: float | None = None
    thorough: tuple[tuple[str, ...], ...] = ()  # the commands with --long, where there are others
    real: bool = False  # needs the hypervisor and the broker
    again: bool = False  # a few tests that fail are run once more, by themselves, and named
    packages: tuple[str, ...] = ()  # Debian packages that only this stage needs


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
    Stage("unit", "unit tests, under 30 s", (("{bin}/pytest", "-q", "tests/unit"),), limit=45),
    Stage("wire", "the API's contract, in this process", (("{bin}/pytest", "-q", "tests/wire"),)),
    Stage(
        "fuzz",
        "20,000 mutated notifications through the listener's parser; 1,000,000 with --long",
        (("{bin}/python", "-m", "tests.fuzz", "--count", "20000"),),
        thorough=(("{bin}/python", "-m", "tests.fuzz", "--count", "1000000"),),
    ),
    Stage(
        "noeventlet",
        "unit tests with every import of eventlet and greenlet blocked",
        (("{bin}/pytest", "-q", "-p", "tests.lab.noeventlet", "tests/unit"),),
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
        ),
        real=True,
    ),
    Stage(
        "functional",
        "real RabbitMQ, libvirt, Ceph and guests",
        (("{bin}/pytest", "--durations=5", "tests/functional"),),
        thorough=(
            ("{bin}/pytest", "--durations=5", "tests/functional"),
            ("env", "EXTEND_BRIDGE_STEPS=2100", "{bin}/pytest", "-s", "tests/functional/qemu/test_never_shrink.py"),
        ),
        packages=CEPH_PACKAGES,
        real=True,
        again=True,
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
        "chaos",
        "every part killed under load, nothing lost; a planted bug, which must be found",
        (("{bin}/pytest", "tests/chaos"),),
        real=True,
    ),
)


_TESTS_FAILED: Final = 1
"""pytest's exit code for that; every other one but 0 says that the run itself went wrong."""
_FEW: Final = 3
"""Tests of real parts that may fail at the first try: a machine that stood still, not a defect they share."""
_LAST_FAILED: Final = Path(".pytest_cache/v/cache/lastfailed")
_LONGEST: Final = 2400.0
"""Seconds a command may take."""
_EXTRAS: Final = ("docs", "hostagent", "keymanager", "mysql", "postgresql", "serving", "test")


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
        "--long", action="store_true", help="the long form of stages that have one: more of the same"
    )
    parser.add_argument("--storage", action="store_true", help="the same as naming the stage storage")
    parser.add_argument("--list", action="store_true", help="say what each stage does and end")
    options = parser.parse_args(argv)
    if options.list:
        for stage in STAGES:
            print(f"{stage.name:12} {stage.about}")
        return 0
    if unknown := sorted(set(options.stage) - set(names)):
        parser.error(f"no stage named {', '.join(unknown)}; there are {', '.join(names)}")
    named = [*options.stage, *(["storage"] if options.storage else [])]
    wanted = [stage for stage in STAGES if not named or stage.name in named]
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
    return _run(wanted, python.parent, long=options.long)


def _run(stages: Sequence[Stage], bin_directory: Path, *, long: bool) -> int:
    """In CI a stage that fails does not keep the others from saying what they know."""
    path = f"{bin_directory}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = dict(os.environ, PYTHONPATH=str(TREE), PATH=path)
    times: list[tuple[str, float]] = []
    failed: list[str] = []
    unsteady: list[str] = []
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
        if wrong is not None:
            say(
                f"=== {stage.name} failed after {took:.1f} s: {' '.join(wrong)}".replace(
                    str(bin_directory), ".venv/bin"
                )
            )
        elif stage.limit is not None and used > stage.limit:
            say(f"=== {stage.name} used {used:.0f} s of CPU, its limit is {stage.limit:.0f} s")
        else:
            say(f"=== {stage.name} passed in {took:.1f} s ({used:.1f} s of CPU)")
            continue
        failed.append(stage.name)
        if environment.get("CI") != "true":
            break
    say("=== " + ", ".join(f"{name} {took:.1f} s" for name, took in times))
    for test in unsteady:
        say(f"=== passed at the second try only, find out why: {test}")
    if failed:
        say(f"=== failed: {', '.join(failed)}")
    return 1 if failed else 0


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
    if _run_within([*line[:-1], *few], environment) != 0:
        return False
    unsteady += few
    return True


def _run_within(command: Sequence[str], environment: dict[str, str]) -> int:
    """The exit code. One that hangs is told to abort, at which pytest shows what each of its threads is at."""
    with subprocess.Popen(command, cwd=TREE, env=environment) as process:
        watch = threading.Timer(_LONGEST, process.send_signal, (signal.SIGABRT,))
        watch.daemon = True
        watch.start()
        try:
            return process.wait()
        finally:
            watch.cancel()


def _cpu() -> float:
    """Seconds of CPU that ended children used."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
