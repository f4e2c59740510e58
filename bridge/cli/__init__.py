# SPDX-License-Identifier: Apache-2.0
"""extend-bridge, the operator's command. Native threads are chosen here, before anything imports oslo.messaging."""

import bridge.runtime.threads  # noqa: F401
