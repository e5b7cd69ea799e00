/*
 * First transfers that break off, again and again, while the primary goes on writing: the frame ends after some units, the
 * follower is closed and opened, dies, or its machine loses power.  The next frame goes on where the last one came to, to a newer
 * commit, until one is complete; then the two files are equal in every live page.  What is sent in all is bounded: nothing
 * that did not change is sent twice while only connections break.
 */
#include "apply_bed.h"

#include <stdlib.h>

#define STEP 65536u
#define TRIES 400u

struct scene {
	struct env_mem *mem, *there;
	struct bts *primary, *follower;
	struct rng rng;
	struct bts_partial partial; /* as the follower told last */
	bool any;
	unsigned breaks, resumed, anew, noted;
	uint64_t sent;
};

static uint64_t seed;

static struct bts *open_follower_step(struct env_mem *mem, uint64_t step)
{
	struct bts_error error = {.text = ""};
	struct bts_options options;
	struct bts *db;

	bts_options_init(&options);
	options.env = env_mem_env(mem);
	options.flags = BTS_OPEN_FOLLOWER | BTS_OPEN_EXISTING;
	options.map_bytes = UINT64_C(256) << 20;
	options.transfer_step = step;
	if (bts_open("/f", &options, &db, &error))
		fail_msg("open: %s", error.text);
	return db;
}

static struct bts *open_follower(struct env_mem *mem)
{
	return open_follower_step(mem, STEP);
}

static void scene_open(struct scene *s, uint64_t number, uint32_t page_size)
{
	memset(s, 0, sizeof(*s));
	rng_init(&s->rng, number);
	s->mem = env_mem_new(0);
	s->there = env_mem_new(0);
	env_mem_seed(s->mem, number);
	env_mem_seed(s->there, number + 1);
	s->primary = bed_open(env_mem_env(s->there), "/p", 0, page_size);
	for (unsigned i = 0; i < 60; i++)
		bed_commit(s->primary, &s->rng);
	bed_create(env_mem_env(s->mem), "/f", s->primary, page_size);
	s->follower = open_follower(s->mem);
}

static void scene_close(struct scene *s)
{
	bts_close(s->follower);
	bts_close(s->primary);
	env_mem_free(s->mem);
	env_mem_free(s->there);
}

static enum bts_err next_unit(struct bts_walk *walk, struct bts_page_id *id, struct bts_slice *bytes)
{
	struct bts_error error;
	enum bts_err err;

	do {
		err = bts_walk_next(walk, id, bytes, &error);
	} while (err == BTS_BUSY);
	if (err && err != BTS_NOT_FOUND)
		fail_msg("walk: %s", error.text);
	return err;
}

/* A frame, or what comes of it before it breaks; BTS_OK: complete. */
static enum bts_err transfer(struct scene *s, uint64_t units, bool *complete)
{
	struct bts_position none = {.txid = 0};
	struct bts_page_id id;
	struct bts_error error;
	struct bts_apply *apply;
	struct bts_walk *walk;
	struct bts_slice bytes;
	enum bts_err err = BTS_NOT_FOUND;

	*complete = false;
	s->any = bts_apply_partial(s->follower, &s->partial) == BTS_OK;
	if (s->any)
		err = bts_walk_open_from(s->primary, &s->partial, &walk, &error);
	assert_true(!err || err == BTS_NOT_FOUND);
	s->resumed += !err;
	s->anew += s->any && err;
	if (!err) {
		err = bts_apply_resume(s->follower, &s->partial, bts_walk_position(walk), &apply, &error);
	} else {
		assert_int_equal(bts_walk_open(s->primary, 0, &walk, NULL), BTS_OK);
		none = *bts_walk_position(walk);
		none.txid = 0;
		err = bts_apply_begin(s->follower, &none, bts_walk_position(walk), &apply, &error);
	}
	if (err)
		fail_msg("begin: %s", error.text);
	for (; !err && units > 0; units--) {
		err = next_unit(walk, &id, &bytes);
		if (err)
			break;
		err = bts_apply_piece(apply, &id, 0, bytes, &error);
		s->sent += id.count;
	}
	if (err == BTS_NOT_FOUND) {
		*complete = true;
		err = bts_apply_finish(apply, bts_walk_record(walk), &error);
		if (err)
			fail_msg("finish: %s", error.text);
	} else if (!err) {
		bts_apply_suspend(apply);
		s->breaks++;
	}
	bts_walk_close(walk);
	return err;
}

