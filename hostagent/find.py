# SPDX-License-Identifier: Apache-2.0
"""From an order's server and volume to the one disk that is meant, or why there is none."""

from bridge.core.extend import ExtendKey
from bridge.core.messages import GuestState
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.domain import Disk, Domain
from hostagent.failure import StoppedError
from hostagent.ports import Hypervisor


def find_disk(hypervisor: Hypervisor, key: ExtendKey) -> tuple[Domain, Disk]:
    """The domain and its disk. Raises StoppedError, also where several disks carry the volume's id."""
    domain = hypervisor.domain(key.server_id)
    if domain is None:
        raise StoppedError(Outcome.NOT_HERE, Reason.DOMAIN_ABSENT)
    if domain.state is GuestState.INCOMING:
        raise StoppedError(Outcome.NOT_HERE, Reason.DOMAIN_INCOMING)
    disks = domain.disks_of(key.volume_id)
    if not disks:
        raise StoppedError(Outcome.NOT_ATTACHED, Reason.DISK_ABSENT)
    if len(disks) > 1:
        names = ", ".join(disk.target for disk in disks)
        raise StoppedError(Outcome.REFUSED, Reason.WRONG_DEVICE, f"several disks carry this volume's id: {names}")
    return domain, disks[0]
