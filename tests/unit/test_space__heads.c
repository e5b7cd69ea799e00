/* Heads (space_head.c): which pages batches of middle size get. */
#include "cmocka.h"
#include "env_mem.h"
#include "rng.h"
#include "space.h"

#include <string.h>

#define FIRST 16u
#define SEGMENT 512u
#define CAP 512u

static uint64_t seed;

struct heads {
	struct env_mem *mem;
	struct space space;
	struct rng rng;
	struct space_run runs[CAP];
	size_t count;
};

static void heads_init(struct heads *h, uint64_t pages)
{
	memset(h, 0, sizeof(*h));
	h->mem = env_mem_new(0);
	rng_init(&h->rng, seed);
	assert_int_equal(space_init(&h->space, env_mem_env(h->mem), FIRST, FIRST + pages), BTS_OK);
	h->space.heads.limit = LAYOUT_PGNO_LIMIT;
}

static void heads_fini(struct heads *h)
{
	space_fini(&h->space);
	env_mem_free(h->mem);
}

static void heads_give(struct heads *h, uint64_t index, uint64_t count)
{
	assert_int_equal(space_give(&h->space, (struct space_run){FIRST + index, count}), BTS_OK);
}

static void heads_take(struct heads *h, enum space_kind kind, uint64_t pages)
{
	struct space_request request = {.pages = pages, .max_pages = LAYOUT_PGNO_LIMIT, .kind = kind};
	uint64_t sum = 0;

	assert_int_equal(space_alloc(&h->space, &request, h->runs, CAP, &h->count), BTS_OK);
	for (size_t i = 0; i < h->count; i++)
		sum += h->runs[i].count;
	assert_int_equal(sum, pages);
}

static uint64_t heads_segment(const struct heads *h, size_t run)
{
	return (h->runs[run].pgno - FIRST) / SEGMENT;
}

/* All that is ready in the emptiest segment, from front to back, by request after request; then the next emptiest. */
static void heads__fill_the_emptiest_segment(void **state)
{
	uint64_t last = 0, of[64] = {0}, live = 0;
	struct heads h;

	(void)state;
	heads_init(&h, 64 * SEGMENT);
	for (uint64_t i = 0; i < 64 * SEGMENT; i++) {
		uint64_t segment = i / SEGMENT;

		if (segment == 7 ? i % 16 > 0 : segment == 40 ? i % 8 > 0 : i % 2)
			heads_give(&h, i, 1);
		else
			live += segment == 7;
	}
	for (unsigned n = 0; n < 18; n++) { /* 480 pages of one, and 420 of the 448 of the other */
		heads_take(&h, SPACE_LASTING, 50);
		for (size_t i = 0; i < h.count; i++)
			of[heads_segment(&h, i)] += h.runs[i].count;
		if (n == 8) {
			assert_int_equal(of[7], 450);
			last = h.runs[h.count - 1].pgno + h.runs[h.count - 1].count;
		}
	}
	assert_int_equal(live, SEGMENT / 16);
	assert_true(last >= FIRST + 7 * SEGMENT + 478); /* front to back */
	assert_int_equal(of[7], 480);
	assert_int_equal(of[40], 420);
	assert_int_equal(h.space.high_water, FIRST + 64 * SEGMENT);
	heads_fini(&h);
}

/* Rather than into segments that are half live the file grows, so far as it may; into some that are two thirds ready then, not worse ones. */
static void heads__grow_within_the_limit(void **state)
{
	struct space_request request = {.pages = 100, .max_pages = LAYOUT_PGNO_LIMIT, .kind = SPACE_LASTING};
	struct heads h;
	bts_pgno mark;

	(void)state;
	heads_init(&h, 64 * SEGMENT);
	for (uint64_t i = 0; i < 64 * SEGMENT; i += 2)
		heads_give(&h, i, 1);
	mark = h.space.high_water;
	h.space.heads.limit = mark + 1050;
	for (unsigned n = 0; n < 10; n++) {
		heads_take(&h, SPACE_LASTING, 100);
		assert_int_equal(h.count, 1);
		assert_int_equal(h.runs[0].pgno, mark + 100 * n);
		assert_false(h.space.heads.lost);
	}
	heads_take(&h, SPACE_LASTING, 100); /* where runs are looked for one by one */
	assert_true(h.space.heads.lost);
	for (uint64_t i = 0; i < SEGMENT; i += 6)
		assert_int_equal(
			space_give(&h.space, (struct space_run){FIRST + 50 * SEGMENT + i + 1, 1}), BTS_OK);
	h.space.heads.limit = 0;
	mark = h.space.high_water;
	assert_int_equal(space_alloc(&h.space, &request, h.runs, CAP, &h.count), BTS_OK);
	for (size_t i = 0; i < h.count; i++)
		assert_int_equal(heads_segment(&h, i), 50);
	assert_false(h.space.heads.lost);
	assert_int_equal(h.space.high_water, mark);
	heads_fini(&h);
}

