# SPDX-License-Identifier: Apache-2.0
"""Libvirt's numbers, checked against the binding's own constants where it is installed."""

import pytest

from bridge.core.inventory import GuestState
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.drivers.base import AgentTrouble, GuestAgentError, GuestArrival
from hostagent.drivers.libvirt import agent, errors, guest, watch
from hostagent.drivers.libvirt.errors import connection_lost, guest_state
from hostagent.drivers.libvirt.guest import RESIZE, read_capacity
from hostagent.errors import StepFailedError
from tests.unit.hostagent.fakes import FakeLibvirtError

libvirt = pytest.importorskip("libvirt")


def test_our_error_numbers_are_those_of_libvirt() -> None:
    """They never change in libvirt; a typing error here would."""
    assert (errors._NO_DOMAIN, errors._OPERATION_TIMEOUT) == (
        libvirt.VIR_ERR_NO_DOMAIN,
        libvirt.VIR_ERR_OPERATION_TIMEOUT,
    )
    assert errors._BLOCK_COPY_ACTIVE == libvirt.VIR_ERR_BLOCK_COPY_ACTIVE
    assert errors._FROM_RPC == libvirt.VIR_FROM_RPC
    missing = {libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_OPERATION_DENIED}
    assert missing | {libvirt.VIR_ERR_INVALID_SECRET, libvirt.VIR_ERR_NO_SECRET} == errors._NO_SECRET
    assert guest._BYTES == libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES
    assert (watch._LIFECYCLE, watch._REBOOT, watch._REMOVED, watch._ADDED) == (
        libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
        libvirt.VIR_DOMAIN_EVENT_ID_REBOOT,
        libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
        libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
    )


def test_a_guest_that_migrated_away_is_told_from_one_that_is_off() -> None:
    assert errors.has_left(libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_MIGRATED)
    assert not errors.has_left(libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN)
    assert not errors.has_left(libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_MIGRATED)


def test_a_guest_that_was_restored_paused_is_here() -> None:
    """libvirt calls it paused for a migration, as a guest that is being received, which has a job."""
    state, reason = libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION
    assert guest_state(state, reason, has_job=False) is GuestState.ACTIVE
    assert guest_state(state, reason, has_job=True) is GuestState.INCOMING


def test_the_errors_that_stay_are_libvirts() -> None:
    assert {
        libvirt.VIR_ERR_NO_SUPPORT,
        libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
        libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
        libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    } == errors._UNSUPPORTED


@pytest.mark.parametrize(
    ("event", "detail", "how"),
    [
        ("STARTED", "STARTED_BOOTED", GuestArrival.STARTED),
        ("STARTED", "STARTED_MIGRATED", GuestArrival.CAME_BACK),
        ("STARTED", "STARTED_RESTORED", GuestArrival.CAME_BACK),
        ("STARTED", "STARTED_FROM_SNAPSHOT", GuestArrival.CAME_BACK),
        ("STARTED", "STARTED_WAKEUP", GuestArrival.CAME_BACK),
        ("RESUMED", "RESUMED_MIGRATED", GuestArrival.CAME_BACK),
        ("RESUMED", "RESUMED_FROM_SNAPSHOT", GuestArrival.CAME_BACK),
        ("RESUMED", "RESUMED_POSTCOPY", GuestArrival.CAME_BACK),
        ("RESUMED", "RESUMED_UNPAUSED", None),
        ("SUSPENDED", "SUSPENDED_RESTORED", GuestArrival.CAME_BACK),
        ("SUSPENDED", "SUSPENDED_FROM_SNAPSHOT", GuestArrival.CAME_BACK),
        ("SUSPENDED", "SUSPENDED_PAUSED", None),
        ("SUSPENDED", "SUSPENDED_MIGRATED", None),
        ("STOPPED", "STOPPED_SAVED", None),
    ],
)
def test_events_that_bring_a_guest_in_or_back(event: str, detail: str, how: GuestArrival | None) -> None:
    """Its memory may be of a time before its disks grew; a guest that boots reads them."""
    numbers = [getattr(libvirt, f"VIR_DOMAIN_EVENT_{name}") for name in (event, detail)]
    assert watch.arrival(*numbers) is how


