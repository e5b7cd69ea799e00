/* What the transactions of a script do, to the database and to the oracle alike. */
#include "crash_run.h"

#include <ensure.h>

static uint32_t run_size(struct crash_run *run)
{
	struct rng *rng = &run->crash->rng;

	switch (rng_below(rng, run->big ? 11 : 10)) {
	case 10:
		return (1100u << 10) + (uint32_t)rng_below(rng, CRASH_VALUE_MAX - (1100u << 10));
	case 9:
		return 3000 + (uint32_t)rng_below(rng, 30000);
	case 8:
	case 7:
		return 400 + (uint32_t)rng_below(rng, 1200);
	default:
		return (uint32_t)rng_below(rng, 200);
	}
}

/* In pieces, of announced length or not. */
static enum bts_err run_stream(struct crash_run *run, struct bts_txn *txn, struct bts_bucket *bucket,
	struct bts_slice key, uint32_t size)
{
	struct rng *rng = &run->crash->rng;
	uint64_t announced = rng_one_in(rng, 2) ? size : BTS_SIZE_UNKNOWN;
	uint32_t at = 0, piece = 1 + (uint32_t)rng_below(rng, size + 1);
	struct bts_stream *stream;
	enum bts_err err = bts_put_begin(txn, bucket, key, announced, 0, &stream, NULL);

	if (err)
		return err;
	while (at < size && !err) {
		uint32_t now = size - at < piece ? size - at : piece;

		err = bts_put_write(stream, (struct bts_slice){run->data + at, now});
		at += now;
	}
	if (err) {
		bts_put_abort(stream);
		return err;
	}
	return bts_put_end(stream, NULL);
}

static enum bts_err run_put(
	struct crash_run *run, struct bts_txn *txn, struct bts_bucket *bucket, unsigned b, unsigned k)
{
	uint32_t size = run_size(run), seed = (uint32_t)rng_next(&run->crash->rng);
	enum bts_err err;
	char text[64];

	crash_value_fill(run->data, size, seed);
	if (size > 300 && rng_one_in(&run->crash->rng, 4))
		err = run_stream(run, txn, bucket, crash_key(k, text), size);
	else
		err = bts_put(txn, bucket, crash_key(k, text), (struct bts_slice){run->data, size}, 0);
	if (!err)
		crash_oracle_put(&run->next, b, k, size, seed);
	return err;
}

/* One random change, made to the transaction and to the oracle. */
static enum bts_err run_change(struct crash_run *run, struct bts_txn *txn, unsigned parity)
{
	struct rng *rng = &run->crash->rng;
	unsigned b = (unsigned)rng_below(rng, CRASH_BUCKETS), k = (unsigned)rng_below(rng, CRASH_KEYS);
	struct bts_error error = {BTS_OK, 0, ""};
	struct bts_bucket *bucket;
	enum bts_err err;
	char text[64];

	if (parity != CRASH_ANY_KEY) {
		k = k / 2 * 2 + parity;
		if (!run->next.bucket[b])
			return BTS_OK;
	} else if (run->next.bucket[b] && rng_one_in(rng, 40)) {
		err = bts_bucket_drop(txn, crash_bucket_name(b), &error);
		crash_oracle_drop(&run->next, b);
		return err;
	}
	err = bts_bucket(txn, crash_bucket_name(b), BTS_CREATE, &bucket, &error);
	if (err)
		return err;
	run->next.bucket[b] = true;
	if (!rng_one_in(rng, 4))
		return run_put(run, txn, bucket, b, k);
	err = bts_del(txn, bucket, crash_key(k, text));
	if (err != (run->next.values[b][k].present ? BTS_OK : BTS_NOT_FOUND))
		return err ? err : BTS_CORRUPT;
	run->next.values[b][k].present = false;
	return BTS_OK;
}

