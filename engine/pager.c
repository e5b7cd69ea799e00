/* The page accessor: see pager.h. */
#include "pager.h"

#include "base/crc32c.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "dirty.h"
#include "error.h"
#include "node.h"

#include <inttypes.h>
#include <string.h>

#define PAGER_RANGE (UINT64_C(4) << 40)
#define PAGER_RANGE_STEP 8u   /* handles that take as much as each other */
#define PAGER_RANGE_HALVES 7u /* at most: 32 GiB */
#define PAGER_RANGE_GROWTH 16u

/*
 * Address space is what a process has 128 TiB of, whatever its memory: the more handles of it have not said what they need, the less
 * the next one takes, so that all that can have a file open find room, and the program too.
 */
static _Atomic uint32_t pager_unasked;

static uint64_t pager_range(struct pager *pager)
{
	struct bts_file_identity id = {0};
	uint32_t before = atomic_fetch_add(&pager_unasked, 1) / PAGER_RANGE_STEP;
	uint64_t bytes = PAGER_RANGE >> (before < PAGER_RANGE_HALVES ? before : PAGER_RANGE_HALVES);

	pager->unasked = true;
	if (pager->env->ops->file_identity(pager->file, &id) == 0)
		while (bytes < PAGER_RANGE && bytes / PAGER_RANGE_GROWTH < id.size)
			bytes *= 2;
	return bytes;
}

enum bts_err pager_init(struct pager *pager, struct bts_env *env, struct bts_file *file, uint32_t page_size,
	uint64_t map_bytes, struct bts_error *error)
{
	uint64_t tags_bytes;
	int os;

	memset(pager, 0, sizeof(*pager));
	pager->env = env;
	pager->file = file;
	pager->page_size = page_size;
	pager->page_shift = (uint32_t)__builtin_ctz(page_size);
	if (map_bytes == 0)
		map_bytes = pager_range(pager);
	for (;;) {
		os = env->ops->file_map(file, map_bytes, &pager->base);
		if (os == 0)
			break;
		if (map_bytes <= (UINT64_C(1) << 28))
			return error_os(error, os, "cannot map the data file");
		map_bytes /= 2;
	}
	pager->map_bytes = map_bytes;
	pager->tag_blocks = (map_bytes >> pager->page_shift) / PAGER_TAG_BLOCK + 1;
	tags_bytes = pager->tag_blocks * sizeof(*pager->tags);
	pager->tags = env->ops->memory(env, NULL, tags_bytes);
	if (pager->tags == NULL) {
		pager_fini(pager);
		return error_set(error, BTS_MEMORY, 0, "no memory for page tags");
	}
	memset(pager->tags, 0, tags_bytes);
	return BTS_OK;
}

void pager_fini(struct pager *pager)
{
	struct bts_env *env = pager->env;

	if (pager->tags != NULL) {
		for (uint64_t i = 0; i < pager->tag_blocks; i++)
			if (pager->tags[i] != NULL)
				env->ops->memory(env, (void *)pager->tags[i], 0);
		env->ops->memory(env, (void *)pager->tags, 0);
		pager->tags = NULL;
	}
	if (pager->base != NULL)
		env->ops->file_unmap(pager->file, pager->base, pager->map_bytes);
	pager->base = NULL;
	if (pager->unasked)
		atomic_fetch_sub(&pager_unasked, 1);
	pager->unasked = false;
}

/* A tag is a cache of a verification: when there is no memory for it, the next touch verifies again. */
void pager_tag(struct pager *pager, bts_pgno pgno, uint32_t crc)
{
	_Atomic(_Atomic uint32_t *) *at;
	_Atomic uint32_t *block;

	if ((pgno + 1) << pager->page_shift > pager->map_bytes)
		return;
	at = &pager->tags[pgno / PAGER_TAG_BLOCK];
	block = atomic_load_explicit(at, memory_order_acquire);
	if (block == NULL) {
		_Atomic uint32_t *fresh = pager->env->ops->memory(pager->env, NULL, PAGER_TAG_BLOCK * sizeof(*fresh));

		if (fresh == NULL)
			return;
		memset((void *)fresh, 0, PAGER_TAG_BLOCK * sizeof(*fresh));
		if (atomic_compare_exchange_strong(at, &block, fresh))
			block = fresh;
		else
			pager->env->ops->memory(pager->env, (void *)fresh, 0);
	}
	atomic_store_explicit(&block[pgno % PAGER_TAG_BLOCK], pager_tag_value(crc), memory_order_relaxed);
}

