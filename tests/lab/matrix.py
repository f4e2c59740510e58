# SPDX-License-Identifier: Apache-2.0
"""tools/matrix: the suites in a chroot of another Debian release. Standard library only.

The chroot is made by mmdebstrap from apt alone and kept between runs. Its commands run in namespaces of their own,
so nothing is left running. Services of its packages are never started.
"""

import argparse
import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab.chroot import make_chroot, run_inside
from tests.lab.install import LEFT_OUT, TREE, add_packages, say
from tests.lab.matrix_results import PartResult, ReleaseResults, keep_results, kept_results, read_results
from tests.lab.paths import lab_cache
from tests.lab.stage_run import SIDE_BY_SIDE

SUITES: Final = {"debian13": "trixie", "sid": "sid"}
_INCLUDED: Final = "python3,git,ca-certificates,procps"
_TREE: Final = "root/extend-bridge"
_KEPT: Final = (".venv", ".lab")  # in the tree of the chroot, between runs
_VERSIONS: Final = (
    "python3",
    "libvirt-daemon",
    "qemu-system-x86",
    "rabbitmq-server",
    "mariadb-server",
    "postgresql",
    "ceph-common",
)
_RESULTS: Final = ".lab/results.xml"
_PYTEST: Final = f"CI=true .venv/bin/pytest -q --junitxml={_RESULTS}"
_FEW: Final = 3
"""Tests of a part that may fail at the first try: a machine that stood still, not a defect they share."""


_BROKER: Final = (
    "tests/functional/listener",
    "tests/functional/deploying/test_permissions.py",
    "tests/functional/test_broker_limits.py",
    "tests/functional/test_bus_beside_cinder.py",
    "tests/functional/test_orders_upgrade.py",
    "tests/functional/test_reports_exchange.py",
)
_DATABASES: Final = "tests/functional/journal"
_HYPERVISOR: Final = (
    "tests/functional/hostagent",
    "tests/functional/libvirtd",
    "tests/functional/qemu",
)
_CONTRACT: Final = (
    "tests/contract/test_promises.py",
    "tests/contract/test_outside.py",
    "tests/contract/test_never_shrink.py",
)

_QUICK: Final = (
    "tests/unit/core",
    "tests/unit/http",
    "tests/unit/runtime",
    "tests/unit/listener",
    "tests/unit/engine",
    "tests/unit/hostagent",
)
_BROKER_QUICK: Final = ("tests/functional/listener/test_flow.py", "tests/functional/test_reports_exchange.py")


def _others() -> str:
    """Return the options that leave out the functional tests of the other parts."""
    return " ".join(f"--ignore={path}" for path in (*_BROKER, _DATABASES, *_HYPERVISOR))


@dataclass(frozen=True, slots=True)
class Suite:
    """Commands that run in the chroot's tree, and whether pytest counts what passed in them."""

    name: str
    command: str
    counted: bool = True


