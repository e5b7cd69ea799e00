/*
 * Heads: where a batch of middle size goes in a file that is large against it.
 *
 * A batch of tens to hundreds of pages pays for each separate piece of it about as much as for seven pages (DESIGN.md), so its
 * pages should lie together; but to make room by moving what is live costs a random leaf and, mostly, the branch above it,
 * which the batch does not change anyway.  So what dies together is kept together: leaves live for as long as it takes to
 * change all of them at random, branches for a few batches.  Each of the two kinds has a head that fills a segment of the file
 * from front to back, all its ready pages, before it takes the next one; as in a log-structured file system that threads its
 * log through the holes (Rosenblum and Ousterhout, 1992), with its hot and cold data apart.  Only for the larger of these
 * batches pays what clean.c does with space_head_ahead: to move the little that is live in front of the leaves' head.
 *
 * Lasting pages take the segment with the most ready pages.  Where that is not HEAD_GOOD per cent of one, the file may grow
 * instead, but only when far more segments have been looked at, within heads.limit, and while its ready pages are fewer than
 * one and a half times the nodes of the trees that change: nodes, as heads gain nothing by pages that large values leave and
 * take again.  Where it may not, a segment that is HEAD_FAIR is good enough, and one that is less is left to those who look
 * for single runs.  Brief pages go round a ring of segments of their own, which is as long as it takes for the oldest one to be
 * all but dead, and SPACE_RING at most; of a tree with more branches than those hold, an older one that is not dead is given
 * up for the one with the most ready pages.
 *
 * Who gives up the end of the file is not to meet heads there, which would raise it again: they keep quiet for HEAD_QUIET batches.
 *
 * Heads are hints.  Others may take the pages of a segment at any time, and then it is less of a good place.
 */
#include "base/ensure.h"
#include "space.h"

#define HEAD_SEGMENT 512u      /* pages */
#define HEAD_LOOKS 256u	       /* segments that are looked at for one that is taken */
#define HEAD_LOOKS_MANY 65536u /* and before it grows by a grant: a small part may be all that changes */
#define HEAD_GRANT 4096u       /* pages */
#define HEAD_GOOD 85u	       /* per cent of a segment that are ready */
#define HEAD_FAIR 60u
#define HEAD_QUIET 1024u
#define HEAD_DEAD (HEAD_SEGMENT - HEAD_SEGMENT / 32) /* ready pages of a segment that is done with */
#define HEAD_WORTH (HEAD_SEGMENT * 3 / 4)	     /* and of one that is not given up */
#define HEAD_LEAST UINT64_C(8192)		     /* pages of a file that has heads */

bool space_has_heads(const struct space *space, uint64_t pages)
{
	return pages >= SPACE_MIDDLE && pages < SPACE_MANY &&
	       space->high_water - space->first >= HEAD_LEAST && space->heads.quiet == 0;
}

bool space_heads_starve(const struct space *space, uint64_t nodes)
{
	return 2 * space->ready < 3 * nodes;
}

void space_heads_quiet(struct space *space)
{
	space->heads.quiet = HEAD_QUIET;
}

static uint64_t head_end(const struct space *space)
{
	return (space->high_water - space->first) / HEAD_SEGMENT;
}

static uint64_t head_ready(const struct space *space, uint64_t segment)
{
	const uint64_t *word = &space->bits[segment * (HEAD_SEGMENT / 64)];
	uint64_t sum = 0;

	for (unsigned i = 0; i < HEAD_SEGMENT / 64; i++)
		sum += space_popcount(word[i]);
	return sum;
}

static bool head_taken(const struct space *space, uint64_t segment)
{
	const struct space_heads *heads = &space->heads;

	for (unsigned i = 0; i < heads->ring_count; i++)
		if (heads->ring[i] == segment)
			return true;
	segment = (segment + 1) * HEAD_SEGMENT;
	return heads->next.end == segment || (heads->lasting.end == segment && heads->lasting.at < segment);
}

/* The segment with the most ready pages of the next so many; how many those are, 0 when there is none. */
static uint64_t head_choose(struct space *space, uint64_t looks, uint64_t *segment)
{
	uint64_t end = head_end(space), best = 0;

	for (looks = looks < end ? looks : end; looks > 0; looks--) {
		uint64_t at = space->heads.looked < end ? space->heads.looked : 0, ready;

		space->heads.looked = at + 1;
		ready = head_ready(space, at);
		if (ready > best && !head_taken(space, at)) {
			best = ready;
			*segment = at;
		}
	}
	return best;
}

