# SPDX-License-Identifier: Apache-2.0
"""The steps of tools/live --nova: Nova extends, and the bridge sees to it that it does."""

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from bridge.core.extend import gib
from tests.lab.guest import Guest
from tests.lab.waiting import until
from tests.live.nova import COMPUTE, QUEUE
from tests.live.nova_cloud import NovaCloud, NovaRegion
from tests.live.servers import InstanceAction
from tests.live.step import LiveStep
from tests.live.volumes import LiveVolume

DISK: Final = "vdb"
"""The name of the volume in the guest, which boots from vda."""
SUCCESS: Final = "Success"


@contextmanager
def guest_of(cloud: NovaCloud) -> Iterator[tuple[Guest, LiveVolume]]:
    """A server with a volume of 1 GiB; it is deleted where the step succeeds."""
    guest, volume = cloud.new_guest()
    yield guest, volume
    cloud.remove(guest, volume)


def grown(cloud: NovaCloud, volume: LiveVolume) -> None:
    """Extend the volume and wait until Cinder has done it."""
    cloud.user.extend(volume, by="api")
    cloud.user.extended(volume)


def posts(cloud: NovaCloud, guest: Guest) -> Counter[str]:
    """Return how often each part of the bridge posted the event of a server, by the audit log."""
    lines = map(json.loads, cloud.bridge.audit_log.read_text().splitlines())
    return Counter(x["part"] for x in lines if x["event"] == "posted" and x.get("server") == guest.server_id)


def told_once(actions: list[InstanceAction], times: int) -> None:
    """Raise unless Nova did each of so many extends, and did none twice."""
    results = [action.result for action in actions]
    assert results == [SUCCESS] * times, f"Nova was told {len(actions)} times: {results}"


def by_cinder(cloud: NovaCloud) -> str:
    """Extend where Cinder tells Nova itself and no listener runs."""
    with guest_of(cloud) as (guest, volume):
        cloud.bridge.stop("listener")
        cloud.cinder.look_for_nova_in(NovaRegion.TRUE)
        try:
            grown(cloud, volume)
            took = guest.wait_size(gib(volume.size), DISK)
            told_once(cloud.operator.wait_extended(guest), 1)
        finally:
            cloud.cinder.look_for_nova_in(NovaRegion.CUT)
            cloud.bridge.start("listener")
            cloud.bridge.wait_ready("listener")
        return f"Cinder told Nova itself; the guest sees {volume.size} GiB {took:.1f} s after Cinder was done"


def by_listener(cloud: NovaCloud, *, times: int) -> str:
    """Extend where the listener is the only way; Nova has one action for each extend."""
    with guest_of(cloud) as (guest, volume):
        for done in range(times):
            grown(cloud, volume)
            took = guest.wait_size(gib(volume.size), DISK)
            told_once(cloud.operator.wait_extended(guest, times=done + 1), done + 1)
        sent = posts(cloud, guest)
        assert sent == {"listener": times}, f"posts: {dict(sent)}"
        return f"{times} posts, Nova's verdict {SUCCESS} for each; the last seen {took:.1f} s after Cinder was done"


def listener_away(cloud: NovaCloud) -> str:
    """Extend while the listener is dead; it finds the message when it is back."""
    with guest_of(cloud) as (guest, volume):
        cloud.bridge.stop("listener", signal.SIGKILL)
        grown(cloud, volume)
        cloud.bridge.start("listener")
        took = guest.wait_size(gib(volume.size), DISK)
        cloud.bridge.wait_ready()
        return f"the guest sees {volume.size} GiB {took:.1f} s after the listener was started"


def compute_away(
    cloud: NovaCloud, *, stop: Callable[[NovaCloud], object], start: Callable[[NovaCloud], object]
) -> str:
    """Extend while nova-compute is away; the guest has its size afterwards, and a second post changes nothing."""
    with guest_of(cloud) as (guest, volume):
        stop(cloud)
        try:
            grown(cloud, volume)
            until(lambda: posts(cloud, guest)["listener"], "Nova has the event")
        finally:
            start(cloud)
        took = guest.wait_size(gib(volume.size), DISK)
        until(
            lambda: cloud.operator.extends(guest)[-1].result == SUCCESS,
            lambda: f"Nova has done the last extend: {cloud.operator.extends(guest)}",
        )
        seen = guest.sizes(DISK)
        assert seen == sorted(set(seen)), f"a size was told twice or shrank: {seen}"
        sent = posts(cloud, guest)
        results = ", ".join(str(action.result) for action in cloud.operator.extends(guest))
        return (
            f"seen {took:.1f} s after nova-compute was back; posts: {sent['listener']} by the listener, "
            f"{sent['engine']} by observe mode; Nova's results: {results}"
        )


def api_killed(cloud: NovaCloud) -> str:
    """Extend while Nova's API is dead; the listener holds the event."""
    with guest_of(cloud) as (guest, volume):
        cloud.nova.stop_part("nova")
        try:
            grown(cloud, volume)
        finally:
            cloud.nova.start_part("nova")
        took = guest.wait_size(gib(volume.size), DISK)
        cloud.bridge.wait_ready("listener")
        return f"the guest sees {volume.size} GiB {took:.1f} s after Nova's API was back"


def _lose_cast(cloud: NovaCloud) -> None:
    """Drop what nova-compute has not taken from its queue, and start it."""
    until(lambda: _waiting(cloud) > 0, "Nova has cast the event", every=1)
    cloud.broker.ctl("purge_queue", QUEUE)
    _start_compute(cloud)


def _waiting(cloud: NovaCloud) -> int:
    rows = [line.split("\t") for line in cloud.broker.ctl("list_queues", "name", "messages").splitlines()]
    return sum(int(row[1]) for row in rows if row[0] == QUEUE)


def _start_compute(cloud: NovaCloud) -> None:
    cloud.nova.start_part(COMPUTE)


_COMPUTE: Final[dict[str, tuple[str, Callable[[NovaCloud], object], Callable[[NovaCloud], object]]]] = {
    "compute-killed": (
        "nova-compute is killed meanwhile", lambda c: c.nova.stop_part(COMPUTE), _start_compute,
    ),
    "compute-frozen": (
        "nova-compute is frozen meanwhile",
        lambda c: c.nova.send(COMPUTE, signal.SIGSTOP),
        lambda c: c.nova.send(COMPUTE, signal.SIGCONT),
    ),
    "cast-lost": (
        "Nova's cast to nova-compute is lost; observe mode tells Nova again",
        lambda c: c.nova.stop_part(COMPUTE), _lose_cast,
    ),
}  # fmt: skip

STEPS: Final[tuple[LiveStep[NovaCloud], ...]] = (
    LiveStep(name="nova-alone", about="Cinder tells Nova itself, without us", play=by_cinder),
    LiveStep(name="listener", about="the listener is the only way to Nova", play=partial(by_listener, times=1)),
    LiveStep(name="again", about="three times in a row", play=partial(by_listener, times=3)),
    LiveStep(name="listener-killed", about="the listener is dead meanwhile", play=listener_away),
    LiveStep(name="nova-api-killed", about="Nova's API is dead meanwhile", play=api_killed),
    *(
        LiveStep(name=name, about=about, play=partial(compute_away, stop=stop, start=start))
        for name, (about, stop, start) in _COMPUTE.items()
    ),
)
