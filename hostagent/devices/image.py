# SPDX-License-Identifier: Apache-2.0
"""Images: files that QEMU grows itself, and RBD images that QEMU's own client opens.

A file has no device to refresh; as in Nova (extend_volume of its NFS driver), the requested size is right. Its
format is the configured one and is never probed, because a guest can write any header into a raw file.

Cinder grows an RBD image in Ceph. QEMU would resize the image to any size, up or down. So its true size is read
first, by `qemu-img info` with the domain's own source and key. That needs no ceph.conf, keyring, Ceph tool or
Python module, and opens the image read-only. hostagent/resize.py has the guard.
"""

import base64
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.devices.base import volume_type
from hostagent.devices.commands import run_within
from hostagent.devices.luks2 import OFFSET_MAX
from hostagent.devices.rbd_names import image_names
from hostagent.domain import Disk, NetworkSource, SourceKind
from hostagent.errors import StepFailedError
from hostagent.ports import Images

_FORMATS = frozenset({"raw", "qcow2"})


class FileStrategy:
    """Raw and qcow2 files. Of LUKS inside of qcow2 QEMU takes the size that the guest sees."""

    name = "file"

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """Return whether the disk is a file that QEMU can grow."""
        del connection
        return disk.kind is SourceKind.FILE and disk.driver_format in _FORMATS and not disk.encrypted

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> None:
        """Return None, because QEMU grows the file itself."""

    def size(self, disk: Disk) -> None:
        """Return None, because a file is not a device of this host."""


class RbdStrategy:
    """Raw RBD images, whose size is read from Ceph."""

    name = "rbd"

    def __init__(self, images: Images) -> None:
        self._images = images

    def takes(self, disk: Disk, connection: Mapping[str, Any] | None) -> bool:
        """Return whether the disk is a raw image; the domain has the addresses of its cluster."""
        return (
            disk.kind is SourceKind.NETWORK
            and disk.network is not None
            and disk.network.protocol == "rbd"
            and disk.driver_format == "raw"
            and not disk.encrypted
            and volume_type(connection) in {None, "rbd"}
        )

    def refresh(self, disk: Disk, connection: Mapping[str, Any] | None) -> int:
        """Return the size, because Ceph needs no rescan."""
        del connection
        return self.size(disk)

    def size(self, disk: Disk) -> int:
        """Return the size that Ceph has."""
        return self._images.reader(disk)()


_SIZE_MAX: Final = 1 << 63
_WORDS: Final = 200  # of what qemu-img says at its end
_MISSING: Final = "qemu-img with its RBD driver is needed (Debian: qemu-utils, qemu-block-extra)"

Secret = Callable[[str], bytes | None]


class QemuImages:
    """Images read by qemu-img. `secret(uuid)`: a secret's value, None where the hypervisor does not give it.

    `limit` in seconds for one look; below the limit of a call, since one look is made within such a call.
    """

    def __init__(self, secret: Secret, *, limit: float, command: Sequence[str] = ("qemu-img",)) -> None:
        self._secret = secret
        self._limit = limit
        self._command = tuple(command)

    def reader(self, disk: Disk) -> Callable[[], int]:
        """Return a function that reads the image's size in bytes, now."""
        options, key = image_options(disk), self._key(disk)
        return lambda: _size(self._info(options, key))

    def luks_header(self, disk: Disk) -> int:
        """Return the bytes before the payload of the disk's LUKS1."""
        info = self._info({"driver": "luks", "file": image_options(disk)}, self._key(disk))
        specific = info.get("format-specific")
        data = specific.get("data") if isinstance(specific, dict) else None
        offset = data.get("payload-offset") if isinstance(data, dict) else None
        if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset <= OFFSET_MAX:
            raise _unreadable("qemu-img did not report a payload-offset")
        return offset

    def names(self, disk: Disk) -> frozenset[str]:
        """Return the names of the image in its storage; empty where they cannot be read."""
        return image_names(disk, self._key(disk), limit=self._limit)

    def _key(self, disk: Disk) -> bytes | None:
        """Return the domain's key; None where the host's own ceph.conf and keyring are used."""
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
            code, said, complaint = run_within(self._limit, command, pass_fds)
        except FileNotFoundError as ex:
            raise StepFailedError(Outcome.UNSUPPORTED, Reason.NO_STRATEGY, _MISSING) from ex
        except TimeoutError as ex:
            raise _unreadable(f"qemu-img took longer than {self._limit:g} s") from ex
        if "Unknown driver" in complaint:
            raise StepFailedError(Outcome.UNSUPPORTED, Reason.NO_STRATEGY, _MISSING)
        try:
            info = json.loads(said) if code == 0 else None
        except (ValueError, RecursionError):
            info = None
        if not isinstance(info, dict):
            raise _unreadable(f"qemu-img ended with {code}: {complaint.strip()[-_WORDS:]}")
        return info


def image_options(disk: Disk) -> dict[str, Any]:
    """Return QEMU's options for the disk, as QEMU's own client takes them. Pure."""
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
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < _SIZE_MAX:
        raise _unreadable("qemu-img did not report a virtual-size")
    return size


def _unreadable(detail: str) -> StepFailedError:
    return StepFailedError(Outcome.DEVICE_STALE, Reason.IMAGE_UNREADABLE, detail)
