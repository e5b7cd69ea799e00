/* Free space against a naive array of page states, and the policy of allocation case by case. */
#include "cmocka.h"
#include "env_mem.h"
#include "rng.h"
#include "space.h"

#define FIRST 16u
#define PAGES_MAX 20000u

enum { LIVE, READY, WAITING };

struct model_page {
	int state;
	bts_txid birth, freed;
};

struct fixture {
	struct env_mem *mem;
	struct space space, twin; /* the twin gets the same calls: same answers */
	struct rng rng;
	struct model_page pages[PAGES_MAX];
	bts_pgno high_water;
	bts_txid txid, durable;
};

static uint64_t seed;

static struct fixture *fixture_new(bts_pgno high_water, uint64_t salt)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	f->mem = env_mem_new(0);
	rng_init(&f->rng, seed + salt);
	f->high_water = high_water;
	f->txid = 100;
	f->durable = 100;
	assert_int_equal(space_init(&f->space, env_mem_env(f->mem), FIRST, high_water), BTS_OK);
	assert_int_equal(space_init(&f->twin, env_mem_env(f->mem), FIRST, high_water), BTS_OK);
	return f;
}

static void fixture_free(struct fixture *f)
{
	space_fini(&f->space);
	space_fini(&f->twin);
	assert_int_equal(env_mem_counters(f->mem)->live_blocks, 0);
	env_mem_free(f->mem);
	free(f);
}

static void model_set(struct fixture *f, struct space_run run, int was, int now)
{
	for (uint64_t i = 0; i < run.count; i++) {
		assert_true(run.pgno + i >= FIRST && run.pgno + i < f->high_water);
		assert_int_equal(f->pages[run.pgno + i].state, was);
		f->pages[run.pgno + i].state = now;
	}
}

/* A random run of pages that are all of this state, or of any when state < 0; count 0 when none was met. */
static struct space_run model_pick(struct fixture *f, int state, uint64_t most)
{
	for (int tries = 0; tries < 20 && f->high_water > FIRST; tries++) {
		struct space_run run = {FIRST + rng_below(&f->rng, f->high_water - FIRST), 0};
		uint64_t want = 1 + rng_below(&f->rng, most);

		while (run.count < want && run.pgno + run.count < f->high_water &&
			(state < 0 || f->pages[run.pgno + run.count].state == state))
			run.count++;
		if (run.count > 0)
			return run;
	}
	return (struct space_run){0, 0};
}

static void model_compare(const struct fixture *f)
{
	const struct space *space = &f->space;
	uint64_t ready = 0, waiting = 0, runs = 0, tail = 0, group[PAGES_MAX / SPACE_GROUP + 1] = {0};
	bts_pgno state = 0;
	struct space_run run;

	assert_int_equal(space->high_water, f->high_water);
	for (bts_pgno p = FIRST; p < f->high_water; p++) {
		ready += f->pages[p].state == READY;
		waiting += f->pages[p].state == WAITING;
		group[(p - FIRST) / SPACE_GROUP] += f->pages[p].state == READY;
		assert_int_equal(space_is_ready(space, p), f->pages[p].state == READY);
	}
	assert_int_equal(space->ready, ready);
	assert_int_equal(space->pending_pages, waiting);
	assert_int_equal(space_free_pages(space), ready + waiting);
	for (uint64_t g = 0; g * SPACE_GROUP < f->high_water - FIRST; g++)
		assert_int_equal(space->group[g], group[g]);
	for (bts_pgno p = FIRST; p < f->high_water;) {
		bts_pgno start = p;

		for (; p < f->high_water && f->pages[p].state != LIVE; p++)
			continue;
		if (p == start) {
			p++;
			continue;
		}
		assert_true(space_next_free(space, &state, &run));
		assert_int_equal(run.pgno, start);
		assert_int_equal(run.count, p - start);
		assert_true(space_is_free(space, run));
		assert_false(space_is_live(space, run));
		runs++;
	}
	assert_false(space_next_free(space, &state, &run));
	assert_int_equal(space->free_runs, runs);
	while (tail < f->high_water - FIRST && f->pages[f->high_water - 1 - tail].state == READY)
		tail++;
	for (uint64_t most = 1; most < 300; most += 21)
		assert_int_equal(space_tail(space, most), tail < most ? tail : most);
}