static void head_begin(struct space_head *head, uint64_t segment)
{
	head->at = segment * HEAD_SEGMENT;
	head->end = head->at + HEAD_SEGMENT;
	head->clear = head->at;
}

/* A segment for lasting pages, to next; false: none is good enough. */
static bool head_find_lasting(struct space *space)
{
	struct space_heads *heads = &space->heads;
	bool grow = space->high_water + heads->wanted <= heads->limit;
	uint64_t segment = 0, ready = head_choose(space, HEAD_LOOKS, &segment);

	if (grow && 100 * ready < HEAD_GOOD * HEAD_SEGMENT) {
		if (heads->granted == 0)
			ready = head_choose(space, HEAD_LOOKS_MANY, &segment);
		if (100 * ready < HEAD_GOOD * HEAD_SEGMENT) {
			if (heads->granted == 0)
				heads->granted = HEAD_GRANT;
			return false;
		}
	}
	if (100 * ready < HEAD_FAIR * HEAD_SEGMENT)
		return false;
	head_begin(&space->heads.next, segment);
	return true;
}

static bool head_next_lasting(struct space *space)
{
	struct space_heads *heads = &space->heads;

	if (heads->next.end == 0 && !head_find_lasting(space))
		return false;
	heads->lasting = heads->next;
	heads->next = (struct space_head){0};
	return true;
}

/* Of the first pages of a head, so many, those that were not told. */
static bool head_clear(struct space_head *head, uint64_t pages, uint64_t *from, uint64_t *end)
{
	*from = head->clear > head->at ? head->clear : head->at;
	*end = head->end - head->at < pages ? head->end : head->at + pages;
	if (*from >= *end)
		return false;
	head->clear = *end;
	return true;
}

bool space_head_ahead(struct space *space, uint64_t *from, uint64_t *end)
{
	struct space_heads *heads = &space->heads;
	uint64_t mark = space->high_water - space->first;
	uint64_t pages = 2 * heads->wanted, left = heads->lasting.end - heads->lasting.at;

	if (heads->lasting.end > mark || heads->next.end > mark)
		return false;
	if (head_clear(&heads->lasting, pages, from, end))
		return true;
	if (left >= pages || (heads->next.end == 0 && !head_find_lasting(space)))
		return false;
	return head_clear(&heads->next, pages - left, from, end);
}

/* The next segment for brief pages: the oldest of the ring, or another in its place or beside it. */
static bool head_next_brief(struct space *space)
{
	struct space_heads *heads = &space->heads;
	uint64_t segment = 0, ready = 0, oldest = 0;
	bool full = heads->ring_count == SPACE_RING;

	if (heads->ring_count > 0) {
		oldest = heads->ring[heads->ring_next];
		ready = oldest < head_end(space) ? head_ready(space, oldest) : 0;
	}
	if (ready < HEAD_DEAD && (!full || ready < HEAD_WORTH)) {
		if (head_choose(space, HEAD_LOOKS, &segment) < HEAD_WORTH)
			return false;
		if (!full) { /* behind the newest, before the oldest */
			for (unsigned i = heads->ring_count++; i > heads->ring_next; i--)
				heads->ring[i] = heads->ring[i - 1];
		}
		heads->ring[heads->ring_next] = segment;
	}
	head_begin(&heads->brief, heads->ring[heads->ring_next]);
	heads->ring_next = (heads->ring_next + 1) % heads->ring_count;
	return true;
}

uint64_t space_take_head(struct space *space, enum space_kind kind, uint64_t pages, struct space_run *runs,
	size_t cap, size_t *count)
{
	bool brief = kind == SPACE_BRIEF, taken;
	struct space_head *head = brief ? &space->heads.brief : &space->heads.lasting;

	*count = 0;
	while (pages > 0 && *count < cap) {
		uint64_t mark = space->high_water - space->first, end = head->end < mark ? head->end : mark;
		uint64_t at = space_find(space, head->at, end, true), stop;

		if (at >= end) {
			head->at = head->end;
			if (brief ? head_next_brief(space) : head_next_lasting(space))
				continue;
			break;
		}
		stop = space_find(space, at, end, false);
		if (stop - at > pages)
			stop = at + pages;
		runs[*count] = (struct space_run){space->first + at, stop - at};
		taken = space_take(space, runs[(*count)++]);
		ENSURE(taken);
		pages -= stop - at;
		head->at = stop;
	}
	return pages;
}
