/*
 * Bytes flipped in pages of every kind, on the follower and on the primary: the scrub finds each with its page number, the other
 * one's bytes repair it, byte for byte.  What nobody has stays: its keys fail, all others are served.
 */
#include "graft_bed.h"

#include <stdlib.h>

#define FLIPS_MAX 12u

struct scene {
	struct env_mem *mem;
	struct bts *primary, *follower;
	struct rng rng;
};

static uint64_t seed;

static void scene_open(struct scene *s, uint64_t number)
{
	struct bts_env *env;

	rng_init(&s->rng, number);
	s->mem = env_mem_new(0);
	env_mem_seed(s->mem, number);
	env = env_mem_env(s->mem);
	s->primary = bed_open(env, "/p", 0, 4096);
	bed_create(env, "/f", s->primary, 4096);
	s->follower = bed_open(env, "/f", BTS_OPEN_FOLLOWER, 0);
	for (unsigned i = 0; i < 60; i++)
		bed_commit(s->primary, &s->rng);
	bed_ship(s->primary, s->follower, &s->rng);
}

static void scene_close(struct scene *s)
{
	bts_close(s->follower);
	bts_close(s->primary);
	env_mem_free(s->mem);
}

/* Ask `healthy` for what is damaged in db.  How many were found; *left: not repaired. */
static unsigned scrub(struct bts *db, struct bts *healthy, const bts_pgno *flipped, unsigned count, unsigned *left)
{
	struct bts_pages *pages = NULL;
	struct bts_scrub_unit unit;
	struct bts_scrub_stat stat;
	struct bts_scrub *scrub;
	struct bts_error error;
	struct bts_slice bytes;
	unsigned found = 0;
	enum bts_err err;

	if (healthy)
		assert_int_equal(bts_pages_open(healthy, &pages, &error), BTS_OK);
	if (bts_scrub_open(db, &scrub, &error))
		fail_msg("scrub: %s", error.text);
	*left = 0;
	while ((err = bts_scrub_next(scrub, &unit, &error)) == BTS_OK) {
		char page[40];
		bool named = false;

		if (!unit.damaged)
			continue;
		for (unsigned i = 0; i < count; i++)
			named |= flipped[i] >= unit.id.pgno && flipped[i] < unit.id.pgno + unit.id.count;
		assert_true(named);
		snprintf(page, sizeof(page), "page %llu", (unsigned long long)unit.id.pgno);
		if (unit.id.kind != BTS_KIND_EXTENT)
			assert_non_null(strstr(unit.what.text, page));
		found++;
		err = pages ? bts_pages_read(pages, &unit.id, &bytes, &error) : BTS_NOT_FOUND;
		if (err) {
			++*left;
			continue;
		}
		if (bts_scrub_repair(scrub, bytes, &error))
			fail_msg("repair: %s", error.text);
		assert_int_equal(bts_scrub_repair(scrub, bytes, &error), BTS_INVALID);
	}
	assert_int_equal(err, BTS_NOT_FOUND);
	bts_scrub_stat(scrub, &stat);
	assert_true(stat.damaged == found && stat.repaired == found - *left);
	bts_scrub_close(scrub);
	bts_pages_close(pages);
	return found;
}

/* Some unit of that kind, of what db has now. */
static struct bts_page_id some_unit(struct bts *db, struct rng *rng, uint32_t kind)
{
	struct bts_position nothing = {.txid = 0};
	struct bed_frame *frame = bed_frame_new(db, &nothing);
	struct bts_page_id id = {.count = 0};
	unsigned seen = 0;

	for (size_t i = 0; i < frame->count; i++)
		if (frame->units[i].id.kind == kind && rng_one_in(rng, ++seen))
			id = frame->units[i].id;
	bed_frame_free(frame);
	return id;
}

static void damage(struct scene *s, struct bts *db, const char *path, struct bts *healthy, uint32_t kind, unsigned count)
{
	struct bts_page_id units[FLIPS_MAX];
	bts_pgno flipped[FLIPS_MAX];
	unsigned left, found, distinct = 0;

	for (unsigned i = 0; i < count; i++) {
		units[i] = some_unit(db, &s->rng, kind ? kind : 1 + (uint32_t)rng_below(&s->rng, 2));
		if (units[i].count == 0)
			return;
	}
	for (unsigned i = 0; i < count; i++) {
		bool again = false;

		for (unsigned j = 0; j < i; j++)
			again |= units[j].pgno == units[i].pgno;
		if (again)
			continue;
		flipped[distinct] = units[i].pgno + rng_below(&s->rng, units[i].count);
		env_mem_flip(s->mem, path, flipped[distinct] * 4096 + rng_below(&s->rng, 4096),
			(uint8_t)(1u << rng_below(&s->rng, 8)));
		distinct++;
	}
	found = scrub(db, healthy, flipped, distinct, &left);
	assert_int_equal(found, distinct);
	assert_int_equal(left, 0);
	assert_int_equal(scrub(db, healthy, NULL, 0, &left), 0);
	bed_assert_same(s->primary, s->follower);
}

