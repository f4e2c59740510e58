# SPDX-License-Identifier: Apache-2.0
"""Serves Nova's or Placement's API on loopback; run by Nova's python: nova_server.py nova|placement ETC PORT."""

import os
import sys

if __name__ == "__main__":
    _, kind, etc, port = sys.argv
    os.environ[f"OS_{kind.upper()}_CONFIG_DIR"] = etc
    sys.argv[1:] = []  # the services read the command line as their own
    if kind == "nova":
        from nova.wsgi.osapi_compute import application
    else:
        from placement.wsgi.api import application  # type: ignore[import-not-found, no-redef, unused-ignore]
    from cheroot import wsgi

    server = wsgi.Server(("127.0.0.1", int(port)), application, numthreads=8)
    try:
        server.start()
    finally:
        server.stop()
