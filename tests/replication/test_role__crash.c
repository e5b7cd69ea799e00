/*
 * Power loss and death of all processes while a role changes: at every write, flush and fault point the disk is left in
 * several of the ways that env_mem's fault model allows, opened again and judged.  It is as before the change or as after
 * it, as after it once the call had returned, and goes on from there.  And every call of the change fails once.
 */
#include "apply_bed.h"

#define WAYS 8u

enum change { PROMOTE, DEMOTE, PROMISE, PROMISE_FENCES, CHANGES };
static const char *const names[CHANGES] = {"promote", "demote", "promise", "promise on a primary"};

struct judge {
	enum change change;
	struct bts_role before;
	bool acknowledged;
	struct rng rng;
	unsigned images, old, changed;
};

static uint64_t seed;
static const uint32_t promised = 77;

static struct bts_role role_of(struct bts *db)
{
	struct bts_role role = {.size = sizeof(role)};

	assert_int_equal(bts_role(db, &role, NULL), BTS_OK);
	return role;
}

static enum bts_err change_do(struct bts *db, enum change change, struct bts_error *error)
{
	switch (change) {
	case PROMOTE:
		return bts_promote(db, NULL, NULL, error);
	case DEMOTE:
		return bts_demote(db, NULL, error);
	default:
		return bts_promise(db, promised, 5, error);
	}
}

static bool is_changed(const struct judge *judge, const struct bts_role *now)
{
	switch (judge->change) {
	case PROMOTE:
		return now->role == BTS_ROLE_PRIMARY;
	case DEMOTE:
		return now->role == BTS_ROLE_FENCED;
	case PROMISE:
		return now->promised == promised;
	default:
		/* Both or neither. */
		assert_int_equal(now->role == BTS_ROLE_FENCED, now->promised == promised);
		return now->role == BTS_ROLE_FENCED;
	}
}

static unsigned flags_of(const struct bts_role *role)
{
	return role->role == BTS_ROLE_PRIMARY ? 0 : BTS_OPEN_FOLLOWER;
}

static void judge_image(struct judge *judge, struct env_mem *image)
{
	struct bts_error error;
	struct bts_role now;
	struct bts *db;
	bool changed;

	judge->images++;
	db = bed_open(env_mem_env(image), "/f", BTS_OPEN_READ_ONLY, 0);
	now = role_of(db);
	bts_close(db);
	changed = is_changed(judge, &now);
	assert_true(changed || !judge->acknowledged);
	judge->changed += changed;
	judge->old += !changed;
	if (judge->change == PROMOTE && changed)
		assert_int_equal(now.position.epoch, judge->before.position.epoch + 1);
	else
		assert_memory_equal(&now.position, &judge->before.position, sizeof(now.position));
	assert_memory_equal(now.digest, judge->before.digest, 16);
	if (!changed)
		assert_int_equal(now.role, judge->before.role);
	/* It goes on: the change is made (again), then the file is written or promoted. */
	db = bed_open(env_mem_env(image), "/f", flags_of(&now), 0);
	bed_assert_clean(db);
	if (!changed && change_do(db, judge->change, &error))
		fail_msg("%s again: %s", names[judge->change], error.text);
	bts_close(db);
	now.role = judge->change == PROMOTE ? BTS_ROLE_PRIMARY : BTS_ROLE_FOLLOWER;
	db = bed_open(env_mem_env(image), "/f", flags_of(&now), 0);
	if (now.role != BTS_ROLE_PRIMARY && bts_promote(db, NULL, &now, &error))
		fail_msg("promote: %s", error.text);
	bed_commit(db, &judge->rng);
	bed_assert_clean(db);
	bts_close(db);
}

static struct env_mem_choice choose(void *arg, size_t index, const struct env_mem_unit *unit)
{
	struct judge *judge = arg;
	struct env_mem_choice choice = {.version = (unsigned)rng_below(&judge->rng, unit->versions)};

