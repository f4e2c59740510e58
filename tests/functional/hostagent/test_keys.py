# SPDX-License-Identifier: Apache-2.0
"""From an order's key id to cryptsetup's standard input: the real os-brick process, with os-brick and castellan.

cryptsetup is a script here, which notes what it was given; the real one is in tests/storage.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.core.encryption import Encryption
from bridge.core.outcome import Outcome
from bridge.core.reasons import Reason
from hostagent.brick.pool import CHILD, BrickPool
from hostagent.errors import StepFailedError
from hostagent.settings import BrickSettings, KeyManagerSettings
from tests.conftest import missing
from tests.lab.barbican import Barbican
from tests.lab.brick import start_process
from tests.lab.key_manager import BACKEND
from tests.lab.keystone_standin import KeystoneStandIn
from tests.lab.ordinary_user import as_ordinary_user, have_sudo
from tests.lab.paths import ROOT

pytestmark = [
    pytest.mark.functional,
    pytest.mark.skipif(os.geteuid() != 0, reason="as root commands run in the process itself, without sudo"),
]

CANARY = bytes.fromhex("ca7a47c0ffee" * 4)
KEY_ID = "00000000-0000-4000-8000-0000000000aa"
ENCRYPTION = Encryption(key_id=KEY_ID, provider="luks2", control_location="front-end")
NAME = "crypt-os-brick+dev+disk"


@dataclass
class Bench:
    """A pool whose processes find the script, and what the script noted."""

    pool: BrickPool
    directory: Path

    def grow(self, encryption: Encryption = ENCRYPTION) -> None:
        self.pool.grow_map(NAME, encryption)

    def stopped(self, encryption: Encryption = ENCRYPTION) -> StepFailedError:
        with pytest.raises(StepFailedError) as caught:
            self.grow(encryption)
        return caught.value

    def noted(self, what: str) -> str | None:
        file = self.directory / what
        return file.read_text() if file.exists() else None

    def exits(self, code: int, says: str) -> None:
        _script(self.directory / "cryptsetup", f"cat > /dev/null; echo '{says}' >&2; exit {code}")


def _script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def bench(
    directory: Path, key_manager: str, monkeypatch: pytest.MonkeyPatch, *, prefix: Sequence[str] = ()
) -> Bench:
    """Reads castellan's options from a file as the agent's is. `prefix`: what starts the os-brick process."""
    scripts = directory / "bin"
    scripts.mkdir()
    _script(scripts / "cryptsetup", f'echo "$@" > {scripts}/args; cat > {scripts}/stdin')
    _script(scripts / "blockdev", "echo 4096")
    monkeypatch.setenv("PATH", f"{scripts}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    file = directory / "bridge.conf"
    file.write_text(f"[hostagent]\nhost = h\n{key_manager}")
    settings = BrickSettings(
        processes=1, limit=60, lock_limit=10, lock_path=str(directory), use_multipath=False, root_helper="sudo -n",
        key_manager=KeyManagerSettings(config_files=(str(file),), config_dirs=()),
    )  # fmt: skip
    return Bench(pool=BrickPool(settings, command=[*prefix, *CHILD]), directory=scripts)


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """Keys from a file."""
    made = bench(tmp_path, f"[key_manager]\nbackend = {BACKEND}\nfile = {tmp_path / 'keys'}\n", monkeypatch)
    (tmp_path / "keys").write_text(json.dumps({KEY_ID: CANARY.hex()}))
    yield made
    made.pool.close()


def test_the_key_comes_to_cryptsetup_and_its_process_ends_with_the_call(local: Bench) -> None:
    """As the passphrase os-brick makes of it, for the map of that name; and nobody keeps a process that had it."""
    start_process(local.pool)
    before = local.pool.pids()
    local.grow()
    assert local.noted("args") == f"resize /dev/mapper/{NAME}\n"
    assert local.noted("stdin") == CANARY.hex()
    assert local.pool.pids() == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in before)
    local.grow()


def test_the_key_is_in_nothing_that_is_said(local: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither in the lines of the process nor in its answer, whatever goes wrong with the key in hand."""
    local.grow()
    said = [str(local.noted("args"))]
    for code, says in ((2, "No key available with this passphrase."), (1, "Device is busy"), (5, "")):
        local.exits(code, says)
        error = local.stopped()
        said += [str(error), error.detail]
    (local.directory / "cryptsetup").unlink()
    (local.directory / "cryptsetup").mkdir()
    said += [str(local.stopped())]
    out, err = capfd.readouterr()
    said += [out, err]
    for form in (CANARY.hex(), CANARY.decode("latin-1"), repr(CANARY)):
        assert form not in "\n".join(said)


def test_a_key_that_does_not_open_it_is_said_in_cryptsetups_words(local: Bench) -> None:
    local.exits(2, "No key available with this passphrase.")
    error = local.stopped()
    assert (error.outcome, error.reason) == (Outcome.BRICK_FAILED, Reason.KEY_WRONG)
    assert "No key available with this passphrase." in error.detail