static void step_alloc(struct fixture *f)
{
	struct space_request request = {
		.pages = 1 + rng_below(&f->rng, rng_one_in(&f->rng, 8) ? 3000 : 60),
		.must_join = rng_one_in(&f->rng, 4),
		.max_pages = rng_one_in(&f->rng, 8) ? f->high_water : PAGES_MAX,
		.kind = (enum space_kind)rng_below(&f->rng, 3),
	};
	struct space_run runs[128], again[128];
	size_t cap = rng_one_in(&f->rng, 4) ? 1 + rng_below(&f->rng, 4) : 128, count = 77, twin;
	bts_pgno before = f->high_water;
	uint64_t pages = 0;
	enum bts_err err = space_alloc(&f->space, &request, runs, cap, &count);

	assert_int_equal(space_alloc(&f->twin, &request, again, cap, &twin), err);
	assert_int_equal(count, twin);
	if (err) {
		assert_true(err == BTS_FULL || err == BTS_LIMIT);
		assert_int_equal(count, 0);
		return;
	}
	assert_memory_equal(runs, again, count * sizeof(runs[0]));
	assert_true(count <= cap && (!request.must_join || count == 1));
	assert_true(f->space.high_water <= request.max_pages);
	f->high_water = f->space.high_water;
	for (bts_pgno p = before; p < f->high_water; p++)
		f->pages[p].state =
			READY; /* what the raise brought must be given, all of it: compared later */
	for (size_t i = 0; i < count; i++) {
		assert_true(i == 0 || runs[i - 1].pgno + runs[i - 1].count <= runs[i].pgno);
		model_set(f, runs[i], READY, LIVE);
		pages += runs[i].count;
	}
	assert_int_equal(pages, request.pages);
	if (!rng_one_in(&f->rng, 4))
		return;
	/* The commit failed: undo. */
	for (size_t i = 0; i < count; i++) {
		model_set(f, runs[i], LIVE, READY);
		assert_int_equal(space_give(&f->space, runs[i]), BTS_OK);
		assert_int_equal(space_give(&f->twin, runs[i]), BTS_OK);
	}
	space_lower(&f->space, before);
	space_lower(&f->twin, before);
	f->high_water = before;
}

static void step_retire(struct fixture *f)
{
	for (int i = 0; i < 20; i++) {
		struct space_run run = model_pick(f, LIVE, 30);
		struct space_pending entry = {run.pgno, run.count, 0, f->txid};

		if (run.count == 0)
			return;
		entry.birth = 1 + rng_below(&f->rng, f->txid);
		model_set(f, run, LIVE, WAITING);
		for (uint64_t p = run.pgno; p < run.pgno + run.count; p++) {
			f->pages[p].birth = entry.birth;
			f->pages[p].freed = entry.freed;
		}
		assert_int_equal(space_retire(&f->space, entry), BTS_OK);
		assert_int_equal(space_retire(&f->twin, entry), BTS_OK);
	}
	f->txid += 1 + rng_below(&f->rng, 3);
}

static void step_reclaim(struct fixture *f)
{
	bts_txid snapshots[8];
	size_t count = 0;

	f->durable += rng_below(&f->rng, f->txid - f->durable + 1);
	for (bts_txid s = 1 + rng_below(&f->rng, f->txid); count < 8 && s <= f->txid;
		s += 1 + rng_below(&f->rng, f->txid))
		snapshots[count++] = s;
	space_reclaim(&f->space, f->durable, snapshots, count);
	space_reclaim(&f->twin, f->durable, snapshots, count);
	for (bts_pgno p = FIRST; p < f->high_water; p++) {
		bool held = f->pages[p].freed > f->durable;

		for (size_t i = 0; i < count; i++)
			held |= f->pages[p].birth <= snapshots[i] && snapshots[i] < f->pages[p].freed;
		if (f->pages[p].state == WAITING && !held)
			f->pages[p].state = READY;
	}
}

