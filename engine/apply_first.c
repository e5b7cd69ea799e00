/*
 * A first transfer: a frame from the empty state.  Nothing in the file is live and nobody reads it, so every page goes
 * home, and a frame that breaks off leaves what it brought where it is; the next one goes on from there (struct bts_partial;
 * diff_order.c says why a cursor is enough).
 *
 * What has come is a bit a page, what the closure reached another: a list of units, as other frames have it, would
 * be 48 bytes for each page of the database.  An edge is held against the page itself, which says its number, birth and kind, and whose
 * sum is computed anew.  A frame that came in one piece brings exactly what is reached.  After a resumption pages may
 * lie about that were freed meanwhile: what the final root does not reach is free.
 *
 * Every APPLY_FIRST_STEP the file is flushed and an envelope write notes the cursor in the slot, so that a crash costs no more
 * than that.  Pages below a noted cursor were durable before it was written; whatever they may have become since, nothing is
 * believed of them that the proof does not read and find right.
 */
#include "apply.h"

#include <inttypes.h>
#include <string.h>

#include "error.h"

static enum bts_err first_grow(struct bts_apply *apply, uint64_t **bits, uint64_t pages)
{
	struct apply_first *first = &apply->first;
	struct bts_env *env = apply->db->env;
	uint64_t words = first->words ? first->words : 1024;
	uint64_t *bigger;

	while (words * 64 < pages)
		words *= 2;
	bigger = env->ops->memory(env, *bits, words * sizeof(*bigger));
	if (!bigger)
		return error_set(&apply->error, BTS_MEMORY, 0, "no memory for a frame of %" PRIu64 " pages", pages);
	memset(bigger + first->words, 0, (words - first->words) * sizeof(*bigger));
	*bits = bigger;
	first->words = words;
	return BTS_OK;
}

/* Sets the bits of a run; false when one of them was set. */
static bool first_set(uint64_t *bits, uint64_t at, uint64_t count)
{
	bool fresh = true;

	while (count > 0) {
		uint64_t part = 64 - at % 64 < count ? 64 - at % 64 : count;
		uint64_t mask = (part == 64 ? UINT64_MAX : (UINT64_C(1) << part) - 1) << at % 64;

		fresh = fresh && !(bits[at / 64] & mask);
		bits[at / 64] |= mask;
		at += part;
		count -= part;
	}
	return fresh;
}

enum bts_err apply_first_unit(struct bts_apply *apply, const struct bts_page_id *id)
{
	struct apply_first *first = &apply->first;
	uint64_t at = id->pgno - apply->db->slot.record.first;
	enum bts_err err = BTS_OK;

	if (at + id->count > first->words * 64)
		err = first_grow(apply, &first->staged, at + id->count);
	if (err)
		return err;
	if (!first_set(first->staged, at, id->count) && !first->resumed)
		return apply_refuse_page(apply, id->pgno, "brought twice");
	first->unordered = first->unordered || id->pgno < first->next;
	return BTS_OK;
}

/* How far this frame came, after what was there when it began; see diff_order.c. */
static struct bts_partial first_come(const struct bts_apply *apply)
{
	const struct apply_first *first = &apply->first;
	const struct bts_partial *before = &first->before;
	struct bts_partial partial = {.position = apply->target, .cursor = first->next};

	if (first->unordered || !first->next || (before->older && first->next <= before->cursor))
		return *before;
	/* Of the same commit nothing below the cursor is missing: who sends it has made no way. */
	if (before->position.txid == apply->target.txid && first->next <= before->cursor)
		return *before;
	if (before->older && first->next < before->older_cursor) {
		partial.older = before->older;
		partial.older_cursor = before->older_cursor;
	} else if (!before->older && first->next < before->cursor) {
		partial.older = before->position.txid;
		partial.older_cursor = before->cursor;
	}
	return partial;
}

/* An envelope write: how far the transfer has come, durable.  build held. */
static enum bts_err first_write(struct bts *db, const struct bts_partial *partial, struct bts_error *error)
{
	struct recover_state *state = db->env->ops->memory(db->env, NULL, sizeof(*state));
	enum bts_err err;

	if (!state)
		return error_set(error, BTS_MEMORY, 0, "no memory for a meta page");
	memset(state, 0, sizeof(*state));
	state->slot = db->slot;
	state->slot.first = *partial;
	state->index = db->slot_index;
	err = recover_envelope(db->env, db->file, state, META_TWO_FLUSH, error);
	atomic_fetch_add(&db->flushes, 2);
	if (err) {
		err = db_poison(db, error, error->os, "noting how far a first transfer has come");
	} else {
		db->slot = state->slot;
		db->slot_index = state->index;
		shared_set_slot(db->shared, db->slot_index, db->slot.sequence);
		shared_publish(db->shared, &db->slot.record);
	}
	db->env->ops->memory(db->env, state, 0);
	return err;
}

static uint64_t first_step(const struct bts *db)
{
	return db->limits.transfer_step ? db->limits.transfer_step : APPLY_FIRST_STEP;
}

/* The disk begins with what has come while the rest does: the flush then finds little left to do. */
static void first_start(struct bts_apply *apply)
{
	uint32_t page_size = apply->db->slot.record.page_size;
	struct apply_first *first = &apply->first;

	if (first->next < first->started)
		first->started = first->next;
	if (!apply->db->env->ops->file_start || (first->next - first->started) * page_size < APPLY_FIRST_START)
		return;
	apply->db->env->ops->file_start(
		apply->db->file, first->started * page_size, (first->next - first->started) * page_size);
	first->started = first->next;
}

enum bts_err apply_first_unit_done(struct bts_apply *apply)
{
	struct apply_first *first = &apply->first;
	struct bts_partial partial;
	enum bts_err err;

