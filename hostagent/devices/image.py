# SPDX-License-Identifier: Apache-2.0
"""The true size of an RBD image, as QEMU's own client sees it: `qemu-img info` with the domain's source and key.

libvirt's blockInfo says what the guest has, and no call of it asks Ceph. qemu-img needs nothing a hypervisor lacks:
no ceph.conf, no keyring, no Ceph tools, no Python module outside the virtualenv. It opens the image read-only.

Files, local or on a share: there is no device to refresh, QEMU grows the file when the guest's disk is resized.

As Nova does it (libvirt/volume/nfs.py: extend_volume returns the requested size). The format is the one the
domain's XML names; it is never probed, since a guest can write any header into a raw file.

RBD: no device of this host. Cinder has grown the image in Ceph, and QEMU's client has yet to be told.

QEMU would resize the image itself, up or down, to whatever it is told. So the image's true size is read first, and
this strategy only ever waits for it: it makes no image larger (hostagent/resize.py has the guard).
"""

import base64
import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices.base import volume_type
from hostagent.domain import Disk, NetworkSource, SourceKind
from hostagent.errors import StepFailedError
from hostagent.ports import Images

_FORMATS = frozenset({"raw", "qcow2"})


class FileStrategy:
    """Raw and qcow2 files."""

    name = "file"

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """Files QEMU can grow. With QEMU's own encryption the payload is smaller than the file: not here."""
        del connection
        return disk.kind is SourceKind.FILE and disk.driver_format in _FORMATS and not disk.encrypted

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> None:
        """See Strategy: nothing to refresh."""

    def size(self, disk: Disk) -> None:
        """See Strategy: no device."""


class RbdStrategy:
    """Raw RBD images."""

    name = "rbd"

    def __init__(self, images: Images) -> None:
        self._images = images

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """See Strategy. The domain itself says how its image is reached."""
        return (
            disk.kind is SourceKind.NETWORK
            and disk.network is not None
            and disk.network.protocol == "rbd"
            and disk.driver_format == "raw"
            and not disk.encrypted
            and volume_type(connection) in {None, "rbd"}
        )

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int:
        """See Strategy: there is nothing to nudge."""
        del connection
        return self.size(disk)

    def size(self, disk: Disk) -> int:
        """See Strategy: what Ceph says."""
        return self._images.reader(disk)()


_WORDS: Final = 200  # of what qemu-img says at its end
_MISSING: Final = "qemu-img with its RBD driver is needed (Debian: qemu-utils, qemu-block-extra)"

Secret = Callable[[str], bytes | None]


class QemuImages:
    """See ports.Images. `secret(uuid)`: a libvirt secret's value, None where libvirt does not give it.

    `limit` in seconds for one look; below the limit of a libvirt call, since one look is made within such a call.
    """

    def __init__(self, secret: Secret, *, limit: float, command: Sequence[str] = ("qemu-img",)) -> None:
        self._secret = secret
        self._limit = limit
        self._command = tuple(command)

    def reader(self, disk: Disk) -> Callable[[], int]:
        """See ports.Images."""
        options, key = image_options(disk), self._key(disk)
        return lambda: _size(self._info(options, key))

    def luks_header(self, disk: Disk) -> int:
        """See ports.Images."""
        info = self._info({"driver": "luks", "file": image_options(disk)}, self._key(disk))
        offset = info.get("format-specific", {}).get("data", {}).get("payload-offset")
        if not isinstance(offset, int):
            raise _unreadable("qemu-img says no payload-offset")
        return offset

    def _key(self, disk: Disk) -> bytes | None:
        """None: the host's own ceph.conf and keyring have to do."""
        secret_id = disk.network.secret_id if disk.network is not None else None
        return self._secret(secret_id) if secret_id is not None else None

    def _info(self, options: dict[str, Any], key: bytes | None) -> dict[str, Any]:
        if key is None:
            return self._run(options, (), ())
        reading, writing = os.pipe()  # the key is in no file and on no command line
        try:
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(base64.b64encode(key))
            rbd = options.get("file", options)
            rbd |= {"key-secret": "key", "auth-client-required": ["cephx", "none"]}
            secret = ("--object", f"secret,id=key,format=base64,file=/dev/fd/{reading}")
            return self._run(options, secret, (reading,))
        finally:
            os.close(reading)

    def _run(self, options: dict[str, Any], secret: Sequence[str], pass_fds: Sequence[int]) -> dict[str, Any]:
        command = [*self._command, "info", "--output=json", *secret, f"json:{json.dumps(options)}"]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
                timeout=self._limit, pass_fds=pass_fds, env={**os.environ, "LC_ALL": "C"}, start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError as ex:
            raise StepFailedError(Outcome.UNSUPPORTED, Reason.NO_STRATEGY, _MISSING) from ex
        except subprocess.TimeoutExpired as ex:
            raise _unreadable(f"qemu-img took longer than {self._limit:g} s") from ex
        if "Unknown driver" in done.stderr:
            raise StepFailedError(Outcome.UNSUPPORTED, Reason.NO_STRATEGY, _MISSING)
        try:
            info = json.loads(done.stdout) if done.returncode == 0 else None
        except ValueError:
            info = None
        if not isinstance(info, dict):
            raise _unreadable(f"qemu-img ended with {done.returncode}: {done.stderr.strip()[-_WORDS:]}")
        return info


def image_options(disk: Disk) -> dict[str, Any]:
    """QEMU's block options for the disk, as libvirt builds them (qemuBlockStorageSourceGetRBDProps). Pure."""
    network, name = disk.network, disk.source or ""
    parts = name.split("/")
    if network is None or len(parts) not in {2, 3} or not all(parts):
        raise StepFailedError(Outcome.UNSUPPORTED, Reason.NO_STRATEGY, f"an RBD image named {name!r}")
    options: dict[str, Any] = {"driver": "rbd", "pool": parts[0], "image": parts[-1]}
    if len(parts) == 3:  # noqa: PLR2004 - pool/namespace/image
        options["namespace"] = parts[1]
    return options | _way_in(network)


def _way_in(network: NetworkSource) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if network.hosts:
        options["server"] = [{"host": host, "port": port or "6789"} for host, port in network.hosts]
    if network.conf is not None:
        options["conf"] = network.conf
    if network.user is not None:
        options["user"] = network.user
    return options


def _size(info: dict[str, Any]) -> int:
    size = info.get("virtual-size")
    if not isinstance(size, int):
        raise _unreadable("qemu-img says no virtual-size")
    return size


def _unreadable(detail: str) -> StepFailedError:
    return StepFailedError(Outcome.DEVICE_STALE, Reason.IMAGE_UNREADABLE, detail)
