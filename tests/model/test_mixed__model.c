/*
 * Everything at once against the naive oracle: savepoints, ranges, renaming, bulk loads, streamed values, named
 * snapshots, serializable reads, groups, compaction and failing allocations, mixed in transactions of several
 * handles that conflict and are replayed; after each commit the file is checked, from time to time a follower
 * gets a frame of all that, the file is opened again, or opened from what a power loss would leave.
 *
 * Arguments: seed, rounds.
 */
#include "mixed.h"

#include <errno.h>

static uint64_t seed;
static unsigned rounds = 500;

static struct bts *mixed_open(struct mixed *x, struct bts_env *env, unsigned handle)
{
	struct bts_options options;
	struct bts_error error;
	struct bts *db;

	bts_options_init(&options);
	options.env = env;
	options.page_size = x->page_size;
	options.map_bytes = UINT64_C(256) << 20;
	options.txn_memory = handle == 1 ? 128 << 10 : 0; /* one spills */
	if (bts_open("/p", &options, &db, &error))
		fail_msg("open: %s", error.text);
	return db;
}

static void writer_names(struct mixed *x, struct writer *w)
{
	for (unsigned i = 0; i < NAMES; i++)
		w->names[i] = x->named[i].there;
}

/* Room for a lease is made by commits of the engine's own. */
static void mixed_catch_up(struct mixed *x, bool exclusive)
{
	struct bts_stat stat = {.size = sizeof(stat)};
	struct bts_group *group;

	if (exclusive) { /* will have flushed them */
		assert_int_equal(bts_group_begin(x->handles[0], &group, NULL), BTS_OK);
		bts_group_abort(group);
	}
	assert_int_equal(bts_stat(x->handles[0], &stat, NULL), BTS_OK);
	if (stat.txid > x->m.now.txid)
		x->moved = x->m.now.txid = stat.txid;
}

static void writer_begin(struct mixed *x, struct writer *w, unsigned flags)
{
	memset(w, 0, sizeof(*w));
	w->alone = (flags & BTS_EXCLUSIVE) != 0;
	w->handle = (unsigned)rng_below(dice(x), HANDLES);
	w->serializable = rng_one_in(dice(x), 3);
	w->most = rng_one_in(dice(x), 3) ? 60 : 3;
	if (w->serializable)
		flags |= BTS_SERIALIZABLE;
	if (rng_one_in(dice(x), 12))
		flags |= BTS_CONFLICT_DATABASE;
	x->m.db = x->handles[w->handle];
	mixed_catch_up(x, w->alone);
	model_begin(&x->m, &w->t, flags);
	writer_names(x, w);
}

static void writer_abort(struct writer *w)
{
	if (w->t.txn)
		model_abort(&w->t);
	w->stream = NULL;
}

static bool writer_changed(const struct writer *w)
{
	for (size_t i = 0; i < w->t.extra; i++)
		if (w->extras[i].kind != EXTRA_STREAM)
			return true;
	return w->t.ops.count > 0;
}

static bool seen_differs(const struct mixed *x, const struct seen *seen)
{
	const struct oracle_bucket *bucket = oracle_bucket(&x->m.now, seen->bucket);
	const struct oracle_entry *entry = bucket ? oracle_get(bucket, seen->key) : NULL;

	return !bucket || bucket->identity != seen->identity || (entry ? entry->version : 0) != seen->version;
}

/* Must it conflict, and may it? */
static bool writer_clash(struct mixed *x, struct writer *w, bool *may)
{
	bts_txid snapshot = w->t.snapshot;
	bool must = w->t.whole_database && x->m.now.txid > snapshot;

	*may = w->t.whole_database || (w->serializable && x->m.now.txid > snapshot);
	for (size_t i = 0; i < w->t.ops.count && !must; i++) {
		*may |= w->t.ops.ops[i].kind == MODEL_DROP && x->moved > snapshot;
		must = model_clash(&x->m, &w->t, &w->t.ops.ops[i], may);
	}
	for (size_t i = 0; i < w->t.extra; i++) {
		const struct extra *extra = &w->extras[i];

		if (extra->kind == EXTRA_STREAM)
			continue;
		must |= x->named[extra->which].changed > snapshot;
		*may |= extra->kind == EXTRA_CREATE && x->deleted > snapshot;
	}
	for (unsigned i = 0; i < w->seen_count; i++)
		must |= seen_differs(x, &w->seen[i]);
	return must;
}

