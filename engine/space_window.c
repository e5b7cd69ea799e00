/*
 * Windows: where in the file a large request finds its pages closest together.
 *
 * Each separate piece of a batch costs a request, so the best place is the shortest stretch that holds
 * as many ready pages as are wanted.  Two ends walk over the bitmap, in steps of a few pages; in a file of more groups than
 * WINDOW_GROUPS only over the stretch of so many with the most ready pages.  So the search is bounded, but for one
 * addition for each group of the file.
 */
#include "space.h"

#define WINDOW_GROUPS 64u
#define WINDOW_STEP_MIN 16u
#define WINDOW_STEP_MAX 64u

struct window {
	const struct space *space;
	uint64_t step; /* pages, a power of two */
	uint64_t mask;
};

/* The groups [*from, *end) with the most ready pages, `most` of them. */
static void window_groups(const struct space *space, uint64_t most, uint64_t *from, uint64_t *end)
{
	uint64_t groups = (space->high_water - space->first + SPACE_GROUP - 1) / SPACE_GROUP;
	uint64_t sum = 0, best = 0;

	*from = 0;
	*end = groups;
	if (groups <= most)
		return;
	for (uint64_t i = 0; i < groups; i++) {
		sum += space->group[i];
		if (i >= most)
			sum -= space->group[i - most];
		if (i + 1 >= most && sum > best) {
			best = sum;
			*from = i + 1 - most;
		}
	}
	*end = *from + most;
}

static inline uint64_t window_count(const struct window *window, uint64_t at)
{
	uint64_t page = at * window->step;

	return space_popcount(window->space->bits[page / 64] >> page % 64 & window->mask);
}

bool space_window(const struct space *space, uint64_t pages, struct space_run *found)
{
	struct window window = {.space = space, .step = WINDOW_STEP_MIN};
	uint64_t most = 2 * (pages / SPACE_GROUP + 1), from, end, left, sum = 0, best_sum = 0;

	*found = (struct space_run){0, UINT64_MAX};
	while (window.step < WINDOW_STEP_MAX && window.step * 32 < pages)
		window.step *= 2;
	window.mask = ~UINT64_C(0) >> (64 - window.step);
	window_groups(space, most < WINDOW_GROUPS ? WINDOW_GROUPS : most, &from, &end);
	left = from *= SPACE_GROUP / window.step;
	end *= SPACE_GROUP / window.step;
	for (uint64_t right = from; right < end; right++) {
		sum += window_count(&window, right);
		for (uint64_t n; sum >= pages && sum - (n = window_count(&window, left)) >= pages; left++)
			sum -= n;
		if (sum >= pages && (right + 1 - left < found->count ||
					    (right + 1 - left == found->count && sum > best_sum))) {
			*found = (struct space_run){left, right + 1 - left};
			best_sum = sum;
		}
	}
	if (found->count == UINT64_MAX)
		return false;
	found->pgno *= window.step;
	found->count *= window.step;
	return true;
}
