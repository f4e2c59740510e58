# SPDX-License-Identifier: Apache-2.0
"""A stand-in at the edge of Nova: a Glance with one small image and its kernel, and a Neutron without networks."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.lab.guest import build_guest
from tests.lab.http_standin import HttpStandIn, QuietHandler

IMAGE: Final = "11111111-1111-4111-8111-111111111111"
_KERNEL: Final = "22222222-2222-4222-8222-222222222222"
_ROOT_BYTES: Final = 1 << 20
_AT: Final = "2026-01-01T00:00:00Z"
_BASE: Final = (
    "id", "name", "status", "visibility", "owner", "container_format", "disk_format", "size", "min_disk", "min_ram",
    "created_at", "updated_at", "checksum",
)  # fmt: skip
"""The properties of an image that are not its maker's own."""
_IMAGE_PATH: Final = re.compile(r"/v2/images/([0-9a-f-]{36})(/file)?$")
_LIST_PATH: Final = re.compile(r"/v2\.0/([a-z-]+)$")


class EdgeStandIn(HttpStandIn):
    """A server for both. The image boots the guest of our tests, which prints the sizes of its disks."""

    def __init__(self) -> None:
        self._images = {
            IMAGE: ({"kernel_id": _KERNEL, "os_command_line": "interrupt hotplug"}, bytes(_ROOT_BYTES)),
            _KERNEL: ({}, Path(build_guest()).read_bytes()),
        }
        super().__init__()

    def handler(self) -> type[QuietHandler]:
        """Return the class that answers requests."""
        images = self._images

        class EdgeHandler(QuietHandler):
            """Answers what Nova asks of Glance and of Neutron."""

            def do_GET(self) -> None:  # noqa: N802 - the name of http.server
                """Answer an image, its data, a schema, or an empty list."""
                path = self.path.partition("?")[0]
                if found := _IMAGE_PATH.match(path):
                    self._image(found.group(1), data=found.group(2) is not None)
                elif path == "/v2/images":
                    self._json({"images": [_shown(name, *images[name]) for name in images]})
                elif answer := _fixed(path):
                    self._json(answer)
                else:
                    self.send(404, "application/json", b'{"NeutronError": {"message": "not there", "type": ""}}')

            def _image(self, name: str, *, data: bool) -> None:
                if name not in images:
                    self.send(404, "text/plain", b"no such image")
                elif data:
                    self.send(200, "application/octet-stream", images[name][1])
                else:
                    self._json(_shown(name, *images[name]))

            def _json(self, answer: Mapping[str, Any]) -> None:
                self.send(200, "application/json", json.dumps(answer).encode())

        return EdgeHandler


def _fixed(path: str) -> Mapping[str, Any] | None:
    """Return an answer that does not depend on an image: a schema, a quota without limit, an empty list."""
    if path == "/v2/schemas/image":
        return {"name": "image", "properties": {name: {} for name in _BASE}}
    if path.startswith("/v2.0/quotas/"):
        return {"quota": {"port": -1}}
    listed = _LIST_PATH.match(path)
    return {listed.group(1).replace("-", "_"): []} if listed else None


def _shown(name: str, own: Mapping[str, str], data: bytes) -> dict[str, Any]:
    """Return an image as Glance shows it."""
    kind = "raw" if own else "aki"
    return {
        "id": name, "name": kind, "status": "active", "visibility": "public", "owner": "lab",
        "container_format": "bare" if own else kind, "disk_format": kind, "size": len(data), "min_disk": 0,
        "min_ram": 0, "created_at": _AT, "updated_at": _AT, "checksum": None, **own,
    }  # fmt: skip
