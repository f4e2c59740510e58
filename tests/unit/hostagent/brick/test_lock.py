# SPDX-License-Identifier: Apache-2.0
"""A lock directory that is shared with nova-compute: who may open what."""

import os
import stat
from pathlib import Path

import pytest

from bridge.core.errors import ConfigError
from hostagent.brick.lock import LOCK_FILE, holder, name_of, prepare, trouble

NOVA = 64060
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="giving a directory away needs root")


@pytest.fixture
def locks(tmp_path: Path) -> Path:
    """nova-compute's directory, where this is root."""
    directory = tmp_path / "locks"
    directory.mkdir()
    if os.geteuid() == 0:
        os.chown(directory, NOVA, NOVA)
    return directory


@root_only
def test_root_makes_the_file_as_the_directorys_owner(locks: Path) -> None:
    """Made by root's first extend it would be root's, and nova-compute could not open it."""
    before = os.umask(0o077)
    try:
        prepare(str(locks), own=False)
    finally:
        os.umask(before)
    made = (locks / LOCK_FILE).stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (NOVA, NOVA, 0o660)
    assert trouble(str(locks)) is None


@root_only
@pytest.mark.parametrize(("mode", "fine"), [(0o644, False), (0o640, False), (0o666, True)])
def test_a_file_that_shuts_nova_compute_out_is_named_with_its_owner(locks: Path, mode: int, fine: bool) -> None:
    """Somebody's root process was first."""
    file = locks / LOCK_FILE
    file.touch()
    file.chmod(mode)
    said = trouble(str(locks))
    assert (said is None) is fine
    if said is not None:
        assert str(file) in said
        assert "root" in said
        assert f"user {NOVA}" in said


@root_only
def test_a_file_of_the_directorys_group_is_fine(locks: Path) -> None:
    """Two users in one group is how several services share a lock directory."""
    file = locks / LOCK_FILE
    file.touch()
    os.chown(file, 0, NOVA)
    file.chmod(0o660)
    assert trouble(str(locks)) is None


@root_only
def test_checking_the_lock_directory_creates_nothing(locks: Path) -> None:
    """The upgrade check looks at the hosts of others, too."""
    assert trouble(str(locks)) is None
    assert list(locks.iterdir()) == []


def test_a_directory_of_our_own_is_created_and_a_named_one_never(tmp_path: Path) -> None:
    prepare(str(tmp_path / "state" / "lock"), own=True)
    assert (tmp_path / "state" / "lock").is_dir()
    with pytest.raises(ConfigError, match="not a directory"):
        prepare(str(tmp_path / "nova"), own=False)
    assert not (tmp_path / "nova").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be created"):
        prepare(str(tmp_path / "file" / "lock"), own=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_directory_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    """Else the first extend would fail, at night."""
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="cannot be written"):
        prepare(str(tmp_path), own=False)


def test_a_directory_of_ones_own_needs_no_file(tmp_path: Path) -> None:
    """os-brick makes it."""
    assert trouble(str(tmp_path)) is None
    assert not (tmp_path / LOCK_FILE).exists()


def test_nobody_holds_a_lock_that_is_not_there(tmp_path: Path) -> None:
    """And looking does not make it."""
    assert holder(str(tmp_path)) is None
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_process_is_named_as_well_as_it_can_be() -> None:
    """Its arguments may hold a secret; a process of another container has no number here."""
    assert name_of(os.getpid()).startswith(f"process {os.getpid()} (")
    assert name_of(1 << 22) == f"process {1 << 22}"
    assert "container" in name_of(0)
