/*
 * Units of a frame or a graft as they come.
 *
 * A unit goes home at once when all of its pages are free for good: ready in the allocator (no root that can still be read needs them) or
 * at or above the high-water mark.  Any other unit goes to path.pending as a whole (R2).  Nothing of this is part of the state: whatever
 * stops the frame before the slot is written leaves the file as it was, but for the content of free pages.
 */
#include "apply.h"

#include <inttypes.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/fault.h"
#include "error.h"
#include "homes.h"

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

enum bts_err apply_received(struct bts_apply *apply)
{
	enum bts_err err;

	if (apply->failed)
		return apply->failed;
	if (apply->taken)
		return apply_refuse(apply, &apply->current, "cut short");
	err = apply_settle(apply);
	return err ? err : apply_fault(apply, "apply.received");
}