/* Keys from .. below to. */
static enum bts_err run_cut(struct crash_run *run, struct bts_txn *txn, struct bts_bucket *bucket, unsigned b,
	unsigned from, unsigned to)
{
	struct bts_slice end = {NULL, 0};
	unsigned last = to < CRASH_KEYS ? to : CRASH_KEYS;
	uint64_t deleted, expected = 0;
	char low[64], high[64];
	enum bts_err err;

	if (to < CRASH_KEYS)
		end = crash_key(to, high);
	err = bts_del_range(txn, bucket, crash_key(from, low), end, &deleted);
	for (unsigned k = from; k < last; k++) {
		expected += run->next.values[b][k].present;
		run->next.values[b][k].present = false;
	}
	return err == BTS_OK && deleted != expected ? BTS_CORRUPT : err;
}

/* The end of a bucket, anew, all at once. */
static enum bts_err run_load(
	struct crash_run *run, struct bts_txn *txn, struct bts_bucket *bucket, unsigned b, unsigned from)
{
	struct bts_load *load;
	enum bts_err err = run_cut(run, txn, bucket, b, from, CRASH_KEYS);
	char text[64];

	if (!err)
		err = bts_load_begin(txn, bucket, 0, &load, NULL);
	if (err)
		return err;
	for (unsigned k = from; k < CRASH_KEYS && !err; k++) {
		uint32_t size = run_size(run), seed = (uint32_t)rng_next(&run->crash->rng);

		if (rng_one_in(&run->crash->rng, 3))
			continue;
		crash_value_fill(run->data, size, seed);
		err = bts_load_add(load, crash_key(k, text), (struct bts_slice){run->data, size});
		crash_oracle_put(&run->next, b, k, size, seed);
	}
	if (err) {
		bts_load_abort(load);
		return err;
	}
	return bts_load_end(load, NULL);
}

/* Many keys or a whole bucket at once. */
static enum bts_err run_sweep(struct crash_run *run, struct bts_txn *txn)
{
	struct rng *rng = &run->crash->rng;
	unsigned b = (unsigned)rng_below(rng, CRASH_BUCKETS), to = (unsigned)rng_below(rng, CRASH_BUCKETS);
	unsigned from = (unsigned)rng_below(rng, CRASH_KEYS);
	struct bts_bucket *bucket;
	enum bts_err err;

	if (!run->next.bucket[b])
		return BTS_OK;
	if (rng_one_in(rng, 3)) {
		err = bts_bucket_rename(txn, crash_bucket_name(b), crash_bucket_name(to), NULL);
		if (run->next.bucket[to])
			return err == BTS_EXISTS ? BTS_OK : BTS_CORRUPT;
		crash_oracle_rename(&run->next, b, to);
		return err;
	}
	err = bts_bucket(txn, crash_bucket_name(b), 0, &bucket, NULL);
	if (err)
		return err;
	if (!run->big && rng_one_in(rng, 3))
		return run_load(run, txn, bucket, b, from);
	return run_cut(run, txn, bucket, b, from, from + 1 + (unsigned)rng_below(rng, CRASH_KEYS - from));
}

/* Down to nothing: every key of a bucket deleted one by one, or every bucket dropped. */
enum bts_err run_wipe(struct crash_run *run, struct bts_txn *txn)
{
	unsigned only = (unsigned)rng_below(&run->crash->rng, 2 * CRASH_BUCKETS);
	struct bts_bucket *bucket;
	enum bts_err err = BTS_OK;
	char text[64];

	for (unsigned b = 0; b < CRASH_BUCKETS && !err; b++) {
		if (!run->next.bucket[b] || (only < CRASH_BUCKETS && b != only))
			continue;
		if (only >= CRASH_BUCKETS) {
			err = bts_bucket_drop(txn, crash_bucket_name(b), NULL);
			crash_oracle_drop(&run->next, b);
			continue;
		}
		err = bts_bucket(txn, crash_bucket_name(b), 0, &bucket, NULL);
		for (unsigned k = 0; k < CRASH_KEYS && !err; k++) {
			if (run->next.values[b][k].present)
				err = bts_del(txn, bucket, crash_key(k, text));
			run->next.values[b][k].present = false;
		}
	}
	if (err)
		run_failed(run, "deleting all", err, bts_txn_error(txn));
	return err;
}

