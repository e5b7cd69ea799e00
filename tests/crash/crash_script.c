/* A random history: commits of all kinds, groups, replays, pinned readers, failures, closings, with a crash
 * at every write. */
#include "crash.h"

#include <ensure.h>
#include <errno.h>

#define CRASH_VALUE_MAX (1400u << 10)
#define CRASH_GROUP_MAX 5u

struct crash_run {
	struct crash *crash;
	struct env_mem *mem;
	struct bts *db;
	struct crash_watch watch;
	struct crash_oracle now, next; /* acknowledged, in flight */
	bts_txid txid;		       /* newest acknowledged */
	struct bts *reader;
	struct bts_txn *pinned;
	uint64_t pinned_digest, failed; /* calls failed on purpose so far */
	uint8_t *data;
	bool big;
	uint32_t page_size; /* of a new file */
};

static bool run_stopped(const struct crash_run *run)
{
	return run->crash->bad > 0;
}

static void run_failed(
	struct crash_run *run, const char *what, enum bts_err err, const struct bts_error *error)
{
	crash_report(run->crash, "%s: %s: %s", what, bts_err_name(err), error ? error->text : "");
}

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

static enum bts_err run_put(
	struct crash_run *run, struct bts_txn *txn, struct bts_bucket *bucket, unsigned b, unsigned k)
{
	uint32_t size = run_size(run), seed = (uint32_t)rng_next(&run->crash->rng);
	enum bts_err err;
	char text[64];

	crash_value_fill(run->data, size, seed);
	err = bts_put(txn, bucket, crash_key(b, k, text), (struct bts_slice){run->data, size}, 0);
	if (!err)
		crash_oracle_put(&run->next, b, k, size, seed);
	return err;
}

/* One random change, made to the transaction and to the oracle.  parity: keys of one kind only, 2 = any. */
static enum bts_err run_change(struct crash_run *run, struct bts_txn *txn, unsigned parity)
{
	struct rng *rng = &run->crash->rng;
	unsigned b = (unsigned)rng_below(rng, CRASH_BUCKETS), k = (unsigned)rng_below(rng, CRASH_KEYS);
	struct bts_error error = {BTS_OK, 0, ""};
	struct bts_bucket *bucket;
	enum bts_err err;
	char text[64];

	if (parity < 2) {
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
	err = bts_del(txn, bucket, crash_key(b, k, text));
	if (err != (run->next.values[b][k].present ? BTS_OK : BTS_NOT_FOUND))
		return err ? err : BTS_CORRUPT;
	run->next.values[b][k].present = false;
	return BTS_OK;
}

/* Down to nothing: every key of a bucket deleted one by one, or every bucket dropped. */
static enum bts_err run_wipe(struct crash_run *run, struct bts_txn *txn)
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
				err = bts_del(txn, bucket, crash_key(b, k, text));
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

static enum bts_err run_changes(struct crash_run *run, struct bts_txn *txn, unsigned most, unsigned parity)
{
	enum bts_err err = BTS_OK;

	for (uint64_t n = 1 + rng_below(&run->crash->rng, most); n > 0 && !err; n--)
		err = run_change(run, txn, parity);
	if (!err && parity == 2 && rng_one_in(&run->crash->rng, 4))
		err = run_snapshot(run, txn);
	if (err)
		run_failed(run, "a change", err, bts_txn_error(txn));
	return err;
}

static void run_expect(struct crash_run *run, unsigned transactions)
{
	run->watch.states[0] = crash_oracle_digest(&run->now);
	run->watch.states[1] = crash_oracle_digest(&run->next);
	run->watch.count = 2;
	run->watch.in_flight = run->txid + transactions;
}

static void run_settled(struct crash_run *run)
{
	run->watch.states[0] = crash_oracle_digest(&run->now);
	run->watch.count = 1;
	run->watch.in_flight = 0;
}

/* Poisoned: nothing more may be acknowledged; the state is one of two until somebody opens it. */
static void run_refused(struct crash_run *run)
{
	struct bts_error error = {BTS_OK, 0, ""};
	bts_txid txid;

	run->crash->counts.refused++;
	if (crash_probe_put(run->db, 900, &txid, &error) == BTS_OK)
		crash_report(run->crash, "I7: a commit after a failed flush or write");
}

/* *reopen: the handle is of no use any more. */
static void run_result(
	struct crash_run *run, enum bts_err err, bts_txid txid, const struct bts_error *error, bool *reopen)
{
	bool planned = env_mem_failed(run->mem) > run->failed;

