/*
 * Which free pages a commit gets.
 *
 * A commit is written with one call, and described in a manifest of runs, when its pages are contiguous; so
 * one run is worth more than a dense file, within limits.  A small request, or one whose pages must join, in order:
 *  1. a ready run that is long enough, from the hint on (next fit; of the first SPACE_AHEAD runs behind the first such one the
 * shortest, so that long ones are left for those who need them).  Groups without a ready page cost
 * one look at their count, full ones too.  Bounded: SPACE_GROUPS counts, SPACE_SCANS bitmaps, then as many
 * again but only of groups whose count and neighbours' counts promise such a run;
 *  2. unless the pages must join: at most SPACE_RUNS of the longest runs seen on the way;
 *  3. the tail of the file, raising the mark by what it lacks, while less than half of the file is ready;
 *  4. unless the pages must join: as many runs as the caller has room for, in order from the hint;
 *  5. raising the mark anyhow; and when that is refused, what an unbounded search finds.
 * One of SPACE_LARGE pages and more:
 *  1. the ready pages of the shortest stretch that holds enough of them (space_window.c), when at least three of four of its pages
 * are ready;
 *  2. the tail, while less than half of the file is ready;
 *  3. the shortest stretch, however few of its pages are ready; then as above.
 * Of a batch of middle size in a file that is large against it, leaves and the rest are asked for by kind and come from heads
 * (space_head.c), then from the tail, then as above.
 * Compaction has another aim, and asks for the lowest pages, in as many runs as they come.
 * All of it depends on nothing but the space, its hints and heads included, and the request, so that a replay allocates the same pages.
 */
#include "space.h"
#include "base/ensure.h"

#define SPACE_LARGE 64u
#define SPACE_AHEAD 16u
#define SPACE_RUNS 16u
#define SPACE_SCANS 8u
#define SPACE_GROUPS 16384u

struct space_search {
	const struct space *space;
	uint64_t want; /* pages */
	bool gather;   /* take runs as they come until there are enough; else: one run, keep the longest */
	struct space_run *runs; /* gathered, or the longest so far, longest first */
	size_t count, cap;
	uint64_t gathered;	   /* pages of runs[], when gathering */
	struct space_run open;	   /* indexes, not page numbers: the run that ends where the search stands */
	uint64_t groups;	   /* counts that may yet be looked at */
	unsigned scans, promising; /* bitmaps that may yet be read: any, and promising ones */
	uint64_t resume;	   /* index behind the last bitmap read of the first kind */
};

/* The open run is at its end: remember it. */
static void space_search_close(struct space_search *search)
{
	struct space_run run = search->open;
	size_t at = search->count;

	search->open.count = 0;
	if (run.count == 0)
		return;
	if (search->gather) {
		if (at < search->cap) {
			search->runs[search->count++] = run;
			search->gathered += run.count;
		}
		return;
	}
	while (at > 0 && search->runs[at - 1].count < run.count)
		at--;
	if (at == search->cap)
		return;
	if (search->count < search->cap)
		search->count++;
	memmove(&search->runs[at + 1], &search->runs[at], (search->count - 1 - at) * sizeof(run));
	search->runs[at] = run;
}

/* Ready pages from index on: true when the search has what it wants. */
static bool space_search_extend(struct space_search *search, uint64_t index, uint64_t count)
{
	if (search->open.count > 0 && search->open.pgno + search->open.count == index)
		search->open.count += count;
	else {
		space_search_close(search);
		search->open = (struct space_run){index, count};
	}
	if (search->gather)
		return search->gathered + search->open.count >= search->want;
	return search->open.count >= search->want;
}

/* May a run that is long enough touch this group?  Then it, or 1 group's worth of it, lies in here and
 * beside. */
static bool space_search_promising(const struct space_search *search, uint64_t group)
{
	const struct space *space = search->space;
	uint64_t last = (space->high_water - space->first - 1) / SPACE_GROUP;
	uint64_t near = space->group[group];

	if (group > 0)
		near += space->group[group - 1];
	if (group < last)
		near += space->group[group + 1];
	return near >= (search->want < SPACE_GROUP ? search->want : SPACE_GROUP);
}

static bool space_search_may_scan(struct space_search *search, uint64_t group)
{
	if (search->scans > 0) {
		search->scans--;
		search->resume = (group + 1) * SPACE_GROUP;
		return true;
	}
	if (search->promising == 0 || !space_search_promising(search, group))
		return false;
	search->promising--;
	return true;
}

/* The longest run that need not be remembered: there are as many as wanted of at least that. */
static uint64_t space_search_dull(const struct space_search *search)
{
	return !search->gather && search->count == search->cap ? search->runs[search->cap - 1].count : 0;
}

