# SPDX-License-Identifier: Apache-2.0
"""Options of [hostagent], [key_manager] and the drivers. Reading them touches nothing of the host."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oslo_config import cfg

from bridge.core.errors import ConfigError
from bridge.runtime.config import OPS_OPTS, BusSettings, OptGroups, bus_settings, default_host, section
from hostagent.drivers.registry import DRIVER_OPT, ChosenDriver, choose_driver, driver_options
from hostagent.guest.mode import FileSystemMode

_HOST_MAX = 255

HOSTAGENT_OPTS = [
    cfg.StrOpt(
        "host",
        sample_default="<the machine's host name>",
        help="Name of this host. The control plane addresses it by this name; beside Nova it is the `host` of "
        "nova-compute. Two agents must not share one.",
    ),
    DRIVER_OPT,
    cfg.BoolOpt(
        "read_only",
        default=False,
        help="Only look: report what guests see and never touch a disk. For hosts whose nova-compute extends, with "
        "[engine] mode = observe. Where the hypervisor can refuse whatever would change something, it is asked to.",
    ),
    cfg.FloatOpt(
        "observe_wait",
        default=5,
        min=0,
        help="With read_only, seconds to wait for a size to come after an order, before saying that it has not.",
    ),
    cfg.IntOpt(
        "workers",
        default=8,
        min=1,
        max=64,
        help="Volumes worked on at once. Each worker has its own session with the hypervisor. While workers hang "
        "and volumes wait, up to four times as many are started.",
    ),
    cfg.IntOpt(
        "brick_processes",
        default=2,
        min=1,
        max=16,
        help="os-brick processes. os-brick itself lets one extend at a time pass for SCSI and NVMe-oF.",
    ),
    cfg.FloatOpt(
        "device_wait",
        default=120,
        min=0,
        help="Seconds to wait for the host's device to show the new size: arrays publish it late.",
    ),
    cfg.FloatOpt(
        "crowded_wait",
        default=10,
        min=0,
        help="Seconds of device_wait that a volume may take while others wait for a worker; then it gives way and "
        "is tried again later. Else one array that is late would hold up the volumes of all others.",
    ),
    cfg.FloatOpt("nudge_every", default=30, min=0.1, help="Seconds between rescans during device_wait."),
    cfg.FloatOpt(
        "storage_limit",
        default=5,
        min=0.1,
        help="Seconds a read of storage by the agent itself may take (LUKS headers, sysfs of a device). One that "
        "takes longer is given up; the same device is not read again until it returned. A header that was read "
        "once is remembered.",
    ),
    cfg.FloatOpt(
        "brick_limit",
        default=180,
        min=0.1,
        help="Seconds an os-brick call may take; then its process group is killed, and its file lock goes with it.",
    ),
    cfg.FloatOpt(
        "lock_limit",
        default=60,
        min=0.1,
        help="Seconds to wait for os-brick's file lock while another process (nova-compute) holds it; then the "
        "extend is tried again later.",
    ),
    cfg.StrOpt(
        "lock_path",
        help="Directory of os-brick's file locks; the one nova-compute uses, where there is one "
        "([oslo_concurrency] lock_path). Unset: a directory of our own below state_path.",
    ),
    cfg.StrOpt(
        "state_path",
        default="/var/lib/extend-bridge",
        help="Directory for what must outlive a restart: which device each attached volume is (identities.json). "
        "In a container it must be the host's.",
    ),
    cfg.BoolOpt(
        "use_multipath",
        default=False,
        help="As nova-compute's volume_use_multipath; must be equal to it.",
    ),
    cfg.ListOpt(
        "nova_conf",
        default=["/etc/nova/nova.conf", "/etc/nova/nova-compute.conf"],
        help="Where nova-compute runs on this host: its configuration, read once at the start to warn where "
        "use_multipath and lock_path are not equal to its own. Files that are not there are left out.",
    ),
    cfg.StrOpt(
        "root_helper",
        default="sudo -n",
        help="What starts os-brick's privsep helper when the agent does not run as root; etc/sudoers.d allows it.",
    ),
    cfg.FloatOpt(
        "inventory_interval",
        default=600,
        min=1,
        help="Seconds between full looks at all guests; changes are reported at once by the hypervisor's events.",
    ),
    cfg.FloatOpt(
        "heartbeat_interval",
        default=20,
        min=0.1,
        help="Seconds between signs of life; several times shorter than [engine] host_timeout.",
    ),
    *OPS_OPTS,
]


GUEST_GROUP: Final = "guest"
GUEST_OPTS: Final = [
    cfg.StrOpt(
        "filesystems",
        default=FileSystemMode.OFF.value,
        choices=[mode.value for mode in FileSystemMode],
        help="File systems inside guests. off: guests' agents are never asked. see: two questions to the agent say "
        "how large file systems are beside their disks; no command runs in a guest. grow: as see, and on volumes "
        "whose owner asked (extend_bridge_grow=true in the volume's metadata, or as a property of its image) "
        "commands in the guest grow partition, LVM and file system. Never holds up an extend.",
    ),
    cfg.IntOpt("workers", default=4, min=1, max=64, help="Guests looked into at once, beside the extends."),
    cfg.FloatOpt("call_limit", default=10, min=0.1, help="Seconds one answer of a guest's agent may take."),
    cfg.FloatOpt(
        "growth_limit",
        default=600,
        min=1,
        help="Seconds all commands in the guest for one volume may take together; then it is tried again later.",
    ),
    cfg.FloatOpt(
        "interval", default=3600, min=1, help="Seconds between looks into a guest whose volumes are not extended."
    ),
]

KEY_MANAGER_GROUP: Final = "key_manager"
KEY_MANAGER_OPTS: Final = [
    cfg.StrOpt(
        "backend",
        sample_default="barbican",
        help="Set it to let this host ask the key manager for the keys of encrypted volumes: resizing a LUKS2 "
        "volume that dm-crypt on the host decrypts takes its key. Castellan's backend: barbican, vault or a class. "
        "Its other options, and with them who we are to the key manager ([key_manager] auth_type, username, "
        "password; [barbican]; [vault]), are castellan's own and are read from the same files. Needs "
        "extend-bridge[keymanager]. Unset: such volumes end as unsupported, and no key ever comes to this host.",
    ),
]
"""Only `backend` is read here. The other options of the section are castellan's, read in the os-brick process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyManagerSettings:
    """The files in which castellan finds its own options."""

    config_files: tuple[str, ...]
    config_dirs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrickSettings:
    """Settings of the os-brick processes. `limit` (of a call), `lock_limit` and `idle` (until one ends) in seconds.

    `own_locks`: lock_path is a directory of our own below state_path. `key_manager`: None unless the operator opted
    in.
    """

    processes: int
    limit: float
    lock_limit: float
    lock_path: str
    use_multipath: bool
    root_helper: str
    own_locks: bool = False
    idle: float = 60.0
    key_manager: KeyManagerSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSettings:
    """Values of [guest]; times in seconds."""

    filesystems: FileSystemMode
    workers: int
    call_limit: float
    growth_limit: float
    interval: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAgentSettings:
    """Values of [hostagent] and [bus]; times in seconds."""

    host: str
    bus: BusSettings
    driver: ChosenDriver
    workers: int
    device_wait: float
    crowded_wait: float
    nudge_every: float
    storage_limit: float
    inventory_interval: float
    heartbeat_interval: float
    read_only: bool
    observe_wait: float
    state_path: Path
    brick: BrickSettings
    nova_conf: tuple[str, ...]
    guest: GuestSettings = GuestSettings(
        filesystems=FileSystemMode.OFF, workers=4, call_limit=10.0, growth_limit=600.0, interval=3600.0
    )


