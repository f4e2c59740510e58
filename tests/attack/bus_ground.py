# SPDX-License-Identifier: Apache-2.0
"""The ground of liars: broker, Cinder, listener, API, engine, two honest hosts, and a host that was taken over.

Each part has a broker user of its own with the permissions that `broker-commands` prints. The good caller grows
volumes of the honest hosts all the while; afterwards each of their disks has its size.
"""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import kombu
import requests
import sqlalchemy as sa

from bridge.core.cast import decode_cast
from bridge.core.extend import GIB, Bytes, ExtendKey, gib, new_id
from bridge.core.inventory import DiskSeen, DomainSeen, GuestState, Inventory
from bridge.core.messages import HostMessage, Order, Report
from bridge.http.server import StartResponse, WsgiApp
from bridge.journal.database import Database
from bridge.journal.settings import JournalSettings
from bridge.journal.tables import attempts, disks, domains, extends, hosts
from bridge.runtime.broker import HOSTS_EXCHANGE, REPORTS_QUEUE, agent_key, ensure_agent_queue, kombu_connection
from bridge.runtime.publisher import SafePublisher
from bridge.standin.cinder import Attachment, StandInCinder
from tests.attack.broker_users import WORD, make_users
from tests.attack.grounds import PATH
from tests.chaos.fake_host import LEDGER
from tests.chaos.ledger import Ledger
from tests.lab.cinder_bus import CinderBus
from tests.lab.ports import steady_port
from tests.lab.rabbitmq import RabbitNode
from tests.lab.waiting import until

HONEST: Final = ("cmp-1.example", "cmp-2.example")
LIAR: Final = "cmp-9.example"
OLD_LIAR: Final = "extend-bridge-old-agent"
_GUESTS: Final = 3  # of each honest host
_SILENT: Final = 30.0
"""Seconds after which an honest host, which says a word each second, is taken to be dead."""
_SETTLES: Final = 90.0
"""Seconds in which the honest disks have their size after an attack, on a machine of any speed."""
_BUDGETS: Final = {"api": 116, "engine": 140, "listener": 100}
"""MiB of each process after any attack: the budget of the design, and what a small heap never gives back."""
_OLD_RIGHTS: Final = (
    f"rabbitmqctl add_user {OLD_LIAR}",
    (
        rf"rabbitmqctl set_permissions -p bridge {OLD_LIAR} '^extend_bridge_agent\.old$' "
        r"'^(extend_bridge_agent|extend_bridge_agent\.old|extend_bridge\.from_hosts)$' '^extend_bridge_agent\.old$'"
    ),
)

_CONF: Final = """\
[bus]
transport_url = {bus}
[notifications]
transport_url = {notifications}
[audit]
file = {directory}/audit.jsonl
[journal]
connection = sqlite:///{directory}/journal.sqlite3
sync_on_startup = true
[cinder]
auth_type = none
endpoint_override = {cinder}/v3
timeout = 3
[endpoint]
auth_type = none
endpoint_override = http://127.0.0.1:{bind}/v2.1
[listener]
ops_port = {ops}
[api]
auth_strategy = noauth
rate_limit = 0
bind_port = {bind}
wake_port = {wake}
ops_port = {ops}
[engine]
wake_port = {wake}
ops_port = {ops}
report_within = 10
retry_first = 0.2
retry_cap = 2
[hostagent]
host = {host}
libvirt_uri = chaos://{state}
state_path = {state}
heartbeat_interval = 1
inventory_interval = 5
ops_port = {ops}
"""


class LyingCinder:
    """The stand-in, and answers of another kind for the volumes in `lies`."""

    def __init__(self) -> None:
        self.cinder = StandInCinder()
        self.lies: dict[str, Callable[[StartResponse], Iterable[bytes]]] = {}
        self.asked: Counter[str] = Counter()
        honest = self.cinder.app

        def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
            volume = environ["PATH_INFO"].rstrip("/").rpartition("/")[2]
            self.asked[volume] += 1
            lie = self.lies.get(volume)
            return lie(start_response) if lie is not None else honest(environ, start_response)

        self.cinder.app = app_of(app)


def app_of(app: Callable[[dict[str, Any], StartResponse], Iterable[bytes]]) -> WsgiApp:
    """Return the function as an application."""
    return app


