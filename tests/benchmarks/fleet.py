# SPDX-License-Identifier: Apache-2.0
"""The agents of a fleet, played: what each would publish, on one connection of a process of its own.

`python -m tests.benchmarks.fleet URL HOSTS`; reads commands from standard input, one a line, answers each with
"done": `queues` (every host's queue for casts), `start` (each says hello and what it has), `inventory` (each says
again what it has), `beat SECONDS RATE` (so many signs of life a second, host after host).
"""

import bridge.runtime.threads  # noqa: F401 - first, before anything that may choose another backend

# isort: split
import json
import logging
import random
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any, Final

import kombu

from bridge.core.extend import Bytes, ExtendKey
from bridge.core.inventory import DiskSeen, DomainSeen, GuestState, Inventory
from bridge.core.messages import HostMessage
from bridge.runtime.broker import (
    AGENT_EXCHANGE,
    AGENT_TOPIC,
    REPORTS_QUEUE,
    QueueSpec,
    ensure_agent_exchange,
    ensure_queue,
    kombu_connection,
)

DISKS: Final = 10  # of each host, each of a server of its own
SIZE: Final = 1 << 30


def name_of(host: int) -> str:
    """As the control plane addresses it."""
    return f"host-{host:05}"


def boot_of(name: str) -> str:
    """The run of this host's agent: one, for as long as the fleet lives."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def disks_of(host: int) -> list[ExtendKey]:
    """The same in every process: ids at random, as Nova's and Cinder's are."""
    rng = random.Random(f"host {host}")

    def one() -> str:
        return str(uuid.UUID(int=rng.getrandbits(128), version=4))

    return [ExtendKey(one(), one()) for _ in range(DISKS)]


class Fleet:
    """All agents."""

    def __init__(self, url: str, hosts: int) -> None:
        self._url = url
        self._hosts = hosts
        self._connection = kombu_connection(url, heartbeat=0, name="fleet")
        ensure_queue(self._connection, QueueSpec(name=REPORTS_QUEUE))
        self._channel = self._connection.channel()
        self._producer = kombu.Producer(self._channel, auto_declare=False)
        self._seq = 0

    def queues(self) -> None:
        """Declare the exchange of orders, and a queue for each host: classic ones, which are quick to make."""
        ensure_agent_exchange(self._connection)
        channel: Any = self._connection.default_channel
        for host in range(self._hosts):
            queue = f"{AGENT_TOPIC}.{name_of(host)}"
            last = host == self._hosts - 1
            channel.queue_declare(queue, durable=True, auto_delete=False, nowait=not last)
            channel.queue_bind(queue, exchange=AGENT_EXCHANGE, routing_key=queue, nowait=not last)

    def start(self) -> None:
        """All at once: a hello each, then what each has."""
        for host in range(self._hosts):
            self._say(host, Inventory(full=False))
        self.inventory()

    def inventory(self) -> None:
        """Everything, of everybody."""
        for host in range(self._hosts):
            domains = tuple(
                DomainSeen(
                    server_id=key.server_id,
                    state=GuestState.ACTIVE,
                    disks=(DiskSeen(volume_id=key.volume_id, size=Bytes(SIZE)),),
                )
                for key in disks_of(host)
            )
            self._say(host, Inventory(full=True, domains=domains, capabilities=("scsi",)))

    def beat(self, seconds: float, rate: float) -> None:
        """Spread evenly, as the jitter of agents makes them."""
        began = time.monotonic()
        for sent, host in enumerate(self._round_and_round()):
            due = began + sent / rate
            if due >= began + seconds:
                return
            if (early := due - time.monotonic()) > 0.01:
                time.sleep(early)
            self._say(host, Inventory(full=False))

    def _round_and_round(self) -> Iterator[int]:
        while True:
            yield from range(self._hosts)

    def _say(self, host: int, inventory: Inventory) -> None:
        self._seq += 1
        message = HostMessage(
            host=name_of(host),
            boot_id=boot_of(name_of(host)),
            seq=self._seq,
            sent_at=time.time(),
            inventory=inventory,
        )
        body = json.dumps(message.to_wire(), separators=(",", ":")).encode()
        self._producer.publish(body, exchange="", routing_key=REPORTS_QUEUE, delivery_mode=2)


def main(url: str, hosts: int) -> None:
    """Until its standard input ends."""
    logging.disable(logging.CRITICAL)
    fleet = Fleet(url, hosts)
    for line in sys.stdin:
        verb, *numbers = line.split()
        getattr(fleet, verb)(*map(float, numbers))
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
