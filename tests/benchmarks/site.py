# SPDX-License-Identifier: Apache-2.0
"""The control plane as processes of its own, with a Cinder and hosts that are played in others."""

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from bridge.core.extend import ExtendKey
from tests.benchmarks.measure import cpu_of, peak_of
from tests.benchmarks.workspace import Workspace
from tests.lab.cinder_bus import CinderBus, resize_end
from tests.lab.deploy import Processes, Site
from tests.lab.paths import ROOT
from tests.lab.ports import steady_port
from tests.lab.waiting import until

CONTROL: Final = ("listener", "api", "engine")
HOST: Final = "host-1"
_SIZE: Final = 2


@dataclass(frozen=True, kw_only=True)
class Place:
    """A site whose processes the caller starts. `volumes`: the disks Cinder and the played host have."""

    site: Site
    processes: Processes
    bus: CinderBus
    volumes: list[ExtendKey]
    arrivals: Path

    def told(self, keys: Sequence[ExtendKey]) -> None:
        """Publish that these volumes have grown, as Cinder does."""
        for key in keys:
            body, _ = resize_end(
                volume_id=key.volume_id,
                server_id=key.server_id,
                attachment_id=str(uuid.uuid4()),
                host=HOST,
                size=_SIZE,
            )
            self.bus.publish(body)

    def cast(self) -> dict[str, float]:
        """When the host got the last order for each volume, in epoch seconds."""
        lines = self.arrivals.read_text().splitlines() if self.arrivals.exists() else []
        return {volume: float(at) for volume, at in (line.split() for line in lines if line.count(" ") == 1)}

    def cpu_of(self, *names: str) -> float:
        """Seconds of CPU these parts have used."""
        return sum(cpu_of(self.processes.pid(name)) for name in names)

    def peak(self, name: str) -> float:
        """MiB a part has had at most."""
        return peak_of(self.processes.pid(name))


@contextmanager
def place(workspace: Workspace, volumes: int, *, extra: str = "", cinder: bool = True) -> Iterator[Place]:
    """A bus, a Cinder with `volumes` volumes of 2 GiB (or none at its address), configuration; nothing runs yet."""
    directory = workspace.subdirectory("site")
    keys = [ExtendKey(str(uuid.uuid4()), str(uuid.uuid4())) for _ in range(volumes)]
    url = workspace.broker()
    with ExitStack() as stack:
        there = stack.enter_context(_cinder(directory, keys)) if cinder else f"http://127.0.0.1:{steady_port()}"
        site = Site(directory=directory, bus_url=url, cinder_url=f"{there}/v3", host=HOST, extra=extra)
        processes = Processes(site)
        stack.callback(processes.stop)
        bus = CinderBus(url)
        stack.callback(bus.close)
        yield Place(site=site, processes=processes, bus=bus, volumes=keys, arrivals=directory / "arrivals.txt")


@contextmanager
def played_host(place_: Place, *, host: str = HOST, report: bool = True, known: bool = True) -> Iterator[None]:
    """The host of all volumes; `known`: wait until an engine has taken its inventory."""
    settings = {
        "url": place_.site.bus_url, "host": host, "report": report, "arrivals": str(place_.arrivals),
        "servers": [[key.server_id, key.volume_id] for key in place_.volumes],
    }  # fmt: skip
    path = place_.site.directory / "host.json"
    path.write_text(json.dumps(settings))
    with _child("tests.benchmarks.played_host", str(path)) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "ready"
        if known:
            until(lambda: place_.site.knows(place_.volumes[-1].server_id), "the host is known", seconds=60)
        yield


@contextmanager
def _cinder(directory: Path, keys: Sequence[ExtendKey]) -> Iterator[str]:
    """The stand-in, in a process of its own: its URL."""
    path, port = directory / "volumes.json", steady_port()
    path.write_text(
        json.dumps(
            [
                {
                    "id": key.volume_id,
                    "size": _SIZE,
                    "attachments": [
                        {
                            "server_id": key.server_id,
                            "host": HOST,
                            "connection_info": {"driver_volume_type": "nfs", "format": "raw"},
                        }
                    ],
                }
                for key in keys
            ]
        )
    )
    with _child("bridge.standin.cmd", "--bind-port", str(port), "--volumes", str(path)):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _child(module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    said: IO[bytes]
    with open("/dev/null", "wb") as said:  # noqa: PTH123
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], cwd=ROOT, text=True, stderr=said,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.wait()
