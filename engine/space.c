/* Free space: the two bitmaps, their counts, and the pages that wait for readers and for the flush. */
#include "space.h"
#include "base/ensure.h"

enum space_state { SPACE_LIVE, SPACE_READY, SPACE_WAITING };

static uint64_t space_word_mask(uint64_t from, uint64_t count, uint64_t *bits)
{
	unsigned shift = from % 64;

	*bits = 64 - shift < count ? 64 - shift : count;
	return (~UINT64_C(0) >> (64 - *bits)) << shift;
}

static void space_put_bits(uint64_t *words, uint64_t from, uint64_t count, bool value)
{
	uint64_t n;

	for (; count > 0; from += n, count -= n) {
		uint64_t mask = space_word_mask(from, count, &n);

		if (value)
			words[from / 64] |= mask;
		else
			words[from / 64] &= ~mask;
	}
}

static uint64_t space_state_word(const struct space *space, uint64_t word, enum space_state state)
{
	if (state == SPACE_READY)
		return space->bits[word];
	if (state == SPACE_WAITING)
		return space->waiting[word];
	return ~(space->bits[word] | space->waiting[word]);
}

/* Are all pages [from, from + count) in this state? */
static bool space_all(const struct space *space, uint64_t from, uint64_t count, enum space_state state)
{
	uint64_t n;

	for (; count > 0; from += n, count -= n) {
		uint64_t mask = space_word_mask(from, count, &n);

		if ((space_state_word(space, from / 64, state) & mask) != mask)
			return false;
	}
	return true;
}

/* Pages of that state. */
static uint64_t space_count(const struct space *space, uint64_t from, uint64_t count, enum space_state state)
{
	uint64_t n, sum = 0;

	for (; count > 0; from += n, count -= n) {
		uint64_t mask = space_word_mask(from, count, &n);

		sum += space_popcount(space_state_word(space, from / 64, state) & mask);
	}
	return sum;
}

/* The first index in [from, end) of a page that is live (or, not live); end when there is none. */
static uint64_t space_find_live(const struct space *space, uint64_t from, uint64_t end, bool live)
{
	while (from < end) {
		uint64_t word = space_state_word(space, from / 64, SPACE_LIVE);

		word = (live ? word : ~word) >> from % 64;
		if (word != 0) {
			from += (unsigned)__builtin_ctzll(word);
			return from < end ? from : end;
		}
		from = (from / 64 + 1) * 64;
	}
	return end;
}

uint64_t space_find(const struct space *space, uint64_t from, uint64_t end, bool ready)
{
	while (from < end) {
		uint64_t word = (ready ? space->bits[from / 64] : ~space->bits[from / 64]) >> from % 64;

		if (word != 0) {
			from += (unsigned)__builtin_ctzll(word);
			return from < end ? from : end;
		}
		from = (from / 64 + 1) * 64;
	}
	return end;
}

uint64_t space_tail(const struct space *space, uint64_t most)
{
	uint64_t end = space->high_water - space->first, at = end;

	while (at > 0 && end - at < most) {
		uint64_t taken = ~space->bits[(at - 1) / 64] << (63 - (at - 1) % 64);

		if (taken != 0) {
			at -= (unsigned)__builtin_clzll(taken);
			break;
		}
		at = (at - 1) / 64 * 64;
	}
	return end - at < most ? end - at : most;
}

static bool space_holds(const struct space *space, struct space_run run)
{
	return run.count > 0 && run.pgno >= space->first && run.pgno < space->high_water &&
	       run.count <= space->high_water - run.pgno;
}

static bool space_free_at(const struct space *space, uint64_t index)
{
	return ((space->bits[index / 64] | space->waiting[index / 64]) >> index % 64 & 1) != 0;
}

/* How many neighbours of the range are free: a free range between two free ones is no run of its own. */
static unsigned space_neighbours(const struct space *space, uint64_t from, uint64_t count)
{
	uint64_t end = from + count;

	return (from > 0 && space_free_at(space, from - 1)) +
	       (end < space->high_water - space->first && space_free_at(space, end));
}

