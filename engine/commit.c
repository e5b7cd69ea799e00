/*
 * Making a state durable (I2, I3, I7, I8): pages, then the meta slot that does not hold D, then one flush.
 *
 * Happy path: seal, write pages, write a one-flush slot whose manifest names those pages, flush, publish.  A commit too
 * large for a manifest flushes its pages first and writes a two-flush slot.
 * Failure modes: no memory, no space, or any refusal before a page is written: nothing happened.  A page write that fails
 * with no space: the pages written are free ones, nothing happened.  Any other failure from the first page write on, a
 * failed slot write and a failed flush poison the environment: what reached the disk is unknown (I7).
 */
#include "base/crc32c.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "error.h"
#include "recover.h"
#include "seal.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define COMMIT_IOV 256
#define COMMIT_GROW_MIN (UINT64_C(256) << 10) /* bytes the file grows by at least */
#define COMMIT_GROW_MAX (UINT64_C(16) << 20)  /* and at most, beyond what is needed */

static const uint8_t commit_zeros[BTS_PAGE_SIZE_MAX];

struct commit_writer {
	struct bts *db;
	struct iovec iov[COMMIT_IOV];
	int count;
	bts_pgno first, next; /* pages gathered: [first, next) */
};

static int commit_flush_iov(struct commit_writer *writer)
{
	struct bts *db = writer->db;
	int os = 0;

	if (writer->count > 0)
		os = db->env->ops->file_pwritev(db->file, writer->iov, writer->count,
			writer->first << db->pager.page_shift);
	writer->count = 0;
	writer->first = writer->next;
	return os;
}

static void commit_piece(struct commit_writer *writer, const uint8_t *data, size_t size)
{
	if (size > 0)
		writer->iov[writer->count++] = (struct iovec){ (void *)(uintptr_t)data, size };
}

static size_t commit_padding(const struct bts *db, const struct seal_segment *segment)
{
	return (size_t)((segment->pages << db->pager.page_shift) - segment->head_size - segment->body_size);
}

/* Neighbouring segments go out in one call. */
static int commit_write_pages(struct bts *db, const struct seal *seal)
{
	struct commit_writer writer = { .db = db };
	int os;

	for (size_t i = 0; i < seal->segment_count; i++) {
		const struct seal_segment *segment = &seal->segments[i];

		if (segment->pgno != writer.next || writer.count + 3 > COMMIT_IOV) {
			os = commit_flush_iov(&writer);
			if (os)
				return os;
			writer.first = segment->pgno;
		}
		commit_piece(&writer, segment->head, segment->head_size);
		commit_piece(&writer, segment->body, (size_t)segment->body_size);
		commit_piece(&writer, commit_zeros, commit_padding(db, segment));
		writer.next = segment->pgno + segment->pages;
	}
	return commit_flush_iov(&writer);
}

static uint32_t commit_content(const struct bts *db, const struct seal_segment *segment, uint32_t crc)
{
	crc = crc32c(crc, segment->head, segment->head_size);
	if (segment->body_size > 0)
		crc = crc32c(crc, segment->body, (size_t)segment->body_size);
	return crc32c(crc, commit_zeros, commit_padding(db, segment));
}

/* I3: every page of this commit; false when they are too many or too scattered for a manifest. */
static bool commit_manifest(const struct bts *db, const struct seal *seal, struct meta_slot *slot)
{
	struct meta_run *run = NULL;

	slot->manifest_count = 0;
	if (seal->pages << db->pager.page_shift > META_MANIFEST_BYTES)
		return false;
	for (size_t i = 0; i < seal->segment_count; i++) {
		const struct seal_segment *segment = &seal->segments[i];

		if (run == NULL || run->pgno + run->count != segment->pgno) {
			if (slot->manifest_count == META_MANIFEST_MAX)
				return false;
			run = &slot->manifest[slot->manifest_count++];
			*run = (struct meta_run){ segment->pgno, 0, 0 };
		}
		run->count += (uint32_t)segment->pages;
		run->crc = commit_content(db, segment, run->crc);
	}
	if (SABOTAGE(FAULT_I3_NO_MANIFEST))
		slot->manifest_count = 0;
	return true;
}

/* Grow in steps: a flush that also moves the end of file costs more than one that does not. */
static int commit_grow(struct bts *db)
{
	uint64_t need = db->space.high_water << db->pager.page_shift, step = need / 16;
	struct bts_file_identity id;
	int os = db->env->ops->file_identity(db->file, &id);

	if (os || need <= id.size)
		return os;
	if (step < COMMIT_GROW_MIN)
		step = COMMIT_GROW_MIN;
	if (step > COMMIT_GROW_MAX)
		step = COMMIT_GROW_MAX;
	if (need + step > db->pager.map_bytes)
		step = db->pager.map_bytes - need;
	os = db->env->ops->file_reserve(db->file, need + step);
	/* Room for the step is a wish: whether the pages themselves fit, their writes tell. */
	return os == ENOTSUP || os == EOPNOTSUPP || error_from_os(os) == BTS_FULL ? 0 : os;
}

static enum bts_err commit_fault(struct bts *db, const char *point, struct bts_error *error)
{
	int os = db->env->ops->fault(db->env, point);

	return os == 0 ? BTS_OK : error_os(error, os, "%s", point);
}

