/*
 * Building a batch: a state is sealed, its pages are written to free places, and it becomes the tip.  Flushing it is flush.c's.
 *
 * Failure modes: no memory, no space, or any refusal before a page is written: nothing happened.  A page write that fails
 * with no space: the pages written are free ones, nothing happened.  Any other failed page write poisons the environment: what
 * reached the disk is unknown (I7).
 */
#include "base/crc32c.h"
#include "base/ensure.h"
#include "clean.h"
#include "error.h"
#include "flush.h"
#include "ring.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define COMMIT_IOV 256
#define COMMIT_REFUSED 256u /* batches before room is asked for again, where there was none */
#define COMMIT_START (UINT64_C(256) << 10) /* bytes of a write that is worth beginning before the flush */
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
	const struct bts_env_ops *ops = writer->db->env->ops;
	uint64_t at = writer->first << writer->db->pager.page_shift, end = writer->next << writer->db->pager.page_shift;
	int os = 0;

	if (writer->count > 0)
		os = ops->file_pwritev(writer->db->file, writer->iov, writer->count, at);
	/* The disk begins while the rest is copied: the flush has less to wait for. */
	if (os == 0 && end - at >= COMMIT_START && ops->file_start != NULL)
		ops->file_start(writer->db->file, at, end - at);
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

/* From the bytes: what a run's CRC is. */
static uint32_t commit_content(const struct bts *db, const struct seal_segment *segment, uint32_t crc)
{
	crc = crc32c(crc, segment->head, segment->head_size);
	if (segment->body_size > 0)
		crc = crc32c(crc, segment->body, (size_t)segment->body_size);
	return crc32c(crc, commit_zeros, commit_padding(db, segment));
}

/* The same of a page, whose first word is the checksum of all behind it: the seal has just read them.  shift: for these. */
static uint32_t commit_content_page(const struct bts *db, const struct seal_segment *segment, uint32_t shift, uint32_t crc)
{
	uint32_t joined = crc32c_join(crc32c(crc, segment->head, 4), layout_crc(segment->head), shift);

#ifdef BTS_PARANOID
	ENSURE(joined == commit_content(db, segment, crc));
#else
	(void)db;
#endif
	return joined;
}

/* I3: every page of this commit; false when they are too many or too scattered for a manifest, or some were written before. */
static bool commit_manifest(const struct bts *db, const struct seal *seal, struct commit_built *built)
{
	uint32_t shift = crc32c_shift(db->pager.page_size - 4);
	struct meta_run *run = NULL;

	built->manifest_count = 0;
	if (seal->leased_count > 0 || seal->pages << db->pager.page_shift > META_MANIFEST_BYTES)
		return false;
	for (size_t i = 0; i < seal->segment_count; i++) {
		const struct seal_segment *segment = &seal->segments[i];

		if (run == NULL || run->pgno + run->count != segment->pgno) {
			if (built->manifest_count == META_MANIFEST_MAX)
				return false;
			run = &built->manifest[built->manifest_count++];
			*run = (struct meta_run){ segment->pgno, 0, 0 };
		}
		run->count += (uint32_t)segment->pages;
		run->crc = segment->pages == 1 ? commit_content_page(db, segment, shift, run->crc) :
						 commit_content(db, segment, run->crc);
	}
	return true;
}

uint64_t commit_step(uint64_t need)
{
	if (need / 16 < COMMIT_GROW_MIN)
		return COMMIT_GROW_MIN;
	return need / 16 < COMMIT_GROW_MAX ? need / 16 : COMMIT_GROW_MAX;
}

/* Grow in steps: a flush that also moves the end of file costs more than one that does not. */
static int commit_grow(struct bts *db)
{
	uint64_t need = db->space.high_water << db->pager.page_shift, step = commit_step(need);
	struct bts_file_identity id;
	int os;

	if (db->space.high_water <= db->tip.high_water) /* whoever raised the mark saw to it */
		return 0;
	os = db->env->ops->file_identity(db->file, &id);
	if (os || need <= id.size)
		return os;
	if (need + step > db->pager.map_bytes)
		step = db->pager.map_bytes - need;
	os = db->env->ops->file_reserve(db->file, need + step);
	/* Room for the step is a wish: whether the pages themselves fit, their writes tell. */
	return os == ENOTSUP || os == EOPNOTSUPP || error_from_os(os) == BTS_FULL ? 0 : os;
}

/*
 * How far heads may raise the mark: to the end of the file, which is reserved ahead of them.  They never need what a full disk
 * does not have, as there are ready pages for the batch elsewhere.
 */
