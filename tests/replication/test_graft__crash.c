/*
 * Power loss at every write and flush of a rewind: the file stands at its own head or at the target, clean, and takes the rewind
 * again.  Readers of the history that is left see it to their end.  Replies that lie are refused, and leave the file as it was.
 */
#include "graft_bed.h"

#include <stdlib.h>

struct scene {
	struct env_mem *mem, *disk; /* primaries; the follower */
	struct bts *old, *now, *follower;
	struct bts_position fork;
	struct rng rng;
};

static uint64_t seed;
static struct scene *scene;
static struct bts_position base, target;
static uint8_t base_content[16], target_content[16];
static bool done;
static unsigned images, at_base, at_target;

static void commits(struct bts *db, struct rng *rng, unsigned count)
{
	while (count--)
		bed_commit(db, rng);
}

static void content(struct bts *db, uint8_t digest[16])
{
	struct bts_txn *txn;

	assert_int_equal(bts_begin(db, BTS_READ, &txn, NULL), BTS_OK);
	bed_digest(txn, digest);
	bts_abort(txn);
}

static void scene_open(struct scene *s, uint64_t number)
{
	struct bts_env *env;

	memset(s, 0, sizeof(*s));
	rng_init(&s->rng, number);
	s->mem = env_mem_new(64 << 20);
	s->disk = env_mem_new(64 << 20);
	env_mem_seed(s->mem, number);
	env = env_mem_env(s->mem);
	s->old = bed_open(env, "/p", 0, 4096);
	bed_create(env_mem_env(s->disk), "/f", s->old, 4096);
	s->follower = bed_open(env_mem_env(s->disk), "/f", BTS_OPEN_FOLLOWER, 0);
	commits(s->old, &s->rng, 15);
	s->fork = bed_position(s->old);
	bts_close(s->old);
	graft_copy(s->mem, "/p", "/q");
	s->old = bed_open(env, "/p", 0, 0);
	commits(s->old, &s->rng, 8);
	bed_ship(s->old, s->follower, &s->rng);
	s->now = bed_open(env, "/q", 0, 0);
	commits(s->now, &s->rng, 8);
	base = bed_position(s->follower);
	target = bed_position(s->now);
	content(s->follower, base_content);
	content(s->now, target_content);
}

static void scene_close(struct scene *s)
{
	bts_close(s->follower);
	bts_close(s->old);
	bts_close(s->now);
	env_mem_free(s->mem);
	env_mem_free(s->disk);
}

static struct env_mem_choice choose(void *arg, size_t index, const struct env_mem_unit *unit)
{
	struct rng *rng = arg;
	struct env_mem_choice choice = {.version = (unsigned)rng_below(rng, unit->versions)};

	(void)index;
	if (unit->tearable && rng_one_in(rng, 2)) {
		choice.other = (unsigned)rng_below(rng, unit->versions);
		choice.words = rng_next(rng);
	}
	return choice;
}

static void judge(struct env_mem *image)
{
	struct bts *db = bed_open(env_mem_env(image), "/f", BTS_OPEN_FOLLOWER, 0);
	struct bts_position found = bed_position(db);
	struct graft_count count;
	struct bts_error error;
	uint8_t digest[16];

	images++;
	content(db, digest);
	bed_assert_clean(db);
	if (found.txid == target.txid) {
		at_target++;
		assert_memory_equal(digest, target_content, 16);
	} else {
		assert_false(done);
		at_base++;
		assert_memory_equal(&found, &base, sizeof(found));
		assert_memory_equal(digest, base_content, 16);
		if (rng_one_in(&scene->rng, 8)) {
			if (graft(db, scene->now, &scene->fork, NULL, &count, &error))
				fail_msg("again: %s", error.text);
			bed_assert_same(scene->now, db);
		}
	}
	bts_close(db);
}

static void hook(void *arg, struct env_mem *mem, const struct env_mem_event *event)
{
	struct env_mem *image;

	(void)arg;
	if (event->op == ENV_MEM_FAULT && strcmp(event->path, "apply.unit") == 0)
		return;
	if (event->op == ENV_MEM_WRITE && event->size > 4096 && !rng_one_in(&scene->rng, 4))
		return;
	for (unsigned way = 0; way < 3; way++) {
		image = way == 0 ? env_mem_crash(mem, env_mem_choose_durable, NULL)
				 : rng_one_in(&scene->rng, 8) ? env_mem_clone(mem)
							      : env_mem_crash(mem, choose, &scene->rng);
		judge(image);
		env_mem_free(image);
	}
}