/* Are there more than `dull` ready pages in a row? */
static inline bool space_word_longer(uint64_t word, uint64_t dull)
{
	uint64_t have = 1, step;

	if (dull >= 63)
		return word == ~UINT64_C(0);
	for (; word != 0 && have <= dull; have += step) {
		step = dull + 1 - have < have ? dull + 1 - have : have;
		word &= word >> step;
	}
	return word != 0;
}

/*
 * The ready pages of one word, whose first page has index `base`: true when the search has what it wants.  In a file that is
 * in use most runs are short: those inside the word that nobody would remember are passed over together.
 */
static bool space_search_word(struct space_search *search, uint64_t base, uint64_t word)
{
	uint64_t at, stop;

	if (word & 1) {
		stop = ~word == 0 ? 64 : (unsigned)__builtin_ctzll(~word);
		if (space_search_extend(search, base, stop))
			return true;
		word = stop == 64 ? 0 : word >> stop << stop;
	}
	if (word >> 63 && !space_word_longer(word, space_search_dull(search))) {
		at = 64 - (unsigned)__builtin_clzll(~word);
		return space_search_extend(search, base + at, 64 - at);
	}
	if (word == 0 || !space_word_longer(word, space_search_dull(search)))
		return false;
	while (word != 0) {
		at = (unsigned)__builtin_ctzll(word);
		word = ~word >> at << at;
		stop = word == 0 ? 64 : (unsigned)__builtin_ctzll(word);
		if (space_search_extend(search, base + at, stop - at))
			return true;
		word = stop == 64 ? 0 : ~word >> stop << stop;
	}
	return false;
}

/* Pages [at, end), indexes within one group: true when the search has what it wants. */
static bool space_search_group(struct space_search *search, uint64_t at, uint64_t end)
{
	const struct space *space = search->space;
	uint64_t group = at / SPACE_GROUP;

	if (space->group[group] == 0)
		return false;
	if (space->group[group] == SPACE_GROUP)
		return space_search_extend(search, at, end - at);
	if (!space_search_may_scan(search, group))
		return false;
	for (uint64_t from = at / 64 * 64; from < end; from += 64) {
		uint64_t word = space->bits[from / 64];

		if (from < at)
			word &= ~UINT64_C(0) << at % 64;
		if (end - from < 64)
			word &= ~(~UINT64_C(0) << (end - from));
		if (space_search_word(search, from, word)) {
			/* All of the run, which may go on in the next words. */
			at = search->open.pgno + search->open.count;
			search->open.count += space_find(space, at, end, false) - at;
			return true;
		}
	}
	return false;
}

/* Once around from the hint.  True: found, the last run is search->open (longer, perhaps, than what is
 * missing). */
static bool space_search_run(struct space_search *search)
{
	const struct space *space = search->space;
	uint64_t mark = space->high_water - space->first, hint = space->hint - space->first;
	uint64_t at = hint, end = mark;

	for (int half = 0; half < 2; half++) {
		while (at < end) {
			uint64_t next = (at / SPACE_GROUP + 1) * SPACE_GROUP;

			if (next > end)
				next = end;
			if (search->groups == 0 || (search->gather && search->count == search->cap))
				break;
			search->groups--;
			if (space_search_group(search, at, next))
				return true;
			at = next;
		}
		space_search_close(search);
		at = 0;
		end = hint;
	}
	return false;
}

static void space_sort(struct space_run *runs, size_t count)
{
	for (size_t i = 1; i < count; i++) {
		struct space_run run = runs[i];
		size_t at = i;

		for (; at > 0 && runs[at - 1].pgno > run.pgno; at--)
			runs[at] = runs[at - 1];
		runs[at] = run;
	}
}

/* Take runs (indexes), cut to `pages` at the last one; the hint goes behind that one. */
static void space_take_runs(struct space *space, uint64_t pages, struct space_run *runs, size_t count)
{
	bool taken;

	for (size_t i = 0; i < count; i++) {
		runs[i].pgno += space->first;
		if (runs[i].count > pages)
			runs[i].count = pages;
		pages -= runs[i].count;
		taken = space_take(space, runs[i]);
		ENSURE(taken);
	}
	ENSURE(pages == 0 && count > 0);
	space->hint = runs[count - 1].pgno + runs[count - 1].count;
	if (space->hint >= space->high_water)
		space->hint = space->first;
	space_sort(runs, count);
}

/* Of the run that was found and the next few behind it: the shortest that is long enough. */
static struct space_run space_shortest(const struct space *space, struct space_run found, uint64_t want)
{
	uint64_t end = space->high_water - space->first, at = found.pgno + found.count;

