# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.lab.storage_vm.inside PORT`: sets the VM up, runs every case, ends."""

import bridge.runtime.threads  # noqa: F401 - before os-brick

# isort: split
import logging
import os
import sys
from pathlib import Path

from tests.lab.hypervisor import prepare_machine
from tests.lab.storage_vm.inside import cases_crypt, cases_iscsi, cases_multipath, cases_nvme
from tests.lab.storage_vm.inside.agent import Agent
from tests.lab.storage_vm.inside.commands import sh
from tests.lab.storage_vm.inside.compute import Compute, set_up_brick
from tests.lab.storage_vm.inside.results import Results, say
from tests.lab.storage_vm.inside.targets import STATE


def main(port: str) -> None:
    """Everything slow to start is started at once."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s %(levelname)s %(message)s")
    STATE.mkdir()
    prepare_machine()
    uri = f"qemu:///embed?root={STATE / 'lv'}"
    single = Agent("single", uri, multipath=False)
    multi = Agent("multi", uri, multipath=True)
    for agent in (single, multi):
        agent.start()
    sh("modprobe", "-a", "loop", "sd_mod", "iscsi_tcp", "target_core_mod", "target_core_iblock", "iscsi_target_mod")
    sh("mount", "-t", "configfs", "configfs", "/sys/kernel/config")
    Path("/run/lock/iscsi").mkdir(parents=True)
    Path("/etc/iscsi/initiatorname.iscsi").write_text("InitiatorName=iqn.1993-08.org.debian:01:storage-vm\n")
    quick_to_give_up = "node.session.timeo.replacement_timeout = 5\n"  # as multipath hosts have it
    with Path("/etc/iscsi/iscsid.conf").open("a") as conf:
        conf.write(quick_to_give_up)
    sh("iscsid")
    say("iscsid")
    set_up_brick()
    say("os-brick")
    compute = Compute()
    say("libvirt")
    results = Results(Path(port))
    cases_iscsi.run(results, compute, single)
    cases_nvme.run(results, compute, single)
    cases_crypt.run(results, compute, single)
    cases_multipath.run(results, compute, multi, plain=single)
    cases_crypt.run_multipath(results, compute, multi)


if __name__ == "__main__":
    main(sys.argv[1])
    os._exit(0)  # libvirt's threads and os-brick's process have nothing to say any more
