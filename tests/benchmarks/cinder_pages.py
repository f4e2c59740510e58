# SPDX-License-Identifier: Apache-2.0
"""A Cinder that only pages the volumes of a fleet, as cheaply as it can; each row is as long as a real one.

`python -m tests.benchmarks.cinder_pages PORT HOSTS`
"""

import bridge.runtime.threads  # noqa: F401 - first, before anything that may choose another backend

# isort: split
import json
import sys
import threading
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import parse_qs

from bridge.http.server import HttpServer, StartResponse
from bridge.standin.views import volume_view
from bridge.standin.volumes import Attachment, Volume
from tests.benchmarks.fleet import disks_of, name_of

_VOLUME: Final = "00000000-0000-4000-8000-0000000000aa"
_SERVER: Final = "00000000-0000-4000-8000-0000000000bb"
_HOST: Final = "a-host"


class Pages:
    """The WSGI application."""

    def __init__(self, hosts: int) -> None:
        self._disks = [(name_of(host), key) for host in range(hosts) for key in disks_of(host)]
        self._place = {key.volume_id: n for n, (_, key) in enumerate(self._disks)}
        attached = Attachment(server_id=_SERVER, host=_HOST)
        volume = Volume(id=_VOLUME, size=1, status="in-use", attachments=(attached,))
        self._row = json.dumps(volume_view(volume, "p" * 32, "http://cinder"))

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        query = parse_qs(environ["QUERY_STRING"])
        limit = int(query["limit"][0])
        start = self._place[query["marker"][0]] + 1 if "marker" in query else 0
        rows = (
            self._row.replace(_VOLUME, key.volume_id).replace(_SERVER, key.server_id).replace(_HOST, host)
            for host, key in self._disks[start : start + limit]
        )
        links = ', "volumes_links": [{"rel": "next"}]' if start + limit < len(self._disks) else ""
        body = f'{{"volumes": [{", ".join(rows)}]{links}}}'.encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


def main(port: int, hosts: int) -> None:
    """Until it is killed."""
    server = HttpServer(
        "pages", Pages(hosts), host="127.0.0.1", port=port, threads=2, option="", server_name="pages", grace=1
    )
    server.start()
    threading.Event().wait()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
