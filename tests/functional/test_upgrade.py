# SPDX-License-Identifier: Apache-2.0
"""0.1.0 and this release on one broker and one journal: upgraded part by part, and taken back by the same way."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import sqlalchemy as sa

from bridge.core.extend import gib
from bridge.journal.tables import extends
from tests.conftest import missing
from tests.functional.conftest import Vhost
from tests.functional.small_cloud import SmallCloud, small_cloud
from tests.lab.cinder_bus import CinderBus
from tests.lab.hypervisor import have_hypervisor
from tests.lab.release import FIRST, MixedProcesses, release_tree
from tests.lab.told_story import differences
from tests.lab.waiting import until

pytestmark = [pytest.mark.functional, pytest.mark.timeout(900)]

CONTROL_PLANE = ("api", "engine", "listener")
PATIENT = 240.0  # seconds; a busy machine starts a daemon slowly


@dataclass(kw_only=True)
class TwoReleases:
    """A small cloud, and daemons of either release."""

    cloud: SmallCloud
    bus: CinderBus
    daemons: MixedProcesses

    def run(self, *names: str, earlier: bool) -> None:
        """Replace these daemons by those of one release, and wait until they are ready."""
        running = [name for name in names if self.daemons.runs(name)]
        if running:
            self.daemons.stop(*running)
        (self.daemons.start_earlier if earlier else self.daemons.start)(*names)
        self.daemons.wait_ready(*names, seconds=PATIENT)

    def extend(self, size: int) -> None:
        """Grow the volume (GiB) as Cinder does; wait until the guest prints its size and the extend is closed."""
        body, _ = self.cloud.grow(size)
        self.bus.publish(body)
        self.cloud.guest.wait_size(gib(size), seconds=PATIENT)
        until(lambda: self._closed(size), f"the extend to {size} GiB is closed", seconds=PATIENT)

    def _closed(self, size: int) -> bool:
        """`already`: a report that was not believed, of an older agent in place of one that proves its name."""
        journal = self.cloud.site.journal()
        try:
            query = sa.select(extends.c.open, extends.c.outcome)
            rows = journal.database.read(lambda c: list(c.execute(query)))
        finally:
            journal.database.dispose()
        return len(rows) == size - 1 and all(
            row.open is None and row.outcome in {"resized", "already"} for row in rows
        )


@pytest.fixture
def both(vhost: Vhost) -> Iterator[TwoReleases]:
    """0.1.0 everywhere, its guest known."""
    if not have_hypervisor():
        missing("QEMU, libvirt or gcc")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="eb-")))
        earlier = release_tree(FIRST, directory)
        if earlier is None:
            pytest.skip(f"this clone does not have commit {FIRST} (0.1.0)")
        extra = "[engine]\naccept_unbound_hosts = true\nretry_cap = 2\n"
        cloud = small_cloud(stack, vhost, extra=extra, patience=PATIENT)
        bus = CinderBus(cloud.site.bus_url)
        stack.callback(bus.close)
        daemons = MixedProcesses(cloud.site, earlier)
        stack.callback(daemons.stop)
        releases = TwoReleases(cloud=cloud, bus=bus, daemons=daemons)
        releases.run(*CONTROL_PLANE, "hostagent", earlier=True)
        until(lambda: cloud.site.knows(cloud.guest.server_id), "the guest is known", seconds=PATIENT)
        yield releases


def test_each_step_of_an_upgrade_from_0_1_0_and_of_the_way_back_extends_the_guest(both: TwoReleases) -> None:
    """Control plane first, then the agent; back in the opposite order. Their log tells what the journal keeps."""
    both.extend(2)
    both.run(*CONTROL_PLANE, earlier=False)
    both.extend(3)
    both.run("hostagent", earlier=False)
    both.extend(4)
    both.run("hostagent", earlier=True)
    both.extend(5)
    both.run(*CONTROL_PLANE, earlier=True)
    both.extend(6)
    both.run("hostagent", earlier=False)
    both.extend(7)
    both.daemons.stop()
    site = both.cloud.site
    assert list(differences([site.audit_file], site.directory / "journal.sqlite3", killed=True)) == []
