# SPDX-License-Identifier: Apache-2.0
"""Entry points of the control plane. Native threads are selected here, before any import of oslo.messaging."""

import bridge.runtime.threads  # noqa: F401
