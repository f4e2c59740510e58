# SPDX-License-Identifier: Apache-2.0
"""The driver of libvirt: its options, its probes, and the host it opens. Imports libvirt only when it is opened."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from oslo_config import cfg

from bridge.core.errors import ConfigError
from bridge.runtime.daemon import Part
from hostagent.domain import SourceKind
from hostagent.drivers.base import DriverCapabilities, DriverTools, HypervisorSession, Probe, ProbeFacts
from hostagent.drivers.libvirt import nova_conf, sockets
from hostagent.drivers.libvirt.settings import LIBVIRT_OPTS, LibvirtSettings, libvirt_settings

if TYPE_CHECKING:
    from hostagent.drivers.libvirt.session import Abandoned

_CAN: Final = DriverCapabilities(
    sources=frozenset({SourceKind.BLOCK, SourceKind.FILE, SourceKind.NETWORK}),
    protocols=frozenset({"rbd"}),
    agent=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LibvirtHost:
    """An opened libvirt. `connect(uri)` gives a virConnect."""

    settings: LibvirtSettings
    abandoned: "Abandoned"
    connect: Any
    parts: Sequence[Part] = ()
    capabilities: DriverCapabilities = field(default=_CAN)

    @property
    def limit(self) -> float:
        """The value of [hostagent] libvirt_limit."""
        return self.settings.limit

    def session(self, share: float = 1.0) -> HypervisorSession:
        """Return a session; it opens its connection when it is used."""
        from hostagent.drivers.libvirt.session import Session  # noqa: PLC0415 - needs libvirt

        return Session(
            self.settings.uri,
            limit=self.settings.limit,
            abandoned=self.abandoned,
            connect=self.connect,
            share=share,
        )

    def close(self) -> None:
        """Do nothing, because each session has its own connection."""


class LibvirtDriver:
    """The driver's entry point."""

    name = "libvirt"

    def options(self) -> Sequence[tuple[str, Sequence[cfg.Opt]]]:
        """Return options of [hostagent], where they were before drivers existed."""
        return [("hostagent", LIBVIRT_OPTS)]

    def settings(self, conf: cfg.ConfigOpts) -> LibvirtSettings:
        """Read the options; raises ConfigError."""
        return libvirt_settings(conf)

    def probes(self, settings: LibvirtSettings, facts: ProbeFacts) -> Iterator[Probe]:
        """Check libvirt's socket, and nova-compute's configuration."""
        if settings.uri == "qemu:///system":
            yield Probe(
                about="libvirt's socket", wrong=sockets.trouble(facts.root / "run" / "libvirt", facts.read_only)
            )
        if facts.read_only:
            return
        files = [str(facts.root / name.lstrip("/")) for name in facts.nova_conf]
        differ = "; ".join(
            nova_conf.disagreements(files, use_multipath=facts.use_multipath, lock_path=facts.lock_path)
        )
        yield Probe(about="nova-compute's settings", wrong=differ or None, fatal=False)

    def open(self, settings: LibvirtSettings, tools: DriverTools) -> LibvirtHost:
        """Import libvirt; raises ConfigError where it is not installed."""
        try:
            from hostagent.drivers.libvirt.connect import open_libvirt, open_read_only  # noqa: PLC0415 - needs libvirt
            from hostagent.drivers.libvirt.session import Abandoned  # noqa: PLC0415
        except ImportError as ex:
            raise ConfigError(f"{ex.name} is not installed; hypervisors need extend-bridge[hostagent]") from ex
        facts = tools.facts
        if not facts.read_only:
            nova_conf.warn(facts.nova_conf, use_multipath=facts.use_multipath, lock_path=facts.lock_path)
        return LibvirtHost(
            settings=settings,
            abandoned=Abandoned(settings.abandoned_max, tools.health, tools.hanging),
            connect=open_read_only if facts.read_only else open_libvirt,
        )


DRIVER: Final = LibvirtDriver()
