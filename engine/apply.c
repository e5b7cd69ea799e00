/*
 * Receiving a frame on a follower: bts_apply_* (ship.h).
 *
 * While it is received a unit goes home at once when all of its pages are free for good: ready in the
 * allocator (no root that can still be read needs them) or at or above the high-water mark.  Any other unit
 * goes to path.pending as a whole (R2).  Nothing of this is part of the state: whatever stops the frame
 * before the slot is written leaves the file as it was, but for the content of free pages.
 */
#include "apply.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "error.h"
#include "homes.h"
#include "role.h"

enum bts_err apply_grow(struct bts_apply *apply, void **array, size_t count, size_t *cap, size_t element)
{
	struct bts_env *env = apply->db->env;
	size_t wanted = *cap ? *cap * 2 : 64;
	void *bigger;

	if (count < *cap)
		return BTS_OK;
	bigger = env->ops->memory(env, *array, wanted * element);
	if (!bigger)
		return error_set(
			&apply->error, BTS_MEMORY, 0, "no memory for a frame of more than %zu units", count);
	*array = bigger;
	*cap = wanted;
	return BTS_OK;
}

enum bts_err apply_fault(struct bts_apply *apply, const char *point)
{
	int os = apply->db->env->ops->fault(apply->db->env, point);

	return os ? error_os(&apply->error, os, "failed on purpose at %s", point) : BTS_OK;
}

enum bts_err apply_map_log(struct bts_apply *apply)
{
	struct pending_log *log = &apply->db->log;
	int os = apply->db->env->ops->file_map(log->file, log->size, &apply->log_map);

	if (os) {
		apply->log_map = NULL;
		return error_os(&apply->error, os, "cannot map %s.pending", apply->db->path);
	}
	apply->log_bytes = log->size;
	return BTS_OK;
}

void apply_unmap_log(struct bts_apply *apply)
{
	struct bts *db = apply->db;

	if (apply->log_map)
		db->env->ops->file_unmap(db->log.file, apply->log_map, apply->log_bytes);
	apply->log_map = NULL;
}

static void apply_free(struct bts_apply *apply)
{
	struct bts *db = apply->db;
	struct bts_env *env = db->env;

	apply_fetch_free(apply);
	apply_unmap_log(apply);
	if (!apply->committed) {
		pthread_mutex_lock(&db->build);
		pending_forget(db);
		pthread_mutex_unlock(&db->build);
	}
	redirect_drop(db, apply->redirect);
	apply_first_fini(apply);
	if (apply->space_there)
		space_fini(&apply->space);
	env->ops->memory(env, apply->units, 0);
	env->ops->memory(env, apply->kept, 0);
	env->ops->memory(env, apply->released, 0);
	env->ops->memory(env, apply->needs, 0);
	env->ops->memory(env, apply->sums, 0);
	snapshot_list_fini(&apply->named_before);
	snapshot_list_fini(&apply->named);
	snapshot_list_fini(&apply->named_kept);
	env->ops->memory(env, apply->home.bytes, 0);
	env->ops->memory(env, apply->log.bytes, 0);
	env->ops->memory(env, apply, 0);
}

static enum bts_err apply_check_positions(struct bts *db, const struct bts_position *base,
	const struct bts_position *target, struct bts_error *error)
{
	const struct commit_record *now = &db->slot.record;

	if (memcmp(target->database, now->database, 16) || memcmp(base->database, now->database, 16))
		return error_set(
			error, BTS_DIVERGED, 0, "the frame is of another database than %s", db->path);
	if (base->txid != now->txid ||
		(now->txid && (base->epoch != now->epoch || base->epoch_random != now->epoch_random ||
				      memcmp(base->chain, now->chain, 16))))
		return error_set(error, BTS_DIVERGED, 0,
			"the frame begins at transaction %" PRIu64 " of epoch %" PRIu32
			", %s stands at %" PRIu64 " of epoch %" PRIu32,
			base->txid, base->epoch, db->path, now->txid, now->epoch);
	if (target->txid <= now->txid || target->txid >= LAYOUT_TXID_LIMIT || target->epoch < now->epoch ||
		(target->epoch == now->epoch && target->epoch_random != now->epoch_random))
		return error_set(error, BTS_DIVERGED, 0,
			"the frame leads to transaction %" PRIu64 " of epoch %" PRIu32
			", which does not follow %" PRIu64 " of epoch %" PRIu32,
			target->txid, target->epoch, now->txid, now->epoch);
	return BTS_OK;
}

