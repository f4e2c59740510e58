# SPDX-License-Identifier: Apache-2.0
"""What an operator of a first installation runs: samples, `db sync`, the validator; and fixed ports."""

import configparser
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.api.settings import API_GROUPS, api_settings
from bridge.cmd.manage import main
from bridge.cmd.sample import NAMESPACES, PARTS, Deployment, sample
from bridge.cmd.upgrade_check import main as status
from bridge.engine.settings import engine_groups, engine_settings
from bridge.journal import migrate
from bridge.runtime import config, process
from bridge.runtime.health import Health
from bridge.runtime.metrics import new_registry
from bridge.runtime.ops import OpsServer
from hostagent.settings import hostagent_groups, hostagent_settings
from listener.settings import listener_groups, listener_settings
from tests.conftest import missing

_GROUPS = dict([*engine_groups(), *listener_groups(), *API_GROUPS, *hostagent_groups(), ("all_in_one", [])])
_READERS = {
    "listener": listener_settings, "api": api_settings, "engine": engine_settings, "hostagent": hostagent_settings,
}  # fmt: skip
_SAMPLES = [(part, way) for way in Deployment for part in PARTS if (way, part) not in {
    (Deployment.STAND_ALONE, "all-in-one"), (Deployment.BESIDE_NOVA, "api"), (Deployment.BESIDE_NOVA, "all-in-one"),
    (Deployment.ALL_IN_ONE, "listener"), (Deployment.ALL_IN_ONE, "api"), (Deployment.ALL_IN_ONE, "engine"),
    (Deployment.ALL_IN_ONE, "hostagent"),
}]  # fmt: skip


@pytest.mark.parametrize(("part", "way"), _SAMPLES)
def test_a_sample_holds_options_that_exist_and_that_its_part_can_read(
    tmp_path: Path, part: str, way: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sample", "--part", part, "--deployment", way.value]) == 0
    text = capsys.readouterr().out
    assert text == sample(part, way)
    path = tmp_path / "sample.conf"
    path.write_text(text)
    conf = config.load("extend-bridge", list(_GROUPS.items()), ["--config-file", str(path)], description="")
    for name in _READERS if part == "all-in-one" else [part]:
        config.read(conf, _READERS[name])
    read = configparser.RawConfigParser()
    read.read_string(text)
    auth = {"auth_url", "username", "password", "project_name", "user_domain_name", "project_domain_name"}
    for section in read.sections():
        for option in set(read[section]) - auth:
            assert option in conf[section], f"[{section}] {option}"
    assert "notifications,extend_bridge" not in text


def test_a_sample_names_the_broker_user_that_the_broker_commands_make(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["broker-commands", "--host", "compute-1", "--part", "listener", "--part", "engine"]) == 0
    made = set(re.findall(r"^rabbitmqctl add_user (\S+)", capsys.readouterr().out, re.MULTILINE))
    for part, user in (("listener", "listener"), ("engine", "engine"), ("hostagent", "hostagent-compute-1")):
        assert f"extend-bridge-{user}" in made
        assert f"rabbit://extend-bridge-{user}:" in sample(part, Deployment.STAND_ALONE)


def test_a_part_that_a_deployment_does_not_have_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "--part", "api", "--deployment", "beside-nova"]) == 2
    assert "its parts are listener, engine, hostagent" in capsys.readouterr().err
    assert main(["sample"]) == 2
    assert "--every-option" in capsys.readouterr().err