static void test_power_loss(void **state)
{
	struct graft_count count;
	struct bts_error error;
	struct scene s;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		scene_open(&s, seed + i);
		scene = &s;
		done = false;
		env_mem_set_hook(s.disk, hook, NULL);
		if (graft(s.follower, s.now, &s.fork, &s.rng, &count, &error))
			fail_msg("graft: %s", error.text);
		done = true;
		hook(NULL, s.disk, &(struct env_mem_event){.op = ENV_MEM_SYNC, .path = ""});
		env_mem_set_hook(s.disk, NULL, NULL);
		bed_assert_same(s.now, s.follower);
		scene_close(&s);
	}
	printf("%u images, %u at the base, %u at the target\n", images, at_base, at_target);
	assert_true(at_base > 0 && at_target > 0);
}

static void test_readers(void **state)
{
	struct graft_count count;
	struct bts_error error;
	struct bts_txn *txn;
	uint8_t digest[16];
	struct scene s;

	(void)state;
	scene_open(&s, seed + 20);
	assert_int_equal(bts_begin(s.follower, BTS_READ, &txn, &error), BTS_OK);
	if (graft(s.follower, s.now, &s.fork, &s.rng, &count, &error))
		fail_msg("graft: %s", error.text);
	bed_digest(txn, digest);
	assert_memory_equal(digest, base_content, 16);
	commits(s.now, &s.rng, 5);
	bed_ship(s.now, s.follower, &s.rng);
	bed_digest(txn, digest);
	assert_memory_equal(digest, base_content, 16);
	bts_abort(txn);
	bed_assert_same(s.now, s.follower);
	scene_close(&s);
}

/* Units with a byte changed, of another page, not asked for, or not sent: refused, wherever it is noticed. */
static void test_lies(void **state)
{
	struct bts_page_id ids[16];
	struct bts_error error;
	uint8_t digest[16];
	struct scene s;
	unsigned refused = 0;

	(void)state;
	scene_open(&s, seed + 30);
	for (unsigned lie = 0; lie < 60; lie++) {
		uint8_t *copy = malloc(400000);
		struct bts_pages *pages;
		struct bts_apply *apply;
		struct bts_slice bytes;
		size_t n, victim = rng_below(&s.rng, 30), unit = 0;
		enum bts_err err;

		assert_int_equal(bts_pages_open(s.now, &pages, &error), BTS_OK);
		assert_int_equal(bts_apply_begin_graft(s.follower, &s.fork, bts_pages_position(pages), bts_pages_record(pages),
					 &apply, &error),
			BTS_OK);
		do {
			err = bts_apply_missing(apply, ids, 16, &n, &error);
			for (size_t i = 0; !err && i < n; i++, unit++) {
				struct bts_page_id id = ids[i];

				assert_int_equal(bts_pages_read(pages, &id, &bytes, &error), BTS_OK);
				memcpy(copy, bytes.data, bytes.size);
				if (unit == victim && lie % 3 == 0)
					copy[rng_below(&s.rng, bytes.size)] ^= 0x10;
				if (unit == victim && lie % 3 == 1)
					id.birth ^= 1;
				if (unit == victim && lie % 3 == 2)
					id.pgno++;
				err = bts_apply_piece(apply, &id, 0, (struct bts_slice){copy, bytes.size}, &error);
			}
		} while (!err && n > 0);
		if (err)
			bts_apply_abort(apply);
		else
			err = bts_apply_finish(apply, bts_pages_record(pages), &error);
		free(copy);
		bts_pages_close(pages);
		if (victim < unit || err) {
			assert_int_equal(err, BTS_CORRUPT);
			refused++;
			content(s.follower, digest);
			assert_memory_equal(digest, base_content, 16);
			bed_assert_clean(s.follower);
		} else {
			scene_close(&s);
			scene_open(&s, seed + 31 + lie);
		}
	}
	printf("%u lies refused\n", refused);
	assert_true(refused > 30);
	scene_close(&s);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_loss),
		cmocka_unit_test(test_readers),
		cmocka_unit_test(test_lies),
	};

	seed = rng_seed_from(argc, argv, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
