# SPDX-License-Identifier: Apache-2.0
"""From a domain's XML to its disks, and from a volume to its disk. Pure.

A disk is known by its <serial>, which Nova sets to the volume id, else by the alias `ua-<volume id>`
(nova/virt/libvirt/config.py: make_libvirt_device_alias). The device path never finds it: paths are reused.
"""

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from enum import StrEnum

from bridge.core.extend import is_uuid
from bridge.core.messages import GuestState

_BEGINS = re.compile(r"\s*(<\?xml[^<>]*\?>\s*)?<")  # the root, with nothing before it but a declaration
_MARKUP = ("<!", "<?")
_RUN = re.compile(r"<domain\s[^<>]*?\bid=['\"](\d{1,10})['\"]")
_ALIAS = "ua-"
_DISK_DEVICES = frozenset({"disk", "lun"})


class BadDomainError(ValueError):
    """The XML is not a domain's; the text says what is wrong with it, never quotes it."""


class SourceKind(StrEnum):
    """Where the bytes of a disk are."""

    BLOCK = "block"  # a block device of this host
    FILE = "file"  # a file this host sees: local, NFS and friends
    NETWORK = "network"  # QEMU's own client: RBD and others
    OTHER = "other"  # volume, dir, nvme, vhostuser: nothing Nova attaches a Cinder volume by


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSource:
    """How QEMU's own client reaches a disk: (host, port) of each server, and whose key it uses."""

    protocol: str
    hosts: tuple[tuple[str, str], ...] = ()
    conf: str | None = None
    user: str | None = None
    secret_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One disk of a domain. `driver_format` and `source` as in the XML, never probed.

    `encrypted`: somebody between the source and the guest decrypts it; `luks`: that is QEMU itself, by LUKS1.
    `node`: libvirt's number of the source, used once in a run of the guest; `alias`: libvirt's name of the disk.
    """

    target: str
    kind: SourceKind
    source: str | None
    driver_format: str
    volume_id: str | None
    encrypted: bool = False
    luks: bool = False
    network: NetworkSource | None = None
    node: str | None = None
    alias: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """A domain as libvirt shows it now. `run` names one run of the guest on this host, None while it is off."""

    server_id: str
    state: GuestState
    disks: tuple[Disk, ...]
    run: str | None = None

    def disks_of(self, volume_id: str) -> tuple[Disk, ...]:
        """The disks that carry this volume id; more than one means that something is badly wrong."""
        return tuple(disk for disk in self.disks if disk.volume_id == volume_id)


def parse_disks(xml: str) -> tuple[Disk, ...]:
    """The disks of a domain's XML; raises BadDomainError.

    A document type, and with it any entity, is refused before the parser sees it: libvirt writes none. It can only
    stand before the root; the same words in the metadata, where anybody may keep a comment or CDATA, are text.
    """
    begins = _BEGINS.match(xml)
    if begins is None or xml.startswith(_MARKUP, begins.end() - 1):
        raise BadDomainError("something before the domain in its XML")
    try:
        root = ET.fromstring(xml)  # noqa: S314 - no document type gets here, hence no entity
    except (ET.ParseError, ValueError) as ex:
        raise BadDomainError(f"not XML ({type(ex).__name__})") from ex
    if root.tag != "domain":
        raise BadDomainError("not a domain")
    found = (_disk(element) for element in root.iterfind("./devices/disk"))
    return tuple(disk for disk in found if disk is not None)


def run_number(xml: str) -> str | None:
    """Return libvirt's id of the running domain, None for one that is off. The id differs from run to run."""
    found = _RUN.search(xml[:4096])
    return found[1] if found is not None else None


def _disk(element: ET.Element) -> Disk | None:
    if element.get("device", "disk") not in _DISK_DEVICES:
        return None
    target = element.find("target")
    name = target.get("dev") if target is not None else None
    if not name:
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
        alias=_attribute(element, "alias", "name"),
    )


def _within(element: ET.Element, source: ET.Element | None, name: str) -> ET.Element | None:
    """A child of the disk or of its source: libvirt leaves it where it was written."""
    found = element.find(name)
    return source.find(name) if found is None and source is not None else found


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
