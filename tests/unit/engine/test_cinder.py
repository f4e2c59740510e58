# SPDX-License-Identifier: Apache-2.0
"""What Cinder's answers mean."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.encryption import Encryption
from bridge.core.extend import gib, new_id
from bridge.core.reasons import Reason
from bridge.engine.cinder import CinderReader, CinderVolume, Gone, NotNow, Page, read_volume
from bridge.runtime.rest import Answer

ID = new_id()
SERVER = new_id()


def body(**changes: Any) -> dict[str, Any]:
    """A volume as Cinder 29 shows it, cut to what is read."""
    record = {
        "id": ID,
        "size": 2,
        "status": "in-use",
        "metadata": {"extend_new_size": "999"},
        "attachments": [
            {
                "id": ID,
                "attachment_id": new_id(),
                "server_id": SERVER.upper(),
                "host_name": "cmp-1",
                "volume_id": ID,
            },
            {"id": ID, "attachment_id": new_id(), "server_id": None, "host_name": "glance-1", "volume_id": ID},
        ],
    }
    return {"volume": {**record, **changes}}


def test_size_is_whole_gibibytes_and_attachments_without_a_server_are_left_out() -> None:
    answer = read_volume(Answer(status=200, body=body()), ID)
    assert isinstance(answer, CinderVolume)
    assert answer.size == gib(2)
    assert [(a.server_id, a.host) for a in answer.attached] == [(SERVER, "cmp-1")]


def test_only_cinders_own_404_means_that_the_volume_is_gone() -> None:
    assert read_volume(Answer(status=404, body={"itemNotFound": {"code": 404, "message": "..."}}), ID) == Gone()
    assert read_volume(Answer(status=404, body={"message": "no such page"}), ID) == NotNow(Reason.CINDER_WRONG_URL)
    assert read_volume(Answer(status=404, body=None), ID) == NotNow(Reason.CINDER_WRONG_URL)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, Reason.CINDER_REFUSED),
        (403, Reason.CINDER_REFUSED),
        (429, Reason.CINDER_UNREACHABLE),
        (500, Reason.CINDER_UNREACHABLE),
        (503, Reason.CINDER_UNREACHABLE),
    ],
)
def test_an_error_says_nothing_about_the_volume(status: int, reason: Reason) -> None:
    assert read_volume(Answer(status=status, body=body()), ID) == NotNow(reason)


@pytest.mark.parametrize(
    "changes",
    [
        {"size": "2"},
        {"size": 0},
        {"size": -1},
        {"size": True},
        {"size": 2**40},
        {"id": new_id()},
        {"attachments": None},
        {"attachments": [None]},
        {"attachments": [{"server_id": new_id()}]},
        {"attachments": [{"server_id": 5, "attachment_id": new_id()}]},
    ],
)
def test_a_200_that_is_not_this_volume_is_not_believed(changes: dict[str, Any]) -> None:
    assert read_volume(Answer(status=200, body=body(**changes)), ID) == NotNow(Reason.CINDER_BAD_ANSWER)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["volume", "id", "size", "attachments"]), inner)
    ),
    max_leaves=8,
)


@given(status=st.integers(100, 599), answer=_JSON)
def test_no_answer_of_cinders_raises(status: int, answer: object) -> None:
    assert isinstance(read_volume(Answer(status=status, body=answer), ID), CinderVolume | Gone | NotNow)


ENCRYPTION = {
    "encryption_key_id": new_id(),
    "control_location": "front-end",
    "cipher": "aes-xts-plain64",
    "key_size": 256,
    "provider": "luks2",
}


class FakeClient:
    """A client of a Cinder with one volume; `encryption`: status and body of the answer for how it is opened."""

    def __init__(self, volume: Any, encryption: tuple[int, Any]) -> None:
        self.volume, self.encryption = volume, encryption
        self.asked: list[str] = []

    def get(self, path: str, _headers: Mapping[str, str]) -> Answer:
        self.asked.append(path)
        status, body = self.encryption if path.endswith("/encryption") else (200, self.volume)
        return Answer(status=status, body=body)


def ask(encryption: tuple[int, Any] = (200, ENCRYPTION), **changes: Any) -> tuple[Any, list[str]]:
    """What the reader says of a volume, and what it asked."""
    adapter = FakeClient(body(**changes), encryption)
    return CinderReader(adapter).volume(ID), adapter.asked


def test_how_an_encrypted_volume_is_opened_is_asked_for_once_and_the_order_can_name_its_key() -> None:
    answer, asked = ask(encrypted=True)
    assert asked == [f"/volumes/{ID}", f"/volumes/{ID}/encryption"]
    assert answer.encryption == Encryption(
        key_id=ENCRYPTION["encryption_key_id"],  # type: ignore[arg-type]
        provider="luks2",
        control_location="front-end",
        cipher="aes-xts-plain64",
    )


@pytest.mark.parametrize(
    "changes",
    [{"encrypted": False}, {"encrypted": "true"}, {}, {"encrypted": True, "status": "extending"},
     {"encrypted": True, "attachments": []}],
)  # fmt: skip
def test_of_other_volumes_and_of_those_nobody_is_sent_for_it_is_not_asked(changes: dict[str, Any]) -> None:
    answer, asked = ask(**changes)
    assert asked == [f"/volumes/{ID}"]
    assert answer.encryption is None


@pytest.mark.parametrize("answered", [(403, {}), (404, {}), (200, {"encryption_key_id": None}), (200, [])])
def test_a_cinder_that_does_not_tell_holds_up_no_volume_that_needs_no_key(answered: tuple[int, Any]) -> None:
    """LUKS1 by QEMU has been extended without it all along; a policy may keep it from our user."""
    answer, _asked = ask(answered, encrypted=True)
    assert isinstance(answer, CinderVolume)
    assert answer.encryption is None


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, Reason.CINDER_REFUSED), *((status, Reason.CINDER_UNREACHABLE) for status in (429, 500, 503))],
)
def test_a_cinder_that_cannot_tell_now_is_asked_again(status: int, reason: Reason) -> None:
    """Else a LUKS2 volume would end as unsupported, for good, because Cinder was away for a moment."""
    answer, _asked = ask((status, None), encrypted=True)
    assert answer == NotNow(reason)


class OneProjectsCinder:
    """What Cinder 29 answers a user; `rights`: its answer to what only admins may, GET /os-services."""

    def __init__(self, rights: int) -> None:
        self.rights = rights
        self.asked: list[str] = []

    def get(self, path: str, _headers: Mapping[str, str]) -> Answer:
        self.asked.append(path.partition("?")[0])
        if path.startswith("/os-services"):
            return Answer(status=self.rights, body={"services": []})
        if path.startswith("/volumes/detail"):
            return Answer(
                status=200, body={"volumes": []}
            )  # all_tenants is left out in silence where the role is missing
        return Answer(status=404, body={"itemNotFound": {"code": 404, "message": "Volume could not be found."}})


@pytest.mark.parametrize(
    ("rights", "reason"),
    [(403, Reason.CINDER_REFUSED), (401, Reason.CINDER_REFUSED), (503, Reason.CINDER_UNREACHABLE)],
)
def test_nothing_is_gone_for_a_user_who_may_not_see_every_project(rights: int, reason: Reason) -> None:
    """Without the role admin each volume of another project is a 404: closing their extends would lose them."""
    reader = CinderReader(OneProjectsCinder(rights))
    assert reader.volume(ID) == NotNow(reason)
    assert reader.in_use(marker=None, limit=10) == NotNow(reason)


@pytest.mark.parametrize("rights", [200, 404])
def test_a_proof_of_our_rights_is_believed_for_a_while(rights: int) -> None:
    now = [0.0]
    cinder = OneProjectsCinder(rights)
    reader = CinderReader(cinder, clock=lambda: now[0])
    assert reader.volume(ID) == Gone()
    assert reader.in_use(marker=None, limit=10) == Page(volumes=(), marker=None)
    assert cinder.asked.count("/os-services") == 1
    now[0], cinder.rights = 301.0, 403
    assert reader.volume(ID) == NotNow(Reason.CINDER_REFUSED)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ({"metadata": {"extend_bridge_grow": "true"}}, True),
        ({"metadata": {"extend_bridge_grow": " Yes "}}, True),
        ({"metadata": {"extend_bridge_grow": "false"}}, False),
        ({"metadata": {"extend_bridge_grow": ["true"]}}, False),
        ({"metadata": {}}, False),
        ({"metadata": None}, False),
        ({"volume_image_metadata": {"extend_bridge_grow": "1"}}, True),
        ({"metadata": {"extend_bridge_grow": "no"}, "volume_image_metadata": {"extend_bridge_grow": "on"}}, False),
    ],
)
def test_the_owner_asks_for_growth_by_the_volume_or_else_by_its_image(words: dict[str, Any], asked: bool) -> None:
    volume = read_volume(Answer(status=200, body=body(**words)), ID)
    assert isinstance(volume, CinderVolume)
    assert volume.grow_file_system is asked