	for (unsigned i = 0; i < SPACE_AHEAD && found.count > want; i++) {
		uint64_t from = space_find(space, at, end, true);

		if (from == end)
			break;
		at = space_find(space, from, end, false);
		if (at - from >= want && at - from < found.count)
			found = (struct space_run){from, at - from};
	}
	return found;
}

/* One run, or else (best not NULL) the longest ones seen. */
static bool space_alloc_near(struct space *space, const struct space_request *request, struct space_run *runs,
	size_t cap, size_t *count, bool bounded)
{
	struct space_run best[SPACE_RUNS];
	struct space_search search = {
		.space = space,
		.want = request->pages,
		.runs = best,
		.cap = cap < SPACE_RUNS ? cap : SPACE_RUNS,
		.groups = bounded ? SPACE_GROUPS : UINT64_MAX,
		.scans = bounded ? SPACE_SCANS : UINT32_MAX,
		.promising = SPACE_SCANS,
	};
	uint64_t sum = 0;
	size_t n = 0;

	if (space_search_run(&search)) {
		runs[0] = space_shortest(space, search.open, request->pages);
		*count = 1;
	} else {
		while (!request->must_join && n < search.count && sum < request->pages)
			sum += best[n++].count;
		if (sum < request->pages) {
			/* The next search looks elsewhere. */
			if (search.resume > 0 && search.resume < space->high_water - space->first)
				space->hint = space->first + search.resume;
			return false;
		}
		memcpy(runs, best, n * sizeof(best[0]));
		*count = n;
	}
	space_take_runs(space, request->pages, runs, *count);
	return true;
}

/*
 * The shortest stretch with enough ready pages, unless it is longer than `most` or has too many runs.  The hint is for small
 * requests: they go on where they are.
 */
static bool space_alloc_window(struct space *space, uint64_t pages, uint64_t most, struct space_run *runs, size_t cap,
	size_t *count)
{
	bts_pgno hint = space->hint;
	struct space_run window;
	uint64_t sum = 0, at, end;
	size_t n = 0;

	if (!space_window(space, pages, &window))
		return false;
	end = window.pgno + window.count;
	for (at = space_find(space, window.pgno, end, true); sum < pages && n < cap; n++) {
		uint64_t stop = space_find(space, at, end, false);

		runs[n] = (struct space_run){at, stop - at};
		sum += stop - at;
		at = space_find(space, stop, end, true);
	}
	if (sum < pages)
		return false;
	end = runs[n - 1].pgno + runs[n - 1].count - (sum - pages);
	if (end - runs[0].pgno > most)
		return false;
	space_take_runs(space, pages, runs, n);
	space->hint = hint;
	*count = n;
	return true;
}

/* As many runs as there is room for. */
static bool space_alloc_scattered(
	struct space *space, uint64_t pages, struct space_run *runs, size_t cap, size_t *count)
{
	struct space_search search = {.space = space,
		.want = pages,
		.gather = true,
		.runs = runs,
		.cap = cap,
		.groups = UINT64_MAX,
		.scans = UINT32_MAX};

	if (!space_search_run(&search) || search.count == cap)
		return false;
	runs[search.count++] = search.open;
	space_take_runs(space, pages, runs, search.count);
	*count = search.count;
	return true;
}

/* The ready tail of the file and what it lacks. */
static enum bts_err space_alloc_tail(
	struct space *space, const struct space_request *request, struct space_run *runs, size_t *count)
{
	uint64_t tail = space_tail(space, request->pages);
	uint64_t more = request->pages - tail;
	bts_pgno most = request->max_pages < LAYOUT_PGNO_LIMIT ? request->max_pages : LAYOUT_PGNO_LIMIT;
	struct space_run run = {space->high_water - tail, request->pages};
	enum bts_err err;
	bool taken;

	if (space->high_water > most || more > most - space->high_water)
		return BTS_FULL;
	err = space_raise(space, space->high_water + more);
	if (err)
		return err;
	if (tail > 0) {
		taken = space_take(space, (struct space_run){run.pgno, tail});
		ENSURE(taken);
	}
	runs[0] = run;
	*count = 1;
	return BTS_OK;
}

/* Indexes [0, end) of the pages below a page. */
static uint64_t space_below(const struct space *space, bts_pgno below)
{
	if (below >= space->high_water)
		below = space->high_water;
	return below > space->first ? below - space->first : 0;
}

/* The next ready run (indexes) from at on of at least `least` pages; false when there is none before end. */
static bool space_low_run(const struct space *space, uint64_t at, uint64_t end, uint64_t least, struct space_run *run)
{
	while ((at = space_find(space, at, end, true)) < end) {
		uint64_t stop = space_find(space, at, end, false);

		if (stop - at >= least) {
			*run = (struct space_run){at, stop - at};
			return true;
		}
		at = stop;
	}
	return false;
}

