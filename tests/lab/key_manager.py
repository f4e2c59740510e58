# SPDX-License-Identifier: Apache-2.0
"""A key manager for tests, as castellan loads one by its class: keys from a JSON file, {id: bytes in hex}.

`[key_manager] backend = tests.lab.key_manager.KeysInAFile`, `[key_manager] file`. A file that is not there is a key
manager that is away.
"""

import json
from pathlib import Path
from typing import Any, Final

from castellan.common import exception
from castellan.common.objects.symmetric_key import SymmetricKey
from castellan.key_manager.key_manager import KeyManager
from oslo_config import cfg

BACKEND: Final = f"{__name__}.KeysInAFile"


class KeysInAFile(KeyManager):
    """Gives keys and nothing else."""

    def __init__(self, configuration: cfg.ConfigOpts) -> None:
        configuration.register_opts([cfg.StrOpt("file")], group="key_manager")
        self._file = Path(configuration.key_manager.file)

    def get(self, context: Any, managed_object_id: str, metadata_only: bool = False) -> SymmetricKey:
        """The key of this id."""
        if context is None:
            raise exception.Forbidden
        try:
            keys = json.loads(self._file.read_text())
        except OSError as ex:
            raise exception.KeyManagerError(reason=ex.strerror) from ex
        if managed_object_id not in keys:
            raise exception.ManagedObjectNotFoundError(uuid=managed_object_id)
        key = bytes.fromhex(keys[managed_object_id])
        return SymmetricKey("AES", len(key) * 8, key)

    def _nothing_else(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    create_key = create_key_pair = store = delete = list = add_consumer = remove_consumer = _nothing_else