	first->pages += apply->current.count;
	first->unnoted += (uint64_t)apply->current.count * apply->db->slot.record.page_size;
	first->next = apply->current.pgno + apply->current.count;
	first_start(apply);
	if (first->unnoted < first_step(apply->db) || first->unordered)
		return BTS_OK;
	first->unnoted = 0;
	partial = first_come(apply);
	err = apply_fault(apply, "apply.first.note");
	if (!err)
		err = apply_flush_home(apply);
	if (err)
		return err;
	pthread_mutex_lock(&apply->db->build);
	err = first_write(apply->db, &partial, &apply->error);
	pthread_mutex_unlock(&apply->db->build);
	return err;
}

/*
 * Free pages of the source between those that come would make of each run a write, a piece of the file and a request of the disk of
 * its own, which costs several times what their zeros do.  What a broken frame has left behind stands below its cursors.
 */
size_t apply_first_gap(const struct bts_apply *apply, uint64_t from, uint64_t to)
{
	const struct apply_first *first = &apply->first;
	bts_pgno kept = first->before.cursor > first->before.older_cursor ? first->before.cursor : first->before.older_cursor;

	if (!first->on || first->unordered || to <= from || to - from > APPLY_FIRST_GAP)
		return 0;
	return from / apply->db->slot.record.page_size < kept ? 0 : (size_t)(to - from);
}

void apply_first_keep(struct bts_apply *apply)
{
	struct bts *db = apply->db;
	struct bts_partial partial = first_come(apply);

	/* What is still in memory here is gone: the last units are, unless they can be written now. */
	if (apply_flush_home(apply))
		return;
	pthread_mutex_lock(&db->build);
	db->first = partial;
	pthread_mutex_unlock(&db->build);
}

void apply_first_forget(struct bts_apply *apply)
{
	struct bts *db = apply->db;
	const struct bts_partial none = {.cursor = 0};
	struct bts_error error = {0};

	pthread_mutex_lock(&db->build);
	db->first = none;
	/* When it can not be written, a resumption after a crash ends here once more. */
	if (db->slot.first.position.txid && !shared_poisoned(db->shared) && first_write(db, &none, &error))
		db->first = none;
	pthread_mutex_unlock(&db->build);
}

enum bts_err bts_apply_partial(struct bts *db, struct bts_partial *partial)
{
	enum bts_err err = BTS_NOT_FOUND;

	pthread_mutex_lock(&db->build);
	if (db->follower && !db->slot.record.txid && db->first.position.txid) {
		*partial = db->first;
		memcpy(partial->position.database, db->slot.record.database, 16);
		err = BTS_OK;
	}
	pthread_mutex_unlock(&db->build);
	return err;
}

enum bts_err apply_first_match(struct bts_apply *apply, const struct traverse_edge *edge, struct apply_unit **out)
{
	const struct commit_record *record = &apply->record;
	struct apply_first *first = &apply->first;
	bts_pgno pgno = edge->ptr.pgno;
	uint64_t at = pgno - record->first;

	if (pgno < record->first || pgno >= record->high_water || edge->pages > record->high_water - pgno)
		return apply_refuse_page(apply, pgno, "beyond the high-water mark");
	if (!first->resumed && (at >= first->words * 64 || !(first->staged[at / 64] >> at % 64 & 1)))
		return apply_refuse_page(apply, pgno, "missing");
	if (!first_set(first->reached, at, edge->pages))
		return apply_refuse_page(apply, pgno, "reached twice");
	if (edge->ptr.birth > edge->parent_birth)
		return apply_refuse_page(apply, pgno, "born after the page that points to it");
	first->unit = (struct apply_unit){.pgno = pgno, .birth = edge->ptr.birth, .crc = edge->ptr.crc,
		.count = (uint32_t)edge->pages, .kind = edge->kind};
	*out = &first->unit;
	return BTS_OK;
}

enum bts_err apply_first_prove(struct bts_apply *apply)
{
	uint64_t words = (apply->record.high_water - apply->record.first + 63) / 64 + 1;
	struct apply_first *first = &apply->first;
	struct bts_env *env = apply->db->env;

	/* What came behind the mark: the words below are compared in apply_first_reached. */
	if (words < first->words)
		words = first->words;
	first->reached = env->ops->memory(env, NULL, words * sizeof(*first->reached));
	if (!first->reached)
		return error_set(&apply->error, BTS_MEMORY, 0, "no memory for a frame");
	memset(first->reached, 0, words * sizeof(*first->reached));
	return BTS_OK;
}

enum bts_err apply_first_reached(struct bts_apply *apply)
{
	const struct apply_first *first = &apply->first;

	for (uint64_t i = 0; i < first->words && !first->resumed; i++) {
		uint64_t idle = first->staged[i] & ~first->reached[i];

		if (idle)
			return apply_refuse_page(apply,
				apply->record.first + i * 64 + (uint64_t)__builtin_ctzll(idle), "reached from no root");
	}
	return BTS_OK;
}

enum bts_err apply_first_live(struct bts_apply *apply, uint64_t *bits)
{
	uint64_t words = (apply->record.high_water - apply->record.first + 63) / 64;
	const uint64_t *reached = apply->first.reached;

	for (uint64_t i = 0; i < words; i++) {
		uint64_t held = reached[i] & ~bits[i];

		if (held)
			return apply_refuse_page(apply, apply->record.first + i * 64 + (uint64_t)__builtin_ctzll(held),
				"brought, but the state before is kept there");
		bits[i] &= ~reached[i];
	}
	return BTS_OK;
}

void apply_first_fini(struct bts_apply *apply)
{
	struct bts_env *env = apply->db->env;

	env->ops->memory(env, apply->first.staged, 0);
	env->ops->memory(env, apply->first.reached, 0);
}
