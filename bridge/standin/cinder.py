# SPDX-License-Identifier: Apache-2.0
"""A small Cinder for tests, for the demo, and for trying the bridge without a real Cinder.

Every answer carries a header that names the stand-in.
"""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bridge.core.errors import ConfigError
from bridge.http.server import HttpServer, WsgiApp
from bridge.standin.app import build
from bridge.standin.faulty import Fault, Faults
from bridge.standin.views import DESCRIPTION
from bridge.standin.volumes import Attachment, RefusedError, Volume, Volumes

LOG = logging.getLogger(__name__)
SERVER_NAME: Final = "extend-bridge-cinder-standin"


class StandInCinder:
    """The stand-in: volumes and their REST API in one object. A volume stays `extending` for `extend_seconds`."""

    def __init__(self, *, extend_seconds: float = 0.0) -> None:
        self.volumes = Volumes(extend_seconds=extend_seconds)
        self._faults = Faults()
        self.app: WsgiApp = build(self.volumes, self._faults)

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        """The number of requests so far, by (method, path)."""
        return self._faults.requests

    def add_volume(
        self,
        volume_id: str,
        size_gib: int,
        *attachments: Attachment,
        status: str | None = None,
        **more: Any,
    ) -> Volume:
        """Add a volume. The default status is `in-use` with attachments, else `available`.

        `more`: other fields of Volume. Raises ValueError.
        """
        return self.volumes.add(
            Volume(
                id=volume_id,
                size=size_gib,
                status=status or ("in-use" if attachments else "available"),
                attachments=attachments,
                **more,
            )
        )

    def extend(self, volume_id: str, new_gib: int) -> None:
        """Begin an extend like the API's os-extend; raises RefusedError."""
        self.volumes.extend(volume_id, new_gib)

    def set_status(self, volume_id: str, status: str) -> None:
        """Set a volume's status directly."""
        self.volumes.change(volume_id, status=status)

    def fail(self, fault: Fault | None, *, times: int | None = None) -> None:
        """Answer with a fault from now on, or for `times` requests; None ends the fault."""
        self._faults.set(fault, times=times)

    def server(self, *, host: str = "127.0.0.1", port: int = 0, threads: int = 8) -> HttpServer:
        """Return the HTTP server as a part, bound but not started; raises ConfigError."""
        LOG.warning("%s", DESCRIPTION)
        return HttpServer(
            SERVER_NAME,
            self.app,
            host=host,
            port=port,
            threads=threads,
            option="--bind-host, --bind-port",
            server_name=SERVER_NAME,
            grace=1,
        )


class RunningStandIn(StandInCinder):
    """A stand-in that serves on loopback. `url` is its API's URL, in the form of [cinder] endpoint_override."""

    url: str = ""


@contextmanager
def run_standin() -> Iterator[RunningStandIn]:
    """Serve a stand-in on a free port until the end of the block."""
    cinder = RunningStandIn()
    server = cinder.server()
    server.start()
    cinder.url = f"{server.url}/v3"
    try:
        yield cinder
    finally:
        server.stop()
        server.join(5)


def load_volumes(cinder: StandInCinder, path: str) -> int:
    """Add the volumes of a JSON file ([{id, size, status?, name?, attachments?: [{server_id, ...}]}, ...]).

    Return the number of volumes. Raises ConfigError that names the problem and its place.
    """
    try:
        rows = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as ex:
        raise ConfigError(f"{path}: {ex.strerror}") from ex
    except (ValueError, RecursionError) as ex:
        raise ConfigError(f"{path}: not JSON: {ex}") from ex
    if not isinstance(rows, list):
        raise ConfigError(f"{path}: expected a list of volumes")
    for number, row in enumerate(rows):
        try:
            _add(cinder, row)
        except KeyError as ex:
            raise ConfigError(f"{path}: volume {number}: {ex} is missing") from ex
        except (AttributeError, TypeError, ValueError) as ex:
            raise ConfigError(f"{path}: volume {number}: {ex}") from ex
    return len(rows)


def _add(cinder: StandInCinder, row: Mapping[str, Any]) -> None:
    more = {key: value for key, value in row.items() if key not in {"id", "size", "attachments"}}
    attachments = [Attachment(**attachment) for attachment in row.get("attachments", ())]
    cinder.add_volume(row["id"], row["size"], *attachments, **more)


__all__ = [
    "Attachment", "Fault", "RefusedError", "RunningStandIn", "StandInCinder", "Volume", "load_volumes",
    "run_standin",
]  # fmt: skip
