# SPDX-License-Identifier: Apache-2.0
"""Errors of the key manager, and the check for its library.

Castellan reads its own options in the os-brick process, from the files that settings.KeyManagerSettings names.
"""

import importlib.util


class NoKeyError(Exception):
    """A key that the key manager did not give; the text says why and holds no key."""


class WrongKeyError(Exception):
    """A key that cryptsetup does not take."""


def missing(*, opted_in: bool) -> str | None:
    """Return what has to be installed first, in words to act on. Castellan itself is not imported."""
    if not opted_in or importlib.util.find_spec("castellan") is not None:
        return None
    return (
        "[key_manager] backend is set, but castellan is not installed; hypervisors that read volumes' keys need "
        "extend-bridge[hostagent,keymanager]"
    )
