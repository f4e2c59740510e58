# SPDX-License-Identifier: Apache-2.0
"""Volumes that the host decrypts, over iSCSI, NVMe/TCP and multipath; keys come from tests/lab/key_manager.py."""

import os
from functools import partial
from typing import Any

from tests.lab.storage_vm.inside.agent import Agent
from tests.lab.storage_vm.inside.commands import sh
from tests.lab.storage_vm.inside.compute import Compute
from tests.lab.storage_vm.inside.locked import Locked
from tests.lab.storage_vm.inside.matrix import START, Bench
from tests.lab.storage_vm.inside.nvmet import NvmeTarget
from tests.lab.storage_vm.inside.results import Results
from tests.lab.storage_vm.inside.targets import IscsiTarget


def run(results: Results, compute: Compute, agent: Agent, *, long: bool) -> None:
    """Every case over one path. The short form leaves out guests that do not run, and NVMe."""
    sh("modprobe", "-a", "dm_crypt", "xts", check=False)
    target = IscsiTarget("crypt", ("127.0.0.1",))
    luks2 = Locked(target.add("luks2", START))
    bench = Bench(compute, agent, luks2.volume, luks2.attach)

    def without_opt_in() -> dict[str, Any]:
        return held(bench, luks2, [(luks2.connection, {"keys": False}), (None, {"keys": False})])

    def without_its_key_id() -> dict[str, Any]:
        return held(bench, luks2, [(luks2.connection, {}), (None, {})], grow=False)

    def keys_that_fail() -> dict[str, Any]:
        luks2.give_key(os.urandom(32))
        orders: Orders = [(luks2.connection, {"encryption": luks2.encryption})]
        wrong = held(bench, luks2, orders, grow=False)
        luks2.give_key(None)
        away = held(bench, luks2, orders, grow=False)
        luks2.give_key(luks2.key)
        healed = bench.extend("running", luks2.connection, encryption=luks2.encryption)
        return {"wrong": wrong, "away": away, "healed": healed}

    results.run("crypt_without_opt_in", without_opt_in)
    results.run("crypt_without_its_key_id", without_its_key_id)
    results.run("crypt_keys_that_fail", keys_that_fail)
    for state, connection in (("paused", None), ("off", luks2.connection)) if long else ():
        results.run(f"crypt_{state}", partial(bench.extend, state, connection, encryption=luks2.encryption))

    def again() -> dict[str, Any]:
        reports = [bench.order(luks2.connection, encryption=luks2.encryption), bench.order(None, keys=False)]
        return {"reports": reports, "wanted": bench.size}

    results.run("crypt_again", again)

    luks1 = Locked(target.add("luks1", START), kind="luks1")
    old = Bench(compute, agent, luks1.volume, luks1.attach)

    def without_the_right_key() -> dict[str, Any]:
        assert old.guest
        luks1.give_key(os.urandom(32))
        return old.extend("running", luks1.connection, encryption=luks1.encryption)

    results.run("crypt_luks1", without_the_right_key)

    plain = Locked(target.add("plain", START), kind="plain")
    none = Bench(compute, agent, plain.volume, plain.attach)
    results.run("crypt_plain", lambda: held(none, plain, [(plain.connection, {"encryption": plain.encryption})]))

    if not long:
        return
    sh("modprobe", "-a", "nvmet", "nvmet_tcp", "nvme_tcp")
    nvme = Locked(NvmeTarget("crypt").add(30, START))
    over_nvme = Bench(compute, agent, nvme.volume, nvme.attach)
    results.run("crypt_nvme", lambda: over_nvme.extend("running", nvme.connection, encryption=nvme.encryption))


def run_multipath(results: Results, compute: Compute, agent: Agent) -> None:
    """Over two portals; multipathd runs."""
    volume = Locked(IscsiTarget("cryptmp", ("127.0.0.1", "127.0.0.2")).add("mp", START), multipath=True)
    bench = Bench(compute, agent, volume.volume, volume.attach)
    for way, connection in (("connection", volume.connection), ("local", None)):
        results.run(
            f"crypt_multipath_{way}", partial(bench.extend, "running", connection, encryption=volume.encryption)
        )


Orders = list[tuple[dict[str, Any] | None, dict[str, Any]]]
"""Connection data, and what else Bench.order takes."""


def held(bench: Bench, locked: Locked, orders: Orders, *, grow: bool = True) -> dict[str, Any]:
    """Orders that are to change nothing; what map and guest show before and after."""
    guest = bench.guest
    before = locked.size()
    assert guest.prints(before) == before
    if grow:
        bench.grow()
    reports = [bench.order(connection, **more) for connection, more in orders]
    return {"reports": reports, "before": before, "map": locked.size(), "guest": guest.prints(before)}
