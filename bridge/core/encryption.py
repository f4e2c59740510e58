# SPDX-License-Identifier: Apache-2.0
"""How an encrypted volume is opened, as far as an extend has to know it. The key itself is in no message.

Source: GET /v3/volumes/{id}/encryption of Cinder (cinder/api/contrib/volume_encryption_metadata.py); the order has
it under the same names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bridge.core.wire import mapping, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Encryption:
    """`key_id` names the key in the key manager and is no secret. `provider` as Cinder's volume type has it: luks,
    luks2, plain, or the name of an os-brick class. `control_location`: front-end, that is the hypervisor, or
    back-end."""

    key_id: str
    provider: str
    control_location: str
    cipher: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """A JSON-ready dict, under Cinder's names; os-brick's encryptors take the same."""
        return {
            "encryption_key_id": self.key_id,
            "provider": self.provider,
            "control_location": self.control_location,
            "cipher": self.cipher,
        }

    @classmethod
    def from_wire(cls, raw: object) -> "Encryption":
        """Read Cinder's answer or an order's; raises BadMessageError. Other keys are left behind."""
        message: Mapping[str, Any] = mapping(raw, "encryption")
        return cls(
            key_id=text(message, "encryption_key_id"),
            provider=text(message, "provider"),
            control_location=text(message, "control_location"),
            cipher=None if message.get("cipher") is None else text(message, "cipher"),
        )
