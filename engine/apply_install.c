/*
 * Making a proven frame the state of the file.  The crash cases are argued in DESIGN.md, section "Apply".
 *
 * Flush path.pending when the frame put something there, write the other slot, flush, publish.  The slot names the pages that went home
 * with their sums, as a primary's does (I3), so that one flush brings both; of more than a manifest holds, and of what came by other
 * ways, the pages are flushed first.  No reader is asked, and none is kept waiting: what the durable root or a reader needs stands
 * where it is, until it is brought home (homes.h), which nobody waits for either.
 *
 * Only when path.pending has become too long readers are told to end, and the next frame waits for them.
 */
#include "apply.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/fault.h"
#include "compact.h"
#include "error.h"
#include "homes.h"
#include "recover.h"
#include "role.h"

#define INSTALL_POLL_MS 10u

enum bts_err apply_make_room(struct bts_apply *apply)
{
	struct bts *db = apply->db;
	uint32_t wakes = shared_wakes(db->shared);
	enum bts_err err = BTS_OK;

	while (!err && db->log.kept_size > db->limits.pending_limit) {
		bool pressed;

		pthread_mutex_lock(&db->build);
		err = homes_merge(db, HOMES_ALL, &apply->error);
		pressed = homes_press(db);
		pthread_mutex_unlock(&db->build);
		if (err || !pressed)
			return err;
		err = apply_fault(apply, "apply.wait");
		if (!err && shared_poisoned(db->shared))
			err = db_may_write(db, &apply->error);
		if (!err && shared_wakes(db->shared) != wakes)
			err = error_set(&apply->error, BTS_TIMEOUT, 0,
				"%s: woken while readers kept more than %" PRIu64 " bytes of pages from going home", db->path,
				db->limits.pending_limit);
		if (!err)
			shared_wait_reader(db->shared, INSTALL_POLL_MS);
	}
	return err;
}

static enum bts_err install_sync(struct bts_apply *apply, struct bts_file *file, const char *what)
{
	int os = apply->db->env->ops->file_sync(file);

	atomic_fetch_add(&apply->db->flushes, 1);
	return os ? db_poison(apply->db, &apply->error, os, what) : BTS_OK;
}

/* Before a slot names its records. */
static enum bts_err install_flush_log(struct bts_apply *apply)
{
	struct bts *db = apply->db;
	enum bts_err err;
	char *path = NULL;
	int os;

	err = pending_path(db, db->log.name, &path, &apply->error);
	if (!err && !SABOTAGE(FAULT_R5_NO_FLUSH))
		err = install_sync(apply, db->log.file, "flushing path.pending");
	if (!err && db->log.unnamed) {
		os = db->env->ops->path_sync_dir(db->env, path);
		if (os)
			err = error_os(&apply->error, os, "cannot flush the directory of %s", path);
		db->log.unnamed = os != 0;
	}
	db->env->ops->memory(db->env, path, 0);
	return err;
}

/* The units that went home, as they stand there: they are sorted.  false: more than a manifest holds. */
static bool install_manifest(const struct bts_apply *apply, struct meta_slot *slot)
{
	uint32_t page_size = apply->record.page_size;
	struct meta_run *run = NULL;
	uint64_t bytes = 0;

	if (apply->first.on || apply->fetch)
		return false;
	for (size_t i = 0; i < apply->unit_count; i++) {
		const struct apply_unit *unit = &apply->units[i];
		const uint8_t *image;

		if (unit->where)
			continue;
		bytes += (uint64_t)unit->count * page_size;
		if (bytes > META_MANIFEST_BYTES)
			return false;
		image = apply_unit_image(apply, unit);
		if (!image)
			return false;
		if (!run || run->pgno + run->count != unit->pgno) {
			if (slot->manifest_count == META_MANIFEST_MAX)
				return false;
			run = &slot->manifest[slot->manifest_count++];
			*run = (struct meta_run){unit->pgno, 0, 0};
		}
		run->count += unit->count;
		run->crc = crc32c(run->crc, image, (size_t)unit->count * page_size);
	}
	return true;
}

