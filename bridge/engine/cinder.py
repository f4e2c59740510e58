# SPDX-License-Identifier: Apache-2.0
"""Cinder's word on a volume: its size, its status, and the servers it is attached to.

Mirrors GET /v3/volumes/{id} (size in whole GiB; `attachments` lists attached rows only) and
GET /v3/attachments/{id} (3.27+: connection_info flat, with secrets, which are left behind here); of encrypted
volumes GET /v3/volumes/{id}/encryption (the id of the key, never the key).

To a user without the role admin Cinder answers 404 for volumes of other projects, and lists its own project's alone
with a 200. Both are believed only of a user who may do what only admins may, GET /v3/os-services.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final

from bridge.core.encryption import Encryption
from bridge.core.extend import Bytes, gib, is_uuid
from bridge.core.reasons import Reason
from bridge.core.redact import scrub_connection
from bridge.core.wire import BadMessageError
from bridge.engine.upstream import REFUSED, RestReader, RightsProof, ServiceReasons, Trouble
from bridge.runtime.rest import Answer, NoAnswer

LOG = logging.getLogger(__name__)

_HEADERS: Final = {"OpenStack-API-Version": "volume 3.27"}
_LARGEST_GIB: Final = 2**33  # what fits a signed 64-bit number of bytes
ADMINS_ONLY: Final = "/os-services?binary=cinder-scheduler"
"""By Cinder's default policy for admins alone, and a short answer."""
_PAGE: Final = 1000  # rows; Cinder's own limit by default
_PROBE: Final = 100  # rows of the first page of attachments
_WORTH: Final = 4  # rows of a page that cost about as much as one question
_NOT_AGAIN: Final = 600.0  # seconds
LARGEST_ANSWER: Final = 32 * 1024 * 1024
"""Bytes of an answer that are read: a page of 1,000 volumes with their metadata."""

