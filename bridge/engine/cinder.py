# SPDX-License-Identifier: Apache-2.0
"""What Cinder says of a volume now: its size, its status, and which servers it is attached to.

Mirrors GET /v3/volumes/{id} (size in whole GiB; `attachments` lists attached rows only) and
GET /v3/attachments/{id} (3.27+: connection_info flat, with secrets, which are left behind here); of encrypted
volumes GET /v3/volumes/{id}/encryption (the id of the key, never the key).

To a user without the role admin Cinder answers 404 for volumes of other projects, and lists its own project's alone
with a 200. Both are believed only of a user who may do what only admins may, GET /v3/os-services.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from keystoneauth1.adapter import Adapter
from keystoneauth1.exceptions import ClientException

from bridge.core.encryption import Encryption
from bridge.core.extend import Bytes, gib, is_uuid
from bridge.core.reasons import Reason
from bridge.core.redact import scrub_connection
from bridge.core.wire import BadMessageError

LOG = logging.getLogger(__name__)

_HEADERS: Final = {"OpenStack-API-Version": "volume 3.27", "Accept": "application/json"}
_LARGEST_GIB: Final = 2**33  # what fits a signed 64-bit number of bytes
_OK, _NOT_FOUND = 200, 404
_REFUSED: Final = frozenset({401, 403})
_FORBIDDEN: Final = 403
ADMINS_ONLY: Final = "/os-services?binary=cinder-scheduler"
"""By Cinder's default policy for admins alone, and a short answer."""
_RIGHTS_HOLD: Final = 300.0  # seconds a proof of our rights is believed


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """One attachment of the volume. `host` is the compute host, None unless our user is admin or service."""

    server_id: str
    attachment_id: str
    host: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CinderVolume:
    """The volume as Cinder has it now. `encryption`: how it is opened, where it is encrypted and Cinder told us."""

    id: str
    size: Bytes
    extending: bool
    attached: tuple[Attached, ...]
    encrypted: bool = False
    encryption: Encryption | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """Cinder does not know the volume."""


@dataclass(frozen=True, slots=True)
class NotNow:
    """Cinder could not be asked, or not understood; says nothing about the volume."""

    reason: Reason


Answer = CinderVolume | Gone | NotNow


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Volumes in the order Cinder pages them. `marker`: the last one's id, None where no more follow."""

    volumes: tuple[CinderVolume, ...]
    marker: str | None


