/* The log of the free set: random appends and condensings against a set in memory, and damaged pages. */
#include "cmocka.h"
#include "env_mem.h"
#include "error.h"
#include "freelog.h"
#include "rng.h"

#define FIRST 16u
#define SET_END 2000u /* the set lives below, log pages above */
#define HIGH_WATER 2500u
#define PAGE 4096u
#define PAGES_MAX 64u

struct fixture {
	struct env_mem *mem;
	struct bts_env *env;
	struct bts_file *file;
	struct pager pager;
	struct bts_error error;
	struct tree_ctx ctx;
	struct rng rng;
	bool spare; /* now and then give one page more than needed */
	struct freelog log;
	uint8_t free[HIGH_WATER];
	bts_pgno next_page;
	uint8_t images[PAGES_MAX * PAGE];
};

static uint64_t seed;

static struct fixture *fixture_new(uint64_t salt)
{
	static const uint8_t nothing[HIGH_WATER * PAGE];
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	rng_init(&f->rng, seed + salt);
	f->mem = env_mem_new((size_t)16 << 20);
	f->env = env_mem_env(f->mem);
	env_mem_put_file(f->mem, "log", nothing, sizeof(nothing));
	assert_int_equal(f->env->ops->file_open(f->env, "log", BTS_FILE_WRITE, &f->file), 0);
	assert_int_equal(pager_init(&f->pager, f->env, f->file, PAGE, sizeof(nothing), &f->error), BTS_OK);
	f->ctx = (struct tree_ctx){.pager = &f->pager, .limit = HIGH_WATER, .newest = 1, .error = &f->error};
	f->next_page = SET_END;
	return f;
}

static void fixture_free(struct fixture *f)
{
	pager_fini(&f->pager);
	f->env->ops->file_close(f->file);
	assert_int_equal(env_mem_counters(f->mem)->live_blocks, 0);
	env_mem_free(f->mem);
	free(f);
}

static void fixture_write(struct fixture *f, bts_pgno pgno, uint8_t *image)
{
	struct iovec iov = {image, PAGE};

	assert_int_equal(f->env->ops->file_pwritev(f->file, &iov, 1, pgno * PAGE), 0);
}

/* Random frees and takes, in the delta and in the model. */
static void change(struct fixture *f, struct freelog_delta *delta, unsigned steps)
{
	while (steps-- > 0) {
		struct space_run run = {FIRST + rng_below(&f->rng, SET_END - FIRST), 0};
		uint64_t want = 1 + rng_below(&f->rng, 12);
		uint8_t is = f->free[run.pgno];

		while (run.count < want && run.pgno + run.count < SET_END &&
			f->free[run.pgno + run.count] == is)
			f->free[run.pgno + run.count++] = !is;
		assert_int_equal(freelog_delta_add(delta, run, !is), BTS_OK);
	}
}

struct walk {
	const uint8_t *free;
	bts_pgno at;
};

static bool walk_next(void *arg, struct space_run *run)
{
	struct walk *walk = arg;

	while (walk->at < SET_END && !walk->free[walk->at])
		walk->at++;
	*run = (struct space_run){walk->at, 0};
	while (walk->at < SET_END && walk->free[walk->at]) {
		walk->at++;
		run->count++;
	}
	return run->count > 0;
}

static void fixture_commit(struct fixture *f, unsigned steps, bool condense)
{
	struct walk walk = {f->free, FIRST};
	bts_pgno numbers[PAGES_MAX];
	struct freelog_delta delta;
	uint64_t runs = 0;
	struct space_run run;
	size_t pages;

	freelog_delta_init(&delta, f->env);
	change(f, &delta, steps);
	while (walk_next(&walk, &run))
		runs++;
	walk.at = FIRST;
	pages = freelog_plan(&f->log, delta.count, runs, PAGE, &condense);
	if (f->spare && rng_one_in(&f->rng, 8))
		pages++; /* more than needed are used all the same */
	assert_true(pages <= PAGES_MAX);
	memset(f->images, 0, pages * PAGE);
	f->ctx.newest++;
	for (size_t i = 0; i < pages; i++) {
		numbers[i] = f->next_page++;
		if (f->next_page == HIGH_WATER)
			f->next_page = SET_END;
	}
	if (condense)
		freelog_condense(&f->log, walk_next, &walk, f->images, numbers, pages, f->ctx.newest, PAGE);
	else
		freelog_append(&f->log, &delta, f->images, numbers, pages, f->ctx.newest, PAGE);
	for (size_t i = 0; i < pages; i++)
		fixture_write(f, numbers[i], f->images + i * PAGE);
	freelog_delta_fini(&delta);
}

static enum bts_err fixture_load(struct fixture *f, struct space *space)
{
	assert_int_equal(space_init(space, f->env, FIRST, HIGH_WATER), BTS_OK);
	return freelog_load(&f->ctx, &f->log, space);
}

static enum bts_err count_page(void *arg, const struct page_ptr *ptr)
{
	(void)ptr;
	++*(uint32_t *)arg;
	return BTS_OK;
}

