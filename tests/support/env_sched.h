/*
 * Simulated processes on one environment in memory, interleaved in every order that a bound allows.
 *
 * Each process is a coroutine with handles of its own, so that env_mem keeps their locks apart.  All run on one thread.
 * A scheduling point comes before every file, path, lock, wait and wake call, before every fault point, and, in an engine
 * compiled with sched_atomic.h, before every access to an atomic word in a shared mapping (of a sequence of accesses to
 * neighbouring words, before the first and one in the middle).  At each of them the running process may go on, or, while
 * the bound lasts, another is preferred to it, or it dies, or the power goes.  What is between two points is one step.
 *
 * A call that would block (a lock that is held, a futex whose word has not changed) blocks the process until the lock is
 * free, or the word has another value or was woken; whoever runs instead costs nothing.  A wait with a timeout ends by it
 * when no other process can run, or earlier, which counts as a preemption.  All blocked: a deadlock, reported.
 *
 * Exploration is depth-first over the choices, every schedule from the beginning; the same choices give the same run.
 * When there are more schedules than wanted, those that use up the bound are thinned out evenly, by seed.
 *
 * Death closes the process's files, in the order of their opening, and forgets its memory. Not for sanitizers that know
 * stacks (env_sched_possible).
 */
#ifndef SUPPORT_ENV_SCHED_H
#define SUPPORT_ENV_SCHED_H

#include "env_mem.h"

#include <stdbool.h>

#define SCHED_PROCS 4u /* at most; the one after the last is the judge's */

struct sched;

struct sched_scenario {
	const char *name;
	unsigned procs;
	unsigned preemptions; /* the bound; deaths and power cuts on top */
	unsigned mortal;      /* bit per process that may die; one death a schedule, 0: none */
	bool cut;	      /* the power may go, once, which ends the schedule */
	/*
	 * prepare: fills the world for one schedule and names the environment to run on (sched_use).  No scheduling.
	 * body: what process i does, from its beginning to its end.
	 * judge: no scheduling; bodies have ended, died or were cut.  With the judge's memory and handles.
	 * died (may be NULL): process i, or what is left of it after a cut, is about to lose its memory.
	 * finish: ends the world; also after a failure.
	 */
	void (*prepare)(void *arg);
	void (*body)(void *arg, unsigned process);
	void (*judge)(void *arg, bool cut);
	void (*died)(void *arg, unsigned process);
	void (*finish)(void *arg);
};

struct sched_counts {
	uint64_t schedules, points, deaths, cuts;
	uint64_t longest; /* points of one schedule */
	bool thinned;
};

/* limit: about how many schedules; 0 = all. */
struct sched *sched_new(uint64_t seed, uint64_t limit);
void sched_free(struct sched *);
/*
 * True: nothing was found.  False: the finding and its schedule were printed, and with it the argument that runs it again.
 */
bool sched_explore(struct sched *, const struct sched_scenario *, void *arg, struct sched_counts *);
/* One schedule, as printed ("12:1,40:2"), told in full. */
bool sched_replay(struct sched *, const struct sched_scenario *, void *arg, const char *choices);
bool sched_possible(void); /* not under a sanitizer that must know stacks */

/* For bodies and judges. */
struct bts_env *sched_env(struct sched *);
/* Does not return to a body; a judge goes on, and its later findings are dropped. */
void sched_fail(struct sched *, const char *format, ...) __attribute__((format(printf, 2, 3)));
bool sched_failed(const struct sched *);
bool sched_lost(const struct sched *);		    /* a process died, or the power went */
void sched_point(struct sched *, const char *what); /* a scheduling point of the body's own; what is static */
void sched_use(struct sched *, struct env_mem *);   /* borrowed until the next */
/* From now on calls are those of this process (without scheduling): for prepare. */
void sched_act_as(struct sched *, unsigned process);
/* Called by code compiled with sched_atomic.h. */
void sched_atomic(const volatile void *word, const char *name);
/* The blocks of this size that the process holds. */
void sched_blocks(
	struct sched *, unsigned process, size_t size, void (*see)(void *arg, void *block), void *arg);

#endif
