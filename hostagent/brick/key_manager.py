# SPDX-License-Identifier: Apache-2.0
"""[key_manager]: whether this host may ask for volumes' keys. Without it the agent knows no key manager at all.

Only `backend` is read here. All else is castellan's, which reads the same files in the os-brick process.
"""

import importlib.util
from dataclasses import dataclass
from typing import Final

from oslo_config import cfg

GROUP: Final = "key_manager"
OPTS: Final = [
    cfg.StrOpt(
        "backend",
        sample_default="barbican",
        help="Set it to let this host ask the key manager for the keys of encrypted volumes: resizing a LUKS2 "
        "volume that dm-crypt on the host decrypts takes its key. Castellan's backend: barbican, vault or a class. "
        "Its other options, and with them who we are to the key manager ([key_manager] auth_type, username, "
        "password; [barbican]; [vault]), are castellan's own and are read from the same files. Needs "
        "extend-bridge[keymanager]. Unset: such volumes end as unsupported, and no key ever comes to this host.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyManagerSettings:
    """Where castellan finds its own options."""

    config_files: tuple[str, ...]
    config_dirs: tuple[str, ...]


class NoKeyError(Exception):
    """The key manager gave no key; the text says why and holds none."""


class WrongKeyError(Exception):
    """cryptsetup does not take the key."""


def key_manager_settings(conf: cfg.ConfigOpts) -> KeyManagerSettings | None:
    """None unless the operator opted in."""
    if not conf.key_manager.backend:
        return None
    return KeyManagerSettings(config_files=tuple(conf.config_file or ()), config_dirs=tuple(conf.config_dir or ()))


def missing(settings: KeyManagerSettings | None) -> str | None:
    """What has to be installed first, in words to act on; castellan itself is not imported here."""
    if settings is None or importlib.util.find_spec("castellan") is not None:
        return None
    return (
        "[key_manager] backend is set, and castellan is not installed; hypervisors that ask for volumes' keys need "
        "extend-bridge[hostagent,keymanager]"
    )