class Liar:
    """The host that was taken over: its broker user, and whatever that may do. For one thread."""

    def __init__(self, connection: kombu.Connection) -> None:
        self.connection = connection
        self.publisher = SafePublisher(connection)
        self.boot = new_id()
        self.seq = 0
        ensure_agent_queue(connection, LIAR)

    def send(self, body: bytes, *, headers: dict[str, Any] | None = None) -> None:
        """Publish under its own name, the only one the broker lets it have."""
        self.publisher.publish(REPORTS_QUEUE, body, exchange=HOSTS_EXCHANGE, routing_key=LIAR, headers=headers)

    def message(
        self,
        *,
        host: str = LIAR,
        inventory: Inventory | None = None,
        reports: tuple[Report, ...] = (),
        boot: str | None = None,
    ) -> dict[str, Any]:
        """Return a message with the next number, as a dict to be made worse."""
        self.seq += 1
        return HostMessage(
            host=host, boot_id=boot or self.boot, seq=self.seq, sent_at=time.time(), inventory=inventory,
            reports=reports,
        ).to_wire()  # fmt: skip

    def say(self, **words: Any) -> None:
        """Send such a message."""
        self.send(json.dumps(self.message(**words)).encode())

    def orders(self) -> list[Order]:
        """Take the orders that wait in its queue."""
        found: list[Order] = []
        with self.connection.channel() as channel:
            while (message := channel.basic_get(agent_key(LIAR), no_ack=True)) is not None:
                body = message.body if isinstance(message.body, bytes) else message.body.encode()
                found += (Order.from_wire(raw) for raw in decode_cast(body))
        return found


