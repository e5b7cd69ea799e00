/*
 * What the interleaving tests (T7) share: a world of a few keys, operations on them by simulated processes, and the
 * judgement of the history that came out.
 *
 * Each operation is a transaction that writes the process's own key and, mostly, the shared key, which it reads first
 * and to which it adds a link: the operation that wrote what it read.  A value names its operation and is checked to the last byte; with
 * bts_get_version every read thus tells which transaction wrote what it saw.  What must hold:
 *
 * - an acknowledged operation has one number; what a read at snapshot S finds under a key is the operation with the
 *   highest number <= S of all that wrote it: nothing lost, nothing torn, nothing from the future (C1, G1, I8);
 * - every link of the shared key names the operation right before it: no lost update (C1);
 * - what was refused with a conflict met one;
 * - a read that begins after an acknowledgement sees it;
 * - an operation in flight at a death or power cut happened or did not, as one; once read, it stays (I6, I8);
 * - bts_check is clean: reachable + free = all (G2);
 * - power loss after the end, or in the middle, keeps all that was acknowledged or read.
 */
#ifndef INTERLEAVE_H
#define INTERLEAVE_H

#include <btree_store.h>
#include <env_sched.h>

#define IL_PATH "/db"
#define IL_KEYS 6u   /* one for each process, the judge's, and the shared one */
#define IL_SHARED 5u /* that key */
#define IL_JUDGE SCHED_PROCS
#define IL_NOT_OPEN (~0u)
#define IL_RESERVE ((size_t)32 << 20)
#define IL_OPS 64u
#define IL_READS 128u
#define IL_TRIES 12u /* of one transaction that conflicts */

enum il_beginning {
	IL_CLOSED,
	IL_CUT,	   /* what a power loss left */
	IL_KILLED, /* what the death of all processes left, the lock file too */
	IL_BEGINNINGS
};

enum il_fate { IL_FLYING, IL_ACKED, IL_REFUSED };

struct il_op {
	unsigned process;
	bool shared;
	bts_txid snapshot; /* that it was tried at */
	unsigned previous; /* of the shared key, when shared */
	enum il_fate fate;
	bool seen;     /* by a read that ended: it must stay */
	bts_txid txid; /* 0: not known */
};

struct il_read {
	unsigned process;
	bts_txid snapshot;
	unsigned op[IL_KEYS]; /* 0: no such key, or the base's */
};

struct il {
	struct sched *sched;
	struct env_mem *bases[IL_BEGINNINGS];
	enum il_beginning beginning;
	struct env_mem *mem;
	struct bts *db[SCHED_PROCS + 1]; /* opened by prepare */
	struct il_op ops[IL_OPS];
	unsigned op_count; /* ops[0] stands for the base */
	struct il_read reads[IL_READS];
	unsigned read_count;
	uint64_t *known; /* hash set of (image, expectation) judged already */
	uint64_t images, distinct;
	uint64_t schedules, live_every, total;
	uint64_t conflicts;
	unsigned procs;
	unsigned open_flags[SCHED_PROCS]; /* of what prepare opens; IL_NOT_OPEN */
};

void il_make_base(struct il *);
void il_init(struct il *, struct sched *); /* takes sched */
void il_fini(struct il *);

/* For sched_scenario: prepare opens open_flags[] in order; judge, died and finish as they stand. */
void il_prepare(void *il);
void il_judge(void *il, bool cut);
void il_died(void *il, unsigned process);
void il_finish(void *il);

/* Steps of bodies.  What fails in a way that the history does not allow is a finding. */
void il_open(struct il *, unsigned process, unsigned flags);
void il_close(struct il *, unsigned process);
void il_read(struct il *, unsigned process);
/* One transaction, again and again while it conflicts. */
void il_write(struct il *, unsigned process, bool shared);
/* Two transactions, one flush. */
void il_group(struct il *, unsigned process);
/* A read transaction, held from _pin to _unpin, which reads. */
void il_pin(struct il *, unsigned process, struct bts_txn **txn);
void il_unpin(struct il *, unsigned process, struct bts_txn *txn);

struct il_scenario {
	struct sched_scenario sched;
	unsigned open_flags[SCHED_PROCS];
	unsigned weight; /* of the schedules wanted, in hundredths */
	enum il_beginning beginning;
};
/* False: something was found, and printed.  choices: replay these; NULL: explore. */
bool il_run(struct il *, const struct il_scenario *, const char *choices);
/* Explore all, or one, or replay: arguments of main: [seed [schedules [scenario [choices]]]].  The exit code. */
int il_main(int argc, char **argv, const struct il_scenario *scenarios, unsigned count, uint64_t schedules);

#endif
