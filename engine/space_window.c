/*
 * Windows: where in the file a large request finds its pages closest together.
 *
 * Each separate piece of a batch costs a request, so the best place is the shortest stretch that holds
 * as many ready pages as are wanted.  Two ends walk over the bitmap, a word at a time, and within what they found once more
 * in steps of a few pages; in a file of more groups than WINDOW_GROUPS only over the stretch of so many with the most ready
 * pages.  So the search is bounded, but for one addition for each group of the file.
 */
#include "space.h"

#define WINDOW_GROUPS 64u
#define WINDOW_STEP_MIN 16u
#define WINDOW_STEP_MAX 64u

/* One end of the window: the counts of the steps in the word it stands in, each in as many bits as a step has, the next one lowest. */
struct window_end {
	const uint64_t *word; /* the next */
	uint64_t counts;
	unsigned left; /* of the word's steps */
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

/* Ready pages of the next step: 16, 32 or 64 of them. */
static inline uint64_t window_next(struct window_end *end, unsigned step)
{
	uint64_t count;

	if (end->left == 0) {
		uint64_t word = *end->word++;

		/* As space_popcount, but stopping at sums of that many bits. */
		word -= word >> 1 & UINT64_C(0x5555555555555555);
		word = (word & UINT64_C(0x3333333333333333)) + (word >> 2 & UINT64_C(0x3333333333333333));
		word = (word + (word >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
		word = (word + (word >> 8)) & UINT64_C(0x00ff00ff00ff00ff);
		if (step > 16)
			word = (word + (word >> 16)) & UINT64_C(0x0000ffff0000ffff);
		if (step > 32)
			word = (word + (word >> 32)) & UINT64_C(0x00000000ffffffff);
		end->counts = word;
		end->left = 64 / step;
	}
	count = end->counts & 0xffff;
	end->counts = step < 64 ? end->counts >> step : 0;
	end->left--;
	return count;
}

/*
 * The shortest stretch within pages [from, end), multiples of the step, that holds so many ready pages; of several the one with
 * the most.  In steps, found->count UINT64_MAX when there is none.
 */
static void window_scan(const struct space *space, uint64_t pages, unsigned step, uint64_t from, uint64_t end, struct space_run *found)
{
	struct window_end head = {.word = space->bits + from / 64}, tail = head;
	uint64_t sum = 0, best_sum = 0, left, first;

	*found = (struct space_run){0, UINT64_MAX};
	left = from /= step;
	end /= step;
	first = end > from ? window_next(&tail, step) : 0; /* of what the window holds */
	for (uint64_t right = from; right < end; right++) {
		sum += window_next(&head, step);
		for (; sum >= pages && sum - first >= pages; left++) {
			sum -= first;
			first = window_next(&tail, step);
		}
		if (sum >= pages && (right + 1 - left < found->count ||
					    (right + 1 - left == found->count && sum > best_sum))) {
			*found = (struct space_run){left, right + 1 - left};
			best_sum = sum;
		}
	}
}

bool space_window(const struct space *space, uint64_t pages, struct space_run *found)
{
	uint64_t most = 2 * (pages / SPACE_GROUP + 1), from, end;
	unsigned step = WINDOW_STEP_MIN;

	while (step < WINDOW_STEP_MAX && step * 32 < pages)
		step *= 2;
	window_groups(space, most < WINDOW_GROUPS ? WINDOW_GROUPS : most, &from, &end);
	window_scan(space, pages, WINDOW_STEP_MAX, from * SPACE_GROUP, end * SPACE_GROUP, found);
	if (found->count == UINT64_MAX)
		return false;
	if (step < WINDOW_STEP_MAX) { /* and there by the step */
		from = found->pgno * WINDOW_STEP_MAX;
		end = from + found->count * WINDOW_STEP_MAX;
		window_scan(space, pages, step, from, end, found);
	}
	found->pgno *= step;
	found->count *= step;
	return true;
}
