/*
 * A program that keeps its data in a btree_store of its own, replicated: it links the library alone and speaks no network.
 * bts-replicator, started beside it on the same file, feeds followers.  Each commit is durable here when bts_commit_id returns;
 * whether followers have it too is read from what they have acknowledged, which the library shows to every process on the file.
 *
 *	cc embedded_writer.c $(pkg-config --cflags --libs btree_store) -o embedded_writer
 *	./embedded_writer events.bts 1 &
 *	bts-replicator --data events.bts --listen 127.0.0.1:7000 &
 *	btsd follower --data copy.bts --listen 127.0.0.1:8000 --from http://127.0.0.1:7000
 *
 * Prints "NUMBER TXID here" for each event, or "NUMBER TXID replicated" when COPIES followers have it.  With --admin at bts-replicator
 * another node can take over while this runs: then it prints "NUMBER 0 fenced", the last event there is, and waits until it may write again.
 */
#include <btree_store.h>
#include <btree_store/ship.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ACKS_MAX 64    /* the library keeps no more */
#define PATIENCE_MS 5000 /* how long an event's copies are waited for */

static void die(const char *what, const struct bts_error *error)
{
	fprintf(stderr, "%s: %s (%s)\n", what, error->text, bts_err_name(error->code));
	exit(1);
}

/* Event number `number`, and the count of events beside it, in one transaction. */
static enum bts_err put_event(struct bts_txn *txn, uint64_t number)
{
	struct bts_bucket *bucket;
	char key[24], value[48];
	enum bts_err err = bts_bucket(txn, (struct bts_slice){"events", 6}, BTS_CREATE, &bucket, NULL);

	if (err)
		return err;
	snprintf(key, sizeof(key), "%012" PRIu64, number);
	snprintf(value, sizeof(value), "event %" PRIu64, number);
	err = bts_put(txn, bucket, (struct bts_slice){key, strlen(key)}, (struct bts_slice){value, strlen(value)}, 0);
	if (err)
		return err;
	snprintf(value, sizeof(value), "%" PRIu64, number);
	return bts_put(txn, bucket, (struct bts_slice){"last", 4}, (struct bts_slice){value, strlen(value)}, 0);
}

/* The number of the last event that is in the file, 0 when there is none. */
static uint64_t last_event(struct bts *db)
{
	struct bts_bucket *bucket;
	struct bts_slice value;
	struct bts_error error;
	struct bts_txn *txn;
	char text[24] = "0";
	enum bts_err err;

	if (bts_begin(db, BTS_READ, &txn, &error))
		die("begin", &error);
	err = bts_bucket(txn, (struct bts_slice){"events", 6}, 0, &bucket, &error);
	if (err == BTS_OK)
		err = bts_get(txn, bucket, (struct bts_slice){"last", 4}, &value);
	if (err && err != BTS_NOT_FOUND)
		die("read", bts_txn_error(txn));
	if (err == BTS_OK && value.size < sizeof(text)) {
		memcpy(text, value.data, value.size);
		text[value.size] = '\0';
	}
	bts_abort(txn);
	return strtoull(text, NULL, 10);
}

/* How many followers have it.  A number is only known together with its epoch: another one may be another history's. */
static unsigned copies_of(struct bts *db, const struct bts_position *commit)
{
	struct bts_ack acks[ACKS_MAX];
	size_t count = bts_ack_list(db, acks, ACKS_MAX), i;
	unsigned copies = 0;

	for (i = 0; i < count && i < ACKS_MAX; i++)
		copies += acks[i].epoch == commit->epoch && acks[i].epoch_random == commit->epoch_random &&
			  acks[i].txid >= commit->txid;
	return copies;
}

/* Sleeps until acknowledgements come; each look is at a list at least as new as the count seen before it. */
static int is_replicated(struct bts *db, const struct bts_position *commit, unsigned copies)
{
	struct timespec now;
	uint32_t seen = 0;
	uint64_t end = 0, ms;

	for (;;) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
		end = end ? end : ms + PATIENCE_MS;
		if (bts_ack_wait(db, &seen, ms < end ? (unsigned)(end - ms) : 0) == BTS_TIMEOUT)
			return copies_of(db, commit) >= copies;
		if (copies_of(db, commit) >= copies)
			return 1;
	}
}

/* 0: another node is to write now, and the event was not. */
static int commit_event(struct bts *db, uint64_t number, unsigned copies)
{
	struct bts_position commit;
	struct bts_error error;
	struct bts_txn *txn;
	bts_txid txid;
	enum bts_err err = bts_begin(db, BTS_WRITE, &txn, &error);

	if (err == BTS_FENCED)
		return 0;
	if (err)
		die("begin", &error);
	if (put_event(txn, number))
		die("put", bts_txn_error(txn));
	err = bts_commit_id(txn, &txid, &error); /* durable in this file */
	if (err == BTS_FENCED)
		return 0;
	if (err)
		die("commit", &error);
	if (bts_ship_position(db, &commit, &error))
		die("position", &error);
	commit.txid = txid;
	printf("%" PRIu64 " %" PRIu64 " %s\n", number, (uint64_t)txid,
		copies && is_replicated(db, &commit, copies) ? "replicated" : "here");
	fflush(stdout);
	return 1;
}

/* The file was taken from us (demote).  It may be given back; until then it can be read, also while it follows another node. */
static void await_role(struct bts *db)
{
	const struct timespec moment = {0, 20000000};
	struct bts_role role = {.size = sizeof(role)};
	struct bts_error error;

	printf("%" PRIu64 " 0 fenced\n", last_event(db));
	fflush(stdout);
	do {
		nanosleep(&moment, NULL);
		if (bts_role(db, &role, &error))
			die("role", &error);
	} while (role.role != BTS_ROLE_PRIMARY);
}

int main(int argc, char **argv)
{
	unsigned copies = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : 0;
	uint64_t left = argc > 3 ? strtoull(argv[3], NULL, 10) : UINT64_MAX, number;
	struct bts_options options;
	struct bts_error error;
	struct bts *db;

	if (argc < 2 || argc > 4) {
		fprintf(stderr, "usage: %s FILE [COPIES [COUNT]]\n", argv[0]);
		return 2;
	}
	bts_options_init(&options);
	if (bts_open(argv[1], &options, &db, &error))
		die(argv[1], &error);
	printf("ready\n");
	for (number = last_event(db) + 1; left > 0;) {
		if (commit_event(db, number, copies)) {
			number++;
			left--;
		} else {
			await_role(db);
			number = last_event(db) + 1; /* others may have written meanwhile */
		}
	}
	bts_close(db);
	return 0;
}
