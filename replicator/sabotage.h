/*
 * Rules of the replicator broken on purpose, to prove that the simulated cluster notices: as base/fault.h of the engine, and
 * by the same number.
 */
#ifndef SABOTAGE_H
#define SABOTAGE_H

enum sabotage_rule {
	SABOTAGE_FIRST = 1000,
	SABOTAGE_R7_ACK_EARLY,	/* follow: a frame counts as installed before it is */
	SABOTAGE_AHEAD_EQUAL,	/* source: a follower that is ahead is told that there is no news */
	SABOTAGE_UNKNOWN_EQUAL, /* source: likewise one of another history */
	SABOTAGE_NO_SUMS,	/* frame: no sum is looked at */
	SABOTAGE_NO_END,	/* frame: one that is cut short has ended */
	SABOTAGE_LAST,
	/* of failover's own simulation: */
	SABOTAGE_LEASE_FROM_ANSWER, /* the deadline counts from when the answer came */
	SABOTAGE_LEASE_NO_MARGIN,   /* and is the service's own, whatever the clocks do */
	SABOTAGE_LEASE_NO_FENCE,    /* the key is given up before the file is fenced */
	SABOTAGE_LEASE_NO_KEY,      /* a candidate that was not the first goes on */
};

#ifdef BTS_SABOTAGE
extern unsigned fault_sabotage; /* defined by the test */
#define SABOTAGED(rule) (fault_sabotage == (unsigned)(rule))
#else
#define SABOTAGED(rule) 0
#endif

#endif