	run->failed = env_mem_failed(run->mem);
	env_mem_fail_clear(run->mem);
	*reopen = false;
	if (err == BTS_OK) {
		run->crash->counts.commits++;
		crash_oracle_committed(&run->next);
		run->now = run->next;
		run->txid = txid;
		run_settled(run);
	} else if (planned && err == BTS_FULL) {
		run->next = run->now;
		run_settled(run);
	} else if (planned) {
		run_refused(run);
		*reopen = true;
	} else {
		run_failed(run, "commit", err, error);
	}
}

static void run_plan_failure(struct crash_run *run)
{
	struct rng *rng = &run->crash->rng;

	switch (rng_below(rng, 5)) {
	case 0:
		env_mem_fail(run->mem, ENV_MEM_WRITE, 1 + rng_below(rng, 2),
			rng_one_in(rng, 2) ? ENOSPC : EDQUOT, ENV_MEM_PARTIAL);
		break;
	case 1:
		env_mem_fail(run->mem, ENV_MEM_WRITE, 1 + rng_below(rng, 3), EIO, ENV_MEM_PARTIAL);
		break;
	default:
		env_mem_fail(run->mem, ENV_MEM_SYNC, 1 + rng_one_in(rng, 4), EIO, ENV_MEM_DROP);
	}
}

static void run_commit(struct crash_run *run, bool *reopen)
{
	struct bts_error error = {BTS_OK, 0, ""};
	struct bts_txn *txn;
	bts_txid txid;
	enum bts_err err;

	err = bts_begin(run->db, BTS_WRITE, &txn, &error);
	if (err) {
		run_failed(run, "begin", err, &error);
		return;
	}
	if (rng_one_in(&run->crash->rng, 10))
		err = run_wipe(run, txn);
	else
		err = run_changes(run, txn, rng_one_in(&run->crash->rng, 6) ? 40 : 4, 2);
	if (err) {
		bts_abort(txn);
		return;
	}
	run_expect(run, 1);
	if (rng_one_in(&run->crash->rng, 7))
		run_plan_failure(run);
	err = bts_commit_id(txn, &txid, &error);
	if (err == BTS_CONFLICT)
		bts_abort(txn);
	run_result(run, err, txid, &error, reopen);
}

static void run_group(struct crash_run *run, bool *reopen)
{
	unsigned count = 1 + (unsigned)rng_below(&run->crash->rng, CRASH_GROUP_MAX), kept = 0;
	struct bts_error error = {BTS_OK, 0, ""};
	struct bts_group *group;
	struct bts_txn *txn;
	bts_txid txid = run->txid;
	enum bts_err err;

	err = bts_group_begin(run->db, &group, &error);
	for (unsigned i = 0; i < count && !err; i++) {
		struct crash_oracle before = run->next;

		err = bts_group_txn(group, &txn, &error);
		if (!err)
			err = run_changes(run, txn, 3, 2);
		if (err)
			break;
		if (rng_one_in(&run->crash->rng, 5)) {
			run->next = before;
			bts_abort(txn);
			continue;
		}
		err = bts_commit_id(txn, &txid, &error);
		kept++;
	}
	if (err) {
		run_failed(run, "a transaction of a group", err, &error);
		return;
	}
	run_expect(run, kept);
	err = bts_group_commit(group, &error);
	run_result(run, err, txid, &error, reopen);
}

/* Two private transactions from one snapshot: the second is validated and replayed on the first. */
static void run_pair(struct crash_run *run, bool *reopen)
{
	struct bts_error error = {BTS_OK, 0, ""};
	struct crash_oracle start = run->now, second;
	struct bts_txn *txns[2] = {NULL, NULL};
	bts_txid txid = 0;
	enum bts_err err = BTS_OK;

	for (unsigned i = 0; i < 2 && !err; i++) {
		err = bts_begin(run->db, BTS_WRITE, &txns[i], &error);
		run->next = start;
		if (!err)
			err = run_changes(run, txns[i], 3, i);
		if (!i)
			second = run->next;
	}
	if (err) {
		bts_abort(txns[0]);
		bts_abort(txns[1]);
		return;
	}
	for (unsigned b = 0; b < CRASH_BUCKETS; b++) {
		for (unsigned k = 0; k < CRASH_KEYS; k += 2)
			run->next.values[b][k] = second.values[b][k];
	}
	for (unsigned i = 0; i < 2; i++) {
		struct crash_oracle both = run->next;

		if (!i)
			run->next = second;
		run_expect(run, 1);
		err = bts_commit_id(txns[i], &txid, &error);
		if (err == BTS_CONFLICT &&
			i) { /* a deletion in the same leaf conflicts, with any absent key there */
			bts_abort(txns[i]);
			run->next = run->now;
			run_settled(run);
			return;
		}
		run_result(run, err, txid, &error, reopen);
		run->next = both;
	}
}

static void run_unpin(struct crash_run *run)
{
	uint64_t digest = 0;
	const char *wrong;

	if (!run->pinned)
		return;
	wrong = crash_digest(run->pinned, &digest);
	if (wrong || digest != run->pinned_digest)
		crash_report(run->crash, "G1: a pinned snapshot has changed: %s",
			wrong ? wrong : "other contents");
	bts_abort(run->pinned);
	run->pinned = NULL;
	bts_close(run->reader);
	run->reader = NULL;
}

static void run_emptied(struct crash_run *run, bool *reopen)
{
	struct bts_error error = {BTS_OK, 0, ""};
	struct bts_txn *txn;
	bts_txid txid;
	enum bts_err err = bts_begin(run->db, BTS_WRITE, &txn, &error);

	for (unsigned i = 0; i < CRASH_SNAPSHOTS && !err; i++) {
		if (run->next.snapshots[i].present)
			err = bts_snapshot_delete(txn, crash_snapshot_name(i), &error);
		run->next.snapshots[i].present = run->next.snapshots[i].fresh = false;
	}
	for (unsigned b = 0; b < CRASH_BUCKETS && !err; b++) {
		if (run->next.bucket[b])
			err = bts_bucket_drop(txn, crash_bucket_name(b), &error);
		crash_oracle_drop(&run->next, b);
	}
	if (err) {
		run_failed(run, "emptying", err, &error);
		return;
	}
	run_expect(run, 1);
	err = bts_commit_id(txn, &txid, &error);
	run_result(run, err, txid, &error, reopen);
	run_unpin(run);
}

/* Compaction changes no contents; every step is a commit, and may cut the file. */
static void run_compact(struct crash_run *run, bool *reopen)
{
	struct bts_compact_info info = {.size = sizeof(info), .more = 1};
	struct bts_stat stat = {.size = sizeof(stat)};
	struct bts_error error = {BTS_OK, 0, ""};
	unsigned steps = 1 + (unsigned)rng_below(&run->crash->rng, run->big ? 12 : 4);

	if (run->big) /* small files are never cut: what they keep ready is more than what they have */
		run_emptied(run, reopen);
	while (steps-- > 0 && info.more && !*reopen) {
		enum bts_err err;

		info.size = sizeof(info);
		run->next = run->now;
		run_expect(run, 1);
		if (rng_one_in(&run->crash->rng, 10))
			run_plan_failure(run);
		err = bts_compact_step(run->db, 1 + rng_below(&run->crash->rng, 60), &info, &error);
		if (!err && bts_stat(run->db, &stat, NULL))
			crash_report(run->crash, "stat fails");
		run->crash->counts.cuts += !err && info.pages_truncated > 0;
		run_result(run, err, stat.txid, &error, reopen);
		if (err)
			break;
	}
}

static void run_pin(struct crash_run *run)
{
	struct bts_options options = crash_options(run->mem, BTS_OPEN_READ_ONLY);
	struct bts_error error = {BTS_OK, 0, ""};
	enum bts_err err;

	run_unpin(run);
	err = bts_open(CRASH_PATH, &options, &run->reader, &error);
	if (!err)
		err = bts_begin(run->reader, BTS_READ, &run->pinned, &error);
	if (err)
		run_failed(run, "a reader", err, &error);
	else if (crash_digest(run->pinned, &run->pinned_digest) ||
		 run->pinned_digest != crash_oracle_contents(&run->now))
		crash_report(run->crash, "a new snapshot is not the newest commit");
}

/* After a clean close either slot alone is enough (I10). */
static void run_lose_a_slot(struct crash_run *run)
{
	for (unsigned side = 0; side < 2; side++) {
		struct env_mem *image = env_mem_crash(run->mem, env_mem_choose_newest, NULL);

		env_mem_flip(image, CRASH_PATH, side * 32768 + rng_below(&run->crash->rng, 300), 0x10);
		crash_judge(&run->watch, image);
		env_mem_free(image);
	}
}

static void run_open(struct crash_run *run)
{
	struct bts_options options = crash_options(run->mem, 0);
	struct bts_stat stat = {.size = sizeof(stat)};
	struct bts_error error = {BTS_OK, 0, ""};
	struct bts_txn *txn;
	uint64_t digest = 0;
	const char *wrong;
	enum bts_err err;

	options.page_size = run->page_size;
	err = bts_open(CRASH_PATH, &options, &run->db, &error);
	if (!err)
		err = bts_begin(run->db, BTS_READ, &txn, &error);
	if (err) {
		run_failed(run, "open", err, &error);
		return;
	}
	wrong = crash_digest_all(run->db, txn, &digest);
	bts_abort(txn);
	if (wrong) {
		crash_report(run->crash, "reopened: %s", wrong);
	} else if (run->watch.count == 2 && digest == run->watch.states[1]) {
		crash_oracle_committed(&run->next);
		run->now = run->next;
	} else if (digest != run->watch.states[0]) {
		crash_report(
			run->crash, "reopened: contents are neither those acknowledged nor those in flight");
	}
	run->next = run->now;
	run->watch.exists = true;
	run_settled(run);
	if (bts_stat(run->db, &stat, NULL))
		crash_report(run->crash, "stat fails");
	run->txid = stat.txid;
}

static void run_reopen(struct crash_run *run, bool clean)
{
	run_unpin(run);
	bts_close(run->db);
	run->db = NULL;
	crash_images(&run->watch, run->mem);
	if (clean && !run_stopped(run))
		run_lose_a_slot(run);
	run_open(run);
}

static void run_step(struct crash_run *run)
{
	struct rng *rng = &run->crash->rng;
	bool reopen = false;

	run->next = run->now;
	switch (rng_below(rng, 16)) {
	case 0:
		run_reopen(run, true);
		break;
	case 1:
	case 2:
		run_pin(run);
		break;
	case 3:
	case 4:
	case 5:
		run_group(run, &reopen);
		break;
	case 6:
		run_pair(run, &reopen);
		break;
	case 7:
	case 8:
		run_compact(run, &reopen);
		break;
	default:
		run_commit(run, &reopen);
	}
	if (reopen && !run_stopped(run))
		run_reopen(run, false);
	if (run->pinned && rng_one_in(rng, 5))
		run_unpin(run);
}

static const struct {
	unsigned effort, steps; /* images a moment; steps a step of the caller */
	size_t reserve;
} crash_kinds[CRASH_KINDS] = {
	[CRASH_DENSE] = {60, 1, (size_t)64 << 20},
	[CRASH_BIG] = {12, 1, (size_t)128 << 20},
	[CRASH_LONG] = {3, 5, (size_t)64 << 20},
};

void crash_script(struct crash *crash, uint64_t seed, unsigned steps, enum crash_kind kind)
{
	struct crash_run *run = calloc(1, sizeof(*run));

	ENSURE(run);
	crash->seed = seed;
	/* A seed alone repeats a script. */
	memset(crash->known, 0, crash->seen_cap * sizeof(*crash->known));
	rng_init(&crash->rng, seed);
	run->crash = crash;
	run->big = kind == CRASH_BIG;
	run->page_size = rng_one_in(&crash->rng, 4) ? 16384 : 4096;
	run->data = malloc(CRASH_VALUE_MAX + 8);
	ENSURE(run->data);
	run->mem = env_mem_new(crash_kinds[kind].reserve);
	env_mem_seed(run->mem, seed);
	run->watch.crash = crash;
	run->watch.effort = crash_kinds[kind].effort;
	run_settled(run);
	env_mem_set_hook(run->mem, crash_hook, &run->watch);
	run_open(run);
	for (unsigned i = 0; i < steps * crash_kinds[kind].steps && !run_stopped(run); i++)
		run_step(run);
	if (!run_stopped(run)) {
		run_reopen(run, true);
		bts_close(run->db);
		env_mem_free(run->mem);
	}
	/* After a finding the handles may be in any state: they are left to the operating system. */
	free(run->data);
	free(run);
}
