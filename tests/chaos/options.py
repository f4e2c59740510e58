# SPDX-License-Identifier: Apache-2.0
"""The command line. Standard library only: read before anything is installed."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

TOOL: Final = "tools/chaos"
_CONTROL_PROCESSES: Final = 6  # two each of listener, API, engine

_EPILOG: Final = """\
Parts: a RabbitMQ node (--cluster 3: three, joined), a database, 2 listeners, 2 APIs, 2 engines, host agents whose
code is the real one down to the libvirt connection; that and Cinder are played. Reconcile is off: it hides losses.
With --fault it is on: then it has to mend them.

The last line
  lost 0 shrunk 0 stuck 0 parked P duplicates D recovered_in S s
lost        disks behind Cinder of which no part holds anything any more, and unreadable notifications that vanished
shrunk      disks that were ever smaller than they had been
stuck       disks behind Cinder that something still waits for when --patience is over
parked      messages in the parked and unreadable lanes; the load holds some that belong there
duplicates  notifications that were delivered again, and orders that found the disk at its size
recovered   seconds from the end of load and faults until every disk had Cinder's size and nothing was open
The exit code is 0 when lost, shrunk and stuck are 0, else 1.

--fault lets one thing go wrong for a whole run, instead of kills, and then gives reconciliation one pass:
  no-notifications  Cinder tells nobody, of any volume that grows
  casts-dropped     host agents get every order and lose it, until the load is over
  weekend           all hosts are off while the volumes grow, and half of it is told to nobody; everything in the
                    journal is then made 60 h older, as if that time had passed; one host stays off
  old-journal       the journal is replaced by what it was a day before the volumes grew
  nova-loses-casts  beside Nova: agents only look, the listener posts to a Nova that answers 200, does nothing the
                    first three times for each disk, and never on one host
One guest more is on a host without an agent. The last line is then
  lost 0 shrunk 0 stuck 0 healed H named N passes P healed_in S s
lost: disks behind that had neither an extend nor a reason when the first whole pass after the fault had ended
stuck: disks behind when --patience is over; named: guests that cannot be healed, with their reason in the journal

--gray lets things be half alive instead of dead: a proxy stands between every process and every service it uses
(both buses, database, Cinder, Nova, Keystone, the endpoint, the socket of a played libvirtd), and freezes, loses,
drips, delays, resets or refuses connections; the broker has a memory alarm; the database is read-only, locked, or
its disk is full. The first half of the --kills faults comes alone, the others overlap. The last line is then
  lost 0 shrunk 0 stuck 0 blind 0 s parked P duplicates D restarts 0 recovered_in S s
blind       seconds beyond 30 on end in which every part read ready and the oldest due disk did not move, or in
            which a process read ready and nothing at all got through one of its links
restarts    processes that ended by themselves
stuck counts what is behind 60 s after the last fault; nothing is restarted. The exit code is also 1 where a link
with a fault had no traffic, and where an API did not serve a caller it knows because Keystone hung.

--break plants a bug in the parts, which the run must then report (exit code 1):
  ack-early      the listener acknowledges before it has posted
  no-generation  a report closes its extend though a newer event came meanwhile
  no-guard       the engine sends sizes up to 5 s old, the agent resizes without looking first and without its guard
  no-mandatory   lanes and reports are published neither mandatory nor confirmed (faults delete these queues)
  cast-only      the engine closes an extend once the order is sent
  blind          reconciliation takes every guest for fine (with --fault)
  no-read-timeout  broker, HTTP services and libvirt may take an hour for each answer (with --gray)
  polite-close   a connection that is given up is closed with a word to the broker first (with --gray)
  last-word      the same as no-read-timeout, and a check reads ready until a part says otherwise (with --gray)

examples:
  tools/chaos --events 2000 --kills 60 --seed 1
  tools/chaos --events 2000 --kills 60 --seed 1 --db mariadb --cluster 3
  tools/chaos --events 1000 --rolling
  tools/chaos --events 300 --fault weekend
  tools/chaos --gray --events 2000 --seed 1 --db postgresql
  tools/chaos --gray --events 40 --kills 1 --link engine:keystone --break no-read-timeout
  tools/chaos --seed 7 --dry-run
"""


class Fault(StrEnum):
    """What goes wrong with a whole run, to be mended by reconciliation."""

    NO_NOTIFICATIONS = "no-notifications"
    CASTS_DROPPED = "casts-dropped"
    WEEKEND = "weekend"
    OLD_JOURNAL = "old-journal"
    NOVA_LOSES_CASTS = "nova-loses-casts"


class Break(StrEnum):
    """A bug to plant."""

    ACK_EARLY = "ack-early"
    NO_GENERATION = "no-generation"
    NO_GUARD = "no-guard"
    NO_MANDATORY = "no-mandatory"
    CAST_ONLY = "cast-only"
    BLIND = "blind"
    NO_READ_TIMEOUT = "no-read-timeout"
    POLITE_CLOSE = "polite-close"
    LAST_WORD = "last-word"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As on the command line. `patience` and `spread` in seconds."""

    events: int
    kills: int
    seed: int
    db: str
    cluster: int
    agents: int
    planted: Break | None
    patience: float
    spread: float
    keep: Path | None
    dry_run: bool
    json: bool
    rolling: bool = False
    fault: Fault | None = None
    gray: bool = False
    links: tuple[str, ...] = ()
    lasts: float | None = None


