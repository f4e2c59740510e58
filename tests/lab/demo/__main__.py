# SPDX-License-Identifier: Apache-2.0
"""The story: a guest, a volume that grows, and what the bridge does about it."""

import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

import bridge.runtime.threads  # noqa: F401

os.environ.setdefault("LIBVIRT_LOG_OUTPUTS", "4:file:/dev/null")  # read at import; embed logs to the terminal else

# isort: split
from bridge.core.extend import gib, new_id
from bridge.standin.cinder import Attachment, StandInCinder
from tests.lab.cinder_bus import resize_end
from tests.lab.demo.options import Options, parse
from tests.lab.demo.timeline import AuditTail, Timeline, size
from tests.lab.deploy import Deployment, Site, run_all_in_one, run_processes
from tests.lab.disks import Disk, LoopDevice, Qcow2File, RawFile
from tests.lab.guest import Guest, new_guest
from tests.lab.hypervisor import prepare_machine, private_hypervisor
from tests.lab.plain_qemu import PlainQemu
from tests.lab.rabbitmq import RabbitNode

HOST: Final = "demo-host"
_PATIENCE: Final = 300.0
_DISKS: Final[dict[str, Callable[[Path, int], Disk]]] = {
    "loop": lambda directory, n: LoopDevice(directory / "volume.img", n),
    "raw": lambda directory, n: RawFile(directory / "volume.raw", n),
    "qcow2": lambda directory, n: Qcow2File(directory / "volume.qcow2", n),
}


class StoppedError(Exception):
    """SIGTERM or SIGINT: clean up and go."""


def main(argv: Sequence[str] | None = None) -> int:
    """0 when the guest printed the new size, 1 when it did not, 130 when interrupted."""
    options = parse(argv)
    logging.basicConfig(level=logging.CRITICAL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        with _scratch() as directory, ExitStack() as stack:
            return _story(options, directory, stack)
    except (StoppedError, KeyboardInterrupt):
        sys.stderr.write("tools/demo: interrupted; everything is cleaned up\n")
        return 130
    except (TimeoutError, RuntimeError, OSError) as ex:
        sys.stderr.write(f"tools/demo: {ex}\n")
        return 1


def _stop(_number: int, _frame: FrameType | None) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # once is enough: the way out must not be cut short
    raise StoppedError


@contextmanager
def _scratch() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="eb-"))  # short: QEMU's sockets lie below it
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _story(options: Options, directory: Path, stack: ExitStack) -> int:
    say = Timeline()
    way = "all in one process" if options.broker == "none" else "four processes over RabbitMQ"
    host = "plain QEMU without libvirt, " if options.driver == "qmp" else ""
    say.title(f"Extend Bridge demo: {host}{way}, the guest's disk is a {options.disk} of 1 GiB")
    disk = _DISKS[options.disk](directory, gib(1))
    stack.callback(disk.close)
    guest, place = (_plain if options.driver == "qmp" else _under_libvirt)(disk, directory, stack)
    say.before("guest", f"server {guest.server_id} runs; it sees vda with {size(guest.sizes()[-1])}")
    say.before("volume", disk.volume_id)
    cinder, attachment_id = _cinder(disk, guest, stack)
    url = "memory://" if options.broker == "none" else _broker(stack, say)
    site = Site(
        directory=directory, bus_url=url, cinder_url=cinder.url, host=HOST, libvirt_uri=place.libvirt_uri,
        qmp_sockets=place.qmp_sockets,
    )  # fmt: skip
    deployment = (run_all_in_one if options.broker == "none" else run_processes)(site, stack)
    _until(lambda: _knows(deployment, guest.server_id), "the bridge did not learn of the guest")
    say.before("bridge", f"ready in {deployment.seconds:.1f} s: {deployment.about}")
    body, request_id = resize_end(
        volume_id=disk.volume_id, server_id=guest.server_id, attachment_id=attachment_id, host=HOST, size=2
    )
    say.zero()
    disk.grow(gib(2))
    cinder.standin.extend(disk.volume_id, 2)
    published = time.time()
    deployment.bus.publish(body)
    grown = f"grew the volume to {size(gib(2))}; volume.resize.end is on the bus, {request_id}"
    say.at(published, "cinder", grown)
    return _watch(deployment, guest, disk, say)


class Place(NamedTuple):
    """Where the host agent finds the guest."""

    libvirt_uri: str = "test:///default"
    qmp_sockets: str = ""


def _under_libvirt(disk: Disk, directory: Path, stack: ExitStack) -> tuple[Guest, Place]:
    """Start the guest under a libvirt of its own; return it and where its host agent finds it."""
    prepare_machine()
    hypervisor = stack.enter_context(private_hypervisor(directory / "lv"))
    guest = new_guest([disk], directory)
    hypervisor.start(guest.xml())
    guest.wait_size(gib(1))
    return guest, Place(libvirt_uri=hypervisor.uri)


def _plain(disk: Disk, directory: Path, stack: ExitStack) -> tuple[Guest, Place]:
    """Start the guest's QEMU with a QMP socket; return the guest and where its host agent finds it."""
    qemu = stack.enter_context(PlainQemu(directory, [disk]))
    return qemu.guest, Place(qmp_sockets=str(directory / "*.qmp"))


class _Cinder:
    def __init__(self, standin: StandInCinder, url: str) -> None:
        self.standin = standin
        self.url = url


def _cinder(disk: Disk, guest: Guest, stack: ExitStack) -> tuple[_Cinder, str]:
    standin, attachment_id = StandInCinder(), new_id()
    attachment = Attachment(
        id=attachment_id,
        server_id=guest.server_id,
        host=HOST,
        connection_info={"driver_volume_type": "local", "volume_id": disk.volume_id, "encrypted": False},
    )
    standin.add_volume(disk.volume_id, 1, attachment)
    server = standin.server()
    server.start()
    stack.callback(lambda: (server.stop(), server.join(120)))
    return _Cinder(standin, f"{server.url}/v3"), attachment_id


def _broker(stack: ExitStack, say: Timeline) -> str:
    started = time.monotonic()
    node = stack.enter_context(RabbitNode())
    say.before("broker", f"RabbitMQ up in {time.monotonic() - started:.1f} s, private, at 127.0.0.1:{node.port}")
    return node.url


def _knows(deployment: Deployment, server_id: str) -> bool:
    deployment.check()
    return deployment.site.knows(server_id)


def _watch(deployment: Deployment, guest: Guest, disk: Disk, say: Timeline) -> int:
    """Tell audit lines and the guest's console as they come, until both have come to the end."""
    tail = AuditTail(deployment.site.audit_file, disk.volume_id)
    seen = False
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and not (seen and tail.ended):
        tail.tell(say)
        if not seen and guest.sizes()[-1] == gib(2):
            seen = True
            say.at(time.time(), "guest", f"sees vda with {size(guest.sizes()[-1])}")
        deployment.check()
        time.sleep(0.005)
    if not (seen and tail.ended):
        raise TimeoutError(f"the guest still sees {guest.sizes()[-1]} bytes after {_PATIENCE:.0f} s")
    say.end(f"OK guest sees {guest.sizes()[-1]} bytes")
    return 0


def _until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{otherwise} within {_PATIENCE:.0f} s")
        time.sleep(0.02)


if __name__ == "__main__":
    raise SystemExit(main())