static enum bts_err commit_sync(struct bts *db, struct bts_error *error, const char *what)
{
	int os;

	atomic_fetch_add(&db->flushes, 1);
	os = db->env->ops->file_sync(db->file);
	if (os == 0 || SABOTAGE(FAULT_I7_IGNORE_FLUSH))
		return BTS_OK;
	return db_poison(db, error, os, what);
}

/* Pages are out: BTS_FULL means the commit did not happen, anything else poisons. */
static enum bts_err commit_pages(struct bts *db, const struct seal *seal, struct bts_error *error)
{
	int os;
	enum bts_err err = commit_fault(db, "commit.pages", error);

	if (err)
		return err;
	os = commit_grow(db);
	if (os == 0)
		os = commit_write_pages(db, seal);
	if (os == 0)
		return BTS_OK;
	if (error_from_os(os) == BTS_FULL)
		return error_os(error, os, "no room for %" PRIu64 " pages of transaction %" PRIu64, seal->pages, seal->txid);
	return db_poison(db, error, os, "writing pages");
}

static enum bts_err commit_slot(struct bts *db, struct meta_slot *slot, unsigned index, struct bts_error *error)
{
	enum bts_err err;

	if (slot->mode == META_TWO_FLUSH && !SABOTAGE(FAULT_I3_NO_PREFLUSH)) {
		err = commit_sync(db, error, "flushing pages");
		if (err)
			return err;
	}
	err = commit_fault(db, "commit.slot", error);
	if (err)
		return db_poison(db, error, error ? error->os : EIO, "writing the meta page");
	err = recover_write_slot(db->env, db->file, index, slot, error);
	if (err)
		return db_poison(db, error, error ? error->os : EIO, "writing the meta page");
	if (SABOTAGE(FAULT_I8_PUBLISH_EARLY))
		return BTS_OK;
	return commit_sync(db, error, "flushing a commit");
}

static void commit_envelope(struct bts *db, const struct seal *seal, struct meta_slot *slot)
{
	*slot = db->slot;
	slot->sequence = db->slot.sequence + 1;
	slot->durable = db->slot.record.txid;
	slot->durable_sequence = db->slot.sequence;
	slot->record = seal->state->record;
	slot->mode = commit_manifest(db, seal, slot) ? META_ONE_FLUSH : META_TWO_FLUSH;
	if (slot->mode == META_TWO_FLUSH)
		slot->manifest_count = 0;
}

/* Paranoid builds: the slot about to be written can be read, or two such commits would lose the database. */
static void commit_paranoid(const struct meta_slot *slot)
{
#ifdef BTS_PARANOID
	struct meta_slot again;
	uint8_t bytes[LAYOUT_META_SIZE];
	struct bts_error error = { 0 };

	meta_slot_encode(slot, bytes);
	if (meta_slot_decode(bytes, &again, &error))
		fprintf(stderr, "slot of transaction %" PRIu64 ": %s\n", slot->record.txid, error.text);
	ENSURE(error.code == BTS_OK);
#else
	(void)slot;
#endif
}

/* Durable: the allocator, the handle and every process learn of it. */
static void commit_publish(struct bts *db, const struct seal *seal, const struct meta_slot *slot, unsigned index,
	uint64_t transactions)
{
	db->slot = *slot;
	db->slot_index = index;
	for (size_t i = 0; i < seal->retired_count; i++) {
		enum bts_err err = SABOTAGE(FAULT_I1_FREE_EARLY) ?
			space_give(&db->space, (struct space_run){ seal->retired[i].pgno, seal->retired[i].count }) :
			space_retire(&db->space, seal->retired[i]);

		ENSURE(err == BTS_OK); /* the seal made room */
	}
	shared_set_slot(db->shared, index, slot->sequence);
	shared_publish(db->shared, &slot->record);
	atomic_fetch_add(&db->commits, transactions);
	atomic_fetch_add(&db->pages_written, seal->pages);
}

enum bts_err commit_state(struct bts *db, struct state *state, bts_txid txid, uint64_t transactions, struct bts_error *error)
{
	unsigned index = SABOTAGE(FAULT_I2_SLOT_OF_D) ? db->slot_index : 1 - db->slot_index;
	struct meta_slot *slot;
	struct bts_error why = { 0 };
	struct seal seal;
	enum bts_err err;

	if (txid >= LAYOUT_TXID_LIMIT)
		return error_set(error, BTS_FULL, 0, "transaction numbers are used up at %" PRIu64, txid);
	slot = db->env->ops->memory(db->env, NULL, sizeof(*slot));
	if (slot == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory to commit");
	db_reclaim(db);
	err = seal_state(&seal, db, state, txid, &why);
	if (err)
		goto done;
	commit_envelope(db, &seal, slot);
	commit_paranoid(slot);
	shared_assign(db->shared, txid);
	err = commit_pages(db, &seal, &why);
	if (err == BTS_OK)
		err = commit_slot(db, slot, index, &why);
	if (err == BTS_OK)
		commit_publish(db, &seal, slot, index, transactions);
	else if (!shared_poisoned(db->shared))
		seal_undo(&seal);
done:
	seal_fini(&seal);
	db->env->ops->memory(db->env, slot, 0);
	if (err && error != NULL)
		*error = why;
	return err;
}