bool space_fits(const struct space *space, uint64_t pages, bts_pgno below)
{
	struct space_run run;

	return space_low_run(space, 0, space_below(space, below), pages, &run);
}

/* The lowest ready pages. */
static enum bts_err space_alloc_low(struct space *space, const struct space_request *request, struct space_run *runs,
	size_t cap, size_t *count)
{
	uint64_t end = space_below(space, request->below), at = 0, sum = 0;
	uint64_t least = request->must_join ? request->pages : 1;
	struct space_run run;
	size_t n = 0;

	while (sum < request->pages) {
		if (!space_low_run(space, at, end, least, &run))
			return BTS_FULL;
		if (n == cap)
			return BTS_LIMIT;
		runs[n++] = run;
		sum += run.count;
		at = run.pgno + run.count;
	}
	space_take_runs(space, request->pages, runs, n);
	*count = n;
	return BTS_OK;
}

static enum bts_err space_alloc_large(struct space *space, const struct space_request *request, struct space_run *runs,
	size_t cap, size_t *count)
{
	uint64_t pages = request->pages;
	enum bts_err err = BTS_FULL;

	if (space_alloc_window(space, pages, pages + pages / 3, runs, cap, count))
		return BTS_OK;
	if (2 * space->ready < space->high_water - space->first)
		err = space_alloc_tail(space, request, runs, count);
	if (err != BTS_FULL || space_alloc_window(space, pages, UINT64_MAX, runs, cap, count))
		return err == BTS_FULL ? BTS_OK : err;
	return BTS_LIMIT;
}

/* What the heads have, what is missing behind the end, within their limit; BTS_LIMIT: nothing is taken. */
static enum bts_err space_alloc_kind(struct space *space, const struct space_request *request, struct space_run *runs,
	size_t cap, size_t *count)
{
	struct space_request rest = *request;
	size_t more = 0;
	enum bts_err err = BTS_OK;

	if (request->kind == SPACE_LASTING)
		space->heads.wanted = request->pages;
	if (rest.max_pages > space->heads.limit)
		rest.max_pages = space->heads.limit;
	rest.pages = space_take_head(space, request->kind, request->pages, runs, cap, count);
	if (rest.pages > 0 && request->kind == SPACE_BRIEF) {
		rest.pages = space_take_head(space, SPACE_LASTING, rest.pages, runs + *count, cap - *count, &more);
		*count += more;
	}
	if (rest.pages > 0) {
		err = *count < cap ? space_alloc_tail(space, &rest, runs + *count, &more) : BTS_LIMIT;
		if (err == BTS_OK) {
			space->heads.granted -= rest.pages < space->heads.granted ? rest.pages : space->heads.granted;
			++*count;
		}
	}
	if (request->kind == SPACE_LASTING)
		space->heads.lost = err != BTS_OK;
	if (err == BTS_OK) {
		space_sort(runs, *count);
		return BTS_OK;
	}
	while (*count > 0)
		(void)space_give(space, runs[--*count]);
	return err == BTS_FULL ? BTS_LIMIT : err;
}

enum bts_err space_alloc(struct space *space, const struct space_request *request, struct space_run *runs,
	size_t cap, size_t *count)
{
	uint64_t pages = request->pages;
	bool enough = space->ready >= pages, scatter = enough && !request->must_join;
	enum bts_err err;

	*count = 0;
	if (pages == 0)
		return BTS_OK;
	if (cap == 0)
		return BTS_LIMIT;
	if (request->below != 0)
		return space_alloc_low(space, request, runs, cap, count);
	if (scatter && request->kind != SPACE_ANY) {
		err = space_alloc_kind(space, request, runs, cap, count);
		if (err != BTS_LIMIT)
			return err;
	}
	if (scatter && pages >= SPACE_LARGE) {
		err = space_alloc_large(space, request, runs, cap, count);
		if (err != BTS_LIMIT)
			return err;
	}
	if (enough && space_alloc_near(space, request, runs, cap, count, true))
		return BTS_OK;
	if (scatter && space->ready >= (space->high_water - space->first) / 2) {
		if (space_alloc_scattered(space, pages, runs, cap, count))
			return BTS_OK;
		scatter = false;
	}
	err = space_alloc_tail(space, request, runs, count);
	if (err != BTS_FULL || !enough)
		return err;
	if (scatter && space_alloc_scattered(space, pages, runs, cap, count))
		return BTS_OK;
	if (space_alloc_near(space, request, runs, cap, count, false))
		return BTS_OK;
	return request->must_join ? BTS_FULL : BTS_LIMIT;
}
