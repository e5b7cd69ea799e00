/* See tree_bed.h. */
#include "tree_bed.h"
#include "base/crc32c.h"
#include "base/ensure.h"
#include "cmocka.h"
#include <stdio.h>

#define BED_BYTES ((size_t)1 << 33)

/* dirty_*() gets its memory here. */
static void *bed_memory(struct bts_env *env, void *old, size_t size)
{
	struct tree_bed *bed = (struct tree_bed *)env;

	if (size == 0) {
		free(old);
		return NULL;
	}
	if (bed->fail_in && --bed->fail_in == 0)
		return NULL;
	return realloc(old, size);
}

static void bed_begin(struct tree_bed *bed)
{
	enum bts_err err = dirty_new(&bed->env, bed->pager.page_size, &bed->ctx.dirty);

	ENSURE(err == BTS_OK);
}

struct tree_bed *tree_bed_new(uint32_t page_size)
{
	struct tree_bed *bed = calloc(1, sizeof(*bed));
	struct bts_env *mem;
	enum bts_err err;

	ENSURE(bed);
	bed->mem = env_mem_new(BED_BYTES);
	mem = env_mem_env(bed->mem);
	ENSURE(mem->ops->file_open(mem, "tree", BTS_FILE_WRITE | BTS_FILE_CREATE, &bed->file) == 0);
	err = pager_init(&bed->pager, mem, bed->file, page_size, BED_BYTES, &bed->error);
	ENSURE(err == BTS_OK);
	bed->ops = *mem->ops;
	bed->ops.memory = bed_memory;
	bed->env.ops = &bed->ops;
	bed->live = calloc(1, TREE_BED_PAGES);
	ENSURE(bed->live);
	bed->tree.id = 77;
	bed->ctx = (struct tree_ctx){
		.pager = &bed->pager, .limit = 16, .newest = 100, .stamp = 101, .error = &bed->error};
	bed_begin(bed);
	return bed;
}

void tree_bed_free(struct tree_bed *bed)
{
	struct bts_env *mem = env_mem_env(bed->mem);

	dirty_free(bed->ctx.dirty);
	pager_fini(&bed->pager);
	mem->ops->file_close(bed->file);
	env_mem_free(bed->mem);
	free(bed->live);
	free(bed);
}

void tree_bed_forget(struct tree_bed *bed)
{
	struct pager fresh;
	enum bts_err err =
		pager_init(&fresh, bed->pager.env, bed->file, bed->pager.page_size, BED_BYTES, &bed->error);

	ENSURE(err == BTS_OK);
	pager_fini(&bed->pager);
	bed->pager = fresh;
}

struct tree_ctx tree_bed_reader(struct tree_bed *bed)
{
	struct tree_ctx ctx = bed->ctx;

	ctx.dirty = NULL;
	return ctx;
}

static bts_pgno bed_place(struct tree_bed *bed, uint64_t pages)
{
	bts_pgno pgno = bed->ctx.limit;

	ENSURE(pgno + pages < TREE_BED_PAGES);
	bed->ctx.limit += pages;
	memset(bed->live + pgno, 1, pages);
	return pgno;
}

static void bed_write(struct tree_bed *bed, bts_pgno pgno, const void *data, size_t size)
{
	struct iovec iov = {(void *)(uintptr_t)data, size};

	ENSURE(bed->pager.env->ops->file_pwritev(bed->file, &iov, 1, pgno << bed->pager.page_shift) == 0);
}

static struct page_ptr bed_seal_value(struct tree_bed *bed, const struct page_ptr *ptr, uint64_t size)
{
	uint32_t page_size = bed->pager.page_size;
	uint64_t headers = layout_extent_header_pages(size, page_size),
		 pages = layout_extent_pages(size, page_size);
	struct page_ptr clean = {bed_place(bed, pages), bed->ctx.stamp, 0};
	uint8_t *image = calloc(pages, page_size), *payload = image + headers * page_size;
	struct bts_slice value;

	ENSURE(image && dirty_value(bed->ctx.dirty, ptr, &value) && value.size == size);
	memcpy(payload, value.data, size);
	image[4] = LAYOUT_EXTENT;
	layout_set_pgno(image, clean.pgno);
	layout_set_birth(image, clean.birth);
	layout_set_pages(image, (uint32_t)pages);
	bytes_put_u64(image + LAYOUT_EXTENT_SIZE_AT, size);
	bytes_put_u32(image + LAYOUT_EXTENT_HEADERS_AT, (uint32_t)headers);
	for (uint64_t at = 0, i = 0; at < size; at += LAYOUT_CHUNK, i++)
		bytes_put_u32(image + LAYOUT_EXTENT_TABLE_AT + 4 * i,
			crc32c(0, payload + at, size - at < LAYOUT_CHUNK ? size - at : LAYOUT_CHUNK));
	clean.crc = pager_crc(image, headers * page_size);
	layout_set_crc(image, clean.crc);
	bed_write(bed, clean.pgno, image, pages * page_size);
	free(image);
	return clean;
}

