# SPDX-License-Identifier: Apache-2.0
"""The extent of the host agent's access to guests' file systems."""

from enum import StrEnum


class FileSystemMode(StrEnum):
    """The values of [guest] filesystems."""

    OFF = "off"  # guests' agents are never asked
    SEE = "see"  # two questions to the agent; no command runs in a guest
    GROW = "grow"  # as see, and file systems are grown whose owner asked
