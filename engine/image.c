/*
 * The image of a commit as a file: any part of it, verified.
 *
 * Pages keep their numbers, free ones are zeros; both slots name the commit, the second as the seal of the first, with no
 * file's identity: so the image opens as a database that was closed in order, and whoever writes to it begins a new epoch, as
 * with any copy (R3).
 *
 * What is in the image is what the free log does not list (G2).  Two verifications meet on every page: the walk at the
 * beginning goes along the pointers and sees that each page is the one meant; whoever reads sums exactly the bytes that he
 * gets.  The walk also notes which pages are inside of a large value, a bit each, so that a reader who begins anywhere
 * finds the unit there.
 */
#include "image.h"

#include "base/crc32c.h"
#include "error.h"
#include "node.h"
#include "snapshot.h"
#include "traverse.h"

#include <inttypes.h>
#include <string.h>

#define IMAGE_LOOK_EDGES 32u /* between two looks whether to go on */

/* ---- the walk ---- */

/* An extent is the one that is meant; its bytes are summed when they are copied. */
static enum bts_err image_same(struct bts_image *image, const struct traverse_edge *edge)
{
	const uint8_t *bytes = pager_image(&image->ctx, &edge->ptr, 1);

	if (bytes == NULL || layout_type(bytes) != LAYOUT_EXTENT || layout_pgno(bytes) != edge->ptr.pgno ||
		layout_birth(bytes) != edge->ptr.birth || layout_crc(bytes) != edge->ptr.crc ||
		layout_pages(bytes) != edge->pages)
		return error_set(&image->why, BTS_CORRUPT, 0,
			"page %" PRIu64 ": not the large value that page expects there", edge->ptr.pgno);
	for (bts_pgno p = edge->ptr.pgno + 1; p < edge->ptr.pgno + edge->pages; p++)
		image->inner[p / 64] |= UINT64_C(1) << p % 64;
	return BTS_OK;
}

/* A frame waits for the homes that this snapshot keeps (homes_press), or the caller has had enough. */
static enum bts_err image_go_on(struct bts_image *image)
{
	const struct bts_image_options *options = image->options;

	if (image->db->follower && shared_reader_expired(&image->reader))
		return error_set(&image->why, BTS_EXPIRED, 0, "the image of transaction %" PRIu64 " was told to end: frames wait for its snapshot",
			image->record.txid);
	if (options != NULL && options->interrupt != NULL && options->interrupt(options->arg))
		return error_set(&image->why, BTS_TIMEOUT, 0, "interrupted");
	return BTS_OK;
}

static enum bts_err image_edge(struct bts_image *image, const struct traverse_edge *edge)
{
	const uint8_t *bytes;
	enum bts_err err;

	if (!space_is_live(&image->space, (struct space_run){edge->ptr.pgno, edge->pages}))
		return error_set(&image->why, BTS_CORRUPT, 0, "page %" PRIu64 ": in use and free, or outside the file",
			edge->ptr.pgno);
	if (edge->kind == BTS_KIND_EXTENT)
		return image_same(image, edge);
	if (edge->kind == BTS_KIND_FREE_LOG)
		err = pager_free_log(&image->ctx, &edge->ptr, &bytes);
	else
		err = pager_node(&image->ctx, &edge->ptr, edge->tree, edge->level, &bytes);
	return err ? err : traverse_descend(&image->traverse, bytes);
}

/* Along the pointers, but for what a state of the number `known` shares with this one. */
static enum bts_err image_walk(struct bts_image *image, bts_txid known)
{
	const struct traverse_edge *edge;
	enum bts_err err;