def test_a_key_manager_without_the_key_and_one_that_is_away(local: Bench, tmp_path: Path) -> None:
    """Both are tried again; cryptsetup is not even started."""
    (tmp_path / "keys").write_text("{}")
    error = local.stopped()
    assert (error.outcome, error.reason) == (Outcome.BRICK_FAILED, Reason.KEY_UNAVAILABLE)
    assert f"key {KEY_ID}: ManagedObjectNotFoundError" in error.detail
    (tmp_path / "keys").unlink()
    error = local.stopped()
    assert error.reason is Reason.KEY_UNAVAILABLE
    assert "No such file" in error.detail
    assert local.noted("args") is None


def test_what_a_driver_raises_of_its_own_is_named_and_not_quoted(local: Bench, tmp_path: Path) -> None:
    """It may quote the key it could not decode."""
    (tmp_path / "keys").write_text(json.dumps({KEY_ID: f"{CANARY.hex()}zz"}))
    error = local.stopped()
    assert (error.reason, error.detail) == (Reason.KEY_UNAVAILABLE, f"key {KEY_ID}: ValueError")


def test_a_provider_that_os_brick_cannot_extend_is_unsupported(local: Bench) -> None:
    """Its encryptor for plain dm-crypt raises NotImplementedError."""
    error = local.stopped(Encryption(key_id=KEY_ID, provider="plain", control_location="front-end"))
    assert error.outcome is Outcome.UNSUPPORTED


def test_an_ordinary_user_fetches_keys_through_sudo(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The key goes through os-brick's helper, started by sudo with the arguments etc/sudoers.d allows."""
    if not have_sudo():
        missing("sudo, setpriv, unshare, root")
    if (there := shutil.which("cryptsetup", path="/usr/sbin:/sbin")) is None:
        missing("cryptsetup")
    with tempfile.TemporaryDirectory(prefix="eb-keys-") as name:
        directory = Path(name)
        scripts = directory / "bin"
        mounts = f"mount --bind {scripts}/cryptsetup {there} && mount --bind {scripts}/blockdev /usr/sbin/blockdev"
        prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", f'{mounts} && exec "$@"', "sh"]
        made = bench(
            directory, f"[key_manager]\nbackend = {BACKEND}\nfile = {directory / 'keys'}\n", monkeypatch,
            prefix=[*prefix, *as_ordinary_user(directory)],
        )  # fmt: skip
        (directory / "keys").write_text(json.dumps({KEY_ID: CANARY.hex()}))
        try:
            made.grow()
        finally:
            made.pool.close()
        assert (made.noted("args"), made.noted("stdin")) == (f"resize /dev/mapper/{NAME}\n", CANARY.hex())
    assert CANARY.hex() not in "".join(capfd.readouterr())


def test_castellan_fetches_keys_from_barbican_and_names_each_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """castellan's own driver, as the user of [key_manager]: the key, no such key, refused, and away."""
    with KeystoneStandIn() as keystone, Barbican() as barbican:
        made = bench(
            tmp_path,
            f"[key_manager]\nbackend = barbican\nauth_type = keystone_password\nauth_url = {keystone.url}\n"
            "username = u\npassword = p\nuser_domain_name = Default\nproject_name = service\n"
            f"project_domain_name = Default\n[barbican]\nbarbican_endpoint = {barbican.url}\n",
            monkeypatch,
        )
        barbican.secrets[KEY_ID] = CANARY
        made.grow()
        assert made.noted("stdin") == CANARY.hex()
        barbican.refuses = 403
        error = made.stopped()
        assert (error.outcome, error.reason) == (Outcome.BRICK_FAILED, Reason.KEY_UNAVAILABLE)
        barbican.refuses = None
        barbican.secrets.clear()
        assert "ManagedObjectNotFoundError" in made.stopped().detail
    error = made.stopped()
    assert (error.outcome, error.reason) == (Outcome.BRICK_FAILED, Reason.KEY_UNAVAILABLE)
    made.pool.close()


def test_castellan_brings_no_eventlet_and_leaves_the_global_configuration_alone() -> None:
    """It is imported by the os-brick process alone, and what it registers is in a ConfigOpts of its own."""
    program = (
        "import hostagent.brick.child, sys\nfrom oslo_config import cfg\n"
        "before = set(cfg.CONF._groups) | set(cfg.CONF._opts)\n"
        "assert 'castellan' not in sys.modules\nimport hostagent.brick.encryptor\n"
        "assert 'castellan' in sys.modules\n"
        "from castellan import key_manager\n"
        "conf = cfg.ConfigOpts()\nconf([], default_config_files=[], default_config_dirs=[])\n"
        "key_manager.API(conf)\nhostagent.brick.encryptor._ourselves(conf)\n"
        "assert set(cfg.CONF._groups) | set(cfg.CONF._opts) == before\n"
        "assert sys.modules.get('eventlet') is None and 'greenlet' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, cwd=ROOT)


def test_an_agent_without_the_opt_in_has_no_castellan_at_all() -> None:
    """The daemon never imports it, opted in or not."""
    program = (
        "import bridge.runtime.threads, hostagent.wiring, hostagent.brick.pool, sys\n"
        "assert 'castellan' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, cwd=ROOT)
