# SPDX-License-Identifier: Apache-2.0
"""Makes the servers of rows.json with Nova's own objects; run by Nova's own python: servers.py PROJECT."""

import json
import sys
from pathlib import Path

from nova import config, context, objects


def main():
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
                ).create()
        mapping.create()


if __name__ == "__main__":
    main()
