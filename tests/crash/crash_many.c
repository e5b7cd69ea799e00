/*
 * Several writing handles on one environment in memory are like several processes: they write in turns, build
 * batches upon one another's before anybody flushes, from within one another's flushes too, and die at any
 * write, flush, lock or unlock, while the others live on.
 */
#include "crash_run.h"

#include <ensure.h>
#include <shared_map.h>

#define CRASH_DEATH_MAX 40u /* operations of a commit, about */

bool run_is_current(const struct bts *db)
{
	uint64_t ring;

	shared_tip(db->shared, NULL, &ring);
	return db->replica && ring - db->ring <= SHARED_RING_REACH;
}

void run_close_others(struct crash_run *run)
{
	for (unsigned i = 0; i < CRASH_OTHERS; i++) {
		bts_close(run->others[i]);
		run->others[i] = NULL;
	}
	run->batch_count = 0;
}

/* What the newest batch holds; with none what readers see. */
static const struct crash_oracle *run_tip(const struct crash_run *run)
{
	return run->batch_count ? &run->batches[run->batch_count - 1].oracle : &run->now;
}

/* Which of the batches is D by now, after run->db or somebody else flushed. */
static void run_learn(struct crash_run *run)
{
	bts_txid durable = shared_durable_txid(run->db->shared);
	unsigned gone = 0;

	while (gone < run->batch_count && run->batches[gone].built.txid <= durable)
		gone++;
	if (gone) {
		run->durable = run->now = run->batches[gone - 1].oracle;
		if (run->txid < run->batches[gone - 1].built.txid)
			run->txid = run->batches[gone - 1].built.txid;
	}
	for (unsigned i = gone; i < run->batch_count; i++)
		run->batches[i - gone] = run->batches[i];
	run->batch_count -= gone;
}

void run_turn(struct crash_run *run)
{
	unsigned i = (unsigned)rng_below(&run->crash->rng, CRASH_OTHERS + 1);
	struct bts *db = run->db;

	if (i == CRASH_OTHERS)
		return;
	if (!run->others[i]) {
		run->next = *run_tip(run);
		run_expect(run, 0); /* who opens flushes what is built */
		if (run_open_handle(run, &run->others[i]))
			return;
		run_learn(run);
		run_settled(run);
	}
	run->db = run->others[i];
	run->others[i] = db;
}

static enum bts_err run_form(struct crash_run *run, struct bts_group *group, struct bts_error *error)
{
	struct bts_txn *txn;
	enum bts_err err = BTS_OK;

	for (uint64_t n = 1 + rng_below(&run->crash->rng, 2); n > 0 && !err; n--) {
		err = bts_group_txn(group, &txn, error);
		if (err)
			break;
		err = run_changes(run, txn, 4, CRASH_ANY_KEY);
		if (err)
			bts_abort(txn);
		else
			err = bts_commit(txn, error);
	}
	return err;
}

/* A batch upon run->next, which becomes what it holds; nobody flushes it yet. */
static void run_build(struct crash_run *run, struct bts *db)
{
	struct bts_group *group = calloc(1, sizeof(*group));
	struct crash_batch *batch = &run->batches[run->batch_count];
	struct bts_error error = {BTS_OK, 0, ""};
	enum bts_err err = db_build_enter(db, &error);

	ENSURE(group && run->batch_count < CRASH_BATCHES);
	if (err) {
		run_failed(run, "entering", err, &error);
		goto out;
	}
	err = group_open(group, db, &error);
	if (!err) {
		bts_txid before = db->tip.txid;

		err = run_form(run, group, &error);
		if (!err)
			err = group_build(group, &batch->built, &error);
		if (!err && group->count && batch->built.base != before)
			crash_report(run->crash, "a batch is not built upon the tip");
		crash_oracle_committed(&run->next);
		if (!err && group->count) {
			batch->db = db;
			batch->oracle = run->next;
			run->batch_count++;
			run->crash->counts.batches++;
		}
		group_close(group);
	}
	db_build_leave(db);
	if (err)
		run_failed(run, "building", err, &error);
out:
	free(group);
}

void run_nested(struct crash_run *run)
{
	struct bts *db = run->others[rng_below(&run->crash->rng, CRASH_OTHERS)];
	struct crash_oracle *outer;

	if (!db || run->batch_count == CRASH_BATCHES || !run_is_current(db))
		return;
	outer = malloc(sizeof(*outer));
	ENSURE(outer);
	*outer = run->next;
	run->nest = false;
	run->next = run->batch_count ? *run_tip(run) : run->flushing;
	crash_oracle_committed(&run->next);
	run->locks = 1;
	run_build(run, db);
	run->locks = 0;
	run->crash->counts.overtaken++;
	run->next = *outer;
	free(outer);
}

