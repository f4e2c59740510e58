# SPDX-License-Identifier: Apache-2.0
"""Encrypted volumes as nova-compute attaches them: os-brick's own encryptor opens them, here with a key in KEYS."""

import json
import os
import uuid
from dataclasses import dataclass, field
from typing import Any, Final

from bridge.core.encryption import Encryption
from tests.lab.storage_vm.inside.agent import KEYS
from tests.lab.storage_vm.inside.commands import sh
from tests.lab.storage_vm.inside.compute import Attached, Volume, connect

_QUICK: Final = ("--pbkdf-force-iterations", "1000")
_PBKDF: Final = {"luks1": (), "luks2": ("--pbkdf", "pbkdf2")}


@dataclass(slots=True)
class Locked:
    """A volume, its key, and how Cinder says it is opened. `kind`: luks1, luks2 or plain."""

    volume: Volume
    kind: str = "luks2"
    multipath: bool = False
    key: bytes = field(default_factory=lambda: os.urandom(32))
    key_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    path: str = ""

    @property
    def encryption(self) -> Encryption:
        """As Cinder tells it."""
        provider = {"luks1": "luks"}.get(self.kind, self.kind)
        return Encryption(key_id=self.key_id, provider=provider, control_location="front-end")

    @property
    def connection(self) -> dict[str, Any]:
        """As the attachment has it."""
        connection = self.volume.connection
        return {**connection, "data": {**connection["data"], "encrypted": True}}

    def attach(self) -> Attached:
        """Connect, format, open; the domain gets the symlink, which is the map from then on."""
        from os_brick import encryptors  # noqa: PLC0415 - takes seconds, see compute.py

        self.give_key(self.key)
        connected = connect(self.volume, multipath=self.multipath, encrypted=True)
        self.path = connected.path
        device = os.path.realpath(self.path)
        if self.kind != "plain":
            sh(
                "cryptsetup", "luksFormat", "--batch-mode", "--type", self.kind, *_PBKDF[self.kind], *_QUICK,
                "--key-file=-", device, data=self.key.hex().encode(),
            )  # fmt: skip
        connection = {"driver_volume_type": "", "data": {"device_path": self.path}}
        encryptor = encryptors.get_volume_encryptor(
            "sudo", connection, _Keys(self.key), **self.encryption.to_wire()
        )
        encryptor.attach_volume(None)
        hidden = int(sh("blockdev", "--getsize64", device)) - self.size()
        return Attached(volume_id=self.volume.volume_id, path=self.path, hidden=hidden)

    def size(self) -> int:
        """What the map shows."""
        return int(sh("blockdev", "--getsize64", self.path))

    def give_key(self, key: bytes | None) -> None:
        """Have the key manager give this for our id; None: it is away."""
        if key is None:
            KEYS.unlink()
            return
        known = json.loads(KEYS.read_text()) if KEYS.exists() else {}
        KEYS.write_text(json.dumps({**known, self.key_id: key.hex()}))


class _Keys:
    """A key manager of one key, as os-brick uses it."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def get(self, _context: object, _key_id: str) -> "_Keys":
        return self

    def managed_type(self) -> str:
        return "symmetric"

    def get_encoded(self) -> bytes:
        return self._key