static void space_count_group(struct space *space, uint64_t from, uint64_t count, bool more)
{
	while (count > 0) {
		uint64_t left = SPACE_GROUP - from % SPACE_GROUP, n = left < count ? left : count;

		if (more)
			space->group[from / SPACE_GROUP] += (uint32_t)n;
		else
			space->group[from / SPACE_GROUP] -= (uint32_t)n;
		from += n;
		count -= n;
	}
}

/* The one place where pages change state: all of run was `was`, and is `now`. */
static void space_move(struct space *space, struct space_run run, enum space_state was, enum space_state now)
{
	uint64_t from = run.pgno - space->first;

	ENSURE(space_holds(space, run) && space_all(space, from, run.count, was));
	if (was == SPACE_READY) {
		space_put_bits(space->bits, from, run.count, false);
		space_count_group(space, from, run.count, false);
		space->ready -= run.count;
	} else if (was == SPACE_WAITING) {
		space_put_bits(space->waiting, from, run.count, false);
		space->pending_pages -= run.count;
	} else {
		space->free_runs = space->free_runs + 1 - space_neighbours(space, from, run.count);
	}
	if (now == SPACE_READY) {
		space_put_bits(space->bits, from, run.count, true);
		space_count_group(space, from, run.count, true);
		space->ready += run.count;
	} else if (now == SPACE_WAITING) {
		space_put_bits(space->waiting, from, run.count, true);
		space->pending_pages += run.count;
	} else {
		space->free_runs = space->free_runs + space_neighbours(space, from, run.count) - 1;
	}
}

/* Room for `need` more elements in an array that doubles. */
static enum bts_err space_reserve(
	struct bts_env *env, void **array, size_t count, size_t need, size_t *cap, size_t each)
{
	size_t more = *cap < 8 ? 16 : *cap * 2;
	void *grown;

	if (*cap - count >= need)
		return BTS_OK;
	if (more < count + need)
		more = count + need;
	grown = env->ops->memory(env, *array, more * each);
	if (grown == NULL)
		return BTS_MEMORY;
	*array = grown;
	*cap = more;
	return BTS_OK;
}

static enum bts_err space_grow_words(struct space *space, uint64_t **words, uint64_t pages)
{
	uint64_t *grown = space->env->ops->memory(space->env, *words, pages / 8);

	if (grown == NULL)
		return BTS_MEMORY;
	memset((uint8_t *)grown + space->capacity / 8, 0, (pages - space->capacity) / 8);
	*words = grown;
	return BTS_OK;
}

static enum bts_err space_grow(struct space *space, uint64_t pages)
{
	uint64_t capacity = space->capacity + space->capacity / 2;
	enum bts_err err;
	uint32_t *group;

	if (pages <= space->capacity)
		return BTS_OK;
	if (capacity < pages)
		capacity = pages;
	capacity = (capacity + SPACE_GROUP - 1) / SPACE_GROUP * SPACE_GROUP;
	err = space_grow_words(space, &space->bits, capacity);
	if (err)
		return err;
	err = space_grow_words(space, &space->waiting, capacity);
	if (err)
		return err;
	group = space->env->ops->memory(space->env, space->group, capacity / SPACE_GROUP * sizeof(*group));
	if (group == NULL)
		return BTS_MEMORY;
	memset(group + space->capacity / SPACE_GROUP, 0,
		(capacity - space->capacity) / SPACE_GROUP * sizeof(*group));
	space->group = group;
	space->capacity = capacity;
	return BTS_OK;
}

enum bts_err space_init(struct space *space, struct bts_env *env, bts_pgno first, bts_pgno high_water)
{
	enum bts_err err;

	ENSURE(first <= high_water && high_water <= LAYOUT_PGNO_LIMIT);
	memset(space, 0, sizeof(*space));
	space->env = env;
	space->first = first;
	space->high_water = high_water;
	space->hint = first;
	err = space_grow(space, high_water - first + 1);
	if (err)
		space_fini(space);
	return err;
}

