# SPDX-License-Identifier: Apache-2.0
"""tools/test: the stages of a run. Standard library only.

First those that run alone, cheapest first. Then those that run beside another one, longest first.
"""

import argparse
import subprocess
from collections.abc import Sequence
from typing import Final

from tests.lab import install
from tests.lab.install import (
    BROKER_PACKAGES,
    CEPH_PACKAGES,
    DATABASE_PACKAGES,
    GUESTS_PACKAGES,
    HYPERVISOR_PACKAGES,
    LASTMILE_PACKAGES,
    LIVE_PACKAGES,
    MODEL_PACKAGES,
    OPERATOR_PACKAGES,
    PACKAGING_PACKAGES,
    RECIPE_PACKAGES,
    STORAGE_PACKAGES,
    TREE,
)
from tests.lab.stage_run import SIDE_BY_SIDE, Stage, run_stages

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
        (("{bin}/pytest", "-q", SIDE_BY_SIDE, "-p", "tests.lab.noeventlet", "tests/unit"),),
        packages=RECIPE_PACKAGES,
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
        (("{bin}/pytest", "-q", SIDE_BY_SIDE, "tests/model"),),
        thorough=(("env", "EXTEND_BRIDGE_GRAY=1", "{bin}/pytest", "-q", SIDE_BY_SIDE, "tests/model"),),
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
        "functional",
        "real RabbitMQ, libvirt, Ceph and guests",
        (("{bin}/pytest", SIDE_BY_SIDE, "tests/functional"),),
        thorough=(
            ("{bin}/pytest", SIDE_BY_SIDE, "tests/functional"),
            ("env", "EXTEND_BRIDGE_STEPS=2100", "{bin}/pytest", "-s", "tests/functional/qemu/test_never_shrink.py"),
            (
                "env",
                "EXTEND_BRIDGE_LONG=1",
                "{bin}/pytest",
                "tests/functional/audit/test_scale.py",
                "tests/unit/audit/test_told_as_kept.py",
            ),
        ),
        packages=CEPH_PACKAGES,
        real=True,
        again=True,
        beside=True,
    ),
    Stage(
        "failover",
        "Galera with three nodes, and the product's own limits on a frozen database",
        (("env", "EXTEND_BRIDGE_LONG=1", "{bin}/pytest", "tests/functional/journal"),),
        packages=DATABASE_PACKAGES,
        only_long=True,
        beside=True,
    ),
    Stage(
        "storage",
        "iSCSI, multipath, NVMe, Fibre Channel, RDMA and NFS on Debian's kernel in a throw-away VM",
        (("{bin}/pytest", "tests/storage"),),
        thorough=(("env", "EXTEND_BRIDGE_STORAGE=long", "{bin}/pytest", "tests/storage"),),
        packages=STORAGE_PACKAGES,
        again=True,
        beside=True,
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
        beside=True,
    ),
    Stage(
        "debian13",
        "the demo over RabbitMQ, unit and broker tests on Debian 13, in a chroot; every suite there with --long",
        (("tools/matrix", "debian13", "--short"),),
        thorough=(("tools/matrix", "debian13"),),
        packages=PACKAGING_PACKAGES,
        beside=True,
    ),
    Stage(
        "lastmile",
        "file systems in a Debian guest follow their volumes; every layout and power cuts with --long",
        (("{bin}/python", "-m", "tests.lab.lastmile", "--short"),),
        thorough=(("{bin}/python", "-m", "tests.lab.lastmile"),),
        packages=LASTMILE_PACKAGES,
        beside=True,
    ),
    Stage(
        "attack",
        "strangers and liars against running daemons, beside callers and hosts that do no wrong",
        (("{bin}/python", "-m", "tests.attack", "--short", "--p99", "0"),),
        thorough=(("{bin}/python", "-m", "tests.attack", "--p99", "0"),),
        real=True,
        beside=True,
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
        beside=True,
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
        beside=True,
    ),
    Stage(
        "image",
        "an extend through OCI images, which are built and run without Docker",
        (("{bin}/pytest", "tests/packages/test_image.py"),),
        packages=PACKAGING_PACKAGES,
        real=True,
        beside=True,
    ),
    Stage(
        "guests",
        "a guest with Debian's kernel is told of its disks' size; every way, bus and backing with --long",
        (("{bin}/python", "-m", "tests.guests", "--short"),),
        thorough=(("{bin}/python", "-m", "tests.guests"),),
        packages=(*GUESTS_PACKAGES, *CEPH_PACKAGES),
        real=True,
        beside=True,
    ),
    Stage(
        "packages",
        "Debian package, Ansible role and the README's install, on bare chroots of Debian 13",
        (("{bin}/pytest", "tests/packages", "--ignore", "tests/packages/test_image.py"),),
        packages=PACKAGING_PACKAGES,
        only_long=True,
        real=True,
        beside=True,
    ),
    Stage(
        "live",
        "a real Cinder extends volumes of real guests, without Nova and beside one; every part is killed meanwhile",
        (("{bin}/python", "-m", "tests.live"), ("{bin}/python", "-m", "tests.live", "--nova")),
        packages=(*CEPH_PACKAGES, *LIVE_PACKAGES),
        only_long=True,
        real=True,
        beside=True,
    ),
)

_EXTRAS: Final = ("docs", "hostagent", "keymanager", "mysql", "otel", "postgresql", "serving", "test")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stages; 0 when all passed."""
    names = [stage.name for stage in STAGES]
    parser = argparse.ArgumentParser(
        prog="tools/test",
        description="Runs what CI runs, cheap stages first, and installs what it needs (apt as root, PyPI).",
        epilog="Example: tools/test lint unit",
    )
    parser.add_argument("stage", nargs="*", help=f"stages to run, of {', '.join(names)}; all by default")
    parser.add_argument(
        "--long", action="store_true", help="run every stage, each in its long form where it has one"
    )
    parser.add_argument("--storage", action="store_true", help="the same as naming the stage storage")
    parser.add_argument(
        "--in-order", action="store_true", help="run no stage beside another one (always so with --long)"
    )
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
    return run_stages(wanted, python.parent, long=options.long, lanes=not (options.long or options.in_order))
