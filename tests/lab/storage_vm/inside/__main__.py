# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.lab.storage_vm.inside PORT FORM [GROUP...]`: sets the VM up, runs the cases, ends.

FORM is short or long; without groups, all of them.
"""

import bridge.runtime.threads  # noqa: F401 - before os-brick

# isort: split
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tests.lab.hypervisor import prepare_machine
from tests.lab.storage_vm.inside import (
    cases_crypt,
    cases_fc,
    cases_iscsi,
    cases_multipath,
    cases_nfs,
    cases_nvme,
    cases_rdma,
)
from tests.lab.storage_vm.inside.agent import Agent
from tests.lab.storage_vm.inside.commands import sh
from tests.lab.storage_vm.inside.compute import Compute, set_up_brick
from tests.lab.storage_vm.inside.results import Results, say
from tests.lab.storage_vm.inside.targets import STATE


def main(port: str, form: str, *named: str) -> None:
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
    long = form == "long"
    groups: dict[str, Callable[[], None]] = {
        "iscsi": lambda: cases_iscsi.run(results, compute, single, long=long),
        "nvme": lambda: cases_nvme.run(results, compute, single),
        "crypt": lambda: cases_crypt.run(results, compute, single, long=long),
        "multipath": lambda: cases_multipath.run(results, compute, multi, plain=single, long=long),
        "crypt_multipath": lambda: cases_crypt.run_multipath(results, compute, multi),
        "fc": lambda: cases_fc.run(results, compute, single, long=long),
        "nfs": lambda: cases_nfs.run(results, compute, single, long=long),
        "iser": lambda: cases_rdma.run_iser(results, compute, single, long=long),
        "nvr": lambda: cases_rdma.run_nvme(results, compute, single, long=long),
    }
    if long:
        groups["fcmp"] = lambda: cases_fc.run_multipath(results, compute, multi, plain=single)
    groups["nvme_reused"] = lambda: cases_nvme.run_reused(results, compute, single)
    for name in named or groups:
        results.group(name, groups[name])


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # libvirt's threads and os-brick's process have nothing to say any more