static void run_flush(struct crash_run *run, const struct crash_batch *by, bool *reopen)
{
	const struct crash_batch *last = &run->batches[run->batch_count - 1];
	struct bts *db = by->db ? by->db : run->db;
	struct bts_error error = {BTS_OK, 0, ""};
	bts_txid txid = last->built.txid;
	enum bts_err err;
	bool ignored;

	run->next = last->oracle;
	run_expect(run, 0);
	if (reopen && rng_one_in(&run->crash->rng, 9))
		run_plan_failure(run);
	else
		run->nest = rng_one_in(&run->crash->rng, 2);
	run->flushing = run->next;
	err = flush_to(db, txid, by->db ? &by->built : NULL, NULL, NULL, &error);
	run->nest = false;
	run_result(run, err, txid, &error, reopen ? reopen : &ignored);
	if (err)
		run->batch_count = 0;
	else
		run_learn(run);
	run_settled(run);
	if (err) /* one of the two, until somebody opens it */
		run_expect(run, 0);
}

void run_drain(struct crash_run *run)
{
	run_learn(run);
	while (run->batch_count && !run_stopped(run))
		run_flush(run, &run->batches[run->batch_count - 1], NULL);
	run->next = run->now;
}

/* A commit upon batches that nobody has flushed: it takes them with it, asynchronous or not (I8). */
static void run_upon(struct crash_run *run)
{
	struct shared *shared = run->db->shared;
	unsigned flags = rng_one_in(&run->crash->rng, 2) ? BTS_ASYNC : 0;
	bts_txid tip = shared_tip_txid(shared);
	bool waiting = shared_head_txid(shared) < tip;
	struct bts_error error = {BTS_OK, 0, ""};
	uint32_t number = ++run->probes;
	bts_txid txid;
	bool reopen;
	enum bts_err err;

	run->next = *run_tip(run);
	run->next.probes += crash_probe_digest(number);
	run_expect(run, 1);
	run->watch.states[2] = crash_oracle_digest(run_tip(run));
	run->watch.count = 3;
	err = crash_probe_commit(run->db, flags, number, &txid, &error);
	if (!err && waiting && shared_durable_txid(shared) < tip)
		crash_report(run->crash, "I8: shown while others wait for their flush");
	if (!err && run->batch_count &&
		shared_durable_txid(shared) == run->batches[run->batch_count - 1].built.txid)
		run->durable = *run_tip(run);
	run_result(run, err, txid, &error, &reopen);
	run->batch_count = 0;
}

void run_pipeline(struct crash_run *run, bool *reopen)
{
	uint64_t count = 1 + rng_below(&run->crash->rng, CRASH_BATCHES - 2);

	for (; count > 0 && run->batch_count < CRASH_BATCHES - 1 && !run_stopped(run) && !*reopen; count--) {
		run->next = *run_tip(run);
		if (run_is_current(run->db))
			run_settled(run);
		else
			run_expect(run, 0); /* the tip is made durable first */
		run_build(run, run->db);
		run_learn(run);
		run_settled(run);
		if (run->batch_count && rng_one_in(&run->crash->rng, 5))
			run_flush(run, &run->batches[rng_below(&run->crash->rng, run->batch_count)], reopen);
		if (!*reopen)
			run_turn(run);
	}
	if (run_stopped(run) || *reopen)
		return;
	if (run->batch_count && shared_head_txid(run->db->shared) >= run->batches[0].built.txid)
		crash_report(run->crash, "I8: readers see what nobody has flushed");
	if (rng_one_in(&run->crash->rng, 3))
		run_upon(run);
}

/* What the kernel does for a dead process. */
static void run_bury(struct bts *db)
{
	struct bts_file *data = db->file, *lock = db->shared->lock;

	lock->env->ops->file_close(lock);
	data->env->ops->file_close(data);
}

