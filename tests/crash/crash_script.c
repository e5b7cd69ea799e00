/* A random history: commits of all kinds, groups, replays, pinned readers, failures, closings, with a crash
 * at every write. */
#include "crash_run.h"

#include <ensure.h>
#include <errno.h>

#define CRASH_LOCKS 10000u	     /* more calls are a wait */
#define CRASH_TXN_MEMORY (64u << 10) /* of handles whose transactions spill */

void run_failed(struct crash_run *run, const char *what, enum bts_err err, const struct bts_error *error)
{
	crash_report(run->crash, "%s: %s: %s", what, bts_err_name(err), error ? error->text : "");
}

void run_expect(struct crash_run *run, unsigned transactions)
{
	bts_txid given = run->db ? shared_assigned(run->db->shared) : 0;

	run->watch.states[0] = crash_oracle_digest(&run->durable);
	run->watch.states[1] = crash_oracle_digest(&run->next);
	run->watch.count = 2;
	run->watch.in_flight = (given > run->txid ? given : run->txid) + transactions;
}

void run_settled(struct crash_run *run)
{
	run->watch.states[0] = crash_oracle_digest(&run->durable);
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

void run_result(
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
		if (run->txid < txid)
			run->txid = txid;
		if (shared_durable_txid(run->db->shared) >= txid)
			run->durable = run->now;
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

void run_plan_failure(struct crash_run *run)
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

/* How the transaction is to be committed. */
static unsigned run_flags(struct crash_run *run)
{
	struct rng *rng = &run->crash->rng;
	unsigned flags = 0;

	if (rng_one_in(rng, 4))
		flags |= BTS_ASYNC;
	if (rng_one_in(rng, 6))
		flags |= BTS_EXCLUSIVE;
	if (rng_one_in(rng, 6))
		flags |= BTS_SERIALIZABLE;
	return flags;
}

void run_commit(struct crash_run *run, bool *reopen)
{
	unsigned flags = run_flags(run);
	struct bts_error error = {BTS_OK, 0, ""};
	struct bts_txn *txn;
	bts_txid txid;
	enum bts_err err;

	if (flags & BTS_EXCLUSIVE || !run_is_current(run->db)) /* flushes first */
		run_calm(run, reopen);
	if (*reopen || run_stopped(run))
		return;
	run->next = run->now;
	err = bts_begin(run->db, BTS_WRITE | flags, &txn, &error);
	if (err) {
		run_failed(run, "begin", err, &error);
		return;
	}
	if (rng_one_in(&run->crash->rng, 10))
		err = run_wipe(run, txn);
	else
		err = run_changes(run, txn, rng_one_in(&run->crash->rng, 6) ? 40 : 4, CRASH_ANY_KEY);
	if (err) {
		bts_abort(txn);
		return;
	}
	run_expect(run, 1);
	if (!(flags & BTS_ASYNC) && !run->death && rng_one_in(&run->crash->rng, 7))
		run_plan_failure(run);
	else
		run->nest =
			!(flags & BTS_ASYNC) && run->many && !run->death && rng_one_in(&run->crash->rng, 3);
	run->flushing = run->next;
	err = bts_commit_id(txn, &txid, &error);
	run->nest = false;
	if (err == BTS_CONFLICT)
		bts_abort(txn);
	run_result(run, err, txid, &error, reopen);
}

void run_calm(struct crash_run *run, bool *reopen)
{
	struct bts_error error = {BTS_OK, 0, ""};
	enum bts_err err;

	if (crash_oracle_digest(&run->now) == crash_oracle_digest(&run->durable) &&
		shared_head_txid(run->db->shared) == shared_durable_txid(run->db->shared))
		return;
	run->next = run->now;
	run_expect(run, 0);
	if (!run->death && rng_one_in(&run->crash->rng, 7))
		run_plan_failure(run);
	err = bts_sync(run->db, &error);
	run_result(run, err, run->txid, &error, reopen);
	if (!err && shared_head_txid(run->db->shared) != shared_durable_txid(run->db->shared))
		crash_report(run->crash, "bts_sync has left something to do");
	run->next = run->now;
}

void run_group(struct crash_run *run, bool *reopen)
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
			err = run_changes(run, txn, 3, CRASH_ANY_KEY);
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

enum bts_err run_open_handle(struct crash_run *run, struct bts **db)
{
	struct bts_options options = crash_options(run->mem, 0);
	struct bts_error error = {BTS_OK, 0, ""};
	enum bts_err err;

	options.page_size = run->page_size;
	options.async_delay_ms = 1u << 30; /* when the test says so, or never */
	if (rng_one_in(&run->crash->rng, 2))
		options.txn_memory = CRASH_TXN_MEMORY;
	err = bts_open(CRASH_PATH, &options, db, &error);
	if (err)
		run_failed(run, "open", err, &error);
	return err;
}

uint64_t run_look(struct crash_run *run, struct bts *db)
{
	struct bts_error error = {BTS_OK, 0, ""};
	struct bts_txn *txn;
	uint64_t digest = 0;
	const char *wrong;

	if (bts_begin(db, BTS_READ, &txn, &error)) {
		run_failed(run, "begin", error.code, &error);
		return 0;
	}
	wrong = crash_digest_all(db, txn, &digest);
	bts_abort(txn);
	if (wrong)
		crash_report(run->crash, "reading: %s", wrong);
	return digest;
}

static void run_open(struct crash_run *run)
{
	struct bts_stat stat = {.size = sizeof(stat)};
	uint64_t digest;

	if (run_open_handle(run, &run->db))
		return;
	digest = run_look(run, run->db);
	if (run_stopped(run))
		return;
	if (run->watch.count == 2 && digest == run->watch.states[1]) {
		crash_oracle_committed(&run->next);
		run->durable = run->next;
	} else if (digest != run->watch.states[0]) {
		crash_report(
			run->crash, "reopened: contents are neither those acknowledged nor those in flight");
	}
	run->now = run->next = run->durable;
	run->watch.exists = true;
	run_settled(run);
	if (bts_stat(run->db, &stat, NULL))
		crash_report(run->crash, "stat fails");
	run->txid = stat.txid;
}

static void run_reopen(struct crash_run *run, bool clean)
{
	run_unpin(run);
	if (clean) { /* what readers see becomes durable when it closes */
		run->next = run->now;
		run_expect(run, 0);
	}
	run_close_others(run);
	bts_close(run->db);
	run->db = NULL;
	if (clean) {
		run->durable = run->now;
		run_settled(run);
	}
	crash_images(&run->watch, run->mem);
	if (clean && !run_stopped(run))
		run_lose_a_slot(run);
	run_open(run);
}

static void run_hook(void *arg, struct env_mem *mem, const struct env_mem_event *event)
{
	struct crash_run *run = arg;

	/* Whoever builds beside a flush must not wait for it, as one does whose allocator is not the others'. */
	if (run->locks && event->op == ENV_MEM_LOCK)
		ENSURE(++run->locks < CRASH_LOCKS);
	if (run->death && !--run->death)
		longjmp(run->dead, 1);
	crash_hook(&run->watch, mem, event);
	if (run->nest && event->op == ENV_MEM_FAULT && !strcmp(event->path, "commit.slot"))
		run_nested(run);
}

/* Steps of several handles. */
static void run_step_many(struct crash_run *run, bool *reopen)
{
	struct rng *rng = &run->crash->rng;

	run_calm(run, reopen);
	if (*reopen || run_stopped(run))
		return;
	run->next = run->now;
	switch (rng_below(rng, 4)) {
	case 0:
		run_death(run);
		break;
	case 1:
		run_replica(run);
		break;
	default:
		run_pipeline(run, reopen);
	}
	if (!*reopen && !run_stopped(run))
		run_drain(run);
}

static void run_step(struct crash_run *run)
{
	struct rng *rng = &run->crash->rng;
	uint64_t kind = rng_below(rng, 18);
	bool reopen = false;

	if (run->many)
		run_turn(run);
	if (run->many && rng_one_in(rng, 2))
		run_step_many(run, &reopen);
	else if (kind < 9)
		run_commit(run, &reopen);
	else if (kind == 9)
		run_reopen(run, true);
	else if (kind < 12)
		run_pin(run);
	if (kind >= 12 && !reopen && !run_stopped(run))
		run_calm(run, &reopen);
	if (!reopen && !run_stopped(run)) {
		run->next = run->now;
		if (kind >= 12 && kind < 15)
			run_group(run, &reopen);
		else if (kind == 15)
			run_pair(run, &reopen);
		else if (kind == 16)
			run_clash(run);
		else if (kind == 17)
			run_compact(run, &reopen);
		run_shipped(run);
	}
	if (!reopen && !run_stopped(run))
		run_drain(run);
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
	[CRASH_MANY] = {16, 1, (size_t)64 << 20},
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
	run->many = kind == CRASH_MANY;
	run->probes = 1000; /* judges use the low numbers */
	run->page_size = rng_one_in(&crash->rng, 4) ? 16384 : 4096;
	run->data = malloc(CRASH_VALUE_MAX + 8);
	ENSURE(run->data);
	run->mem = env_mem_new(crash_kinds[kind].reserve);
	env_mem_seed(run->mem, seed);
	run->watch.crash = crash;
	run->watch.effort = crash_kinds[kind].effort;
	run_settled(run);
	env_mem_set_hook(run->mem, run_hook, run);
	env_mem_tell_locks(run->mem);
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
