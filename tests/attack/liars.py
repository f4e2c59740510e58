# SPDX-License-Identifier: Apache-2.0
"""Lies of a host that was taken over, with its own broker user, beside honest hosts that work.

Of another host's servers, extends, disks and health nothing may change, and the alarm names the liar.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import amqp.exceptions
import kombu
import sqlalchemy as sa

from bridge.core.extend import Bytes, ExtendKey, gib, new_id
from bridge.core.inventory import GuestState, Inventory
from bridge.core.messages import Report
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from bridge.journal.tables import attempts, extends
from bridge.runtime.broker import (
    AGENT_EXCHANGE,
    HOSTS_EXCHANGE,
    REPORTS_EXCHANGE,
    REPORTS_QUEUE,
    agent_key,
    kombu_connection,
)
from bridge.runtime.publisher import NotPublishedError, SafePublisher
from tests.attack.bus_ground import HONEST, LIAR, OLD_LIAR, BusGround, Liar, seen
from tests.attack.frame import Attack
from tests.lab.odd_headers import ODD_HEADERS
from tests.lab.waiting import until

_GROUND: Final = "bus"
_TOO_LONG: Final = 9 * 1024 * 1024
_MANY: Final = 6000
_SECONDS: Final = 60.0


@contextmanager
def _alarmed(ground: BusGround, reason: Reason, complaints: list[str], host: str = LIAR) -> Iterator[None]:
    """Lie in the block; an alarm with this reason has to name the host, and none an honest host."""
    before = ground.alarms()
    yield
    try:
        until(
            lambda: ground.alarms()[host, reason.value] > before[host, reason.value], "an alarm", seconds=_SECONDS
        )
    except AssertionError:
        complaints.append(f"no alarm {reason.value} names {host}: {dict(ground.alarms() - before)}")
    accused = {name for name, _ in ground.alarms() - before} - {host}
    if accused:
        complaints.append(f"alarms name {sorted(accused)}")


def _own(ground: BusGround, *more: Any, full: bool = True) -> Inventory:
    """Return the liar's true inventory, and what else it claims."""
    return Inventory(full=full, domains=(seen(ground.mine, ground.sizes[ground.mine]), *more))


def another_name(ground: BusGround, seconds: float) -> Sequence[str]:
    """Speak in the honest hosts' names: heartbeats, empty and false inventories, reports, new runs."""
    complaints: list[str] = []
    deadline = time.monotonic() + seconds
    with ground.liar() as liar, _alarmed(ground, Reason.HOST_NOT_ITSELF, complaints):
        while time.monotonic() < deadline:
            for host in HONEST:
                key = ground.keys[host][0]
                run = ground.boots[host]
                lies: list[dict[str, Any]] = [
                    {},
                    {"inventory": Inventory(full=True)},
                    {"inventory": Inventory(full=False, gone=tuple(k.server_id for k in ground.keys[host]))},
                    {"inventory": Inventory(full=True, domains=(seen(key, 2**30),))},
                    {"inventory": Inventory(full=True, domains=(seen(key, 1, GuestState.OFF),)), "boot": run},
                    {"boot": new_id()},
                    {"reports": (_report(new_id(), key, Outcome.RESIZED),), "boot": run},
                ]
                for lie in lies:
                    liar.say(host=host, **lie)
            time.sleep(0.05)
    return complaints


def shut_ways(ground: BusGround, seconds: float) -> Sequence[str]:
    """Try each way that is not the liar's: the broker refuses, and no queue gets or loses a message."""
    del seconds
    complaints = []
    with ground.liar() as liar:
        ways = [("", REPORTS_QUEUE), ("", agent_key(HONEST[0])), (REPORTS_EXCHANGE, REPORTS_QUEUE)]
        ways += [("", "extend_bridge.parked"), ("", "extend_bridge.due"), (AGENT_EXCHANGE, agent_key(HONEST[0]))]
        ways += [(HOSTS_EXCHANGE, key) for key in (*HONEST, "#", "*", f"{LIAR}.x", "cmp-9xexample", "")]
        for exchange, key in ways:
            lie = json.dumps(liar.message(host=HONEST[0], inventory=Inventory(full=True))).encode()
            with SafePublisher(liar.connection) as publisher:
                try:
                    publisher.publish(key, lie, exchange=exchange, routing_key=key)
                except NotPublishedError as ex:
                    if ex.reason in {Reason.NOT_PERMITTED, Reason.RETURNED}:
                        continue
                if key:  # without a key the queue's name would be the key
                    complaints.append(f"it may publish to {exchange or 'amq.default'} as {key}")
        for name, act in _reaches(ground).items():
            try:
                with liar.connection.channel() as channel:
                    act(channel)
            except (amqp.exceptions.AccessRefused, amqp.exceptions.NotFound, amqp.exceptions.ResourceLocked):
                continue
            complaints.append(f"it may {name}")
    return complaints


