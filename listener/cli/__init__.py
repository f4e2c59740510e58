# SPDX-License-Identifier: Apache-2.0
"""The commands of the listener: recordings of notifications, and the lanes."""

import bridge.runtime.threads  # noqa: F401 - before a module imports oslo.messaging