	(void)index;
	if (unit->tearable && rng_one_in(&judge->rng, 2)) {
		choice.other = (unsigned)rng_below(&judge->rng, unit->versions);
		choice.words = rng_next(&judge->rng);
	}
	return choice;
}

static void hook(void *arg, struct env_mem *m, const struct env_mem_event *event)
{
	struct judge *judge = arg;

	(void)event;
	for (unsigned way = 0; way < WAYS; way++) {
		struct env_mem *image;

		if (way == 0)
			image = env_mem_crash(m, env_mem_choose_durable, NULL);
		else if (way == 1)
			image = env_mem_crash(m, env_mem_choose_newest, NULL);
		else if (way == 2)
			image = env_mem_clone(m);
		else
			image = env_mem_crash(m, choose, judge);
		judge_image(judge, image);
		env_mem_free(image);
	}
}

/* "/f" in a new environment: a follower's, or a primary's, after a few commits. */
static struct bts *bed_make(struct env_mem **m, bool follower, struct rng *rng)
{
	struct env_mem *other;
	struct bts *primary, *db;

	*m = env_mem_new(32 << 20);
	env_mem_seed(*m, rng_next(rng));
	if (!follower) {
		db = bed_open(env_mem_env(*m), "/f", 0, 4096);
		for (int i = 0; i < 3; i++)
			bed_commit(db, rng);
		return db;
	}
	other = env_mem_new(32 << 20);
	primary = bed_open(env_mem_env(other), "/p", 0, 4096);
	bed_create(env_mem_env(*m), "/f", primary, 4096);
	db = bed_open(env_mem_env(*m), "/f", BTS_OPEN_FOLLOWER, 0);
	for (int i = 0; i < 3; i++) {
		bed_commit(primary, rng);
		bed_ship(primary, db, rng);
	}
	bts_close(primary);
	env_mem_free(other);
	return db;
}

static bool is_follower(enum change change)
{
	return change == PROMOTE || change == PROMISE;
}

static void test_power_loss(void **state)
{
	(void)state;
	for (enum change change = PROMOTE; change < CHANGES; change++) {
		struct judge judge = {.change = change};
		struct bts_error error;
		struct env_mem *m;
		struct bts *db;

		rng_init(&judge.rng, seed + change);
		db = bed_make(&m, is_follower(change), &judge.rng);
		judge.before = role_of(db);
		env_mem_set_hook(m, hook, &judge);
		if (change_do(db, change, &error))
			fail_msg("%s: %s", names[change], error.text);
		judge.acknowledged = true;
		hook(&judge, m, NULL);
		env_mem_set_hook(m, NULL, NULL);
		printf("%s: %u images, %u before it, %u after it\n", names[change], judge.images, judge.old, judge.changed);
		assert_true(judge.old > 0 && judge.changed > WAYS);
		bts_close(db);
		env_mem_free(m);
	}
}

