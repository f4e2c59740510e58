# SPDX-License-Identifier: Apache-2.0
"""The name of an RBD image in its cluster, told by `rbd`. A script stands in for it."""

from dataclasses import replace
from pathlib import Path

import pytest

from hostagent.devices.rbd_names import image_names
from hostagent.domain import Disk, NetworkSource, SourceKind

DISK = Disk(
    target="vda", kind=SourceKind.NETWORK, source="volumes/volume-1", driver_format="raw", volume_id=None,
    network=NetworkSource(protocol="rbd", hosts=(("10.0.0.1", "3300"), ("fd00::1", "")), user="cinder"),
)  # fmt: skip
SAYS = """echo '{"name": "volume-1", "id": "12ab", "size": 1}'"""


def rbd(tmp_path: Path, script: str) -> list[str]:
    program = tmp_path / "rbd"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return [str(program)]


def test_the_domains_own_way_to_the_cluster_is_taken_and_its_key_is_in_no_argument(tmp_path: Path) -> None:
    script = f'echo "$@" >{tmp_path}/args; for a in "$@"; do case $a in --keyfile=*) cat ${{a#*=}} ;; esac; done'
    command = rbd(tmp_path, f"({script}) >{tmp_path}/key; {SAYS}")
    assert image_names(DISK, b"secret", limit=5, command=command) == {"rbd-image 12ab"}
    arguments = (tmp_path / "args").read_text().split()
    assert arguments[:-3] == ["info", "--format=json", "--mon_host=10.0.0.1:3300,[fd00::1]:6789", "--id=cinder"]
    assert arguments[-2:] == ["--pool=volumes", "--image=volume-1"]
    assert (tmp_path / "key").read_text() == "c2VjcmV0"


def test_an_image_in_a_namespace_is_found_there(tmp_path: Path) -> None:
    command = rbd(tmp_path, f'echo "$@" >{tmp_path}/args; {SAYS}')
    assert image_names(replace(DISK, source="volumes/ns/-1"), None, limit=5, command=command)
    assert (tmp_path / "args").read_text().split()[-3:] == ["--pool=volumes", "--image=-1", "--namespace=ns"]


@pytest.mark.parametrize(
    "script",
    ["exit 2", "echo []", "echo {", "echo {}", """echo '{"id": 5}'""", """echo '{"id": ""}'""", "sleep 60"],
)
def test_an_image_whose_id_cannot_be_had_is_not_compared(tmp_path: Path, script: str) -> None:
    assert image_names(DISK, None, limit=0.5, command=rbd(tmp_path, script)) == frozenset()


def test_a_host_without_the_command_and_a_disk_of_another_protocol_have_no_names(tmp_path: Path) -> None:
    assert image_names(DISK, None, limit=5, command=[str(tmp_path / "none")]) == frozenset()
    assert image_names(replace(DISK, network=NetworkSource(protocol="nbd")), None, limit=5) == frozenset()
