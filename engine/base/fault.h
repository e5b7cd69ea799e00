/*
 * Rules broken on purpose: what proves that the crash tests can fail.
 *
 * SABOTAGE(FAULT_X) is the constant 0, and costs nothing, unless the engine is compiled with -DBTS_SABOTAGE
 * for the test that drops one rule at a time and requires a finding.  Named after the invariants in
 * DESIGN.md.
 */
#ifndef FAULT_H
#define FAULT_H

enum fault_rule {
	FAULT_NONE,
	FAULT_I1_FREE_EARLY, /* commit: pages freed by a commit may be used again at once, not when freed <= D
			      */
	FAULT_I1_NO_READERS, /* commit: reclaim without asking for live snapshots */
	FAULT_I2_SLOT_OF_D,  /* commit: the slot that holds D is overwritten */
	FAULT_I3_NO_VERIFY,  /* recover: a one-flush slot is believed without its manifest */
	FAULT_I3_NO_MANIFEST, /* commit: a one-flush slot with an empty manifest */
	FAULT_I3_NO_PREFLUSH, /* commit: a two-flush slot is written without the first flush */
	FAULT_I4_NO_JUMP,     /* recover: the opening commit takes the very next number */
	FAULT_I5_RELABEL,    /* recover: the newest slot is written again as a trusted one, verified or not */
	FAULT_I6_NO_REWRITE, /* recover: what the page cache says is taken for durable */
	FAULT_I7_IGNORE_FLUSH,	/* commit: a failed flush counts as done */
	FAULT_I8_PUBLISH_EARLY, /* commit: readers see, and callers are told of, a commit before its flush */
	FAULT_I9_FOREIGN_MODE,	/* recover: the mode is taken from the other slot */
	FAULT_I10_NO_SEAL,	/* close: nothing is written, so one slot alone holds the last state */
	FAULT_I11_LINK_EARLY,	/* create: the name appears before the flush */
	FAULT_G2_FREE_HELD,	/* seal: what a named snapshot holds is freed with the rest */
	FAULT_G3_NO_ORPHANS,	/* seal: what only a deleted named snapshot had is not freed */
	FAULT_G3_NO_FRONTIER,	/* seal: of a deleted named snapshot what the head shares is freed too */
	FAULT_G5_NO_READERS,	/* ring: an allocator that is built anew ignores living readers */
	FAULT_M2_NUMBERS_AGAIN, /* group: numbers follow the tip, not the last one given */
	FAULT_M2_NO_INHERIT,	/* flush: what a dead holder of the flush lock left is not judged */
	FAULT_MANIFEST_RETIRED, /* flush: a manifest names what a later waiting commit retired */
	FAULT_MANIFEST_OWN,	/* flush: a manifest names the pages of the newest of several commits alone */
	FAULT_RING_NO_TAKE,	/* ring: what others took is not taken */
	FAULT_RING_NO_RETIRE,	/* ring: what others retired is not retired */
	FAULT_REBUILD_ON_TIP,	/* ring: an allocator is built anew upon a tip that is not durable */
	FAULT_I8_D_BEFORE_HEAD, /* publish: D moves before the head */
	FAULT_I8_SHIP_AT_HEAD,	/* readers: the replicator is shown the head */
	FAULT_I8_SHOW_WAITING,	/* queue: an asynchronous commit is shown though others wait for a flush */
	FAULT_C1_NO_LAST_DELETE, /* tree: a range delete leaves no trace in the leaves beside it */
	FAULT_SAVEPOINT_LOG,	/* savepoint: going back keeps the log of operations */
	FAULT_G1_NO_LOOK,	/* readers: what was parked is claimed without looking at the head again */
	FAULT_RULES,	   /* so far those of tests/crash; those of the simulated cluster (tests/replication) follow */
	FAULT_R1_NO_SUMS,  /* graft: bytes of a frame's pages are not held against the pointers to them */
	FAULT_R1_NO_CLOSURE, /* proof: pages that no root reaches are taken, wherever they lie */
	FAULT_R1_NO_FLUSH, /* install: the slot is written before the pages are durable */
	FAULT_R2_HOME,	   /* apply: every page goes home at once, whoever needs what stands there */
	FAULT_R3_NO_CHAIN, /* history: an equal number is an equal state */
	FAULT_R4_NO_GRAFT, /* graft: as that, and what a frame says is kept is believed to be here */
	FAULT_R5_NO_FLUSH, /* install: the slot names a path.pending that is not durable */
	FAULT_R7_NO_FLUSH, /* install: a frame is said to be installed before its slot is durable */
	FAULT_R8_FORGET,   /* role: a promise is forgotten when a frame comes */
	FAULT_REPLICA_RULES, /* and those of test_apply__redirect */
	FAULT_R6_HOME_FIRST, /* pager: pages of the log are looked for at home */
	FAULT_R6_MERGE_READ, /* homes: pages are brought home without asking for readers */
	FAULT_R6_LOG_READ, /* pending: a log is written again under who reads it */
	/* and those of test_deadline__sabotage */
	FAULT_R8_WRITE_LATE, /* deadline: commits are begun and slots written when it has passed */
	FAULT_R8_TELL_LATE, /* deadline: a commit is told of when it has passed */
	FAULT_R8_ONE_TERM   /* deadline: or when it had, and another was set meanwhile */
};

#ifdef BTS_SABOTAGE
extern unsigned fault_sabotage; /* enum fault_rule; defined by the test */
#define SABOTAGE(rule) (fault_sabotage == (unsigned)(rule))
#else
#define SABOTAGE(rule) 0
#endif

#endif
