# SPDX-License-Identifier: Apache-2.0
"""Options of [extend_bridge] in tempest.conf."""

from typing import Final

from oslo_config import cfg

GROUP: Final = cfg.OptGroup(name="extend_bridge", title="Extend Bridge")
OPTS: Final = [
    cfg.StrOpt(
        "command",
        default="",
        help="The operator CLI with its options, for the size on the host; for example extend-bridge --config-file "
        "/etc/extend-bridge/engine.conf. Without it the host is not asked.",
    ),
    cfg.MultiStrOpt(
        "console_pattern",
        default=[r"\b{blocks} 512-byte logical blocks", r"detected capacity change from [0-9]+ to {blocks}\b"],
        help="A regular expression for what a guest prints on its console at a disk's size; repeatable. {bytes} is "
        "the size in bytes, {blocks} in blocks of 512. The default matches the messages of Linux.",
    ),
    cfg.IntOpt(
        "seen_timeout",
        default=120,
        min=1,
        help="Seconds after Cinder's extend within which the guest has to see the size.",
    ),
    cfg.StrOpt(
        "volume_id",
        help="A volume attached to a running guest, for clouds without Nova. The test extends it by 1 GiB.",
    ),
    cfg.StrOpt("console_file", help="The file with the console of that guest. Without it only the host is asked."),
]