@pytest.mark.parametrize(
    ("reason", "has_image", "saved"),
    [("SAVED", False, True), ("SAVED", True, True), ("UNKNOWN", True, True), ("SHUTDOWN", False, False),
     ("DESTROYED", False, False), ("CRASHED", False, False), ("FROM_SNAPSHOT", False, False)],
)  # fmt: skip
def test_a_domain_that_is_saved_is_not_merely_off(reason: str, has_image: bool, saved: bool) -> None:
    """After a restart libvirtd has forgotten the reason, and still has the image."""
    number = getattr(libvirt, f"VIR_DOMAIN_SHUTOFF_{reason}")
    assert errors.is_saved(libvirt.VIR_DOMAIN_SHUTOFF, number, has_image=has_image) is saved
    assert not errors.is_saved(libvirt.VIR_DOMAIN_RUNNING, number, has_image=has_image)


@pytest.mark.parametrize(
    ("code", "text", "outcome", "reason"),
    [
        (1, "unable to execute QEMU command 'block_resize': Image format driver does not support resize",
         Outcome.UNSUPPORTED, Reason.RESIZE_UNSUPPORTED),
        (1, "internal error: unable to execute QEMU command 'block_resize': Block node 'x' is read-only",
         Outcome.UNSUPPORTED, Reason.READ_ONLY),
        (84, "Operation not supported: block resize is not supported for vhostuser disk",
         Outcome.UNSUPPORTED, Reason.RESIZE_UNSUPPORTED),
        (3, "this function is not supported by the connection driver", Outcome.UNSUPPORTED,
         Reason.RESIZE_UNSUPPORTED),
        (55, "Requested operation is not valid: migration statistics are available only on the source host",
         Outcome.BUSY, Reason.DOMAIN_JOB),
        (29, "operation forbidden: read only access prevents virDomainBlockResize", Outcome.HYPERVISOR_FAILED,
         Reason.HYPERVISOR_RAISED),
        (1, "internal error: something else", Outcome.HYPERVISOR_FAILED, Reason.HYPERVISOR_RAISED),
        (55, "Requested operation is not valid: domain is not running", Outcome.HYPERVISOR_FAILED,
         Reason.HYPERVISOR_RAISED),
    ],
)  # fmt: skip
def test_errors_of_a_resize_that_stay_are_not_tried_again(
    code: int, text: str, outcome: Outcome, reason: Reason
) -> None:
    stopped = errors.stopped(FakeLibvirtError(code, text), RESIZE)
    assert (stopped.outcome, stopped.reason) == (outcome, reason)


def test_an_error_of_another_call_says_nothing_of_resizes() -> None:
    stopped = errors.stopped(FakeLibvirtError(3, "this function is not supported"), "look")
    assert stopped.outcome is Outcome.HYPERVISOR_FAILED


@pytest.mark.parametrize(
    ("state", "reason", "expected"),
    [
        ("RUNNING", 0, GuestState.ACTIVE),
        ("BLOCKED", 0, GuestState.ACTIVE),
        ("SHUTDOWN", 0, GuestState.ACTIVE),
        ("PMSUSPENDED", 0, GuestState.ACTIVE),
        ("SHUTOFF", 0, GuestState.OFF),
        ("CRASHED", 0, GuestState.ACTIVE),
        ("NOSTATE", 0, GuestState.OFF),
    ],
)
def test_each_state_of_a_domain_says_whether_qemu_has_the_disk_open(
    state: str, reason: int, expected: GuestState
) -> None:
    """QEMU has the disk open, or it has not."""
    assert guest_state(getattr(libvirt, f"VIR_DOMAIN_{state}"), reason) is expected


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("USER", GuestState.ACTIVE),
        ("IOERROR", GuestState.ACTIVE),
        ("MIGRATION", GuestState.INCOMING),
        ("POSTCOPY", GuestState.INCOMING),
        ("POSTCOPY_FAILED", GuestState.INCOMING),
        ("STARTING_UP", GuestState.INCOMING),
    ],
)
def test_paused_is_active_unless_the_guest_is_elsewhere(reason: str, expected: GuestState) -> None:
    """An administrator's pause, or one by a full disk, leaves the guest here."""
    assert guest_state(libvirt.VIR_DOMAIN_PAUSED, getattr(libvirt, f"VIR_DOMAIN_PAUSED_{reason}")) is expected


