# SPDX-License-Identifier: Apache-2.0
"""What lies in etc/: it names only what exists, and every alert has its entry in the documentation."""

import configparser
import json
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from bridge.core.reasons import Reason
from bridge.runtime import metrics
from bridge.runtime.config import EXIT_UNREACHABLE, EXIT_USAGE
from bridge.runtime.health import Health
from tests.lab.paths import ROOT

ETC = ROOT / "etc"
RULES = ETC / "prometheus" / "extend-bridge.rules.yml"
DASHBOARD = ETC / "grafana" / "extend-bridge.json"
UNITS = sorted((ETC / "systemd").glob("*.service"))
NAME = re.compile(r"\bextend_bridge_\w+")


def exposed() -> set[str]:
    """Every sample name a daemon can show."""
    registry = metrics.new_registry("test")
    for register in metrics.EVERY:
        register(registry)
    registry.register(metrics.ReadyCollector(Health()))
    found: set[str] = set()
    for family in registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "info": ("_info",)}
        found |= {f"{family.name}{suffix}" for suffix in suffixes.get(family.type, ("",))}
    return found


def test_readiness_is_a_gauge_by_check() -> None:
    """What an alert needs to say what a daemon waits for."""
    registry, health = CollectorRegistry(), Health()
    registry.register(metrics.ReadyCollector(health))
    health.ok("a")
    health.bad("b", "gone")
    assert registry.get_sample_value("extend_bridge_ready", {"check": "a"}) == 1
    assert registry.get_sample_value("extend_bridge_ready", {"check": "b"}) == 0


@pytest.mark.parametrize("path", [RULES, DASHBOARD], ids=lambda path: path.name)
def test_rules_and_dashboard_use_only_metrics_that_exist(path: Path) -> None:
    """A renamed metric is found here, not at night."""
    used = set(NAME.findall(path.read_text()))
    assert used
    assert used <= exposed()


def test_every_metric_is_on_the_dashboard() -> None:
    """Histograms by their buckets."""
    shown = set(NAME.findall(DASHBOARD.read_text()))
    wanted = {name for name in exposed() if not name.endswith(("_sum", "_count"))}
    unused = {"extend_bridge_listener_due_total", "extend_bridge_engine_duplicate_hosts_total"}
    unused |= {"extend_bridge_engine_overdue_total", "extend_bridge_hostagent_orders_total"}
    assert wanted - shown <= unused


def test_every_alert_has_its_entry_in_the_documentation() -> None:
    """Under its own name, for whoever is woken by it."""
    alerts = [rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    page = (ROOT / "doc" / "source" / "what-to-do-when.rst").read_text()
    headings = {
        line for line, under in zip(page.splitlines(), page.splitlines()[1:], strict=False) if set(under) == {"-"}
    }
    assert set(alerts) <= headings


def test_the_dashboard_is_json_with_a_panel_for_each_thing() -> None:
    """No two of them in one place."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places) > 10


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_each_unit_starts_a_command_that_is_installed(unit: Path) -> None:
    """With the configuration file every page speaks of."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign,assignment]
    parser.read(unit)
    command, *arguments = parser["Service"]["ExecStart"].split()
    scripts = (ROOT / "pyproject.toml").read_text()
    assert f'\n{command.rpartition("/")[2]} = "' in scripts
    assert arguments == ["--config-file", "/etc/extend-bridge/extend-bridge.conf"]
    assert parser["Service"]["Type"] == "notify"


@pytest.mark.parametrize("reason", Reason, ids=str)
def test_every_reason_code_says_in_the_documentation_what_to_do(reason: Reason) -> None:
    """With the line the code has, so that neither drifts."""
    page = " ".join((ROOT / "doc" / "source" / "reason-codes.rst").read_text().split())
    text = " ".join(reason.text.split())
    assert f"``{reason.value}`` {text[0].upper()}{text[1:]}. *Do:* " in page


def test_no_reason_code_has_two_entries_in_the_documentation() -> None:
    """An operator finds one answer, and none for a code that no part of the bridge gives."""
    page = (ROOT / "doc" / "source" / "reason-codes.rst").read_text()
    assert sorted(re.findall(r"^``(\w+)``$", page, re.MULTILINE)) == sorted(Reason)


@pytest.mark.parametrize("part", ["audit", "event", "host", "parked", "record", "replay", "status"])
def test_every_command_is_registered_by_the_part_that_owns_it(part: str) -> None:
    """The listener's under listener, the journal's under bridge."""
    owned = {"record": "listener", "replay": "listener", "parked": "listener"}
    points = [p for p in entry_points(group="extend_bridge.cli") if p.name.partition("_")[0] == part]
    assert points
    assert all(p.value.startswith(owned.get(part, "bridge")) for p in points)


def test_every_option_has_a_help_text_and_is_on_the_page_of_the_configuration() -> None:
    """The page is made from the namespaces of the sample; none of ours may be missing there, no option mute."""
    sample = (ETC / "extend-bridge" / "config-generator.conf").read_text()
    named = set(re.findall(r"namespace = (extend-bridge\.\w+)", sample))
    ours = [point for point in entry_points(group="oslo.config.opts") if point.name.startswith("extend-bridge.")]
    assert named == {point.name for point in ours}
    every = [(group, opt) for point in ours for group, opts in point.load()() for opt in opts]
    mute = [f"[{group}] {opt.name}" for group, opt in every if not opt.help]
    assert mute == []
    assert ".. show-options::" in page("configuration")


def test_every_metric_has_a_line_on_its_page() -> None:
    """The page is made from the registry a daemon makes; nothing there is without a text."""
    assert ".. metrics::" in page("metrics")
    registry = metrics.new_registry("test")
    kinds = [
        kind for kind in vars(metrics).values() if isinstance(kind, type) and kind.__name__.endswith("Metrics")
    ]
    for register in metrics.EVERY:
        register(registry)
    assert [family.name for family in registry.collect() if len(family.documentation) < 10] == []
    assert [kind.__name__ for kind in kinds if kind not in metrics.EVERY] == []


def test_every_exit_code_is_on_the_page_of_the_command() -> None:
    """The numbers the code knows, and only they."""
    table = re.findall(r"^(\d)    \w", page("cli"), re.MULTILINE)
    assert [int(code) for code in table] == [0, 1, EXIT_USAGE, EXIT_UNREACHABLE]
    used = {
        int(code) for part in ("bridge", "listener", "hostagent") for path in (ROOT / part).rglob("*.py")
        for code in re.findall(r"\bcode=(\d)\b", path.read_text())
    }  # fmt: skip
    assert used <= set(map(int, table))


def page(name: str) -> str:
    """A page of the documentation."""
    return (ROOT / "doc" / "source" / f"{name}.rst").read_text()