def test_every_option_is_printed_without_a_warning() -> None:
    """oslo-config-generator itself may import eventlet, with a warning of seven lines."""
    made = subprocess.run(
        [sys.executable, "-c", "from bridge.cmd.manage import main; main(['sample', '--every-option'])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert made.stderr == ""
    assert "[hostagent]" in made.stdout
    generator = Path("etc/extend-bridge/config-generator.conf").read_text()
    assert [line.split(" = ")[1] for line in generator.splitlines() if line.startswith("namespace")] == [
        *NAMESPACES
    ]


def test_db_sync_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = tmp_path / "bridge.conf"
    conf.write_text(f"[journal]\nconnection = sqlite:///{tmp_path / 'journal'}\n")
    said = []
    for action in ("version", "sync", "sync", "version"):
        assert main(["--config-file", str(conf), "db", action]) == 0
        said.append(capsys.readouterr().out.strip())
    newest = migrate.head()
    assert said == [
        f"the journal has no tables yet; this release needs version {newest}: run db sync",
        f"the journal's tables were brought from nothing to version {newest} (sqlite:///{tmp_path}/journal)",
        f"the journal's tables are at version {newest} already: nothing was changed",
        f"the journal's tables are at version {newest}; this release needs version {newest}",
    ]


def test_root_makes_no_journal_that_the_daemons_cannot_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the directory of the daemons' user, which an operator finds out only at their start."""
    if os.geteuid() != 0:
        missing("root")
    os.chown(tmp_path, 64646, 64646)
    conf = tmp_path / "bridge.conf"
    conf.write_text(f"[journal]\nconnection = sqlite:///{tmp_path / 'journal'}\n")
    assert main(["--config-file", str(conf), "db", "sync"]) == 2
    assert "sudo -u #64646 extend-bridge-manage db sync" in capsys.readouterr().err
    assert not (tmp_path / "journal").exists()
    monkeypatch.setattr("os.geteuid", lambda: 64646)
    assert main(["--config-file", str(conf), "db", "sync"]) == 0


def test_the_policy_of_a_configuration_is_validated(tmp_path: Path) -> None:
    """As authentication.rst says, wherever the file is."""
    policy, conf = tmp_path / "policy.yaml", tmp_path / "bridge.conf"
    conf.write_text(f"[oslo_policy]\npolicy_file = {policy}\n")
    words = [str(Path(sys.executable).with_name("oslopolicy-validator")), "--namespace", "extend-bridge"]
    for text, code in (("service_api: role:service", 0), ("service_apy: role:service", 1)):
        policy.write_text(f"{text}\n")
        made = subprocess.run([*words, "--config-file", str(conf)], capture_output=True, text=True, check=False)
        assert made.returncode == code, made.stderr


def test_the_ops_port_is_always_the_same_and_a_second_copy_takes_a_free_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    conf = config.load("x", [("listener", config.OPS_OPTS)], [], description="")
    settings = config.ops_settings(conf, "listener")
    assert (settings.port, settings.or_any) == (9786, True)
    first = OpsServer(config.OpsSettings(host="127.0.0.1", port=0), Health(), new_registry("one"))
    first.start()
    try:
        again = OpsServer(
            config.OpsSettings(host="127.0.0.1", port=first.port, or_any=True), Health(), new_registry("two")
        )
        assert again.port != first.port
        assert "ops_port is not set" in caplog.text
        again.start()
        again.stop()
    finally:
        first.stop()
    assert len(set(config.OPS_PORTS.values())) == len(config.OPS_PORTS)


def test_an_audit_file_that_a_part_does_not_write_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a hypervisor [audit] file did nothing, silently."""
    before = logging.getLogRecordFactory()
    conf = tmp_path / "bridge.conf"
    conf.write_text(f"[audit]\nfile = {tmp_path / 'audit.log'}\n[part]\nops_port = 0\n")
    try:
        process.daemon(
            "part", [("part", config.OPS_OPTS)], lambda _: None, lambda _, __: [], description="",
            argv=["--config-file", str(conf)],
        )  # fmt: skip
    finally:
        logging.setLogRecordFactory(before)
    assert "[audit] has no effect on a host agent" in "".join(capsys.readouterr())


def test_a_check_without_part_warns_of_what_this_node_may_not_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The listener alone beside Nova needs neither a journal nor Cinder."""
    monkeypatch.setattr("bridge.cmd.upgrade_check.missing_file", lambda _: "/nowhere/journal")
    conf = tmp_path / "bridge.conf"
    conf.write_text("[bus]\ntransport_url = memory://\n")
    status(["--config-file", str(conf), "upgrade", "check"])
    said = " ".join(capsys.readouterr().out.replace("|", " ").split())
    assert "[journal] is not configured" in said
    assert "[cinder] is not configured" in said
