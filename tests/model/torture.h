/*
 * The torture of one file by many processes: what workers and their supervisor agree on.
 *
 * A worker owns a place: a set of keys that no other place writes.  All places write the shared counters and accounts.
 * Every value is made from a stamp, a number given once, so a value tells which transaction wrote it.  A worker
 * reports what a transaction will change right before it commits (intent) and that it was acknowledged (ack); the
 * supervisor keeps books of both (torture_books.c) and holds the file against them.
 */
#ifndef TORTURE_H
#define TORTURE_H

#include <btree_store.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define TORTURE_PLACES 8u
#define TORTURE_KEYS 96u /* of a place */
#define TORTURE_JOURNAL                                                                                      \
	TORTURE_KEYS /* an own key too: written by every transaction that changes shared keys */
#define TORTURE_BUCKET (TORTURE_KEYS + 1) /* stands for a bucket of the place's own, created and dropped */
#define TORTURE_OWN (TORTURE_KEYS + 2)
#define TORTURE_COUNTERS 6u
#define TORTURE_ACCOUNTS 24u
#define TORTURE_BALANCE 1000 /* of each account in the beginning */
#define TORTURE_CHANGES 48u  /* of one transaction or group, at most */
#define TORTURE_VALUE_MAX 40000u

enum torture_kind { TORTURE_SET_OWN, TORTURE_ADD_COUNTER, TORTURE_ADD_ACCOUNT };

struct torture_change {
	uint32_t kind, index;
	int64_t value; /* own: the stamp, 0 = absent; counter and account: what is added */
};

enum torture_type {
	TORTURE_INVENTORY, /* a new worker made a commit of its own and then read its place: own[] */
	TORTURE_INTENT,	   /* the transaction `stamp` enters its commit; again after a conflict */
	TORTURE_ACK,	   /* it is durable, and so is what this worker committed before */
	TORTURE_ASYNC,	   /* it is committed, not yet durable */
	TORTURE_ABANDON,   /* it conflicted and is given up */
	TORTURE_PAUSED,
	TORTURE_LEAVING, /* all closed, exits with 0 */
	TORTURE_WRONG,	 /* text says what */
};

struct torture_message {
	uint32_t type, size; /* bytes in all, at most PIPE_BUF: written by one call */
	uint64_t time;	     /* CLOCK_MONOTONIC, ns */
	uint64_t stamp;
	union {
		struct torture_change changes[TORTURE_CHANGES];
		uint64_t own[TORTURE_OWN];
		char text[512];
	} u;
};

/* What workers do. */
enum torture_deed {
	TORTURE_DEED_PUT,
	TORTURE_DEED_MANY,
	TORTURE_DEED_COUNT,
	TORTURE_DEED_TRANSFER,
	TORTURE_DEED_BUCKET,
	TORTURE_DEED_COMMON,
	TORTURE_DEED_DUTY,
	TORTURE_DEED_GROUP,
	TORTURE_DEED_ASYNC,
	TORTURE_DEED_ABORT,
	TORTURE_DEED_VIEW,
	TORTURE_DEED_PIN,
	TORTURE_DEED_READ_ONLY,
	TORTURE_DEED_REOPEN,
	TORTURE_DEED_LEAVE,
	TORTURE_DEEDS,
	/* tallied, not chosen */
	TORTURE_DEED_CONFLICT = TORTURE_DEEDS,
	TORTURE_DEED_ABANDON,
	TORTURE_DEED_BUSY,
	TORTURE_DEED_UNAVAILABLE,
	TORTURE_TALLIES
};
extern const char *const torture_deed_names[TORTURE_TALLIES];

/* Shared memory of supervisor and workers. */
struct torture_control {
	_Atomic int pause; /* workers say so and wait for a byte on their input */
	_Atomic uint64_t tally[TORTURE_TALLIES];
};

#define TORTURE_INPUT 3 /* a worker's descriptors: commands, reports, the control memory */
#define TORTURE_REPORTS 4
#define TORTURE_CONTROL 5

uint64_t torture_now(void);

/* Names of keys, all in bucket torture_data; keys of the places alternate, so that they share leaves. */
extern const struct bts_slice torture_data, torture_common;
struct bts_slice torture_own_key(char room[32], unsigned place, unsigned index);
struct bts_slice torture_number_key(
	char room[32], const char *what, unsigned index); /* "counter", "account", "duty" */
struct bts_slice torture_bucket_name(char room[32], unsigned place);

/* The value of a stamp, in a buffer of TORTURE_VALUE_MAX bytes; the stamp of a value, UINT64_MAX when it is not whole. */
struct bts_slice torture_value(uint8_t *buffer, uint64_t stamp);
uint64_t torture_stamp(struct bts_slice value);

/* Reading a snapshot; the error that was met, *wrong (borrowed) says what is not as it should be. */
enum bts_err torture_read_own(
	struct bts_txn *txn, unsigned place, uint64_t own[TORTURE_OWN], const char **wrong);
struct torture_shared {
	int64_t counters[TORTURE_COUNTERS], accounts[TORTURE_ACCOUNTS], duty[2];
};
enum bts_err torture_read_shared(struct bts_txn *txn, struct torture_shared *shared, const char **wrong);
enum bts_err torture_put_number(
	struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key, int64_t number);
enum bts_err torture_get_number(
	struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key, int64_t *number);

/* The worker: never returns. */
_Noreturn void torture_work(const char *path, unsigned place, uint64_t seed, uint64_t stamps);

/* The books.  A place's intents that are not settled yet stand in order; a crash keeps a prefix of them. */
struct torture_intent {
	uint64_t stamp;
	bool async; /* acknowledged as committed, not as durable */
	unsigned count;
	struct torture_change changes[TORTURE_CHANGES];
};
struct torture_books {
	struct {
		uint64_t own[TORTURE_OWN];
		struct torture_intent intents[16];
		unsigned count;
	} places[TORTURE_PLACES];
	int64_t counters[TORTURE_COUNTERS], accounts[TORTURE_ACCOUNTS];
	uint64_t acknowledged, in_flight_kept, in_flight_lost, async_lost;
};
void torture_books_intent(struct torture_books *books, unsigned place, const struct torture_message *message);
void torture_books_ack(struct torture_books *books, unsigned place, uint64_t stamp);
void torture_books_async(struct torture_books *books, unsigned place, uint64_t stamp);
void torture_books_abandon(struct torture_books *books, unsigned place, uint64_t stamp);
/* The place was read when nothing of it can be in flight: settles its intents.  False: no prefix of them explains it. */
bool torture_books_settle(struct torture_books *books, unsigned place, const uint64_t own[TORTURE_OWN]);
bool torture_books_shared(const struct torture_books *books, const struct torture_shared *shared);

#endif
