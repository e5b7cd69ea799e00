/* Inside a worker of the torture: the process (torture_worker.c) and what it does (torture_deeds.c). */
#ifndef TORTURE_WORKER_H
#define TORTURE_WORKER_H

#include "torture.h"
#include <pthread.h>
#include <rng.h>

struct worker {
	const char *path;
	unsigned place;
	struct rng rng;
	struct bts *db;
	struct bts_error error;
	struct torture_control *control;
	uint64_t stamp;		    /* the last given */
	uint64_t own[TORTURE_OWN];  /* what this place holds by what was acknowledged */
	struct bts *watch;	    /* a second handle, which only reads; NULL: not open */
	struct bts_txn *pinned;	    /* a snapshot held for a while, */
	struct bts *pinned_in;	    /* of db or watch, */
	uint64_t pinned_digest;	    /* and what it showed */
	struct torture_shared seen; /* by the newest snapshot so far */
	unsigned missing;	    /* flags of bts_begin this library refuses */
	uint8_t buffer[TORTURE_VALUE_MAX];
	pthread_t mate;
	_Atomic int mate_stop;
	int64_t mate_counts, mate_counted; /* the mate's: in its transaction; acknowledged, 0: not known */
};

void worker_send(struct torture_message *message, enum torture_type type, uint64_t stamp, size_t payload);
void worker_report(enum torture_type type, uint64_t stamp);
__attribute__((format(printf, 2, 3))) _Noreturn void worker_wrong(struct worker *w, const char *format, ...);
/* An error is wrong; w->error says more. */
void worker_must(struct worker *w, enum bts_err err, const char *what);
/* The same for what txn knows of it. */
void worker_read(struct worker *w, const struct bts_txn *txn, enum bts_err err, const char *what);
void worker_tally(struct worker *w, unsigned deed);
enum bts_err worker_try_open(struct worker *w, unsigned flags, struct bts **db);
void worker_open(struct worker *w);
void worker_close(struct worker *w);

void deed_any(struct worker *w); /* by weight */
void deed_pin(struct worker *w);

#endif