/* A handle has died: what it left is found by the next. */
static void run_inherit(struct crash_run *run, bts_txid tip)
{
	struct bts *db = run->db;
	bts_txid assigned = shared_assigned(db->shared);

	crash_oracle_committed(&run->next);
	if (shared_durable_txid(db->shared) > tip)
		run->durable = run->next;
	if (shared_head_txid(db->shared) > tip)
		run->now = run->next;
	if (shared_tip_txid(db->shared) > tip && shared_durable_txid(db->shared) <= tip) {
		run->batches[0] =
			(struct crash_batch){.built.txid = shared_tip_txid(db->shared), .oracle = run->next};
		run->batch_count = 1;
	}
	if (run_look(run, db) != crash_oracle_digest(&run->now))
		crash_report(run->crash, "after a death others see another state");
	run_expect(run, 0);
	crash_images(&run->watch, run->mem);
	if (run_stopped(run))
		return;
	if (rng_one_in(&run->crash->rng, 3)) {
		unsigned i = 0;

		while (i + 1 < CRASH_OTHERS && run->others[i])
			i++;
		bts_close(run->others[i]);
		run->others[i] = NULL;
		if (run_open_handle(run, &run->others[i]))
			return;
		run_learn(run);
		if (run->batch_count)
			crash_report(run->crash, "M2: who opens leaves what was built without a flush");
	}
	run_upon(run);
	if (run->txid <= assigned)
		crash_report(run->crash, "M2: number %" PRIu64 " again, %" PRIu64 " had been given",
			run->txid, assigned);
}

void run_death(struct crash_run *run)
{
	struct bts *volatile victim = run->db;
	volatile bts_txid tip = shared_tip_txid(run->db->shared);
	volatile unsigned heir = 0;
	bool reopen = false;

	while (heir < CRASH_OTHERS && !run->others[heir])
		heir++;
	if (heir == CRASH_OTHERS)
		return;
	run->next = run->now;
	run->death = 1 + rng_below(&run->crash->rng, CRASH_DEATH_MAX);
	if (!setjmp(run->dead)) {
		if (rng_one_in(&run->crash->rng, 3))
			run_group(run, &reopen);
		else
			run_commit(run, &reopen);
		run->death = 0;
		return;
	}
	run->crash->counts.deaths++;
	run_bury(victim);
	run->db = run->others[heir];
	run->others[heir] = NULL;
	run_inherit(run, tip);
	for (unsigned i = 0; i < CRASH_OTHERS && !run_stopped(run); i++)
		if (run->others[i] && run_look(run, run->others[i]) != crash_oracle_digest(&run->now))
			crash_report(run->crash, "after a death the living disagree");
}

/* Free in the file is not in use in the allocator, and the other way round. */
static void run_compare(struct crash_run *run, struct bts *db)
{
	bts_pgno at = 0, from = db->tip.first;
	struct space_run free_run;
	struct space space;

	if (db_load_space(db, NULL, &db->tip, &space, NULL)) {
		crash_report(run->crash, "the free log cannot be read");
		return;
	}
	for (bool more = true; more;) {
		more = space_next_free(&space, &at, &free_run);
		if (!more)
			free_run = (struct space_run){db->tip.high_water, 0};
		if (free_run.pgno > from &&
			!space_is_live(&db->space, (struct space_run){from, free_run.pgno - from}))
			crash_report(
				run->crash, "an allocator gives away pages from %" PRIu64 " in use", from);
		from = free_run.pgno + free_run.count;
		for (bts_pgno pgno = free_run.pgno; pgno < from; pgno++)
			if (space_is_live(&db->space, (struct space_run){pgno, 1}))
				crash_report(run->crash, "an allocator has lost page %" PRIu64, pgno);
	}
	space_fini(&space);
}

void run_replica(struct crash_run *run)
{
	struct bts *all[CRASH_OTHERS + 1] = {run->db, run->others[0], run->others[1]};

	for (unsigned i = 0; i < CRASH_OTHERS + 1; i++) {
		struct bts_error error = {BTS_OK, 0, ""};
		enum bts_err err;

		if (!all[i])
			continue;
		err = db_build_enter(all[i], &error);
		if (err) {
			run_failed(run, "entering", err, &error);
			return;
		}
		run_compare(run, all[i]);
		db_build_leave(all[i]);
	}
}

void run_shipped(struct crash_run *run)
{
	struct commit_record *record = malloc(sizeof(*record));
	struct shared *shared = run->db->shared;
	struct shared_reader reader;

	ENSURE(record);
	if (shared_reader_enter_durable(shared, &reader, record, NULL)) {
		crash_report(run->crash, "nothing can be shipped");
	} else {
		if (record->txid != shared_durable_txid(shared))
			crash_report(
				run->crash, "I8: %" PRIu64 " is shipped before it is durable", record->txid);
		shared_reader_leave(shared, &reader);
	}
	free(record);
}