	while ((err = traverse_next(&image->traverse, &edge)) == BTS_OK) {
		if (edge->ptr.birth <= known && !traverse_is_aside(edge))
			continue;
		err = image_edge(image, edge);
		if (err == BTS_OK && ++image->edges % IMAGE_LOOK_EDGES == 0)
			err = image_go_on(image);
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

/* The named snapshots from the oldest on, then the newest state: each page once. */
static enum bts_err image_walk_all(struct bts_image *image)
{
	struct commit_record *record = &image->record;
	struct snapshot_list list;
	enum bts_err err = snapshot_list_load(&image->ctx, record, &record->snapshots, &list);
	bts_txid known = 0;

	for (size_t i = 0; i < list.count && err == BTS_OK; i++) {
		traverse_init_catalog(&image->traverse, record, &list.items[i].catalog, list.items[i].txid, &image->why);
		err = image_walk(image, known);
		known = list.items[i].txid;
	}
	snapshot_list_fini(&list);
	if (err)
		return err;
	traverse_init(&image->traverse, record, TRAVERSE_ALL, &image->why);
	return image_walk(image, known);
}

/* ---- blocks ---- */

static enum bts_err image_damaged(struct bts_image *image, bts_pgno pgno)
{
	return error_set(&image->why, BTS_CORRUPT, 0, "page %" PRIu64 ": checksum mismatch while it was copied", pgno);
}

static void image_block_is(struct bts_image *image, const uint8_t *bytes, uint64_t at, uint64_t size)
{
	image->block = bytes;
	image->block_at = at;
	image->block_size = size;
}

/* The bytes from the file, not from the map: a device that cannot read is an error here, no signal. */
static enum bts_err image_pread(struct bts_image *image, uint64_t at, uint64_t size)
{
	struct bts *db = image->db;
	size_t got = 0;
	int os = db->env->ops->file_pread(db->file, image->buffer, (size_t)size, at, &got);

	if (os)
		return error_os(&image->why, os, "page %" PRIu64 ": cannot read", at / image->page_size);
	if (got < size)
		return error_set(&image->why, BTS_CORRUPT, 0, "page %" PRIu64 ": beyond the end of the file",
			at / image->page_size);
	return BTS_OK;
}

/* A unit that is not home; NULL: it is. */
static const struct pending_entry *image_redirected(const struct bts_image *image, bts_pgno pgno)
{
	if (image->redirect == NULL)
		return NULL;
	return redirect_newest(image->redirect, pgno, image->reader.pending_count);
}

/* The header area: two slots that name one commit, the second as the seal of the first. */
static void image_header(struct bts_image *image, uint64_t at)
{
	struct meta_slot *slot = &image->slot;
	bool second = at >= LAYOUT_META_B_OFFSET;
	uint64_t from = second ? LAYOUT_META_B_OFFSET : 0;
	uint64_t end = second ? image->record.first * image->page_size : LAYOUT_META_B_OFFSET;

	memset(image->buffer, 0, (size_t)(end - from));
	slot->sequence = second ? 2 : 1;
	slot->mode = second ? META_SEAL : META_TWO_FLUSH;
	slot->durable_sequence = second ? 1 : 0;
	meta_slot_encode(slot, image->buffer);
	image_block_is(image, image->buffer, from, end - from);
}

static bool image_inner(const struct bts_image *image, bts_pgno pgno)
{
	return image->inner[pgno / 64] >> pgno % 64 & 1;
}

/* Does a large value begin at this page, or is it inside of one? */
static bool image_is_extent(const struct bts_image *image, bts_pgno pgno)
{
	return image_inner(image, pgno) || image_inner(image, pgno + 1);
}

static bts_pgno image_extent_begin(const struct bts_image *image, bts_pgno pgno)
{
	while (image_inner(image, pgno))
		pgno -= pgno % 64 == 63 && image->inner[pgno / 64] == UINT64_MAX ? 64 : 1;
	return pgno;
}

/* The header pages of the large value at pgno, verified. */
static enum bts_err image_extent_open(struct bts_image *image, bts_pgno pgno)
{
	const struct pending_entry *record = image_redirected(image, pgno);
	struct image_extent *extent = &image->extent;
	struct pager *pager = &image->db->pager;
	const uint8_t *header = record ? redirect_bytes(image->redirect, record) : pager_raw(pager, pgno, 1);
	uint32_t page_size = image->page_size;
	uint64_t size, headers, pages;

	extent->pgno = 0;
	if (header == NULL)
		return image_damaged(image, pgno);
	size = bytes_get_u64(header + LAYOUT_EXTENT_SIZE_AT);
	if (size > BTS_VALUE_MAX)
		return image_damaged(image, pgno);
	headers = layout_extent_header_pages(size, page_size);
	pages = layout_extent_pages(size, page_size);
	if (pages > image->record.high_water - pgno || layout_pages(header) != pages || layout_pgno(header) != pgno ||
		layout_birth(header) > image->record.txid ||
		(record ? pages != record->count : pager_raw(pager, pgno, pages) == NULL) ||
		pager_crc(header, (size_t)(headers * page_size)) != layout_crc(header))
		return image_damaged(image, pgno);
	*extent = (struct image_extent){pgno, pages, headers, size, header, record != NULL};
	return BTS_OK;
}

/* The chunk of the payload that offset `in` lies in, its sum from the verified header; or the zeros behind it. */
static enum bts_err image_payload(struct bts_image *image, uint64_t in)
{
	const struct image_extent *extent = &image->extent;
	uint64_t begin = (extent->pgno + extent->headers) * image->page_size, i = in / LAYOUT_CHUNK, at = i * LAYOUT_CHUNK;
	uint64_t part = extent->size - at < LAYOUT_CHUNK ? extent->size - at : LAYOUT_CHUNK;
	enum bts_err err = BTS_OK;

	if (in >= extent->size) {
		part = (extent->pages - extent->headers) * image->page_size - extent->size;
		memset(image->buffer, 0, (size_t)part);
		image_block_is(image, image->buffer, begin + extent->size, part);
		return BTS_OK;
	}
	if (extent->redirected)
		memcpy(image->buffer, extent->header + extent->headers * image->page_size + at, (size_t)part);
	else
		err = image_pread(image, begin + at, part);
	if (err)
		return err;
	if (crc32c(0, image->buffer, (size_t)part) != bytes_get_u32(extent->header + LAYOUT_EXTENT_TABLE_AT + 4 * i))
		return image_damaged(image, (begin + at) / image->page_size);
	image_block_is(image, image->buffer, begin + at, part);
	return BTS_OK;
}

static enum bts_err image_extent(struct bts_image *image, uint64_t at)
{
	bts_pgno pgno = image_extent_begin(image, at / image->page_size);
	enum bts_err err = image->extent.pgno == pgno ? BTS_OK : image_extent_open(image, pgno);
	uint64_t headers;

	if (err)
		return err;
	headers = image->extent.headers * image->page_size;
	if (at - pgno * image->page_size >= headers)
		return image_payload(image, at - pgno * image->page_size - headers);
	image_block_is(image, image->extent.header, pgno * image->page_size, headers);
	return BTS_OK;
}

/* Pages from pgno on that are alike: free, or single pages. */
static uint64_t image_alike(const struct bts_image *image, bts_pgno pgno, bool live)
{
	uint64_t count = 0, most = IMAGE_BUFFER / image->page_size;

	while (count < most && pgno + count < image->record.high_water &&
		space_is_live(&image->space, (struct space_run){pgno + count, 1}) == live &&
		!(live && image_is_extent(image, pgno + count)))
		count++;
	return count;
}

/* Single pages, each what it says it is. */
static enum bts_err image_singles(struct bts_image *image, bts_pgno pgno, uint64_t count)
{
	enum bts_err err = image_pread(image, pgno * image->page_size, count * image->page_size);

	for (uint64_t i = 0; i < count && err == BTS_OK; i++) {
		const struct pending_entry *record = image_redirected(image, pgno + i);
		uint8_t *page = image->buffer + i * image->page_size;

		if (record != NULL)
			memcpy(page, redirect_bytes(image->redirect, record), image->page_size);
		if (layout_pgno(page) != pgno + i || layout_birth(page) > image->record.txid ||
			layout_type(page) == LAYOUT_EXTENT || pager_crc(page, image->page_size) != layout_crc(page))
			err = image_damaged(image, pgno + i);
	}
	return err;
}

enum bts_err image_block(struct bts_image *image, uint64_t at)
{
	bts_pgno pgno = at / image->page_size;
	enum bts_err err = BTS_OK;
	uint64_t count;

	if (image->block != NULL && at >= image->block_at && at - image->block_at < image->block_size)
		return BTS_OK;
	image->block = NULL;
	if (pgno < image->record.first) {
		image_header(image, at);
		return BTS_OK;
	}
	if (!space_is_live(&image->space, (struct space_run){pgno, 1})) {
		count = image_alike(image, pgno, false);
		memset(image->buffer, 0, (size_t)(count * image->page_size));
	} else if (image_is_extent(image, pgno)) {
		return image_extent(image, at);
	} else {
		count = image_alike(image, pgno, true);
		err = image_singles(image, pgno, count);
	}
	if (err == BTS_OK)
		image_block_is(image, image->buffer, pgno * image->page_size, count * image->page_size);
	return err;
}

/* ---- the calls ---- */

static enum bts_err image_start(struct bts_image *image)
{
	struct bts *db = image->db;
	struct commit_record *record = &image->record;
	size_t words = (size_t)((record->high_water + 1) / 64 + 1);
	enum bts_err err;
	int os;

	image->page_size = record->page_size;
	image->ctx = (struct tree_ctx){.pager = &db->pager,
		.limit = record->high_water,
		.newest = record->txid,
		.error = &image->why};
	redirect_use(&image->ctx, image->redirect);
	image->slot.record = *record;
	image->slot.role = shared_role(db->shared);
	image->slot.durable = record->txid;
	os = db->env->ops->random(db->env, image->slot.node, sizeof(image->slot.node));
	if (os)
		return error_os(&image->why, os, "no random numbers for a node id");
	image->buffer = db->env->ops->memory(db->env, NULL, IMAGE_BUFFER);
	image->inner = db->env->ops->memory(db->env, NULL, words * sizeof(*image->inner));
	if (image->buffer == NULL || image->inner == NULL)
		return error_set(&image->why, BTS_MEMORY, 0, "no memory for an image");
	memset(image->inner, 0, words * sizeof(*image->inner));
	meta_position(record, &image->position);
	err = db_load_space(db, image->redirect, record, &image->space, &image->why);
	return err ? err : image_walk_all(image);
}

enum bts_err bts_image_open(
	struct bts *db, const struct bts_image_options *options, struct bts_image **out, struct bts_error *error)
{
	struct bts_image *image;
	enum bts_err err;

	if (options != NULL && options->size != sizeof(*options))
		return error_set(error, BTS_INVALID, 0, "struct bts_image_options of %zu bytes", options->size);
	image = db->env->ops->memory(db->env, NULL, sizeof(*image));
	if (image == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory for an image");
	memset(image, 0, sizeof(*image));
	image->db = db;
	image->options = options;
	err = redirect_enter(db, REDIRECT_DURABLE, &image->reader, &image->record, &image->redirect, &image->why);
	image->entered = err == BTS_OK;
	if (err == BTS_OK)
		err = image_start(image);
	image->options = NULL;
	if (err) {
		error_set(error, err, image->why.os, "%s", image->why.text);
		bts_image_close(image);
		return err;
	}
	*out = image;
	return BTS_OK;
}

uint64_t bts_image_size(const struct bts_image *image)
{
	return image->record.high_water * image->page_size;
}

const struct bts_position *bts_image_position(const struct bts_image *image)
{
	return &image->position;
}

void bts_image_digest(const struct bts_image *image, uint8_t digest[16])
{
	meta_root_digest(&image->record, digest);
}

enum bts_err bts_image_read(
	struct bts_image *image, uint64_t at, void *out, size_t size, struct bts_error *error)
{
	uint64_t end = bts_image_size(image);
	enum bts_err err;

	if (at > end || size > end - at)
		return error_set(error, BTS_INVALID, 0, "beyond the end of the image");
	err = image_go_on(image);
	while (size > 0 && err == BTS_OK) {
		uint64_t part;

		err = image_block(image, at);
		if (err)
			break;
		part = image->block_at + image->block_size - at;
		if (part > size)
			part = size;
		memcpy(out, image->block + (at - image->block_at), (size_t)part);
		out = (uint8_t *)out + part;
		at += part;
		size -= (size_t)part;
	}
	return err ? error_set(error, err, image->why.os, "%s", image->why.text) : BTS_OK;
}

void bts_image_close(struct bts_image *image)
{
	struct bts_env *env;

	if (image == NULL)
		return;
	env = image->db->env;
	if (image->entered) {
		redirect_drop(image->db, image->redirect);
		shared_reader_leave(image->db->shared, &image->reader);
	}
	space_fini(&image->space);
	env->ops->memory(env, image->inner, 0);
	env->ops->memory(env, image->buffer, 0);
	env->ops->memory(env, image, 0);
}