void pager_forget(struct pager *pager, bts_pgno pgno)
{
	_Atomic uint32_t *block;

	if ((pgno + 1) << pager->page_shift > pager->map_bytes)
		return;
	block = atomic_load_explicit(&pager->tags[pgno / PAGER_TAG_BLOCK], memory_order_acquire);
	if (block != NULL)
		atomic_store_explicit(&block[pgno % PAGER_TAG_BLOCK], 0, memory_order_relaxed);
}

/* *image is NULL when the file or the map ends before; an errno when the file's size cannot be told. */
static int pager_reach(struct pager *pager, bts_pgno pgno, uint64_t count, const uint8_t **image)
{
	struct bts_file_identity id;
	uint64_t end;
	int os;

	*image = NULL;
	if (pgno >= LAYOUT_PGNO_LIMIT || count > LAYOUT_PGNO_LIMIT)
		return 0;
	end = (pgno + count) << pager->page_shift;
	if (end > pager->map_bytes)
		return 0;
	if (end > atomic_load_explicit(&pager->mapped, memory_order_relaxed)) {
		os = pager->env->ops->file_identity(pager->file, &id);
		if (os != 0 || end > id.size)
			return os;
		atomic_store_explicit(&pager->mapped, id.size < pager->map_bytes ? id.size : pager->map_bytes,
			memory_order_relaxed);
	}
	*image = pager->base + (pgno << pager->page_shift);
	return 0;
}

const uint8_t *pager_raw(struct pager *pager, bts_pgno pgno, uint64_t count)
{
	const uint8_t *image;

	return pager_reach(pager, pgno, count, &image) == 0 ? image : NULL;
}

const uint8_t *pager_image(const struct tree_ctx *ctx, const struct page_ptr *ptr, uint64_t count)
{
	_Atomic bool *verified;
	const uint8_t *image = ctx->redirect ? ctx->redirect(ctx->redirect_arg, ptr, count, &verified) : NULL;

	return image ? image : pager_raw(ctx->pager, ptr->pgno, count);
}

uint32_t pager_crc(const uint8_t *image, size_t size)
{
	return crc32c(0, image + 4, size - 4);
}

/* Bytes that a pointer leads to.  verified: of a page that is not home, its own flag; NULL: the tags know. */
struct pager_place {
	const uint8_t *image;
	_Atomic bool *verified;
};

static enum bts_err pager_bounds(struct tree_ctx *ctx, const struct page_ptr *ptr, uint64_t count, struct pager_place *place)
{
	int os = 0;

	*place = (struct pager_place){ NULL, NULL };
	if (ptr->pgno == 0 || ptr->pgno >= ctx->limit || count > ctx->limit - ptr->pgno)
		return error_set(ctx->error, BTS_CORRUPT, 0,
			"page %" PRIu64 ": pointer outside the file's %" PRIu64 " pages", ptr->pgno, ctx->limit);
	if (ptr->birth == 0 || ptr->birth > ctx->newest)
		return error_set(ctx->error, BTS_CORRUPT, 0,
			"page %" PRIu64 ": birth %" PRIu64 " is beyond its snapshot %" PRIu64, ptr->pgno, ptr->birth,
			ctx->newest);
	if (ctx->redirect && !SABOTAGE(FAULT_R6_HOME_FIRST))
		place->image = ctx->redirect(ctx->redirect_arg, ptr, count, &place->verified);
	if (place->image == NULL)
		os = pager_reach(ctx->pager, ptr->pgno, count, &place->image);
	if (os)
		return error_os(ctx->error, os, "page %" PRIu64 ": cannot tell the size of the file", ptr->pgno);
	if (place->image == NULL && (ptr->pgno + count) << ctx->pager->page_shift > ctx->pager->map_bytes)
		return error_set(ctx->error, BTS_LIMIT, 0,
			"page %" PRIu64 ": beyond the %" PRIu64 " bytes of address range reserved for the file", ptr->pgno,
			ctx->pager->map_bytes);
	if (place->image == NULL)
		return error_set(ctx->error, BTS_CORRUPT, 0, "page %" PRIu64 ": beyond the end of the file",
			ptr->pgno);
	return BTS_OK;
}

static enum bts_err pager_stranger(struct tree_ctx *ctx, const struct page_ptr *ptr, const uint8_t *image)
{
	return error_set(ctx->error, BTS_CORRUPT, 0,
		"page %" PRIu64 ": expected birth %" PRIu64 " crc %08x, found page %" PRIu64 " birth %" PRIu64 " crc %08x",
		ptr->pgno, ptr->birth, ptr->crc, layout_pgno(image), layout_birth(image), layout_crc(image));
}

static bool pager_same(const struct page_ptr *ptr, const uint8_t *image)
{
	return layout_crc(image) == ptr->crc && layout_pgno(image) == ptr->pgno && layout_birth(image) == ptr->birth;
}

