# SPDX-License-Identifier: Apache-2.0
"""dm-crypt on the host, in the VM."""

from tests.storage.checks import in_the_vm
from tests.storage.conftest import Case

pytestmark = in_the_vm


def test_a_map_whose_key_nobody_gave_us_is_unsupported(case: Case) -> None:
    """LUKS2 over iSCSI: the map is not resized without the key. Final, one line, and the guest keeps its size."""
    seen = case("crypt_without_its_key")
    for report in seen["reports"]:
        assert (report["outcome"], report["reason"]) == ("unsupported", "no_strategy")
        assert [step["name"] for step in report["steps"]] == ["find", "before"]
    assert seen["guest"] == seen["before"]
