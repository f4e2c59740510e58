# SPDX-License-Identifier: Apache-2.0
"""A domain's disks, read from its XML. Pure.

A disk is known by its <serial>, which Nova sets to the volume id, else by the alias `ua-<volume id>`
(nova/virt/libvirt/config.py: make_libvirt_device_alias). The device path never finds it: paths are reused.
"""

import re
import threading
import xml.etree.ElementTree as ET
from hashlib import blake2b
from typing import Final

from cachetools import LRUCache, cached

from bridge.core.extend import is_uuid
from hostagent.domain import Disk, NetworkSource, SourceKind

_BEGINS = re.compile(r"\s*(<\?xml[^<>]*\?>\s*)?<")  # the root, with nothing before it but a declaration
_MARKUP = ("<!", "<?")
_ALIAS = "ua-"
_CDROM = "cdrom"
_DEVICES = frozenset({"disk", "lun", "floppy", _CDROM})
_VIRTIO_SCSI = "virtio"  # begins the model of each SCSI controller that tells its guest by an event


_PARSED_MAX: Final = 2048
"""Domains whose disks are remembered by a digest of their XML, because nearly every look finds the same text."""


class BadDomainError(ValueError):
    """XML that is not a domain's; the text says what is wrong with it and never quotes it."""


def _digest(xml: str) -> bytes:
    return blake2b(xml.encode(errors="surrogatepass"), digest_size=16).digest()


def parse_disks(xml: str) -> tuple[Disk, ...]:
    """Return the disks of a domain's XML; raises BadDomainError."""
    return parse_domain(xml)[0]


@cached(LRUCache(_PARSED_MAX), key=_digest, lock=threading.Lock())
def parse_domain(xml: str) -> tuple[tuple[Disk, ...], str | None]:
    """Return the disks of a domain's XML and the id of its run; raises BadDomainError.

    A document type, and with it any entity, is refused before the parser sees it: libvirt writes none. It can only
    stand before the root; the same words in the metadata, where a comment or CDATA may be kept, are text.
    """
    begins = _BEGINS.match(xml)
    if begins is None or xml.startswith(_MARKUP, begins.end() - 1):
        raise BadDomainError("the XML does not begin with the domain")
    try:
        root = ET.fromstring(xml)  # noqa: S314 - no document type gets here, hence no entity
    except (ET.ParseError, ValueError) as ex:
        raise BadDomainError(f"not XML ({type(ex).__name__})") from ex
    if root.tag != "domain":
        raise BadDomainError("not a domain")
    silent = _silent_controllers(root)
    disks = (_disk(element, silent) for element in root.iterfind("./devices/disk"))
    return tuple(disk for disk in disks if disk is not None), root.get("id")


def _silent_controllers(root: ET.Element) -> frozenset[str]:
    """Return the indexes of the SCSI controllers that do not tell their guest of a new size.

    With lsilogic and lsisas1078 Debian's kernel 6.1 keeps the old size, as with SATA (tests/guests).
    """
    return frozenset(
        element.get("index", "0")
        for element in root.iterfind("./devices/controller")
        if element.get("type") == "scsi" and not (element.get("model") or _VIRTIO_SCSI).startswith(_VIRTIO_SCSI)
    )


def _disk(element: ET.Element, silent: frozenset[str]) -> Disk | None:
    device = element.get("device", "disk")
    if device not in _DEVICES:
        return None
    target = element.find("target")
    name = target.get("dev") if target is not None else None
    if target is None or not name:
        return None
    kind = _kind(element.get("type", ""))
    source, driver = element.find("source"), element.find("driver")
    encryption = _within(element, source, "encryption")
    return Disk(
        target=name,
        kind=kind,
        source=_source(source, kind),
        driver_format=(driver.get("type") if driver is not None else None) or "",
        volume_id=_volume_id(element),
        encrypted=encryption is not None,
        luks=encryption is not None
        and encryption.get("format") == "luks"
        and encryption.get("engine", "qemu") == "qemu",
        network=_network(element, source) if kind is SourceKind.NETWORK and source is not None else None,
        node=source.get("index") if source is not None else None,
        bottom=_bottom(element, name),
        alias=_attribute(element, "alias", "name"),
        type=element.get("type", ""),
        notifies=_notifies(element, target.get("bus", "virtio"), silent),
        read_only=element.find("readonly") is not None,
        cdrom=device == _CDROM,
    )


def _notifies(element: ET.Element, bus: str, silent: frozenset[str]) -> bool:
    if bus == "scsi":
        address = element.find("address")
        return (address.get("controller", "0") if address is not None else "0") not in silent
    return bus == "virtio"


def _within(element: ET.Element, source: ET.Element | None, name: str) -> ET.Element | None:
    """Return a child of the disk or of its source: libvirt leaves it where it was written."""
    child = element.find(name)
    return source.find(name) if child is None and source is not None else child


def _network(element: ET.Element, source: ET.Element) -> NetworkSource:
    auth, conf = _within(element, source, "auth"), source.find("config")
    secret = auth.find("secret") if auth is not None else None
    return NetworkSource(
        protocol=source.get("protocol", ""),
        hosts=tuple((host.get("name", ""), host.get("port", "")) for host in source.iterfind("host")),
        conf=conf.get("file") if conf is not None else None,
        user=auth.get("username") if auth is not None else None,
        secret_id=secret.get("uuid") if secret is not None else None,
    )


def _bottom(element: ET.Element, target: str) -> Disk | None:
    """Return the last disk of the chain beneath an overlay, None without one. Only running guests show theirs."""
    last, layer = None, element.find("backingStore")
    while layer is not None and layer.get("type"):
        last, layer = layer, layer.find("backingStore")
    if last is None:
        return None
    kind, source, form = _kind(last.get("type", "")), last.find("source"), last.find("format")
    return Disk(
        target=target,
        kind=kind,
        source=_source(source, kind),
        driver_format=(form.get("type") if form is not None else None) or "",
        volume_id=_volume_id(element),
        encrypted=_within(last, source, "encryption") is not None,
        network=_network(last, source) if kind is SourceKind.NETWORK and source is not None else None,
        type=last.get("type", ""),
        node=source.get("index") if source is not None else None,
    )


def _attribute(element: ET.Element, child: str, name: str) -> str | None:
    found = element.find(child)
    return found.get(name) if found is not None else None


def _kind(text: str) -> SourceKind:
    try:
        return SourceKind(text)
    except ValueError:
        return SourceKind.OTHER


def _source(source: ET.Element | None, kind: SourceKind) -> str | None:
    if source is None:
        return None
    names = {SourceKind.BLOCK: "dev", SourceKind.FILE: "file", SourceKind.NETWORK: "name"}
    return source.get(names[kind]) if kind in names else None


def _volume_id(element: ET.Element) -> str | None:
    serial = (element.findtext("serial") or "").strip().lower()
    if is_uuid(serial):
        return serial
    alias = element.find("alias")
    name = (alias.get("name") or "").lower() if alias is not None else ""
    volume_id = name.removeprefix(_ALIAS)
    return volume_id if name.startswith(_ALIAS) and is_uuid(volume_id) else None
