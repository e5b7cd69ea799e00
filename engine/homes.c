/* Bringing redirected pages home: see homes.h.  The crash cases are argued in DESIGN.md, section "Apply". */
#include "homes.h"

#include <inttypes.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "error.h"
#include "recover.h"

/* Pages that must be won before a log is written anew that is still needed. */
#define HOMES_WORTH 256u
/* What a log grows by between two merges after frames, unless the limit on it is less than eight times as much. */
#define HOMES_BATCH (UINT64_C(8) << 20)

struct homes_need {
	bts_pgno pgno;
	uint64_t count;
	bts_txid birth, freed;
};

struct homes {
	struct homes_need *needs;
	size_t count, cap;
	uint64_t *taken; /* a bit a page */
	bts_pgno pages;	 /* it has room for */
	uint32_t judged; /* records of the log when it was last looked through */
	uint64_t settled; /* its bytes then */
	bool pressed;    /* somebody was told to end since: look again */
	size_t readers;	 /* snapshots then */
};

static bool homes_bit(const uint64_t *bits, bts_pgno pgno)
{
	return bits[pgno / 64] >> pgno % 64 & 1;
}

static void homes_set(uint64_t *bits, bts_pgno pgno, uint64_t count)
{
	for (bts_pgno p = pgno; p < pgno + count; p++)
		bits[p / 64] |= UINT64_C(1) << p % 64;
}

bool homes_taken(const struct bts *db, bts_pgno pgno)
{
	const struct homes *homes = db->homes;

	return homes && pgno < homes->pages && homes_bit(homes->taken, pgno);
}

void homes_fini(struct bts *db)
{
	struct homes *homes = db->homes;

	if (!homes)
		return;
	db->env->ops->memory(db->env, homes->needs, 0);
	db->env->ops->memory(db->env, homes->taken, 0);
	db->env->ops->memory(db->env, homes, 0);
	db->homes = NULL;
}

/* Room for so many more needs, and a bit for each page below `pages`. */
static enum bts_err homes_room(struct bts *db, size_t needs, bts_pgno pages, struct bts_error *error)
{
	struct bts_env *env = db->env;
	struct homes *homes = db->homes;
	size_t cap;

	if (!homes) {
		homes = env->ops->memory(env, NULL, sizeof(*homes));
		if (!homes)
			goto none;
		memset(homes, 0, sizeof(*homes));
		db->homes = homes;
	}
	cap = homes->cap ? homes->cap : 64;
	while (cap < homes->count + needs)
		cap *= 2;
	if (cap > homes->cap) {
		struct homes_need *bigger = env->ops->memory(env, homes->needs, cap * sizeof(*bigger));

		if (!bigger)
			goto none;
		homes->needs = bigger;
		homes->cap = cap;
	}
	pages = (pages + 63) / 64 * 64;
	if (pages > homes->pages) {
		uint64_t *bigger = env->ops->memory(env, homes->taken, pages / 8);

		if (!bigger)
			goto none;
		memset((uint8_t *)bigger + homes->pages / 8, 0, (pages - homes->pages) / 8);
		homes->taken = bigger;
		homes->pages = pages;
	}
	return BTS_OK;
none:
	return error_set(error, BTS_MEMORY, 0, "no memory for pages that are not home");
}

enum bts_err homes_reserve(struct bts_apply *apply)
{
	bts_pgno pages = apply->record.high_water;

	if (!apply->redirected)
		return BTS_OK;
	if (apply->db->space.high_water > pages)
		pages = apply->db->space.high_water;
	return homes_room(apply->db, apply->need_count, pages, &apply->error);
}

void homes_enter(struct bts_apply *apply)
{
	struct homes *homes = apply->db->homes;

	if (!apply->redirected)
		return;
	for (size_t i = 0; i < apply->need_count; i++) {
		const struct apply_need *need = &apply->needs[i];

		homes->needs[homes->count++] = (struct homes_need){need->pgno, need->count, need->birth, need->freed};
	}
	for (size_t i = 0; i < apply->unit_count; i++)
		if (apply->units[i].where)
			homes_set(homes->taken, apply->units[i].pgno, apply->units[i].count);
}

enum bts_err homes_inherit(struct bts *db, struct redirect *table, struct bts_error *error)
{
	bts_pgno pages = 0;
	enum bts_err err;

	for (uint32_t i = 0; i < db->log.count; i++) {
		const struct pending_entry *record = redirect_entry(table, i);

		if (pages < record->pgno + record->count)
			pages = record->pgno + record->count;
	}
	err = homes_room(db, 0, pages, error);
	for (uint32_t i = 0; i < db->log.count && !err; i++) {
		const struct pending_entry *record = redirect_entry(table, i);
		struct homes *homes = db->homes;

		err = homes_room(db, record->count, 0, error);
		for (bts_pgno p = record->pgno; p < record->pgno + record->count && !err; p++) {
			if (homes_bit(homes->taken, p))
				continue;
			homes->needs[homes->count++] = (struct homes_need){p, 1, 0, record->birth};
			homes_set(homes->taken, p, 1);
		}
	}
	return err;
}