static void fixture_compare(struct fixture *f)
{
	struct space space;
	uint32_t pages = 0;

	assert_int_equal(fixture_load(f, &space), BTS_OK);
	for (bts_pgno p = FIRST; p < HIGH_WATER; p++)
		assert_int_equal(space_is_ready(&space, p), f->free[p]);
	space_fini(&space);
	assert_int_equal(freelog_pages(&f->ctx, &f->log, count_page, &pages), BTS_OK);
	assert_int_equal(pages, f->log.pages);
}

static void freelog__round_trips(void **state)
{
	(void)state;
	for (uint64_t round = 0; round < 6; round++) {
		struct fixture *f = fixture_new(round);
		unsigned condensed = 0;

		f->spare = true;
		for (int i = 0; i < 120; i++) {
			uint32_t generation = f->log.generation;

			fixture_commit(f, (unsigned)rng_below(&f->rng, rng_one_in(&f->rng, 5) ? 2500 : 40),
				rng_one_in(&f->rng, 30));
			condensed += f->log.generation != generation;
			fixture_compare(f);
		}
		assert_true(condensed > 0);
		fixture_free(f);
	}
}

static void freelog__long_runs_are_split(void **state)
{
	struct fixture *f = fixture_new(60);
	struct freelog_delta delta;
	struct space space;
	bts_pgno at = 0;
	struct space_run run;

	(void)state;
	freelog_delta_init(&delta, f->env);
	assert_int_equal(freelog_delta_add(&delta, (struct space_run){100, 70000}, true), BTS_OK);
	assert_int_equal(freelog_delta_add(&delta, (struct space_run){70100, 5}, true), BTS_OK);
	assert_int_equal(freelog_delta_add(&delta, (struct space_run){32000, 40000}, false), BTS_OK);
	assert_int_equal(delta.count, 5);
	freelog_append(&f->log, &delta, NULL, NULL, 0, 2, PAGE);
	freelog_delta_fini(&delta);
	assert_int_equal(space_init(&space, f->env, FIRST, 100000), BTS_OK);
	assert_int_equal(freelog_load(&f->ctx, &f->log, &space), BTS_CORRUPT);
	space_fini(&space);
	f->log.inline_entries[f->log.inline_count - 1] -= 72000 - 70105;
	assert_int_equal(space_init(&space, f->env, FIRST, 100000), BTS_OK);
	assert_int_equal(freelog_load(&f->ctx, &f->log, &space), BTS_OK);
	assert_true(space_next_free(&space, &at, &run));
	assert_int_equal(run.pgno, 100);
	assert_int_equal(run.count, 31900);
	assert_false(space_next_free(&space, &at, &run));
	space_fini(&space);
	fixture_free(f);
}

