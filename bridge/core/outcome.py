# SPDX-License-Identifier: Apache-2.0
"""The outcomes a host can report for an extend, and the journal's next step after each of them."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Outcome(StrEnum):
    """The result of one attempt on one host, or the reason the control plane closed the extend itself."""

    RESIZED = "resized"  # the guest had less and now has the size: read back, and the guest was told
    ALREADY = "already"  # the virtual hardware had the size; the guest was told, or reads it at its restart
    GUEST_OFF = "guest_off"  # host side done; the guest reads the size at its next start
    GUEST_SAVED = "guest_saved"  # the guest is saved to disk and keeps its old size until it is back and told
    NOT_HERE = "not_here"  # the domain is not active on this host
    NOT_ATTACHED = "not_attached"  # the domain is here, without this volume
    DEVICE_STALE = "device_stale"  # the host's device is still smaller than the volume
    PATHS_DOWN = "paths_down"  # a path of the multipath map does not answer
    BUSY = "busy"  # the hypervisor: a block job or another operation holds the disk
    BRICK_FAILED = "brick_failed"  # os-brick raised, hung or was killed
    HYPERVISOR_FAILED = "libvirt_failed"  # the hypervisor refused, hung or disconnected; an older code
    NOT_YET = "not_yet"  # from an agent that only looks: Nova's compute has not extended it, or told the guest
    ERROR = "error"  # an error without a name: uncertain, so tried again
    UNSUPPORTED = "unsupported"  # this disk cannot be extended on this host while its guest runs
    REFUSED = "refused"  # a guard refused: the disk would shrink, or is the wrong device
    VOLUME_GONE = "volume_gone"  # Cinder: 404
    DETACHED = "detached"  # Cinder: the volume is no longer attached to this server


class Told(StrEnum):
    """The guest's knowledge of a disk: is the size of its virtual hardware known inside the guest?"""

    YES = "yes"  # the guest was told in this run, or read the size itself when it started
    NO = "no"  # the guest was not told so far
    AT_RESTART = "at_restart"  # the guest cannot be told, because it reads this disk's size only when it starts


class Then(StrEnum):
    """The journal's next step for an extend after an outcome."""

    CLOSE = "close"  # done, verified
    LOCATE = "locate"  # locate the host again
    RECHECK = "recheck"  # ask Cinder whether the volume is still attached
    RETRY = "retry"  # due again after a back-off
    FAIL = "fail"  # closed as failed, alarm; `event retry` opens it again
    DROP = "drop"  # closed: nothing is left to extend


THEN: Final[Mapping[Outcome, Then]] = MappingProxyType(
    {
        Outcome.RESIZED: Then.CLOSE,
        Outcome.ALREADY: Then.CLOSE,
        Outcome.GUEST_OFF: Then.CLOSE,
        Outcome.GUEST_SAVED: Then.RETRY,
        Outcome.NOT_HERE: Then.LOCATE,
        Outcome.NOT_ATTACHED: Then.RECHECK,
        Outcome.DEVICE_STALE: Then.RETRY,
        Outcome.PATHS_DOWN: Then.RETRY,
        Outcome.BUSY: Then.RETRY,
        Outcome.BRICK_FAILED: Then.RETRY,
        Outcome.HYPERVISOR_FAILED: Then.RETRY,
        Outcome.NOT_YET: Then.RETRY,
        Outcome.ERROR: Then.RETRY,
        Outcome.UNSUPPORTED: Then.FAIL,
        Outcome.REFUSED: Then.FAIL,
        Outcome.VOLUME_GONE: Then.DROP,
        Outcome.DETACHED: Then.DROP,
    }
)
