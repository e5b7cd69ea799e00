/*
 * Who reads, what that costs, and what is done about it.
 *
 * A snapshot costs the pages that it reaches and the newest commit does not: live in the snapshot's free set, free in the
 * newest one's.  Both sets stand in the file (freelog.c), and a reader's slot names its own, so that any process can tell,
 * without the allocator of the one that writes.  Snapshots are measured once, however many readers share one.
 *
 * Limits are enforced by whoever set them, after its commits.  A reader beyond one is told to end, never robbed: what it reaches
 * is kept until it leaves, so that a thread in the middle of a value meets the error at its next call and not a changed byte.
 */
#include "db.h"

#include "error.h"
#include "redirect.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define READERS_INTERVAL_MS 200u /* between two enforcements of a handle, at least */
#define READERS_TELL_MS 1000u	 /* between two calls about one reader */
#define READERS_SHARE 20u	 /* at most one part in so many of the time is spent on enforcing */

struct readers {
	struct bts *db;
	struct shared_reader_seen *seen; /* by snapshot, ascending */
	uint64_t *held;			 /* pages, of each */
	size_t count;
	uint64_t pinned; /* pages that any of them holds */
};

static void readers_fini(struct readers *readers)
{
	readers->db->env->ops->memory(readers->db->env, readers->seen, 0);
	readers->db->env->ops->memory(readers->db->env, readers->held, 0);
}

static int readers_compare(const void *left, const void *right)
{
	const struct shared_reader_seen *a = left, *b = right;

	if (a->txid != b->txid)
		return a->txid < b->txid ? -1 : 1;
	return a->age_ms < b->age_ms ? 1 : a->age_ms > b->age_ms ? -1 : 0;
}

/* Owned: readers_fini, also after a failure. */
static enum bts_err readers_init(struct readers *readers, struct bts *db, struct bts_error *error)
{
	struct bts_env *env = db->env;
	size_t cap = shared_reader_slots(db->shared);

