# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus with the scrape configuration and the rules of etc/, before running daemons."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from bridge.standin.cinder import StandInCinder
from tests.conftest import missing
from tests.functional.conftest import Vhost
from tests.lab.deploy import MODULES, Processes, Site, run_processes
from tests.lab.paths import ROOT
from tests.lab.ports import steady_port
from tests.lab.waiting import until

pytestmark = pytest.mark.functional

EXAMPLES = ROOT / "etc" / "prometheus"
RULES = EXAMPLES / "extend-bridge.rules.yml"
JOBS = {f"extend-bridge-{part}" for part in MODULES}


@pytest.fixture
def daemons(vhost: Vhost, tmp_path: Path) -> Iterator[Processes]:
    """The four daemons, ready; libvirt is its own test driver."""
    cinder = StandInCinder().server()
    with ExitStack() as stack:
        cinder.start()
        stack.callback(lambda: (cinder.stop(), cinder.join(120)))
        site = Site(directory=tmp_path, bus_url=vhost.url, cinder_url=f"{cinder.url}/v3")
        bridge = run_processes(site, stack)
        assert bridge.processes is not None
        yield bridge.processes


@pytest.fixture
def prometheus(daemons: Processes, tmp_path: Path) -> Iterator[str]:
    """A Prometheus with our files, its targets those of the daemons; its URL."""
    if shutil.which("prometheus") is None:
        missing("prometheus")
    conf: dict[str, Any] = yaml.safe_load((EXAMPLES / "prometheus.yml").read_text())
    conf["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in conf["scrape_configs"]:
        part = job["job_name"].removeprefix("extend-bridge-")
        job["static_configs"] = [{"targets": [f"127.0.0.1:{daemons.site.ports[part]}"]}]
    directory = tmp_path / "prometheus"
    directory.mkdir()
    (directory / "prometheus.yml").write_text(yaml.safe_dump(conf))
    shutil.copy(RULES, directory)
    port = steady_port()
    arguments = [
        f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=exemplar-storage",
    ]  # fmt: skip
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(["prometheus", *arguments], stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}/api/v1"
    finally:
        process.terminate()
        process.wait()


def ask(url: str, query: str) -> dict[str, float]:
    """Return the answer to a query: job to value."""
    try:
        answer = requests.get(f"{url}/query", params={"query": query}, timeout=60).json()
    except requests.RequestException:
        return {}
    return {row["metric"].get("job", ""): float(row["value"][1]) for row in answer["data"]["result"]}


def alerts(url: str) -> dict[str, str]:
    """Return the alerts that fire or wait to: name to state."""
    rows = requests.get(f"{url}/alerts", timeout=60).json()["data"]["alerts"]
    return {row["labels"]["alertname"]: row["state"] for row in rows}


def test_every_daemon_is_scraped_every_rule_finds_its_metrics_and_a_dead_daemon_is_noticed(
    daemons: Processes, prometheus: str
) -> None:
    until(lambda: ask(prometheus, "up") == dict.fromkeys(JOBS, 1.0), "every target is up")
    groups = requests.get(f"{prometheus}/rules", timeout=60).json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == RULES.read_text().count("- alert:")
    names = {name for rule in rules for name in re.findall(r"extend_bridge_\w+", rule["query"])}
    exposed = "".join(daemons.shown(part, "metrics").decode() for part in MODULES)
    labelled = set(re.findall(r"^# TYPE (\S+)", exposed, re.MULTILINE))
    assert {name for name in names if name not in labelled and not ask(prometheus, name)} == set()
    until(
        lambda: all(r["health"] == "ok" for g in _groups(prometheus) for r in g["rules"]), "each rule was evaluated"
    )
    daemons.kill("api")
    until(lambda: alerts(prometheus).get("ExtendBridgeDown") == "pending", "the alert waits for its five minutes")


def _groups(url: str) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = requests.get(f"{url}/rules", timeout=60).json()["data"]["groups"]
    return groups
