/* SPDX-License-Identifier: Apache-2.0
 *
 * The way of an extend, for Spin: notification, journal, claim, cast, report, telling, reconcile.
 *
 * One volume grows while its guest migrates from host 0 to host 1. Two engines share the journal. Host 2 lies. Any
 * part crashes between any two steps; messages are lost, doubled and late. Each disturbance has a budget: safety is an
 * assertion on the way, liveness is an assertion on every end (process `judge`). CI checks each kind alone, pairs of
 * them, and a migration. With NO_RECONCILE, and for most migrations with one engine, the search stays small; what holds
 * without reconcile does not depend on it.
 *
 * The moves of a report come from settle.pml, which is made from bridge/journal/states.py.
 * tests/model/ runs the model, as it is and with each planted bug (-DBREAK_...).
 */

#include "settle.pml"

#ifndef GROWTHS
#define GROWTHS 2	/* times the volume grows: as many generations */
#endif
#ifndef CRASHES
#define CRASHES 1	/* crashes of any part, between any two steps */
#endif
#ifndef LATE
#define LATE 1		/* times an order counts as overdue although it is on its way */
#endif
#ifndef DOUBLES
#define DOUBLES 1	/* messages delivered twice */
#endif
#ifndef LOSSES
#define LOSSES 0	/* notifications lost before our queue: reconcile is for these */
#endif
#ifndef MIGRATIONS
#define MIGRATIONS 1
#endif
#ifndef LIES
#define LIES 0		/* reports and claims of the lying host */
#endif
#ifndef LANES
#define LANES 0		/* times an event goes through the slow lane */
#endif
#ifndef STALE
#define STALE 1		/* times a host's device does not show the new size yet */
#endif

#ifndef ENGINES
#define ENGINES 2
#endif

#define HOSTS 3		/* 2: the liar */
#define SLOTS 3		/* dispatches that the journal and the messages can speak of at once */
#define NOBODY 3

/* the journal's row */
mtype:state state = CLOSED;
byte latest;		/* the newest dispatch */
byte closer = NOBODY;	/* the host whose report closed it */

/* attempts of a dispatch, written before its casts */
bool older[SLOTS];	/* gen < wanted_gen */
byte target[SLOTS];
bool pending[SLOTS * HOSTS];
byte refs[SLOTS];	/* messages and engines that speak of the dispatch */

/* the world */
byte cinder = 1;	/* size */
byte device[2];		/* size each host's device shows */
byte capacity = 1;	/* size of the guest's virtual disk */
byte told = 1;		/* size the guest was told */
byte at;		/* host where the guest is active */
bool arrived;		/* the guest came to host 1 and was not told there yet */
bool incoming;		/* a migration is on its way */
bool claims[HOSTS];	/* inventory: hosts that say the guest is active there */

/* ghosts */
byte need;		/* size that the accepted arrivals have spoken of */

byte crashes = CRASHES, late = LATE, doubles = DOUBLES, losses = LOSSES, lies = LIES, stale = STALE;
byte migrations = MIGRATIONS, lanes = LANES;

chan events = [3] of { byte };			/* notifications: the size they speak of */
chan lane = [2] of { byte };			/* the slow lane */
chan orders[HOSTS] = [2] of { byte };		/* dispatch */
chan reports = [3] of { byte, byte, byte, byte };	/* dispatch, host, outcome, size read back */

#define OPEN		(state != CLOSED)
#define FREE(d)		(refs[d] == 0 && (d != latest || !OPEN || state == DUE))
#define TRUE_HOSTS	((claims[0] -> 1 : 0) + (claims[1] -> 1 : 0) + (claims[2] -> 1 : 0))
#define CLAIMED_TWICE	(TRUE_HOSTS > 1 && !incoming)
#define INVENTORY_TRUE	(claims[at] && TRUE_HOSTS == 1 + (claims[2] -> 1 : 0))
#define ON_THE_WAY	(refs[latest] > 0)

inline arrive(size)
{
	state = DUE;
	older[0] = true; older[1] = true; older[2] = true;	/* wanted_gen + 1 */
	need = (size > need -> size : need);
}

/* Cinder: the volume grows, the notification follows */
active proctype cinder_volume()
{
	byte left = GROWTHS;
	do
	:: left > 0 -> atomic { cinder++; left-- };
		if
		:: atomic { events ! cinder; if :: doubles > 0 -> doubles--; events ! cinder :: true fi }
		:: atomic { losses > 0 -> losses-- }
		fi
	:: left == 0 -> break
	od
}

