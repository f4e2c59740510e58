# SPDX-License-Identifier: Apache-2.0
"""os-brick, as a process of its own: `python -m hostagent.brick`. Only encryptor.py is imported beside it.

os-brick waits up to 600 s for a command, and holds a host-wide file lock meanwhile. A process can be killed, and
its lock goes with it. The process speaks JSON lines. The first line in is its set-up. Each further line is a
request {"id", "what", "protocol", "properties"}. The answer is {"id", "size"}, {"id", "paths"}, {"id"} alone (a
rescan, a dm-crypt map) or {"id", "error": kind, "detail"}. When standard input ends, the agent is gone. Then the
process ends itself with all it has started.
"""

import bridge.runtime.threads  # noqa: F401 - before os-brick, which would bring eventlet

# isort: split
import json
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, Final

import os_brick
from os_brick import exception, privileged
from os_brick import utils as brick_utils
from os_brick.initiator import connector, linuxscsi
from os_brick.initiator.connectors.base import synchronized
from oslo_concurrency import lockutils, processutils
from oslo_config import cfg
from oslo_utils import strutils

from hostagent.brick.key_manager import NoKeyError, WrongKeyError

LOG = logging.getLogger(__name__)

_DETAIL_MAX: Final = 300


class ErrorKind(StrEnum):
    """Kinds of failure of a request."""

    RAISED = "raised"  # os-brick raised
    UNSUPPORTED = "unsupported"  # os-brick cannot extend this kind of volume
    NO_SIZE = "no_size"  # it returned None, its silent way to fail
    PATHS_DOWN = "paths_down"  # a path of a multipath map does not answer
    NO_KEY = "no_key"  # the key manager gave no key
    WRONG_KEY = "wrong_key"  # it gave one that does not open the volume


def set_up(options: Mapping[str, Any]) -> None:
    """Configure os-brick as Nova does, in this process's own oslo.config.

    As root the commands run in this very process: a privsep daemon would outlive a kill. Else they go through
    privsep-helper, started by the root helper, and what that runs goes on after a kill, without os-brick's lock.
    """
    cfg.CONF([], project="extend-bridge", default_config_files=[])
    lockutils.set_defaults(options["lock_path"])
    os_brick.setup(cfg.CONF)
    for context in (privileged.default, getattr(privileged, "brick_privsep_hide_output", None)):
        if context is not None and os.geteuid() == 0:
            context.set_client_mode(False)
    if os.geteuid() != 0:
        cfg.CONF.set_override("helper_command", f"{options['root_helper']} {_helper()}", "privsep_osbrick")


def _helper() -> Path:
    """Return privsep-helper beside this Python, which sudoers names, because sudo's PATH has no virtualenv."""
    return Path(sys.executable).with_name("privsep-helper")


def answer(options: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer one request, an extend unless it asks for the paths, a rescan or a dm-crypt map.

    Whatever os-brick raises becomes an answer: it raises KeyError and TypeError, too.
    """
    try:
        if (tell := _TELLS.get(request.get("what", ""))) is not None:
            tell(options, **request["properties"])
            return {}
        connected = connector.InitiatorConnector.factory(
            request["protocol"], options["root_helper"], use_multipath=options["use_multipath"]
        )
        if request.get("what") == "paths":
            return {"paths": list(connected.get_volume_paths(dict(request["properties"])))}
        size = connected.extend_volume(dict(request["properties"]))
    except Exception as ex:  # noqa: BLE001 - see above
        return _error(_kind(ex), ex)
    if not isinstance(size, int) or size <= 0:
        return {"error": ErrorKind.NO_SIZE.value, "detail": f"returned {type(size).__name__}"}
    return {"size": size}


def _grow_map(options: Mapping[str, Any], **properties: Any) -> None:
    if options["key_manager"] is None:
        raise NotImplementedError("[key_manager] backend is not set on this host")
    from hostagent.brick import encryptor  # noqa: PLC0415 - castellan is there only where the operator opted in

    encryptor.grow_map(options["root_helper"], options["key_manager"], **properties)


@synchronized("extend_volume", external=True)  # type: ignore[untyped-decorator]
def _rescan(options: Mapping[str, Any], *, scsi: Sequence[str], nvme: Sequence[str], map: str | None) -> None:  # noqa: A002
    """Rescan by kernel names, as the connectors do once they know the paths.

    Every path has to answer first, as os-brick has it, lest a map grow on paths that did not.
    """
    tool = linuxscsi.LinuxSCSI(options["root_helper"])
    for name in scsi:
        if not brick_utils.check_valid_device(tool, f"/dev/{name}"):
            raise exception.BrickException(f"All paths need to be up, {name} is not")
    for file in _rescan_files(scsi, nvme):
        tool.echo_scsi_command(file, "1")
    if map is not None:
        tool.multipath_resize_map(f"/dev/{map}")


@synchronized("extend_volume", external=True)  # type: ignore[untyped-decorator]
def _read_anew(options: Mapping[str, Any], *, scsi: Sequence[str], nvme: Sequence[str], map: str | None) -> None:  # noqa: A002
    """Rescan only the paths, one by one, so that the kernel reads their current names.

    A path that was given to another volume may fail the read that _rescan begins with.
    """
    del map
    tool = linuxscsi.LinuxSCSI(options["root_helper"])
    for file in _rescan_files(scsi, nvme):
        try:
            tool.echo_scsi_command(file, "1")
        except (OSError, processutils.ProcessExecutionError) as ex:
            LOG.warning("%s cannot be written: %s", file, ex)


def _rescan_files(scsi: Sequence[str], nvme: Sequence[str]) -> list[str]:
    disks = [f"/sys/block/{name}/device/rescan" for name in scsi]
    return disks + [f"/sys/class/nvme/{name}/rescan_controller" for name in nvme]


_TELLS: Final[Mapping[str, Callable[..., None]]] = {
    "rescan": _rescan,
    "read_anew": _read_anew,
    "grow_map": _grow_map,
}


def _kind(ex: Exception) -> ErrorKind:
    match ex:
        case NotImplementedError() | exception.InvalidConnectorProtocol():
            return ErrorKind.UNSUPPORTED
        case NoKeyError():
            return ErrorKind.NO_KEY
        case WrongKeyError():
            return ErrorKind.WRONG_KEY
        case _:
            return ErrorKind.PATHS_DOWN if "paths need to be up" in str(ex) else ErrorKind.RAISED


def _error(kind: ErrorKind, ex: Exception) -> dict[str, Any]:
    text = strutils.mask_password(" ".join(str(ex).split()))
    if kind not in {ErrorKind.NO_KEY, ErrorKind.WRONG_KEY}:  # whose text says it all
        text = f"{type(ex).__name__}: {text}"
    return {"error": kind.value, "detail": text[:_DETAIL_MAX]}


def _serve(options: Mapping[str, Any], requests: "queue.SimpleQueue[Mapping[str, Any]]", out: BinaryIO) -> None:
    while True:
        request = requests.get()
        reply = {"id": request["id"], **answer(options, request)}
        out.write(json.dumps(reply).encode() + b"\n")
        out.flush()


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches the agent, which ends this process
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s brick[%(process)d] %(levelname)s %(message)s")
    options = json.loads(sys.stdin.buffer.readline())
    set_up(options)
    requests: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_serve, args=(options, requests, out), daemon=True).start()
    for line in sys.stdin.buffer:
        requests.put(json.loads(line))
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
