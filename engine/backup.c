/*
 * bts_backup: a file of the newest durable commit, written to a descriptor from its first byte to its last.
 *
 * Pages keep their numbers, free ones are zeros; both slots name the commit, the second as the seal of the first, with no
 * file's identity: so the image opens as a database that was closed in order, and whoever writes to it begins a new epoch, as
 * with any copy (R3).
 *
 * What is copied is what the free log does not list (G2).  Two verifications meet on every page: the first walk goes along the
 * pointers and sees that each page is the one meant; the second, in page order, sums exactly the bytes that go out.
 */
#include "db.h"

#include "base/crc32c.h"
#include "error.h"
#include "node.h"
#include "redirect.h"
#include "snapshot.h"
#include "traverse.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define BACKUP_BUFFER (256u << 10) /* a multiple of every page size and of a chunk */

struct backup {
	struct bts *db;
	const struct bts_backup_options *options;
	int fd;
	struct shared_reader reader;
	struct redirect *redirect;
	struct commit_record record;
	struct tree_ctx ctx;
	struct bts_error why;
	struct space space; /* the free set of the commit */
	struct traverse traverse;
	struct meta_slot slot;
	uint32_t page_size;
	uint64_t done; /* pages */
	uint8_t *buffer;
};

static enum bts_err backup_write(struct backup *backup, const void *data, uint64_t size)
{
	int os = backup->db->env->ops->fd_write(backup->db->env, backup->fd, data, (size_t)size);

	return os ? error_os(&backup->why, os, "writing the backup") : BTS_OK;
}

/* A hole where that is possible, else zeros.  The last byte of the image is written in any case. */
static enum bts_err backup_zeros(struct backup *backup, uint64_t size)
{
	struct bts_env *env = backup->db->env;
	uint64_t last = backup->page_size;
	enum bts_err err = BTS_OK;

	if (size > last && env->ops->fd_skip(env, backup->fd, size - last) == 0)
		size = last;
	memset(backup->buffer, 0, size < BACKUP_BUFFER ? (size_t)size : BACKUP_BUFFER);
	while (size > 0 && err == BTS_OK) {
		uint64_t part = size < BACKUP_BUFFER ? size : BACKUP_BUFFER;

		err = backup_write(backup, backup->buffer, part);
		size -= part;
	}
	return err;
}

static void backup_progress(struct backup *backup, uint64_t pages)
{
	backup->done += pages;
	if (backup->options->progress != NULL)
		backup->options->progress(backup->options->arg, backup->done, backup->record.high_water);
}

/* The bytes from the file, not from the map: a device that cannot read is an error here, no signal. */
static enum bts_err backup_read(struct backup *backup, bts_pgno pgno, uint64_t offset, uint64_t size)
{
	struct bts *db = backup->db;
	size_t got = 0;
	int os = db->env->ops->file_pread(
		db->file, backup->buffer, (size_t)size, pgno * backup->page_size + offset, &got);

	if (os)
		return error_os(&backup->why, os, "page %" PRIu64 ": cannot read", pgno);
	if (got < size)
		return error_set(
			&backup->why, BTS_CORRUPT, 0, "page %" PRIu64 ": beyond the end of the file", pgno);
	return BTS_OK;
}

static enum bts_err backup_damaged(struct backup *backup, bts_pgno pgno)
{
	return error_set(&backup->why, BTS_CORRUPT, 0,
		"page %" PRIu64 ": checksum mismatch while it was copied", pgno);
}

/* The payload chunk by chunk, the sums from the verified header; then the zeros behind it. */
static enum bts_err backup_payload(
	struct backup *backup, bts_pgno pgno, const uint8_t *header, uint64_t headers, bool redirected)
{
	uint64_t size = bytes_get_u64(header + LAYOUT_EXTENT_SIZE_AT), left = size % backup->page_size;
	bts_pgno payload = pgno + headers;
	enum bts_err err = BTS_OK;

	for (uint64_t i = 0, at = 0; at < size && err == BTS_OK; i++, at += LAYOUT_CHUNK) {
		uint64_t part = size - at < LAYOUT_CHUNK ? size - at : LAYOUT_CHUNK;

		if (redirected)
			memcpy(backup->buffer, header + headers * backup->page_size + at, (size_t)part);
		else
			err = backup_read(backup, payload, at, part);
		if (err == BTS_OK && crc32c(0, backup->buffer, (size_t)part) !=
					     bytes_get_u32(header + LAYOUT_EXTENT_TABLE_AT + 4 * i))
			return backup_damaged(backup, payload + at / backup->page_size);
		if (err == BTS_OK)
			err = backup_write(backup, backup->buffer, part);
	}
	if (err || left == 0)
		return err;
	memset(backup->buffer, 0, backup->page_size);
	return backup_write(backup, backup->buffer, backup->page_size - left);
}

/* A unit that is not home; NULL: it is. */
static const struct pending_entry *backup_redirected(const struct backup *backup, bts_pgno pgno)
{
	if (backup->redirect == NULL)
		return NULL;
	return redirect_newest(backup->redirect, pgno, backup->reader.pending_count);
}

