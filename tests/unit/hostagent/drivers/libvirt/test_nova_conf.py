# SPDX-License-Identifier: Apache-2.0
"""nova.conf beside our own."""

import os
from pathlib import Path

import pytest

from hostagent.drivers.libvirt import nova_conf


def disagreements(files: list[str], *, locks: str = "/var/lib/nova/tmp", multipath: bool = False) -> list[str]:
    return nova_conf.disagreements(files, use_multipath=multipath, lock_path=locks)


def write(directory: Path, text: str, name: str = "nova.conf") -> str:
    file = directory / name
    file.write_text(text)
    return str(file)


def test_without_a_nova_there_is_nothing_to_say(tmp_path: Path) -> None:
    """Stand-alone is no mistake."""
    assert disagreements([str(tmp_path / "nova.conf")]) == []


def test_what_agrees_is_not_spoken_of(tmp_path: Path) -> None:
    """Options of Nova's that nobody here knows are no trouble, either."""
    text = "[DEFAULT]\nmy_ip = 10.0.0.1\n[libvirt]\nvirt_type = kvm\nvolume_use_multipath = yes\n"
    locks = tmp_path / "locks"
    locks.mkdir()
    file = write(tmp_path, f"{text}[oslo_concurrency]\nlock_path = {tmp_path}/./locks\n")
    assert disagreements([file], locks=str(locks), multipath=True) == []


@pytest.mark.parametrize("name", ["volume_use_multipath", "iscsi_use_multipath"])
def test_both_values_of_multipath_are_named(tmp_path: Path, name: str) -> None:
    """Under its old name, too."""
    [line] = disagreements([write(tmp_path, f"[libvirt]\n{name} = true\n")])
    assert "use_multipath is False" in line
    assert "is True" in line


def test_another_lock_directory_is_named(tmp_path: Path) -> None:
    """Unset in nova.conf: it is given by Nova's environment, nobody can compare it."""
    [line] = disagreements([write(tmp_path, "[oslo_concurrency]\nlock_path = /run/lock/nova\n")])
    assert "/run/lock/nova" in line
    assert "/var/lib/nova/tmp" in line


def test_the_later_file_wins_as_it_does_for_nova(tmp_path: Path) -> None:
    """Debian's nova-compute reads two."""
    first = write(tmp_path, "[libvirt]\nvolume_use_multipath = true\n")
    second = write(tmp_path, "[libvirt]\nvolume_use_multipath = false\n", "nova-compute.conf")
    assert disagreements([first, second]) == []


@pytest.mark.parametrize("text", ["no option", "[libvirt]\nvolume_use_multipath = perhaps\n"])
def test_a_nova_conf_that_cannot_be_understood_is_said_so(tmp_path: Path, text: str) -> None:
    """It is not ours to mend, and no reason not to start."""
    [line] = disagreements([write(tmp_path, text)])
    assert "cannot be parsed" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_nova_conf_we_may_not_read_is_said_so(tmp_path: Path) -> None:
    """It holds passwords: an agent of another user has to be told by hand."""
    file = write(tmp_path, "")
    Path(file).chmod(0)
    [line] = disagreements([file])
    assert "cannot be read" in line