/* A graft leads anywhere but back: numbers rise in a file, and epochs never fall (R3). */
static enum bts_err apply_check_graft(
	struct bts *db, const struct bts_position *target, struct bts_error *error)
{
	const struct commit_record *now = &db->slot.record;

	if (memcmp(target->database, now->database, 16))
		return error_set(error, BTS_DIVERGED, 0, "the source is of another database than %s", db->path);
	if (target->txid <= now->txid || target->txid >= LAYOUT_TXID_LIMIT || target->epoch < now->epoch)
		return error_set(error, BTS_DIVERGED, 0,
			"the source is at transaction %" PRIu64 " of epoch %" PRIu32
			", %s at %" PRIu64 " of epoch %" PRIu32 ": nothing is taken back by number",
			target->txid, target->epoch, db->path, now->txid, now->epoch);
	return BTS_OK;
}

static enum bts_err apply_new(struct bts *db, struct bts_apply **out, struct bts_error *error)
{
	struct bts_env *env = db->env;
	struct bts_apply *apply = env->ops->memory(env, NULL, sizeof(*apply));
	struct bts_file_identity identity;
	int os;

	if (!apply)
		return error_set(error, BTS_MEMORY, 0, "no memory for a frame");
	memset(apply, 0, sizeof(*apply));
	apply->db = db;
	apply->home.file = db->file;
	apply->home.bytes = env->ops->memory(env, NULL, APPLY_SINK_BYTES);
	apply->log.bytes = env->ops->memory(env, NULL, APPLY_SINK_BYTES);
	os = env->ops->file_identity(db->file, &identity);
	if (os || !apply->home.bytes || !apply->log.bytes) {
		apply_free(apply);
		return os ? error_os(error, os, "cannot stat %s", db->path)
			  : error_set(error, BTS_MEMORY, 0, "no memory for a frame");
	}
	apply->file_bytes = identity.size;
	*out = apply;
	return BTS_OK;
}

void apply_trim(struct bts *db)
{
	struct space *space = &db->space;
	uint64_t behind = space->high_water - db->slot.record.high_water;

	db_reclaim(db);
	space_lower(space, space->high_water - space_tail(space, behind));
}

static enum bts_err apply_enter(struct bts *db, const struct bts_position *base,
	const struct bts_position *target, struct bts_error *error)
{
	enum bts_err err = db_may_write(db, error);

	if (err)
		return err;
	if (!db->follower)
		return error_set(
			error, BTS_INVALID, 0, "%s is a primary's file, which takes no frames", db->path);
	if (db->applying)
		return error_set(error, BTS_BUSY, 0, "%s: another frame is being applied", db->path);
	err = base ? apply_check_positions(db, base, target, error) : apply_check_graft(db, target, error);
	if (!err)
		err = role_admits(db, target, error);
	if (err)
		return err;
	apply_trim(db);
	db->applying = true;
	return BTS_OK;
}

static void apply_leave(struct bts *db)
{
	pthread_mutex_lock(&db->build);
	db->applying = false;
	pthread_mutex_unlock(&db->build);
}

enum bts_err apply_start(struct bts *db, const struct bts_position *base, const struct bts_position *target,
	struct bts_apply **out, struct bts_error *error)
{
	struct bts_apply *apply = NULL;
	enum bts_err err;

	pthread_mutex_lock(&db->build);
	err = apply_enter(db, base, target, error);
	pthread_mutex_unlock(&db->build);
	if (err)
		return err;
	err = apply_new(db, &apply, error);
	if (err) {
		apply_leave(db);
		return err;
	}
	if (base)
		apply->base = *base;
	else
		meta_position(&db->slot.record, &apply->base);
	apply->target = *target;
	err = redirect_open(db, db->log.salt, db->log.kept_count, &apply->redirect, error);
	if (err) {
		apply_free(apply);
		apply_leave(db);
		return err == BTS_NOT_FOUND ? error_set(error, BTS_CORRUPT, 0, "%s.pending is gone", db->path) : err;
	}
	apply->first.on = base && base->txid == 0;
	*out = apply;
	return BTS_OK;
}

enum bts_err bts_apply_begin(struct bts *db, const struct bts_position *base, const struct bts_position *target,
	struct bts_apply **out, struct bts_error *error)
{
	return apply_start(db, base, target, out, error);
}

enum bts_err bts_apply_resume(struct bts *db, const struct bts_partial *partial, const struct bts_position *target,
	struct bts_apply **out, struct bts_error *error)
{
	struct bts_position base = {.txid = 0};
	enum bts_err err;