	*readers = (struct readers){.db = db};
	if (cap == 0)
		return BTS_OK;
	readers->seen = env->ops->memory(env, NULL, cap * sizeof(*readers->seen));
	readers->held = env->ops->memory(env, NULL, cap * sizeof(*readers->held));
	if (readers->seen == NULL || readers->held == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory for a list of readers");
	readers->count = shared_readers_seen(db->shared, readers->seen, cap);
	memset(readers->held, 0, readers->count * sizeof(*readers->held));
	qsort(readers->seen, readers->count, sizeof(*readers->seen), readers_compare);
	return BTS_OK;
}

/* 64 pages from index `word * 64` on: free in this set?  Pages beyond its end are. */
static uint64_t readers_free_word(const struct space *space, uint64_t word)
{
	uint64_t pages = space->high_water - space->first, bits;

	if (word * 64 >= pages)
		return UINT64_MAX;
	bits = space->bits[word] | space->waiting[word];
	return pages - word * 64 < 64 ? bits | UINT64_MAX << (pages - word * 64) : bits;
}

/* The builtin would need a library of the compiler's. */
static uint64_t readers_bits(uint64_t word)
{
	word -= word >> 1 & UINT64_C(0x5555555555555555);
	word = (word & UINT64_C(0x3333333333333333)) + (word >> 2 & UINT64_C(0x3333333333333333));
	word = (word + (word >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
	return word * UINT64_C(0x0101010101010101) >> 56;
}

/* Adds to needed, a bit a page of the newest set, what the snapshot holds; returns how many pages. */
static uint64_t readers_compare_sets(const struct space *newest, const struct space *then, uint64_t *needed)
{
	uint64_t pages = newest->high_water - newest->first, held = 0;

	for (uint64_t word = 0; word * 64 < pages; word++) {
		uint64_t bits = (newest->bits[word] | newest->waiting[word]) & ~readers_free_word(then, word);

		needed[word] |= bits;
		held += readers_bits(bits);
	}
	return held;
}

/* What one snapshot holds; 0 when its last reader has left. */
static enum bts_err readers_measure_one(struct bts *db, struct redirect *table, const struct space *newest, bts_txid snapshot,
	uint64_t *needed, uint64_t *held, struct bts_error *error)
{
	struct commit_record *record = db->env->ops->memory(db->env, NULL, sizeof(*record));
	struct space then;
	enum bts_err err;

	*held = 0;
	if (record == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory for a list of readers");
	err = shared_reader_record(db->shared, snapshot, record);
	if (err == BTS_OK) {
		err = db_load_space(db, table, record, &then, error);
		if (err == BTS_OK) {
			*held = readers_compare_sets(newest, &then, needed);
			space_fini(&then);
		}
		/* A follower's snapshot may have its free set in a log that is gone for all others: unknown. */
		if (err == BTS_CORRUPT && db->follower)
			err = BTS_OK;
		/* Without its readers its pages are anybody's, and no damage. */
		if (!shared_reader_settled(db->shared, snapshot)) {
			*held = 0;
			err = err == BTS_CORRUPT ? BTS_OK : err;
		}
	} else {
		err = BTS_OK;
	}
	db->env->ops->memory(db->env, record, 0);
	return err;
}

static enum bts_err readers_measure_all(
	struct readers *readers, struct redirect *table, const struct space *newest, bts_txid head, struct bts_error *error)
{
	struct bts *db = readers->db;
	uint64_t words = (newest->high_water - newest->first + 63) / 64;
	uint64_t *needed = db->env->ops->memory(db->env, NULL, (words + 1) * sizeof(*needed));
	enum bts_err err = BTS_OK;

	if (needed == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory for a list of readers");
	memset(needed, 0, words * sizeof(*needed));
	for (size_t i = 0; i < readers->count && err == BTS_OK && readers->seen[i].txid < head; i++) {
		if (i > 0 && readers->seen[i - 1].txid == readers->seen[i].txid)
			readers->held[i] = readers->held[i - 1];
		else
			err = readers_measure_one(
				db, table, newest, readers->seen[i].txid, needed, &readers->held[i], error);
	}
	for (uint64_t word = 0; word < words; word++)
		readers->pinned += readers_bits(needed[word]);
	db->env->ops->memory(db->env, needed, 0);
	return err;
}

static enum bts_err readers_measure(struct readers *readers, struct bts_error *error)
{
	struct bts *db = readers->db;
	struct shared_reader reader;
	struct redirect *table;
	struct commit_record *record;
	struct space newest;
	enum bts_err err;

	if (readers->count == 0 || readers->seen[0].txid >= shared_head_txid(db->shared))
		return BTS_OK;
	record = db->env->ops->memory(db->env, NULL, sizeof(*record));
	if (record == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory for a list of readers");
	err = redirect_enter(db, REDIRECT_LIGHT, &reader, record, &table, error);
	if (err == BTS_OK) {
		err = db_load_space(db, table, record, &newest, error);
		if (err == BTS_OK) {
			err = readers_measure_all(readers, table, &newest, record->txid, error);
			space_fini(&newest);
		}
		redirect_drop(db, table);
		shared_reader_leave(db->shared, &reader);
	}
	db->env->ops->memory(db->env, record, 0);
	return err;
}

static struct bts_reader_info readers_info(const struct readers *readers, size_t i)
{
	const struct shared_reader_seen *seen = &readers->seen[i];

	return (struct bts_reader_info){
		.pid = seen->pid,
		.own = seen->own,
		.expired = seen->expired,
		.txid = seen->txid,
		.age_ms = seen->age_ms,
		.held_pages = readers->held[i],
		.held_bytes = readers->held[i] * readers->db->pager.page_size,
	};
}

enum bts_err bts_readers(struct bts *db, bts_reader_fn *fn, void *arg, struct bts_error *error)
{
	struct readers readers;
	enum bts_err err = readers_init(&readers, db, error);

	if (err == BTS_OK)
		err = readers_measure(&readers, error);
	for (size_t i = 0; i < readers.count && err == BTS_OK; i++) {
		struct bts_reader_info info = readers_info(&readers, i);

		fn(arg, &info);
	}
	readers_fini(&readers);
	return err;
}

enum bts_err readers_pinned(
	struct bts *db, uint32_t *live, bts_txid *oldest, uint64_t *pinned, struct bts_error *error)
{
	struct readers readers;
	enum bts_err err = readers_init(&readers, db, error);

	if (err == BTS_OK)
		err = readers_measure(&readers, error);
	if (err == BTS_OK) {
		*live = (uint32_t)readers.count;
		*oldest = readers.count == 0 ? 0 : readers.seen[0].txid;
		*pinned = readers.pinned;
	}
	readers_fini(&readers);
	return err;
}

static bool readers_exceeds(const struct bts_options *limits, const struct bts_reader_info *info)
{
	return (limits->reader_pages_max != 0 && info->held_pages > limits->reader_pages_max) ||
	       (limits->reader_age_max_ms != 0 && info->age_ms > limits->reader_age_max_ms);
}

static void readers_judge(const struct readers *readers, size_t i)
{
	const struct bts_options *limits = &readers->db->limits;
	struct bts_reader_info info = readers_info(readers, i);

	if (info.expired || !readers_exceeds(limits, &info))
		return;
	if (limits->on_reader != NULL) {
		if (!shared_reader_tell(readers->db->shared, &readers->seen[i], READERS_TELL_MS) ||
			limits->on_reader(limits->on_reader_arg, &info) != BTS_READER_EXPIRE)
			return;
	}
	shared_reader_expire(readers->db->shared, &readers->seen[i]);
}

void readers_enforce(struct bts *db)
{
	struct readers readers;
	uint64_t next, now;

	if (db->limits.reader_pages_max == 0 && db->limits.reader_age_max_ms == 0)
		return;
	now = db->env->ops->tick_ms(db->env);
	next = atomic_load(&db->readers_next_ms);
	/* One thread at a time: the others see UINT64_MAX until it has finished. */
	if (now < next || !atomic_compare_exchange_strong(&db->readers_next_ms, &next, UINT64_MAX))
		return;
	/* What fails here is tried again at a later commit. */
	if (readers_init(&readers, db, NULL) == BTS_OK &&
		(db->limits.reader_pages_max == 0 || readers_measure(&readers, NULL) == BTS_OK))
		for (size_t i = 0; i < readers.count; i++)
			readers_judge(&readers, i);
	readers_fini(&readers);
	next = db->env->ops->tick_ms(db->env);
	now = (next - now) * READERS_SHARE;
	atomic_store(&db->readers_next_ms, next + (now > READERS_INTERVAL_MS ? now : READERS_INTERVAL_MS));
}