def _reaches(ground: BusGround) -> dict[str, Callable[[Any], object]]:
    theirs = agent_key(HONEST[0])
    mine = agent_key(LIAR)
    del ground
    return {
        "read the reports": lambda channel: channel.basic_get(REPORTS_QUEUE),
        "read another's orders": lambda channel: channel.basic_get(theirs),
        "empty another's orders": lambda channel: channel.queue_purge(theirs),
        "delete another's queue": lambda channel: channel.queue_delete(theirs),
        "delete the reports": lambda channel: channel.queue_delete(REPORTS_QUEUE),
        "delete the exchange": lambda channel: channel.exchange_delete(HOSTS_EXCHANGE),
        "get another's orders": lambda c: kombu.Queue(mine, channel=c).bind_to(AGENT_EXCHANGE, theirs),
        "get all orders": lambda c: kombu.Queue(mine, channel=c).bind_to(AGENT_EXCHANGE, "#"),
        "hear other hosts": lambda c: kombu.Queue(mine, channel=c).bind_to(HOSTS_EXCHANGE, "#"),
        "make a queue": lambda c: c.queue_declare("extend_bridge_agent.cmp-3.example"),
    }


def claims(ground: BusGround, seconds: float) -> Sequence[str]:
    """Claim the honest hosts' running guests, with their volumes and with sizes that would do."""
    complaints: list[str] = []
    deadline = time.monotonic() + seconds
    states = tuple(GuestState)
    turn = 0
    with ground.liar() as liar, _alarmed(ground, Reason.HOST_NOT_ATTACHED, complaints):
        while time.monotonic() < deadline or turn < 2 * len(states):
            state = states[turn // 2 % len(states)]
            size = (2**30, 1)[turn % 2]
            claimed = [seen(key, size, state) for key in ground.honest]
            liar.say(inventory=_own(ground, *claimed))
            if any((order.key.server_id, order.key.volume_id) in _theirs(ground) for order in liar.orders()):
                complaints.append(f"it was given an order for another host's disk while it claimed {state.value}")
                break
            turn += 1
            time.sleep(0.2)
        liar.say(inventory=_own(ground))
    return complaints


def _theirs(ground: BusGround) -> set[tuple[str, str]]:
    return {(key.server_id, key.volume_id) for key in ground.honest}


def _report(attempt_id: str, key: ExtendKey, outcome: Outcome, size: int = 2**20, gen: int = 10**6) -> Report:
    """Return a report that would prove whatever is asked for."""
    return Report(
        attempt_id=attempt_id, key=key, gen=gen, outcome=outcome, reason=outcome.value, target=gib(size),
        after=gib(size), before=Bytes(1),
    )  # fmt: skip


def forged_reports(ground: BusGround, seconds: float) -> Sequence[str]:
    """Report orders that it was not given: unknown ids, leaked ids of others, its own ids for others' disks."""
    complaints: list[str] = []
    deadline = time.monotonic() + seconds
    outcomes = (Outcome.RESIZED, Outcome.UNSUPPORTED, Outcome.GUEST_OFF, Outcome.REFUSED, Outcome.NOT_HERE)
    with ground.liar() as liar, _alarmed(ground, Reason.HOST_NOT_ORDERED, complaints):
        liar.say(inventory=_own(ground))
        ground.grow(ground.mine)
        ground.post(ground.mine)
        mine = _order(liar)
        while True:
            leaked = ground.rows(
                sa.select(attempts.c.id, extends.c.server_id, extends.c.volume_id)
                .join(extends, extends.c.id == attempts.c.extend_id)
                .where(attempts.c.host.in_(HONEST))
                .order_by(attempts.c.number.desc())
                .limit(20)
            )
            for outcome in outcomes:
                lies = [_report(a, ExtendKey(s, v), outcome) for a, s, v in leaked]
                lies += [_report(new_id(), key, outcome) for key in ground.honest]
                lies += [_report(mine, key, outcome) for key in ground.honest]
                liar.say(reports=tuple(lies))
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        # the truth about its own disk still counts
        liar.say(reports=(_report(mine, ground.mine, Outcome.RESIZED),))
        until(lambda: ground.mine.volume_id not in _open(ground), "its own extend ends by its own report")
    return complaints


def false_sizes(ground: BusGround, seconds: float) -> Sequence[str]:
    """Say `resized` with a size that was not reached, or is none: its own extend stays open and is cast again."""
    del seconds
    key = ground.mine
    with ground.liar() as liar:
        liar.say(inventory=_own(ground))
        ground.grow(key)
        ground.post(key)
        for after in (None, 0, 1, -1, "1", 2**63):
            attempt = _order(liar)
            message = liar.message(reports=(_report(attempt, key, Outcome.RESIZED, size=1),))
            message["reports"][0]["after_bytes"] = after
            liar.send(json.dumps(message).encode())
        attempt = _order(liar)
        if not ground.rows(
            sa.select(extends.c.id).where(extends.c.volume_id == key.volume_id, extends.c.open == 1)
        ):
            return ["its own extend was closed without a size"]
        liar.say(reports=(_report(attempt, key, Outcome.RESIZED),))
        until(lambda: key.volume_id not in _open(ground), "a report with the size ends it")
    return []


def _order(liar: Liar) -> str:
    """Wait for an order; its attempt's id."""
    got: list[str] = []
    until(lambda: got or got.extend(order.attempt_id for order in liar.orders()), "an order", seconds=_SECONDS)
    return got[-1]


def _open(ground: BusGround) -> set[str]:
    return {volume for (volume,) in ground.rows(sa.select(extends.c.volume_id).where(extends.c.open == 1))}


def shrunken(ground: BusGround, seconds: float) -> Sequence[str]:
    """Have many guests and none at once: the alarm names it, and its servers stay."""
    del seconds
    complaints: list[str] = []
    many = [ExtendKey(new_id(), new_id()) for _ in range(20)]
    with ground.liar() as liar, _alarmed(ground, Reason.HOST_SHRANK, complaints):
        liar.say(inventory=_own(ground, *(seen(key, 1) for key in many)))
        liar.say(inventory=Inventory(full=True))
    return complaints


def poison(ground: BusGround, seconds: float) -> Sequence[str]:
    """Send what is too long, too deep, too many, not text, not a number, or not JSON."""
    del seconds
    complaints: list[str] = []
    with ground.liar() as liar:
        for body, headers in _poisons(ground, liar):
            liar.send(body, headers=headers)
        with _alarmed(ground, Reason.HOST_TOO_MUCH, complaints):
            liar.send(b"x" * _TOO_LONG)
        liar.say(inventory=_own(ground))
    shown = ground.directory / "engine.log"
    if b"\x1b[2J" in shown.read_bytes() or b"\x1b]0;" in (ground.directory / "audit.jsonl").read_bytes():
        complaints.append("a terminal's escape sequence is in a log")
    return complaints


def _poisons(ground: BusGround, liar: Liar) -> Iterator[tuple[bytes, dict[str, Any]]]:
    yield b"", {}
    yield b"\xff\xfe\x00", {}
    yield b"null", {}
    yield b"[" * 200_000, {}
    yield b'{"version":1,"reports":' + b"[" * 200_000, {}
    yield b'{"version":1,"host":"' + b"A" * 1_000_000 + b'"}', {}
    for version in (0, -1, 99, "1", None, 10**400):
        yield json.dumps({**liar.message(), "version": version}).encode(), {}
    for seq in (-1, 2**63, 10**30, "1", None, True):
        yield json.dumps({**liar.message(), "seq": seq}).encode(), {}
    for at in ("NaN", "Infinity", "-1e400", "1e999"):
        yield json.dumps(liar.message()).replace('"sent_at": ', f'"sent_at": {at}, "was": ').encode(), {}
    for host in ("", "\x1b]0;owned\x07", "\ud800", "a" * 100_000, f"{LIAR}\n", None, [LIAR], f"{LIAR}\u202e"):
        yield json.dumps({**liar.message(), "host": host}).encode(), {}
    for word in ("\x1b[2J\x07", "\ud800", "\x00", "=cmd|' /C calc'!A0", "\u202eevil", "x" * 5_000_000, "'; DROP--"):
        own = liar.message(inventory=_own(ground))
        own["inventory"]["capabilities"] = [word]
        own["inventory"]["unsupported"] = {word: word}
        yield json.dumps(own).encode(), {}
        told = liar.message(reports=(_report(new_id(), ground.mine, Outcome.ERROR),))
        told["reports"][0] |= {"detail": word, "reason": word, "steps": [{"name": word, "ok": True, "seconds": 1}]}
        yield json.dumps(told).encode(), {}
    sizes: tuple[object, ...] = (-1, 2**63, 2**70, 10**400, 1.5, "1", True, [], {})
    for size in sizes:
        own = liar.message(inventory=_own(ground))
        own["inventory"]["domains"][0]["disks"][0]["size_bytes"] = size
        yield json.dumps(own).encode(), {}
    many = [seen(ExtendKey(new_id(), new_id()), 1) for _ in range(_MANY)]
    yield json.dumps(liar.message(inventory=_own(ground, *many))).encode(), {}
    wide = liar.message(inventory=_own(ground))
    wide["inventory"]["domains"][0]["disks"] = [{"volume_id": new_id(), "size_bytes": 1} for _ in range(_MANY)]
    yield json.dumps(wide).encode(), {}
    reports = tuple(_report(new_id(), ground.mine, Outcome.ERROR) for _ in range(_MANY))
    yield json.dumps(liar.message(reports=reports)).encode(), {}
    for headers in ODD_HEADERS.values():
        yield json.dumps(liar.message()).encode(), headers


def flood(ground: BusGround, seconds: float) -> Sequence[str]:
    """Send as fast as the broker takes it: heartbeats, inventories that change each time, new runs."""
    deadline = time.monotonic() + seconds
    bodies = 0
    with ground.liar() as liar:
        claimed = [seen(key, 1) for key in ground.honest]
        while time.monotonic() < deadline:
            liar.say()
            liar.say(inventory=_own(ground, *(claimed if bodies % 2 else ())))
            liar.say(boot=new_id(), inventory=Inventory(full=bodies % 3 == 0, gone=(new_id(),)))
            bodies += 1
        liar.say(inventory=_own(ground))
    return []


def old_form(ground: BusGround, seconds: float) -> Sequence[str]:
    """Speak by the way of agents of 0.1.0, with the permissions of then, while such agents are still accepted.

    The broker says nothing of the sender here. So the alarm names the host in whose name it was said.
    """
    del seconds
    complaints: list[str] = []
    host = HONEST[0]
    with (
        kombu_connection(ground.url(OLD_LIAR), heartbeat=0, name="liar") as connection,
        SafePublisher(connection) as publisher,
        _alarmed(ground, Reason.HOST_UNPROVED, complaints, host),
    ):
        liar = _unbound(connection)
        for lie in (
            {},
            {"inventory": Inventory(full=True)},
            {"inventory": Inventory(full=True), "boot": ground.boots[host]},
            {"inventory": Inventory(full=False, gone=tuple(k.server_id for k in ground.keys[host]))},
            {"reports": (_report(new_id(), ground.keys[host][0], Outcome.RESIZED),), "boot": ground.boots[host]},
        ):
            body = json.dumps(liar.message(host=host, **lie)).encode()
            publisher.publish(REPORTS_QUEUE, body, exchange=REPORTS_EXCHANGE)
    return complaints


def _unbound(connection: kombu.Connection) -> Liar:
    liar = Liar.__new__(Liar)
    liar.connection, liar.boot, liar.seq = connection, new_id(), 10**9
    return liar


def _attack(
    name: str, about: str, run: Callable[[BusGround, float], Sequence[str]], *, short: bool = True
) -> Attack:
    return Attack(name=name, about=about, ground=_GROUND, run=run, short=short)


ATTACKS: Final = (
    _attack("another-name", "a host speaks in other hosts' names", another_name),
    _attack("shut-ways", "a host tries every way on the bus that is not its own", shut_ways, short=False),
    _attack("claims", "a host claims other hosts' running guests", claims),
    _attack("forged-reports", "a host reports orders that others were given", forged_reports),
    _attack("false-sizes", "a host reports sizes that are not true", false_sizes, short=False),
    _attack("shrunken", "a host's guests are gone at once", shrunken, short=False),
    _attack("poison", "a host sends what is too long, too deep or no text", poison, short=False),
    _attack("old-form", "messages of 0.1.0 in the name of a host with a newer agent", old_form, short=False),
    _attack("flood", "a host sends as fast as it can", flood, short=False),
)
