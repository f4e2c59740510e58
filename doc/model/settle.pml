/* SPDX-License-Identifier: Apache-2.0
 *
 * Made from settle() of bridge/journal/states.py by `python -m tests.lab.settle_table`; a test compares the two.
 * The index: outcome, attempt ended, the attempt's own host, row open, older generation, superseded,
 * siblings pending.
 */
mtype:state = { DUE, DISPATCHED, CLOSED };
#define DONE 0
#define RETRY 1
#define CLOSE 1
#define FAIL 2
#define AGAIN 3
#define NEWER 4
#define NOTE 5
#define IGNORE 6
byte moves[128] = { 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 5, 5, 5, 5, 5, 5, 5, 5, 1, 1, 1, 1, 4, 4, 4, 4, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 5, 5, 5, 5, 5, 5, 5, 5, 3, 5, 5, 5, 3, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6 };
#define settle_move(o, ended, mine, open, older, superseded, siblings) \
	moves[(o) * 64 + (ended) * 32 + (mine) * 16 + (open) * 8 + (older) * 4 + (superseded) * 2 + (siblings)]
