# SPDX-License-Identifier: Apache-2.0
"""Ids: UUIDs that lie together in an index when they are made together."""

import uuid

from bridge.core.extend import is_uuid, new_id


def test_ids_are_uuids_of_version_7_no_two_alike() -> None:
    ids = [new_id() for _ in range(2000)]
    assert len(set(ids)) == len(ids)
    assert all(is_uuid(i) and i == i.lower() for i in ids)
    assert {(uuid.UUID(i).version, uuid.UUID(i).variant) for i in ids} == {(7, uuid.RFC_4122)}


def test_ids_grow_with_the_clock() -> None:
    first = new_id()
    while (second := new_id())[:13] == first[:13]:
        pass
    assert first < second