PARTS: Final = (
    Suite("set-up", "tools/test --prepare", counted=False),
    Suite("demo", "tools/demo", counted=False),
    Suite("checks", "tools/test lint type docs", counted=False),
    Suite("unit", "{pytest} -n2 -p tests.lab.noeventlet tests/unit tests/wire"),
    Suite("broker", f"{{pytest}} -n2 {' '.join(_BROKER)}"),
    Suite("demo over RabbitMQ", "tools/demo --broker rabbitmq", counted=False),
    Suite("databases", f"{{pytest}} -n2 {_DATABASES}"),
    *(Suite(path.rpartition("/")[2], f"{{pytest}} -n2 {path}") for path in _HYPERVISOR),
    Suite("contract", f"{{pytest}} {' '.join(_CONTRACT)}"),
    Suite("functional", f"{{pytest}} -n2 tests/functional {_others()}"),
    Suite("guests", "tools/guests --short", counted=False),
    Suite("chaos", "{pytest} tests/chaos"),
)
SHORT: Final = (
    Suite("short: demo", "tools/demo --broker rabbitmq", counted=False),
    Suite("short: unit", f"tools/test --prepare unit && {{pytest}} -n2 -p tests.lab.noeventlet {' '.join(_QUICK)}"),
    Suite("short: broker", f"{{pytest}} -n2 {' '.join(_BROKER_QUICK)}"),
)
"""The part of it that fits into CI. It has set-up and results of its own."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suites in a release; 0 when nothing failed."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(
        prog="tools/matrix",
        description="Runs the suites in a chroot of another Debian release (root, apt, about 8 GB, kept in .lab). "
        "The result of each part is kept beside the chroot, so the parts can be run one at a time.",
        epilog="Examples: tools/matrix debian13 --short; tools/matrix sid --only set-up --only broker; "
        "tools/matrix sid --results --json; "
        "tools/matrix debian13 --run 'CI=true .venv/bin/pytest tests/functional/listener'",
    )
    parser.add_argument("release", choices=sorted(SUITES))
    parser.add_argument(
        "--short", action="store_true", help="what CI runs: the demo over RabbitMQ, some of the tests"
    )
    parser.add_argument("--only", metavar="PART", action="append", choices=names, help=f"of {', '.join(names)}")
    parser.add_argument("--run", metavar="COMMAND", help="only this shell command, in the tree there")
    parser.add_argument("--results", action="store_true", help="run nothing; print the last result of each part")
    parser.add_argument("--json", action="store_true", help="print the results as JSON in place of the table")
    parser.add_argument("--list", action="store_true", help="run nothing; print the commands of the parts")
    parser.add_argument("--fresh", action="store_true", help="make the chroot anew")
    options = parser.parse_args(argv)
    if options.short and options.only:
        parser.error("--short is a choice of parts of its own: leave out --only")
    wanted = [part for part in (SHORT if options.short else PARTS) if part.name in (options.only or part.name)]
    if options.list:
        print("\n".join(f"{part.name:18} {part.command.format(pytest=_PYTEST)}" for part in wanted))
        return 0
    root = lab_cache() / "matrix" / options.release
    kept = root.with_name(f"{options.release}.json")
    results = kept_results(kept, [part.name for part in wanted])
    if not options.results:
        if os.geteuid() != 0:
            parser.error("a chroot needs root")
        have_chroot(options.release, root, fresh=options.fresh)
        if options.run is not None:
            return run_inside(root, f"cd /{_TREE} && {options.run}")
        results = []
        for part in wanted:
            results.append(_run(part, root))
            keep_results(kept, results[-1:])
    found = ReleaseResults(options.release, _versions(root), _left_out(root), tuple(results))
    print(found.as_json() if options.json else found.as_table())
    if missing := [part.name for part in wanted if part.name not in {result.part for result in results}]:
        say(f"matrix {options.release}: not run: {', '.join(missing)}")
    if not options.json:
        print(found.last_line())
    return 1 if found.failed else 0


def have_chroot(release: str, root: Path, *, fresh: bool) -> None:
    """Have the chroot of a release, with the files of the working tree in it."""
    add_packages(["mmdebstrap"])
    if fresh:
        shutil.rmtree(root, ignore_errors=True)
    if not (root / "usr/bin/python3").exists():
        make_chroot(SUITES[release], root, include=_INCLUDED)
    put_tree(root)


def put_tree(root: Path) -> None:
    """Copy the files of the working tree into the chroot; its virtualenv and cache there stay."""
    target = root / _TREE
    target.mkdir(parents=True, exist_ok=True)
    for entry in target.iterdir():
        if entry.name not in _KEPT:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    git = ["git", "-C", str(TREE), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(git, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (TREE / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TREE / name, target / name, follow_symlinks=False)
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=m", "-c", "user.email=m@m", "commit", "-qm", "m"],
    ):
        subprocess.run(["git", "-C", str(target), *command], check=True)


def _run(part: Suite, root: Path) -> PartResult:
    """Run a part. A few tests that fail are run once more, by themselves, and named."""
    command = part.command.format(pytest=_PYTEST)
    say(f"=== matrix: {part.name}: {command}")
    began = time.monotonic()
    passed, skipped, failed = _tests(part, root, command)
    unsteady: list[str] = []
    if part.counted and 0 < len(failed) <= _FEW:
        say(f"=== matrix: once more {', '.join(failed)}")
        _again, _skipped, still = _tests(part, root, f"{command.replace(f'{SIDE_BY_SIDE} ', '')} --last-failed")
        unsteady = [test for test in failed if test not in still]
        passed, failed = passed + len(unsteady), still
    seconds = round(time.monotonic() - began)
    say(f"=== matrix: {part.name}: {passed} passed, {len(failed)} failed in {seconds} s")
    ended = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    return PartResult(part.name, passed, skipped, tuple(failed), tuple(unsteady), seconds, ended, _commit())


def _tests(part: Suite, root: Path, command: str) -> tuple[int, int, list[str]]:
    """Run a command; return how many tests passed and were skipped, and the names of those that failed."""
    file = root / _TREE / _RESULTS
    file.unlink(missing_ok=True)
    code = run_inside(root, f"cd /{_TREE} && {command}")
    if not part.counted or not file.exists():
        return (1, 0, []) if code == 0 else (0, 0, [f"exit code {code}"])
    passed, skipped, failed = read_results(file)
    return passed, skipped, failed or ([f"exit code {code}"] if code != 0 else [])


def _commit() -> str:
    git = ["git", "-C", str(TREE)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return f"{commit.stdout.strip()}{'+' if changed.stdout else ''}"


def _left_out(root: Path) -> tuple[str, ...]:
    """Return the extras that the set-up could not build there."""
    file = root / _TREE / LEFT_OUT.relative_to(TREE)
    return tuple(file.read_text().split()) if file.exists() else ()


def _versions(root: Path) -> str:
    query = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Package} ${Version}, ", *_VERSIONS]
    return subprocess.run(query, check=False, capture_output=True, text=True).stdout.rstrip(", ")
