# SPDX-License-Identifier: Apache-2.0
"""A volume's key, from castellan through os-brick's encryptor into cryptsetup's standard input.

Only os-brick's process (child.py) uses this module. The key is in the memory of that process and of its own child
processes. The process ends after its answer (pool.py). The key is never in an argument, message, log line or error.
"""

import queue
import resource
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from castellan import key_manager
from castellan.common import exception as key_errors
from castellan.common.utils import OPT_GROUP, credential_factory, credential_opts
from keystoneauth1.exceptions import ClientException
from os_brick import encryptors
from oslo_concurrency import processutils
from oslo_config import cfg
from oslo_context.context import RequestContext

from hostagent.brick.key_manager import NoKeyError, WrongKeyError

_KEY_WAIT: Final = 60.0  # seconds; castellan's drivers have no limit of their own
_NO_SUCH_KEY: Final = 2  # cryptsetup: no permission, a bad passphrase


class _Keys:
    """castellan's key manager for os-brick's encryptors, with a time limit, and one error for all failures."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self._conf = conf

    def get(self, _context: object, key_id: str) -> Any:
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=lambda: answers.put(self._ask(key_id)), daemon=True).start()
        try:
            answer = answers.get(timeout=_KEY_WAIT)
        except queue.Empty:
            raise NoKeyError(f"key {key_id}: no answer within {_KEY_WAIT:g} s") from None
        if isinstance(answer, NoKeyError):
            raise answer
        return answer

    def _ask(self, key_id: str) -> Any:
        try:
            key = key_manager.API(self._conf).get(_ourselves(self._conf), key_id)
            return key if key.get_encoded() else NoKeyError(f"key {key_id}: it is empty")
        except (key_errors.CastellanException, ClientException, cfg.Error) as ex:
            return NoKeyError(f"key {key_id}: {type(ex).__name__}: {ex}")
        except Exception as ex:  # noqa: BLE001 - a driver's own; its text may hold what it could not decode
            return NoKeyError(f"key {key_id}: {type(ex).__name__}")


def grow_map(
    root_helper: str,
    options_in: Mapping[str, Sequence[str]],
    *,
    device: str,
    encryption: Mapping[str, Any],
) -> None:
    """Resize the map to the device beneath it. Raises NoKeyError, WrongKeyError, and whatever os-brick raises.

    `options_in`: key_manager.KeyManagerSettings.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    conf = cfg.ConfigOpts()
    conf(
        [],
        project="extend-bridge",
        default_config_files=list(options_in["config_files"]),
        default_config_dirs=list(options_in["config_dirs"]),
    )
    connection = {"driver_volume_type": "", "data": {"device_path": device}}
    try:
        encryptor = encryptors.get_volume_encryptor(root_helper, connection, _Keys(conf), **encryption)
        encryptor.extend_volume(None)
    except processutils.ProcessExecutionError as ex:
        if ex.exit_code == _NO_SUCH_KEY:
            raise WrongKeyError(f"cryptsetup: {' '.join((ex.stderr or '').split())}") from None
        raise


def _ourselves(conf: cfg.ConfigOpts) -> Any:
    """Return the user of [key_manager] auth_type; without one an empty context, as Vault's driver takes it."""
    conf.register_opts(credential_opts, group=OPT_GROUP)
    return credential_factory(conf) if conf[OPT_GROUP].auth_type else RequestContext()
