# SPDX-License-Identifier: Apache-2.0
"""dm-crypt on the host, in the VM: os-brick's encryptors, cryptsetup and the kernel are the real ones."""

from typing import Any

import pytest

from tests.storage.checks import grew, in_the_vm, long_form
from tests.storage.conftest import Case

pytestmark = in_the_vm


def kept(seen: dict[str, Any]) -> None:
    """Map and guest have the size they had."""
    assert seen["map"] == seen["guest"] == seen["before"]


@pytest.mark.parametrize(
    ("cause", "says"),
    [("without_opt_in", "set [key_manager] backend"), ("without_its_key_id", "the key's id")],
)
def test_a_map_whose_key_nobody_gave_us_is_unsupported(case: Case, cause: str, says: str) -> None:
    """LUKS2 over iSCSI: the map is not resized without the key. Final, one line that says what to do."""
    seen = case(f"crypt_{cause}")
    for report in seen["reports"]:
        assert (report["outcome"], report["reason"]) == ("unsupported", "no_strategy"), report
        assert says in report["detail"]
        assert [step["name"] for step in report["steps"]] == ["find", "header", "before"]
    kept(seen)


def test_a_key_that_is_wrong_or_cannot_be_had_leaves_the_guest_alone_and_heals(case: Case) -> None:
    """The device has grown, its map has not; with the right key the guest prints the new size."""
    seen = case("crypt_keys_that_fail")
    for cause, reason in (("wrong", "key_wrong"), ("away", "key_unavailable")):
        [report] = seen[cause]["reports"]
        assert (report["outcome"], report["reason"]) == ("brick_failed", reason), report
        kept(seen[cause])
    assert "No key available with this passphrase" in seen["wrong"]["reports"][0]["detail"]
    grew(seen["healed"], "running")
    header = next(step for step in seen["healed"]["report"]["steps"] if step["name"] == "header")
    assert header["size"] == seen["healed"]["hidden"] > 0, (
        "not 16 MiB: cryptsetup aligns it with the array's own units"
    )


@long_form
@pytest.mark.parametrize("state", ["paused", "off"])
def test_luks2_over_iscsi_grows_paused_and_off(case: Case, state: str) -> None:
    """Paused without connection data; off with them, its map open, as it is after a shutdown from inside."""
    grew(case(f"crypt_{state}"), state)


def test_a_second_order_for_the_same_size_asks_for_no_key(case: Case) -> None:
    """Nor does the host have to have opted in, where nova-compute was quicker."""
    seen = case("crypt_again")
    for report in seen["reports"]:
        assert (report["outcome"], report["after_bytes"]) == ("already", seen["wanted"]), report
        assert [step["name"] for step in report["steps"]] == ["find", "header", "before", "tell"]


def test_luks1_on_the_host_grows_without_a_key(case: Case) -> None:
    """cryptsetup takes the key of the map itself from the kernel: it does not even look at a wrong one."""
    grew(case("crypt_luks1"), "running")


def test_plain_dm_crypt_is_unsupported(case: Case) -> None:
    """os-brick's encryptor for it cannot extend."""
    seen = case("crypt_plain")
    assert seen["reports"][0]["outcome"] == "unsupported"
    assert "PLAIN" in seen["reports"][0]["detail"]
    kept(seen)


@pytest.mark.parametrize(
    "beneath", [pytest.param("nvme", marks=long_form), "multipath_connection", "multipath_local"]
)
def test_luks2_over_other_devices(case: Case, beneath: str) -> None:
    """The device beneath is extended as without encryption."""
    grew(case(f"crypt_{beneath}"), "running")