/*
 * First touch of an incarnation: the crc over bytes.  A mismatch is read once more through the file, which turns a
 * device error that the map cannot report into BTS_IO.
 */
static enum bts_err pager_verify(struct tree_ctx *ctx, const struct page_ptr *ptr, const struct pager_place *place, size_t size)
{
	const uint8_t *image = place->image;
	struct pager *pager = ctx->pager;
	uint8_t *again;
	size_t got = 0;
	int os;

	if (pager_crc(image, size) == ptr->crc)
		return BTS_OK;
	if (place->verified != NULL)
		return error_set(ctx->error, BTS_CORRUPT, 0,
			"page %" PRIu64 ": checksum mismatch (birth %" PRIu64 ") in the log of pages that are not home (path.pending)",
			ptr->pgno, ptr->birth);
	again = pager->env->ops->memory(pager->env, NULL, size);
	if (again == NULL)
		return error_set(ctx->error, BTS_MEMORY, 0, "no memory to verify page %" PRIu64, ptr->pgno);
	os = pager->env->ops->file_pread(pager->file, again, size, ptr->pgno << pager->page_shift, &got);
	pager->env->ops->memory(pager->env, again, 0);
	if (os != 0)
		return error_os(ctx->error, os, "page %" PRIu64 ": cannot read", ptr->pgno);
	if (pager_crc(image, size) == ptr->crc)
		return BTS_OK;
	return error_set(ctx->error, BTS_CORRUPT, 0, "page %" PRIu64 ": checksum mismatch (birth %" PRIu64 ")", ptr->pgno,
		ptr->birth);
}

static bool pager_verified(const struct tree_ctx *ctx, const struct page_ptr *ptr, const struct pager_place *place)
{
	if (place->verified != NULL)
		return atomic_load_explicit(place->verified, memory_order_relaxed);
	return pager_tagged(ctx->pager, ptr->pgno, ptr->crc);
}

static void pager_remember(struct tree_ctx *ctx, const struct page_ptr *ptr, const struct pager_place *place)
{
	if (place->verified != NULL)
		atomic_store_explicit(place->verified, true, memory_order_relaxed);
	else
		pager_tag(ctx->pager, ptr->pgno, ptr->crc);
}

static enum bts_err pager_first_touch(struct tree_ctx *ctx, const struct page_ptr *ptr, const struct pager_place *place)
{
	enum bts_err err = pager_verify(ctx, ptr, place, ctx->pager->page_size);
	const char *wrong;

	if (err)
		return err;
	wrong = node_check(place->image, ctx->pager->page_size, ctx->limit, ptr->birth);
	if (wrong != NULL)
		return error_set(ctx->error, BTS_CORRUPT, 0, "page %" PRIu64 ": %s", ptr->pgno, wrong);
	pager_remember(ctx, ptr, place);
	return BTS_OK;
}

static enum bts_err pager_misplaced(struct tree_ctx *ctx, const struct page_ptr *ptr, const uint8_t *image,
	uint32_t tree, int level)
{
	return error_set(ctx->error, BTS_CORRUPT, 0,
		"page %" PRIu64 ": expected a node of tree %u level %d, found type %u tree %u level %u", ptr->pgno, tree,
		level, layout_type(image), layout_tree(image), layout_level(image));
}

enum bts_err pager_node_slow(struct tree_ctx *ctx, const struct page_ptr *ptr, uint32_t tree, int level,
	const uint8_t **page)
{
	struct pager_place place;
	const uint8_t *image;
	enum bts_err err;

	if (layout_is_dirty(ptr)) {
		image = ctx->dirty == NULL ? NULL : dirty_image(ctx->dirty, ptr);
		if (image == NULL)
			return error_set(ctx->error, BTS_CORRUPT, 0, "pointer to a private page that does not exist");
	} else {
		err = pager_bounds(ctx, ptr, 1, &place);
		if (err)
			return err;
		image = place.image;
		if (!pager_same(ptr, image))
			return pager_stranger(ctx, ptr, image);
		if (!pager_verified(ctx, ptr, &place)) {
			err = pager_first_touch(ctx, ptr, &place);
			if (err)
				return err;
		}
	}
	if (layout_tree(image) != tree || (level >= 0 && layout_level(image) != level) || layout_type(image) > LAYOUT_BRANCH)
		return pager_misplaced(ctx, ptr, image, tree, level);
	*page = image;
	return BTS_OK;
}

enum bts_err pager_free_log(struct tree_ctx *ctx, const struct page_ptr *ptr, const uint8_t **page)
{
	struct pager_place place;
	enum bts_err err = pager_bounds(ctx, ptr, 1, &place);
	const uint8_t *image = place.image;

