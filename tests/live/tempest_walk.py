# SPDX-License-Identifier: Apache-2.0
"""The steps of tools/live --nova that run Tempest: its own test of an attached volume, and our plugin's."""

from typing import Final

from tests.live.nova_cloud import NovaCloud
from tests.live.nova_walk import guest_of
from tests.live.step import LiveStep
from tests.live.tempest_run import OUR_TESTS, OWN_TEST, TempestRunner

_TIMES: Final = 3
_PATIENCE: Final = 200
_SHORT: Final = 45
"""Seconds after which Tempest may take for lost what is lost."""
_NOT_FOUND: Final = "Timed out waiting to get 'extend_volume' instance action"


def own_test(cloud: NovaCloud) -> str:
    """Run Tempest's own test three times; the listener is the only way to Nova."""
    runner = TempestRunner(cloud, seconds=_PATIENCE)
    for _ in range(_TIMES):
        runner.run(OWN_TEST).expect_passed(1)
    return f"{OWN_TEST} passed {_TIMES} times in a row"


def without_us(cloud: NovaCloud) -> str:
    """Run Tempest's own test while the bridge is stopped; it has to fail."""
    cloud.bridge.stop("listener")
    cloud.bridge.stop("engine")
    try:
        result = TempestRunner(cloud, seconds=_SHORT).run(OWN_TEST)
    finally:
        cloud.bridge.start("listener", "engine")
        cloud.bridge.wait_ready()
    assert not result.ok, "it passed"
    assert _NOT_FOUND in result.words, result.words
    return f"failed, as it has to: {_NOT_FOUND}"


def our_plugin(cloud: NovaCloud) -> str:
    """Run the plugin's tests three times: with a server of Tempest's own, and with a volume it is given."""
    with guest_of(cloud) as (guest, volume):
        runner = TempestRunner(
            cloud, seconds=_PATIENCE, volume_id=volume.volume_id, console=cloud.nova.console(guest.server_id)
        )
        assert "extend_bridge" in runner.plugins(), runner.plugins()
        for _ in range(_TIMES):
            runner.run(OUR_TESTS).expect_passed(2)
        return f"both tests passed {_TIMES} times in a row"


STEPS: Final[tuple[LiveStep[NovaCloud], ...]] = (
    LiveStep(name="tempest", about="Tempest's own test of an attached volume, three times", play=own_test),
    LiveStep(name="tempest-without-us", about="the same while the bridge is stopped: it fails", play=without_us),
    LiveStep(name="tempest-plugin", about="the tests of our plugin, three times", play=our_plugin),
)