/* One good segment far away in a large file is worth looking for; as that there is none is not asked again for each batch. */
static void heads__look_far_before_growing(void **state)
{
	struct heads h;
	bts_pgno mark;

	(void)state;
	heads_init(&h, 1000 * SEGMENT);
	for (uint64_t i = 0; i < 1000 * SEGMENT; i += 2)
		heads_give(&h, i, 1 + (i / SEGMENT == 900));
	mark = h.space.high_water;
	for (unsigned n = 0; n < 5; n++) {
		heads_take(&h, SPACE_LASTING, 100);
		assert_int_equal(h.count, 1);
		assert_int_equal(heads_segment(&h, 0), 900);
	}
	assert_int_equal(h.space.high_water, mark);
	heads_take(&h, SPACE_LASTING, 112);
	assert_int_equal(h.space.high_water, mark + 100);
	assert_true(h.space.heads.granted > 1000);
	for (uint64_t i = 1; i < SEGMENT; i += 2) /* dies meanwhile, and is come by before the grant is used up */
		heads_give(&h, 500 * SEGMENT + i, 1);
	for (unsigned n = 0; n < 80 && h.space.high_water < mark + 6000; n++) {
		heads_take(&h, SPACE_LASTING, 100);
		if (h.count == 1 && heads_segment(&h, 0) == 500)
			break;
	}
	assert_int_equal(heads_segment(&h, 0), 500);
	heads_fini(&h);
}

/* Whoever gives up the end of the file does not meet heads there. */
static void heads__keep_quiet(void **state)
{
	struct heads h;

	(void)state;
	heads_init(&h, 64 * SEGMENT);
	heads_give(&h, 0, 64 * SEGMENT);
	assert_true(space_has_heads(&h.space, SPACE_MIDDLE));
	assert_false(space_has_heads(&h.space, SPACE_MIDDLE - 1));
	assert_false(space_has_heads(&h.space, SPACE_MANY));
	space_lower(&h.space, h.space.high_water);
	assert_true(space_has_heads(&h.space, 100));
	space_lower(&h.space, h.space.high_water - 1);
	assert_false(space_has_heads(&h.space, 100));
	h.space.heads.quiet = 0;
	assert_int_equal(space_set_mark(&h.space, h.space.high_water - 1), BTS_OK);
	assert_false(space_has_heads(&h.space, 100));
	heads_fini(&h);
}

/*
 * Brief pages that die after 30 batches go round segments of their own and leave the others alone: as few as can be where those are
 * empty, SPACE_RING where a tenth of each stays live.
 */
static void heads_go_round(uint64_t live, unsigned most, double most_pieces)
{
	struct space_run kept[30][CAP];
	size_t counts[30] = {0};
	bool seen[128] = {false};
	unsigned segments = 0, pieces = 0;
	struct heads h;

	heads_init(&h, 128 * SEGMENT);
	for (uint64_t i = 0; i < 128 * SEGMENT - 10; i += 10)
		heads_give(&h, i, 10 - live);
	for (unsigned n = 0; n < 2000; n++) {
		for (size_t i = 0; i < counts[n % 30]; i++)
			assert_int_equal(space_give(&h.space, kept[n % 30][i]), BTS_OK);
		heads_take(&h, SPACE_BRIEF, 1 + rng_below(&h.rng, 30));
		pieces += (unsigned)h.count;
		for (size_t i = 0; i < h.count; i++) {
			segments += !seen[heads_segment(&h, i)];
			seen[heads_segment(&h, i)] = true;
		}
		counts[n % 30] = h.count;
		memcpy(kept[n % 30], h.runs, h.count * sizeof(h.runs[0]));
	}
	printf("seed %llu: %u segments, %.2f pieces a request\n", (unsigned long long)seed, segments,
		pieces / 2000.0);
	assert_true(segments <= most);
	assert_true(pieces / 2000.0 <= most_pieces);
	assert_int_equal(h.space.high_water, FIRST + 128 * SEGMENT);
	heads_fini(&h);
}

static void heads__brief_pages_go_round(void **state)
{
	(void)state;
	heads_go_round(0, 5, 1.2);
	heads_go_round(1, SPACE_RING, 3);
}

