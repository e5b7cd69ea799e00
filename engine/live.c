/*
 * Single pages of a pinned commit: bts_pages_* (ship.h), and the judging of a unit on its own (live.h).
 *
 * A page is given out when its run is not free in the pinned commit, when its header says what was asked for, and when its
 * bytes prove it.  What is not free is reachable (G2), by a pointer to what stands there: so (page number,
 * birth, crc) that stand there are the ones the tree has.
 */
#include "live.h"

#include <inttypes.h>
#include <string.h>

#include "base/crc32c.h"
#include "error.h"
#include "node.h"
#include "redirect.h"

struct bts_pages {
	struct bts *db;
	struct shared_reader reader;
	struct redirect *redirect;
	struct commit_record record;
	struct bts_position position;
	struct space space; /* of the commit: what is free in it */
	size_t record_size;
	uint8_t record_bytes[BTS_RECORD_MAX];
};

bool live_same(const uint8_t *image, const struct page_ptr *ptr)
{
	return layout_pgno(image) == ptr->pgno && layout_birth(image) == ptr->birth && layout_crc(image) == ptr->crc;
}

uint64_t live_extent_size(const uint8_t *image, uint64_t pages, uint32_t page_size)
{
	uint64_t size = bytes_get_u64(image + LAYOUT_EXTENT_SIZE_AT);

	if (layout_type(image) != LAYOUT_EXTENT || size > BTS_VALUE_MAX || layout_extent_pages(size, page_size) != pages ||
		layout_pages(image) != pages ||
		bytes_get_u32(image + LAYOUT_EXTENT_HEADERS_AT) != layout_extent_header_pages(size, page_size) ||
		!layout_extent_plain(image))
		return 0;
	return size;
}

static bool live_zero(const uint8_t *bytes, uint64_t size)
{
	return size == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0);
}

static const char *live_check_extent(const uint8_t *image, uint64_t pages, uint32_t page_size)
{
	uint64_t size = live_extent_size(image, pages, page_size);
	uint64_t headers, table;
	const uint8_t *payload;

	if (size == 0)
		return "not a large value of so many pages";
	headers = layout_extent_header_pages(size, page_size) * page_size;
	table = LAYOUT_EXTENT_TABLE_AT + 4 * layout_extent_chunks(size);
	payload = image + headers;
	if (pager_crc(image, headers) != layout_crc(image))
		return "checksum mismatch";
	for (uint64_t at = 0, i = 0; at < size; at += LAYOUT_CHUNK, i++) {
		uint64_t part = size - at < LAYOUT_CHUNK ? size - at : LAYOUT_CHUNK;

		if (crc32c(0, payload + at, part) != bytes_get_u32(image + LAYOUT_EXTENT_TABLE_AT + 4 * i))
			return "checksum mismatch in a large value";
	}
	if (!live_zero(image + table, headers - table) || !live_zero(payload + size, pages * page_size - headers - size))
		return "bytes behind the end of a large value";
	return NULL;
}

const char *live_check(const uint8_t *image, const struct bts_page_id *id, uint32_t page_size, bts_pgno limit)
{
	const struct page_ptr ptr = {id->pgno, id->birth, id->crc};

	if (!live_same(image, &ptr))
		return "its header is of another page";
	if (layout_pages(image) != id->count)
		return "its header counts other pages";
	if (id->kind == BTS_KIND_EXTENT)
		return live_check_extent(image, id->count, page_size);
	if (pager_crc(image, page_size) != id->crc)
		return "checksum mismatch";
	if (id->kind == BTS_KIND_NODE)
		return node_check(image, page_size, limit, id->birth);
	if (layout_type(image) != LAYOUT_FREE_LOG || layout_tree(image) != LAYOUT_TREE_FREE_LOG)
		return "not a page of the free log";
	return NULL;
}

enum bts_err bts_pages_open(struct bts *db, struct bts_pages **out, struct bts_error *error)
{
	struct bts_env *env = db->env;
	struct bts_pages *pages = env->ops->memory(env, NULL, sizeof(*pages));
	enum bts_err err;

	if (!pages)
		return error_set(error, BTS_MEMORY, 0, "no memory to give out pages");
	memset(pages, 0, sizeof(*pages));
	pages->db = db;
	err = redirect_enter(db, REDIRECT_DURABLE, &pages->reader, &pages->record, &pages->redirect, error);
	if (err)
		goto fail;
	err = db_load_space(db, pages->redirect, &pages->record, &pages->space, error);
	if (err) {
		redirect_drop(db, pages->redirect);
		shared_reader_leave(db->shared, &pages->reader);
		goto fail;
	}
	meta_position(&pages->record, &pages->position);
	pages->record_size = meta_record_encode(&pages->record, pages->record_bytes);
	*out = pages;
	return BTS_OK;
fail:
	env->ops->memory(env, pages, 0);
	return err;
}

void bts_pages_close(struct bts_pages *pages)
{
	struct bts *db;

	if (!pages)
		return;
	db = pages->db;
	space_fini(&pages->space);
	redirect_drop(db, pages->redirect);
	shared_reader_leave(db->shared, &pages->reader);
	db->env->ops->memory(db->env, pages, 0);
}

const struct bts_position *bts_pages_position(const struct bts_pages *pages)
{
	return &pages->position;
}

struct bts_slice bts_pages_record(const struct bts_pages *pages)
{
	return (struct bts_slice){pages->record_bytes, pages->record_size};
}

uint32_t bts_pages_page_size(const struct bts_pages *pages)
{
	return pages->record.page_size;
}

static enum bts_err live_absent(const struct bts_page_id *id, struct bts_error *error)
{
	return error_set(error, BTS_NOT_FOUND, 0,
		"page %" PRIu64 " of birth %" PRIu64 " is not part of this commit", id->pgno, id->birth);
}

enum bts_err bts_pages_read(
	struct bts_pages *pages, const struct bts_page_id *id, struct bts_slice *bytes, struct bts_error *error)
{
	const struct commit_record *record = &pages->record;
	const struct page_ptr ptr = {id->pgno, id->birth, id->crc};
	struct tree_ctx ctx = {.pager = &pages->db->pager};
	const uint8_t *image;
	const char *wrong;

	if (id->count < 1 || (id->kind != BTS_KIND_EXTENT && id->count != 1) || id->kind < BTS_KIND_NODE ||
		id->kind > BTS_KIND_FREE_LOG)
		return error_set(error, BTS_INVALID, 0, "page %" PRIu64 ": impossible kind or count", id->pgno);
	if (id->pgno < record->first || id->pgno >= record->high_water || id->count > record->high_water - id->pgno ||
		!space_is_live(&pages->space, (struct space_run){id->pgno, id->count}))
		return live_absent(id, error);
	redirect_use(&ctx, pages->redirect);
	image = pager_image(&ctx, &ptr, id->count);
	if (!image)
		return error_set(error, BTS_CORRUPT, 0, "page %" PRIu64 ": beyond the end of the file", id->pgno);
	if (!live_same(image, &ptr) || layout_pages(image) != id->count)
		return live_absent(id, error);
	wrong = live_check(image, id, record->page_size, record->high_water);
	if (wrong)
		return error_set(error, BTS_CORRUPT, 0, "page %" PRIu64 ": %s", id->pgno, wrong);
	*bytes = (struct bts_slice){image, (size_t)id->count * record->page_size};
	return BTS_OK;
}
