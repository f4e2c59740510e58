# SPDX-License-Identifier: Apache-2.0
"""Reads of a volume in Cinder: its size, its status, and the servers it is attached to.

GET /v3/volumes/{id} has the size in whole GiB, and its `attachments` are the attached rows only. GET
/v3/attachments/{id} (3.27+) has a flat connection_info with secrets, which are left out here. GET
/v3/volumes/{id}/encryption has the id of an encrypted volume's key, never the key.

To a user without the role admin, Cinder answers 404 for volumes of other projects. To the same user Cinder lists
only the user's project, with a 200. Both answers are believed only if the user may call GET /v3/os-services, which
only admins may.
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
_LARGEST_GIB: Final = 2**33  # most GiB whose number of bytes fits 64 bits with a sign
ADMINS_ONLY: Final = "/os-services?binary=cinder-scheduler"
"""A path that only admins may read by Cinder's default policy. Its answer is short."""
_ANYTHING: Final = "/volumes/detail?limit=1"
_PAGE: Final = 1000  # rows; Cinder's own limit by default
_PROBE: Final = 100  # rows of the first page of attachments
_WORTH: Final = 4  # rows of a page that cost about as much as one request
_NOT_AGAIN: Final = 600.0  # seconds
LARGEST_ANSWER: Final = 32 * 1024 * 1024
"""Bytes of an answer that are read: a page of 1,000 volumes with their metadata."""

GROW_KEY: Final = "extend_bridge_grow"
"""The key of a volume's metadata, or of its image's properties, by which its owner asks for growth."""
_YES: Final = frozenset({"true", "yes", "on", "1"})

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
    """The volume as Cinder has it now.

    `encryption` says how the volume is opened, if it is encrypted and Cinder answers that. `changed_at` is epoch
    seconds by Cinder's clock, None if Cinder leaves it out. `grow_file_system`: its owner asked for the growth of
    the file system on it.
    """

    id: str
    size: Bytes
    extending: bool
    attached: tuple[Attached, ...]
    encrypted: bool = False
    encryption: Encryption | None = None
    changed_at: float | None = field(default=None, compare=False)
    grow_file_system: bool = False


@dataclass(frozen=True, slots=True)
class Gone:
    """An answer that Cinder does not know the volume."""


NotNow = Trouble
"""A request that got no usable answer from Cinder; says nothing about the volume."""