def hostagent_groups() -> OptGroups:
    """Return the host agent's option groups, those of the installed drivers included."""
    groups: dict[str, list[cfg.Opt]] = {"hostagent": [*HOSTAGENT_OPTS]}
    for name, options in driver_options():
        groups.setdefault(name, []).extend(options)
    return [*groups.items(), (GUEST_GROUP, GUEST_OPTS), (KEY_MANAGER_GROUP, KEY_MANAGER_OPTS)]


def hostagent_settings(conf: cfg.ConfigOpts) -> HostAgentSettings:
    """Read the options; raises ConfigError."""
    options = conf.hostagent
    host = options.host or default_host()
    if len(host) > _HOST_MAX or any(c.isspace() for c in host):
        raise ConfigError("[hostagent] host: a name of at most 255 characters without spaces, as nova-compute's")
    brick = section(
        conf,
        "hostagent",
        BrickSettings,
        processes=options.brick_processes,
        limit=options.brick_limit,
        lock_path=options.lock_path or str(Path(options.state_path) / "lock"),
        own_locks=options.lock_path is None,
        key_manager=_key_manager(conf),
    )
    return section(
        conf,
        "hostagent",
        HostAgentSettings,
        host=host,
        bus=bus_settings(conf),
        driver=choose_driver(conf),
        brick=brick,
        guest=_guest(conf),
    )


def _guest(conf: cfg.ConfigOpts) -> GuestSettings:
    mode = FileSystemMode(conf.guest.filesystems)
    if mode is not FileSystemMode.OFF and conf.hostagent.read_only:
        raise ConfigError("[guest] filesystems needs [hostagent] read_only = false: asking an agent is a write")
    return section(conf, GUEST_GROUP, GuestSettings, filesystems=mode)


def list_opts() -> OptGroups:
    """Return the options for oslo-config-generator."""
    return hostagent_groups()


def _key_manager(conf: cfg.ConfigOpts) -> KeyManagerSettings | None:
    """Return None unless the operator opted in."""
    if not conf.key_manager.backend:
        return None
    return KeyManagerSettings(config_files=tuple(conf.config_file or ()), config_dirs=tuple(conf.config_dir or ()))
