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
        help="Report the sizes that guests see, and never change a disk. For hosts whose nova-compute extends, "
        "with [engine] mode = observe. If the hypervisor has read-only sessions, the agent uses one.",
    ),
    cfg.FloatOpt(
        "observe_wait",
        default=5,
        min=0,
        help="With read_only, seconds to wait after an order until a guest has the size, before the agent reports "
        "that it does not.",
    ),
    cfg.IntOpt(
        "workers",
        default=8,
        min=1,
        max=64,
        help="Volumes that the agent extends at once. Each worker has its own session with the hypervisor. While "
        "workers hang and volumes wait, up to four times as many workers are started.",
    ),
    cfg.IntOpt(
        "brick_processes",
        default=2,
        min=1,
        max=16,
        help="os-brick processes. For SCSI and NVMe-oF, os-brick itself runs one extend at a time.",
    ),
    cfg.FloatOpt(
        "device_wait",
        default=120,
        min=0,
        help="Seconds to wait until the host's device has the new size, because arrays publish it late.",
    ),
    cfg.FloatOpt(
        "crowded_wait",
        default=10,
        min=0,
        help="Seconds of device_wait that a volume may use while others wait for a worker. After that the volume "
        "is tried again later. Otherwise one slow array would delay the volumes of all others.",
    ),
    cfg.FloatOpt("nudge_every", default=30, min=0.1, help="Seconds between rescans during device_wait."),
    cfg.FloatOpt(
        "storage_limit",
        default=5,
        min=0.1,
        help="Seconds that the agent's own reads of storage may take (LUKS headers, sysfs of a device). A read "
        "that takes longer is abandoned, and the agent does not read this device again until it has returned. A "
        "LUKS header is read only once.",
    ),
    cfg.FloatOpt(
        "brick_limit",
        default=180,
        min=0.1,
        help="Seconds that an os-brick call may take. After that its process group is killed, which also releases "
        "its file lock.",
    ),
    cfg.FloatOpt(
        "lock_limit",
        default=60,
        min=0.1,
        help="Seconds to wait for os-brick's file lock while another process (nova-compute) holds it. After that "
        "the extend is tried again later.",
    ),
    cfg.StrOpt(
        "lock_path",
        help="Directory of os-brick's file locks. Beside nova-compute set its [oslo_concurrency] lock_path. Unset: "
        "a directory of our own in state_path.",
    ),
    cfg.StrOpt(
        "state_path",
        default="/var/lib/extend-bridge",
        help="Directory for data that must survive a restart: the identity of each attached volume's device "
        "(identities.json), and file systems to grow (grow.jsonl). In a container it must be a directory of the "
        "host.",
    ),
    cfg.BoolOpt(
        "use_multipath",
        default=False,
        help="Use multipath devices. Must equal nova-compute's volume_use_multipath.",
    ),
    cfg.ListOpt(
        "nova_conf",
        default=["/etc/nova/nova.conf", "/etc/nova/nova-compute.conf"],
        help="Configuration files of nova-compute on this host. They are read once at the start, to warn if "
        "use_multipath or lock_path differ from nova-compute's. Missing files are ignored.",
    ),
    cfg.StrOpt(
        "root_helper",
        default="sudo -n",
        help="Command that starts os-brick's privsep helper when the agent does not run as root; etc/sudoers.d "
        "allows it.",
    ),
    cfg.FloatOpt(
        "inventory_interval",
        default=600,
        min=1,
        help="Seconds between two full inventories of all guests. Between them the hypervisor's events report "
        "changes at once.",
    ),
    cfg.FloatOpt(
        "heartbeat_interval",
        default=20,
        min=0.1,
        help="Seconds between two heartbeats. [engine] host_timeout must be several times longer.",
    ),
    *OPS_OPTS,
]


GUEST_GROUP: Final = "guest"
GUEST_OPTS: Final = [
    cfg.StrOpt(
        "filesystems",
        default=FileSystemMode.OFF.value,
        choices=[mode.value for mode in FileSystemMode],
        help="File systems inside guests. off: the agent never asks a guest's agent. see: two queries to the "
        "guest's agent compare file systems with their disks; no command runs in a guest. grow: like see; in "
        "addition, commands in the guest grow partition, LVM and file system, on volumes whose owner asked for "
        "it (extend_bridge_grow=true in the volume's metadata, or as a property of its image). An extend never "
        "waits for this.",
    ),
    cfg.IntOpt(
        "workers",
        default=4,
        min=1,
        max=64,
        help="Guests that the agent queries at once, in addition to the extends.",
    ),
    cfg.FloatOpt("call_limit", default=10, min=0.1, help="Seconds that one answer of a guest's agent may take."),
    cfg.FloatOpt(
        "growth_limit",
        default=600,
        min=1,
        help="Seconds that all commands in the guest for one volume may take together. After that the volume is "
        "tried again later.",
    ),
    cfg.FloatOpt(
        "interval",
        default=3600,
        min=1,
        help="Seconds between two queries of a guest's file systems while its volumes are not extended.",
    ),
]

KEY_MANAGER_GROUP: Final = "key_manager"
KEY_MANAGER_OPTS: Final = [
    cfg.StrOpt(
        "backend",
        sample_default="barbican",
        help="Set it to let this host read the keys of encrypted volumes from the key manager. A LUKS2 volume that "
        "dm-crypt decrypts on the host cannot be resized without its key. Castellan's backend: barbican, vault "
        "or a class. All other options of castellan, credentials included, are read from the same files "
        "([key_manager] auth_type, username, password; [barbican]; [vault]). Needs extend-bridge[keymanager]. "
        "Unset: extends of such volumes end as unsupported, and this host reads no keys.",
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
        raise ConfigError(
            "[hostagent] host must be a name of at most 255 characters without spaces; beside Nova, "
            "nova-compute's host"
        )
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
        raise ConfigError(
            "[guest] filesystems needs [hostagent] read_only = false, because a query to a guest's agent needs a "
            "read-write session"
        )
    return section(conf, GUEST_GROUP, GuestSettings, filesystems=mode)


def list_opts() -> OptGroups:
    """Return the options for oslo-config-generator."""
    return hostagent_groups()


def _key_manager(conf: cfg.ConfigOpts) -> KeyManagerSettings | None:
    """Return None unless the operator opted in."""
    if not conf.key_manager.backend:
        return None
    return KeyManagerSettings(config_files=tuple(conf.config_file or ()), config_dirs=tuple(conf.config_dir or ()))