/* Names that w has created are of the state after the batch, which is now. */
static void names_apply(struct mixed *x, const struct writer *w, bts_txid version)
{
	for (size_t i = 0; i < w->t.extra; i++) {
		struct named *named = &x->named[w->extras[i].which];

		if (w->extras[i].kind == EXTRA_STREAM)
			continue;
		if (named->there)
			oracle_fini(&named->state);
		named->there = w->extras[i].kind == EXTRA_CREATE;
		named->changed = version;
		named->txid = 0;
		memset(&named->state, 0, sizeof(named->state));
		if (!named->there)
			x->deleted = version;
	}
}

static void names_settle(struct mixed *x)
{
	for (unsigned i = 0; i < NAMES; i++)
		if (x->named[i].there && x->named[i].txid == 0) {
			oracle_copy(&x->named[i].state, &x->m.now);
			x->named[i].txid = x->m.now.txid;
		}
}

static void mixed_check(struct mixed *x)
{
	bed_assert_clean(x->handles[rng_below(dice(x), HANDLES)]);
}

static void writer_commit(struct mixed *x, struct writer *w)
{
	bool full = !w->alone && rng_one_in(dice(x), 12), changed = writer_changed(w), may, must, raced;
	struct bts_error error = {0};
	bts_txid txid = 0;
	enum bts_err err;

	if (full)
		mixed_catch_up(x, true);
	must = writer_clash(x, w, &may) && changed;
	raced = x->m.now.txid > w->t.snapshot;
	w->stream = NULL;
	mixed_fault_begin(x);
	if (full) /* of a page: the first write of a commit, with no older one to be flushed */
		env_mem_fail(x->mem, ENV_MEM_WRITE, 1, ENOSPC, 0);
	err = bts_commit_id(w->t.txn, &txid, &error);
	if (mixed_fault_end(x, err)) {
		model_end(&w->t);
		mixed_check(x);
		return;
	}
	if (err == BTS_CONFLICT && (must || may)) {
		x->conflicts++;
		if (rng_one_in(dice(x), 2))
			assert_int_equal(bts_refresh(w->t.txn, NULL), BTS_OK);
		model_abort(&w->t);
		return;
	}
	if (err)
		fail_msg("commit: %s: %s", bts_err_name(err), error.text);
	assert_false(must);
	if (!changed) {
		assert_int_equal(txid, w->t.snapshot);
	} else {
		assert_true(txid > x->m.now.txid);
		model_apply(&x->m, &w->t.ops, &x->m.now, txid);
		x->m.now.txid = txid;
		names_apply(x, w, txid);
		names_settle(x);
		x->m.commits++;
		x->replays += raced;
	}
	model_end(&w->t);
	mixed_check(x);
}

static void step_group(struct mixed *x)
{
	struct bts *db = x->handles[rng_below(dice(x), HANDLES)];
	struct writer *w = calloc(1, sizeof(*w));
	struct bts_group *group;
	struct bts_txn *txn;
	bts_txid txid;

	assert_non_null(w);
	assert_int_equal(bts_group_begin(db, &group, NULL), BTS_OK);
	for (unsigned n = 1 + (unsigned)rng_below(dice(x), 4); n > 0; n--) {
		bool changed;

		memset(w, 0, sizeof(*w));
		assert_int_equal(bts_group_txn(group, &txn, NULL), BTS_OK);
		model_adopt(&x->m, &w->t, txn, &x->m.now);
		writer_names(x, w);
		for (unsigned i = (unsigned)rng_below(dice(x), 60); i > 0; i--)
			mixed_step(x, w);
		if (rng_one_in(dice(x), 3)) {
			writer_abort(w);
			continue;
		}
		changed = writer_changed(w);
		assert_int_equal(bts_commit_id(txn, &txid, NULL), BTS_OK);
		if (changed) {
			assert_int_equal(txid, w->t.snapshot);
			model_apply(&x->m, &w->t.ops, &x->m.now, txid);
			x->m.now.txid = txid;
			names_apply(x, w, txid);
		}
		model_end(&w->t);
	}
	assert_int_equal(bts_group_commit(group, NULL), BTS_OK);
	names_settle(x);
	x->groups++;
	mixed_check(x);
	free(w);
}

