# SPDX-License-Identifier: Apache-2.0
"""An endpoint in a process of its own: takes every event, prints its URL."""

import sys
import threading

from tests.lab.endpoint import RecordingEndpoint

if __name__ == "__main__":
    with RecordingEndpoint() as endpoint:
        sys.stdout.write(f"{endpoint.url}\n")
        sys.stdout.flush()
        threading.Event().wait()