static void expect_corrupt(struct fixture *f, const char *text)
{
	struct space space;

	f->error.text[0] = 0;
	assert_int_equal(fixture_load(f, &space), BTS_CORRUPT);
	if (strstr(f->error.text, text) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", f->error.text, text);
	space_fini(&space);
}

/* What is wrong is said, with the page. */
static void freelog__names_what_is_wrong(void **state)
{
	struct fixture *f = fixture_new(70);
	struct freelog good;
	uint8_t image[PAGE];
	uint64_t size;

	(void)state;
	fixture_commit(f, 400, false);
	fixture_commit(f, 400, false);
	fixture_commit(f, 10, false);
	good = f->log;
	assert_true(good.inline_count >= 10 && good.pages >= 2);

	f->log.inline_entries[0] = UINT64_C(2222) << 16 | 1;
	expect_corrupt(f, "inline entry 0, pages 2222 to 2222: allocated, but not free");
	f->log.inline_entries[0] = UINT64_C(3) << 16 | 0x8001;
	expect_corrupt(f, "pages 3 to 3: outside the file");
	f->log.inline_entries[0] = (LAYOUT_PGNO_LIMIT + 1) << 16 | 0x8002;
	expect_corrupt(f, "pages 140737488355329 to 140737488355330: outside the file");
	f->log.inline_entries[0] = UINT64_C(2300) << 16 | 0x8000;
	expect_corrupt(f, "names no page");
	f->log.inline_entries[0] = UINT64_C(2300) << 16 | 0x8010;
	f->log.inline_entries[1] = UINT64_C(2315) << 16 | 0x8001;
	expect_corrupt(f, "pages 2315 to 2315: freed twice");
	f->log = good;
	f->log.inline_count = FREELOG_INLINE_MAX + 1;
	expect_corrupt(f, "97 inline entries");
	f->log = good;
	f->log.pages--;
	expect_corrupt(f, "longer than the record says");
	f->log = good;
	f->log.pages++;
	expect_corrupt(f, "ends 1 pages early");
	f->log = good;
	f->log.generation++;
	expect_corrupt(f, "another generation");
	f->log = good;
	f->log.sequence--;
	expect_corrupt(f, "do not join");
	f->log = good;
	f->log.head.pgno--;
	expect_corrupt(f, "expected birth");
	f->log = good;
	memcpy(image, env_mem_bytes(f->mem, "log", &size) + good.head.pgno * PAGE, PAGE);
	bytes_put_u32(image + 76, (PAGE - 80) / 8 + 1);
	layout_set_crc(image, pager_crc(image, PAGE));
	fixture_write(f, good.head.pgno, image);
	f->log.head.crc = layout_crc(image);
	f->log.sequence = bytes_get_u64(image + 64) + bytes_get_u32(image + 76);
	expect_corrupt(f, "more entries than a page holds");
	f->log = good;
	f->log.head.crc = layout_crc(image);
	env_mem_flip(f->mem, "log", good.head.pgno * PAGE + 100, 1);
	expect_corrupt(f, "checksum mismatch");
	fixture_free(f);
}

/* The mark was higher when they were written: entries mean what they say below it, nothing behind. */
static void freelog__behind_the_mark(void **state)
{
	struct fixture *f = fixture_new(71);
	struct space space;

	(void)state;
	f->log.inline_count = 5;
	f->log.inline_entries[0] = UINT64_C(2490) << 16 | 0x8000 | 100; /* freed, over the mark */
	f->log.inline_entries[1] = UINT64_C(2600) << 16 | 0x8000 | 10;  /* freed, behind it */
	f->log.inline_entries[2] = UINT64_C(2495) << 16 | 95;		 /* given up */
	f->log.inline_entries[3] = UINT64_C(2600) << 16 | 10;
	f->log.inline_entries[4] = UINT64_C(2499) << 16 | 0x8000 | 1;
	assert_int_equal(space_init(&space, f->env, FIRST, HIGH_WATER), BTS_OK);
	assert_int_equal(freelog_load(&f->ctx, &f->log, &space), BTS_OK);
	assert_int_equal(space_free_pages(&space), 6);
	assert_true(space_is_free(&space, (struct space_run){2490, 5}));
	assert_true(space_is_free(&space, (struct space_run){2499, 1}));
	space_fini(&space);
	fixture_free(f);
}

/* Change bytes of one page and seal the chain above it anew, as if it had been written so. */
static void damage(struct fixture *f)
{
	struct page_ptr ptr = f->log.head, chain[PAGES_MAX];
	size_t count = 0, at;
	uint64_t size;

	while (ptr.pgno != 0 && count < PAGES_MAX) {
		chain[count++] = ptr;
		ptr = layout_get_ptr(env_mem_bytes(f->mem, "log", &size) + ptr.pgno * PAGE + 48);
	}
	for (at = (size_t)rng_below(&f->rng, count);; at--) {
		uint8_t image[PAGE];

		memcpy(image, env_mem_bytes(f->mem, "log", &size) + chain[at].pgno * PAGE, PAGE);
		if (ptr.pgno != UINT64_MAX) {
			unsigned bytes = 1 + (unsigned)rng_below(&f->rng, 3);

			while (bytes-- > 0)
				image[4 + rng_below(&f->rng, rng_one_in(&f->rng, 2) ? 100 : PAGE - 4)] ^=
					(uint8_t)(1 + rng_below(&f->rng, 255));
			ptr.pgno = UINT64_MAX;
		} else {
			layout_put_ptr(image + 48, &chain[at + 1]);
		}
		layout_set_crc(image, pager_crc(image, PAGE));
		chain[at].crc = layout_crc(image);
		fixture_write(f, chain[at].pgno, image);
		if (at == 0)
			break;
	}
	f->log.head = chain[0];
}

static void freelog__hostile_pages(void **state)
{
	unsigned refused = 0;

	(void)state;
	for (uint64_t round = 0; round < 150; round++) {
		struct fixture *f = fixture_new(1000 + round);
		struct space space;

		for (int i = 0; i < 4; i++)
			fixture_commit(f, 300, false);
		damage(f);
		if (rng_one_in(&f->rng, 3) && f->log.inline_count > 0)
			f->log.inline_entries[rng_below(&f->rng, f->log.inline_count)] ^=
				UINT64_C(1) << rng_below(&f->rng, 64);
		refused += fixture_load(f, &space) == BTS_CORRUPT;
		space_fini(&space);
		fixture_free(f);
	}
	assert_true(refused > 110);
}

static void freelog__no_memory(void **state)
{
	struct fixture *f = fixture_new(80);
	struct space space;
	enum bts_err err;
	uint64_t n = 0;

	(void)state;
	for (int i = 0; i < 3; i++)
		fixture_commit(f, 200, false);
	do {
		assert_int_equal(space_init(&space, f->env, FIRST, HIGH_WATER), BTS_OK);
		env_mem_fail_memory(f->mem, ++n, 0);
		err = freelog_load(&f->ctx, &f->log, &space);
		env_mem_fail_clear(f->mem);
		space_fini(&space);
		assert_true(err == BTS_OK || err == BTS_MEMORY);
	} while (err);
	assert_true(n > 1);
	fixture_free(f);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(freelog__round_trips),
		cmocka_unit_test(freelog__long_runs_are_split),
		cmocka_unit_test(freelog__names_what_is_wrong),
		cmocka_unit_test(freelog__behind_the_mark),
		cmocka_unit_test(freelog__hostile_pages),
		cmocka_unit_test(freelog__no_memory),
	};

	seed = rng_seed_from(argc, argv, 20240522);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