/* What is told to be moved lies in the way of the next two batches, each page once; moved, their pages are one piece in each segment. */
static void heads__tell_what_is_in_the_way(void **state)
{
	bool told[64 * SEGMENT] = {false};
	uint64_t from, end, pieces = 0, tells = 0;
	struct heads h;

	(void)state;
	heads_init(&h, 64 * SEGMENT);
	for (uint64_t i = 0; i < 64 * SEGMENT; i += 10)
		heads_give(&h, i, 64 * SEGMENT - i < 9 ? 64 * SEGMENT - i : 9);
	assert_false(space_head_ahead(&h.space, &from, &end)); /* before any batch */
	for (unsigned n = 0; n < 200; n++) {
		heads_take(&h, SPACE_LASTING, 100);
		pieces += n > 2 ? h.count : 0;
		for (; space_head_ahead(&h.space, &from, &end); tells += end - from) {
			assert_true(from < end && (from / SEGMENT) == (end - 1) / SEGMENT);
			for (uint64_t at = from; at < end; at++) {
				assert_false(told[at]);
				told[at] = true;
				if (space_is_live(&h.space, (struct space_run){FIRST + at, 1}) &&
					at % 10 == 9)
					heads_give(&h, at, 1);
			}
		}
	}
	/* 20,000 pages: two batches ahead, and a piece more where one ends and the next begins. */
	assert_true(tells >= 200 * 100 - 300 && tells <= 202 * 100 + 2 * SEGMENT);
	assert_true(pieces <= 197 + 200 * 100 / SEGMENT + 3);
	heads_fini(&h);
}

/* A file that becomes shorter or whose pages others take is only a worse place. */
static void heads__are_hints(void **state)
{
	struct heads h;

	(void)state;
	heads_init(&h, 64 * SEGMENT);
	heads_give(&h, 0, 64 * SEGMENT);
	for (unsigned n = 0; n < 400; n++) {
		uint64_t pages = h.space.high_water - FIRST;

		heads_take(
			&h, rng_one_in(&h.rng, 2) ? SPACE_LASTING : SPACE_BRIEF, 1 + rng_below(&h.rng, 200));
		for (size_t i = 0; i < h.count; i++)
			assert_int_equal(space_give(&h.space, h.runs[i]), BTS_OK);
		if (rng_one_in(&h.rng, 4) && pages > SEGMENT)
			space_lower(&h.space, h.space.high_water - rng_below(&h.rng, SEGMENT));
		if (rng_one_in(&h.rng, 4)) {
			bts_pgno mark = h.space.high_water, more = mark + rng_below(&h.rng, SEGMENT);

			assert_int_equal(space_raise(&h.space, more), BTS_OK);
			if (more > mark)
				assert_int_equal(
					space_give(&h.space, (struct space_run){mark, more - mark}), BTS_OK);
		}
		assert_int_equal(h.space.ready, h.space.high_water - FIRST);
	}
	heads_fini(&h);
}

/* Nothing is kept of a request that cannot be met: too many pieces, a file that may not grow. */
static void heads__take_all_or_nothing(void **state)
{
	struct space_request request = {.pages = 200, .max_pages = LAYOUT_PGNO_LIMIT, .kind = SPACE_LASTING};
	struct heads h;
	uint64_t ready;

	(void)state;
	heads_init(&h, 32 * SEGMENT);
	for (uint64_t i = 0; i < SEGMENT; i += 10)
		heads_give(&h, i, SEGMENT - i < 9 ? SEGMENT - i : 9);
	ready = h.space.ready;
	for (unsigned kind = SPACE_LASTING; kind <= SPACE_BRIEF; kind++) {
		request.kind = (enum space_kind)kind;
		request.pages = 200;
		h.space.heads.limit = 0;
		assert_int_equal(space_alloc(&h.space, &request, h.runs, 5, &h.count),
			BTS_OK); /* behind the end, as nobody asked heads */
		assert_int_equal(h.count, 1);
		assert_true(h.runs[0].pgno >= FIRST + 32 * SEGMENT);
		assert_int_equal(h.space.ready, ready);
		request.pages = ready + 10;
		request.max_pages = h.space.high_water;
		assert_int_equal(space_alloc(&h.space, &request, h.runs, CAP, &h.count), BTS_FULL);
		assert_int_equal(h.space.ready, ready);
		request.max_pages = h.space.heads.limit = LAYOUT_PGNO_LIMIT;
	}
	heads_fini(&h);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(heads__fill_the_emptiest_segment),
		cmocka_unit_test(heads__grow_within_the_limit),
		cmocka_unit_test(heads__look_far_before_growing),
		cmocka_unit_test(heads__keep_quiet),
		cmocka_unit_test(heads__brief_pages_go_round),
		cmocka_unit_test(heads__tell_what_is_in_the_way),
		cmocka_unit_test(heads__are_hints),
		cmocka_unit_test(heads__take_all_or_nothing),
	};

	seed = rng_seed_from(argc, argv, 20261123);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
