# SPDX-License-Identifier: Apache-2.0
"""The printed rabbitmqctl commands are the rules of etc/rabbitmq, and safe to paste into a shell."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from bridge.cmd.broker_commands import EXCHANGES, GRANTS, TOPIC_GRANTS, BrokerPart, commands, literal
from bridge.cmd.manage import main as manage
from bridge.core.errors import OperatorError
from bridge.runtime import config
from bridge.runtime.broker import AGENT_EXCHANGE, HOSTS_EXCHANGE
from tests.lab.paths import ROOT

PERMISSIONS = ROOT / "etc" / "rabbitmq" / "permissions"
TOPICS = ROOT / "etc" / "rabbitmq" / "topic_permissions"


def rows(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]


def words(*hosts: str, parts: tuple[BrokerPart, ...] = ()) -> list[list[str]]:
    printed = "\n".join(commands(parts, hosts, bridge="eb", cinder="/", intake="topic"))
    return [shlex.split(line) for line in printed.splitlines() if line and not line.startswith("#")]


def test_the_rules_are_those_of_the_files() -> None:
    assert [[g.name, g.vhost.value, g.configure, g.write, g.read] for g in GRANTS] == rows(PERMISSIONS)
    assert [[g.name, g.vhost.value, g.exchange, g.write, g.read] for g in TOPIC_GRANTS] == rows(TOPICS)


def test_a_host_gets_a_user_that_may_write_its_own_routing_key_alone() -> None:
    printed = words("cmp-1.example")
    user = "extend-bridge-hostagent-cmp-1.example"
    assert ["rabbitmqctl", "add_user", user] in printed
    (key,) = (
        line[6] for line in printed if line[1] == "set_topic_permissions" and line[5] == "extend_bridge.hosts"
    )
    assert re.fullmatch(key, "cmp-1.example")
    assert not re.fullmatch(key, "cmp-1xexample")
    assert not re.search(key, "cmp-1.example.evil")


def test_the_exchanges_of_topic_permissions_are_made_before_any_host_is_held_to_its_keys(tmp_path: Path) -> None:
    """RabbitMQ 4.3 refuses a topic permission for an exchange that does not exist."""
    printed = list(commands((), ("a", "b"), bridge="it's", cinder="/", intake="topic"))
    (line,) = (line for line in printed if "import_definitions" in line)
    assert printed.index(line) < min(n for n, each in enumerate(printed) if "set_topic_permissions" in each)
    told = tmp_path / "told"
    script = f"rabbitmqctl() {{ cp $2 {told}; }}\n{line}"
    subprocess.run(["sh", "-c", script], check=True, env={"PATH": os.defpath, "TMPDIR": str(tmp_path)})
    made = json.loads(told.read_text())["exchanges"]
    assert {each["name"]: each["durable"] for each in made} == EXCHANGES
    assert {each["vhost"] for each in made} == {"it's"}
    assert set(EXCHANGES) == {grant.exchange for grant in TOPIC_GRANTS} == {AGENT_EXCHANGE, HOSTS_EXCHANGE}
    assert list(tmp_path.iterdir()) == [told]


def test_each_part_gets_its_users_rights_at_both_virtual_hosts() -> None:
    printed = words(parts=(BrokerPart.LISTENER, BrokerPart.ENGINE))
    assert {(line[3], line[4]) for line in printed if line[1] == "set_permissions"} == {
        ("/", "extend-bridge-listener"), ("eb", "extend-bridge-listener"), ("eb", "extend-bridge-engine"),
    }  # fmt: skip


@pytest.mark.parametrize("host", ["$(reboot)", "a'b", "a;b", "a|b", "a*b"])
def test_a_strange_name_stays_one_word_and_matches_itself_alone(host: str) -> None:
    assert re.fullmatch(literal(host), host)
    assert f"extend-bridge-hostagent-{host}" in [line[2] for line in words(host)]


@pytest.mark.parametrize("host", ["", "a b", "a\nb", "x" * 256])
def test_what_cannot_be_a_hosts_name_is_refused(host: str) -> None:
    with pytest.raises(OperatorError, match="--host"):
        words(host)


def test_the_command_prints_the_control_planes_users_or_those_of_hosts(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "keep_to_ourselves", lambda: None)  # of this process, for good
    conf = tmp_path / "c.conf"
    conf.write_text("[bus]\ntransport_url = rabbit://u:p@h1:5672,u:p@h2:5672/eb%2Fx\n")
    assert manage(["--config-file", str(conf), "broker-commands"]) == 0
    printed = capsys.readouterr().out
    assert "add_user extend-bridge-engine" in printed
    assert "-p eb/x extend-bridge-engine" in printed
    assert manage(["--config-file", str(conf), "broker-commands", "--host", "a", "--host", "b"]) == 0
    users = [line.split()[2] for line in capsys.readouterr().out.splitlines() if " add_user " in line]
    assert users == ["extend-bridge-hostagent-a", "extend-bridge-hostagent-b"]
    assert manage(["--config-file", str(conf), "broker-commands", "--host", "a b"]) == 2
    assert "--host" in capsys.readouterr().err


def test_before_any_configuration_our_virtual_host_is_that_of_the_samples(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guide prints these commands before it writes a file; each was for Cinder's virtual host."""
    monkeypatch.setattr(config, "keep_to_ourselves", lambda: None)
    assert manage(["--config-file", "/dev/null", "broker-commands"]) == 0
    printed = capsys.readouterr().out
    assert "rabbitmqctl add_vhost extend_bridge" in printed
    assert "set_permissions -p extend_bridge extend-bridge-engine" in printed
    assert "set_permissions -p / extend-bridge-listener" in printed


def test_where_both_virtual_hosts_are_one_a_user_keeps_all_its_rights() -> None:
    """The second set_permissions of a user replaced the first."""
    printed = commands((BrokerPart.LISTENER,), (), bridge="/", cinder="/", intake="topic")
    (line,) = (line for text in printed for line in text.splitlines() if "set_permissions" in line)
    _, _, _, vhost, _, configure, write, read = shlex.split(line)
    assert vhost == "/"
    assert re.search(configure, "extend_bridge.due")
    assert write == "^amq\\.default$"
    assert re.search(read, "extend_bridge.info")
    assert re.search(read, "extend_bridge.slow.30s")
    assert not re.search(read, "notifications.info")