	if (err)
		return err;
	if (!pager_same(ptr, image))
		return pager_stranger(ctx, ptr, image);
	err = pager_verify(ctx, ptr, &place, ctx->pager->page_size);
	if (err)
		return err;
	if (layout_type(image) != LAYOUT_FREE_LOG || layout_tree(image) != LAYOUT_TREE_FREE_LOG)
		return error_set(ctx->error, BTS_CORRUPT, 0, "page %" PRIu64 ": not a page of the free log", ptr->pgno);
	*page = image;
	return BTS_OK;
}

/* From *done, a chunk's begin, on until it is at least `until`, or the end. */
static enum bts_err pager_chunks(struct tree_ctx *ctx, const struct page_ptr *ptr, uint64_t size, const uint8_t *image,
	uint64_t header_bytes, uint64_t until, uint64_t *done)
{
	const uint8_t *payload = image + header_bytes;

	while (*done < until) {
		uint64_t at = *done, i = at / LAYOUT_CHUNK, part = size - at < LAYOUT_CHUNK ? size - at : LAYOUT_CHUNK;

		if (crc32c(0, payload + at, part) != bytes_get_u32(image + LAYOUT_EXTENT_TABLE_AT + 4 * i))
			return error_set(ctx->error, BTS_CORRUPT, 0,
				"page %" PRIu64 ": checksum mismatch in a large value (chunk %" PRIu64 " of extent %" PRIu64
				")",
				ptr->pgno + ((header_bytes + at) >> ctx->pager->page_shift), i, ptr->pgno);
		*done += part;
	}
	return BTS_OK;
}

enum bts_err pager_extent(struct tree_ctx *ctx, const struct page_ptr *ptr, uint64_t size, struct bts_slice *value)
{
	struct bts_get_state state = { 0, NULL, 0 };

	return pager_extent_bounded(ctx, ptr, size, UINT64_MAX, &state, value);
}

/* What was verified in one place says nothing of another: the page may have gone home since the last step. */
static void pager_same_place(struct bts_get_state *state, const struct page_ptr *ptr, const uint8_t *image)
{
	if (state->image != image || state->crc != ptr->crc)
		*state = (struct bts_get_state){ 0, image, ptr->crc };
}

enum bts_err pager_extent_bounded(struct tree_ctx *ctx, const struct page_ptr *ptr, uint64_t size, uint64_t most,
	struct bts_get_state *state, struct bts_slice *value)
{
	struct pager *pager = ctx->pager;
	struct pager_place place;
	const uint8_t *image;
	uint64_t headers, pages, until;
	enum bts_err err;
	bool tagged;

	if (layout_is_dirty(ptr)) {
		if (ctx->dirty != NULL && dirty_value(ctx->dirty, ptr, value) && value->size == size)
			return BTS_OK;
		return error_set(ctx->error, BTS_CORRUPT, 0, "pointer to a private value that does not exist");
	}
	if (size > BTS_VALUE_MAX)
		return error_set(ctx->error, BTS_CORRUPT, 0, "page %" PRIu64 ": value of %" PRIu64 " bytes", ptr->pgno, size);
	headers = layout_extent_header_pages(size, pager->page_size);
	pages = layout_extent_pages(size, pager->page_size);
	err = pager_bounds(ctx, ptr, pages, &place);
	if (err)
		return err;
	image = place.image;
	if (!pager_same(ptr, image))
		return pager_stranger(ctx, ptr, image);
	tagged = pager_verified(ctx, ptr, &place);
	pager_same_place(state, ptr, image);
	*value = (struct bts_slice){ NULL, size };
	if (!tagged && most == 0)
		return BTS_OK;
	if (!tagged && state->done == 0)
		err = pager_verify(ctx, ptr, &place, headers << pager->page_shift);
	if (err)
		return err;
	if (layout_type(image) != LAYOUT_EXTENT || layout_pages(image) != pages ||
		bytes_get_u64(image + LAYOUT_EXTENT_SIZE_AT) != size ||
		bytes_get_u32(image + LAYOUT_EXTENT_HEADERS_AT) != headers || (!tagged && !layout_extent_plain(image)))
		return error_set(ctx->error, BTS_CORRUPT, 0, "page %" PRIu64 ": not the extent of a value of %" PRIu64 " bytes",
			ptr->pgno, size);
	until = most < size && state->done < size - most ? state->done + most : size;
	if (!tagged)
		err = pager_chunks(ctx, ptr, size, image, headers << pager->page_shift, until, &state->done);
	if (err)
		return err;
	if (!tagged && state->done < size)
		return BTS_OK;
	state->done = size;
	pager_remember(ctx, ptr, &place);
	value->data = image + (headers << pager->page_shift);
	return BTS_OK;
}