/* A commit that another handle has shown but not flushed (asynchronous) is in the final position, or was never in it. */
static void test_demote_flushes(void **state)
{
	struct bts_bucket *bucket;
	struct env_mem *m, *image;
	struct bts_role last = {.size = sizeof(last)}, now;
	struct bts_error error;
	struct bts_txn *txn;
	struct rng rng;
	struct bts *db;

	(void)state;
	rng_init(&rng, seed);
	db = bed_make(&m, false, &rng);
	bed_commit(db, &rng);
	assert_int_equal(bts_begin(db, BTS_WRITE | BTS_ASYNC, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket(txn, (struct bts_slice){"x", 1}, BTS_CREATE, &bucket, NULL), BTS_OK);
	assert_int_equal(bts_commit(txn, &error), BTS_OK);
	assert_int_equal(bts_demote(db, &last, &error), BTS_OK);
	image = env_mem_crash(m, env_mem_choose_durable, NULL);
	bts_close(db);
	db = bed_open(env_mem_env(image), "/f", BTS_OPEN_READ_ONLY, 0);
	now = role_of(db);
	assert_memory_equal(&now.position, &last.position, sizeof(now.position));
	assert_int_equal(bts_begin(db, BTS_READ, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket(txn, (struct bts_slice){"x", 1}, 0, &bucket, NULL), BTS_OK);
	bts_abort(txn);
	bts_close(db);
	env_mem_free(image);
	env_mem_free(m);
}

/* false: the change needed fewer calls than that */
static bool failing_once(enum change change, enum env_mem_op kind, uint64_t nth)
{
	struct judge judge = {.change = change};
	struct bts_error error;
	struct bts_role now;
	struct env_mem *m;
	enum bts_err err;
	struct bts *db;
	bool any;

	rng_init(&judge.rng, seed + change);
	db = bed_make(&m, is_follower(change), &judge.rng);
	judge.before = role_of(db);
	if (kind == ENV_MEM_OPS)
		env_mem_fail_memory(m, nth, 0);
	else
		env_mem_fail(m, kind, nth, 5, kind == ENV_MEM_SYNC ? ENV_MEM_DROP : 0);
	err = change_do(db, change, &error);
	any = env_mem_failed(m) > 0 || err;
	env_mem_fail_clear(m);
	if (err && bts_sync(db, &error) == BTS_OK && change_do(db, change, &error)) /* refused without poison: as before */
		fail_msg("%s, again after call %u of kind %d failed: %s", names[change], (unsigned)nth, kind, error.text);
	bts_close(db);
	db = bed_open(env_mem_env(m), "/f", BTS_OPEN_READ_ONLY, 0);
	now = role_of(db);
	assert_true(is_changed(&judge, &now) || err);
	assert_memory_equal(now.digest, judge.before.digest, 16);
	bts_close(db);
	judge.acknowledged = !err;
	judge_image(&judge, m);
	env_mem_free(m);
	return any;
}

static void test_failing_calls(void **state)
{
	static const enum env_mem_op kinds[] = {ENV_MEM_WRITE, ENV_MEM_SYNC, ENV_MEM_RANDOM, ENV_MEM_IDENTITY,
		ENV_MEM_FAULT, ENV_MEM_LOCK, ENV_MEM_OPS};

	(void)state;
	for (enum change change = PROMOTE; change < CHANGES; change++)
		for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++)
			for (uint64_t nth = 1; failing_once(change, kinds[k], nth) && nth < 100; nth++)
				;
}

/* Another process is there all the while, and goes on when the one that changes the role dies. */
static void test_survivor(void **state)
{
	(void)state;
	for (enum change change = PROMOTE; change < CHANGES; change++) {
		for (uint64_t nth = 1; nth < 40; nth++) {
			struct judge judge = {.change = change};
			struct bts_error error;
			struct bts_role now;
			struct env_mem *m;
			struct bts *db, *other;
			bool done;

			rng_init(&judge.rng, seed + change);
			db = bed_make(&m, is_follower(change), &judge.rng);
			judge.before = role_of(db);
			other = bed_open(env_mem_env(m), "/f", is_follower(change) ? BTS_OPEN_READ_ONLY : 0, 0);
			env_mem_fail(m, ENV_MEM_FAULT, nth, 5, 0);
			done = change_do(db, change, &error) == BTS_OK;
			env_mem_fail_clear(m);
			now = role_of(other);
			assert_true(!done || is_changed(&judge, &now));
			if (done && !is_follower(change)) {
				struct bts_txn *txn;

				assert_int_equal(bts_begin(other, BTS_WRITE, &txn, NULL), BTS_FENCED);
			}
			bts_close(db);
			bts_close(other);
			judge.acknowledged = done;
			judge_image(&judge, m);
			env_mem_free(m);
			if (done)
				break;
		}
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_loss),
		cmocka_unit_test(test_demote_flushes),
		cmocka_unit_test(test_failing_calls),
		cmocka_unit_test(test_survivor),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
