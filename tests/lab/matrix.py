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
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.lab.chroot import make_chroot, run_inside
from tests.lab.install import TREE, add_packages, say
from tests.lab.paths import lab_cache

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
)


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


def _others() -> str:
    """Return the options that leave out the functional tests of the other parts."""
    return " ".join(f"--ignore={path}" for path in (*_BROKER, _DATABASES, *_HYPERVISOR))


@dataclass(frozen=True, slots=True)
class Suite:
    """Commands that run in the chroot's tree, and whether pytest counts what passed in them."""

    name: str
    command: str
    short: bool = False
    counted: bool = True


PARTS: Final = (
    Suite("set-up", "tools/test --prepare", short=True, counted=False),
    Suite("demo", "tools/demo", short=True, counted=False),
    Suite("checks", "tools/test lint type docs", short=True, counted=False),
    Suite("unit", "{pytest} -n2 -p tests.lab.noeventlet tests/unit tests/wire", short=True),
    Suite("broker", f"{{pytest}} -n2 {' '.join(_BROKER)}", short=True),
    Suite("demo over RabbitMQ", "tools/demo --broker rabbitmq", counted=False),
    Suite("databases", f"{{pytest}} -n2 {_DATABASES}"),
    Suite("hypervisor", f"{{pytest}} -n2 {' '.join(_HYPERVISOR)}"),
    Suite("contract", f"{{pytest}} {' '.join(_CONTRACT)}"),
    Suite("functional", f"{{pytest}} -n2 tests/functional {_others()}"),
    Suite("guests", "tools/guests --short", counted=False),
    Suite("chaos", "{pytest} tests/chaos"),
)


@dataclass
class Counts:
    """Tests and commands that passed, were skipped and failed, and the names of the failed."""

    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the suites in a release; 0 when nothing failed."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(
        prog="tools/matrix",
        description="Runs the suites in a chroot of another Debian release (root, apt, about 4 GB, kept in .lab).",
        epilog="Examples: tools/matrix debian13 --short; tools/matrix sid --only set-up --only broker; "
        "tools/matrix debian13 --run 'CI=true .venv/bin/pytest tests/functional/listener'",
    )
    parser.add_argument("release", choices=sorted(SUITES))
    parser.add_argument("--short", action="store_true", help="only the README's demo, the checks, unit and broker")
    parser.add_argument("--only", metavar="PART", action="append", choices=names, help=f"of {', '.join(names)}")
    parser.add_argument("--run", metavar="COMMAND", help="only this shell command, in the tree there")
    parser.add_argument("--fresh", action="store_true", help="make the chroot anew")
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        parser.error("a chroot needs root")
    add_packages(["mmdebstrap"])
    root = lab_cache() / "matrix" / options.release
    if options.fresh:
        shutil.rmtree(root, ignore_errors=True)
    if not (root / "usr/bin/python3").exists():
        make_chroot(SUITES[options.release], root, include=_INCLUDED)
    put_tree(root)
    if options.run is not None:
        return run_inside(root, f"cd /{_TREE} && {options.run}")
    wanted = [
        part for part in PARTS if (part.name in options.only if options.only else part.short or not options.short)
    ]
    counts = Counts()
    for part in wanted:
        _run(part, root, counts)
    say(f"matrix {options.release}: {_versions(root)}")
    for test in counts.failed:
        say(f"matrix {options.release}: failed {test}")
    skipped = f"{counts.skipped} skipped, " if counts.skipped else ""
    print(f"matrix {options.release}: {counts.passed} passed, {skipped}{len(counts.failed)} failed")
    return 1 if counts.failed else 0


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


def _run(part: Suite, root: Path, counts: Counts) -> None:
    say(f"=== matrix: {part.name}: {part.command}")
    began = time.monotonic()
    results = root / _TREE / ".lab" / "results.xml"
    results.unlink(missing_ok=True)
    pytest = "CI=true .venv/bin/pytest -q --junitxml=.lab/results.xml"
    code = run_inside(root, f"cd /{_TREE} && {part.command.format(pytest=pytest)}")
    say(f"=== matrix: {part.name} ended with {code} after {time.monotonic() - began:.0f} s")
    if part.counted and results.exists():
        passed, skipped, failed = read_results(results)
        counts.passed += passed
        counts.skipped += skipped
        counts.failed += failed
        if code != 0 and not failed:
            counts.failed.append(f"{part.name}: exit code {code}")
    elif code != 0:
        counts.failed.append(part.name)
    else:
        counts.passed += 1


def read_results(results: Path) -> tuple[int, int, list[str]]:
    """Return how many tests passed, how many were skipped, and the names of those that failed."""
    cases = list(ET.parse(results).iter("testcase"))
    failed = [
        f"{case.get('classname')}.{case.get('name')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    ]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return len(cases) - len(failed) - skipped, skipped, failed


def _versions(root: Path) -> str:
    query = ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f", "${Package} ${Version}, ", *_VERSIONS]
    return subprocess.run(query, check=False, capture_output=True, text=True).stdout.rstrip(", ")
