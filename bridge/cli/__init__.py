# SPDX-License-Identifier: Apache-2.0
"""The operator's command extend-bridge. Native threads are selected here, before any import of oslo.messaging."""

import bridge.runtime.threads  # noqa: F401
