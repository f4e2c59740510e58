# SPDX-License-Identifier: Apache-2.0
"""Serves Cinder's API on loopback; run by the python of Cinder's own virtualenv: cinder_server.py CONFIG PORT."""

import sys

if __name__ == "__main__":
    _, config, port = sys.argv
    sys.argv = ["cinder-api", "--config-file", config]
    from cheroot import wsgi
    from cinder.wsgi.api import application  # type: ignore[import-not-found, unused-ignore]

    server = wsgi.Server(("127.0.0.1", int(port)), application, numthreads=4)
    try:
        server.start()
    finally:
        server.stop()