static struct page_ptr bed_seal(struct tree_bed *bed, struct page_ptr ptr)
{
	uint32_t page_size = bed->pager.page_size;
	struct page_ptr clean = {0, bed->ctx.stamp, 0};
	uint8_t *image;

	if (!layout_is_dirty(&ptr))
		return ptr;
	image = malloc(page_size);
	ENSURE(image);
	memcpy(image, dirty_image(bed->ctx.dirty, &ptr), page_size);
	node_tidy(image, page_size);
	for (unsigned i = 0; i < layout_count(image); i++) {
		bool leaf = layout_level(image) == 0;
		struct node_cell cell = {.extent = false};
		struct page_ptr below;

		if (leaf)
			node_cell(image, i, &cell);
		else
			cell.ptr = node_child(image, i);
		if ((leaf && !cell.extent) || !layout_is_dirty(&cell.ptr))
			continue;
		below = leaf ? bed_seal_value(bed, &cell.ptr, cell.size) : bed_seal(bed, cell.ptr);
		node_set_child(image, i, &below);
	}
	clean.pgno = bed_place(bed, 1);
	layout_set_pgno(image, clean.pgno);
	layout_set_birth(image, clean.birth);
	clean.crc = pager_crc(image, page_size);
	layout_set_crc(image, clean.crc);
	bed_write(bed, clean.pgno, image, page_size);
	free(image);
	return clean;
}

static void bed_report(void *arg, bts_pgno page, const char *text)
{
	(void)arg;
	fail_msg("page %llu: %s", (unsigned long long)page, text);
}

static void bed_visit_live(void *arg, const struct page_ptr *ptr, uint64_t pages)
{
	struct tree_bed *bed = arg;

	for (uint64_t i = 0; i < pages; i++) {
		if (bed->live[ptr->pgno + i] != 1)
			fail_msg("page %llu reached, but %s", (unsigned long long)(ptr->pgno + i),
				bed->live[ptr->pgno + i] ? "twice" : "released");
		bed->live[ptr->pgno + i] = 2;
	}
}

void tree_bed_check(struct tree_bed *bed, struct tree_ctx *ctx, bool extents)
{
	struct tree_check check = {.report = bed_report, .extents = extents};

	assert_int_equal(tree_check(ctx, &bed->tree, &check), BTS_OK);
}

struct bed_held {
	struct tree_bed *bed;
	size_t bytes;
};

static void bed_visit_private(void *arg, const struct page_ptr *ptr, uint64_t pages)
{
	struct bed_held *held = arg;
	struct bts_slice value;

	(void)pages;
	if (!layout_is_dirty(ptr))
		return;
	if (dirty_image(held->bed->ctx.dirty, ptr))
		held->bytes += held->bed->pager.page_size;
	else if (dirty_value(held->bed->ctx.dirty, ptr, &value))
		held->bytes += value.size;
	else
		fail_msg("a pointer to nothing");
}

void tree_bed_check_private(struct tree_bed *bed)
{
	struct bed_held held = {.bed = bed};
	struct tree_check check = {.visit = bed_visit_private, .report = bed_report, .arg = &held};

	assert_int_equal(tree_check(&bed->ctx, &bed->tree, &check), BTS_OK);
	assert_int_equal(held.bytes, dirty_bytes(bed->ctx.dirty));
}

void tree_bed_commit(struct tree_bed *bed)
{
	struct tree_check check = {
		.visit = bed_visit_live, .report = bed_report, .arg = bed, .extents = true};
	struct tree_ctx reader;
	const struct dirty_freed *freed;
	size_t count;

	freed = dirty_freed(bed->ctx.dirty, &count);
	for (size_t i = 0; i < count; i++)
		for (uint64_t j = 0; j < freed[i].pages; j++) {
			if (bed->live[freed[i].ptr.pgno + j] != 1)
				fail_msg("page %llu released twice",
					(unsigned long long)(freed[i].ptr.pgno + j));
			bed->live[freed[i].ptr.pgno + j] = 0;
		}
	bed->tree.root = bed_seal(bed, bed->tree.root);
	ENSURE(bed->pager.env->ops->file_sync(bed->file) == 0);
	bed->ctx.newest = bed->ctx.stamp++;
	bed->ctx.changes++;
	dirty_free(bed->ctx.dirty);
	bed_begin(bed);
	reader = tree_bed_reader(bed);
	assert_int_equal(tree_check(&reader, &bed->tree, &check), BTS_OK);
	for (bts_pgno i = 0; i < bed->ctx.limit; i++) {
		if (bed->live[i] == 1)
			fail_msg("page %llu is neither reached nor released", (unsigned long long)i);
		if (bed->live[i] == 2)
			bed->live[i] = 1;
	}
}
