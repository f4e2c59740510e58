# SPDX-License-Identifier: Apache-2.0
"""An NFS 4.2 server of the kernel's own, and its share mounted on the same machine."""

from pathlib import Path
from typing import Final

from tests.lab.storage_vm.inside.commands import put, sh

EXPORT: Final = Path("/srv/eb-export")
MOUNT: Final = Path("/mnt/eb-nfs")
_GRACE: Final = 10  # seconds; by default clients wait 90 after a restart


def start() -> None:
    """Serve EXPORT and mount it at MOUNT, hard, as Nova does."""
    sh("modprobe", "-a", "nfsd", "nfsv4")
    for directory in (EXPORT, MOUNT, Path("/var/lib/nfs/v4recovery")):
        directory.mkdir(parents=True, exist_ok=True)
    for name in ("etab", "rmtab"):
        Path("/var/lib/nfs", name).touch()
    Path("/etc/exports").touch()
    sh("mount", "-t", "tmpfs", "-o", "size=1G", "export", EXPORT)
    sh("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd", check=False)
    for name in ("nfsv4leasetime", "nfsv4gracetime"):
        put(Path("/proc/fs/nfsd") / name, _GRACE)
    sh("exportfs", "-o", "rw,no_root_squash,fsid=0,no_subtree_check,insecure", f"127.0.0.1:{EXPORT}")
    sh("rpc.mountd")
    serve(on=True)
    sh("mount", "-t", "nfs4", "-o", "vers=4.2,hard", "127.0.0.1:/", MOUNT)


def serve(*, on: bool) -> None:
    """Start the server's threads, or end them: a client then waits for ever."""
    if on:
        sh("rpc.nfsd", "-N", "3", "-V", "4.2", "2")
    else:
        sh("rpc.nfsd", "0")