static struct env_mem_choice choose(void *arg, size_t index, const struct env_mem_unit *unit)
{
	(void)index;
	return (struct env_mem_choice){.version = (unsigned)rng_below(arg, unit->versions)};
}

static void befall(struct scene *s)
{
	struct env_mem *left;

	switch (rng_below(&s->rng, 8)) {
	case 0:
		bts_close(s->follower);
		s->follower = open_follower(s->mem);
		break;
	case 1:
	case 2:
		left = rng_one_in(&s->rng, 2) ? env_mem_clone(s->mem) : env_mem_crash(s->mem, choose, &s->rng);
		bts_close(s->follower); /* of what goes on unharmed, and is forgotten */
		env_mem_free(s->mem);
		s->mem = left;
		s->follower = open_follower(s->mem);
		s->noted += bts_apply_partial(s->follower, &s->partial) == BTS_OK;
		break;
	default:
		break;
	}
}

static void run(uint64_t number, uint32_t page_size, unsigned commits)
{
	struct scene s;
	bool complete = false;

	scene_open(&s, number, page_size);
	for (unsigned i = 0; i < TRIES && !complete; i++) {
		assert_int_equal(transfer(&s, 1 + rng_below(&s.rng, 25), &complete), BTS_OK);
		for (unsigned c = commits; c > 0 && !complete; c--)
			bed_commit(s.primary, &s.rng);
		if (!complete)
			befall(&s);
	}
	while (!complete)
		assert_int_equal(transfer(&s, UINT64_MAX, &complete), BTS_OK);
	printf("seed %llu: page size %u, %u breaks, %u resumed, %u began anew, %u after a crash, %llu pages sent\n",
		(unsigned long long)number, page_size, s.breaks, s.resumed, s.anew, s.noted, (unsigned long long)s.sent);
	assert_true(s.resumed > 0 && s.anew == 0);
	bed_assert_clean(s.follower);
	assert_int_equal(bts_apply_partial(s.follower, &s.partial), BTS_NOT_FOUND);
	bed_commit(s.primary, &s.rng);
	bed_ship(s.primary, s.follower, &s.rng);
	bed_assert_same(s.primary, s.follower);
	scene_close(&s);
}

static void test_breaks(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 12; i++)
		run(seed + i, i % 3 ? 4096 : 8192, i % 4);
}

/* A primary that rests: every page is sent once, whatever the number of connections. */
static void test_nothing_twice(void **state)
{
	struct bts_stat stat = {.size = sizeof(stat)};
	bool complete = false;
	struct scene s;

	(void)state;
	scene_open(&s, seed + 50, 4096);
	while (!complete)
		assert_int_equal(transfer(&s, 1 + rng_below(&s.rng, 3), &complete), BTS_OK);
	assert_int_equal(bts_stat(s.primary, &stat, NULL), BTS_OK);
	printf("%u breaks, %llu pages sent of %llu\n", s.breaks, (unsigned long long)s.sent,
		(unsigned long long)(stat.pages - stat.first_page - stat.free_pages));
	assert_int_equal(s.sent, stat.pages - stat.first_page - stat.free_pages);
	bed_assert_same(s.primary, s.follower);
	scene_close(&s);
}

/* What was refused is forgotten for good, also by who opens the file afterwards. */
static void test_refused(void **state)
{
	struct bts_page_id id;
	struct bts_error error;
	struct bts_apply *apply;
	struct bts_walk *walk;
	struct bts_slice bytes;
	unsigned units = 0;
	bool complete;
	struct scene s;

	(void)state;
	scene_open(&s, seed + 60, 4096);
	assert_int_equal(transfer(&s, 40, &complete), BTS_OK);
	assert_int_equal(bts_apply_partial(s.follower, &s.partial), BTS_OK);
	assert_int_equal(bts_walk_open_from(s.primary, &s.partial, &walk, NULL), BTS_OK);
	assert_int_equal(bts_apply_resume(s.follower, &s.partial, bts_walk_position(walk), &apply, &error), BTS_OK);
	while (next_unit(walk, &id, &bytes) == BTS_OK)
		if (++units != 2) /* this one is missing */
			assert_int_equal(bts_apply_piece(apply, &id, 0, bytes, &error), BTS_OK);
	assert_int_equal(bts_apply_finish(apply, bts_walk_record(walk), &error), BTS_CORRUPT);
	bts_walk_close(walk);
	assert_int_equal(bts_apply_partial(s.follower, &s.partial), BTS_NOT_FOUND);
	bts_close(s.follower);
	s.follower = open_follower(s.mem);
	assert_int_equal(bts_apply_partial(s.follower, &s.partial), BTS_NOT_FOUND);
	scene_close(&s);
}

