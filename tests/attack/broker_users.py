# SPDX-License-Identifier: Apache-2.0
"""Broker users as an operator makes them: the lines of `extend-bridge-manage broker-commands`, taken in at once.

rabbitmqctl takes a second for each call, so the lines become one file of definitions.
"""

import base64
import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.lab.rabbitmq import RabbitNode

WORD: Final = "secret"
_SALT: Final = b"salt"


def make_users(node: RabbitNode, conf: Path, hosts: Sequence[str], *, more: Sequence[str] = ()) -> None:
    """Make every user for these hosts, and run the lines of `more` as well."""
    run = "import sys; from bridge.cmd.manage import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", run, "--config-file", str(conf), "broker-commands"]
    command += ["--cinder-vhost", "cinder", *(word for host in hosts for word in ("--host", host))]
    command += [word for part in ("listener", "engine", "operator") for word in ("--part", part)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    definitions = conf.with_name("definitions.json")
    told = _definitions([*printed.splitlines(), *more])
    first = {"vhosts": told["vhosts"], "exchanges": told.pop("exchanges")}
    for part in (first, told):  # RabbitMQ 4.3 takes topic permissions only for exchanges that exist
        definitions.write_text(json.dumps(part))
        node.ctl("import_definitions", str(definitions))


def _definitions(lines: Sequence[str]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "vhosts": [], "users": [], "permissions": [], "topic_permissions": [], "exchanges": [],
    }  # fmt: skip
    hashed = base64.b64encode(_SALT + hashlib.sha256(_SALT + WORD.encode()).digest()).decode()
    for line in lines:
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if "import_definitions" in words:
            told["exchanges"] += json.loads(words[words.index("%s") + 1])["exchanges"]
            continue
        assert words[0] == "rabbitmqctl", line
        match words[1:]:
            case ["add_vhost", name]:
                told["vhosts"].append({"name": name})
            case ["add_user", name]:
                told["users"].append(
                    {
                        "name": name, "password_hash": hashed, "tags": "",
                        "hashing_algorithm": "rabbit_password_hashing_sha256",
                    }
                )  # fmt: skip
            case ["set_permissions", "-p", vhost, user, configure, write, read]:
                rights = {"configure": configure, "write": write, "read": read}
                told["permissions"].append({"vhost": vhost, "user": user, **rights})
            case ["set_topic_permissions", "-p", vhost, user, exchange, write, read]:
                topic = {"exchange": exchange, "write": write, "read": read}
                told["topic_permissions"].append({"vhost": vhost, "user": user, **topic})
            case _:
                raise AssertionError(f"broker-commands printed {line!r}")
    known = {vhost["name"] for vhost in told["vhosts"]}
    used = {permission["vhost"] for permission in told["permissions"]}
    told["vhosts"] += [{"name": name} for name in sorted(used - known)]
    told["permissions"] += [
        {"vhost": vhost, "user": "guest", "configure": ".*", "write": ".*", "read": ".*"}
        for vhost in sorted(known | used)
    ]
    return told
