# SPDX-License-Identifier: Apache-2.0
"""The helper for guests in etc/guest/: its package, and what it says without a disk to grow."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lab.paths import ROOT

GUEST = ROOT / "etc" / "guest"
HELPER = GUEST / "extend-bridge-grow"


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run the helper."""
    return subprocess.run(["sh", str(HELPER), *words], capture_output=True, text=True, check=False)


def test_help_has_an_example_and_the_exit_codes() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "Example: extend-bridge-grow" in done.stdout
    assert "Exit status" in done.stdout


@pytest.mark.parametrize("words", [(), ("--grow",), ("--dry-run",)])
def test_wrong_usage_is_2_with_the_usage_on_standard_error(words: tuple[str, ...]) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage:")


@pytest.mark.parametrize("disk", ["no-such-disk", "../../etc/passwd", "a;reboot", "$(reboot)"])
def test_a_name_that_is_not_a_disk_is_refused_in_words(disk: str) -> None:
    done = run("--", disk)
    assert done.returncode == 2
    assert "no such disk" in done.stdout or "needs root" in done.stderr


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb")
def test_the_package_brings_each_file_to_where_it_is_looked_for(tmp_path: Path) -> None:
    package = subprocess.run(
        ["sh", str(GUEST / "build-deb"), str(tmp_path)], capture_output=True, text=True, check=True
    ).stdout.strip()
    contents = subprocess.run(["dpkg-deb", "-c", package], capture_output=True, text=True, check=True).stdout
    files = {line.split()[-1]: line.split()[0] for line in contents.splitlines()}
    assert files["./usr/sbin/extend-bridge-grow"] == "-rwxr-xr-x"
    for path in (
        "./usr/lib/udev/rules.d/90-extend-bridge-grow.rules",
        "./usr/lib/systemd/system/extend-bridge-grow@.service",
        "./etc/extend-bridge-grow.conf",
    ):
        assert files[path] == "-rw-r--r--"
    conffiles = subprocess.run(
        ["dpkg-deb", "-I", package, "conffiles"], capture_output=True, text=True, check=True
    ).stdout
    assert conffiles == "/etc/extend-bridge-grow.conf\n"
