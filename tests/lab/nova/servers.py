# SPDX-License-Identifier: Apache-2.0
"""Makes the servers of rows.json with Nova's own objects; run by Nova's own python: servers.py PROJECT."""

import json
import sys
from pathlib import Path
from typing import Any

from nova import config, context, objects
from nova.network.model import NetworkInfo


def shown(targeted: Any, row: dict[str, Any]) -> dict[str, Any]:
    """What GET /servers/{id} needs besides; not for all, it is slow."""
    flavor = objects.Flavor(
        id=1, flavorid="1", name="small", memory_mb=64, vcpus=1, root_gb=1, ephemeral_gb=0, swap=0, rxtx_factor=1.0,
        vcpu_weight=0, disabled=False, is_public=True, extra_specs={}, description=None,
    )  # fmt: skip
    cache = objects.InstanceInfoCache(targeted, instance_uuid=row["uuid"], network_info=NetworkInfo())
    return {
        "power_state": 1, "display_name": row["key"], "hostname": row["key"], "metadata": {}, "system_metadata": {},
        "flavor": flavor, "old_flavor": None, "new_flavor": None, "info_cache": cache,
    }  # fmt: skip


def main() -> None:
    """One mapping and one instance for each; a server that is being scheduled has a mapping without a cell."""
    project, user = sys.argv[1], "u" * 32
    config.parse_args(["nova", "--config-file", "nova.conf"])
    objects.register_all()
    admin = context.RequestContext(user, project, is_admin=True)
    cells = {cell.name: cell for cell in objects.CellMappingList.get_all(admin)}
    for row in json.loads(Path("rows.json").read_text()):
        cell = cells["cell0" if row["key"] == "cell0err" else "cell1"]
        mapping = objects.InstanceMapping(
            admin, instance_uuid=row["uuid"], project_id=project, user_id=user, queued_for_delete=False
        )
        if row["key"] != "nomapcell":
            mapping.cell_mapping = cell
            with context.target_cell(admin, cell) as targeted:
                objects.Instance(
                    targeted,
                    uuid=row["uuid"],
                    host=row["host"],
                    user_id=user,
                    project_id=project,
                    vm_state="active",
                    **(shown(targeted, row) if row.get("shown") else {}),
                ).create()
        mapping.create()


if __name__ == "__main__":
    main()
