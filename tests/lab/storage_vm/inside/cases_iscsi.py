# SPDX-License-Identifier: Apache-2.0
"""iSCSI over one path."""

from typing import Any, Final

from tests.lab.storage_vm.inside.agent import Agent
from tests.lab.storage_vm.inside.compute import Compute, connect
from tests.lab.storage_vm.inside.results import Results, seen
from tests.lab.storage_vm.inside.targets import IscsiTarget

MIB: Final = 1 << 20


def run(results: Results, compute: Compute, agent: Agent) -> None:
    """Every case."""
    volume = IscsiTarget("single", ("127.0.0.1",)).add("single", 64 * MIB)

    def running() -> dict[str, Any]:
        attached = connect(volume, multipath=False)
        guest = compute.boot(attached)
        first = guest.prints(64 * MIB)
        volume.grow(128 * MIB)
        report = agent.extend(guest.guest.server_id, volume.volume_id, 128 * MIB, volume.connection)
        return {"first": first, "report": seen(report), "guest": guest.prints(128 * MIB)}

    results.run("iscsi_running", running)