/* *pages: of the extent, at most `most`. */
static enum bts_err backup_extent(struct backup *backup, bts_pgno pgno, uint64_t most, uint64_t *pages)
{
	const struct pending_entry *record = backup_redirected(backup, pgno);
	const uint8_t *header = record ? redirect_bytes(backup->redirect, record) : pager_raw(&backup->db->pager, pgno, 1);
	uint64_t size, headers;
	enum bts_err err;

	if (header == NULL)
		return backup_damaged(backup, pgno);
	size = bytes_get_u64(header + LAYOUT_EXTENT_SIZE_AT);
	if (size > BTS_VALUE_MAX)
		return backup_damaged(backup, pgno);
	headers = layout_extent_header_pages(size, backup->page_size);
	*pages = layout_extent_pages(size, backup->page_size);
	if (*pages > most || layout_pages(header) != *pages || layout_pgno(header) != pgno ||
		(record ? *pages != record->count : pager_raw(&backup->db->pager, pgno, *pages) == NULL) ||
		pager_crc(header, (size_t)(headers * backup->page_size)) != layout_crc(header))
		return backup_damaged(backup, pgno);
	err = backup_write(backup, header, headers * backup->page_size);
	return err ? err : backup_payload(backup, pgno, header, headers, record != NULL);
}

/* Single pages [0, count) of the buffer are what they say; *count falls to where a large value begins. */
static enum bts_err backup_singles(struct backup *backup, bts_pgno pgno, uint64_t *count)
{
	for (uint64_t i = 0; i < *count; i++) {
		const struct pending_entry *record = backup_redirected(backup, pgno + i);
		uint8_t *image = backup->buffer + i * backup->page_size;

		if (record != NULL)
			memcpy(image, redirect_bytes(backup->redirect, record), backup->page_size);
		if (layout_type(image) == LAYOUT_EXTENT) {
			*count = i;
			return BTS_OK;
		}
		if (layout_pgno(image) != pgno + i || layout_birth(image) > backup->record.txid ||
			pager_crc(image, backup->page_size) != layout_crc(image))
			return backup_damaged(backup, pgno + i);
	}
	return BTS_OK;
}

/* A run of pages in use, which begins with a unit and ends with one. */
static enum bts_err backup_run(struct backup *backup, struct space_run run)
{
	enum bts_err err = BTS_OK;

	while (run.count > 0 && err == BTS_OK) {
		uint64_t pages = BACKUP_BUFFER / backup->page_size;

		if (pages > run.count)
			pages = run.count;
		err = backup_read(backup, run.pgno, 0, pages * backup->page_size);
		if (err == BTS_OK)
			err = backup_singles(backup, run.pgno, &pages);
		if (err == BTS_OK && pages > 0)
			err = backup_write(backup, backup->buffer, pages * backup->page_size);
		else if (err == BTS_OK)
			err = backup_extent(backup, run.pgno, run.count, &pages);
		if (err)
			return err;
		run.pgno += pages;
		run.count -= pages;
		backup_progress(backup, pages);
	}
	return err;
}

static enum bts_err backup_pages(struct backup *backup)
{
	bts_pgno at = backup->record.first, state = 0;
	struct space_run run;
	enum bts_err err = BTS_OK;

	while (err == BTS_OK && space_next_free(&backup->space, &state, &run)) {
		if (run.pgno > at)
			err = backup_run(backup, (struct space_run){at, run.pgno - at});
		if (err == BTS_OK)
			err = backup_zeros(backup, run.count * backup->page_size);
		backup_progress(backup, run.count);
		at = run.pgno + run.count;
	}
	if (err == BTS_OK && at < backup->record.high_water)
		err = backup_run(backup, (struct space_run){at, backup->record.high_water - at});
	return err;
}

/* The header area: two slots that name one commit. */
static enum bts_err backup_header(struct backup *backup)
{
	struct meta_slot *slot = &backup->slot;
	uint64_t left = backup->record.first * backup->page_size - LAYOUT_META_B_OFFSET;
	uint8_t *image = backup->buffer;
	enum bts_err err;
	int os;

	slot->record = backup->record;
	slot->role = shared_role(backup->db->shared);
	slot->durable = backup->record.txid;
	os = backup->db->env->ops->random(backup->db->env, slot->node, sizeof(slot->node));
	if (os)
		return error_os(&backup->why, os, "no random numbers for a node id");
	memset(image, 0, LAYOUT_META_B_OFFSET);
	slot->sequence = 1;
	slot->mode = META_TWO_FLUSH;
	meta_slot_encode(slot, image);
	err = backup_write(backup, image, LAYOUT_META_B_OFFSET);
	if (err)
		return err;
	memset(image, 0, (size_t)left);
	slot->sequence = 2;
	slot->mode = META_SEAL;
	slot->durable_sequence = 1;
	meta_slot_encode(slot, image);
	backup->done = backup->record.first;
	return backup_write(backup, image, left);
}

