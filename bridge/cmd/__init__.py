# SPDX-License-Identifier: Apache-2.0
"""Entry points of the control plane. Native threads are chosen here, before anything imports oslo.messaging."""

import bridge.runtime.threads  # noqa: F401