/* Listener and API: accept, then acknowledge. A crash between the two delivers the message again. */
active proctype listener()
{
	byte size;
end:	do
#ifdef BREAK_ACK_EARLY
	:: events ? size ->
		if
		:: atomic { crashes > 0 -> crashes--; size = 0 }
		:: atomic { arrive(size); size = 0 }
		fi
#else
	:: atomic { events ? <size> -> arrive(size); size = 0 };
		if
		:: events ? _
		:: atomic { crashes > 0 -> crashes-- }
		fi
	/* the endpoint is away: into the slow lane, published before it is acknowledged */
	:: atomic { lanes > 0 && nempty(events) && nfull(lane) -> events ? <size>; lanes--;
#ifdef BREAK_NO_MANDATORY
		if :: lane ! size :: true fi;
#else
		lane ! size;
#endif
		events ? _; size = 0 }
#endif
	:: atomic { lane ? <size> -> arrive(size); size = 0 };
		lane ? _
	od
}

/* Forget what nothing speaks of any more, so that equal states are equal. */
inline finish(d)
{
	refs[d]--;
	if
	:: refs[d] == 0 && (d != latest || !OPEN) ->
		older[d] = true; target[d] = 0;
		pending[d * HOSTS] = false; pending[d * HOSTS + 1] = false; pending[d * HOSTS + 2] = false
	:: else
	fi;
	d = 0
}

/* An engine: claim, read Cinder, write attempts, cast. */
proctype engine()
{
	byte d, h;
end:	do
	:: atomic { state == DUE || (state == DISPATCHED && (!ON_THE_WAY || late > 0)) ->
		if
		:: state == DISPATCHED && ON_THE_WAY -> late--
		:: else
		fi;
		if
		:: FREE(0) -> d = 0
		:: !FREE(0) && FREE(1) -> d = 1
		:: !FREE(0) && !FREE(1) && FREE(2) -> d = 2
		fi;
		state = DISPATCHED; latest = d; older[d] = false; refs[d]++; target[d] = 0;
		pending[d * HOSTS] = false; pending[d * HOSTS + 1] = false; pending[d * HOSTS + 2] = false
	   };
		if
		:: atomic { crashes > 0 -> crashes--; finish(d) }
		/* a stale inventory is waited for, or believed while the budget lasts */
		:: atomic { INVENTORY_TRUE || late > 0 || !OPEN ->
			if
			:: !INVENTORY_TRUE && OPEN && late > 0 -> late--
			:: else
			fi;
#ifdef BREAK_NO_GUARD
			if
			:: target[d] = cinder
			:: cinder > 1 -> target[d] = cinder - 1
			fi;
#else
			target[d] = cinder;
#endif
			h = 0;
			do
			:: h < HOSTS ->
				if
				:: claims[h] || (incoming && h == 1) -> pending[d * HOSTS + h] = true
				:: else
				fi; h++
			:: else -> break
			od; h = 0
		   };
			do
			:: atomic { h < HOSTS && !pending[d * HOSTS + h] -> h++ }
			:: atomic { h < HOSTS && pending[d * HOSTS + h] && nfull(orders[h]) ->
				refs[d]++; orders[h] ! d; h++ }
			:: atomic { h < HOSTS && crashes > 0 -> crashes--; h = HOSTS }
			:: atomic { h == HOSTS ->
#ifdef BREAK_CAST_ONLY
				if
				:: OPEN && !older[d] -> state = CLOSED
				:: else
				fi;
#endif
				finish(d); h = 0; break }
			od
		fi
	od
}

