# SPDX-License-Identifier: Apache-2.0
"""The same six extends for every kind of block storage: three states of the guest, connection data or none."""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from bridge.core.encryption import Encryption
from tests.lab.storage_vm.inside.agent import Agent
from tests.lab.storage_vm.inside.commands import sh
from tests.lab.storage_vm.inside.compute import Attached, Compute, Running, Volume, disconnect
from tests.lab.storage_vm.inside.results import Results, seen

MIB: Final = 1 << 20
START: Final = 64 * MIB
STEP: Final = 32 * MIB
_LATE: Final = 2.0  # seconds; longer than a first rescan takes, shorter than the agent waits


class Backing(Protocol):
    """What one path of a volume shows."""

    def grow(self, size: int) -> None:
        """Show `size` bytes."""


_CONFIG: Final = 2  # VIR_DOMAIN_AFFECT_CONFIG


class Bench:
    """One volume in one guest. Every extend makes it one step larger than the last."""

    def __init__(self, compute: Compute, agent: Agent, volume: Volume, attach: Callable[[], Attached]) -> None:
        self.volume = volume
        self.size = START
        self._compute = compute
        self._agent = agent
        self._attach = attach
        self._guest: Running | None = None
        self._attached: Attached | None = None
        self.path = ""
        self.hidden = 0

    @property
    def guest(self) -> Running:
        """Booted when it is first needed, running."""
        if self._guest is None:
            attached = self._connected()
            self._guest = self._compute.boot(attached)
        return self._guest

    def _connected(self) -> Attached:
        self._attached = attached = self._attach()
        self.path, self.hidden = attached.path, attached.hidden
        return attached

    def detach(self) -> None:
        """Shut the guest off, detach its disk as Nova does, and let the agent see that."""
        assert self._attached is not None
        self.guest.domain.destroy()
        self.guest.domain.detachDeviceFlags(self._attached.xml("vda"), _CONFIG)
        self._agent.look(self.guest.guest.server_id)
        disconnect(self.volume, self.path)

    def attach(self) -> None:
        """Attach the volume again and start the guest."""
        self.guest.domain.attachDeviceFlags(self._connected().xml("vda"), _CONFIG)
        self.guest.start()

    def restart_agent(self) -> None:
        """What an agent knows after a restart is what lies in its state_path."""
        self._agent.restart()

    def grow(self) -> int:
        """One step on the target; the new size."""
        self.size += STEP
        self.volume.grow(self.size)
        return self.size

    def order(
        self,
        connection: dict[str, Any] | None,
        *,
        by: Agent | None = None,
        encryption: Encryption | None = None,
        keys: bool = True,
    ) -> dict[str, Any]:
        """An order for the size the volume has now; its report."""
        server_id = self.guest.guest.server_id
        agent = by or self._agent
        return seen(
            agent.extend(server_id, self.volume.volume_id, self.size, connection, encryption=encryption, keys=keys)
        )

    def extend(
        self,
        state: str,
        connection: dict[str, Any] | None,
        *,
        by: Agent | None = None,
        encryption: Encryption | None = None,
    ) -> dict[str, Any]:
        """One cell of the table: {"report", "host", "guest": what it printed when it ran again, "wanted", ...}.

        `host` and `guest` are what they show: of an encrypted volume all but the `hidden` header.
        """
        domain = self.guest.domain
        if state == "paused":
            domain.suspend()
        elif state == "off":
            domain.destroy()
        wanted = self.grow()
        report = self.order(connection, by=by, encryption=encryption)
        host = int(sh("blockdev", "--getsize64", self.path))
        if state == "paused":
            domain.resume()
        elif state == "off":
            self.guest.start()
        guest = self.guest.prints(wanted - self.hidden)
        return {"report": report, "wanted": wanted, "host": host, "guest": guest, "hidden": self.hidden}


def path_lost(bench: Bench, compute: Compute, down: Callable[[], None], up: Callable[[], None]) -> dict[str, Any]:
    """Order twice while the only path of the volume is down, once more when it is up again."""
    before = bench.guest.shows()
    name = sh("readlink", "-f", bench.path).rsplit("/", 1)[-1]
    down()
    compute.until_any([f"/sys/block/{name}/device/state"], {"blocked", "transport-offline"}, seconds=90)
    report, local = bench.order(bench.volume.connection), bench.order(None)
    guest = bench.guest.prints(before)
    up()
    compute.until(f"/sys/block/{name}/device/state", "running")
    return {
        "report": report, "local": local, "before": before, "guest": guest,
        "healed": bench.order(bench.volume.connection), "healed_guest": bench.guest.prints(bench.size),
        "wanted": bench.size,
    }  # fmt: skip


def late(bench: Bench) -> dict[str, Any]:
    """Order before the array has grown the volume, which it does while the agent waits."""
    bench.size += STEP
    timer = threading.Timer(_LATE, bench.volume.grow, (bench.size,))
    timer.start()
    report = bench.order(bench.volume.connection)
    timer.join()
    return {"report": report, "wanted": bench.size, "guest": bench.guest.prints(bench.size)}


def uneven_paths(bench: Bench, backings: Sequence[Backing]) -> dict[str, Any]:
    """Order twice while one of two paths shows the old size, once more when both show the new one."""
    before = bench.guest.prints(START)
    bench.size += STEP
    backings[0].grow(bench.size)
    report, local = bench.order(bench.volume.connection), bench.order(None)
    guest = bench.guest.prints(before)
    backings[1].grow(bench.size)
    return {
        "report": report, "local": local, "before": before, "guest": guest,
        "healed": bench.order(bench.volume.connection), "healed_guest": bench.guest.prints(bench.size),
        "wanted": bench.size,
    }  # fmt: skip


def run(results: Results, name: str, bench: Bench) -> None:
    """All six."""
    for state in ("running", "paused", "off"):
        for way, connection in (("connection", bench.volume.connection), ("local", None)):
            results.run(f"{name}_{state}_{way}", partial(bench.extend, state, connection))


def run_short(results: Results, name: str, bench: Bench) -> None:
    """A running guest, with connection data and without."""
    for way, connection in (("connection", bench.volume.connection), ("local", None)):
        results.run(f"{name}_running_{way}", partial(bench.extend, "running", connection))
