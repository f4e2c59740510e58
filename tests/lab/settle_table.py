# SPDX-License-Identifier: Apache-2.0
"""The moves of a report as Promela, made from bridge/journal/states.py: `python -m tests.lab.settle_table`."""

import itertools
from typing import Final

from bridge.core.extend import Bytes, ExtendKey, new_id
from bridge.core.messages import Report
from bridge.core.outcome import Outcome
from bridge.journal.states import Attempt, Extend, Move, State, settle
from bridge.runtime.retry import Backoff
from tests.lab.paths import ROOT

FILE: Final = ROOT / "doc" / "model" / "settle.pml"
_OUTCOMES: Final = {"DONE": Outcome.RESIZED, "RETRY": Outcome.DEVICE_STALE}
_HEAD: Final = """\
/* SPDX-License-Identifier: Apache-2.0
 *
 * Made from settle() of bridge/journal/states.py by `python -m tests.lab.settle_table`; a test compares the two.
 * The index: outcome, attempt ended, the attempt's own host, row open, older generation, superseded,
 * siblings pending.
 */
"""


def move(outcome: Outcome, flags: tuple[bool, ...]) -> Move:
    """Return the move of a report: flags are ended, mine, open, older, superseded, siblings."""
    ended, mine, is_open, older, superseded, siblings = flags
    key = ExtendKey(new_id(), new_id())
    extend = Extend(
        id="e", key=key, wanted_gen=2 if older else 1, attempt=2 if superseded else 1, failures=0, opened_at=0.0,
        request_id=None, global_request_id=None,
    )  # fmt: skip
    attempt = Attempt(id="a", extend_id="e", key=key, host="host-1", number=1, gen=1, target=Bytes(2), ended=ended)
    report = Report(
        attempt_id="a", key=key, gen=1, outcome=outcome, reason=outcome.value, target=Bytes(2), after=Bytes(2)
    )
    return settle(
        extend if is_open else None, attempt, report, host="host-1" if mine else "host-2",
        siblings_pending=siblings, now=0.0, backoff=Backoff(),
    ).move  # fmt: skip


def promela() -> str:
    """Return the states, the moves and the table of all decisions."""
    lines = [f"mtype:state = {{ {', '.join(state.name for state in State)} }};"]
    lines += [f"#define {name} {number}" for number, name in enumerate(_OUTCOMES)]
    lines += [f"#define {each.name} {number}" for number, each in enumerate(Move, 1)]
    numbers = {each: number for number, each in enumerate(Move, 1)}
    table = [
        numbers[move(outcome, flags)]
        for outcome in _OUTCOMES.values()
        for flags in itertools.product((False, True), repeat=6)
    ]
    lines.append(f"byte moves[{len(table)}] = {{ {', '.join(map(str, table))} }};")
    lines.append(
        "#define settle_move(o, ended, mine, open, older, superseded, siblings) \\\n"
        "\tmoves[(o) * 64 + (ended) * 32 + (mine) * 16 + (open) * 8 + (older) * 4 + (superseded) * 2 + (siblings)]"
    )
    return _HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(promela())
