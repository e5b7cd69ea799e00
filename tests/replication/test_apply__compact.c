/*
 * A primary whose file becomes smaller: frames that lower the mark, spanning some steps of compaction or all of them, while
 * read snapshots on the follower still need what lies behind it.  They keep what they saw, and the follower's file becomes as
 * short as the primary's in the end.
 */
#include "apply_bed.h"

#include <errno.h>

#define PINS 3u

struct pin {
	struct bts_txn *txn; /* NULL: none */
	uint8_t digest[16];
};

struct scene {
	struct env_mem *mem;
	struct bts *primary, *follower;
	struct rng rng;
	struct pin pins[PINS];
	unsigned waited, lowered;
};

static uint64_t seed;

static struct bts_stat stat_of(struct bts *db)
{
	struct bts_stat stat = {.size = sizeof(stat)};

	assert_int_equal(bts_stat(db, &stat, NULL), BTS_OK);
	return stat;
}

static void pins_verify(struct scene *s, bool end)
{
	uint8_t digest[16];

	for (unsigned i = 0; i < PINS; i++) {
		struct pin *pin = &s->pins[i];

		if (pin->txn == NULL)
			continue;
		bed_digest(pin->txn, digest);
		assert_memory_equal(digest, pin->digest, 16);
		if (end)
			bts_abort(pin->txn);
		if (end)
			pin->txn = NULL;
	}
}

static void pin(struct scene *s)
{
	struct pin *pin = &s->pins[rng_below(&s->rng, PINS)];

	if (pin->txn != NULL)
		bts_abort(pin->txn);
	assert_int_equal(bts_begin(s->follower, BTS_READ, &pin->txn, NULL), BTS_OK);
	bed_digest(pin->txn, pin->digest);
}

/* A frame that a snapshot stands in the way of is failed at the waiting, and comes again without snapshots. */
static void ship(struct scene *s)
{
	struct bts_position base = bed_position(s->follower);
	struct bed_frame *frame = bed_frame_new(s->primary, &base);
	bts_pgno before = stat_of(s->follower).pages;
	struct bts_error error;
	enum bts_err err;

	env_mem_fail_point(s->mem, "apply.wait", 1, EBUSY, ENV_MEM_STICKY);
	err = bed_apply(s->follower, frame, &s->rng, &error);
	if (err && strstr(error.text, "apply.wait") == NULL)
		fail_msg("apply: %s", error.text);
	if (err) {
		s->waited++;
		pins_verify(s, true);
		if (bed_apply(s->follower, frame, &s->rng, &error))
			fail_msg("apply: %s", error.text);
	}
	env_mem_fail_clear(s->mem);
	bed_frame_free(frame);
	s->lowered += stat_of(s->follower).pages < before;
	pins_verify(s, false);
	bed_assert_same(s->primary, s->follower);
}

static void write_or_delete(struct scene *s, bool gone)
{
	uint8_t value[6000] = {0};
	struct bts_bucket *bucket;
	struct bts_txn *txn;

	assert_int_equal(bts_begin(s->primary, BTS_WRITE, &txn, NULL), BTS_OK);
	assert_int_equal(bts_bucket(txn, (struct bts_slice){"b", 1}, BTS_CREATE, &bucket, NULL), BTS_OK);
	for (unsigned i = 0; i < 80; i++) {
		char key[32];
		int size = snprintf(key, sizeof(key), "%u", (unsigned)rng_below(&s->rng, 1000));
		struct bts_slice k = {key, (size_t)size};
		enum bts_err err;

		if (gone) {
			err = bts_del(txn, bucket, k);
			assert_true(err == BTS_OK || err == BTS_NOT_FOUND);
			continue;
		}
		rng_fill(&s->rng, value, 16);
		assert_int_equal(
			bts_put(txn, bucket, k,
				(struct bts_slice){value, (size_t)rng_below(&s->rng, sizeof(value))}, 0),
			BTS_OK);
	}
	assert_int_equal(bts_commit(txn, NULL), BTS_OK);
}

static bool compact(struct scene *s)
{
	struct bts_compact_info info = {.size = sizeof(info)};
	struct bts_error error;

	if (bts_compact_step(s->primary, 1 + rng_below(&s->rng, 200), &info, &error))
		fail_msg("compact: %s", error.text);
	return info.more;
}

static void scene_run(struct scene *s)
{
	for (unsigned round = 0; round < 4; round++) {
		uint64_t largest;

		for (unsigned i = 0; i < 12; i++)
			write_or_delete(s, false);
		ship(s);
		pin(s);
		for (unsigned i = 0; i < 25; i++)
			write_or_delete(s, true);
		if (round % 2)
			ship(s);
		largest = stat_of(s->follower).file_bytes;
		while (compact(s)) {
			if (rng_one_in(&s->rng, 3))
				ship(s);
			if (rng_one_in(&s->rng, 3))
				pin(s);
			if (rng_one_in(&s->rng, 6))
				write_or_delete(s, rng_one_in(&s->rng, 2));
		}
		pins_verify(s, true);
		/* What readers held is cut with the next frame. */
		write_or_delete(s, true);
		ship(s);
		assert_true(stat_of(s->follower).file_bytes < largest);
		assert_true(stat_of(s->follower).file_bytes <=
			    stat_of(s->follower).pages * 4096 + (UINT64_C(512) << 10));
	}
}

static void frames_lower_the_mark(void **state)
{
	unsigned lowered = 0, waited = 0;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct scene s;
		struct bts_env *env;

		memset(&s, 0, sizeof(s));
		rng_init(&s.rng, seed + i);
		s.mem = env_mem_new(0);
		env_mem_seed(s.mem, seed + i);
		env = env_mem_env(s.mem);
		s.primary = bed_open(env, "/p", 0, 4096);
		bed_create(env, "/f", s.primary, 4096);
		s.follower = bed_open(env, "/f", BTS_OPEN_FOLLOWER, 0);
		scene_run(&s);
		bed_assert_clean(s.follower);
		bts_close(s.follower);
		bts_close(s.primary);
		assert_int_equal(env_mem_counters(s.mem)->live_blocks, 0);
		env_mem_free(s.mem);
		lowered += s.lowered;
		waited += s.waited;
	}
	assert_true(lowered > 4);
	print_message("%u frames lowered the mark, %u waited\n", lowered, waited);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_lower_the_mark),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
