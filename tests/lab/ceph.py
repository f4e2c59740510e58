# SPDX-License-Identifier: Apache-2.0
"""A Ceph of one's own: one monitor and one OSD in user space, loopback only, cephx on, all in one directory.

No manager: RBD works without one. The OSD keeps its objects in memory.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from xml.sax.saxutils import quoteattr

from tests.lab.ports import steady_port
from tests.lab.process import ServerProcess

POOL: Final = "volumes"
USER: Final = "cinder"
_COMMAND_SECONDS: Final = 300.0

_CONF: Final = """[global]
fsid = {fsid}
mon host = v2:127.0.0.1:{port}
public addr = 127.0.0.1
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {directory}/$name.keyring
osd pool default size = 1
osd pool default min size = 1
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
run dir = {directory}
admin socket = {directory}/$name.asok
log file = {directory}/$name.log
pid file = {directory}/$name.pid
ms bind ipv6 = false
rbd default features = 61
[mon]
mon data = {directory}/mon
mon data avail crit = 1
mon data avail warn = 2
[osd]
osd data = {directory}/osd
osd objectstore = memstore
memstore device bytes = 2147483648
osd memory target = 939524096
osd class load list = *
{classes}
"""


def have_ceph() -> bool:
    """Whether Ceph's daemons, its tools and QEMU's RBD driver are installed."""
    tools = all(shutil.which(tool) for tool in ("ceph-mon", "ceph-osd", "rbd", "qemu-img"))
    return tools and any(Path("/usr/lib").glob("*/qemu/block-rbd.so"))


def _class_directory() -> str:
    """Return the line that names the directory of the OSD's classes, whose default of Ceph 18 is relative."""
    return "".join(f"osd class dir = {path}" for path in sorted(Path("/usr/lib").glob("*/rados-classes"))[:1])


class CephCluster:
    """A cluster with the pool `volumes` and the user `cinder`, as Cinder's RBD driver wants them."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="eb-ceph-"))
        self.conf = self.directory / "ceph.conf"
        self.port = steady_port()
        self._monitor = ServerProcess("ceph-mon", self.directory / "mon.out")
        self._osd = ServerProcess("ceph-osd", self.directory / "osd.out")

    def start(self) -> Self:
        """From nothing to a pool that takes images. Raises CalledProcessError or AssertionError."""
        fsid = str(uuid.uuid4())
        self.conf.write_text(
            _CONF.format(fsid=fsid, port=self.port, directory=self.directory, classes=_class_directory())
        )
        self._start_monitor(fsid)
        self._start_osd()
        self.ceph("osd", "pool", "create", POOL, "8", "8")
        self.ceph("osd", "pool", "application", "enable", POOL, "rbd")
        keyring = self.ceph(
            "auth", "get-or-create", f"client.{USER}", "mon", "profile rbd", "osd", f"profile rbd pool={POOL}"
        )
        (self.directory / f"client.{USER}.keyring").write_text(f"{keyring}\n")
        return self

    def stop(self) -> None:
        """End the daemons by their pids and throw everything away."""
        self._osd.stop(signal.SIGKILL)
        self._monitor.stop(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def key(self) -> str:
        """The key of the user `cinder`, in base64: what a libvirt secret of type ceph holds, decoded."""
        return self.ceph("auth", "get-key", f"client.{USER}")

    def pause(self) -> None:
        """Freeze the OSD, as a cluster that has lost its quorum of OSDs looks to its clients."""
        self._osd.send(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it run again."""
        self._osd.send(signal.SIGCONT)

    def ceph(self, *arguments: str) -> str:
        """Run ceph; what it printed."""
        return self._run("ceph", "-c", str(self.conf), *arguments)

    def rbd(self, *arguments: str) -> str:
        """Run rbd; what it printed."""
        return self._run("rbd", "-c", str(self.conf), *arguments)

    def image_size(self, name: str) -> int:
        """An image's true size in bytes."""
        found: dict[str, Any] = json.loads(self.rbd("info", "--format", "json", f"{POOL}/{name}"))
        return int(found["size"])

    def _start_monitor(self, fsid: str) -> None:
        directory, keyring = self.directory, str(self.directory / "mon.a.keyring")
        admin = str(directory / "client.admin.keyring")
        (directory / "mon").mkdir()
        auth = ["ceph-authtool", "--gen-key", "--create-keyring"]
        self._run(*auth, keyring, "-n", "mon.", "--cap", "mon", "allow *")
        self._run(*auth, admin, "-n", "client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *")
        self._run("ceph-authtool", keyring, "--import-keyring", admin)
        monmap = str(directory / "monmap")
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{self.port}]", monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring, "-c", str(self.conf))
        self._monitor.start(
            ["ceph-mon", "-i", "a", "-f", "-c", str(self.conf)], answers=lambda: bool(self.ceph("mon", "stat"))
        )

    def _start_osd(self) -> None:
        osd_id = str(uuid.uuid4())
        (self.directory / "osd").mkdir()
        keyring = self.directory / "osd.0.keyring"
        self._run("ceph-authtool", "--create-keyring", str(keyring), "--gen-key", "-n", "osd.0")
        self.ceph("osd", "new", osd_id)
        self.ceph("auth", "add", "osd.0", "mon", "allow profile osd", "osd", "allow *", "-i", str(keyring))
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_id, "-c", str(self.conf))
        self._osd.start(
            ["ceph-osd", "-i", "0", "-f", "-c", str(self.conf)], answers=lambda: "1 up" in self.ceph("osd", "stat")
        )

    def _run(self, *command: str) -> str:
        environment = dict(os.environ, CEPH_CONF=str(self.conf))
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=_COMMAND_SECONDS
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command[:3])} ended with {done.returncode}: {done.stderr[-1000:]}")
        return done.stdout.strip()


@dataclass(slots=True)
class RbdImage:
    """An RBD volume of a cluster. `secret_id`: the libvirt secret with the user's key, None: the host's keyring."""

    cluster: CephCluster
    size: int
    volume_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    secret_id: str | None = None

    def __post_init__(self) -> None:
        self.cluster.rbd("create", "--size", f"{self.size}B", f"{POOL}/{self.name}")

    @property
    def name(self) -> str:
        """As Cinder's driver names it."""
        return f"volume-{self.volume_id}"

    def xml(self, target: str) -> str:
        """The <disk> element, as Nova writes it."""
        auth = (
            f"<auth username='{USER}'><secret type='ceph' uuid='{self.secret_id}'/></auth>"
            if self.secret_id
            else ""
        )
        return (
            "<disk type='network' device='disk'><driver name='qemu' type='raw' cache='writeback'/>"
            f"{auth}<source protocol='rbd' name='{POOL}/{self.name}'>"
            f"<host name='127.0.0.1' port='{self.cluster.port}'/><config file={quoteattr(str(self.cluster.conf))}/>"
            f"</source><target dev='{target}' bus='virtio'/><serial>{self.volume_id}</serial></disk>"
        )

    def grow(self, size: int) -> None:
        """What Cinder's driver does on an extend; QEMU does not notice."""
        self.cluster.rbd("resize", "--no-progress", "--size", f"{size}B", f"{POOL}/{self.name}")

    def write(self, data: bytes) -> None:
        """Put this at the start of the image."""
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            target = f"rbd:{POOL}/{self.name}:id=admin:conf={self.cluster.conf}"
            subprocess.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", file.name, target], check=True)

    def true_size(self) -> int:
        """What Ceph says."""
        return self.cluster.image_size(self.name)

    def close(self) -> None:
        """Nothing is held: the cluster is thrown away whole."""
