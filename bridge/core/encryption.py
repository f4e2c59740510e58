# SPDX-License-Identifier: Apache-2.0
"""Encryption data of a volume, as far as an extend needs it. Messages never contain the key itself.

Source: GET /v3/volumes/{id}/encryption of Cinder (cinder/api/contrib/volume_encryption_metadata.py). The order has
the same names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.core.wire import mapping, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """Encryption of one volume. `key_id` names the key in the key manager and is not a secret.

    `provider` as Cinder's volume type has it: luks, luks2, plain, or the name of an os-brick class.
    `control_location`: front-end, that is the hypervisor, or back-end.
    """

    key_id: str
    provider: str
    control_location: str
    cipher: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return a JSON-ready dict with Cinder's names, which os-brick's encryptors take too."""
        return {
            "encryption_key_id": self.key_id,
            "provider": self.provider,
            "control_location": self.control_location,
            "cipher": self.cipher,
        }

    @classmethod
    def from_wire(cls, raw: object) -> "Encryption":
        """Read Cinder's answer or an order's part; raises BadMessageError. Other keys are ignored."""
        message: Mapping[str, Any] = mapping(raw, "encryption")
        return cls(
            key_id=text(message, "encryption_key_id"),
            provider=text(message, "provider"),
            control_location=text(message, "control_location"),
            cipher=None if message.get("cipher") is None else text(message, "cipher"),
        )