static void test_repair(void **state)
{
	struct scene s;

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		scene_open(&s, seed + round);
		for (uint32_t kind = BTS_KIND_NODE; kind <= BTS_KIND_FREE_LOG; kind++) {
			damage(&s, s.follower, "/f", s.primary, kind, 1);
			damage(&s, s.primary, "/p", s.follower, kind, 1);
		}
		for (unsigned i = 0; i < 10; i++) {
			damage(&s, s.follower, "/f", s.primary, 0, 1 + (unsigned)rng_below(&s.rng, FLIPS_MAX));
			damage(&s, s.primary, "/p", s.follower, 0, 1 + (unsigned)rng_below(&s.rng, FLIPS_MAX));
		}
		bed_commit(s.primary, &s.rng);
		bed_ship(s.primary, s.follower, &s.rng);
		bed_assert_same(s.primary, s.follower);
		scene_close(&s);
	}
}

/* Bytes that are not those: refused, and nothing is written. */
static void test_wrong_bytes(void **state)
{
	uint8_t page[4096];
	struct bts_page_id id;
	struct bts_scrub_unit unit;
	struct bts_scrub *scrub;
	struct bts_pages *pages;
	struct bts_error error;
	struct bts_slice bytes;
	struct scene s;
	uint64_t hash;

	(void)state;
	scene_open(&s, seed + 50);
	id = some_unit(s.follower, &s.rng, BTS_KIND_NODE);
	env_mem_flip(s.mem, "/f", id.pgno * 4096 + 100, 4);
	assert_int_equal(bts_pages_open(s.primary, &pages, &error), BTS_OK);
	assert_int_equal(bts_pages_read(pages, &id, &bytes, &error), BTS_OK);
	memcpy(page, bytes.data, sizeof(page));
	assert_int_equal(bts_scrub_open(s.follower, &scrub, &error), BTS_OK);
	do
		assert_int_equal(bts_scrub_next(scrub, &unit, &error), BTS_OK);
	while (!unit.damaged);
	hash = env_mem_hash(s.mem);
	for (unsigned i = 0; i < 200; i++) {
		size_t at = rng_below(&s.rng, sizeof(page));

		page[at] ^= 0x40;
		assert_int_equal(bts_scrub_repair(scrub, (struct bts_slice){page, sizeof(page)}, &error), BTS_CORRUPT);
		page[at] ^= 0x40;
	}
	assert_int_equal(bts_scrub_repair(scrub, (struct bts_slice){page, 4000}, &error), BTS_CORRUPT);
	assert_true(env_mem_hash(s.mem) == hash);
	assert_int_equal(bts_scrub_repair(scrub, (struct bts_slice){page, sizeof(page)}, &error), BTS_OK);
	bts_scrub_close(scrub);
	bts_pages_close(pages);
	bed_assert_same(s.primary, s.follower);
	scene_close(&s);
}

