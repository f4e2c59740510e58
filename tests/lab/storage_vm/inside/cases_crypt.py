# SPDX-License-Identifier: Apache-2.0
"""A LUKS2 volume that the host decrypts, over iSCSI."""

from typing import Any, Final

from tests.lab.storage_vm.inside.agent import Agent
from tests.lab.storage_vm.inside.commands import sh
from tests.lab.storage_vm.inside.compute import Attached, Compute, connect
from tests.lab.storage_vm.inside.matrix import START, Bench
from tests.lab.storage_vm.inside.results import Results
from tests.lab.storage_vm.inside.targets import IscsiTarget

_KEY: Final = b"not a secret"
_NAME: Final = "crypt-storage-vm"
_QUICK: Final = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")


def run(results: Results, compute: Compute, agent: Agent) -> None:
    """Every case."""
    sh("modprobe", "-a", "dm_crypt", "algif_skcipher", "xts", "aes_x86_64", check=False)
    volume = IscsiTarget("crypt", ("127.0.0.1",)).add("crypt", START)

    def attach() -> Attached:
        """As os-brick's encryptor: format at the first attach, open, hand out the map."""
        path = connect(volume, multipath=False).path
        sh("cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", *_QUICK, "--key-file=-", path, data=_KEY)
        sh("cryptsetup", "luksOpen", "--key-file=-", path, _NAME, data=_KEY)
        return Attached(volume_id=volume.volume_id, path=f"/dev/mapper/{_NAME}")

    def no_key() -> dict[str, Any]:
        bench = Bench(compute, agent, volume, attach)
        guest = bench.guest
        before = int(sh("blockdev", "--getsize64", bench.path))
        guest.prints(before)
        bench.grow()
        encrypted = {**volume.connection, "data": {**volume.connection["data"], "encrypted": True}}
        reports = [bench.order(encrypted), bench.order(None)]
        return {"reports": reports, "before": before, "guest": guest.prints(before)}

    results.run("crypt_without_its_key", no_key)