static void space_shelf_free(struct space *space, struct space_shelf *shelf)
{
	space->env->ops->memory(space->env, shelf->entries, 0);
	space->env->ops->memory(space->env, shelf, 0);
}

void space_fini(struct space *space)
{
	struct bts_env *env = space->env;

	if (env == NULL)
		return;
	for (size_t i = 0; i < space->shelf_count; i++)
		space_shelf_free(space, space->shelves[i]);
	env->ops->memory(env, space->shelves, 0);
	env->ops->memory(env, space->pending, 0);
	env->ops->memory(env, space->group, 0);
	env->ops->memory(env, space->waiting, 0);
	env->ops->memory(env, space->bits, 0);
	memset(space, 0, sizeof(*space));
}

enum bts_err space_give(struct space *space, struct space_run run)
{
	space_move(space, run, SPACE_LIVE, SPACE_READY);
	return BTS_OK;
}

bool space_take(struct space *space, struct space_run run)
{
	if (!space_holds(space, run) || !space_all(space, run.pgno - space->first, run.count, SPACE_READY))
		return false;
	space_move(space, run, SPACE_READY, SPACE_LIVE);
	return true;
}

void space_lower(struct space *space, bts_pgno mark)
{
	ENSURE(mark >= space->first && mark <= space->high_water);
	if (mark < space->high_water) {
		space_move(space, (struct space_run){mark, space->high_water - mark}, SPACE_READY, SPACE_LIVE);
		space_heads_quiet(space);
	}
	space->high_water = mark;
	if (space->hint > mark)
		space->hint = space->first;
}

enum bts_err space_raise(struct space *space, bts_pgno mark)
{
	enum bts_err err;

	ENSURE(mark >= space->high_water && mark <= LAYOUT_PGNO_LIMIT);
	err = space_grow(space, mark - space->first);
	if (err)
		return err;
	space->high_water = mark;
	return BTS_OK;
}

/* Append, joined to the entry before when they are neighbours of one interval. */
static enum bts_err space_append(struct bts_env *env, struct space_pending **entries, size_t *count,
	size_t *cap, const struct space_pending *entry)
{
	struct space_pending *last = *count > 0 ? &(*entries)[*count - 1] : NULL;
	enum bts_err err;

	if (last != NULL && last->birth == entry->birth && last->freed == entry->freed) {
		if (last->pgno + last->count == entry->pgno) {
			last->count += entry->count;
			return BTS_OK;
		}
		if (entry->pgno + entry->count == last->pgno) {
			last->pgno = entry->pgno;
			last->count += entry->count;
			return BTS_OK;
		}
	}
	err = space_reserve(env, (void **)entries, *count, 1, cap, sizeof(**entries));
	if (err)
		return err;
	(*entries)[(*count)++] = *entry;
	return BTS_OK;
}

static enum bts_err space_wait(struct space *space, const struct space_pending *entry, enum space_state was)
{
	enum bts_err err;

	err = space_append(space->env, &space->pending, &space->pending_count, &space->pending_cap, entry);
	if (err)
		return err;
	space_move(space, (struct space_run){entry->pgno, entry->count}, was, SPACE_WAITING);
	return BTS_OK;
}

enum bts_err space_retire(struct space *space, struct space_pending entry)
{
	ENSURE(entry.birth <= entry.freed);
	return space_wait(space, &entry, SPACE_LIVE);
}

enum bts_err space_make_room(struct space *space, size_t entries)
{
	return space_reserve(space->env, (void **)&space->pending, space->pending_count, entries,
		&space->pending_cap, sizeof(*space->pending));
}

enum bts_err space_hold(struct space *space, struct space_run run, bts_txid birth, bts_txid freed)
{
	uint64_t at, end, stop;
	enum bts_err err;