static void step_hold(struct fixture *f)
{
	struct space_run run = model_pick(f, -1, 300);
	bts_txid freed = f->durable, birth = 1 + rng_below(&f->rng, freed);

	if (run.count == 0)
		return;
	assert_int_equal(space_hold(&f->space, run, birth, freed), BTS_OK);
	assert_int_equal(space_hold(&f->twin, run, birth, freed), BTS_OK);
	for (bts_pgno p = run.pgno; p < run.pgno + run.count; p++)
		if (f->pages[p].state == READY)
			f->pages[p] = (struct model_page){WAITING, birth, freed};
}

static void step_take(struct fixture *f)
{
	struct space_run run = model_pick(f, rng_one_in(&f->rng, 2) ? -1 : READY, 40);
	bool ready = run.count > 0;

	if (rng_one_in(&f->rng, 10))
		run = (struct space_run){f->high_water - 1, 2};
	for (bts_pgno p = run.pgno; p < run.pgno + run.count; p++)
		ready = ready && p < f->high_water && f->pages[p].state == READY;
	assert_int_equal(space_take(&f->space, run), ready);
	assert_int_equal(space_take(&f->twin, run), ready);
	if (ready)
		model_set(f, run, READY, LIVE);
}

/* Pages that are ready or wait, in whatever lists; none when one of them is live. */
static void step_claim(struct fixture *f)
{
	struct space_run run = model_pick(f, rng_one_in(&f->rng, 2) ? -1 : WAITING, 40);
	bool claimed = run.count > 0;

	while (run.pgno > FIRST && run.count < 60 && f->pages[run.pgno - 1].state != LIVE) { /* over the ends of entries */
		run.pgno--;
		run.count++;
	}
	for (bts_pgno p = run.pgno; p < run.pgno + run.count; p++)
		claimed = claimed && f->pages[p].state != LIVE;
	assert_int_equal(space_claim(&f->space, run), claimed);
	assert_int_equal(space_claim(&f->twin, run), claimed);
	for (bts_pgno p = run.pgno; claimed && p < run.pgno + run.count; p++)
		f->pages[p].state = LIVE;
}

static void step_raise(struct fixture *f)
{
	bts_pgno mark = f->high_water + rng_below(&f->rng, 100);

	if (mark > PAGES_MAX || !rng_one_in(&f->rng, 10))
		return;
	assert_int_equal(space_raise(&f->space, mark), BTS_OK);
	assert_int_equal(space_raise(&f->twin, mark), BTS_OK);
	for (; f->high_water < mark; f->high_water++)
		f->pages[f->high_water].state = LIVE;
}

static void space__random_model(void **state)
{
	(void)state;
	for (uint64_t round = 0; round < 12; round++) {
		struct fixture *f = fixture_new(FIRST + 100 * round * round, round);

		for (int i = 0; i < 400; i++) {
			switch (rng_below(&f->rng, 9)) {
			case 8:
				step_claim(f);
				break;
			case 0:
			case 1:
			case 2:
				step_alloc(f);
				break;
			case 3:
			case 4:
				step_retire(f);
				break;
			case 5:
				step_reclaim(f);
				break;
			case 6:
				step_hold(f);
				break;
			default:
				step_take(f);
				step_raise(f);
			}
			if (i % 4 == 0)
				model_compare(f);
		}
		fixture_free(f);
	}
}

/* A file of `pages` pages where every step-th run of `run` pages is ready. */
static struct fixture *fixture_comb(uint64_t pages, uint64_t run, uint64_t step)
{
	struct fixture *f = fixture_new(FIRST + pages, 0);

	for (uint64_t at = 0; at + run <= pages; at += step)
		assert_int_equal(space_give(&f->space, (struct space_run){FIRST + at, run}), BTS_OK);
	return f;
}

