# SPDX-License-Identifier: Apache-2.0
"""Many volumes at once are read in pages of Cinder's, over HTTP against the stand-in; and what no page tells."""

from collections.abc import Iterator
from typing import Any

import pytest
from keystoneauth1.adapter import Adapter
from keystoneauth1.noauth import NoAuth
from keystoneauth1.session import Session

from bridge.core.extend import new_id
from bridge.engine.cinder import CinderReader, CinderVolume
from bridge.engine.compare import stuck
from bridge.runtime.rest import RestClient
from bridge.standin.cinder import Attachment, StandInCinder


class Cloud:
    """A Cinder with many volumes, and a reader of it with a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.cinder = StandInCinder()
        self.server = self.cinder.server()
        self.server.start()
        adapter = Adapter(Session(auth=NoAuth()), endpoint_override=f"{self.server.url}/v3")
        rest = RestClient(adapter, timeout=30, group="cinder")
        self.reader = CinderReader(rest, clock=lambda: self.now)

    def volume(self, changed_at: float, **more: Any) -> str:
        volume_id = new_id()
        info = {"driver_volume_type": "nfs", "export": volume_id}
        attachment = Attachment(server_id=new_id(), connection_info=info)
        self.cinder.add_volume(volume_id, 2, attachment, updated_at=changed_at, **more)
        return volume_id

    def requests(self) -> int:
        return self.cinder.requests.total()

    def close(self) -> None:
        self.server.stop()
        self.server.join(5)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    cloud = Cloud()
    yield cloud
    cloud.close()


def test_what_changed_lately_is_read_in_few_requests_as_it_is_read_alone(cloud: Cloud) -> None:
    ids = [cloud.volume(1000.0 + number) for number in range(200)]
    for number in range(50):
        cloud.volume(10.0 + number)
    newest_first = ids[::-1]
    found = cloud.reader.volumes(newest_first)
    assert set(found) == set(ids)
    assert cloud.requests() <= 4
    assert found[ids[7]] == cloud.reader.volume(ids[7])


def test_a_backlog_behind_many_newer_changes_is_found_by_its_first(cloud: Cloud) -> None:
    old = [cloud.volume(1000.0 + number) for number in range(200)]
    for number in range(600):
        cloud.volume(5000.0 + number)
    assert set(cloud.reader.volumes(old[::-1])) == set(old)
    assert cloud.requests() <= 4


def test_pages_that_hold_few_of_the_wanted_are_left_after_the_first(cloud: Cloud) -> None:
    ids = [cloud.volume(1000.0 * number) for number in range(20)]
    for number in range(500):
        cloud.volume(100.0 + 40 * number)
    found = cloud.reader.volumes(ids[::-1])
    assert ids[-1] in found
    assert cloud.requests() <= 4


def test_a_volume_that_is_extending_or_encrypted_is_left_to_a_question_of_its_own(cloud: Cloud) -> None:
    ids = [cloud.volume(100.0 + number) for number in range(10)]
    extending = cloud.volume(50.0, status="extending")
    encrypted = cloud.volume(51.0, encrypted=True)
    assert set(cloud.reader.volumes([*ids[::-1], encrypted, extending])) == set(ids)


def test_connection_data_of_many_comes_in_pages_and_is_scrubbed(cloud: Cloud) -> None:
    ids = [cloud.volume(100.0 + number) for number in range(200)]
    attached = []
    for volume_id in ids:
        volume = cloud.reader.volume(volume_id)
        assert isinstance(volume, CinderVolume)
        attached.append(volume.attached[0])
    before = cloud.requests()
    found = cloud.reader.connections(attached)
    assert cloud.requests() - before <= 3
    assert {each.attachment_id: each for each in attached}.keys() == found.keys()
    assert found[attached[3].attachment_id] == cloud.reader.connection(attached[3])


def test_where_few_attachments_are_wanted_the_list_is_not_read_again_for_a_while(cloud: Cloud) -> None:
    for number in range(300):
        cloud.volume(100.0 + number)
    volume = cloud.reader.volume(cloud.volume(1.0))
    assert isinstance(volume, CinderVolume)
    cloud.cinder.requests.clear()
    for _ in range(3):
        cloud.reader.connections(volume.attached)
    assert cloud.requests() == 1
    cloud.now += 601
    cloud.reader.connections(volume.attached)
    assert cloud.requests() == 2


def test_a_volume_that_stays_extending_is_shown_with_its_age(cloud: Cloud) -> None:
    volume_id = cloud.volume(1000.0, status="extending")
    page = cloud.reader.extending(marker=None, limit=10)
    (volume,) = page.volumes  # type: ignore[union-attr]
    assert stuck(volume, now=1000.0 + 899, after=900) == []
    (shown,) = stuck(volume, now=1000.0 + 901, after=900)
    assert (shown.key.volume_id, shown.reason, shown.since) == (volume_id, "volume_extending", 1000.0)
