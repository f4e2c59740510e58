# SPDX-License-Identifier: Apache-2.0
"""Block of eventlet in this process: any import of it fails, as if it were not installed. Imported first.

Libraries of OpenStack bring eventlet as a dependency, and some choose it when they find it.
"""

import sys

sys.modules.setdefault("eventlet", None)  # type: ignore[arg-type]  # None: any import of eventlet raises ImportError
