# SPDX-License-Identifier: Apache-2.0
"""A run with --gray: nothing is killed, everything is half alive in turn."""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.chaos.blind import BlindWatch
from tests.chaos.gray_faults import blocked, full, locked, read_only
from tests.chaos.gray_plan import DEAD, Gray, GrayFault, Service, gray_plan
from tests.chaos.known_caller import KnownCaller
from tests.chaos.ledger import DiskId
from tests.chaos.links import Links
from tests.chaos.options import Options
from tests.chaos.plan import processes
from tests.chaos.progress import Bar
from tests.chaos.run import Run
from tests.chaos.verdict import Seen, Summary, Verdict
from tests.lab.proxy import Proxy, Which

LOG = logging.getLogger("chaos")

_LOOK_EVERY: Final = 0.25
_SHOWN: Final = 12
_DRIP: Final = 3.0  # bytes a second
_DELAY: Final = 1.5  # seconds for each piece
_AFTER_OTHERS: Final = 20.0  # seconds from the end of another fault until a known caller is judged
_USED_WITHIN: Final = 30.0  # seconds from the end of a fault until its link must have had traffic


class GrayRun(Run):
    """The parts of such a run, started."""

    def __init__(self, options: Options, directory: Path, stack: ExitStack) -> None:
        self._links = Links(stack)
        super().__init__(options, directory, stack, links=self._links)
        self._faults_of_seed = gray_plan(options)
        self._in_force: dict[int, GrayFault] = {}
        self._done: list[GrayFault] = []
        self._not_done: list[str] = []
        self._names = processes(options.agents)
        self._cut: dict[tuple[str, Service], float] = {}
        self._unused: list[str] = []
        self._others_ended = -_AFTER_OTHERS
        self._watch = BlindWatch(
            {name: daemon.ops_port for name, daemon in self._daemons.items()}, self._behind_now, self._faults_now,
            self._cut_now,
        )  # fmt: skip
        stack.callback(self._watch.close)
        self._caller = KnownCaller(self._site.api_urls, self._only_keystone)
        stack.callback(self._caller.close)

    @property
    def clean(self) -> bool:
        """Whether no second was blind, nothing ended by itself, and every fault was done, on a link in use."""
        return not (
            self._watch.blind
            or self._faults.by_itself
            or self._not_done
            or self._unused
            or self._caller.refused
        )  # fmt: skip

    def go(self, bar: Bar) -> tuple[Verdict, Summary, Seen]:
        """Play load and faults to the end, then wait for the disks."""
        self._caller.start()
        self._watch.start()
        verdict, summary, seen = super().go(bar)
        self._watch.close()
        self._caller.close()
        restarts = self._faults.by_itself.total()
        return verdict, replace(summary, blind=round(self._watch.seconds, 1), restarts=restarts), seen

    def about(self) -> Sequence[str]:
        """Return what was done, in lines for a person."""
        blind = [str(second) for second in self._watch.blind[:_SHOWN]]
        faults = ", ".join(sorted({fault.fault.value for fault in self._done})) or "none"
        return [
            *super().about(),
            f"gray faults: {len(self._done)} ({faults})",
            f"the longest time without a move was {self._watch.longest:.0f} s",
            *(f"said by {name}: {reason[:300]}" for name, reason in sorted(self._watch.reasons.items())),
            *blind,
            *(f"FAULT NOT DONE {why}" for why in self._not_done),
            *(f"LINK WITHOUT TRAFFIC {why}" for why in self._unused),
            f"known caller: {self._caller.asked} requests while only Keystone was in trouble",
            *(f"KNOWN CALLER NOT SERVED {why}" for why in self._caller.refused[:_SHOWN]),
        ]

    def _play(self, bar: Bar) -> None:
        stop = threading.Event()
        threads = [
            threading.Thread(target=self._cinder.play, args=(stop,), name="load", daemon=True),
            threading.Thread(target=self._carry_out, args=(stop,), name="gray-faults", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                bar.show(self._cinder.told.growths, len(self._done))
                time.sleep(_LOOK_EVERY)
        finally:
            stop.set()

    def _carry_out(self, stop: threading.Event) -> None:
        began, under_way = time.monotonic(), list[threading.Thread]()
        for number, fault in enumerate(self._faults_of_seed):
            if stop.wait(max(0.0, began + fault.at - time.monotonic())):
                break
            thread = threading.Thread(target=self._one, args=(number, fault, stop), name=str(fault), daemon=True)
            thread.start()
            under_way.append(thread)
        for thread in under_way:
            thread.join()

    def _one(self, number: int, fault: GrayFault, stop: threading.Event) -> None:
        LOG.info("%s", fault)
        self._in_force[number] = fault
        try:
            with self._fault(fault):
                stop.wait(fault.seconds)
            self._done.append(fault)
        except Exception as ex:
            LOG.exception("%s", fault)
            self._not_done.append(f"{fault}: {ex}")
        finally:
            self._in_force.pop(number, None)
            if fault.service is not Service.KEYSTONE:
                self._others_ended = time.monotonic()
            LOG.info("end of %s", fault)

    @contextmanager
    def _fault(self, fault: GrayFault) -> Iterator[None]:
        if fault.service is None:
            with self._of_a_server(fault.fault):
                yield
            return
        names = [name for name in self._names if name.rpartition("-")[0] == fault.kind]
        if fault.copies:
            names = [name for name in names if int(name.rpartition("-")[2]) in fault.copies]
        proxies = list(self._links.of(fault.service, names))
        before, links = _traffic(proxies), [(name, fault.service) for name in names]
        self._mend(links)
        for proxy in proxies:
            _begin(fault.fault, proxy)
        if fault.fault in DEAD:
            self._cut |= dict.fromkeys(links, time.monotonic())
        try:
            yield
        finally:
            self._mend(links)
            for proxy in proxies:
                _end(fault, proxy)
        if not _moves(proxies, before):
            self._unused.append(str(fault).strip())

    @contextmanager
    def _of_a_server(self, fault: Gray) -> Iterator[None]:
        with ExitStack() as stack:
            match fault:
                case Gray.BLOCKED:
                    for node in self._nodes:
                        stack.enter_context(blocked(node.ctl))
                case Gray.READ_ONLY:
                    stack.enter_context(read_only(self._admin))
                case Gray.LOCKED:
                    stack.enter_context(locked(self._admin))
                case Gray.FULL:
                    stack.enter_context(full(self._journal_disk))
                case _:
                    raise ValueError(fault)
            yield

    def _behind_now(self) -> Mapping[DiskId, int]:
        """Return the disks that are smaller than what was told of them, with their size."""
        disks = self._observer.disks()
        told = self._cinder.told.sizes.copy()
        return {disk: disks[disk].size for disk, size in told.items() if disks[disk].size < size}

    def _cut_now(self) -> Mapping[str, float]:
        """Return the processes behind a link on which nothing gets through, and since when."""
        cut: dict[str, float] = {}
        for (name, _), since in self._cut.copy().items():
            cut[name] = min(since, cut.get(name, since))
        return cut

    def _mend(self, links: Sequence[tuple[str, Service]]) -> None:
        """Judge these links no longer: a fault that begins or ends there replaces an earlier one."""
        for link in links:
            self._cut.pop(link, None)

    def _only_keystone(self) -> bool:
        """Return whether links to Keystone have faults now, and nothing else has."""
        services = {fault.service for fault in self._in_force.copy().values()}
        return services == {Service.KEYSTONE} and time.monotonic() - self._others_ended > _AFTER_OTHERS

    def _faults_now(self) -> tuple[str, ...]:
        return tuple(str(fault).strip() for fault in self._in_force.copy().values())


def _begin(fault: Gray, proxy: Proxy) -> None:
    match fault:
        case Gray.FREEZE_OLD:
            proxy.freeze(Which.OLD)
        case Gray.FREEZE:
            proxy.freeze(Which.ALL)
        case Gray.LOSE:
            proxy.lose(Which.ALL)
        case Gray.DRIP:
            proxy.drip(_DRIP, Which.ALL)
        case Gray.DELAY:
            proxy.delay(_DELAY, Which.ALL)
        case Gray.RESET:
            proxy.reset()
        case Gray.REFUSE:
            proxy.refuse()
            proxy.reset()
        case _:
            raise ValueError(fault)


def _end(fault: GrayFault, proxy: Proxy) -> None:
    """End a fault. Connections that were frozen or lost bytes stay as they are: only new ones work again.

    A libvirtd goes on with its clients, or ends and with it their connections: its socket leads over no network.
    """
    if fault.service is Service.LIBVIRT:
        proxy.heal()
        if fault.fault is Gray.LOSE:
            proxy.reset()
        return
    proxy.heal(Which.ALL if fault.fault in {Gray.DRIP, Gray.DELAY} else Which.NEW)


def _traffic(proxies: Sequence[Proxy]) -> list[tuple[int, int, int]]:
    """Return the connections made and refused, and the bytes moved, of each proxy."""
    return [
        (proxy.accepted, proxy.refused, sum(moved for link in list(proxy.links) for moved in link.moved.values()))
        for proxy in proxies
    ]


def _moves(proxies: Sequence[Proxy], before: Sequence[tuple[int, int, int]]) -> bool:
    """Wait for traffic on each proxy since then; return whether it came."""
    end = time.monotonic() + _USED_WITHIN
    while any(now == then for now, then in zip(_traffic(proxies), before, strict=True)):
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_EVERY)
    return True
