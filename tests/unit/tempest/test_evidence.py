# SPDX-License-Identifier: Apache-2.0
"""What the Tempest plugin takes for evidence of a guest's size."""

import json
import shlex
import sys
from pathlib import Path

import pytest

from bridge.tempest.evidence import CommandFailedError, console_shows, size_in, size_on_hosts, wait_for
from bridge.tempest.options import OPTS

GIB = 1 << 30
PATTERNS = next(opt.default for opt in OPTS if opt.name == "console_pattern")
VIRTIO = (
    "[    2.1] virtio_blk virtio2: [vdb] 2097152 512-byte logical blocks (1.07 GB/1.00 GiB)\n"
    "[   61.4] virtio_blk virtio2: [vdb] new size: 4194304 512-byte logical blocks (2.15 GB/2.00 GiB)\n"
)


def test_linux_names_a_size_of_virtio_blk_when_the_disk_comes_and_when_it_grows() -> None:
    assert console_shows(VIRTIO, PATTERNS, GIB)
    assert console_shows(VIRTIO, PATTERNS, 2 * GIB)
    assert not console_shows(VIRTIO, PATTERNS, 3 * GIB)


def test_linux_names_the_new_size_of_a_scsi_disk() -> None:
    line = "sdb: detected capacity change from 2097152 to 4194304\n"
    assert console_shows(line, PATTERNS, 2 * GIB)
    assert not console_shows(line, PATTERNS, GIB)


def test_the_end_of_another_number_is_not_the_size() -> None:
    assert not console_shows("[vdb] 14194304 512-byte logical blocks\n", PATTERNS, 2 * GIB)
    assert not console_shows("detected capacity change from 2097152 to 41943040\n", PATTERNS, 2 * GIB)


def test_a_pattern_of_an_own_image_may_name_bytes() -> None:
    assert console_shows("SIZE vdb 2147483648\n", [r"SIZE vd[a-z] {bytes}\b"], 2 * GIB)


def test_a_volume_on_two_servers_has_the_size_of_the_one_that_is_behind() -> None:
    rows = [{"Volume": "v", "Bytes": 2 * GIB}, {"Volume": "v", "Bytes": GIB}, {"Volume": "w", "Bytes": 1}]
    assert size_in(rows, "v") == GIB
    assert size_in(rows, "x") is None


def test_every_host_is_asked_for_the_volume(tmp_path: Path) -> None:
    shown = {"compute-1": [], "compute-2": [{"Server": "s", "Volume": "v", "Bytes": GIB}]}
    command = _command(
        tmp_path,
        f"shown = {json.dumps(shown)}\n"
        "words = sys.argv[1:]\n"
        "assert words[-2:] == ['-f', 'json'], words\n"
        "print(json.dumps([{'Host': h} for h in shown] if words[:2] == ['host', 'list'] else shown[words[2]]))\n",
    )
    assert size_on_hosts(command, "v") == GIB
    assert size_on_hosts(command, "x") is None


def test_a_command_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(CommandFailedError, match="the journal is away"):
        size_on_hosts(_command(tmp_path, "sys.exit('the journal is away')\n"), "v")
    with pytest.raises(CommandFailedError, match="no-such-program"):
        size_on_hosts("no-such-program", "v")
    with pytest.raises(CommandFailedError, match="not json"):
        size_on_hosts(_command(tmp_path, "print('words')\n", name="not json"), "v")


def test_a_wait_ends_with_its_time() -> None:
    assert wait_for(lambda: True, 0)
    assert not wait_for(lambda: False, 0)


def _command(directory: Path, body: str, *, name: str = "command") -> str:
    script = directory / name
    script.write_text(f"import json, sys\n{body}")
    return shlex.join([sys.executable, str(script)])