static enum bts_err comb_alloc(
	struct fixture *f, uint64_t pages, bool join, bts_pgno max, struct space_run *runs, size_t *count)
{
	struct space_request request = {.pages = pages, .must_join = join, .max_pages = max};

	return space_alloc(&f->space, &request, runs, 64, count);
}

static void space__one_run_when_there_is_one(void **state)
{
	struct fixture *f = fixture_comb(200000, 10, 2000);
	struct space_run runs[64];
	size_t count;

	(void)state;
	assert_int_equal(comb_alloc(f, 10, false, 1000000, runs, &count), BTS_OK);
	assert_int_equal(count, 1);
	assert_int_equal(runs[0].pgno, FIRST);
	/* next fit: not the one that was given and returned */
	assert_int_equal(space_give(&f->space, runs[0]), BTS_OK);
	assert_int_equal(comb_alloc(f, 7, true, 1000000, runs, &count), BTS_OK);
	assert_int_equal(runs[0].pgno, FIRST + 2000);
	/* a long one far away is found by the counts */
	assert_int_equal(space_give(&f->space, (struct space_run){FIRST + 150010, 90}), BTS_OK);
	assert_int_equal(comb_alloc(f, 95, false, 1000000, runs, &count), BTS_OK);
	assert_int_equal(count, 1);
	assert_int_equal(runs[0].pgno, FIRST + 150000);
	assert_int_equal(f->space.high_water, FIRST + 200000);
	fixture_free(f);
}

static void space__few_longest_runs_then_the_tail(void **state)
{
	struct fixture *f = fixture_comb(10000, 3, 100);
	struct space_run runs[64];
	size_t count;

	(void)state;
	assert_int_equal(space_give(&f->space, (struct space_run){FIRST + 5003, 9}), BTS_OK);
	assert_int_equal(comb_alloc(f, 45, false, 1000000, runs, &count), BTS_OK);
	assert_int_equal(count, 12); /* 12 and eleven of 3 */
	assert_int_equal(f->space.high_water, FIRST + 10000);
	/* more than 16 runs: the file grows, from its ready tail on */
	assert_int_equal(space_give(&f->space, (struct space_run){FIRST + 9998, 2}), BTS_OK);
	assert_int_equal(comb_alloc(f, 50, false, 1000000, runs, &count), BTS_OK);
	assert_int_equal(count, 1);
	assert_int_equal(runs[0].pgno, FIRST + 9998);
	assert_int_equal(f->space.high_water, FIRST + 10048);
	/* the mark may not rise: many runs; joined: nothing */
	assert_int_equal(comb_alloc(f, 60, true, FIRST + 10048, runs, &count), BTS_FULL);
	assert_int_equal(comb_alloc(f, 60, false, FIRST + 10048, runs, &count), BTS_OK);
	assert_true(count > 16);
	assert_int_equal(comb_alloc(f, 201, false, FIRST + 10048, runs, &count), BTS_LIMIT);
	assert_int_equal(comb_alloc(f, 6450, false, FIRST + 10048, runs, &count), BTS_FULL);
	fixture_free(f);
}

/* Where several are near, the shortest that will do; the hint goes on behind it. */
static void space__shortest_of_the_next(void **state)
{
	struct fixture *f = fixture_comb(10000, 50, 100);
	struct space_run runs[64];
	size_t count;

	(void)state;
	assert_int_equal(space_give(&f->space, (struct space_run){FIRST + 770, 6}), BTS_OK);
	assert_int_equal(comb_alloc(f, 5, false, 1000000, runs, &count), BTS_OK);
	assert_int_equal(count, 1);
	assert_int_equal(runs[0].pgno, FIRST + 770);
	assert_int_equal(f->space.hint, FIRST + 775);
	assert_int_equal(comb_alloc(f, 5, false, 1000000, runs, &count), BTS_OK);
	assert_int_equal(runs[0].pgno, FIRST + 800);
	fixture_free(f);
}

