# SPDX-License-Identifier: Apache-2.0
"""tools/live: start the cloud, play each step, print how many guests saw their volume's size."""

import bridge.runtime.threads  # noqa: F401, I001 - native threads, before anything that makes one

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from tests.lab.ceph import have_ceph
from tests.lab.libvirtd import have_libvirtd
from tests.lab.rabbitmq import have_rabbitmq
from tests.live import latency, nova_walk, tempest_walk, user_walk, walk
from tests.live.cloud import LiveCloud
from tests.live.nova_cloud import NovaCloud
from tests.live.options import options
from tests.live.step import LiveStep

C = TypeVar("C", LiveCloud, NovaCloud)
_EXIT_UNREACHABLE = 3


def main() -> int:
    """Run it; the exit code."""
    chosen = options()
    if chosen.nova:
        return _walk(chosen, NovaCloud, (*nova_walk.STEPS, *tempest_walk.STEPS, *latency.STEPS))
    return _walk(chosen, LiveCloud, (*walk.STEPS, *user_walk.STEPS))


def _walk(chosen: argparse.Namespace, kind: type[C], every: Sequence[LiveStep[C]]) -> int:
    steps = [step for step in every if not chosen.step or step.name in chosen.step]
    if unknown := set(chosen.step or ()) - {step.name for step in every}:
        print(f"no step named {', '.join(sorted(unknown))}; --list names them", file=sys.stderr)
        return 2
    if chosen.list:
        for step in steps:
            print(f"{step.name:20} {step.about}")
        return 0
    if not (have_ceph() and have_libvirtd() and have_rabbitmq()):
        print("missing: Ceph, libvirtd or RabbitMQ, or root; tools/live installs them", file=sys.stderr)
        return _EXIT_UNREACHABLE
    with _cloud(kind, chosen.programs, chosen.keep) as cloud:
        passed = sum([_played(cloud, step) for step in steps])
    print(f"live {passed} of {len(steps)}")
    return 0 if passed == len(steps) else 1


@contextmanager
def _cloud(kind: type[C], programs: Path | None, keep: Path | None) -> Iterator[C]:
    directory = Path(tempfile.mkdtemp(prefix="eb-"))
    began = time.monotonic()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        stack.callback(_keep, directory, keep)
        cloud = kind(directory, stack, programs=programs)
        for name, path in cloud.services():
            stack.callback(_keep, path, keep and keep / name)
        print(f"the cloud runs after {time.monotonic() - began:.0f} s", flush=True)
        yield cloud


def _keep(directory: Path, keep: Path | None) -> None:
    if keep is None:
        return
    for path in (p for pattern in ("*.log", "*.conf", "*/*.log", "*/*/*.conf") for p in directory.glob(pattern)):
        target = keep / path.relative_to(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def _played(cloud: C, step: LiveStep[C]) -> bool:
    began = time.monotonic()
    try:
        words, ok = step.play(cloud), True
    except Exception as ex:  # noqa: BLE001 - a step that fails is a line of the result
        words, ok = f"FAILED: {type(ex).__name__}: {ex}", False
    print(f"{step.name:20} {words} ({time.monotonic() - began:.0f} s)", flush=True)
    return ok


if __name__ == "__main__":
    raise SystemExit(main())