static enum bts_err run_snapshot(struct crash_run *run, struct bts_txn *txn)
{
	unsigned i = (unsigned)rng_below(&run->crash->rng, CRASH_SNAPSHOTS);
	bool *present = &run->next.snapshots[i].present;
	enum bts_err err;

	if (*present)
		err = bts_snapshot_delete(txn, crash_snapshot_name(i), NULL);
	else
		err = bts_snapshot_create(txn, crash_snapshot_name(i), NULL);
	*present = !*present;
	run->next.snapshots[i].fresh = *present;
	return err;
}

static enum bts_err run_some(struct crash_run *run, struct bts_txn *txn, unsigned most, unsigned parity)
{
	enum bts_err err = BTS_OK;

	for (uint64_t n = 1 + rng_below(&run->crash->rng, most); n > 0 && !err; n--)
		err = run_change(run, txn, parity);
	if (!err && parity == CRASH_ANY_KEY && rng_one_in(&run->crash->rng, 6))
		err = run_sweep(run, txn);
	return err;
}

/* What is done after a savepoint is kept or, mostly, undone. */
static enum bts_err run_savepoint(struct crash_run *run, struct bts_txn *txn, unsigned most, unsigned parity)
{
	struct crash_oracle *before = malloc(sizeof(*before));
	uint32_t id;
	enum bts_err err;

	ENSURE(before);
	*before = run->next;
	err = bts_savepoint(txn, &id, NULL);
	if (!err)
		err = run_some(run, txn, most, parity);
	if (!err && rng_one_in(&run->crash->rng, 3)) {
		err = bts_savepoint_release(txn, id, NULL);
	} else if (!err) {
		err = bts_savepoint_rollback(txn, id, NULL);
		run->next = *before;
	}
	free(before);
	return err;
}

enum bts_err run_changes(struct crash_run *run, struct bts_txn *txn, unsigned most, unsigned parity)
{
	enum bts_err err = run_some(run, txn, most, parity);

	if (!err && rng_one_in(&run->crash->rng, 4))
		err = run_savepoint(run, txn, most, parity);
	if (!err && parity == CRASH_ANY_KEY && rng_one_in(&run->crash->rng, 4))
		err = run_snapshot(run, txn);
	if (err)
		run_failed(run, "a change", err, bts_txn_error(txn));
	return err;
}

/* Somebody deletes a range while another transaction changes a key in it. */
void run_clash(struct crash_run *run)
{
	struct rng *rng = &run->crash->rng;
	unsigned b = (unsigned)rng_below(rng, CRASH_BUCKETS), k = (unsigned)rng_below(rng, CRASH_KEYS - 1);
	struct bts_error error = {BTS_OK, 0, ""};
	struct bts_txn *txn = NULL, *other = NULL;
	struct bts_bucket *bucket;
	enum bts_err err;
	bts_txid txid;
	bool reopen;
	char text[64];

	if (!run->next.values[b][k].present)
		return;
	err = bts_begin(run->db, BTS_WRITE, &txn, &error);
	if (!err)
		err = bts_bucket(txn, crash_bucket_name(b), 0, &bucket, &error);
	if (!err)
		err = bts_put(txn, bucket, crash_key(k, text), (struct bts_slice){"late", 4}, 0);
	if (!err)
		err = bts_begin(run->others[0] ? run->others[0] : run->db, BTS_WRITE, &other, &error);
	if (!err)
		err = bts_bucket(other, crash_bucket_name(b), 0, &bucket, &error);
	if (!err)
		err = run_cut(run, other, bucket, b, k, k + 1 + (unsigned)rng_below(rng, 3));
	if (err) {
		run_failed(run, "a clash", err, &error);
		return;
	}
	run_expect(run, 1);
	err = bts_commit_id(other, &txid, &error);
	run_result(run, err, txid, &error, &reopen);
	if (err == BTS_OK && bts_commit(txn, &error) != BTS_CONFLICT) {
		crash_report(run->crash, "C1: a key was put that a deleted range had taken away");
		return;
	}
	bts_abort(txn);
}
