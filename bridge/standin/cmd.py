# SPDX-License-Identifier: Apache-2.0
"""The program extend-bridge-cinder-standin: the stand-in as a process."""

import bridge.runtime.threads  # noqa: F401 - first, because other imports may choose another backend

# isort: split
import argparse
import logging
import sys
from collections.abc import Sequence

from bridge.runtime import config
from bridge.runtime.daemon import Daemon
from bridge.standin.cinder import StandInCinder, load_volumes

LOG = logging.getLogger(__name__)
_PROG = "extend-bridge-cinder-standin"
_LAST_PORT = 65535

_EXAMPLE = """\
example of FILE.json:
  [{"id": "0e63d806-6fe4-4ffc-99bf-f3dd056574c0", "size": 1, "name": "data",
    "attachments": [{"server_id": "11111111-1111-4111-8111-111111111101", "device": "/dev/vdb",
                     "connection_info": {"driver_volume_type": "local", "device_path": "/dev/loop0"}}]}]

then:
  extend-bridge-cinder-standin --volumes FILE.json
  curl http://127.0.0.1:8776/v3/demo/volumes/0e63d806-6fe4-4ffc-99bf-f3dd056574c0
  curl -X POST -H 'OpenStack-API-Version: volume 3.42' -d '{"os-extend": {"new_size": 2}}' \\
    http://127.0.0.1:8776/v3/demo/volumes/0e63d806-6fe4-4ffc-99bf-f3dd056574c0/action

The stand-in checks no token and keeps everything in memory. It sends no notification; a real Cinder does.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stand-in until a signal; return the exit code."""
    parser = argparse.ArgumentParser(
        prog=_PROG,
        description="A small Cinder (GET volume, GET attachment, os-extend, discovery) for trying Extend Bridge.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bind-host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--bind-port", type=_port, default=8776, help="0 picks a free one (default: %(default)s)")
    parser.add_argument("--volumes", metavar="FILE.json", help="JSON file of the volumes that exist at the start")
    parser.add_argument(
        "--extend-seconds", type=float, default=0.0, help="how long an extend takes (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")

    def serve() -> int:
        cinder = StandInCinder(extend_seconds=options.extend_seconds)
        count = load_volumes(cinder, options.volumes) if options.volumes else 0
        server = cinder.server(host=options.bind_host, port=options.bind_port)
        LOG.info("%d volumes", count)
        return Daemon(_PROG, [server], grace=3.0).run()

    return config.run(serve, _PROG)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > _LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port")
    return int(text)


if __name__ == "__main__":
    raise SystemExit(main())
