# SPDX-License-Identifier: Apache-2.0
"""A domain's XML becomes disks; what is not a domain's XML is refused in words."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostagent.domain import SourceKind
from hostagent.drivers.libvirt.domain_xml import BadDomainError, parse_disks, parse_domain

VOLUME = "11111111-2222-3333-4444-555555555555"
OTHER = "99999999-2222-3333-4444-555555555555"


def domain(*disks: str) -> str:
    return f"<domain type='kvm'><name>x</name><devices>{''.join(disks)}</devices></domain>"


def disk(inside: str, kind: str = "block", device: str = "disk") -> str:
    return f"<disk type='{kind}' device='{device}'><target dev='vdb' bus='virtio'/>{inside}</disk>"


def test_the_serial_is_the_volume_id() -> None:
    """Nova writes it there; case does not matter."""
    [found] = parse_disks(domain(disk(f"<serial>{VOLUME.upper()}</serial>")))
    assert found.volume_id == VOLUME


def test_without_a_serial_the_alias_tells() -> None:
    """Nova's make_libvirt_device_alias: ua-<volume id>."""
    [found] = parse_disks(domain(disk(f"<alias name='ua-{VOLUME}'/>")))
    assert found.volume_id == VOLUME


def test_the_serial_wins_over_the_alias() -> None:
    """Both are Nova's; the serial is what the guest sees, too."""
    [found] = parse_disks(domain(disk(f"<serial>{VOLUME}</serial><alias name='ua-{OTHER}'/>")))
    assert found.volume_id == VOLUME


@pytest.mark.parametrize("inside", ["", "<serial>disk-7</serial>", "<alias name='virtio-disk1'/>", "<alias/>"])
def test_a_disk_that_is_no_volume_has_no_volume_id(inside: str) -> None:
    """Local root disks and config drives are of no interest."""
    [found] = parse_disks(domain(disk(inside)))
    assert found.volume_id is None


@pytest.mark.parametrize(
    ("kind", "source", "expected"),
    [
        ("block", "<source dev='/dev/dm-3'/>", (SourceKind.BLOCK, "/dev/dm-3")),
        ("file", "<source file='/srv/a b&amp;c'/>", (SourceKind.FILE, "/srv/a b&c")),
        ("network", "<source protocol='rbd' name='pool/vol'/>", (SourceKind.NETWORK, "pool/vol")),
        ("nvme", "<source type='pci'/>", (SourceKind.OTHER, None)),
        ("block", "", (SourceKind.BLOCK, None)),
    ],
)
def test_the_kind_of_a_source_and_its_name_are_read(
    kind: str, source: str, expected: tuple[SourceKind, str | None]
) -> None:
    """The kind of source, and its name where it has one."""
    [found] = parse_disks(domain(disk(f"<driver name='qemu' type='raw'/>{source}", kind)))
    assert (found.kind, found.source) == expected


def test_format_and_encryption_are_taken_from_the_xml() -> None:
    """Never probed: a guest can write a qcow2 header into a raw disk."""
    plain, old, new = parse_disks(
        domain(
            disk("<driver type='qcow2'/>", "file"),
            disk("<encryption format='luks'/>"),
            disk("<source dev='/dev/a'><encryption format='luks'/></source>"),
        )
    )
    assert (plain.driver_format, plain.encrypted, old.encrypted, new.encrypted) == ("qcow2", False, True, True)


def test_cdroms_are_listed_as_what_they_are() -> None:
    """A volume attached as one is no disk that is missing."""
    xml = domain(
        disk("", device="cdrom"), disk("", device="floppy"), disk("", device="lun"), disk("", device="nvme")
    )
    assert [found.cdrom for found in parse_disks(xml)] == [True, False, False]


BUSES = [
    ("virtio", "", True),
    ("scsi", "<controller type='scsi' index='0' model='virtio-scsi'/>", True),
    ("scsi", "<controller type='scsi' index='0' model='virtio-non-transitional'/>", True),
    ("scsi", "<controller type='scsi' index='0' model='lsilogic'/>", False),
    ("scsi", "<controller type='scsi' index='0' model='lsisas1078'/>", False),
    ("scsi", "<controller type='scsi' index='1' model='lsilogic'/>", True),
    ("sata", "", False),
    ("ide", "", False),
    ("usb", "", False),
    ("fdc", "", False),
    ("nvme", "", False),
]


@pytest.mark.parametrize(("bus", "controller", "notifies"), BUSES)
def test_buses_whose_guests_look_only_when_they_start(bus: str, controller: str, notifies: bool) -> None:
    """As Debian's kernel does behind each of them (tests/guests)."""
    xml = (
        f"<domain id='7'><devices>{controller}<disk type='block' device='disk'><driver type='raw'/>"
        f"<source dev='/dev/x'/><target dev='sda' bus='{bus}'/><address type='drive' controller='0'/></disk>"
        "</devices></domain>"
    )
    [found], run = parse_domain(xml)
    assert (found.notifies, found.can_be_told, run) == (notifies, notifies, "7")


def test_a_read_only_disk_cannot_be_told() -> None:
    xml = (
        "<domain><devices><disk type='block'><source dev='/dev/x'/><target dev='vda' bus='virtio'/><readonly/>"
        "</disk></devices></domain>"
    )
    [found], run = parse_domain(xml)
    assert (found.read_only, found.can_be_told, run) == (True, False, None)


def test_a_disk_is_named_by_type_protocol_and_format() -> None:
    xml = (
        "<domain><devices><disk type='network'><driver type='raw'/><source protocol='nbd' name='v'/>"
        "<target dev='vda'/></disk><disk type='vhostuser'><target dev='vdb'/></disk></devices></domain>"
    )
    assert [found.words for found in parse_disks(xml)] == ["network nbd raw", "vhostuser no format"]


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><domain><name>&c;</name></domain>'
)
XXE = '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]><domain><name>&x;</name></domain>'


@pytest.mark.parametrize("xml", [BOMB, XXE, "", "<domain", "<network/>", "\x00", "<domain>&undefined;</domain>"])
def test_what_is_not_a_domains_xml_is_refused(xml: str) -> None:
    """No entity is ever expanded, and the error quotes nothing."""
    with pytest.raises(BadDomainError) as caught:
        parse_disks(xml)
    assert "passwd" not in str(caught.value)


@pytest.mark.parametrize("text", ["<![CDATA[<!DOCTYPE html>]]>", "<!-- <!ENTITY x> -->"])
def test_what_metadata_say_of_document_types_is_text(text: str) -> None:
    """Libvirt keeps it as it was written; one such domain would else leave its whole host without an inventory."""
    assert parse_disks(f"<domain><metadata><n>{text}</n></metadata></domain>") == ()


@pytest.mark.parametrize(
    "before", ["<!-- x -->", "<?x <domain?>", '<?xml version="1.0"?>\n<!-- <domain> -->', " ", "\ufeff"]
)
def test_no_document_type_gets_to_the_parser_behind_something_else(before: str) -> None:
    with pytest.raises(BadDomainError, match="does not begin with the domain"):
        parse_disks(before + BOMB)


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    """No other exception comes out of the parser."""
    with contextlib.suppress(BadDomainError):
        parse_disks(f"<domain><devices>{text}</devices></domain>")