	memcpy(base.database, target->database, sizeof(base.database));
	if (!partial->position.txid || target->txid < partial->position.txid)
		return error_set(error, BTS_INVALID, 0,
			"a frame to transaction %" PRIu64 " cannot go on from one of %" PRIu64, target->txid,
			partial->position.txid);
	err = apply_start(db, &base, target, out, error);
	if (err)
		return err;
	(*out)->first.resumed = true;
	(*out)->first.before = *partial;
	return BTS_OK;
}

static enum bts_err apply_write(
	struct bts_apply *apply, struct apply_sink *sink, const void *data, size_t size, uint64_t offset)
{
	struct iovec iov = {(void *)(uintptr_t)data, size};
	int os = apply->db->env->ops->file_pwritev(sink->file, &iov, 1, offset);

	if (os)
		return error_os(&apply->error, os, "cannot write pages of a frame to %s%s", apply->db->path,
			sink == &apply->log ? ".pending" : "");
	return BTS_OK;
}

static enum bts_err apply_sink_flush(struct bts_apply *apply, struct apply_sink *sink)
{
	size_t size = sink->used;

	sink->used = 0;
	return size ? apply_write(apply, sink, sink->bytes, size, sink->offset) : BTS_OK;
}

enum bts_err apply_flush_home(struct bts_apply *apply)
{
	return apply_sink_flush(apply, &apply->home);
}

static enum bts_err apply_sink_put(
	struct bts_apply *apply, struct apply_sink *sink, const void *data, size_t size, uint64_t offset)
{
	size_t gap = sink == &apply->home && sink->used ? apply_first_gap(apply, sink->offset + sink->used, offset) : 0;
	enum bts_err err;

	if (gap && gap + size <= APPLY_SINK_BYTES - sink->used) {
		memset(sink->bytes + sink->used, 0, gap);
		sink->used += gap;
	}
	if (sink->used && (offset != sink->offset + sink->used || size > APPLY_SINK_BYTES - sink->used)) {
		err = apply_sink_flush(apply, sink);
		if (err)
			return err;
	}
	if (size > APPLY_SINK_BYTES)
		return apply_write(apply, sink, data, size, offset);
	if (!sink->used)
		sink->offset = offset;
	memcpy(sink->bytes + sink->used, data, size);
	sink->used += size;
	return BTS_OK;
}

static enum bts_err apply_log_put(struct bts_apply *apply, const void *data, size_t size)
{
	enum bts_err err = apply_sink_put(apply, &apply->log, data, size, apply->db->log.size);

	apply->log_crc = crc32c(apply->log_crc, data, size);
	apply->db->log.size += size;
	return err;
}

static enum bts_err apply_refuse(struct bts_apply *apply, const struct bts_page_id *id, const char *what)
{
	return error_set(&apply->error, BTS_CORRUPT, 0,
		"frame refused: page %" PRIu64 " (%" PRIu32 " pages): %s", id->pgno, id->count, what);
}

static const char *apply_check_id(const struct bts_apply *apply, const struct bts_page_id *id)
{
	const struct pager *pager = &apply->db->pager;
	bts_pgno limit = pager->map_bytes >> pager->page_shift;

	if (id->kind != BTS_KIND_NODE && id->kind != BTS_KIND_EXTENT && id->kind != BTS_KIND_FREE_LOG)
		return "of no known kind";
	if (id->count < 1 || (id->kind != BTS_KIND_EXTENT && id->count != 1))
		return "an impossible count";
	if (id->pgno < apply->db->slot.record.first || id->pgno >= limit || id->count > limit - id->pgno)
		return "outside what can be mapped";
	if ((!apply->fetch && id->birth <= apply->base.txid) || id->birth > apply->target.txid)
		return "born outside the frame";
	return NULL;
}

static bool apply_goes_home(const struct bts_apply *apply, const struct bts_page_id *id)
{
	const struct space *space = &apply->db->space;

	for (bts_pgno p = id->pgno; p < id->pgno + id->count && !SABOTAGE(FAULT_R2_HOME); p++)
		if (homes_taken(apply->db, p) || (p < space->high_water && !space_is_ready(space, p)))
			return false;
	return true;
}