def options(argv: Sequence[str] | None = None) -> Options:
    """Parse; ends the process with 2 for what cannot be used."""
    parser = argparse.ArgumentParser(
        prog=TOOL,
        description="Kills, stops and restarts every part under a load of extends, and compares at the end.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--events", type=_at_least(1), default=500, metavar="N", help="extends (default 500)")
    parser.add_argument("--kills", type=_at_least(0), metavar="K", help="faults (default 20; 12 with --gray)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of load and faults (default 1)")
    parser.add_argument("--db", choices=("sqlite", "mariadb", "postgresql"), default="sqlite")
    parser.add_argument("--cluster", type=int, choices=(1, 3), default=1, help="RabbitMQ nodes (default 1)")
    parser.add_argument("--agents", type=_at_least(1), default=3, metavar="A", help="hosts (default 3)")
    parser.add_argument("--break", dest="planted", type=Break, choices=tuple(Break), help="plant this bug")
    parser.add_argument("--fault", type=Fault, choices=tuple(Fault), help="instead of kills: this, then one pass")
    parser.add_argument(
        "--patience", type=float, metavar="SECONDS", help="for the end to come (default 150; 60 with --gray)"
    )
    parser.add_argument(
        "--spread", type=float, metavar="SECONDS", help="length of load and faults (default: 2 s a fault, at least)"
    )
    parser.add_argument(
        "--rolling",
        action="store_true",
        help="instead of faults: SIGTERM to each process of the bridge in turn, and a start once it has ended",
    )
    parser.add_argument("--gray", action="store_true", help="instead of kills: half-alive connections and servers")
    parser.add_argument(
        "--link", dest="links", action="append", default=[], metavar="KIND:SERVICE",
        help="with --gray: faults of this link only, such as engine:nova; may be given several times; with a third "
        "word, such as engine:nova:freeze, this fault only",
    )  # fmt: skip
    parser.add_argument(
        "--lasts", type=float, metavar="SECONDS", help="with --gray: length of each fault (default 35 to 50)"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs and configuration here")
    parser.add_argument("--dry-run", action="store_true", help="print the faults of this seed and end")
    parser.add_argument("--json", action="store_true", help="a JSON object before the last line")
    given = vars(parser.parse_args(argv))
    gray = given["gray"]
    if gray and (given["fault"] or given["rolling"] or given["cluster"] > 1):
        parser.error("--gray goes with none of --fault, --rolling, --cluster")
    if given["planted"] is Break.BLIND and given["fault"] is None:
        parser.error("--break blind goes with --fault: without it reconciliation is off")
    given["links"] = tuple(given["links"])
    if given["links"] and (wrong := _wrong_links(given)) is not None:
        parser.error(wrong)
    given["kills"] = (12 if gray else 20) if given["kills"] is None else given["kills"]
    given["patience"] = given["patience"] or (60.0 if gray else 150.0)
    if gray and given["spread"] is None:
        from tests.chaos.gray_plan import gray_spread  # noqa: PLC0415 - it reads this module's names

        given["spread"] = gray_spread(Options(**{**given, "spread": 0.0}))
    if given["fault"] is not None:
        given["kills"] = 0
        given["spread"] = given["spread"] or max(5.0, given["events"] / 40)
    if given["spread"] is None:
        restarts = _CONTROL_PROCESSES + given["agents"] if given["rolling"] else 0
        given["spread"] = max(15.0, given["kills"] * 2.0, restarts * 4.0, given["events"] / 40)
    if given["keep"] is not None:
        given["keep"] = given["keep"].absolute()
        if given["keep"].exists() and any(given["keep"].iterdir()):
            parser.error(f"--keep {given['keep']} is not empty")
    return Options(**given)


def _wrong_links(given: dict[str, Any]) -> str | None:
    """Return what is wrong with the links that were named, None where nothing is."""
    from tests.chaos.gray_plan import link_names  # noqa: PLC0415 - it reads this module's names

    if not given["gray"]:
        return "--link goes with --gray only"
    if unknown := [link for link in given["links"] if link not in link_names()]:
        links = ", ".join(link for link in link_names() if link.count(":") == 1)
        return f"--link {unknown[0]}: expected one of {links}"
    if given["db"] == "sqlite" and any(":journal" in link for link in given["links"]):
        return "--link: SQLite is a file, not a connection; choose another --db"
    return None


def _at_least(least: int) -> "_Number":
    return _Number(least)


class _Number:
    """A whole number with a lower bound, for argparse."""

    def __init__(self, least: int) -> None:
        self._least = least

    def __call__(self, text: str) -> int:
        if not text.isascii() or not text.isdecimal() or int(text) < self._least:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number, at least {self._least}")
        return int(text)
