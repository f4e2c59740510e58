# SPDX-License-Identifier: Apache-2.0
"""A process of an ordinary user that may do by sudo what etc/sudoers.d says, and nothing on the machine is changed.

It runs in a mount namespace with a /etc/sudoers.d of its own, where our file names this user and this virtualenv.
Where the interpreter or the tree lies below a directory that is closed to others (/root), the way is opened there,
too.
"""

import os
import pwd
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.lab.paths import ROOT

USER: Final = "nobody"
SUDOERS: Final = ROOT / "etc" / "sudoers.d" / "extend-bridge-hostagent"
HELPER: Final = Path(sys.executable).with_name("privsep-helper")
_EVERYBODY_MAY_PASS: Final = 0o001


def have_sudo() -> bool:
    """Whether sudo is here and we may make namespaces."""
    return os.geteuid() == 0 and all(map(shutil.which, ("sudo", "setpriv", "unshare")))


def as_ordinary_user(directory: Path) -> Sequence[str]:
    """What to put in front of a command to have it run so. `directory` is made readable to all."""
    directory.chmod(0o755)
    rules = directory / "sudoers.d"
    rules.mkdir()
    text = SUDOERS.read_text().replace("/opt/extend-bridge/bin", str(HELPER.parent))
    rule = rules / SUDOERS.name
    rule.write_text(
        text.replace("Defaults:extend-bridge", f"Defaults:{USER}").replace("\nextend-bridge ", f"\n{USER} ")
    )
    rule.chmod(0o440)
    lines = [f"mount --bind {shlex.quote(str(rules))} /etc/sudoers.d", *_ways(directory)]
    user = pwd.getpwnam(USER)
    lines.append(f'exec setpriv --reuid {user.pw_uid} --regid {user.pw_gid} --clear-groups "$@"')
    script = directory / "as_user.sh"
    script.write_text("set -e\n" + "\n".join(lines) + "\n")
    return ["unshare", "--mount", "--propagation", "private", "sh", str(script)]


def _ways(directory: Path) -> list[str]:
    """Commands that put an open directory in the place of each closed one, with what we need of it in it."""
    needed = {path for path in (Path(sys.base_prefix).resolve(), ROOT.resolve()) if _closed(path) is not None}
    kept = {path: directory / f"way-{number}" for number, path in enumerate(sorted(needed))}
    lines = [f"mkdir {at} && mount --bind {shlex.quote(str(path))} {at}" for path, at in kept.items()]
    lines += [f"mount -t tmpfs -o mode=0755 none {top}" for top in sorted({str(_closed(path)) for path in needed})]
    return lines + [
        f"mkdir -p {shlex.quote(str(path))} && mount --bind {at} {shlex.quote(str(path))}"
        for path, at in kept.items()
    ]


def _closed(path: Path) -> Path | None:
    """The topmost directory on the way that others may not pass."""
    way = [*reversed(path.parents), path]
    return next((part for part in way if not part.stat().st_mode & _EVERYBODY_MAY_PASS), None)
