# SPDX-License-Identifier: Apache-2.0
"""Serves Keystone on loopback; run by the python of Keystone's own virtualenv: keystone_server.py CONFIG PORT."""

import hashlib
import os
import sys
from typing import Any

if __name__ == "__main__":
    _, config, port = sys.argv
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = config
    sys.argv[1:] = []  # Keystone reads the command line as its own
    from cheroot import wsgi
    from keystone.wsgi.api import application

    def told(environ: dict[str, Any], start_response: Any) -> Any:
        """Each request on standard output, with a digest of the token that it asks about: tests count them."""
        subject = environ.get("HTTP_X_SUBJECT_TOKEN", "")
        about = hashlib.sha256(subject.encode()).hexdigest() if subject else ""
        print(environ["REQUEST_METHOD"], environ["PATH_INFO"], about, flush=True)
        return application(environ, start_response)

    server = wsgi.Server(("127.0.0.1", int(port)), told, numthreads=4)
    try:
        server.start()
    finally:
        server.stop()
