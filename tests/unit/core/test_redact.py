# SPDX-License-Identifier: Apache-2.0
"""Secrets stop at the door."""

import json

import pytest

from bridge.core.redact import safe_url, scrub_connection

ISCSI = {
    "driver_volume_type": "iscsi",
    "target_portal": "192.0.2.10:3260",
    "target_lun": 1,
    "auth_method": "CHAP",
    "auth_username": "chap-user",
    "auth_password": "chap-secret",
    "discovery_auth_password": "other-secret",
    "tomorrows_token": "new-secret",
}


def test_flat_records_become_os_bricks_form_without_what_is_not_on_the_list() -> None:
    assert scrub_connection(ISCSI) == {
        "driver_volume_type": "iscsi",
        "data": {"target_portal": "192.0.2.10:3260", "target_lun": 1},
    }


def test_a_ceph_user_name_stays_and_its_keyring_does_not() -> None:
    scrubbed = scrub_connection(
        {"driver_volume_type": "rbd", "name": "volumes/v", "auth_username": "cinder", "keyring": "ceph-secret"}
    )
    assert scrubbed == {"driver_volume_type": "rbd", "data": {"name": "volumes/v", "auth_username": "cinder"}}


def test_the_mount_options_of_a_share_stay_behind() -> None:
    """For SMB they are where the password is."""
    share = {"driver_volume_type": "smbfs", "export": "//h/s", "name": "v", "options": "-o username=u,password=p"}
    scrubbed = scrub_connection(share)
    assert scrubbed == {"driver_volume_type": "smbfs", "data": {"export": "//h/s", "name": "v"}}


def test_a_record_already_nested_is_scrubbed_all_the_same() -> None:
    nested = {"driver_volume_type": "iscsi", "data": ISCSI, "keyring": "x"}
    assert "secret" not in json.dumps(scrub_connection(nested))


@pytest.mark.parametrize("flat", [{}, {"driver_volume_type": None}, {"driver_volume_type": 3}])
def test_a_record_without_a_type_gives_nothing(flat: dict[str, object]) -> None:
    assert scrub_connection(flat) is None


def test_a_transport_url_is_logged_without_any_of_its_passwords() -> None:
    url = "rabbit://nova:s3cret@a:5672,nova:s3cret@b:5672//"
    assert safe_url(url) == "rabbit://nova:***@a:5672,nova:***@b:5672//"
    assert safe_url("mysql+pymysql://u:p%40w@h/db") == "mysql+pymysql://u:***@h/db"