static void commit_heads(struct bts *db, const struct state *state)
{
	struct space *space = &db->space;
	struct space_heads *heads = &space->heads;
	uint64_t pages = dirty_bytes(state->dirty) >> db->pager.page_shift, nodes = 0, step;
	uint64_t need = (space->high_water + SPACE_MANY) << db->pager.page_shift;
	struct bts_file_identity id;

	heads->limit = 0;
	if (state->below != 0 || state->lower)
		space_heads_quiet(space);
	if (pages < SPACE_MIDDLE || pages >= SPACE_MANY)
		return;
	if (heads->quiet > 0) {
		heads->quiet--;
		return;
	}
	if (!space_has_heads(space, pages))
		return;
	for (size_t i = 0; i < state->bucket_count; i++)
		if (state->buckets[i]->changed && !state->buckets[i]->dropped)
			nodes += state->buckets[i]->tree.pages;
	if (!space_heads_starve(space, nodes) || db->env->ops->file_identity(db->file, &id) != 0)
		return;
	step = commit_step(need);
	if (heads->refused > 0) {
		heads->refused--;
	} else if (id.size < need && need + step <= db->pager.map_bytes) {
		if (db->env->ops->file_reserve(db->file, need + step) != 0)
			heads->refused = COMMIT_REFUSED;
		if (db->env->ops->file_identity(db->file, &id) != 0)
			return;
	}
	heads->limit = id.size >> db->pager.page_shift;
}

/* A raised mark promises a file that is as long: nothing of it is written now. */
static int commit_reach(struct bts *db)
{
	uint64_t need = db->space.high_water << db->pager.page_shift;
	struct bts_file_identity id;
	int os = db->env->ops->file_identity(db->file, &id);

	if (os || need <= id.size)
		return os;
	os = db->env->ops->file_reserve(db->file, need);
	return os == ENOTSUP || os == EOPNOTSUPP ? db->env->ops->file_truncate(db->file, need) : os;
}

static enum bts_err commit_fault(struct bts *db, const char *point, struct bts_error *error)
{
	int os = db->env->ops->fault(db->env, point);

	return os == 0 ? BTS_OK : error_os(error, os, "%s", point);
}

/* Pages are out: BTS_FULL means the commit did not happen, anything else poisons. */
static enum bts_err commit_pages(struct bts *db, const struct seal *seal, struct bts_error *error)
{
	int os;
	enum bts_err err = commit_fault(db, "commit.pages", error);

	if (err)
		return err;
	os = commit_grow(db);
	if (os == 0 && seal->raised.count > 0)
		os = commit_reach(db);
	if (os == 0)
		os = commit_write_pages(db, seal);
	if (os == 0)
		return BTS_OK;
	if (error_from_os(os) == BTS_FULL)
		return error_os(error, os, "no room for %" PRIu64 " pages of transaction %" PRIu64, seal->pages, seal->txid);
	return db_poison(db, error, os, "writing pages");
}

/*
 * Nodes that were just written are what the next touches find: they need no second look.  Not where a node is more than a
 * page of the kernel's cache: parts of it can be lost apart, and the header, which every touch compares, tells of its own part
 * alone.  Paranoid builds take the look, to see what was sealed as any other process will.
 */
static void commit_trust(struct bts *db, const struct seal *seal)
{
#ifndef BTS_PARANOID
	for (size_t i = 0; db->pager.page_size == BTS_PAGE_SIZE_MIN && i < seal->segment_count; i++) {
		const struct seal_segment *segment = &seal->segments[i];

		if (layout_type(segment->head) <= LAYOUT_BRANCH)
			pager_tag(&db->pager, segment->pgno, layout_crc(segment->head));
	}
#else
	(void)db;
	(void)seal;
#endif
}

/* What the one who flushes it wants to know of this batch alone. */
static void commit_describe(struct bts *db, const struct seal *seal, bts_txid base, struct commit_built *built)
{
	built->txid = seal->txid;
	built->base = base;
	built->pages = seal->pages;
	built->one_flush = commit_manifest(db, seal, built);
}

enum bts_err commit_build(struct bts *db, struct state *state, bts_txid txid, struct commit_built *built,
	struct bts_error *error)
{
	bts_txid base = state->record.txid;
	struct bts_error why = { 0 };
	struct seal seal;
	enum bts_err err;

	if (txid >= LAYOUT_TXID_LIMIT)
		return error_set(error, BTS_FULL, 0, "transaction numbers are used up at %" PRIu64, txid);
	/* The term first: a deadline that passes and is set anew behind it is noticed. */
	built->term = shared_deadline_term(db->shared);
	err = db_may_commit(db, error);
	if (err)
		return err;
	db_reclaim(db);
	commit_heads(db, state);
	clean_ahead(db, state);
	err = seal_state(&seal, db, state, txid, &why);
	if (err)
		goto done;
	shared_assign(db->shared, txid);
	err = commit_pages(db, &seal, &why);
	if (err == BTS_OK)
		err = commit_fault(db, "commit.built", &why);
	if (err == BTS_OK) {
		commit_describe(db, &seal, base, built);
		ring_publish(db, &seal);
		commit_trust(db, &seal);
		atomic_fetch_add(&db->pages_written, seal.pages);
	} else if (!shared_poisoned(db->shared)) {
		seal_undo(&seal);
	}
done:
	seal_fini(&seal);
	if (err && error != NULL)
		*error = why;
	return err;
}
