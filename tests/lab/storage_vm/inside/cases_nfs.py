# SPDX-License-Identifier: Apache-2.0
"""Raw and qcow2 files on a share of a real NFS server; QEMU grows them itself."""

import time
from functools import partial
from typing import Any, Final

from tests.lab.disks import Disk, Qcow2File, RawFile
from tests.lab.storage_vm.inside import nfs
from tests.lab.storage_vm.inside.agent import Agent
from tests.lab.storage_vm.inside.compute import Compute, Running
from tests.lab.storage_vm.inside.matrix import START, STEP
from tests.lab.storage_vm.inside.results import Results, seen

_GRACE: Final = 20.0  # seconds after a restart in which the server takes no new opens, and some


class _Share:
    """One file on the share, as a guest's disk."""

    def __init__(self, compute: Compute, agent: Agent, kind: str) -> None:
        path = nfs.MOUNT / f"volume-{kind}"
        self._disk: Disk = RawFile(path, START) if kind == "raw" else Qcow2File(path, START)
        self._agent = agent
        self.running: Running = compute.boot(self._disk)
        self.size = START
        data = {"export": "127.0.0.1:/", "name": f"volume-{kind}", "options": None, "format": kind}
        self.connection = {"driver_volume_type": "nfs", "data": data}

    def order(self, connection: dict[str, Any] | None) -> dict[str, Any]:
        """An order for the size of now; its report."""
        server_id = self.running.guest.server_id
        return seen(self._agent.extend(server_id, self._disk.volume_id, self.size, connection))

    def extend(self, state: str, connection: dict[str, Any] | None) -> dict[str, Any]:
        """One cell. QEMU is what grows a file: of a guest that is off the order is done at its next start."""
        domain = self.running.domain
        if state == "paused":
            domain.suspend()
        elif state == "off":
            domain.destroy()
        self.size += STEP
        report = self.order(connection)
        if state == "paused":
            domain.resume()
        elif state == "off":
            self.running.start()
            return {
                "off": report, "report": self.order(connection), "wanted": self.size,
                "guest": self.running.prints(self.size),
            }  # fmt: skip
        return {"report": report, "wanted": self.size, "guest": self.running.prints(self.size)}


def run(results: Results, compute: Compute, agent: Agent, *, long: bool) -> None:
    """Every case."""
    nfs.start()
    for kind in ("raw", "qcow2"):
        share = _Share(compute, agent, kind)
        cells = (("running", share.connection), ("paused", None), ("off", share.connection))
        for state, connection in cells if long else cells[:1]:
            way = "connection" if connection else "local"
            results.run(f"nfs_{kind}_{state}_{way}", partial(share.extend, state, connection))
        if long and kind == "raw":
            results.run("nfs_server_gone", partial(_server_gone, share))


def _server_gone(share: _Share) -> dict[str, Any]:
    """A hard mount waits for ever; the order does not."""
    before = share.size
    share.size += STEP
    nfs.serve(on=False)
    began = time.monotonic()
    report = share.order(share.connection)
    took = time.monotonic() - began
    nfs.serve(on=True)
    time.sleep(_GRACE)
    return {
        "report": report, "took": took, "before": before, "wanted": share.size,
        "healed": share.order(share.connection), "healed_guest": share.running.prints(share.size),
    }  # fmt: skip