/* The first redirected unit makes the file. */
static enum bts_err apply_open_record(struct bts_apply *apply, const struct bts_page_id *id, uint64_t *where)
{
	struct pending_entry entry = {
		.pgno = id->pgno,
		.birth = id->birth,
		.txid = apply->target.txid,
		.crc = id->crc,
		.count = id->count,
		.kind = id->kind,
	};
	struct pending_log *log = &apply->db->log;
	uint8_t record[PENDING_RECORD];
	enum bts_err err;

	if (!apply->redirected) {
		err = apply_make_room(apply);
		if (err)
			return err;
	}
	if (!log->file) {
		pthread_mutex_lock(&apply->db->build);
		err = pending_create(apply->db, log, &apply->error);
		pthread_mutex_unlock(&apply->db->build);
		if (err)
			return err;
	}
	apply->log.file = log->file;
	if (log->count == UINT32_MAX)
		return apply_refuse(apply, id, "too many units for path.pending");
	pending_record_encode(log->salt, log->count, &entry, record);
	apply->log_crc = 0;
	err = apply_log_put(apply, record, sizeof(record));
	*where = log->size;
	log->count++;
	apply->redirected += id->count;
	return err;
}

static enum bts_err apply_open_unit(struct bts_apply *apply, const struct bts_page_id *id)
{
	const char *wrong = apply_check_id(apply, id);
	struct apply_unit *unit;
	uint64_t where = 0;
	enum bts_err err;

	if (wrong)
		return apply_refuse(apply, id, wrong);
	apply->current = *id;
	if (apply->first.on)
		return apply_first_unit(apply, id);
	if (apply->unit_count == APPLY_UNITS_MAX)
		return error_set(&apply->error, BTS_LIMIT, 0, "a frame of more than %" PRIu64 " units",
			APPLY_UNITS_MAX);
	err = apply_grow(
		apply, (void **)&apply->units, apply->unit_count, &apply->unit_cap, sizeof(*apply->units));
	if (!err && apply->fetch)
		err = apply_fetch_take(apply, id, apply->unit_count);
	if (!err && !apply_goes_home(apply, id))
		err = apply_open_record(apply, id, &where);
	if (err)
		return err;
	unit = &apply->units[apply->unit_count++];
	*unit = (struct apply_unit){
		.pgno = id->pgno,
		.birth = id->birth,
		.where = where,
		.crc = id->crc,
		.count = id->count,
		.kind = id->kind,
	};
	return BTS_OK;
}

/* Of the unit in progress: it goes to path.pending. */
static bool apply_is_redirected(const struct bts_apply *apply)
{
	return !apply->first.on && apply->units[apply->unit_count - 1].where;
}

static enum bts_err apply_close_unit(struct bts_apply *apply)
{
	uint8_t tail[PENDING_TRAILER] = {0};

	apply->taken = 0;
	if (apply->first.on)
		return apply_first_unit_done(apply);
	if (!apply_is_redirected(apply))
		return BTS_OK;
	bytes_put_u32(tail, apply->log_crc);
	return apply_log_put(apply, tail, sizeof(tail));
}

static bool apply_same_id(const struct bts_page_id *a, const struct bts_page_id *b)
{
	return a->pgno == b->pgno && a->birth == b->birth && a->crc == b->crc && a->count == b->count &&
	       a->kind == b->kind;
}

static enum bts_err apply_take(
	struct bts_apply *apply, const struct bts_page_id *id, uint32_t first, struct bts_slice bytes);

/* A unit that was cut off half-way is asked for again from its beginning: what came before is passed over. */
static enum bts_err apply_take_rest(
	struct bts_apply *apply, const struct bts_page_id *id, uint32_t first, struct bts_slice bytes)
{
	uint64_t known = (uint64_t)(apply->taken - first) * apply->db->slot.record.page_size;

	if (bytes.size <= known)
		return BTS_OK;
	return apply_take(apply, id, apply->taken,
		(struct bts_slice){(const uint8_t *)bytes.data + known, bytes.size - known});
}

static enum bts_err apply_take(
	struct bts_apply *apply, const struct bts_page_id *id, uint32_t first, struct bts_slice bytes)
{
	uint32_t page_size = apply->db->slot.record.page_size;
	uint64_t pages = bytes.size / page_size;
	enum bts_err err;