class CinderReader:
    """Reads; never changes anything in Cinder. One request per call, no retries: the journal has those."""

    def __init__(self, adapter: Adapter, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._adapter = adapter
        self._clock = clock
        self._may_until = -_RIGHTS_HOLD

    def volume(self, volume_id: str, *, global_request_id: str | None = None) -> Answer:
        """The volume now. Never raises for what Cinder does."""
        status, body = self._get(f"/volumes/{volume_id}", global_request_id)
        if status is None:
            return NotNow(Reason.CINDER_UNREACHABLE)
        answer = read_volume(status, body, volume_id)
        if isinstance(answer, Gone):
            return self._blind() or answer
        if not isinstance(answer, CinderVolume) or not answer.encrypted or answer.extending or not answer.attached:
            return answer
        encryption = self._encryption(volume_id, global_request_id)
        return encryption if isinstance(encryption, NotNow) else replace(answer, encryption=encryption)

    def in_use(self, *, marker: str | None, limit: int) -> Page | Gone | NotNow:
        """A page of the volumes in use, of all projects; Gone where the marker's volume is no more.

        Never raises for what Cinder does.
        """
        if marker is None and (blind := self._blind()) is not None:
            return blind
        query = f"all_tenants=1&status=in-use&sort=created_at:asc,id:asc&limit={limit}"
        status, body = self._get(f"/volumes/detail?{query}{f'&marker={marker}' if marker else ''}", None)
        if status is None:
            return NotNow(Reason.CINDER_UNREACHABLE)
        return Gone() if marker and status == _NOT_FOUND else read_page(status, body)

    def connection(self, attachment: Attached, *, global_request_id: str | None = None) -> Mapping[str, Any] | None:
        """The attachment's connection data without its secrets, None where Cinder gives none.

        None is no failure: the host then goes by what it sees itself (the local strategy).
        """
        status, body = self._get(f"/attachments/{attachment.attachment_id}", global_request_id)
        record = body.get("attachment") if status == _OK and isinstance(body, Mapping) else None
        flat = record.get("connection_info") if isinstance(record, Mapping) else None
        return scrub_connection(flat) if isinstance(flat, Mapping) else None

    def _blind(self) -> NotNow | None:
        """Why it must not be believed that Cinder has no more volumes than it shows us; None where it may be.

        Only a refusal speaks against us: what has no such resource cannot tell.
        """
        if self._clock() < self._may_until:
            return None
        status, _ = self._get(ADMINS_ONLY, None)
        if status in _REFUSED:
            LOG.warning("Cinder shows us one project's volumes only: the user of [cinder] needs the role admin")
            return NotNow(Reason.CINDER_REFUSED)
        if status not in {_OK, _NOT_FOUND}:
            return NotNow(Reason.CINDER_UNREACHABLE)
        self._may_until = self._clock() + _RIGHTS_HOLD
        return None

    def _encryption(self, volume_id: str, global_request_id: str | None) -> Encryption | NotNow | None:
        """How it is opened. None where Cinder will not tell: most encrypted volumes can be extended without."""
        status, body = self._get(f"/volumes/{volume_id}/encryption", global_request_id)
        if status not in {_FORBIDDEN, _NOT_FOUND}:
            return read_encryption(status, body)
        LOG.warning(
            "volume %s is encrypted, and Cinder answers %s for how: is a policy in our way?", volume_id, status
        )
        return None

    def _get(self, path: str, global_request_id: str | None) -> tuple[int | None, Any]:
        headers = dict(_HEADERS)
        if global_request_id is not None:
            headers["X-OpenStack-Request-ID"] = global_request_id
        try:  # log=False: at debug keystoneauth would log the answer, and Cinder's answers hold CHAP passwords
            response = self._adapter.get(path, headers=headers, raise_exc=False, log=False)
        except ClientException as ex:
            LOG.warning("Cinder cannot be asked for %s: %s", path, type(ex).__name__)
            return None, None
        try:
            return response.status_code, response.json()
        except ValueError:
            return response.status_code, None


def read_volume(status: int, body: object, volume_id: str) -> Answer:
    """What an answer of GET /volumes/{id} means."""
    if status == _NOT_FOUND:
        return Gone() if isinstance(body, Mapping) and "itemNotFound" in body else NotNow(Reason.CINDER_BAD_ANSWER)
    if status in _REFUSED:
        return NotNow(Reason.CINDER_REFUSED)
    if status != _OK:
        return NotNow(Reason.CINDER_UNREACHABLE)
    record = body.get("volume") if isinstance(body, Mapping) else None
    volume = _volume(record)
    return volume if volume is not None and volume.id == volume_id else NotNow(Reason.CINDER_BAD_ANSWER)


def read_encryption(status: int | None, body: object) -> Encryption | NotNow | None:
    """What an answer of GET /volumes/{id}/encryption means; None where it names no key."""
    if status in _REFUSED:
        return NotNow(Reason.CINDER_REFUSED)
    if status != _OK:
        return NotNow(Reason.CINDER_UNREACHABLE)
    try:
        return Encryption.from_wire(body)
    except BadMessageError:
        return None


def read_page(status: int, body: object) -> Page | NotNow:
    """What an answer of GET /volumes/detail means. Rows that cannot be read are left out: others must be seen."""
    if status in _REFUSED:
        return NotNow(Reason.CINDER_REFUSED)
    if status != _OK:
        return NotNow(Reason.CINDER_UNREACHABLE)
    rows = body.get("volumes") if isinstance(body, Mapping) else None
    if not isinstance(body, Mapping) or not isinstance(rows, list):
        return NotNow(Reason.CINDER_BAD_ANSWER)
    last = rows[-1].get("id") if rows and isinstance(rows[-1], Mapping) else None
    more = bool(body.get("volumes_links"))
    if more and not is_uuid(last):  # taken for the end, the pass would be whole without all the others
        return NotNow(Reason.CINDER_BAD_ANSWER)
    volumes = tuple(volume for volume in map(_volume, rows) if volume is not None)
    return Page(volumes=volumes, marker=str(last) if more else None)


def _volume(record: object) -> CinderVolume | None:
    """One volume of Cinder's, None where it cannot be read."""
    if not isinstance(record, Mapping) or not is_uuid(record.get("id")):
        return None
    size, state, rows = record.get("size"), record.get("status"), record.get("attachments")
    if (
        not isinstance(size, int)
        or isinstance(size, bool)
        or not 0 < size < _LARGEST_GIB
        or not isinstance(rows, list)
    ):
        return None
    attached = tuple(
        Attached(
            server_id=row["server_id"].lower(),
            attachment_id=row["attachment_id"].lower(),
            host=row["host_name"] if isinstance(row.get("host_name"), str) else None,
        )
        for row in rows
        if isinstance(row, Mapping) and is_uuid(row.get("server_id")) and is_uuid(row.get("attachment_id"))
    )
    return CinderVolume(
        id=str(record["id"]).lower(),
        size=gib(size),
        extending=state == "extending",
        attached=attached,
        encrypted=record.get("encrypted") is True,
    )