def test_a_missing_file_is_no_lost_connection() -> None:
    """Code 38 is also what blockInfo says of a device that is not there."""
    assert not connection_lost(FakeLibvirtError(38, "cannot stat file '/dev/x': No such file or directory"))
    assert connection_lost(FakeLibvirtError(38, "Cannot recv data: Connection reset by peer", domain=7))
    assert connection_lost(FakeLibvirtError(1, "internal error: client socket is closed"))


@pytest.mark.parametrize(
    "answer",
    [[-1, 0, 5], [5, 0, -1], [1 << 63, 0, 5], [5, 0], [5, 0, 5, 5], None, "abc", [5.0, 0, 5], [None, 0, 5], []],
)
def test_sizes_that_no_disk_has_are_an_error_in_words(answer: object) -> None:
    with pytest.raises(StepFailedError, match="sizes of vda that no disk has"):
        read_capacity(AnswersAnything(answer), "vda")  # type: ignore[arg-type]


class AnswersAnything:
    """A domain with this answer of virDomainGetBlockInfo."""

    def __init__(self, answer: object) -> None:
        self._answer = answer

    def blockInfo(self, _target: str) -> object:  # noqa: N802
        return self._answer


@pytest.mark.parametrize(
    ("code", "text", "why"),
    [
        (86, "Guest agent is not responding: QEMU guest agent is not connected", "absent"),
        (86, "Guest agent is not responding: Guest agent not available for now", "silent"),
        (86, "Guest agent is not responding: guest agent didn't respond", "silent"),
        (libvirt.VIR_ERR_AGENT_UNSYNCED, "guest agent replied with wrong id", "silent"),
        (libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED, "QEMU guest agent is not configured", "absent"),
        (1, "unable to execute QEMU agent command 'x': Command x has been disabled", "refused"),
        (38, "No complete agent response found in 10485760 bytes: Numerical result out of range", "bad_answer"),
        (39, "Unable to encode message payload", "bad_answer"),
        (1, "internal error: cannot parse json {: parse error: premature EOF", "bad_answer"),
        (libvirt.VIR_ERR_NO_DOMAIN, "Domain not found", None),
        (libvirt.VIR_ERR_SYSTEM_ERROR, "Cannot recv data: Connection reset by peer", None),
    ],
)  # fmt: skip
def test_what_a_failed_call_says_of_the_guests_agent(code: int, text: str, why: str | None) -> None:
    assert agent.trouble(code, text) == why


def test_an_answer_that_the_binding_cannot_decode_is_the_agents_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def undecodable(*_arguments: object) -> str:
        raise SystemError("<built-in function virDomainQemuAgentCommand> returned a result with an exception set")

    monkeypatch.setattr("libvirt_qemu.qemuAgentCommand", undecodable)
    with pytest.raises(GuestAgentError) as caught:
        agent.ask(None, {"execute": "guest-get-disks"}, 5)
    assert caught.value.why is AgentTrouble.BAD_ANSWER


def test_an_answer_of_too_many_values_is_not_parsed() -> None:
    with pytest.raises(GuestAgentError) as caught:
        agent.answer_of('{"return": [' + "{}, " * 1_000_000 + "{}]}")
    assert caught.value.why is AgentTrouble.BAD_ANSWER


def test_an_answer_above_libvirts_limits_is_no_lost_connection() -> None:
    """Code 39: a domain may keep megabytes of metadata, and a new connection would not help."""
    too_large = FakeLibvirtError(39, "Unable to encode message payload", 7)
    assert not errors.connection_lost(too_large)
    assert errors.stopped(too_large, "look").reason is Reason.HYPERVISOR_RAISED
    assert errors.connection_lost(FakeLibvirtError(39, "cannot send data: Broken pipe", 7))