/* A large request: where the ready pages lie closest, the tail before a stretch that is mostly live, that before nothing. */
static void space__shortest_stretch(void **state)
{
	struct fixture *f = fixture_comb(400000, 1, 4);
	struct space_run runs[400];
	size_t count;
	struct space_request request = {.pages = 300, .max_pages = FIRST + 400000};

	(void)state;
	for (uint64_t i = 0; i < 500; i++) /* three of four */
		assert_int_equal(space_give(&f->space, (struct space_run){FIRST + 123001 + 4 * i, 2}), BTS_OK);
	assert_int_equal(space_alloc(&f->space, &request, runs, 400, &count), BTS_OK);
	assert_true(runs[0].pgno >= FIRST + 123000 - 16);
	assert_true(runs[count - 1].pgno + runs[count - 1].count <= runs[0].pgno + 400 + 16);
	assert_int_equal(f->space.hint, FIRST); /* small ones go on where they are */
	request.pages = 1500;
	assert_int_equal(space_alloc(&f->space, &request, runs, 400, &count), BTS_LIMIT);
	request.max_pages = LAYOUT_PGNO_LIMIT;
	assert_int_equal(space_alloc(&f->space, &request, runs, 400, &count), BTS_OK);
	assert_int_equal(count, 1);
	assert_int_equal(runs[0].pgno, FIRST + 400000);
	request.pages = 350;
	request.max_pages = f->space.high_water;
	assert_int_equal(space_alloc(&f->space, &request, runs, 400, &count), BTS_OK);
	assert_true(runs[count - 1].pgno - runs[0].pgno < 1400 + 64);
	fixture_free(f);
}

static void space__mostly_free_file_does_not_grow(void **state)
{
	struct fixture *f = fixture_comb(10000, 10, 15);
	struct space_run runs[64];
	size_t count;

	(void)state;
	assert_int_equal(comb_alloc(f, 600, false, 1000000, runs, &count), BTS_OK);
	assert_int_equal(count, 60);
	assert_int_equal(f->space.high_water, FIRST + 10000);
	assert_int_equal(comb_alloc(f, 641, false, 1000000, runs, &count), BTS_OK);
	assert_int_equal(count, 1);
	assert_int_equal(f->space.high_water, FIRST + 10000 + 641 - 10);
	fixture_free(f);
}

/* Every allocation of memory fails once: nothing is lost, and asking again works. */

/* For compaction: the lowest ready pages, below a bound, and never a raised mark. */
static void space__lowest_below(void **state)
{
	struct fixture *f = fixture_comb(4000, 3, 10); /* pages 0 to 2 of every 10 */
	struct space_request request = {.pages = 7, .max_pages = LAYOUT_PGNO_LIMIT, .below = FIRST + 100};
	struct space_run runs[64];
	size_t count;

	(void)state;
	f->space.hint = FIRST + 2000;
	assert_int_equal(space_alloc(&f->space, &request, runs, 64, &count), BTS_OK);
	assert_int_equal(count, 3);
	assert_int_equal(runs[0].pgno, FIRST);
	assert_int_equal(runs[2].pgno, FIRST + 20);
	assert_int_equal(runs[2].count, 1);
	request.must_join = true;
	request.pages = 3;
	assert_int_equal(space_alloc(&f->space, &request, runs, 64, &count), BTS_OK);
	assert_int_equal(runs[0].pgno, FIRST + 30);
	request.pages = 4;
	assert_false(space_fits(&f->space, 4, request.below));
	assert_int_equal(space_alloc(&f->space, &request, runs, 64, &count), BTS_FULL);
	request.must_join = false;
	request.pages = 21; /* 20 are left there */
	assert_int_equal(space_alloc(&f->space, &request, runs, 64, &count), BTS_FULL);
	request.pages = 20;
	assert_int_equal(space_alloc(&f->space, &request, runs, 3, &count), BTS_LIMIT);
	assert_int_equal(space_alloc(&f->space, &request, runs, 64, &count), BTS_OK);
	assert_true(runs[count - 1].pgno + runs[count - 1].count <= request.below);
	assert_int_equal(f->space.high_water, FIRST + 4000);
	fixture_free(f);
}

