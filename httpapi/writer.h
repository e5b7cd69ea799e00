/*
 * All writes of a primary: one thread, one queue, one flush for what is queued.
 *
 * Theory: threads that serve connections only queue operations and suspend the connection.  The writer takes
 * all that is queued, runs each operation as a transaction of its own in one bts_group, flushes once, and
 * hands the whole batch back.  So batches grow with the load by themselves, with no timer, and a condition
 * (If-Match) is checked against the state that the operations before it in the same batch leave.
 *
 * Failure: an operation that fails alone (no such bucket, condition not met) is aborted alone.  When the
 * group cannot be committed nothing of it happened, and each operation is told; for a full disk each is first
 * tried once more by itself, so that a large one does not take the small ones with it.
 */
#ifndef HTTPAPI_WRITER_H
#define HTTPAPI_WRITER_H

#include <stddef.h>
#include <stdint.h>

#include "btree_store.h"

struct role;
struct writer;

enum writer_kind { WRITER_PUT, WRITER_DELETE, WRITER_BUCKET_PUT, WRITER_BUCKET_DROP, WRITER_LOAD, WRITER_CALL };

enum writer_result {
	WRITER_DONE,	  /* changed, durable */
	WRITER_CREATED,	  /* the same, and it was not there before */
	WRITER_UNCHANGED, /* nothing to do */
	WRITER_NO_BUCKET,
	WRITER_NOT_FOUND,    /* no such key */
	WRITER_PRECONDITION, /* the conditions do not hold; version tells the present value's, 0 = none */
	WRITER_FAILED,	     /* error tells */
};

/* RFC 9110 conditions on the version of the present value. */
#define WRITER_TAGS_MAX 16
struct writer_tags {
	int given, any; /* any: "*" */
	unsigned count;
	bts_txid versions[WRITER_TAGS_MAX];
};
struct writer_conditions {
	struct writer_tags match, none_match;
};

struct writer_pair {
	struct bts_slice key, value;
};

struct writer_op;
/*
 * What a WRITER_CALL does in its transaction, on the writer's thread: sets op->result and *changed (something to commit), or
 * returns why it failed (op->error filled, or left to the transaction's own).  Runs again when the group did not fit the disk.
 */
typedef enum bts_err writer_call_fn(struct writer_op *op, struct bts_txn *txn, int *changed);

struct writer_op {
	enum writer_kind kind;
	struct bts_slice bucket;     /* borrowed until handed back, as all slices */
	struct bts_slice key, value; /* PUT, DELETE; BUCKET_PUT: value is the new meta, data NULL = keep */
	uint64_t ttl_ms; /* PUT, LOAD: they live so long from the transaction on; 0 = for ever */
	struct writer_conditions conditions;
	const struct writer_pair *pairs; /* LOAD: put all, in order */
	size_t pair_count;
	size_t bytes; /* weight in the queue: of keys and values */
	writer_call_fn *call; /* CALL */
	void *arg;	      /* its own */
	void *owner;
	void (*done)(struct writer_op *); /* called instead of handing back to an owner; NULL: there is one */

	enum writer_result result;
	bts_txid txid;	  /* the commit, or the state the answer was read from */
	bts_txid version; /* see WRITER_PRECONDITION */
	uint64_t expires_ms; /* PUT with ttl_ms: when it ends, since 1970 */
	uint64_t taken_us; /* CLOCK_MONOTONIC, when its group began */
	struct bts_error error;
	struct writer_op *next; /* the writer's while queued */
};

/* Called on the writer's thread with a batch, linked by next, in order. */
typedef void writer_done_fn(struct writer_op *ops);

/* 0, or -1. */
int writer_start(struct role *, writer_done_fn *done, struct writer **);
/* Runs what is queued, then ends the thread.  NULL is fine. */
void writer_stop(struct writer *);
/* 0, or -1 when the queue is full (or stopping): op was not taken. */
int writer_queue(struct writer *, struct writer_op *op);
/* The same, but to be begun only by the next writer_kick or writer_queue. */
int writer_append(struct writer *, struct writer_op *op);
/*
 * Begin, if nothing is under way, with what has been queued.  A loop says so once it has gone through all its connections that
 * were ready: the batch then has what they brought, not the first of it.
 */
void writer_kick(struct writer *);

/* Whether the conditions hold for what is present, if anything is. */
int writer_holds(const struct writer_conditions *, int present, bts_txid version);

/* Durations in microseconds, in buckets by powers of two from 64 us. */
#define WRITER_HISTOGRAM 18
struct writer_stat {
	uint64_t queued, queued_bytes, refused, operations, groups, group_failures;
	uint64_t flush_us, flush_histogram[WRITER_HISTOGRAM];
	uint64_t batch_histogram[WRITER_HISTOGRAM]; /* operations a group: 1, 2, 4, ... */
};
void writer_stat(struct writer *, struct writer_stat *);
#endif
