/* Writers held to a deadline: see deadline_run.h. */
#include "deadline_run.h"

#include <btree_store/ship.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "env_mem.h"
#include "rng.h"

#define RUN_STEPS 60u
#define RUN_KEYS (4 * RUN_STEPS)
#define RUN_SLOT_B 32768u
#define RUN_LARGE (3u << 20) /* more than a manifest holds: two flushes */

enum fate { FATE_NONE, FATE_DONE, FATE_REFUSED, FATE_UNKNOWN };

struct run {
	struct rng rng;
	struct env_mem *m;
	struct bts *db[2];
	struct deadline_counts *counts;
	bool tell, acting; /* acting: the deadline may change at a call */
	uint64_t deadline; /* what it should be; 0: none */
	unsigned term;
	/* of the commit under way */
	bool built, dead; /* dead: there was a moment without a deadline ahead */
	unsigned built_term;
	enum fate fates[RUN_KEYS];
	unsigned keys;
};

static void run_found(struct run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void run_found(struct run *run, const char *format, ...)
{
	va_list args;

	run->counts->findings++;
	if (!run->tell)
		return;
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

static uint64_t run_now(const struct run *run)
{
	struct bts_env *env = env_mem_env(run->m);

	return env->ops->clock_ms(env);
}

static bool run_ahead(const struct run *run)
{
	return run_now(run) < run->deadline;
}

static void run_set(struct run *run, uint64_t ms)
{
	if (ms == 0 || !run_ahead(run))
		run->term++;
	if (ms == 0 || ms > run->deadline)
		run->deadline = ms;
	if (bts_deadline_set(run->db[rng_below(&run->rng, 2)], ms, NULL))
		abort();
}

static void run_act(struct run *run)
{
	switch (rng_below(&run->rng, 5)) {
	case 0:
	case 1:
		env_mem_advance(run->m, rng_below(&run->rng, 400));
		break;
	case 2:
		run_set(run, run_now(run) + 1 + rng_below(&run->rng, 800));
		break;
	case 3:
		run_set(run, 0);
		break;
	default:
		run_set(run, 0);
		run_set(run, run_now(run) + 1 + rng_below(&run->rng, 800));
	}
	run->dead = run->dead || !run_ahead(run);
}

static void run_hook(void *arg, struct env_mem *m, const struct env_mem_event *event)
{
	struct run *run = arg;
	bool fault = event->op == ENV_MEM_FAULT;

	(void)m;
	if (!run->acting)
		return;
	if (fault && !strcmp(event->path, "commit.pages")) {
		run->built = true;
		run->built_term = run->term;
	}
	if (event->op == ENV_MEM_WRITE && !strcmp(event->path, "/db") &&
		(event->offset == 0 || event->offset == RUN_SLOT_B)) {
		if (!run_ahead(run))
			run_found(run, "a slot was written past the deadline");
		return; /* between the check and the write: allowed, and not what is asked here */
	}
	if (!(fault && !strcmp(event->path, "commit.slot")) && rng_one_in(&run->rng, 6))
		run_act(run);
}

static enum bts_err run_put(struct bts_txn *txn, unsigned key, size_t size)
{
	static const uint8_t bytes[RUN_LARGE];
	struct bts_bucket *bucket;
	char name[16];
	enum bts_err err = bts_bucket(txn, (struct bts_slice){"b", 1}, BTS_CREATE, &bucket, NULL);

	snprintf(name, sizeof(name), "%u", key);
	return err ? err
		   : bts_put(txn, bucket, (struct bts_slice){name, strlen(name)},
			     (struct bts_slice){bytes, size}, 0);
}

static enum bts_err run_single(struct bts *db, unsigned flags, unsigned key, size_t size)
{
	struct bts_txn *txn;
	enum bts_err err = bts_begin(db, BTS_WRITE | flags, &txn, NULL);

	if (err)
		return err;
	for (;;) {
		err = run_put(txn, key, size);
		if (err)
			break;
		err = bts_commit(txn, NULL);
		if (err != BTS_CONFLICT)
			return err;
		/* With the bucket that a commit made which is built, and waits for a deadline: now it is made durable. */
		err = bts_refresh(txn, NULL);
		if (err)
			break;
	}
	bts_abort(txn);
	return err;
}

static enum bts_err run_group(struct bts *db, unsigned key, unsigned count)
{
	struct bts_group *group;
	enum bts_err err = bts_group_begin(db, &group, NULL);

	if (err)
		return err;
	for (unsigned i = 0; i < count && !err; i++) {
		struct bts_txn *txn;

		err = bts_group_txn(group, &txn, NULL);
		if (!err)
			err = run_put(txn, key + i, 10);
		if (!err)
			err = bts_commit(txn, NULL);
	}
	if (!err)
		return bts_group_commit(group, NULL);
	bts_group_abort(group);
	return err;
}

static void run_judge(struct run *run, unsigned count, enum bts_err err)
{
	bool told = err == BTS_OK || err == BTS_UNKNOWN || err == BTS_FENCED;
	enum fate fate = err == BTS_OK ? FATE_DONE : err == BTS_FENCED ? FATE_REFUSED : FATE_UNKNOWN;

	if (!told)
		run_found(run, "a commit failed: %s", bts_err_name(err));
	if (err == BTS_OK && (!run_ahead(run) || !run->built || run->built_term != run->term))
		run_found(run, "told of as done, begun in term %u, now %u%s", run->built_term, run->term,
			run_ahead(run) ? "" : ", past the deadline");
	if ((err == BTS_FENCED || err == BTS_UNKNOWN) && !run->dead &&
		(!run->built || run->built_term == run->term))
		run_found(run, "%s, and the deadline lay ahead all the while", bts_err_name(err));
	for (unsigned i = 0; i < count; i++)
		run->fates[run->keys++] = fate;
	*(err == BTS_OK		    ? &run->counts->done
		: err == BTS_FENCED ? &run->counts->refused
				    : &run->counts->unknown) += 1;
}

static void run_step(struct run *run)
{
	struct bts *db = run->db[rng_below(&run->rng, 2)];
	unsigned count = 1;
	enum bts_err err;

	if (!run_ahead(run) && !rng_one_in(&run->rng, 5))
		run_set(run, run_now(run) + 1 + rng_below(&run->rng, 2000));
	run->built = false;
	run->dead = !run_ahead(run);
	run->acting = true;
	switch (rng_below(&run->rng, 4)) {
	case 0:
		count = 3;
		err = run_group(db, run->keys, count);
		break;
	case 1:
		err = run_single(db, BTS_EXCLUSIVE, run->keys, 10);
		break;
	default:
		err = run_single(db, 0, run->keys, rng_one_in(&run->rng, 10) ? RUN_LARGE : 10);
	}
	run->acting = false;
	run_judge(run, count, err);
}

/* What was told of as done is there, what was refused is not, in this process and after a power loss. */
static void run_verify(struct run *run, struct bts *db, bool crashed)
{
	struct bts_bucket *bucket;
	struct bts_slice value;
	struct bts_txn *txn;
	char name[16];

	if (bts_begin(db, BTS_READ, &txn, NULL))
		abort();
	if (bts_bucket(txn, (struct bts_slice){"b", 1}, 0, &bucket, NULL))
		bucket = NULL;
	for (unsigned i = 0; i < run->keys; i++) {
		enum bts_err err = BTS_NOT_FOUND;

		snprintf(name, sizeof(name), "%u", i);
		if (bucket)
			err = bts_get(txn, bucket, (struct bts_slice){name, strlen(name)}, &value);
		if (err ? run->fates[i] == FATE_DONE : run->fates[i] == FATE_REFUSED)
			run_found(run, "key %u is %s%s", i, err ? "lost" : "there, and was refused",
				crashed ? " after a crash" : "");
	}
	bts_abort(txn);
	if (bts_check(db, NULL, NULL))
		run_found(run, "the file is damaged");
}

static struct bts *run_open(struct env_mem *m, unsigned flags)
{
	struct bts_options options;
	struct bts_error error;
	struct bts *db;

	bts_options_init(&options);
	options.env = env_mem_env(m);
	options.map_bytes = ENV_MEM_RESERVE_DEFAULT;
	options.flags = flags;
	if (bts_open("/db", &options, &db, &error)) {
		fprintf(stderr, "open: %s\n", error.text);
		abort();
	}
	return db;
}

static void run_crash(struct run *run)
{
	struct env_mem *image = env_mem_crash(run->m, env_mem_choose_durable, NULL);
	struct bts *db = run_open(image, 0);

	run_verify(run, db, true);
	bts_close(db);
	env_mem_free(image);
}

void deadline_run(uint64_t seed, int tell, struct deadline_counts *counts)
{
	struct run run = {.counts = counts, .tell = tell};

	memset(counts, 0, sizeof(*counts));
	rng_init(&run.rng, seed);
	run.m = env_mem_new(0);
	run.db[0] = run_open(run.m, BTS_OPEN_DEADLINE);
	run.db[1] = run_open(run.m, 0);
	env_mem_set_hook(run.m, run_hook, &run);
	for (unsigned i = 0; i < RUN_STEPS; i++) {
		run_step(&run);
		if (rng_one_in(&run.rng, 20))
			run_crash(&run);
	}
	run_verify(&run, run.db[0], false);
	bts_close(run.db[0]);
	bts_close(run.db[1]);
	run.db[0] = run_open(run.m, 0);
	run_verify(&run, run.db[0], false);
	bts_close(run.db[0]);
	env_mem_free(run.m);
}
