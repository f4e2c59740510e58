# SPDX-License-Identifier: Apache-2.0
"""Commands of the listener's own matters: recordings of notifications, and the lanes."""

import bridge.runtime.threads  # noqa: F401 - before anything imports oslo.messaging