/* The oldest of the ascending snapshots in [birth, freed); 0: none (a reader of transaction 0 sees no page). */
static bts_txid homes_needed_by(const struct homes_need *need, const bts_txid *snapshots, size_t count)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (snapshots[middle] >= need->birth)
			high = middle;
		else
			low = middle + 1;
	}
	return low < count && snapshots[low] < need->freed ? snapshots[low] : 0;
}

/* Needs that nobody has any more are forgotten. */
static size_t homes_look(struct bts *db)
{
	struct homes *homes = db->homes;
	size_t readers = SABOTAGE(FAULT_R6_MERGE_READ) ? 0 : db_snapshots(db), kept = 0;

	for (size_t i = 0; i < homes->count; i++)
		if (homes_needed_by(&homes->needs[i], db->snapshots, readers))
			homes->needs[kept++] = homes->needs[i];
	homes->count = kept;
	return readers;
}

bool homes_press(struct bts *db)
{
	struct homes *homes = db->homes;
	uint64_t limit = db->limits.pending_limit;
	struct shared_reader_seen *seen;
	bts_txid oldest = 0;
	size_t readers, cap;

	if (!homes || !db->log.file || db->log.kept_size <= limit)
		return false;
	readers = homes_look(db);
	for (size_t i = 0; i < homes->count; i++) {
		bts_txid by = homes_needed_by(&homes->needs[i], db->snapshots, readers);

		if (!oldest || by < oldest)
			oldest = by;
	}
	cap = shared_reader_slots(db->shared);
	seen = oldest ? db->env->ops->memory(db->env, NULL, cap * sizeof(*seen)) : NULL;
	readers = seen ? shared_readers_seen(db->shared, seen, cap) : 0;
	for (size_t i = 0; i < readers; i++) {
		if (seen[i].txid != oldest || seen[i].expired)
			continue;
		shared_reader_expire(db->shared, &seen[i]);
		atomic_fetch_add(&db->pending_expired, 1);
	}
	db->env->ops->memory(db->env, seen, 0);
	homes->pressed = true;
	return oldest != 0;
}

/* What becomes of each record, and how many pages each way takes. */
enum homes_fate { HOMES_DEAD, HOMES_HOME, HOMES_STAYS, HOMES_FATES };
struct homes_plan {
	uint8_t *fate;
	uint64_t pages[HOMES_FATES];
};

static bool homes_any(const uint64_t *bits, const struct pending_entry *record)
{
	for (bts_pgno p = record->pgno; p < record->pgno + record->count; p++)
		if (homes_bit(bits, p))
			return true;
	return false;
}

/* From the newest record back: one that a later one overlaps is dead, and so is one whose pages are free by now. */
static enum bts_err homes_plan(struct bts *db, struct redirect *table, struct homes_plan *plan, struct bts_error *error)
{
	struct homes *homes = db->homes;
	struct bts_env *env = db->env;
	uint64_t *needed = env->ops->memory(env, NULL, homes->pages / 8 + 8), *covered;

	covered = env->ops->memory(env, NULL, homes->pages / 8 + 8);
	plan->fate = env->ops->memory(env, NULL, db->log.count + 1);
	if (!needed || !covered || !plan->fate) {
		env->ops->memory(env, needed, 0);
		env->ops->memory(env, covered, 0);
		return error_set(error, BTS_MEMORY, 0, "no memory to bring pages home");
	}
	memset(needed, 0, homes->pages / 8 + 8);
	memset(covered, 0, homes->pages / 8 + 8);
	for (size_t i = 0; i < homes->count; i++)
		homes_set(needed, homes->needs[i].pgno, homes->needs[i].count);
	for (uint32_t i = db->log.count; i-- > 0;) {
		const struct pending_entry *record = redirect_entry(table, i);
		bool live = !homes_any(covered, record) &&
			    space_is_live(&db->space, (struct space_run){record->pgno, record->count});

		plan->fate[i] = !live ? HOMES_DEAD : homes_any(needed, record) ? HOMES_STAYS : HOMES_HOME;
		plan->pages[plan->fate[i]] += record->count;
		homes_set(covered, record->pgno, record->count);
	}
	env->ops->memory(env, needed, 0);
	env->ops->memory(env, covered, 0);
	return BTS_OK;
}

static enum bts_err homes_fault(struct bts *db, const char *point, struct bts_error *error)
{
	int os = db->env->ops->fault(db->env, point);

	return os ? error_os(error, os, "failed on purpose at %s", point) : BTS_OK;
}

