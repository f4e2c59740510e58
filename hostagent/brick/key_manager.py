# SPDX-License-Identifier: Apache-2.0
"""Errors of the key manager, and the check for its library.

Castellan reads its own options in the os-brick process, from the files that settings.KeyManagerSettings names.
"""

import importlib.util


class NoKeyError(Exception):
    """A key that the key manager did not return; the text has the reason and no key."""


class WrongKeyError(Exception):
    """A key that cryptsetup does not accept."""


def missing(*, opted_in: bool) -> str | None:
    """Return an error that names what must be installed. Castellan itself is not imported."""
    if not opted_in or importlib.util.find_spec("castellan") is not None:
        return None
    return (
        "[key_manager] backend is set, but castellan is not installed; hypervisors that read volumes' keys need "
        "extend-bridge[hostagent,keymanager]"
    )