/* Nobody else commits meanwhile. */
static void step_alone(struct mixed *x)
{
	struct writer *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	writer_begin(x, w, BTS_WRITE | BTS_EXCLUSIVE);
	for (unsigned i = (unsigned)rng_below(dice(x), 60); i > 0; i--)
		mixed_step(x, w);
	if (rng_one_in(dice(x), 3))
		writer_abort(w);
	else
		writer_commit(x, w);
	free(w);
}

static void verify_names(struct mixed *x, struct bts *db)
{
	char text[8];
	struct bts_txn *txn;

	for (unsigned i = 0; i < NAMES; i++) {
		enum bts_err err = bts_begin_at(db, mixed_name(i, text), &txn, NULL);

		assert_int_equal(err, x->named[i].there ? BTS_OK : BTS_NOT_FOUND);
		if (err)
			continue;
		assert_int_equal(bts_txn_id(txn), x->named[i].txid);
		oracle_verify(txn, &x->named[i].state);
		bts_abort(txn);
	}
}

static void verify(struct mixed *x, struct bts *db)
{
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_READ, &txn, NULL), BTS_OK);
	oracle_verify(txn, &x->m.now);
	bts_abort(txn);
	verify_names(x, db);
}

static void unpin(struct pinned *pin)
{
	if (!pin->txn)
		return;
	oracle_verify(pin->txn, &pin->view);
	bts_abort(pin->txn);
	oracle_fini(&pin->view);
	pin->txn = NULL;
}

/* A reader that stays sees what it saw, whatever is deleted, moved and used again meanwhile. */
static void step_pin(struct mixed *x)
{
	struct pinned *pin = &x->pins[rng_below(dice(x), PINS)];
	unsigned which = (unsigned)rng_below(dice(x), NAMES);
	char text[8];

	if (pin->txn) {
		unpin(pin);
		return;
	}
	pin->handle = (unsigned)rng_below(dice(x), HANDLES);
	if (x->named[which].there) {
		assert_int_equal(
			bts_begin_at(x->handles[pin->handle], mixed_name(which, text), &pin->txn, NULL),
			BTS_OK);
		oracle_copy(&pin->view, &x->named[which].state);
	} else {
		assert_int_equal(bts_begin(x->handles[pin->handle], BTS_READ, &pin->txn, NULL), BTS_OK);
		oracle_copy(&pin->view, &x->m.now);
	}
}

static void quiet(struct mixed *x, unsigned handle)
{
	for (unsigned i = 0; i < PINS; i++)
		if (handle == HANDLES || x->pins[i].handle == handle)
			unpin(&x->pins[i]);
	for (unsigned i = 0; i < WRITERS; i++)
		if (x->writers[i].t.txn && (handle == HANDLES || x->writers[i].handle == handle))
			writer_abort(&x->writers[i]);
}

static void reopen(struct mixed *x)
{
	unsigned one = (unsigned)rng_below(dice(x), HANDLES + 1);

	quiet(x, one);
	for (unsigned i = 0; i < HANDLES; i++)
		if (one == i || one == HANDLES)
			bts_close(x->handles[i]);
	for (unsigned i = 0; i < HANDLES; i++)
		if (one == i || one == HANDLES)
			x->handles[i] = mixed_open(x, env_mem_env(x->mem), i);
	if (one == HANDLES)
		model_ops_fini(&x->m.log);
	verify(x, x->handles[0]);
}

/* Everything that was acknowledged is in what a power loss leaves. */
static void lose_power(struct mixed *x)
{
	struct env_mem *left = env_mem_crash(
		x->mem, rng_one_in(dice(x), 2) ? env_mem_choose_durable : env_mem_choose_newest, NULL);
	struct bts *db = mixed_open(x, env_mem_env(left), 0);

	verify(x, db);
	bed_assert_clean(db);
	bts_close(db);
	env_mem_free(left);
}

