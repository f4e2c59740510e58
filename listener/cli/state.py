# SPDX-License-Identifier: Apache-2.0
"""How far a replay came, in a file beside the recording, so that the next run goes on there."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from bridge.core.errors import OperatorError
from listener.cli.recordings import Item


class Progress:
    """Numbers of events that have their verdict. Written after each request, before the next."""

    def __init__(self, path: Path, items: Sequence[Item]) -> None:
        """Raises OperatorError where the file belongs to another replay."""
        self._path = path
        digest = hashlib.sha256()
        for item in items:
            digest.update(f"{item.key.server_id} {item.key.volume_id}\n".encode())
        self._of = digest.hexdigest()
        self.done: set[int] = set()
        try:
            kept = json.loads(path.read_text())
            of, upto, beyond = kept["of"], int(kept["upto"]), kept["beyond"]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as ex:
            raise OperatorError(f"{path} cannot be used: remove it to replay from the start") from ex
        if of != self._of and (upto or beyond):
            raise OperatorError(f"{path} is of a replay of other events: remove it, or name another with --state")
        self.done = {*range(upto), *beyond}

    def begin(self) -> None:
        """Have the file before anything is sent: raises OperatorError where what is done could not be kept."""
        self.settle(())

    def settle(self, numbers: Sequence[int]) -> None:
        """These are done; on disk when it returns."""
        self.done.update(numbers)
        upto = 0
        while upto in self.done:
            upto += 1
        beyond = sorted(number for number in self.done if number > upto)
        written = self._path.with_name(f"{self._path.name}.new")
        try:
            with written.open("w") as file:
                json.dump({"of": self._of, "upto": upto, "beyond": beyond}, file)
                file.flush()
                os.fsync(file.fileno())
            written.replace(self._path)
        except OSError as ex:
            raise OperatorError(
                f"{self._path} cannot be written: {ex.strerror}; name another place with --state"
            ) from ex

    def end(self) -> None:
        """All are done: the next replay is a new one."""
        self._path.unlink(missing_ok=True)
