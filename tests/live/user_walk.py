# SPDX-License-Identifier: Apache-2.0
"""Steps of tools/live about what users and operators do with a volume around its extend."""

import json
from typing import Final

from bridge.core.extend import gib
from tests.lab.waiting import until
from tests.live.bridge import OPERATOR
from tests.live.cloud import LiveCloud
from tests.live.step import LiveStep
from tests.live.walk import one_guest, see, wait_grown

_OTHER_TYPE: Final = "other"
_SHARED_TYPE: Final = "shared"


def retyped(cloud: LiveCloud) -> str:
    """Extend, and give the volume another type right after; then extend it once more."""
    cloud.user.make_type(_OTHER_TYPE)
    with one_guest(cloud) as (guest, volume):
        wait_grown(cloud, volume)
        cloud.user.retype(volume, _OTHER_TYPE)
        see(guest, volume)
        wait_grown(cloud, volume)
        return see(guest, volume)


def reattached(cloud: LiveCloud) -> str:
    """Extend, and give the volume to another guest right after: the new one has the size, the order ends."""
    guest, volume = cloud.new_guest()
    wait_grown(cloud, volume)
    cloud.end_guest(guest, volume)
    second, again = cloud.new_guest(volume.volume_id)
    wait_grown(cloud, again)
    words = see(second, again)
    cloud.wait_closed()
    cloud.remove(second, again)
    return words


def multiattach(cloud: LiveCloud) -> str:
    """Extend a volume that two guests have."""
    cloud.user.make_type(_SHARED_TYPE, multiattach="<is> True")
    volume_id = cloud.user.create(1, kind=_SHARED_TYPE)
    first, volume = cloud.new_guest(volume_id)
    second, same = cloud.new_guest(volume_id)
    wait_grown(cloud, volume)
    words = see(first, volume)
    second.wait_size(gib(volume.size))
    cloud.wait_closed()
    cloud.end_guest(first, volume)
    cloud.remove(second, same)
    return f"both guests: {words}"


def replayed(cloud: LiveCloud) -> str:
    """Record an extend as an operator does, and send the recording to the endpoint again: nothing changes."""
    bridge = cloud.bridge
    recording = bridge.directory / "resizes.jsonl"
    bridge.conf(OPERATOR).write_text(f"[notifications]\ntransport_url = {cloud.bridge_url(bridge.operator, '')}\n")
    recorder = bridge.begin(OPERATOR, "record", "--output", str(recording), "--count", "1")
    with one_guest(cloud) as (guest, volume), recorder:
        try:
            until(
                lambda: recorder.poll() is not None or "extend_bridge.record." in _bindings(cloud),
                "the recorder's queue is bound",
            )
            wait_grown(cloud, volume)
            see(guest, volume)
            until(lambda: recorder.poll() is not None, "the recorder has its one extend")
            assert recorder.returncode == 0
        finally:
            recorder.kill()
        cloud.wait_closed()
        sent = bridge.run(
            "extend-bridge", "--config-file", str(bridge.conf("listener")), "replay", "--send", "-f", "json",
            str(recording), part="listener",
        )  # fmt: skip
        verdicts = {row["Verdict"]: row["Count"] for row in json.loads(sent)}
        assert verdicts.get("events") == 1, verdicts
        cloud.wait_closed()
        assert guest.sizes()[-1] == gib(volume.size)
        return f"recorded and sent again: {', '.join(f'{name} {count}' for name, count in verdicts.items())}"


def all_in_one(cloud: LiveCloud) -> str:
    """Extend with the one process in the place of the four."""
    with cloud.all_in_one(), one_guest(cloud) as (guest, volume):
        wait_grown(cloud, volume)
        return see(guest, volume)


def _bindings(cloud: LiveCloud) -> str:
    rows = cloud.broker.ctl("list_bindings", "-p", "/", "source_name", "destination_name").splitlines()
    return "\n".join(row for row in rows if not row.startswith("\t"))


STEPS: Final = (
    LiveStep(name="retyped", about="given another type right after", play=retyped),
    LiveStep(name="reattached", about="given to another guest right after", play=reattached),
    LiveStep(name="multiattach", about="two guests have the volume", play=multiattach),
    LiveStep(name="replayed", about="recorded, and the recording is sent again", play=replayed),
    LiveStep(name="all-in-one", about="one process in the place of the four", play=all_in_one),
)