/* A leaf that nobody has: its keys fail, though they had been read before; the others do not. */
static void test_unrepairable(void **state)
{
	struct scene s;
	struct bts_error error;
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	struct bts_slice value;
	unsigned left, failed = 0, served = 0;
	struct bts_page_id leaf;
	char key[16];

	(void)state;
	memset(&s, 0, sizeof(s));
	rng_init(&s.rng, seed);
	s.mem = env_mem_new(0);
	s.primary = bed_open(env_mem_env(s.mem), "/p", 0, 4096);
	assert_int_equal(bts_begin(s.primary, BTS_WRITE, &txn, &error), BTS_OK);
	assert_int_equal(bts_bucket(txn, (struct bts_slice){"b", 1}, BTS_CREATE, &bucket, &error), BTS_OK);
	for (unsigned i = 0; i < 5000; i++) {
		snprintf(key, sizeof(key), "%08u", i);
		assert_int_equal(bts_put(txn, bucket, (struct bts_slice){key, 8}, (struct bts_slice){key, 8}, 0), BTS_OK);
	}
	assert_int_equal(bts_commit(txn, &error), BTS_OK);
	do { /* a leaf of the bucket: type 1, tree 16 or above */
		const uint8_t *bytes;
		uint64_t size;

		leaf = some_unit(s.primary, &s.rng, BTS_KIND_NODE);
		bytes = env_mem_bytes(s.mem, "/p", &size) + leaf.pgno * 4096;
		if (bytes[4] == 1 && bytes[32] >= 16)
			break;
	} while (true);
	assert_int_equal(bts_begin(s.primary, BTS_READ, &txn, &error), BTS_OK);
	assert_int_equal(bts_bucket(txn, (struct bts_slice){"b", 1}, 0, &bucket, &error), BTS_OK);
	for (unsigned i = 0; i < 5000; i++) {
		snprintf(key, sizeof(key), "%08u", i);
		assert_int_equal(bts_get(txn, bucket, (struct bts_slice){key, 8}, &value), BTS_OK);
	}
	env_mem_flip(s.mem, "/p", leaf.pgno * 4096 + 2000, 1);
	assert_int_equal(scrub(s.primary, NULL, &leaf.pgno, 1, &left), 1);
	assert_int_equal(left, 1);
	for (unsigned i = 0; i < 5000; i++) {
		enum bts_err err;

		snprintf(key, sizeof(key), "%08u", i);
		err = bts_get(txn, bucket, (struct bts_slice){key, 8}, &value);
		assert_true(err == BTS_OK || err == BTS_CORRUPT);
		failed += err == BTS_CORRUPT;
		served += err == BTS_OK;
	}
	bts_abort(txn);
	printf("%u keys fail, %u are served\n", failed, served);
	assert_true(failed > 20 && failed < 300);
	bts_close(s.primary);
	env_mem_free(s.mem);
}

/* Power fails at every write and flush of a repair: the page is as damaged as it was, or whole. */
static struct scene *crashing;
static unsigned crashes;

static void crash_hook(void *arg, struct env_mem *mem, const struct env_mem_event *event)
{
	struct rng rng;

	(void)arg;
	if (event->op != ENV_MEM_WRITE && event->op != ENV_MEM_SYNC)
		return;
	rng_init(&rng, seed + crashes);
	for (unsigned i = 0; i < 4; i++) {
		uint64_t bits[64];
		struct env_mem *image;
		struct bts *db;
		bts_pgno none = 0;
		unsigned left;

		for (unsigned w = 0; w < 64; w++)
			bits[w] = rng_next(&rng);
		image = env_mem_crash(mem, env_mem_choose_bits, bits);
		db = bed_open(env_mem_env(image), "/f", BTS_OPEN_FOLLOWER, 0);
		(void)none;
		{
			struct bts_scrub_unit unit;
			struct bts_scrub *scrub_;
			struct bts_error error;
			struct bts_pages *pages;
			struct bts_slice bytes;
			enum bts_err err;

			left = 0;
			assert_int_equal(bts_pages_open(crashing->primary, &pages, &error), BTS_OK);
			assert_int_equal(bts_scrub_open(db, &scrub_, &error), BTS_OK);
			while ((err = bts_scrub_next(scrub_, &unit, &error)) == BTS_OK) {
				if (!unit.damaged)
					continue;
				left++;
				assert_int_equal(bts_pages_read(pages, &unit.id, &bytes, &error), BTS_OK);
				assert_int_equal(bts_scrub_repair(scrub_, bytes, &error), BTS_OK);
			}
			assert_int_equal(err, BTS_NOT_FOUND);
			assert_true(left <= 1);
			bts_scrub_close(scrub_);
			bts_pages_close(pages);
		}
		bed_assert_same(crashing->primary, db);
		bts_close(db);
		env_mem_free(image);
		crashes++;
	}
}

static void test_power_loss(void **state)
{
	struct bts_page_id id;
	struct scene s;
	unsigned left;

	(void)state;
	scene_open(&s, seed + 70);
	crashing = &s;
	for (uint32_t kind = BTS_KIND_NODE; kind <= BTS_KIND_EXTENT; kind++) {
		id = some_unit(s.follower, &s.rng, kind);
		for (unsigned sector = 0; sector < 8; sector += 3)
			env_mem_flip(s.mem, "/f", (id.pgno + id.count - 1) * 4096 + sector * 512 + 77, 8);
		env_mem_set_hook(s.mem, crash_hook, NULL);
		assert_int_equal(scrub(s.follower, s.primary, &(bts_pgno){id.pgno + id.count - 1}, 1, &left), 1);
		env_mem_set_hook(s.mem, NULL, NULL);
		bed_assert_same(s.primary, s.follower);
	}
	printf("%u images\n", crashes);
	assert_true(crashes > 8);
	scene_close(&s);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_repair),
		cmocka_unit_test(test_wrong_bytes),
		cmocka_unit_test(test_unrepairable),
		cmocka_unit_test(test_power_loss),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