	ENSURE(space_holds(space, run) && birth <= freed);
	at = run.pgno - space->first;
	end = at + run.count;
	while ((at = space_find(space, at, end, true)) < end) {
		struct space_pending entry = {space->first + at, 0, birth, freed};

		stop = space_find(space, at, end, false);
		entry.count = stop - at;
		err = space_wait(space, &entry, SPACE_READY);
		if (err)
			return err;
		at = stop;
	}
	return BTS_OK;
}

/* The index of the first snapshot >= txid. */
static size_t space_snapshot(const bts_txid *snapshots, size_t count, bts_txid txid)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (snapshots[middle] < txid)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The index of the first shelf whose snapshot is >= txid. */
static size_t space_shelf_index(const struct space *space, bts_txid txid)
{
	size_t low = 0, high = space->shelf_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (space->shelves[middle]->snapshot < txid)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static enum bts_err space_shelf_get(struct space *space, bts_txid snapshot, struct space_shelf **shelf)
{
	size_t at = space_shelf_index(space, snapshot);
	enum bts_err err;

	if (at == space->shelf_count || space->shelves[at]->snapshot != snapshot) {
		err = space_reserve(space->env, (void **)&space->shelves, space->shelf_count, 1,
			&space->shelf_cap, sizeof(*space->shelves));
		if (err)
			return err;
		*shelf = space->env->ops->memory(space->env, NULL, sizeof(**shelf));
		if (*shelf == NULL)
			return BTS_MEMORY;
		**shelf = (struct space_shelf){.snapshot = snapshot};
		memmove(&space->shelves[at + 1], &space->shelves[at],
			(space->shelf_count - at) * sizeof(*space->shelves));
		space->shelves[at] = *shelf;
		space->shelf_count++;
	}
	*shelf = space->shelves[at];
	return BTS_OK;
}

/* Put an entry where it belongs now; false when it must stay where it is (not durable yet, or no memory to
 * move it). */
static bool space_settle(struct space *space, const struct space_pending *entry, bts_txid durable,
	const bts_txid *snapshots, size_t count)
{
	size_t holder = space_snapshot(snapshots, count, entry->birth);
	struct space_shelf *shelf;

	if (entry->freed > durable)
		return false;
	if (holder == count || snapshots[holder] >= entry->freed) {
		space_move(space, (struct space_run){entry->pgno, entry->count}, SPACE_WAITING, SPACE_READY);
		return true;
	}
	return space_shelf_get(space, snapshots[holder], &shelf) == BTS_OK &&
	       space_append(space->env, &shelf->entries, &shelf->count, &shelf->cap, entry) == BTS_OK;
}

static size_t space_settle_all(struct space *space, struct space_pending *entries, size_t entry_count,
	bts_txid durable, const bts_txid *snapshots, size_t count)
{
	size_t kept = 0;

	for (size_t i = 0; i < entry_count; i++) {
		struct space_pending entry = entries[i];

		if (!space_settle(space, &entry, durable, snapshots, count))
			entries[kept++] = entry;
	}
	return kept;
}

void space_reclaim(struct space *space, bts_txid durable, const bts_txid *snapshots, size_t count)
{
	size_t at = 0;

	/* A shelf whose snapshot has ended: its entries go on to the next snapshot that holds them, or are
	 * ready. That may insert shelves, only ever of later snapshots. */
	while (at < space->shelf_count) {
		struct space_shelf *shelf = space->shelves[at];
		size_t found = space_snapshot(snapshots, count, shelf->snapshot);

		if (found == count || snapshots[found] != shelf->snapshot) {
			shelf->count = space_settle_all(
				space, shelf->entries, shelf->count, durable, snapshots, count);
			at = space_shelf_index(space, shelf->snapshot);
			if (shelf->count == 0) {
				space->shelf_count--;
				memmove(&space->shelves[at], &space->shelves[at + 1],
					(space->shelf_count - at) * sizeof(*space->shelves));
				space_shelf_free(space, shelf);
				continue;
			}
		}
		at++;
	}
	space->pending_count =
		space_settle_all(space, space->pending, space->pending_count, durable, snapshots, count);
}

bool space_is_ready(const struct space *space, bts_pgno pgno)
{
	struct space_run run = {pgno, 1};

	return space_holds(space, run) && space_all(space, pgno - space->first, 1, SPACE_READY);
}

bool space_is_live(const struct space *space, struct space_run run)
{
	return space_holds(space, run) && space_all(space, run.pgno - space->first, run.count, SPACE_LIVE);
}

bool space_is_free(const struct space *space, struct space_run run)
{
	uint64_t at, end;

	if (!space_holds(space, run))
		return false;
	at = run.pgno - space->first;
	end = at + run.count;
	return space_find_live(space, at, end, true) == end;
}

bool space_next_free(const struct space *space, bts_pgno *state, struct space_run *run)
{
	uint64_t end = space->high_water - space->first;
	uint64_t at = *state > space->first ? *state - space->first : 0, stop;

	at = space_find_live(space, at, end, false);
	if (at >= end)
		return false;
	stop = space_find_live(space, at, end, true);
	run->pgno = space->first + at;
	run->count = stop - at;
	*state = space->first + stop;
	return true;
}

uint64_t space_free_pages(const struct space *space)
{
	return space->ready + space->pending_pages;
}

/* Cut run out of a list of waiting entries; *waiting: its pages that wait in others still. */
static enum bts_err space_cut(struct space *space, struct space_pending **entries, size_t *count, size_t *cap,
	struct space_run run, uint64_t *waiting)
{
	bts_pgno end = run.pgno + run.count;
	size_t kept = 0, old = *count;
	/* An entry that is cut in the middle leaves two; the run can lie within one entry only once. */
	enum bts_err err = space_reserve(space->env, (void **)entries, *count, 1, cap, sizeof(**entries));
	struct space_pending rest = {0};

	if (err)
		return err;
	for (size_t i = 0; i < old; i++) {
		struct space_pending entry = (*entries)[i];
		bts_pgno stop = entry.pgno + entry.count;

		if (stop <= run.pgno || entry.pgno >= end) {
			(*entries)[kept++] = entry;
			continue;
		}
		*waiting -= (stop < end ? stop : end) - (entry.pgno > run.pgno ? entry.pgno : run.pgno);
		if (stop > end) {
			rest = entry;
			rest.pgno = end;
			rest.count = stop - end;
		}
		if (entry.pgno < run.pgno) {
			entry.count = run.pgno - entry.pgno;
			(*entries)[kept++] = entry;
		} else if (rest.count > 0) {
			(*entries)[kept++] = rest;
			rest.count = 0;
		}
	}
	if (rest.count > 0)
		(*entries)[kept++] = rest;
	*count = kept;
	return BTS_OK;
}

/* Another process that found pages ready found them so lately, mostly: they are in the newest lists, which are short. */
static bool space_cut_all(struct space *space, struct space_run run, uint64_t waiting)
{
	if (waiting > 0 &&
		space_cut(space, &space->pending, &space->pending_count, &space->pending_cap, run, &waiting))
		return false;
	for (size_t i = space->shelf_count; i-- > 0 && waiting > 0;) {
		struct space_shelf *shelf = space->shelves[i];

		if (space_cut(space, &shelf->entries, &shelf->count, &shelf->cap, run, &waiting))
			return false;
	}
	return waiting == 0;
}

bool space_claim(struct space *space, struct space_run run)
{
	uint64_t at, end;

	if (!space_holds(space, run))
		return false;
	at = run.pgno - space->first;
	end = at + run.count;
	if (space_find_live(space, at, end, true) != end ||
		!space_cut_all(space, run, space_count(space, at, run.count, SPACE_WAITING)))
		return false;
	for (; at < end; at++) {
		struct space_run page = {space->first + at, 1};

		space_move(space, page, space_all(space, at, 1, SPACE_READY) ? SPACE_READY : SPACE_WAITING, SPACE_LIVE);
	}
	return true;
}