CinderAnswer = CinderVolume | Gone | NotNow


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Volumes in the order of Cinder's pages. `marker` is the last volume's id, None on the last page."""

    volumes: tuple[CinderVolume, ...]
    marker: str | None


class CinderReader:
    """Reads of Cinder. Each call sends its requests once, because the journal retries. Nothing is changed there."""

    def __init__(self, rest: RestReader, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rest = rest
        self._clock = clock
        self._no_pages_before = -_NOT_AGAIN
        self._rights = RightsProof(clock)

    def volume(self, volume_id: str, *, global_request_id: str | None = None) -> CinderAnswer:
        """Read the volume now. Never raises for an error of Cinder."""
        path = f"/volumes/{volume_id}"
        answer = read_volume(self._get(path, global_request_id), volume_id)
        if isinstance(answer, Gone):
            return self._blind() or answer
        if not isinstance(answer, CinderVolume) or not answer.encrypted or answer.extending or not answer.attached:
            return answer
        encryption = self._encryption(volume_id, global_request_id)
        return encryption if isinstance(encryption, NotNow) else replace(answer, encryption=encryption)

    def check(self) -> NotNow | None:
        """Ask for what any user may read; return why Cinder cannot be used, None where it can."""
        answer = self._get(_ANYTHING, None)
        if isinstance(answer, Answer) and answer.status == HTTPStatus.OK:
            return None
        return CINDER_REASONS.trouble(answer, _ANYTHING)

    def in_use(self, *, marker: str | None, limit: int) -> Page | Gone | NotNow:
        """Read a page of the volumes in use, of all projects; return Gone if the marker's volume is deleted.

        Never raises for an error of Cinder.
        """
        if marker is None and (blind := self._blind()) is not None:
            return blind
        return self._page("status=in-use&sort=created_at:asc,id:asc", marker, limit)

    def extending(self, *, marker: str | None, limit: int) -> Page | Gone | NotNow:
        """Read a page of the volumes that are being extended, the longest first. Never raises for an error of
        Cinder.
        """
        return self._page("status=extending&sort=updated_at:asc,id:asc", marker, limit)

    def volumes(self, volume_ids: Sequence[str]) -> Mapping[str, CinderVolume]:
        """Read many volumes in pages; return those that are in use and need no request of their own.

        `volume_ids` begin with the volume that changed last. Extends become due in the order their volumes changed.
        So the other volumes follow in Cinder's list by the time of the last change. Pages with few of these volumes
        are not worth their rows. The rest is left to be read one by one.
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
        """Read the connection data of many attachments in pages; return what the pages hold, by attachment.

        Cinder lists attachments by age, which says nothing about what is extended. So a short page shows first
        whether a good part of all attachments is wanted. If not, pages are not tried again for a while.
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
                if connection is not None:  # else read alone: a policy may leave it out of the list
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
        """Read the attachment's connection data without its secrets; return None if Cinder gives none.

        None is not a failure, because the host then goes by its own devices (the local strategy).
        """
        answer = self._get(f"/attachments/{attachment.attachment_id}", global_request_id)
        body = answer.body if isinstance(answer, Answer) and answer.status == HTTPStatus.OK else None
        record = body.get("attachment") if isinstance(body, Mapping) else None
        flat = record.get("connection_info") if isinstance(record, Mapping) else None
        return scrub_connection(flat) if isinstance(flat, Mapping) else None

    def _blind(self) -> NotNow | None:
        """Return why Cinder may hide volumes from our user; None if Cinder shows all volumes.

        Only a refusal speaks against our user. A Cinder without the resource proves nothing.
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
        """Read how the volume is opened; return None if Cinder does not answer that. Most volumes can be extended
        without.
        """
        answer = self._get(f"/volumes/{volume_id}/encryption", global_request_id)
        if not isinstance(answer, Answer) or answer.status not in {HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}:
            return read_encryption(answer)
        LOG.warning(
            "volume %s is encrypted, and Cinder answers %s for its encryption: check Cinder's policy for "
            "volume encryption metadata",
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
    """Return the meaning of an answer of GET /volumes/{id}."""
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
    """Return the meaning of an answer of GET /volumes/{id}/encryption; None if the answer names no key."""
    if not isinstance(answer, Answer) or answer.status != HTTPStatus.OK:
        return CINDER_REASONS.trouble(answer, "/volumes/{id}/encryption")
    try:
        return Encryption.from_wire(answer.body)
    except BadMessageError:
        return None


def read_page(answer: Answer | NoAnswer) -> Page | NotNow:
    """Return the meaning of an answer of GET /volumes/detail, without the rows that cannot be read."""
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
    if more and not is_uuid(last):  # taken for the end, the sweep would skip all other volumes
        return NotNow(Reason.CINDER_BAD_ANSWER, "for GET /volumes/detail")
    volumes = tuple(volume for volume in map(_volume, rows) if volume is not None)
    return Page(volumes=volumes, marker=str(last) if more else None)


def _volume(record: object) -> CinderVolume | None:
    """Read one volume of an answer; return None if the record cannot be read."""
    if not isinstance(record, Mapping) or not is_uuid(record.get("id")):
        return None
    size, state, rows = record.get("size"), record.get("status"), record.get("attachments")
    if (
        not isinstance(size, int)
        or isinstance(size, bool)
        or not 0 < size < _LARGEST_GIB
        or not isinstance(rows, list)
        or not all(map(_is_readable, rows))
    ):
        return None
    attached = tuple(
        Attached(
            server_id=row["server_id"].lower(),
            attachment_id=row["attachment_id"].lower(),
            host=row["host_name"] if isinstance(row.get("host_name"), str) else None,
        )
        for row in rows
        if row.get("server_id")
    )
    return CinderVolume(
        id=str(record["id"]).lower(),
        size=gib(size),
        extending=state == "extending",
        attached=attached,
        encrypted=record.get("encrypted") is True,
        changed_at=_time(record.get("updated_at")),
        grow_file_system=asks_for_growth(record),
    )


def _is_readable(row: object) -> bool:
    """Return True if a row names an attachment, and its server unless it has none.

    An extend ends if its server is not among the rows. So one unreadable row makes the whole answer a bad one.
    """
    if not isinstance(row, Mapping) or not is_uuid(row.get("attachment_id")):
        return False
    return not row.get("server_id") or is_uuid(row["server_id"])


def asks_for_growth(record: Mapping[str, Any]) -> bool:
    """Return whether the owner asked for the file system's growth, by the volume's metadata or else its image."""
    for name in ("metadata", "volume_image_metadata"):
        words = record.get(name)
        wish = words.get(GROW_KEY) if isinstance(words, Mapping) else None
        if isinstance(wish, str):
            return wish.strip().lower() in _YES
    return False


def _time(text: object) -> float | None:
    """Read a time in Cinder's format: UTC without a zone."""
    try:
        return datetime.fromisoformat(str(text)).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None