static void compact(struct mixed *x)
{
	struct bts *db = x->handles[rng_below(dice(x), HANDLES)];
	struct bts_compact_info info = {.size = sizeof(info)};
	struct bts_stat stat = {.size = sizeof(stat)};

	assert_int_equal(bts_compact_step(db, 1 + rng_below(dice(x), 60), &info, NULL), BTS_OK);
	assert_int_equal(bts_stat(db, &stat, NULL), BTS_OK);
	if (stat.txid > x->m.now.txid)
		x->moved = x->m.now.txid = stat.txid;
	x->moves += info.pages_moved;
	mixed_check(x);
}

static void ship(struct mixed *x)
{
	struct bts *db = x->handles[rng_below(dice(x), HANDLES)];

	if (bed_position(db).txid > bed_position(x->follower).txid)
		bed_ship(db, x->follower, dice(x));
	bed_assert_same(db, x->follower);
	verify_names(x, x->follower);
	x->ships++;
}

static void round_one(struct mixed *x)
{
	struct writer *w = &x->writers[rng_below(dice(x), WRITERS)];
	uint64_t n = rng_below(dice(x), 200);

	if (n < 2) {
		reopen(x);
	} else if (n < 4) {
		lose_power(x);
	} else if (n < 8) {
		ship(x);
	} else if (n < 14) {
		verify(x, x->handles[rng_below(dice(x), HANDLES)]);
	} else if (n < 24) {
		compact(x);
	} else if (n < 34) {
		step_group(x);
	} else if (n < 38) {
		step_alone(x);
	} else if (n < 46) {
		step_pin(x);
	} else {
		if (!w->t.txn)
			writer_begin(x, w, BTS_WRITE);
		for (unsigned i = (unsigned)rng_below(dice(x), 1 + w->most); i > 0; i--)
			mixed_step(x, w);
		if (rng_one_in(dice(x), 10))
			writer_abort(w);
		else if (rng_one_in(dice(x), 2))
			writer_commit(x, w);
	}
}

static void run(uint64_t number, uint32_t page_size)
{
	struct mixed *x = calloc(1, sizeof(*x));
	struct bts_stat stat = {.size = sizeof(stat)};
	struct bts_env *env;

	assert_non_null(x);
	rng_init(dice(x), number);
	x->page_size = x->m.page_size = page_size;
	x->mem = env_mem_new(0);
	env_mem_seed(x->mem, number);
	env = env_mem_env(x->mem);
	for (unsigned i = 0; i < HANDLES; i++)
		x->handles[i] = mixed_open(x, env, i);
	bed_create(env, "/f", x->handles[0], page_size);
	x->follower = bed_open(env, "/f", BTS_OPEN_FOLLOWER, 0);
	assert_int_equal(bts_stat(x->handles[0], &stat, NULL), BTS_OK);
	x->m.now.txid = stat.txid;
	for (unsigned i = 0; i < rounds; i++)
		round_one(x);
	quiet(x, HANDLES);
	verify(x, x->handles[0]);
	ship(x);
	printf("seed %" PRIu64 ", %u: %" PRIu64 " commits (%" PRIu64 " behind others), %" PRIu64
	       " conflicts, %" PRIu64 " groups, %" PRIu64 " loads, %" PRIu64 " streams, %" PRIu64
	       " names, %" PRIu64 " faults, %" PRIu64 " frames, %" PRIu64 " moved\n",
		number, page_size, x->m.commits, x->replays, x->conflicts, x->groups, x->loads, x->streams,
		x->snaps, x->faults, x->ships, x->moves);
	for (unsigned i = 0; i < HANDLES; i++)
		bts_close(x->handles[i]);
	bts_close(x->follower);
	for (unsigned i = 0; i < NAMES; i++)
		oracle_fini(&x->named[i].state);
	oracle_fini(&x->m.now);
	model_ops_fini(&x->m.log);
	assert_int_equal(env_mem_counters(x->mem)->live_blocks, 0);
	env_mem_free(x->mem);
	free(x);
}

static void test_small_pages(void **state)
{
	(void)state;
	run(seed, 4096);
}

static void test_large_pages(void **state)
{
	(void)state;
	run(seed + 1, 16384);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_pages),
		cmocka_unit_test(test_large_pages),
	};

	seed = rng_seed_from(argc, argv, 4);
	if (argc > 2)
		rounds = (unsigned)strtoul(argv[2], NULL, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
