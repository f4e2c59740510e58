# SPDX-License-Identifier: Apache-2.0
"""Selection of oslo's native-thread backend. Imported first by every entry point.

oslo.messaging and os-brick pull in oslo.service, which otherwise picks its eventlet backend at import time.
Eventlet is on disk as their dependency, but must not run in the bridge's processes. So any import of eventlet
fails, as if it were not there.
"""

import sys

sys.modules.setdefault("eventlet", None)  # type: ignore[arg-type]  # None: any import of eventlet raises ImportError

from oslo_service import backend  # noqa: E402 - after the line above, or futurist imports eventlet


def use_native_threads() -> None:
    """Select the threading backend once per process; calling it again changes nothing."""
    try:
        backend.init_backend(backend.BackendType.THREADING)
    except backend.exceptions.BackendAlreadySelected:
        if backend.get_backend_type() is not backend.BackendType.THREADING:
            raise


use_native_threads()