/* A source that begins anew where it should go on, with the same commit: nothing is noted of it that can not be read again. */
static void test_same_commit_anew(void **state)
{
	struct bts_partial after;
	struct bts_page_id id;
	struct bts_error error;
	struct bts_apply *apply;
	struct bts_walk *walk;
	struct bts_slice bytes;
	bool complete;
	struct scene s;

	(void)state;
	scene_open(&s, seed + 61, 4096);
	assert_int_equal(transfer(&s, 80, &complete), BTS_OK);
	assert_int_equal(bts_apply_partial(s.follower, &s.partial), BTS_OK);
	assert_int_equal(bts_walk_open(s.primary, 0, &walk, NULL), BTS_OK);
	assert_int_equal(bts_apply_resume(s.follower, &s.partial, bts_walk_position(walk), &apply, &error), BTS_OK);
	do {
		assert_int_equal(next_unit(walk, &id, &bytes), BTS_OK);
		assert_int_equal(bts_apply_piece(apply, &id, 0, bytes, &error), BTS_OK);
	} while (id.pgno + id.count + 32 < s.partial.cursor);
	bts_apply_suspend(apply);
	bts_walk_close(walk);
	bts_close(s.follower);
	s.follower = open_follower(s.mem);
	assert_int_equal(bts_apply_partial(s.follower, &after), BTS_OK);
	assert_true(after.cursor == s.partial.cursor && after.older == 0);
	assert_int_equal(transfer(&s, UINT64_MAX, &complete), BTS_OK);
	bed_assert_same(s.primary, s.follower);
	scene_close(&s);
}

/* Runs of pages in the order of the walk, as many writes as there were if nothing lay between; the units, borrowed of the walk. */
static unsigned collect(struct bts_walk *walk, struct bts_page_id *ids, struct bts_slice *bytes, size_t cap, size_t *count)
{
	unsigned runs = 0;
	bts_pgno next = 0;

	for (*count = 0; next_unit(walk, &ids[*count], &bytes[*count]) == BTS_OK; ++*count) {
		runs += ids[*count].pgno != next;
		next = ids[*count].pgno + ids[*count].count;
		assert_true(*count + 1 < cap);
	}
	return runs;
}

/* A database full of holes goes out in far fewer writes than it has runs; what comes in another order is not written over. */
static void test_holes(void **state)
{
	enum { CAP = 4096 };
	static struct bts_page_id ids[CAP];
	static struct bts_slice bytes[CAP];
	struct bts_position none = {.txid = 0};
	uint64_t writes;
	struct bts_error error;
	struct bts_apply *apply;
	struct bts_walk *walk;
	unsigned runs;
	struct scene s;
	size_t count;

	(void)state;
	for (unsigned shuffled = 0; shuffled < 2; shuffled++) {
		scene_open(&s, seed + 62, 4096);
		bts_close(s.follower);
		s.follower = open_follower_step(s.mem, 0);
		for (unsigned i = 0; i < 200; i++)
			bed_commit(s.primary, &s.rng);
		assert_int_equal(bts_walk_open(s.primary, 0, &walk, NULL), BTS_OK);
		runs = collect(walk, ids, bytes, CAP, &count);
		none = *bts_walk_position(walk);
		none.txid = 0;
		assert_int_equal(bts_apply_begin(s.follower, &none, bts_walk_position(walk), &apply, &error), BTS_OK);
		writes = env_mem_counters(s.mem)->ops[ENV_MEM_WRITE];
		for (size_t i = 0; i < count; i++) {
			size_t at = shuffled && (i ^ 3) < count ? i ^ 3 : i;

			assert_int_equal(bts_apply_piece(apply, &ids[at], 0, bytes[at], &error), BTS_OK);
		}
		writes = env_mem_counters(s.mem)->ops[ENV_MEM_WRITE] - writes;
		printf("%s: %zu units in %u runs: %llu writes\n", shuffled ? "shuffled" : "in order", count, runs,
			(unsigned long long)writes);
		if (!shuffled)
			assert_true(runs > 20 && writes < runs * 2 / 3);
		if (bts_apply_finish(apply, bts_walk_record(walk), &error))
			fail_msg("finish: %s", error.text);
		bts_walk_close(walk);
		bed_assert_same(s.primary, s.follower);
		scene_close(&s);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_breaks),
		cmocka_unit_test(test_nothing_twice),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_same_commit_anew),
		cmocka_unit_test(test_holes),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