static void install_fill_slot(struct bts_apply *apply)
{
	struct bts *db = apply->db;
	struct meta_slot *slot = &apply->slot;

	*slot = db->slot;
	slot->sequence++;
	slot->role = META_FOLLOWER;
	slot->durable = db->slot.record.txid;
	slot->durable_sequence = db->slot.sequence;
	memset(&slot->first, 0, sizeof(slot->first)); /* the first transfer ends here */
	slot->record = apply->record;
	slot->pending_salt = db->log.count ? db->log.salt : 0;
	slot->pending_count = db->log.count;
	slot->pending_log = db->log.count != 0;
	slot->manifest_count = 0;
	slot->mode = install_manifest(apply, slot) && !SABOTAGE(FAULT_R1_NO_FLUSH) ? META_ONE_FLUSH : META_TWO_FLUSH;
	if (slot->mode == META_TWO_FLUSH)
		slot->manifest_count = 0;
}

/* What the slot takes for durable is.  The file is as long as the new high-water mark, whoever wrote there. */
static enum bts_err install_flush(struct bts_apply *apply)
{
	struct bts *db = apply->db;
	uint64_t size = apply->record.high_water * apply->record.page_size;
	struct bts_file_identity identity;
	enum bts_err err = apply_fault(apply, "apply.flush");
	int os;

	if (err)
		return err;
	os = db->env->ops->file_identity(db->file, &identity);
	if (!os && identity.size < size)
		os = db->env->ops->file_truncate(db->file, size);
	if (!os && apply->redirected) {
		/* Homes may be holes, of pages that came and went between two frames: no room must be said now. */
		os = db->env->ops->file_reserve(db->file, size);
		os = os == ENOTSUP || os == EOPNOTSUPP ? 0 : os;
	}
	if (os)
		return error_os(&apply->error, os, "cannot extend %s", db->path);
	if (apply->redirected)
		err = install_flush_log(apply);
	if (err || apply->slot.mode == META_ONE_FLUSH || SABOTAGE(FAULT_R1_NO_FLUSH))
		return err;
	return install_sync(apply, db->file, "flushing the pages of a frame");
}

/* The new record into the slot that does not hold D. */
static enum bts_err install_slot(struct bts_apply *apply)
{
	struct bts *db = apply->db;
	const struct meta_slot *slot = &apply->slot;
	enum bts_err err = apply_fault(apply, "apply.slot");

	if (err)
		return err;
	apply->committed = true;
	err = recover_write_slot(db->env, db->file, !db->slot_index, slot, &apply->error);
	if (!err)
		err = apply_fault(apply, "apply.slot_flush");
	if (err)
		return db_poison(db, &apply->error, apply->error.os, "writing the meta page of a frame");
	err = SABOTAGE(FAULT_R7_NO_FLUSH) ? BTS_OK :
					    install_sync(apply, db->file, "flushing the meta page of a frame");
	if (err)
		return err;
	err = apply_fault(apply, "apply.publish");
	if (err)
		return db_poison(db, &apply->error, apply->error.os, "publishing a frame");
	db->slot = *slot;
	db->slot_index = !db->slot_index;
	return BTS_OK;
}

static void install_publish(struct bts_apply *apply)
{
	struct bts *db = apply->db;

	pending_keep(db);
	homes_enter(apply);
	atomic_fetch_add(&db->pending_pages, apply->redirected);
	atomic_store(&db->pending_bytes, db->log.file ? db->log.kept_size : 0);
	shared_set_pending(db->shared, db->slot.pending_salt, db->slot.pending_count);
	shared_set_slot(db->shared, db->slot_index, db->slot.sequence);
	shared_publish(db->shared, &db->slot.record);
}

enum bts_err apply_install(struct bts_apply *apply)
{
	struct bts *db = apply->db;
	struct bts_compact_info cut = {.size = sizeof(cut)};
	enum bts_err err = role_admits(db, &apply->target, &apply->error); /* a promise was made meanwhile? */

	if (!err)
		err = homes_reserve(apply);
	if (!err) {
		install_fill_slot(apply);
		err = install_flush(apply);
	}
	if (!err)
		err = install_slot(apply);
	if (err)
		return err;
	install_publish(apply);
	space_fini(&db->space);
	db->space = apply->space;
	apply->space_there = false;
	/* A mark that fell: the file becomes shorter, now or when readers have gone and the next frame comes. */
	apply_trim(db);
	err = compact_truncate(db, true, &cut, NULL);
	(void)err;
	apply_unmap_log(apply);
	err = homes_merge(db, HOMES_FRAME, &apply->error);
	homes_press(db);
	return err;
}
