/* A script while it runs: what its files share. */
#ifndef CRASH_RUN_H
#define CRASH_RUN_H

#include "crash.h"

#include <flush.h>
#include <setjmp.h>

#define CRASH_VALUE_MAX (1400u << 10)
#define CRASH_GROUP_MAX 5u
#define CRASH_OTHERS 2u
#define CRASH_BATCHES 6u
#define CRASH_ANY_KEY 2u /* for parity */

/* Built, not known to be durable. */
struct crash_batch {
	struct bts *db; /* who built it; NULL: one that died */
	struct commit_built built;
	struct crash_oracle oracle;
};

struct crash_run {
	struct crash *crash;
	struct env_mem *mem;
	struct bts *db; /* whose turn it is */
	struct bts
		*others[CRASH_OTHERS]; /* further writing handles, like further processes; NULL: not open */
	struct crash_watch watch;
	struct crash_oracle durable, now, next; /* D; what readers see; in flight */
	bts_txid txid;				/* newest acknowledged */
	struct crash_batch batches[CRASH_BATCHES];
	unsigned batch_count;
	struct crash_oracle flushing; /* what a nested batch is built upon */
	bool nest;		      /* another handle builds a batch while the next commit is flushed */
	uint64_t locks;		      /* calls of the nested builder; 0: there is none */
	uint64_t death;		      /* operations until the handle dies; 0: it does not */
	jmp_buf dead;
	struct bts *reader;
	struct bts_txn *pinned;
	uint64_t pinned_digest, failed; /* calls failed on purpose so far */
	uint8_t *data;
	uint32_t probes;
	bool big, many;
	uint32_t page_size; /* of a new file */
};

static inline bool run_stopped(const struct crash_run *run)
{
	return run->crash->bad > 0;
}

void run_failed(struct crash_run *, const char *what, enum bts_err, const struct bts_error *);

/* crash_ops.c: changes to a transaction and to run->next.  parity: keys of one kind only, or CRASH_ANY_KEY. */
enum bts_err run_changes(struct crash_run *, struct bts_txn *, unsigned most, unsigned parity);
enum bts_err run_wipe(struct crash_run *, struct bts_txn *);
void run_clash(struct crash_run *); /* two transactions that must conflict (C1) */

/* crash_script.c */
void run_expect(struct crash_run *, unsigned transactions); /* D, or run->next */
void run_settled(struct crash_run *);			    /* D alone */
/* *reopen: the handles are of no use any more. */
void run_result(struct crash_run *, enum bts_err, bts_txid, const struct bts_error *, bool *reopen);
void run_plan_failure(struct crash_run *);
void run_commit(struct crash_run *, bool *reopen);
void run_group(struct crash_run *, bool *reopen);
void run_calm(struct crash_run *, bool *reopen); /* bts_sync: what readers see is D */
enum bts_err run_open_handle(struct crash_run *, struct bts **);
uint64_t run_look(struct crash_run *, struct bts *); /* contents by a new reader */

/* crash_many.c */
bool run_is_current(const struct bts *); /* its allocator follows without making the tip durable first */
void run_turn(struct crash_run *);	 /* another handle's */
void run_nested(struct crash_run *);	 /* from within a flush */
void run_drain(struct crash_run *);	 /* flush what is built */
void run_pipeline(struct crash_run *, bool *reopen);
void run_death(struct crash_run *);
void run_replica(struct crash_run *); /* every handle's allocator is what the file says */
void run_close_others(struct crash_run *);
void run_shipped(struct crash_run *); /* I8: the replicator is shown D */

#endif
