# SPDX-License-Identifier: Apache-2.0
"""The steps of tools/live: each extends volumes as a user does, disturbs something, and asks the guest."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from bridge.core.extend import gib
from tests.lab.guest import Guest
from tests.lab.waiting import until
from tests.live.bridge import PARTS, BridgeSite
from tests.live.cloud import TOKEN_SECONDS, LiveCloud
from tests.live.step import LiveStep
from tests.live.volumes import LiveVolume

_SHUTOFF: Final = 5  # VIR_DOMAIN_SHUTOFF


@contextmanager
def one_guest(cloud: LiveCloud) -> Iterator[tuple[Guest, LiveVolume]]:
    """Have a guest with a volume for one step; at its end no extend may be open."""
    guest, volume = cloud.new_guest()
    yield guest, volume
    cloud.wait_closed()
    cloud.remove(guest, volume)


def wait_grown(cloud: LiveCloud, volume: LiveVolume) -> None:
    """Extend the volume and wait until Cinder has done it."""
    cloud.user.extend(volume)
    cloud.user.extended(volume)


def see(guest: Guest, volume: LiveVolume) -> str:
    """Wait until the guest prints the volume's size; return the words for the step's line."""
    took = guest.wait_size(gib(volume.size))
    return f"the guest sees {volume.size} GiB {took:.1f} s after Cinder was done"


def by_client(cloud: LiveCloud, *, client: str) -> str:
    """Extend by a client of users."""
    with one_guest(cloud) as (guest, volume):
        cloud.user.extend(volume, by=client)
        cloud.user.extended(volume)
        return see(guest, volume)


def many(cloud: LiveCloud) -> str:
    """Extend one volume three times, each as soon as Cinder takes it."""
    with one_guest(cloud) as (guest, volume):
        for _ in range(3):
            wait_grown(cloud, volume)
        return see(guest, volume)


def part_away(
    cloud: LiveCloud,
    *,
    part: str,
    stop: Callable[[BridgeSite, str], object],
    start: Callable[[BridgeSite, str], object],
) -> str:
    """Extend while a part of ours is dead or stopped, then have it back; it is back also where the step fails."""
    with one_guest(cloud) as (guest, volume):
        stop(cloud.bridge, part)
        try:
            wait_grown(cloud, volume)
        finally:
            start(cloud.bridge, part)
        words = see(guest, volume)
        cloud.bridge.wait_ready()
        return words


def service_restarted(
    cloud: LiveCloud, *, stop: Callable[[LiveCloud], object], start: Callable[[LiveCloud], object]
) -> str:
    """Extend, take a service away as soon as Cinder has answered, and start it again."""
    with one_guest(cloud) as (guest, volume):
        cloud.user.extend(volume)
        stop(cloud)
        start(cloud)
        cloud.user.extended(volume)
        words = see(guest, volume)
        wait_grown(cloud, volume)  # Cinder's queue died with the broker and is made by its next message
        see(guest, volume)
        cloud.bridge.wait_ready()
        return words


def paused(cloud: LiveCloud) -> str:
    """Extend while the guest is paused."""
    with one_guest(cloud) as (guest, volume):
        cloud.domain(guest).suspend()
        wait_grown(cloud, volume)
        cloud.wait_closed()
        cloud.domain(guest).resume()
        return see(guest, volume)


def off(cloud: LiveCloud) -> str:
    """Extend while the guest is off."""
    with one_guest(cloud) as (guest, volume):
        cloud.domain(guest).destroy()
        until(lambda: cloud.domain(guest).state()[0] == _SHUTOFF, "the guest is off")
        wait_grown(cloud, volume)
        cloud.wait_closed()
        cloud.domain(guest).create()
        return see(guest, volume)


def saved(cloud: LiveCloud) -> str:
    """Extend while the guest is saved, as Nova suspends it."""
    with one_guest(cloud) as (guest, volume):
        cloud.domain(guest).managedSave(0)
        wait_grown(cloud, volume)
        cloud.domain(guest).create()
        return see(guest, volume)


def detached(cloud: LiveCloud) -> str:
    """Extend, and detach and delete right after: nothing stays open, and nothing is grown."""
    guest, volume = cloud.new_guest()
    wait_grown(cloud, volume)
    cloud.remove(guest, volume)
    cloud.wait_closed()
    return "no extend is open after the volume was detached and deleted"


def tokens(cloud: LiveCloud) -> str:
    """Extend once more after every token of the walk's beginning has ended."""
    with one_guest(cloud) as (guest, volume):
        token = cloud.keystone.token("cinder", "service")
        wait_grown(cloud, volume)
        see(guest, volume)
        until(lambda: not cloud.keystone.knows(token), "the tokens have ended", seconds=TOKEN_SECONDS * 5)
        wait_grown(cloud, volume)
        return see(guest, volume)


def _restart_libvirtd(cloud: LiveCloud) -> None:
    cloud.libvirtd.start()
    cloud.reconnect()


_SERVICES: Final[dict[str, tuple[str, Callable[[LiveCloud], object], Callable[[LiveCloud], object]]]] = {
    "broker": ("RabbitMQ", lambda c: c.broker.kill(), lambda c: c.broker.start()),
    "database": ("MariaDB", lambda c: c.database.kill(), lambda c: c.database.start()),
    "keystone": (
        "Keystone",
        lambda c: c.keystone.stop(),
        lambda c: c.keystone.start(token_seconds=TOKEN_SECONDS) and None,
    ),
    "cinder-api": ("Cinder's API", lambda c: c.cinder.stop_part("api"), lambda c: c.cinder.start_part("api")),
    "libvirtd": ("libvirtd", lambda c: c.libvirtd.stop(signal.SIGKILL), _restart_libvirtd),
}

_AWAY: Final[dict[str, tuple[Callable[[BridgeSite, str], object], Callable[[BridgeSite, str], object]]]] = {
    "killed": (lambda site, part: site.stop(part, signal.SIGKILL), lambda site, part: site.start(part)),
    "frozen": (
        lambda site, part: site.send(part, signal.SIGSTOP),
        lambda site, part: site.send(part, signal.SIGCONT),
    ),
}

STEPS: Final = (
    LiveStep(name="cinderclient", about="extended by `cinder extend`", play=partial(by_client, client="cinder")),
    LiveStep(name="openstacksdk", about="extended by openstacksdk", play=partial(by_client, client="sdk")),
    LiveStep(name="many", about="extended three times in a row", play=many),
    *(
        LiveStep(
            name=f"{part}-{name}", about=f"{part} is {name} meanwhile",
            play=partial(part_away, part=part, stop=stop, start=start),
        )
        for name, (stop, start) in _AWAY.items()
        for part in PARTS
    ),
    *(
        LiveStep(
            name=f"{name}-killed", about=f"{about} dies with an extend on its way",
            play=partial(service_restarted, stop=stop, start=start),
        )
        for name, (about, stop, start) in _SERVICES.items()
    ),
    LiveStep(name="paused", about="the guest is paused", play=paused),
    LiveStep(name="off", about="the guest is off", play=off),
    LiveStep(name="saved", about="the guest is saved to disk, as by a suspend", play=saved),
    LiveStep(name="detached", about="detached and deleted right after", play=detached),
    LiveStep(name="tokens", about=f"tokens of {TOKEN_SECONDS} s have ended", play=tokens),
)  # fmt: skip