	if (apply->fetch && apply->taken && first < apply->taken && apply_same_id(id, &apply->current))
		return apply_take_rest(apply, id, first, bytes);
	if (apply->taken ? !apply_same_id(id, &apply->current) || first != apply->taken : first != 0)
		return apply_refuse(apply, id, "a piece out of order");
	if (pages < 1 || bytes.size % page_size || pages > id->count - first)
		return apply_refuse(apply, id, "a piece of a wrong size");
	if (!apply->taken) {
		err = apply_fault(apply, "apply.unit");
		if (!err)
			err = apply_open_unit(apply, id);
		if (err)
			return err;
	}
	if (apply_is_redirected(apply))
		err = apply_log_put(apply, bytes.data, bytes.size);
	else
		err = apply_sink_put(
			apply, &apply->home, bytes.data, bytes.size, (id->pgno + first) * page_size);
	if (err)
		return err;
	apply->taken = first + (uint32_t)pages;
	return apply->taken == id->count ? apply_close_unit(apply) : BTS_OK;
}

enum bts_err apply_report(const struct bts_apply *apply, enum bts_err err, struct bts_error *error)
{
	return error_set(error, err, apply->error.os, "%s", apply->error.text);
}

enum bts_err bts_apply_piece(struct bts_apply *apply, const struct bts_page_id *id, uint32_t first,
	struct bts_slice bytes, struct bts_error *error)
{
	if (!apply->failed)
		apply->failed = apply_take(apply, id, first, bytes);
	return apply->failed ? apply_report(apply, apply->failed, error) : BTS_OK;
}

enum bts_err apply_settle(struct bts_apply *apply)
{
	enum bts_err err = apply_sink_flush(apply, &apply->home);

	return err ? err : apply_sink_flush(apply, &apply->log);
}

static enum bts_err apply_received(struct bts_apply *apply)
{
	enum bts_err err;

	if (apply->failed)
		return apply->failed;
	if (apply->taken)
		return apply_refuse(apply, &apply->current, "cut short");
	err = apply_settle(apply);
	return err ? err : apply_fault(apply, "apply.received");
}

/* The frame did not become the state: what it added to the file's end is cut off again. */
static void apply_undo(struct bts_apply *apply, enum bts_err why)
{
	struct bts *db = apply->db;
	struct bts_file_identity identity;

	if (apply->first.on && (why == BTS_CORRUPT || why == BTS_DIVERGED || why == BTS_VERSION)) {
		apply_first_forget(apply);
	} else if (apply->first.on && (why || db->slot.first.position.txid)) { /* a slot may note pages of this frame */
		if (why)
			apply_first_keep(apply);
		return;
	}
	if (!db->env->ops->file_identity(db->file, &identity) && identity.size > apply->file_bytes) {
		db->env->ops->file_truncate(db->file, apply->file_bytes);
		atomic_store(&db->pager.mapped, 0); /* to be asked for again */
	}
}

static void apply_count(struct bts_apply *apply)
{
	uint64_t pages = apply->first.pages;

	for (size_t i = 0; i < apply->unit_count; i++)
		pages += apply->units[i].count;
	atomic_fetch_add(&apply->db->apply_frames, 1);
	atomic_fetch_add(&apply->db->apply_pages, pages);
	atomic_fetch_add(&apply->db->apply_redirected, apply->redirected);
}

enum bts_err bts_apply_finish(struct bts_apply *apply, struct bts_slice record, struct bts_error *error)
{
	struct bts *db = apply->db;
	enum bts_err err = apply_received(apply);

	if (!err) {
		pthread_mutex_lock(&db->build);
		err = apply_prove(apply, record);
		if (!err)
			err = apply_install(apply);
		pthread_mutex_unlock(&db->build);
	}
	if (err && !apply->committed)
		apply_undo(apply, err);
	if (err)
		apply_report(apply, err, error);
	else
		apply_count(apply);
	apply_free(apply);
	apply_leave(db);
	return err;
}

enum bts_err bts_apply_idle(struct bts *db, struct bts_error *error)
{
	enum bts_err err;

	pthread_mutex_lock(&db->build);
	err = db_usable(db, error);
	if (!err && db->follower && !db->applying)
		err = homes_merge(db, HOMES_IDLE, error);
	pthread_mutex_unlock(&db->build);
	return err;
}

void bts_apply_abort(struct bts_apply *apply)
{
	struct bts *db;

	if (!apply)
		return;
	db = apply->db;
	apply_undo(apply, BTS_OK);
	apply_free(apply);
	apply_leave(db);
}

void bts_apply_suspend(struct bts_apply *apply)
{
	struct bts *db;

	if (!apply)
		return;
	db = apply->db;
	apply_undo(apply, BTS_TIMEOUT);
	apply_free(apply);
	apply_leave(db);
}