/* A record as it was written? */
static enum bts_err homes_verify(
	struct bts *db, struct redirect *table, uint32_t ordinal, const struct pending_entry *record, struct bts_error *error)
{
	const uint8_t *pages = redirect_bytes(table, record);
	size_t size = record->count * (size_t)db->slot.record.page_size;

	if (crc32c(0, pages - PENDING_RECORD, PENDING_RECORD + size) == bytes_get_u32(pages + size))
		return BTS_OK;
	return error_set(error, BTS_CORRUPT, 0, "%s.pending: record %" PRIu32 " at offset %" PRIu64 " (page %" PRIu64
		"): checksum mismatch", db->path, ordinal, record->where - PENDING_RECORD, record->pgno);
}

static enum bts_err homes_copy(
	struct bts *db, struct redirect *table, const struct pending_entry *record, struct bts_error *error)
{
	uint32_t page_size = db->slot.record.page_size;
	struct iovec iov = {(void *)(uintptr_t)redirect_bytes(table, record), record->count * (size_t)page_size};
	int os = db->env->ops->file_pwritev(db->file, &iov, 1, record->pgno * page_size);

	return os ? error_os(error, os, "cannot write pages of %s home", db->path) : BTS_OK;
}

static enum bts_err homes_append(struct bts *db, struct redirect *table, const struct pending_entry *record,
	struct pending_log *log, struct bts_error *error)
{
	size_t size = record->count * (size_t)db->slot.record.page_size;
	uint8_t head[PENDING_RECORD], tail[PENDING_TRAILER] = {0};
	struct iovec iov[3] = {{head, sizeof(head)}, {(void *)(uintptr_t)redirect_bytes(table, record), size}, {tail, sizeof(tail)}};
	int os;

	pending_record_encode(log->salt, log->count, record, head);
	bytes_put_u32(tail, crc32c(crc32c(0, head, sizeof(head)), iov[1].iov_base, size));
	os = db->env->ops->file_pwritev(log->file, iov, 3, log->size);
	if (os)
		return error_os(error, os, "cannot write %s.pending anew", db->path);
	log->size += pending_record_bytes(record, db->slot.record.page_size);
	log->count++;
	return BTS_OK;
}

/* What stays, in a log of its own, durable; nothing names it yet. */
static enum bts_err homes_new_log(
	struct bts *db, struct redirect *table, const struct homes_plan *plan, struct pending_log *log, struct bts_error *error)
{
	enum bts_err err;
	char *path = NULL;
	int os = 0;

	if (!plan->pages[HOMES_STAYS])
		return BTS_OK;
	err = pending_create(db, log, error);
	for (uint32_t i = 0; i < db->log.count && !err; i++)
		if (plan->fate[i] == HOMES_STAYS)
			err = homes_append(db, table, redirect_entry(table, i), log, error);
	if (!err)
		err = pending_path(db, log->name, &path, error);
	if (!err)
		os = db->env->ops->file_sync(log->file);
	if (!err && !os && log->unnamed)
		os = db->env->ops->path_sync_dir(db->env, path);
	db->env->ops->memory(db->env, path, 0);
	log->unnamed = false;
	log->kept_size = log->size;
	log->kept_count = log->count;
	return os ? error_os(error, os, "cannot flush the new log of %s", db->path) : err;
}

static enum bts_err homes_write(struct bts *db, struct redirect *table, const struct homes_plan *plan, struct bts_error *error)
{
	enum bts_err err = homes_fault(db, "apply.copy", error);

	for (uint32_t i = 0; i < db->log.count && !err; i++)
		if (plan->fate[i] != HOMES_DEAD)
			err = homes_verify(db, table, i, redirect_entry(table, i), error);
	for (uint32_t i = 0; i < db->log.count && !err; i++)
		if (plan->fate[i] == HOMES_HOME)
			err = homes_copy(db, table, redirect_entry(table, i), error);
	return err ? err : homes_fault(db, "apply.checkpoint", error);
}

/* What is at home now is taken no more, nor what is dead and needed by nobody. */
static void homes_untake(struct bts *db, struct redirect *table, const struct homes_plan *plan, uint32_t records)
{
	struct homes *homes = db->homes;

	memset(homes->taken, 0, homes->pages / 8);
	for (uint32_t i = 0; i < records; i++)
		if (plan->fate[i] == HOMES_STAYS)
			homes_set(homes->taken, redirect_entry(table, i)->pgno, redirect_entry(table, i)->count);
	for (size_t i = 0; i < homes->count; i++)
		homes_set(homes->taken, homes->needs[i].pgno, homes->needs[i].count);
}

/* The slot that needs the new log, or none; then that is published, and the old one loses its name. */
static enum bts_err homes_switch(struct bts *db, struct recover_state *state, struct pending_log *log, struct bts_error *error)
{
	struct pending_log old = db->log;
	enum bts_err err;

