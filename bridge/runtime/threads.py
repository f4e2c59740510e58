# SPDX-License-Identifier: Apache-2.0
"""Selection of oslo's native-thread backend. Imported first by every entry point.

oslo.messaging and os-brick pull in oslo.service, which otherwise picks its eventlet backend at import time.
The host agent's own process has neither, and leaves this module out: it would cost memory on every hypervisor.
"""

import bridge.runtime.no_eventlet  # noqa: F401 - first, or futurist imports eventlet

# isort: split
from oslo_service import backend


def use_native_threads() -> None:
    """Select the threading backend once per process; calling it again changes nothing."""
    try:
        backend.init_backend(backend.BackendType.THREADING)
    except backend.exceptions.BackendAlreadySelected:
        if backend.get_backend_type() is not backend.BackendType.THREADING:
            raise


use_native_threads()
