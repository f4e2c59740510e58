# SPDX-License-Identifier: Apache-2.0
"""What the host agent must see of its host: each thing missing is named, and only that."""

import socket
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest
from oslo_config import cfg

from bridge.runtime.config import load, read
from hostagent.hostcheck import probes
from hostagent.settings import HostAgentSettings, KeyManagerSettings, hostagent_groups, hostagent_settings


@pytest.fixture
def settings(tmp_path: Path) -> HostAgentSettings:
    """An agent with multipath on a stock host."""
    conf = tmp_path / "x.conf"
    conf.write_text(f"[hostagent]\nstate_path = {tmp_path}\nuse_multipath = true\n")
    loaded: cfg.ConfigOpts = load("x", hostagent_groups(), ["--config-file", str(conf)], description="")
    return read(loaded, hostagent_settings)


@pytest.fixture
def multipathd() -> Iterator[str]:
    """An abstract socket somebody listens on."""
    address = f"\0extend-bridge-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        yield address


@pytest.fixture
def root() -> Iterator[Path]:
    """A host with everything; the path of a socket has to be short."""
    top = Path(mkdtemp(prefix="eb-"))
    for name in ("dev/disk", "sys/class/scsi_host/host0", "run/udev/data", "run/libvirt"):
        (top / name).mkdir(parents=True)
    (top / "sys/class/scsi_host/host0/scan").touch()
    with socket.socket(socket.AF_UNIX) as libvirt:
        libvirt.bind(str(top / "run/libvirt/libvirt-sock"))
        libvirt.listen()
        yield top
    rmtree(top)


def wrong(settings: HostAgentSettings, root: Path, multipathd: str) -> dict[str, str]:
    """What is wrong, by what it is about."""
    found = probes(settings, root=root, multipathd=multipathd)
    return {probe.about: probe.wrong for probe in found if probe.wrong is not None}


def test_a_host_with_everything_has_nothing_wrong(settings: HostAgentSettings, root: Path, multipathd: str) -> None:
    assert wrong(settings, root, multipathd) == {}


@pytest.mark.parametrize(
    ("about", "spoil"),
    [
        ("libvirt's socket", lambda root: (root / "run/libvirt/libvirt-sock").unlink()),
        ("/dev", lambda root: (root / "dev/disk").rmdir()),
        ("/sys", lambda root: rmtree(root / "sys")),
        ("/run/udev", lambda root: rmtree(root / "run/udev")),
    ],
)
def test_what_a_container_does_not_see_is_named(
    settings: HostAgentSettings, root: Path, multipathd: str, about: str, spoil: Callable[[Path], object]
) -> None:
    spoil(root)
    assert set(wrong(settings, root, multipathd)) == {about}


def test_without_the_hosts_network_multipathd_does_not_answer(settings: HostAgentSettings, root: Path) -> None:
    said = wrong(settings, root, f"\0extend-bridge-{uuid.uuid4().hex}")
    assert "host's network" in said["multipathd"]


def test_a_socket_nobody_listens_on_is_no_libvirt(settings: HostAgentSettings, root: Path, multipathd: str) -> None:
    path = root / "run/libvirt/libvirt-sock"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert "refused" in wrong(settings, root, multipathd)["libvirt's socket"]


def test_beside_nova_compute_both_must_agree(settings: HostAgentSettings, root: Path, multipathd: str) -> None:
    (root / "etc/nova").mkdir(parents=True)
    nova = root / "etc/nova/nova.conf"
    nova.write_text("[libvirt]\nvolume_use_multipath = true\n[oslo_concurrency]\nlock_path = /elsewhere\n")
    assert "lock_path" in wrong(settings, root, multipathd)["nova-compute's settings"]
    nova.write_text("[libvirt]\nvolume_use_multipath = true\n")
    assert wrong(settings, root, multipathd) == {}


def test_an_agent_that_only_looks_needs_libvirts_read_only_socket_alone(
    settings: HostAgentSettings, root: Path, multipathd: str
) -> None:
    rmtree(root / "dev")
    assert set(wrong(replace(settings, read_only=True), root, multipathd)) == {"libvirt's socket"}


def test_a_host_that_may_ask_for_keys_needs_what_uses_them(
    settings: HostAgentSettings, root: Path, multipathd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no other host does."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("hostagent.capabilities._SBIN", ())
    assert wrong(settings, root, multipathd) == {}
    keys = KeyManagerSettings(config_files=(), config_dirs=())
    asks = replace(settings, brick=replace(settings.brick, key_manager=keys))
    assert "castellan is not installed" in wrong(asks, root, multipathd)["volumes' keys"]
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: object())
    assert "cryptsetup is not installed" in wrong(asks, root, multipathd)["volumes' keys"]
