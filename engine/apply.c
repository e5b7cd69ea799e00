/*
 * Receiving a frame on a follower: bts_apply_* (ship.h), from the first check to the last; the units in between are taken by apply_receive.c.
 */
#include "apply.h"

#include <inttypes.h>
#include <string.h>

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
