# SPDX-License-Identifier: Apache-2.0
"""[hostagent] at the door."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from bridge.core.errors import ConfigError
from bridge.runtime.config import load, read
from hostagent.brick.key_manager import missing
from hostagent.guest.mode import FileSystemMode
from hostagent.settings import HostAgentSettings, KeyManagerSettings, hostagent_groups, hostagent_settings
from hostagent.wiring import this_host


def settings(tmp_path: Path, text: str) -> HostAgentSettings:
    file = tmp_path / "bridge.conf"
    file.write_text(f"[hostagent]\n{text}\n")
    conf = load("x", hostagent_groups(), ["--config-file", str(file)], description="x")
    return read(conf, hostagent_settings)


def test_the_defaults_work_with_a_state_path(tmp_path: Path) -> None:
    """The host is the machine's name; reading the options creates no directory."""
    made = settings(tmp_path, f"state_path = {tmp_path / 'state'}")
    assert (made.host, made.driver.settings.uri) == (socket.gethostname(), "qemu:///system")
    assert made.brick.lock_path == str(tmp_path / "state" / "lock")
    assert made.brick.own_locks
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("host = two words", "host"),
        (f"host = {'x' * 256}", "host"),
        ("libvirt_uri = system", "libvirt_uri"),
        ("workers = 0", "workers"),
        ("workers = many", "workers"),
        ("device_wait = -1", "device_wait"),
        ("brick_limit = 0", "brick_limit"),
    ],
)
def test_a_bad_value_is_refused_by_its_name(tmp_path: Path, line: str, says: str) -> None:
    """One line that says which option."""
    with pytest.raises(ConfigError, match=says) as caught:
        settings(tmp_path, f"state_path = {tmp_path}\n{line}")
    assert "\n" not in str(caught.value)


def test_keys_are_nothing_a_host_asks_for_unless_it_is_told_to(tmp_path: Path) -> None:
    """Other options of the section, which are castellan's, do not opt in."""
    plain = settings(tmp_path, f"state_path = {tmp_path}\n[key_manager]\nusername = nova")
    assert plain.brick.key_manager is None
    opted_in = settings(tmp_path, f"state_path = {tmp_path}\n[key_manager]\nbackend = barbican")
    assert opted_in.brick.key_manager == KeyManagerSettings(
        config_files=(str(tmp_path / "bridge.conf"),), config_dirs=()
    )


def test_an_opt_in_without_castellan_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, not at the first LUKS2 volume; and nobody else needs it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert missing(opted_in=False) is None
    says = missing(opted_in=True)
    assert says is not None
    assert "extend-bridge[hostagent,keymanager]" in says


def test_an_agent_does_not_start_on_half_an_opt_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator who wants keys finds out at once that none would come."""
    opted_in = settings(tmp_path, f"state_path = {tmp_path}\n[key_manager]\nbackend = barbican")
    assert this_host(opted_in).encryptor is not None
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="castellan is not installed"):
        this_host(opted_in)
    plain = replace(opted_in, brick=replace(opted_in.brick, key_manager=None))
    assert this_host(plain).encryptor is None


def test_guests_are_not_looked_into_unless_the_operator_says_so(tmp_path: Path) -> None:
    assert settings(tmp_path, "").guest.filesystems is FileSystemMode.OFF
    assert settings(tmp_path, "[guest]\nfilesystems = grow").guest.filesystems is FileSystemMode.GROW


@pytest.mark.parametrize("text", ["[guest]\nfilesystems = yes", "read_only = true\n[guest]\nfilesystems = see"])
def test_a_look_into_guests_that_cannot_be_is_refused_by_its_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="filesystems"):
        settings(tmp_path, text)