/* A replica follows a mark that fell over pages which it still has pending, on its list and on a shelf. */
static void space__mark_down_and_up(void **state)
{
	struct fixture *f = fixture_new(FIRST + 1000, 0);
	bts_txid snapshot = 50;
	struct space_run run;
	bts_pgno at = 0;

	(void)state;
	assert_int_equal(space_give(&f->space, (struct space_run){FIRST + 900, 20}), BTS_OK);
	assert_int_equal(space_retire(&f->space, (struct space_pending){FIRST + 880, 20, 40, 90}), BTS_OK);
	space_reclaim(&f->space, 100, &snapshot, 1);
	assert_int_equal(space_holder(&f->space, FIRST + 885), snapshot);
	assert_int_equal(space_holder(&f->space, FIRST + 905), 0);
	assert_int_equal(space_retire(&f->space, (struct space_pending){FIRST + 920, 80, 95, 101}), BTS_OK);
	assert_int_equal(space_set_mark(&f->space, FIRST + 890), BTS_OK);
	assert_int_equal(space_free_pages(&f->space), 10);
	space_reclaim(&f->space, 200, NULL, 0);
	assert_int_equal(f->space.ready, 10);
	assert_true(space_next_free(&f->space, &at, &run));
	assert_int_equal(run.pgno, FIRST + 880);
	assert_int_equal(run.count, 10);
	assert_int_equal(space_set_mark(&f->space, FIRST + 950), BTS_OK);
	assert_true(space_is_live(&f->space, (struct space_run){FIRST + 890, 60}));
	assert_int_equal(space_reach(&f->space, FIRST + 960), BTS_OK);
	assert_true(space_is_ready(&f->space, FIRST + 950));
	assert_int_equal(space_reach(&f->space, FIRST + 100), BTS_OK);
	assert_int_equal(f->space.high_water, FIRST + 960);
	fixture_free(f);
}

static void space__no_memory(void **state)
{
	struct fixture *f = fixture_new(FIRST + 5000, 0);
	bts_txid snapshots[] = {10, 20, 30};
	struct space_run runs[4];
	size_t count;

	(void)state;
	env_mem_fail_memory(f->mem, 1, ENV_MEM_STICKY);
	assert_int_equal(comb_alloc(f, 5000, true, 1000000, runs, &count), BTS_MEMORY);
	assert_int_equal(space_retire(&f->space, (struct space_pending){FIRST, 1, 5, 35}), BTS_MEMORY);
	env_mem_fail_clear(f->mem);
	model_compare(f);
	for (bts_pgno p = 0; p < 300; p++)
		assert_int_equal(
			space_retire(&f->space, (struct space_pending){FIRST + 2 * p, 1, 5 + p % 30, 35}),
			BTS_OK);
	for (uint64_t n = 1; n < 12; n++) {
		env_mem_fail_memory(f->mem, n, n % 2 ? ENV_MEM_STICKY : 0);
		space_reclaim(&f->space, 40, snapshots, 3 - n / 4);
		env_mem_fail_clear(f->mem);
		assert_int_equal(f->space.ready + f->space.pending_pages, 300);
	}
	space_reclaim(&f->space, 40, NULL, 0);
	assert_int_equal(f->space.ready, 300);
	assert_int_equal(f->space.shelf_count, 0);
	fixture_free(f);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(space__random_model),
		cmocka_unit_test(space__one_run_when_there_is_one),
		cmocka_unit_test(space__few_longest_runs_then_the_tail),
		cmocka_unit_test(space__shortest_of_the_next),
		cmocka_unit_test(space__shortest_stretch),
		cmocka_unit_test(space__mostly_free_file_does_not_grow),
		cmocka_unit_test(space__lowest_below),
		cmocka_unit_test(space__mark_down_and_up),
		cmocka_unit_test(space__no_memory),
	};

	seed = rng_seed_from(argc, argv, 20240521);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
