# SPDX-License-Identifier: Apache-2.0
"""Reading an image's size by qemu-img: what it is told, and what its answers become. A script stands in for it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices.image import QemuImages, RbdStrategy, image_options
from hostagent.domain import Disk
from hostagent.drivers.libvirt.domain_xml import parse_disks
from hostagent.errors import StepFailedError

XML = """<domain><devices><disk type='network' device='disk'><driver name='qemu' type='raw'/>
<auth username='cinder'><secret type='ceph' uuid='5d1a5b6e-0000-4000-8000-000000000001'/></auth>
<source protocol='rbd' name='{name}'><host name='10.0.0.1' port='6789'/><host name='10.0.0.2'/>
<config file='/etc/ceph/ceph.conf'/></source><target dev='vda' bus='virtio'/></disk></devices></domain>"""


def rbd(name: str = "volumes/volume-1") -> Disk:
    [disk] = parse_disks(XML.format(name=name))
    return disk


def images(tmp_path: Path, script: str, *, key: bytes | None = None, limit: float = 5.0) -> QemuImages:
    program = tmp_path / "qemu-img"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return QemuImages(lambda _: key, limit=limit, command=[str(program)])


def test_the_image_is_reached_as_the_domain_reaches_it() -> None:
    """Pool, image, user, servers and configuration are those of its XML."""
    assert image_options(rbd()) == {
        "driver": "rbd", "pool": "volumes", "image": "volume-1", "user": "cinder", "conf": "/etc/ceph/ceph.conf",
        "server": [{"host": "10.0.0.1", "port": "6789"}, {"host": "10.0.0.2", "port": "6789"}],
    }  # fmt: skip
    assert image_options(rbd("pool/space/image"))["namespace"] == "space"


@pytest.mark.parametrize("name", ["", "image", "pool/", "/image", "a/b/c/d"])
def test_a_name_that_is_no_image_is_unsupported(name: str) -> None:
    """Nothing is asked of Ceph for it."""
    with pytest.raises(StepFailedError) as caught:
        image_options(rbd(name))
    assert caught.value.outcome is Outcome.UNSUPPORTED


def test_the_size_is_read_anew_each_time(tmp_path: Path) -> None:
    """A reader that remembers would be worse than none."""
    (tmp_path / "size").write_text("64")
    reader = images(tmp_path, f"printf '{{\"virtual-size\": %s}}' $(cat {tmp_path}/size)").reader(rbd())
    assert reader() == 64
    (tmp_path / "size").write_text("128")
    assert reader() == 128


@pytest.mark.parametrize(
    "script",
    [
        "exit 1", "echo garbage", "echo []", "echo '{}'", "echo '{\"virtual-size\": \"1\"}'", "kill -9 $$",
        "echo '{\"virtual-size\": 1}'; exit 1",
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_tried_again(tmp_path: Path, script: str) -> None:
    """Ceph may be away; whatever it is, nothing is resized on a guess."""
    with pytest.raises(StepFailedError) as caught:
        images(tmp_path, script).reader(rbd())()
    assert (caught.value.outcome, caught.value.reason) == (Outcome.DEVICE_STALE, Reason.IMAGE_UNREADABLE)


def test_one_that_does_not_end_is_ended(tmp_path: Path) -> None:
    """A Ceph without its OSDs answers nobody."""
    with pytest.raises(StepFailedError, match="longer than"):
        images(tmp_path, "exec sleep 60", limit=0.1).reader(rbd())()


@pytest.mark.parametrize("make", [
    lambda path: QemuImages(lambda _: None, limit=1, command=[str(path / "absent")]),
    lambda path: images(path, "echo \"qemu-img: Unknown driver 'rbd'\" >&2; exit 1"),
])  # fmt: skip
def test_a_host_without_qemu_img_says_what_to_install(tmp_path: Path, make: Callable[[Path], QemuImages]) -> None:
    """Final: it does not come by waiting."""
    with pytest.raises(StepFailedError, match="qemu-block-extra") as caught:
        make(tmp_path).reader(rbd())()
    assert caught.value.outcome is Outcome.UNSUPPORTED


def test_the_key_goes_through_a_pipe(tmp_path: Path) -> None:
    """qemu-img can read it there, in base64, and it is told so; no argument holds it."""
    script = (
        f'for a; do echo "$a" >> {tmp_path}/said; done\n'
        f'for a; do case $a in secret,*) cat "${{a##*file=}}" > {tmp_path}/key;; esac; done\n'
        "echo '{\"virtual-size\": 1}'"
    )
    assert images(tmp_path, script, key=b"\x01secret\xff").reader(rbd())() == 1
    assert (tmp_path / "key").read_text() == "AXNlY3JldP8="
    said = (tmp_path / "said").read_text().splitlines()
    assert "AXNlY3JldP8=" not in "".join(said)
    options: dict[str, Any] = json.loads(said[-1].removeprefix("json:"))
    assert (options["key-secret"], options["auth-client-required"]) == ("key", ["cephx", "none"])


@pytest.mark.parametrize(
    ("change", "takes"),
    [
        ("", True), ("type='raw'|type='qcow2'", False), ("protocol='rbd'|protocol='nbd'", False),
        ("</source>|<encryption format='luks'/></source>", False),
    ],
)  # fmt: skip
def test_raw_rbd_is_what_the_strategy_takes(tmp_path: Path, change: str, takes: bool) -> None:
    """Nothing else that QEMU's clients open."""
    was, _, becomes = change.partition("|")
    xml = XML.format(name="a/b").replace(was, becomes) if change else XML.format(name="a/b")
    [disk] = parse_disks(xml)
    strategy = RbdStrategy(images(tmp_path, "exit 1"))
    assert strategy.takes(disk, None) is takes
    assert strategy.takes(disk, {"driver_volume_type": "rbd", "data": {}}) is takes
    assert not strategy.takes(disk, {"driver_volume_type": "iscsi", "data": {}})