CINDER_REASONS: Final = ServiceReasons(
    section="cinder",
    unreachable=Reason.CINDER_UNREACHABLE,
    timed_out=Reason.CINDER_TIMED_OUT,
    unauthorized=Reason.CINDER_UNAUTHORIZED,
    no_endpoint=Reason.CINDER_NO_ENDPOINT,
    refused=Reason.CINDER_REFUSED,
    wrong_url=Reason.CINDER_WRONG_URL,
    wrong_version=Reason.CINDER_WRONG_VERSION,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """One attachment of the volume. `host` is the compute host, None unless our user is admin or service."""

    server_id: str
    attachment_id: str
    host: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CinderVolume:
    """The volume as Cinder has it now. `encryption`: how it is opened, where it is encrypted and Cinder told us.

    `changed_at`: epoch seconds by Cinder's clock, None where it does not say.
    """

    id: str
    size: Bytes
    extending: bool
    attached: tuple[Attached, ...]
    encrypted: bool = False
    encryption: Encryption | None = None
    changed_at: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Gone:
    """Cinder does not know the volume."""


NotNow = Trouble
"""Cinder could not be asked, or not understood; says nothing about the volume."""

CinderAnswer = CinderVolume | Gone | NotNow


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Volumes in the order Cinder pages them. `marker`: the last one's id, None where no more follow."""

    volumes: tuple[CinderVolume, ...]
    marker: str | None


class CinderReader:
    """Reads of Cinder; changes nothing there. One request per call, no retries: the journal has those."""

    def __init__(self, rest: RestReader, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rest = rest
        self._clock = clock
        self._no_pages_before = -_NOT_AGAIN
        self._rights = RightsProof(clock)

    def volume(self, volume_id: str, *, global_request_id: str | None = None) -> CinderAnswer:
        """Read the volume now. Never raises for what Cinder does."""
        path = f"/volumes/{volume_id}"
        answer = read_volume(self._get(path, global_request_id), volume_id)
        if isinstance(answer, Gone):
            return self._blind() or answer
        if not isinstance(answer, CinderVolume) or not answer.encrypted or answer.extending or not answer.attached:
            return answer
        encryption = self._encryption(volume_id, global_request_id)
        return encryption if isinstance(encryption, NotNow) else replace(answer, encryption=encryption)

    def in_use(self, *, marker: str | None, limit: int) -> Page | Gone | NotNow:
        """Read a page of the volumes in use, of all projects; Gone where the marker's volume is no more.

        Never raises for what Cinder does.
        """
        if marker is None and (blind := self._blind()) is not None:
            return blind
        return self._page("status=in-use&sort=created_at:asc,id:asc", marker, limit)

    def extending(self, *, marker: str | None, limit: int) -> Page | Gone | NotNow:
        """Read a page of the volumes that are being extended, the longest first. Never raises."""
        return self._page("status=extending&sort=updated_at:asc,id:asc", marker, limit)

    def volumes(self, volume_ids: Sequence[str]) -> Mapping[str, CinderVolume]:
        """Read many volumes in pages; returns those that are in use and need no question of their own.

        `volume_ids` begin with the one that changed last. Extends become due in the order their volumes changed, so
        the others follow it in Cinder's list by the time of the last change. Pages that hold few of them are not
        worth their rows: the rest is left to be read one by one.
        """
        wanted, found = set(volume_ids), dict[str, CinderVolume]()
        first = self.volume(volume_ids[0])
        if not isinstance(first, CinderVolume) or self._blind() is not None:
            return found
        found[first.id] = first
        wanted.discard(first.id)
        marker: str | None = first.id
        while wanted and marker is not None:
            limit = min(_PAGE, len(wanted) + len(wanted) // 4 + 1)
            page = self._page("status=in-use&sort=updated_at:desc,id:desc", marker, limit)
            if not isinstance(page, Page):
                break
            hits = [volume for volume in page.volumes if volume.id in wanted]
            found |= {volume.id: volume for volume in hits if not volume.encrypted}
            wanted -= {volume.id for volume in hits}
            marker = page.marker if len(hits) * _WORTH >= len(page.volumes) else None
        return found

    def connections(self, attachments: Sequence[Attached]) -> Mapping[str, Mapping[str, Any]]:
        """Read the connection data of many attachments in pages, by attachment; returns those that the pages hold.

        Cinder lists attachments by their age, which says nothing of what is extended. So a short page shows whether
        a good part of all attachments is wanted; where it is not, there is no second look for a while.
        """
        wanted, found = {each.attachment_id for each in attachments}, dict[str, Mapping[str, Any]]()
        marker, limit = "", _PROBE
        while wanted and self._clock() >= self._no_pages_before:
            query = f"all_tenants=1&limit={limit}{f'&marker={marker}' if marker else ''}"
            answer = self._get(f"/attachments/detail?{query}", None)
            body = answer.body if isinstance(answer, Answer) and answer.status == HTTPStatus.OK else None
            rows = body.get("attachments") if isinstance(body, Mapping) else None
            read = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
            hits = [row for row in read if str(row.get("id")).lower() in wanted]
            if len(hits) * _WORTH < max(1, len(read)):
                self._no_pages_before = self._clock() + _NOT_AGAIN
                break
            for row in hits:
                flat = row.get("connection_info")
                connection = scrub_connection(flat) if isinstance(flat, Mapping) else None
                if connection is not None:  # else it is asked for by itself: a policy may leave it out of the list
                    found[str(row["id"]).lower()] = connection
                wanted.discard(str(row["id"]).lower())
            if len(read) < limit:
                break
            marker, limit = str(read[-1].get("id")), _PAGE
        return found

    def _page(self, query: str, marker: str | None, limit: int) -> Page | Gone | NotNow:
        after = f"&marker={marker}" if marker else ""
        answer = self._get(f"/volumes/detail?all_tenants=1&{query}&limit={limit}{after}", None)
        gone = marker is not None and isinstance(answer, Answer) and answer.status == HTTPStatus.NOT_FOUND
        return Gone() if gone else read_page(answer)

    def connection(self, attachment: Attached, *, global_request_id: str | None = None) -> Mapping[str, Any] | None:
        """Read the attachment's connection data without its secrets; None where Cinder gives none.

        None is no failure: the host then goes by what it sees itself (the local strategy).
        """
        answer = self._get(f"/attachments/{attachment.attachment_id}", global_request_id)
        body = answer.body if isinstance(answer, Answer) and answer.status == HTTPStatus.OK else None
        record = body.get("attachment") if isinstance(body, Mapping) else None
        flat = record.get("connection_info") if isinstance(record, Mapping) else None
        return scrub_connection(flat) if isinstance(flat, Mapping) else None

    def _blind(self) -> NotNow | None:
        """Say why Cinder may have more volumes than it shows our user; None where it shows all.

        Only a refusal speaks against our user: a Cinder without the resource cannot tell.
        """
        if self._rights.holds():
            return None
        answer = self._get(ADMINS_ONLY, None)
        status = answer.status if isinstance(answer, Answer) else None
        if status in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}:
            self._rights.renew()
            return None
        trouble = CINDER_REASONS.trouble(answer, ADMINS_ONLY)
        if status in REFUSED:
            LOG.warning("Cinder shows one project's volumes only: the user of [cinder] needs the role admin")
        return trouble

    def _encryption(self, volume_id: str, global_request_id: str | None) -> Encryption | NotNow | None:
        """Read how the volume is opened. None where Cinder does not say: most can be extended without."""
        answer = self._get(f"/volumes/{volume_id}/encryption", global_request_id)
        if not isinstance(answer, Answer) or answer.status not in {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
            return read_encryption(answer)
        LOG.warning(
            "volume %s is encrypted, and Cinder answers %s to how: does a policy forbid it?",
            volume_id,
            answer.status,
        )
        return None

    def _get(self, path: str, global_request_id: str | None) -> Answer | NoAnswer:
        headers = dict(_HEADERS)
        if global_request_id is not None:
            headers["X-OpenStack-Request-ID"] = global_request_id
        return self._rest.get(path, headers)


def read_volume(answer: Answer | NoAnswer, volume_id: str) -> CinderAnswer:
    """Return what an answer of GET /volumes/{id} means."""
    if not isinstance(answer, Answer) or answer.status != HTTPStatus.OK:
        cinders_own = (
            isinstance(answer, Answer)
            and answer.status == HTTPStatus.NOT_FOUND
            and isinstance(answer.body, Mapping)
            and "itemNotFound" in answer.body
        )
        return Gone() if cinders_own else CINDER_REASONS.trouble(answer, f"/volumes/{volume_id}")
    record = answer.body.get("volume") if isinstance(answer.body, Mapping) else None
    volume = _volume(record)
    if volume is None or volume.id != volume_id:
        return NotNow(Reason.CINDER_BAD_ANSWER, f"for GET /volumes/{volume_id}")
    return volume


def read_encryption(answer: Answer | NoAnswer) -> Encryption | NotNow | None:
    """Return what an answer of GET /volumes/{id}/encryption means; None where it names no key."""
    if not isinstance(answer, Answer) or answer.status != HTTPStatus.OK:
        return CINDER_REASONS.trouble(answer, "/volumes/{id}/encryption")
    try:
        return Encryption.from_wire(answer.body)
    except BadMessageError:
        return None


def read_page(answer: Answer | NoAnswer) -> Page | NotNow:
    """Return what an answer of GET /volumes/detail means, without the rows that cannot be read."""
    if not isinstance(answer, Answer) or answer.status != HTTPStatus.OK:
        return CINDER_REASONS.trouble(answer, "/volumes/detail")
    if answer.too_large:
        return NotNow(
            Reason.CINDER_BAD_ANSWER,
            f"a page is longer than {LARGEST_ANSWER} bytes: set [engine] reconcile_page lower",
        )
    body = answer.body
    rows = body.get("volumes") if isinstance(body, Mapping) else None
    if not isinstance(body, Mapping) or not isinstance(rows, list):
        return NotNow(Reason.CINDER_BAD_ANSWER, "for GET /volumes/detail")
    last = rows[-1].get("id") if rows and isinstance(rows[-1], Mapping) else None
    more = bool(body.get("volumes_links"))
    if more and not is_uuid(last):  # taken for the end, the pass would be whole without all the others
        return NotNow(Reason.CINDER_BAD_ANSWER, "for GET /volumes/detail")
    volumes = tuple(volume for volume in map(_volume, rows) if volume is not None)
    return Page(volumes=volumes, marker=str(last) if more else None)


def _volume(record: object) -> CinderVolume | None:
    """Read one volume of an answer; None where it cannot be read."""
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
        changed_at=_time(record.get("updated_at")),
    )


def _time(text: object) -> float | None:
    """Read a time as Cinder writes it, in UTC and without a zone."""
    try:
        return datetime.fromisoformat(str(text)).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None