/* An extent is the one that is meant; its bytes are summed when they are copied. */
static enum bts_err backup_same(struct backup *backup, const struct traverse_edge *edge)
{
	const uint8_t *image = pager_image(&backup->ctx, &edge->ptr, 1);

	if (image != NULL && layout_type(image) == LAYOUT_EXTENT && layout_pgno(image) == edge->ptr.pgno &&
		layout_birth(image) == edge->ptr.birth && layout_crc(image) == edge->ptr.crc &&
		layout_pages(image) == edge->pages)
		return BTS_OK;
	return error_set(&backup->why, BTS_CORRUPT, 0,
		"page %" PRIu64 ": not the large value that page expects there", edge->ptr.pgno);
}

/* Along the pointers, but for what a state of the number `known` shares with this one. */
static enum bts_err backup_walk(struct backup *backup, bts_txid known)
{
	struct traverse *t = &backup->traverse;
	const struct traverse_edge *edge;
	const uint8_t *image;
	enum bts_err err;

	while ((err = traverse_next(t, &edge)) == BTS_OK) {
		if (edge->ptr.birth <= known && !traverse_is_aside(edge))
			continue;
		if (!space_is_live(&backup->space, (struct space_run){edge->ptr.pgno, edge->pages}))
			return error_set(&backup->why, BTS_CORRUPT, 0,
				"page %" PRIu64 ": in use and free, or outside the file", edge->ptr.pgno);
		if (edge->kind == BTS_KIND_EXTENT)
			err = backup_same(backup, edge);
		else if (edge->kind == BTS_KIND_FREE_LOG)
			err = pager_free_log(&backup->ctx, &edge->ptr, &image);
		else
			err = pager_node(&backup->ctx, &edge->ptr, edge->tree, edge->level, &image);
		if (err == BTS_OK && edge->kind != BTS_KIND_EXTENT)
			err = traverse_descend(t, image);
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

/* The named snapshots from the oldest on, then the newest state: each page once. */
static enum bts_err backup_walk_all(struct backup *backup)
{
	struct commit_record *record = &backup->record;
	struct snapshot_list list;
	enum bts_err err = snapshot_list_load(&backup->ctx, record, &record->snapshots, &list);
	bts_txid known = 0;

	for (size_t i = 0; i < list.count && err == BTS_OK; i++) {
		traverse_init_catalog(
			&backup->traverse, record, &list.items[i].catalog, list.items[i].txid, &backup->why);
		err = backup_walk(backup, known);
		known = list.items[i].txid;
	}
	snapshot_list_fini(&list);
	if (err)
		return err;
	traverse_init(&backup->traverse, record, TRAVERSE_ALL, &backup->why);
	return backup_walk(backup, known);
}

static enum bts_err backup_all(struct backup *backup)
{
	struct bts *db = backup->db;
	enum bts_err err;

	backup->page_size = backup->record.page_size;
	backup->ctx = (struct tree_ctx){.pager = &db->pager,
		.limit = backup->record.high_water,
		.newest = backup->record.txid,
		.error = &backup->why};
	redirect_use(&backup->ctx, backup->redirect);
	backup->buffer = db->env->ops->memory(db->env, NULL, BACKUP_BUFFER);
	if (backup->buffer == NULL)
		return error_set(&backup->why, BTS_MEMORY, 0, "no memory for a backup");
	err = db_load_space(db, backup->redirect, &backup->record, &backup->space, &backup->why);
	if (err)
		return err;
	err = backup_walk_all(backup);
	if (err == BTS_OK)
		err = backup_header(backup);
	return err ? err : backup_pages(backup);
}

enum bts_err bts_backup(
	struct bts *db, int fd, const struct bts_backup_options *options, struct bts_error *error)
{
	static const struct bts_backup_options plain = {.size = sizeof(plain)};
	struct bts_env *env = db->env;
	struct backup *backup;
	enum bts_err err;

	if (options != NULL && options->size != sizeof(*options))
		return error_set(
			error, BTS_INVALID, 0, "struct bts_backup_options of %zu bytes", options->size);
	backup = env->ops->memory(env, NULL, sizeof(*backup));
	if (backup == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory for a backup");
	memset(backup, 0, sizeof(*backup));
	backup->db = db;
	backup->fd = fd;
	backup->options = options != NULL ? options : &plain;
	err = redirect_enter(
		db, REDIRECT_DURABLE, &backup->reader, &backup->record, &backup->redirect, &backup->why);
	if (err == BTS_OK) {
		err = backup_all(backup);
		redirect_drop(db, backup->redirect);
		shared_reader_leave(db->shared, &backup->reader);
	}
	if (err)
		error_set(error, err, backup->why.os, "backup: %s", backup->why.text);
	space_fini(&backup->space);
	env->ops->memory(env, backup->buffer, 0);
	env->ops->memory(env, backup, 0);
	return err;
}
