/*
 * Random workloads shipped to a follower in frames over one or many commits, while read snapshots stand on
 * it.  After each frame the two files are equal in every live page, and what the snapshots see has not moved
 * by a byte.  A frame that a snapshot stands in the way of waits; here it is failed at the waiting, which
 * must leave everything as it was, and comes again when the snapshot has gone.
 */
#include "apply_bed.h"

#include <errno.h>

#define PINS 3u
#define ROUNDS 30u

struct pin {
	struct bts_txn *txn;
	uint8_t digest[16];
};

struct scene {
	struct env_mem *mem;
	struct bts *primary, *follower;
	struct rng rng;
	struct pin pins[PINS];
	unsigned waited;
};

static uint64_t seed;

static void scene_open(struct scene *s, uint64_t number, uint32_t page_size)
{
	struct bts_env *env;

	memset(s, 0, sizeof(*s));
	rng_init(&s->rng, number);
	s->mem = env_mem_new(0);
	env_mem_seed(s->mem, number);
	env = env_mem_env(s->mem);
	s->primary = bed_open(env, "/p", 0, page_size);
	bed_create(env, "/f", s->primary, page_size);
	s->follower = bed_open(env, "/f", BTS_OPEN_FOLLOWER, 0);
}

static void pin_set(struct scene *s, struct pin *pin)
{
	assert_int_equal(bts_begin(s->follower, BTS_READ, &pin->txn, NULL), BTS_OK);
	bed_digest(pin->txn, pin->digest);
}

static void pin_drop(struct pin *pin)
{
	bts_abort(pin->txn);
	pin->txn = NULL;
}

static void pins_assert(struct scene *s)
{
	uint8_t digest[16];

	for (unsigned i = 0; i < PINS; i++)
		if (s->pins[i].txn) {
			bed_digest(s->pins[i].txn, digest);
			assert_memory_equal(digest, s->pins[i].digest, 16);
		}
}

static void pins_move(struct scene *s)
{
	struct pin *pin = &s->pins[rng_below(&s->rng, PINS)];

	if (pin->txn)
		pin_drop(pin);
	else
		pin_set(s, pin);
}

static void ship(struct scene *s)
{
	struct bts_position base = bed_position(s->follower), after;
	struct bed_frame *frame = bed_frame_new(s->primary, &base);
	struct bts_error error;
	enum bts_err err;

	env_mem_fail_point(s->mem, "apply.wait", 1, EBUSY, ENV_MEM_STICKY);
	err = bed_apply(s->follower, frame, &s->rng, &error);
	if (err) {
		if (!strstr(error.text, "apply.wait"))
			fail_msg("apply: %s", error.text);
		s->waited++;
		after = bed_position(s->follower);
		assert_memory_equal(&base, &after, sizeof(base));
		bed_assert_clean(s->follower);
		pins_assert(s);
		for (unsigned i = 0; i < PINS; i++)
			if (s->pins[i].txn)
				pin_drop(&s->pins[i]);
		if (bed_apply(s->follower, frame, &s->rng, &error))
			fail_msg("apply: %s", error.text);
	}
	env_mem_fail_clear(s->mem);
	bed_frame_free(frame);
}

static void reopen(struct scene *s)
{
	for (unsigned i = 0; i < PINS; i++)
		if (s->pins[i].txn)
			pin_drop(&s->pins[i]);
	bts_close(s->follower);
	s->follower = bed_open(env_mem_env(s->mem), "/f", BTS_OPEN_FOLLOWER, 0);
}

static void run(uint64_t number, uint32_t page_size)
{
	struct bts_apply_stat stat;
	uint64_t redirected = 0;
	struct scene s;

	scene_open(&s, number, page_size);
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned commits = 1 + (unsigned)rng_below(&s.rng, rng_one_in(&s.rng, 4) ? 25 : 2);

		while (commits--)
			bed_commit(s.primary, &s.rng);
		ship(&s);
		pins_assert(&s);
		bed_assert_same(s.primary, s.follower);
		pins_move(&s);
		bts_apply_stat(s.follower, &stat);
		if (rng_one_in(&s.rng, 15)) {
			redirected += stat.redirected_pages;
			reopen(&s);
		}
	}
	bts_apply_stat(s.follower, &stat);
	redirected += stat.redirected_pages;
	printf("seed %llu: page size %u, %llu pages redirected, %u frames met a snapshot\n",
		(unsigned long long)number, page_size, (unsigned long long)redirected, s.waited);
	assert_true(redirected > 0);
	reopen(&s);
	bed_assert_same(s.primary, s.follower);
	bts_close(s.follower);
	bts_close(s.primary);
	env_mem_free(s.mem);
}

static void test_small_pages(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++)
		run(seed + i, 4096);
}

static void test_large_pages(void **state)
{
	(void)state;
	run(seed + 100, 16384);
}

/* No frame applied for long, then one over everything. */
static void test_long_sleep(void **state)
{
	struct scene s;

	(void)state;
	scene_open(&s, seed + 200, 4096);
	for (unsigned i = 0; i < 20; i++)
		bed_commit(s.primary, &s.rng);
	bed_ship(s.primary, s.follower, &s.rng);
	for (unsigned i = 0; i < 400; i++)
		bed_commit(s.primary, &s.rng);
	bed_ship(s.primary, s.follower, &s.rng);
	bed_assert_same(s.primary, s.follower);
	bts_close(s.follower);
	bts_close(s.primary);
	env_mem_free(s.mem);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_pages),
		cmocka_unit_test(test_large_pages),
		cmocka_unit_test(test_long_sleep),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