class BusGround:
    """The running parts, and the truth about the honest hosts.

    `mine` is the liar's own disk. The good caller leaves `quiet` alone, an honest disk.
    """

    def __init__(self, directory: Path, node: RabbitNode) -> None:
        self.directory = directory
        self.node = node
        self.cinder = LyingCinder()
        self.keys: dict[str, list[ExtendKey]] = {}
        self.sizes: dict[ExtendKey, int] = {}
        self.ledgers: dict[str, Ledger] = {}
        self.ops: dict[str, int] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.mine = self.quiet = ExtendKey(new_id(), new_id())
        self.bind = steady_port()
        self.boots: Mapping[str, str] = {}
        self._turn = 0
        self._session = requests.Session()
        self._grow = threading.Lock()
        self._database: Database | None = None

    # What callers do

    def call(self) -> None:
        """Grow the next honest disk in Cinder and post its event, as Cinder does."""
        every = [key for key in self.honest if key != self.quiet]
        key = every[self._turn % len(every)]
        self._turn += 1
        self.grow(key)
        self.post(key)

    def grow(self, key: ExtendKey) -> None:
        """Let the volume have one GiB more."""
        with self._grow:
            self.sizes[key] += 1
            self.cinder.cinder.extend(key.volume_id, self.sizes[key])

    def post(self, key: ExtendKey) -> None:
        """Post the event of a disk; raises AssertionError unless it is accepted."""
        event = {"name": "volume-extended", "server_uuid": key.server_id, "tag": key.volume_id}
        answer = self._session.post(
            f"http://127.0.0.1:{self.bind}{PATH}", json={"events": [event]}, timeout=60,
            headers={"OpenStack-API-Version": "compute 2.51"},
        )  # fmt: skip
        assert answer.status_code == requests.codes.ok, f"the good caller was answered {answer.status_code}"

    @contextmanager
    def liar(self) -> Iterator[Liar]:
        """Log in as the host that was taken over."""
        url = self.url(f"extend-bridge-hostagent-{LIAR}")
        with kombu_connection(url, heartbeat=0, name="liar") as connection:
            yield Liar(connection)

    def url(self, user: str, vhost: str = "bridge") -> str:
        """Return the transport_url of a user."""
        return self.node.url_of(vhost).replace("guest:guest", f"{user}:{WORD}")

    def cinders_bus(self) -> CinderBus:
        """Return Cinder's way to the listener."""
        return CinderBus(self.node.url_of("cinder"))

    # The truth

    @property
    def honest(self) -> list[ExtendKey]:
        """All disks of the honest hosts."""
        return [key for keys in self.keys.values() for key in keys]

    def home(self, key: ExtendKey) -> str:
        """Return the host that has the disk."""
        return next(host for host, keys in self.keys.items() if key in keys)

    def rows(self, query: sa.Select[Any]) -> list[tuple[Any, ...]]:
        """Read the journal."""
        assert self._database is not None
        return self._database.read(lambda connection: [tuple(row) for row in connection.execute(query)])

    def alarms(self) -> Counter[tuple[str, str]]:
        """Return the alarms so far by (host, reason)."""
        text = requests.get(f"http://127.0.0.1:{self.ops['engine']}/metrics", timeout=30).text
        found: Counter[tuple[str, str]] = Counter()
        for line in text.splitlines():
            if line.startswith("extend_bridge_engine_host_alarms_total{"):
                labels = dict(word.split("=", 1) for word in line[line.index("{") + 1 : line.index("}")].split(","))
                found[labels["host"].strip('"'), labels["reason"].strip('"')] += int(float(line.rpartition(" ")[2]))
        return found

    def complaints(self) -> Sequence[str]:
        """Wait until the honest disks have their sizes, and compare everything of the honest hosts."""
        ended = {name: process.returncode for name, process in self.processes.items() if process.poll() is not None}
        found = [f"{name} ended with {code}" for name, code in ended.items()]
        if found:
            return found
        try:
            for key in self.honest:
                self.post(key)  # a call that was refused is a complaint of its own, not one of the next attack
            until(lambda: not self.behind(), lambda: f"honest disks are behind: {self.behind()}", seconds=_SETTLES)
            until(lambda: not self._untrue(), lambda: "; ".join(self._untrue()), seconds=_SETTLES)
        except AssertionError as ex:
            found.append(str(ex)[:600])
        found += self._told_of_liar()
        for name, budget in _BUDGETS.items():
            if (used := self.memory(name)) > budget:
                found.append(f"{name} keeps {used} MiB, {budget} are allowed")
        logs = {name: (self.directory / f"{name}.log").read_text(errors="replace") for name in self.processes}
        return [*found, *(f"a traceback is in {name}.log" for name, log in logs.items() if "Traceback" in log)]

    def behind(self) -> dict[str, str]:
        """Return each honest disk that has not its size, or whose extend is open: wanted and actual."""
        open_now = {
            (server, volume)
            for server, volume in self.rows(
                sa.select(extends.c.server_id, extends.c.volume_id).where(extends.c.open == 1)
            )
        }
        wrong = {}
        for key in self.honest:
            disk = self.ledgers[self.home(key)].disks()[key.server_id, key.volume_id]
            wanted = self.sizes[key] * GIB
            if disk.size != wanted or disk.shrunk or (key.server_id, key.volume_id) in open_now:
                wrong[key.volume_id] = f"{wanted} wanted, {disk.size} there, shrunk {disk.shrunk} times"
        return wrong

    def memory(self, name: str) -> int:
        """Return MiB in use by a process."""
        status = Path(f"/proc/{self.processes[name].pid}/status").read_text()
        return next((int(line.split()[1]) >> 10 for line in status.splitlines() if line.startswith("VmRSS")), 0)

    def _untrue(self) -> list[str]:
        """Return what the journal holds of an honest host and is not so, and parts that are not ready."""
        silent = [f"{name} is not ready" for name in ("engine", "api", "listener", *HONEST) if not self.ready(name)]
        return [*self._untrue_hosts(), *self._untrue_disks(), *self._untrue_ends(), *silent]

    def _untrue_hosts(self) -> Iterator[str]:
        known = {row[0]: row for row in self.rows(sa.select(hosts.c.name, hosts.c.boot_id, hosts.c.heartbeat_at))}
        for host in HONEST:
            _, run, beat = known.get(host, (host, None, 0.0))
            if run != self.boots.get(host, run):
                yield f"{host} is another run"
            if time.time() - beat > _SILENT:
                yield f"{host} is dead"

    def _untrue_disks(self) -> Iterator[str]:
        states = {
            (server, host): state
            for server, host, state in self.rows(sa.select(domains.c.server_id, domains.c.host, domains.c.state))
        }
        sizes = {
            (volume, host): size
            for volume, host, size in self.rows(sa.select(disks.c.volume_id, disks.c.host, disks.c.size))
        }
        for key in self.honest:
            host = self.home(key)
            if (state := states.get((key.server_id, host))) != GuestState.ACTIVE:
                yield f"server {key.server_id} on {host} is {state}"
            if (size := sizes.get((key.volume_id, host))) != self.sizes[key] * GIB:
                yield f"volume {key.volume_id} on {host} has {size} by the journal"

    def _untrue_ends(self) -> Iterator[str]:
        theirs = {key.volume_id for key in self.honest}
        pairs = {(key.server_id, key.volume_id) for key in self.honest}
        columns = (extends.c.server_id, extends.c.volume_id, extends.c.outcome)
        ended = self.rows(sa.select(*columns).where(extends.c.open.is_(None)).distinct())
        bad = {outcome for server, volume, outcome in ended if (server, volume) in pairs} - {"resized", "already"}
        if bad:
            yield f"honest extends ended as {sorted(bad)}"
        given = self.rows(
            sa.select(extends.c.volume_id)
            .join(attempts, attempts.c.extend_id == extends.c.id)
            .where(attempts.c.host == LIAR)
            .distinct()
        )
        if any(volume in theirs for (volume,) in given):
            yield "the liar was given an order for an honest host's disk"

    def ready(self, name: str) -> bool:
        """Return what a part's health check says."""
        try:
            answer = requests.get(f"http://127.0.0.1:{self.ops[name]}/healthz/ready", timeout=30)
        except requests.RequestException:
            return False
        return bool(answer.status_code == requests.codes.ok)

    def _told_of_liar(self) -> list[str]:
        """Return lines of the audit log in which the liar did something to an honest disk."""
        theirs = {key.volume_id for key in self.honest}
        wrong = Counter[str]()
        whole = (self.directory / "audit.jsonl").read_text().rpartition("\n")[0]  # a line may be on its way
        for text in whole.splitlines():
            line = json.loads(text)
            # a claim has the extend looked at once more, and Cinder then says which host has the guest
            looked_at = line["event"] == "accepted" and line.get("data", {}).get("source") == "moved"
            if line.get("host") != LIAR or line.get("volume") not in theirs or looked_at:
                continue
            if line["event"] != "alarm":
                wrong[line["event"]] += 1
        return [f"the audit log says that the liar did {dict(wrong)} to honest disks"] if wrong else []

    # The parts

    def start(self, stack: ExitStack) -> None:
        """Start everything; all of it ends with the stack."""
        server = self.cinder.cinder.server()
        server.start()
        stack.callback(lambda: (server.stop(), server.join(20)))
        wake = steady_port()
        names = {"engine": "engine", "api": "api", "listener": "listener"} | {h: f"hostagent-{h}" for h in HONEST}

        def conf(name: str, user: str) -> Path:
            self.ops[name] = steady_port()
            state = self.directory / f"state-{name}"
            state.mkdir()
            path = self.directory / f"{name}.conf"
            path.write_text(
                _CONF.format(
                    bus=self.url(user), notifications=self.url("extend-bridge-listener", "cinder"),
                    directory=self.directory, cinder=server.url, bind=self.bind, ops=self.ops[name], wake=wake,
                    host=name, state=state,
                )
            )  # fmt: skip
            return path

        files = {name: conf(name, f"extend-bridge-{user}") for name, user in names.items()}
        make_users(self.node, files["engine"], [*HONEST, LIAR], more=_OLD_RIGHTS)
        bus = self.cinders_bus()
        stack.callback(bus.close)
        for host in HONEST:
            self._have_guests(host)
        self._have(LIAR, self.mine)
        self.quiet = self.keys[HONEST[0]][0]
        stack.callback(self._end)
        modules = dict.fromkeys(HONEST, "tests.attack.quiet_host")
        modules |= {"engine": "bridge.cmd.engine", "api": "bridge.cmd.api", "listener": "listener.cmd"}
        for name, path in files.items():
            with (self.directory / f"{name}.log").open("ab") as output:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-m", modules[name], "--config-file", str(path)],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                )  # fmt: skip
        until(lambda: self._alive() and all(map(self.ready, files)), "all parts are ready")
        self._database = Database(JournalSettings(connection=f"sqlite:///{self.directory}/journal.sqlite3"))
        stack.callback(self._database.dispose)
        until(lambda: not self.behind() and not self._untrue(), lambda: f"the hosts are known: {self._untrue()}")
        self.boots = dict(self.rows(sa.select(hosts.c.name, hosts.c.boot_id)))

    def _have_guests(self, host: str) -> None:
        ledger = self.ledgers[host] = Ledger(self.directory / f"state-{host}" / LEDGER)
        self.keys[host] = [ExtendKey(new_id(), new_id()) for _ in range(_GUESTS)]
        for key in self.keys[host]:
            ledger.put((key.server_id, key.volume_id), GIB)
            self._have(host, key)

    def _have(self, host: str, key: ExtendKey) -> None:
        self.sizes[key] = 1
        connection = {"driver_volume_type": "nfs", "format": "qcow2"}
        self.cinder.cinder.add_volume(
            key.volume_id, 1, Attachment(server_id=key.server_id, host=host, connection_info=connection)
        )

    def _alive(self) -> bool:
        for name, process in self.processes.items():
            if process.poll() is not None:
                said = (self.directory / f"{name}.log").read_text(errors="replace")[-1500:]
                raise AssertionError(f"{name} ended with {process.returncode}:\n{said}")
        return True

    def _end(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def seen(key: ExtendKey, size: int | None = None, state: GuestState = GuestState.ACTIVE) -> DomainSeen:
    """Return a guest with one disk, as an inventory has it; `size` in GiB."""
    disk = DiskSeen(volume_id=key.volume_id, size=gib(size) if size is not None else Bytes(GIB))
    return DomainSeen(server_id=key.server_id, state=state, disks=(disk,))


@contextmanager
def bus(directory: Path) -> Iterator[BusGround]:
    """Run everything over a broker of its own."""
    with ExitStack() as stack:
        node = stack.enter_context(RabbitNode(directory / "rabbit"))
        ground = BusGround(directory, node)
        ground.start(stack)
        yield ground
