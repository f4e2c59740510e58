# SPDX-License-Identifier: Apache-2.0
"""The listener's configuration: what cannot work is refused at the door, in words."""

from pathlib import Path

import pytest

from bridge.core.errors import ConfigError
from bridge.runtime.config import load, read
from listener.settings import ListenerSettings, listener_groups, listener_settings
from listener.sources import TopicSource

URL = "rabbit://cinder:pw@broker:5672/cinder"
OURS = "rabbit://ours:pw@broker:5672/ours"


def settings_of(path: Path, text: str) -> ListenerSettings:
    conf = path / "listener.conf"
    conf.write_text(text)
    loaded = load("test", listener_groups(), ["--config-file", str(conf)], description="")
    return read(loaded, listener_settings)


def test_the_lanes_are_on_the_notification_bus_unless_one_of_our_own_is_named(tmp_path: Path) -> None:
    notifications = f"[notifications]\ntransport_url = {URL}\n"
    assert settings_of(tmp_path, notifications).bus.transport_url == URL
    assert settings_of(tmp_path, f"{notifications}[bus]\ntransport_url = {OURS}\n").bus.transport_url == OURS


def test_lanes_in_memory_beside_a_real_broker_would_lose_what_is_put_there(tmp_path: Path) -> None:
    text = f"[notifications]\ntransport_url = {URL}\n[bus]\ntransport_url = memory://\n"
    assert settings_of(tmp_path, text).bus.transport_url == URL


def test_the_queues_are_those_cinder_declares_for_the_topic(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, f"[notifications]\ntransport_url = {URL}\ntopic = ours\n")
    assert TopicSource(settings.topic).queues == ("ours.info", "ours.error")


@pytest.mark.parametrize(("intake", "topic"), [("topic", "extend_bridge"), ("bind", "notifications")])
def test_the_topic_is_the_one_that_goes_with_the_intake_unless_it_is_set(
    intake: str, topic: str, tmp_path: Path
) -> None:
    text = f"[notifications]\ntransport_url = {URL}\nintake = {intake}\n"
    assert settings_of(tmp_path, text).topic == topic
    assert settings_of(tmp_path, f"{text}topic = other\n").topic == "other"


REFUSED = {
    "no notification bus": ("", "[notifications] transport_url is not set"),
    "an empty topic": (f"[notifications]\ntransport_url = {URL}\ntopic =\n", "topic"),
    "a topic with a blank": (f"[notifications]\ntransport_url = {URL}\ntopic = a b\n", "topic"),
    "a list of topics": (f"[notifications]\ntransport_url = {URL}\ntopic = notifications,extend_bridge\n", "topic"),
    "a pattern": (f"[notifications]\ntransport_url = {URL}\ntopic = extend.#\n", "topic"),
    "a timeout that costs the heartbeat": (
        f"[notifications]\ntransport_url = {URL}\n[bus]\nheartbeat = 10\n[endpoint]\ntimeout = 5\n",
        "heartbeat",
    ),
    "a timeout of nothing": (f"[notifications]\ntransport_url = {URL}\n[endpoint]\ntimeout = 0\n", "timeout"),
    "a batch of none": (f"[notifications]\ntransport_url = {URL}\n[listener]\nbatch = 0\n", "batch"),
    "a batch Nova does not take": (f"[notifications]\ntransport_url = {URL}\n[listener]\nbatch = 999\n", "batch"),
    "an intake nobody knows": (f"[notifications]\ntransport_url = {URL}\nintake = tap\n", "intake"),
    "a pattern for an exchange": (
        f"[notifications]\ntransport_url = {URL}\nintake = bind\nexchange = open*\n",
        "exchange",
    ),
    "memory bound to an exchange": ("[notifications]\ntransport_url = memory://\nintake = bind\n", "broker"),
    "a hold of nothing": (f"[notifications]\ntransport_url = {URL}\n[listener]\nhold_seconds = 0\n", "hold"),
    "a number that is none": (f"[notifications]\ntransport_url = {URL}\n[listener]\nbatch = many\n", "batch"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_in_words_without_a_password(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        settings_of(tmp_path, text)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert ":pw@" not in str(refused.value)