/* The engine's side of a report: read, decide, write in one transaction, then acknowledge. */
active proctype reports_taken()
{
	byte d, h, outcome, after, move, again;
end:	do
	:: atomic { reports ? d, h, outcome, after ->
		again = 1;
		if
		:: doubles > 0 -> doubles--; again = 2
		:: true
		fi;
		do
		:: again > 0 -> again--;
			/* a size that was not read back does not count as reached */
			if
			:: outcome == DONE && after < target[d] -> outcome = RETRY
			:: else
			fi;
			move = settle_move(outcome, !pending[d * HOSTS + h], true, OPEN, older[d], d != latest,
				(h != 0 && pending[d * HOSTS]) || (h != 1 && pending[d * HOSTS + 1]) ||
				(h != 2 && pending[d * HOSTS + 2]));
#ifdef BREAK_NO_GENERATION
			if :: move == NEWER -> move = CLOSE :: else fi;
#endif
#ifndef BREAK_BELIEVE
			/* two hosts claim one running guest: nothing is closed until they agree */
			if
			:: CLAIMED_TWICE && (move == CLOSE || move == FAIL) -> move = AGAIN
			:: else
			fi;
#endif
			if
			:: move != IGNORE -> pending[d * HOSTS + h] = false
			:: else
			fi;
			if
			:: move == CLOSE ->
				assert(told >= need);	/* nothing closes below what is wanted */
				state = CLOSED; closer = h
			:: move == FAIL -> assert(false)	/* no honest host says so here */
			:: move == AGAIN || move == NEWER -> state = DUE
			:: else
			fi
		:: else -> break
		od;
		finish(d); h = 0; outcome = 0; after = 0; move = 0
	   }
	od
}

/* A host agent. Its orders are acknowledged before they are worked on: a crash loses what it has in hand. */
proctype agent(byte me)
{
	byte d, size, outcome;
end:	do
	:: atomic { orders[me] ? d ->
		outcome = RETRY;
		if
		:: at == me -> device[me] = cinder
		:: at == me && stale > 0 -> stale--
		:: at != me		/* not_here */
		fi };
		if
		:: atomic { crashes > 0 -> crashes--; finish(d); outcome = 0 }
		:: atomic {
			if
#ifdef BREAK_NO_GUARD
			:: at == me ->
				assert(target[d] >= capacity);	/* never smaller */
				capacity = target[d]; told = capacity; size = capacity; outcome = DONE
#else
			:: at == me && device[me] >= target[d] && device[me] > capacity ->
				capacity = device[me]; told = capacity; size = capacity; outcome = DONE
			:: at == me && device[me] >= target[d] && device[me] <= capacity ->
#ifndef BREAK_NOT_TOLD
				told = capacity;
#endif
				size = capacity; outcome = DONE
			:: at == me && device[me] < target[d]	/* device_stale */
#endif
			:: at != me				/* the guest has left meanwhile */
			fi };
			if
			:: atomic { crashes > 0 -> crashes--; finish(d); outcome = 0; size = 0 }
			:: atomic { nfull(reports) -> reports ! d, me, outcome, size; d = 0; outcome = 0; size = 0 }
			fi
		fi
	/* a guest that came is told once; an agent that starts tells every active guest */
	:: atomic { me == 1 && arrived && at == 1 ->
#ifndef BREAK_NOT_TOLD
		told = (capacity > told -> capacity : told);
#endif
		arrived = false }
	/* inventory: the journal learns where the guest is, and looks again at what another host closed */
	:: atomic { claims[me] != (at == me) ->
		claims[me] = (at == me);
		if
		:: claims[me] && state == CLOSED && closer != NOBODY && closer != me -> arrive(need)
		:: else
		fi }
	od
}

/* A host that lies about a guest it does not have. */
active proctype liar()
{
	byte d;
end:	do
	:: atomic { lies > 0 && !claims[2] -> lies--; claims[2] = true }
	:: atomic { orders[2] ? d ->
		if
		:: nfull(reports) -> reports ! d, 2, DONE, target[d]; d = 0
		:: nfull(reports) -> reports ! d, 2, RETRY, 0; d = 0
		:: finish(d)
		fi }
	od
}

/* A live migration: the destination opens the device in the size that it has there. */
active proctype migration()
{
	if
	:: atomic { migrations > 0 -> migrations--; device[1] = cinder; incoming = true };
		atomic { incoming = false; at = 1; arrived = true;
			 capacity = (device[1] > capacity -> device[1] : capacity) }
	:: true
	fi
}

/* Reconcile: what the guest's disk has beside what Cinder says. */
active proctype reconcile()
{
end:	do
#if !defined(BREAK_BLIND) && !defined(NO_RECONCILE)
	:: atomic { !OPEN && capacity < cinder && empty(events) && empty(lane) && TRUE_HOSTS > 0 -> arrive(cinder) }
#else
	:: false
#endif
	od
}

/* Every end is a good end. */
active proctype judge()
{
end:	do
	:: atomic { timeout ->
		assert(told == cinder);
		assert(!OPEN || claims[2]);
		break }
	od
}

init
{
	atomic {
		device[0] = 1; device[1] = 1; claims[0] = true;
		run engine();
#if ENGINES > 1
		run engine();
#endif
		run agent(0); run agent(1)
	}
}
