# SPDX-License-Identifier: Apache-2.0
"""An inventory with unreadable or too many parts: the rest is read, and the parts left out are counted."""

import json

import pytest

from bridge.core import limits
from bridge.core.extend import new_id
from bridge.core.inventory import Inventory


def inventory_of(*raw_domains: object, full: bool = True) -> Inventory:
    raw = {"full": full, "domains": list(raw_domains), "gone": [], "capabilities": []}
    return Inventory.from_wire(json.loads(json.dumps(raw)))


def raw_domain(**changed: object) -> dict[str, object]:
    disk = {"volume_id": new_id(), "size_bytes": 1}
    return {"server_id": new_id(), "state": "active", "disks": [disk], **changed}


@pytest.mark.parametrize("size", [-1, "big", 2**63, 1.5, True, [1]])
def test_one_disk_without_a_size_leaves_fifty_others_whole(size: object) -> None:
    domains = [raw_domain() for _ in range(51)]
    domains[7]["disks"] = [{"volume_id": new_id(), "size_bytes": size}, {"volume_id": new_id(), "size_bytes": 5}]
    read = inventory_of(*domains)
    assert (len(read.domains), read.full, read.unread) == (51, True, 1)
    assert [disk.size for disk in read.domains[7].disks] == [None, 5]


@pytest.mark.parametrize("changed", [{"state": "flying"}, {"state": None}, {"disks": 7}])
def test_a_domain_that_cannot_be_read_is_kept_as_it_was(changed: dict[str, object]) -> None:
    good, bad = raw_domain(), raw_domain(**changed)
    read = inventory_of(good, bad)
    assert [domain.server_id for domain in read.domains] == [good["server_id"]]
    assert (read.full, set(read.kept), read.unread) == (True, {str(bad["server_id"])}, 1)


@pytest.mark.parametrize("bad", [None, 7, {}, {"server_id": "x", "state": "active"}])
def test_where_a_domain_has_no_name_none_is_taken_for_gone(bad: object) -> None:
    read = inventory_of(raw_domain(), bad)
    assert (len(read.domains), read.full, read.unread) == (1, False, 1)


def test_what_is_more_than_a_host_may_say_is_left_out_and_counted() -> None:
    many = inventory_of(*(raw_domain(disks=[]) for _ in range(limits.DOMAINS.most + 3)))
    assert (len(many.domains), len(many.kept), many.unread) == (limits.DOMAINS.most, 3, 3)
    disks = [{"volume_id": new_id(), "size_bytes": 1} for _ in range(limits.DISKS.most + 2)]
    assert len(inventory_of(raw_domain(disks=disks)).domains[0].disks) == limits.DISKS.most
    raw = {"full": False, "capabilities": ["x" * 5_000_000] * 100, "unsupported": {"y": "z" * 9999}}
    read = Inventory.from_wire(raw)
    assert (len(read.capabilities), {len(c) for c in read.capabilities}) == (limits.VOLUME_TYPES.most, {64})
    assert [len(why) for why in read.unsupported.values()] == [limits.WHY.most]


def test_the_words_of_an_inventory_are_printable() -> None:
    raw = {"full": False, "capabilities": ["a\x1b[31m"], "unsupported": {"b\ud800": "c\x07"}}
    read = Inventory.from_wire(raw)
    assert "".join([*read.capabilities, *read.unsupported, *read.unsupported.values()]).isprintable()
