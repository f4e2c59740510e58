# SPDX-License-Identifier: Apache-2.0
"""What upgrade check reads out of Cinder's own configuration."""

from pathlib import Path

import pytest
from oslo_upgradecheck.upgradecheck import Code

from bridge.cmd.broker_check import BrokerRelease
from bridge.cmd.cinder_conf import CinderConf, double_path, notifies, read
from bridge.core.errors import ConfigError

GOOD = """\
[DEFAULT]
transport_url = rabbit://cinder:s3cret@broker/
[oslo_messaging_notifications]
driver = messagingv2
topics = notifications,extend_bridge
[oslo_messaging_rabbit]
rabbit_quorum_queue = true
[nova]
auth_type = password
password = s3cret
"""
BRIDGE = "http://bridge.example:8774/v2.1"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """As the README says it."""
    path = tmp_path / "cinder.conf"
    path.write_text(GOOD)
    return path


def changed(file: Path, old: str, new: str) -> CinderConf:
    """Read with other words in one place."""
    assert old in GOOD
    file.write_text(GOOD.replace(old, new))
    return read(file)


def test_as_the_readme_says_it_is_well(file: Path) -> None:
    found = notifies(read(file), "extend_bridge")
    assert (found.code, found.details) == (Code.SUCCESS, "notifications reach us, in durable queues")


@pytest.mark.parametrize(
    ("old", "new", "code", "words"),
    [
        ("driver = messagingv2", "driver = noop", Code.FAILURE, "driver = messagingv2 (now noop)"),
        ("driver = messagingv2", "", Code.FAILURE, "driver = messagingv2 (now none)"),
        ("driver = messagingv2", "driver = log\ndriver = messaging", Code.SUCCESS, "notifications reach us"),
        (",extend_bridge", "", Code.FAILURE, "topics (now notifications)"),
        ("rabbit_quorum_queue = true", "", Code.WARNING, "a restart of the broker empties"),
        ("rabbit_quorum_queue", "amqp_durable_queues", Code.SUCCESS, "notifications reach us"),
    ],
)
def test_what_keeps_notifications_from_us_is_said(file: Path, old: str, new: str, code: Code, words: str) -> None:
    found = notifies(changed(file, old, new), "extend_bridge")
    assert found.code is code
    assert words in found.details


@pytest.mark.parametrize(
    ("version", "old", "new", "topic", "code", "words"),
    [
        ("4.3.0", "rabbit_quorum_queue = true", "", "extend_bridge", Code.WARNING, "rabbit_transient_quorum_queue"),
        ("4.2.1", "rabbit_quorum_queue = true", "", "extend_bridge", Code.WARNING, "a restart of the broker"),
        ("4.0.5", "GOOD", "GOOD", "extend_bridge", Code.WARNING, "RabbitMQ 4.0.5 drops a notification after 20"),
        ("4.0.5", "GOOD", "GOOD", None, Code.SUCCESS, "durable queues"),
        ("3.13.7", "GOOD", "GOOD", "extend_bridge", Code.SUCCESS, "durable queues"),
        ("4.3.0", "rabbit_quorum_queue", "amqp_durable_queues", "extend_bridge", Code.SUCCESS, "durable queues"),
        (
            "4.3.0", "[nova]", "rabbit_quorum_delivery_limit = 1000000\n[nova]", "extend_bridge", Code.SUCCESS,
            "durable queues",
        ),
    ],
)  # fmt: skip
def test_the_brokers_release_decides_on_cinders_queues(
    file: Path, version: str, old: str, new: str, topic: str | None, code: Code, words: str
) -> None:
    conf = read(file) if old == "GOOD" else changed(file, old, new)
    found = notifies(conf, topic, BrokerRelease(product="RabbitMQ", version=version))
    assert (found.code, words in found.details) == (code, True), found.details


def test_a_queue_of_our_own_needs_no_topic(file: Path) -> None:
    assert notifies(changed(file, ",extend_bridge", ""), None).code is Code.SUCCESS


@pytest.mark.parametrize(
    "content", ["no section = 1\n", "[nova\n", "[oslo_messaging_rabbit]\nrabbit_quorum_queue=?\n"]
)
def test_a_file_nobody_can_read_is_said_without_its_secrets(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cinder.conf"
    path.write_text(f"{content}[nova]\npassword = s3cret\n")
    with pytest.raises(ConfigError) as told:
        read(path)
    assert str(path) in str(told.value)
    assert "s3cret" not in str(told.value)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read(tmp_path / "gone")


@pytest.mark.parametrize(
    ("nova", "is_nova", "endpoint", "code", "words"),
    [
        ("auth_type = password", True, None, Code.SUCCESS, "Cinder sends it the same event"),
        ("", True, None, Code.SUCCESS, "the listener is needed"),
        ("auth_type = password", False, None, Code.WARNING, "remove the bridge from the catalogue"),
        ("auth_type = password", False, BRIDGE, Code.WARNING, "extend the same disks"),
        (f"auth_type = none\nendpoint = {BRIDGE}", False, BRIDGE, Code.WARNING, "is this bridge"),
        ("auth_type = none\nendpoint = http://nova.example:8774/v2.1", False, BRIDGE, Code.SUCCESS, "a bridge"),
        ("", False, BRIDGE, Code.SUCCESS, "the catalogue does not name it as Nova"),
    ],
)
def test_a_double_way_of_events_is_named(
    file: Path, nova: str, is_nova: bool, endpoint: str | None, code: Code, words: str
) -> None:
    found = double_path(changed(file, "auth_type = password", nova), is_nova=is_nova, endpoint=endpoint)
    assert found.code is code
    assert words in found.details


def test_without_cinders_file_the_endpoint_alone_is_judged() -> None:
    assert double_path(None, is_nova=False, endpoint=BRIDGE).code is Code.SUCCESS
    assert double_path(None, is_nova=False, endpoint=None).code is Code.WARNING