	memset(state, 0, sizeof(*state));
	state->slot = db->slot;
	state->slot.pending_count = log->count;
	state->slot.pending_salt = log->salt;
	state->slot.pending_log = log->count != 0;
	state->index = db->slot_index;
	err = recover_envelope(db->env, db->file, state, META_TWO_FLUSH, error);
	if (err)
		return db_poison(db, error, error ? error->os : 0, "bringing the pages of a frame home");
	atomic_fetch_add(&db->flushes, 2);
	db->slot = state->slot;
	db->slot_index = state->index;
	db->log = *log;
	shared_set_pending(db->shared, log->salt, log->count);
	shared_set_slot(db->shared, db->slot_index, db->slot.sequence);
	shared_publish(db->shared, &db->slot.record);
	/* Left behind, it is removed when its name is wanted, or at the next open: no slot names its salt. */
	if (homes_fault(db, "apply.truncate", NULL))
		db->env->ops->file_close(old.file);
	else if (log->count) /* readers are there who may need it for long */
		pending_remove(db, &old);
	else
		pending_retire(db, &old);
	return BTS_OK;
}

static enum bts_err homes_bring(
	struct bts *db, struct redirect *table, const struct homes_plan *plan, struct bts_error *error)
{
	struct recover_state *state = db->env->ops->memory(db->env, NULL, sizeof(*state));
	struct pending_log log = {.file = NULL};
	uint32_t records = db->log.count;
	enum bts_err err;

	if (!state)
		return error_set(error, BTS_MEMORY, 0, "no memory to bring pages home");
	err = homes_new_log(db, table, plan, &log, error);
	if (!err)
		err = homes_write(db, table, plan, error);
	if (err)
		pending_remove(db, &log);
	else
		err = homes_switch(db, state, &log, error);
	if (!err)
		homes_untake(db, table, plan, records);
	db->env->ops->memory(db->env, state, 0);
	return err;
}

/* Has anything changed that makes it worth to look through the log? */
static bool homes_due(const struct bts *db, size_t readers)
{
	const struct homes *homes = db->homes;

	return db->log.count <= 16 * HOMES_WORTH || readers != homes->readers || homes->pressed ||
	       db->log.count - homes->judged >= homes->judged / 8;
}

/* Has the log grown by a batch since it was looked through, or beyond its limit? */
static bool homes_full(const struct bts *db)
{
	uint64_t limit = db->limits.pending_limit, batch = limit / 8 < HOMES_BATCH ? limit / 8 : HOMES_BATCH;
	const struct pending_log *log = &db->log;

	return log->kept_size > limit || log->kept_size >= db->homes->settled + batch;
}

static void homes_figures(struct bts *db, const struct homes_plan *plan)
{
	uint64_t pages = plan->pages[HOMES_STAYS] + (db->log.file ? plan->pages[HOMES_HOME] : 0);

	atomic_store(&db->pending_pages, db->log.file ? pages : 0);
	atomic_store(&db->pending_bytes, db->log.file ? db->log.kept_size : 0);
}

enum bts_err homes_merge(struct bts *db, enum homes_when when, struct bts_error *error)
{
	struct homes *homes = db->homes;
	struct homes_plan plan = {NULL, {0}};
	struct redirect *table = NULL;
	struct bts_error why = {0};
	uint64_t won;
	size_t readers;
	enum bts_err err;

	if (!homes || (when == HOMES_FRAME && db->log.file && !homes->pressed && !homes_full(db)))
		return BTS_OK;
	readers = homes_look(db);
	if (!db->log.file) {
		homes_untake(db, NULL, NULL, 0);
		if (!homes->count)
			homes_fini(db);
		return BTS_OK;
	}
	if (when != HOMES_ALL && !homes_due(db, readers))
		return BTS_OK;
	homes->judged = db->log.count;
	homes->readers = readers;
	homes->pressed = false;
	err = redirect_open(db, db->log.salt, db->log.count, &table, &why);
	if (!err)
		err = homes_plan(db, table, &plan, &why);
	won = plan.pages[HOMES_DEAD] + plan.pages[HOMES_HOME];
	if (!err && won > 0 &&
		(when == HOMES_ALL || !plan.pages[HOMES_STAYS] || (won >= plan.pages[HOMES_STAYS] && won >= HOMES_WORTH)))
		err = homes_bring(db, table, &plan, &why);
	if (!err)
		homes_figures(db, &plan);
	homes->settled = db->log.kept_size;
	redirect_drop(db, table);
	db->env->ops->memory(db->env, plan.fate, 0);
	if (err != BTS_CORRUPT && !shared_poisoned(db->shared))
		return BTS_OK;
	return err ? error_set(error, err, why.os, "%s", why.text) : BTS_OK;
}
