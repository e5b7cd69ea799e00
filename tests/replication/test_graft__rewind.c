/*
 * Random histories that fork: a follower that holds commits of the one is taken to the head of the other.  Then both have
 * the same live pages byte for byte, ordinary frames go on from there, and what was fetched is what differs.
 */
#include "graft_bed.h"

struct scene {
	struct env_mem *mem;
	struct bts *old, *now, *follower; /* the primary that was, its heir, who follows */
	struct bts_position fork;
	struct rng rng;
};

static uint64_t seed;

static void commits(struct bts *db, struct rng *rng, unsigned count)
{
	while (count--)
		bed_commit(db, rng);
}

/* `common` commits, then each side goes on alone; the follower has them all from the old primary. */
static void scene_fork(struct scene *s, uint64_t number, uint32_t page_size, unsigned common, unsigned lost, unsigned new)
{
	struct bts_env *env;

	memset(s, 0, sizeof(*s));
	rng_init(&s->rng, number);
	s->mem = env_mem_new(0);
	env_mem_seed(s->mem, number);
	env = env_mem_env(s->mem);
	s->old = bed_open(env, "/p", 0, page_size);
	bed_create(env, "/f", s->old, page_size);
	s->follower = bed_open(env, "/f", BTS_OPEN_FOLLOWER, 0);
	for (unsigned left = common; left > 0;) {
		unsigned step = 1 + (unsigned)rng_below(&s->rng, left < 20 ? left : 20);

		commits(s->old, &s->rng, step);
		left -= step;
		bed_ship(s->old, s->follower, &s->rng);
	}
	s->fork = bed_position(s->old);
	bts_close(s->old);
	graft_copy(s->mem, "/p", "/q");
	s->old = bed_open(env, "/p", 0, 0);
	commits(s->old, &s->rng, lost);
	bed_ship(s->old, s->follower, &s->rng);
	s->now = bed_open(env, "/q", 0, 0);
	commits(s->now, &s->rng, new);
}

static void scene_close(struct scene *s)
{
	bts_close(s->follower);
	bts_close(s->old);
	bts_close(s->now);
	env_mem_free(s->mem);
}

static void reopen(struct scene *s)
{
	bts_close(s->follower);
	s->follower = bed_open(env_mem_env(s->mem), "/f", BTS_OPEN_FOLLOWER, 0);
}

static void run(uint64_t number, uint32_t page_size, unsigned common, unsigned lost, unsigned new, bool unknown)
{
	struct graft_count count, differs;
	struct bts_error error;
	struct scene s;

	scene_fork(&s, number, page_size, common, lost, new);
	graft_differs(s.now, s.follower, unknown ? UINT64_MAX : s.fork.txid, &differs);
	if (graft(s.follower, s.now, unknown ? NULL : &s.fork, &s.rng, &count, &error))
		fail_msg("seed %llu: graft: %s", (unsigned long long)number, error.text);
	printf("seed %llu: %u common, %u lost, %u new: %llu units of %llu pages fetched in %llu rounds, %llu differ\n",
		(unsigned long long)number, common, lost, new, (unsigned long long)count.units,
		(unsigned long long)count.pages, (unsigned long long)count.rounds, (unsigned long long)differs.units);
	/* The left edge of a tree whose separators moved may come once more. */
	assert_true(count.units >= differs.units && count.units <= differs.units + differs.units / 8 + 8);
	bed_assert_same(s.now, s.follower);
	reopen(&s);
	bed_assert_same(s.now, s.follower);
	for (unsigned i = 0; i < 3; i++) {
		commits(s.now, &s.rng, 1 + (unsigned)rng_below(&s.rng, 4));
		bed_ship(s.now, s.follower, &s.rng);
		bed_assert_same(s.now, s.follower);
	}
	scene_close(&s);
}

static void test_random_forks(void **state)
{
	struct rng rng;

	(void)state;
	rng_init(&rng, seed);
	for (unsigned i = 0; i < 12; i++)
		run(seed + i, i % 4 == 3 ? 16384 : 4096, 1 + (unsigned)rng_below(&rng, 60), 1 + (unsigned)rng_below(&rng, 20),
			1 + (unsigned)rng_below(&rng, 20), false);
}

static void test_base_unknown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++)
		run(seed + 100 + i, 4096, 40, 1 + 5 * i, 10, true);
}

static void test_nothing_in_common(void **state)
{
	(void)state;
	run(seed + 200, 4096, 1, 30, 30, false);
}

/* Old, of another database, or of a fork that this file never had: refused before anything is asked for. */
static void test_refused(void **state)
{
	struct bts_position wrong;
	struct graft_count count;
	struct bts_error error;
	struct scene s;

	(void)state;
	scene_fork(&s, seed + 300, 4096, 10, 3, 3);
	wrong = s.fork;
	wrong.chain[3] ^= 1;
	assert_int_equal(graft(s.follower, s.now, &wrong, NULL, &count, &error), BTS_DIVERGED);
	assert_non_null(strstr(error.text, "fork"));
	assert_int_equal(graft(s.follower, s.now, &s.fork, NULL, &count, &error), BTS_OK);
	assert_int_equal(graft(s.follower, s.old, &s.fork, NULL, &count, &error), BTS_DIVERGED);
	bed_assert_same(s.now, s.follower);
	scene_close(&s);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_forks),
		cmocka_unit_test(test_base_unknown),
		cmocka_unit_test(test_nothing_in_common),
		cmocka_unit_test(test_refused),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
