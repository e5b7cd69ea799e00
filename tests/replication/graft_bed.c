#include "graft_bed.h"

#include <stdlib.h>

#define GRAFT_BATCH 64u

void graft_copy(struct env_mem *mem, const char *from, const char *to)
{
	uint64_t size;
	const uint8_t *bytes = env_mem_bytes(mem, from, &size);

	assert_non_null(bytes);
	env_mem_put_file(mem, to, bytes, size);
}

static enum bts_err graft_send(struct bts_apply *apply, struct bts_pages *pages, const struct bts_page_id *id,
	struct rng *rng, struct bts_error *error)
{
	uint32_t page_size = bts_pages_page_size(pages);
	struct bts_slice bytes;
	enum bts_err err = bts_pages_read(pages, id, &bytes, error);

	for (uint32_t first = 0, count; !err && first < id->count; first += count) {
		count = id->count - first;
		if (rng && count > 1)
			count = 1 + (uint32_t)rng_below(rng, count);
		err = bts_apply_piece(apply, id, first,
			(struct bts_slice){(const uint8_t *)bytes.data + (size_t)first * page_size,
				(size_t)count * page_size},
			error);
	}
	return err;
}

enum bts_err graft_fetch(struct bts *follower, struct bts_pages *pages, const struct bts_position *fork, struct rng *rng,
	struct graft_count *count, struct bts_apply **out, struct bts_error *error)
{
	struct bts_page_id ids[GRAFT_BATCH];
	struct bts_apply *apply;
	size_t n;
	enum bts_err err;

	memset(count, 0, sizeof(*count));
	err = bts_apply_begin_graft(
		follower, fork, bts_pages_position(pages), bts_pages_record(pages), &apply, error);
	if (err)
		return err;
	do {
		err = bts_apply_missing(apply, ids, rng ? 1 + rng_below(rng, GRAFT_BATCH) : GRAFT_BATCH, &n, error);
		for (size_t i = 0; !err && i < n; i++) {
			err = graft_send(apply, pages, &ids[i], rng, error);
			count->units++;
			count->pages += ids[i].count;
		}
		count->rounds++;
	} while (!err && n > 0);
	if (err)
		bts_apply_abort(apply);
	else
		*out = apply;
	return err;
}

enum bts_err graft(struct bts *follower, struct bts *source, const struct bts_position *fork, struct rng *rng,
	struct graft_count *count, struct bts_error *error)
{
	struct bts_pages *pages;
	struct bts_apply *apply;
	enum bts_err err = bts_pages_open(source, &pages, error);

	if (err)
		return err;
	err = graft_fetch(follower, pages, fork, rng, count, &apply, error);
	if (!err)
		err = bts_apply_finish(apply, bts_pages_record(pages), error);
	bts_pages_close(pages);
	return err;
}

static int graft_order(const void *a, const void *b)
{
	const struct bed_unit *x = a, *y = b;

	return (x->id.pgno > y->id.pgno) - (x->id.pgno < y->id.pgno);
}

void graft_differs(struct bts *target, struct bts *local, bts_txid trust, struct graft_count *count)
{
	struct bts_position nothing = {.txid = 0};
	struct bed_frame *now = bed_frame_new(target, &nothing), *old = bed_frame_new(local, &nothing);

	memset(count, 0, sizeof(*count));
	qsort(old->units, old->count, sizeof(old->units[0]), graft_order);
	for (size_t i = 0; i < now->count; i++) {
		struct bed_unit *unit = &now->units[i], *same;

		same = old->count ? bsearch(unit, old->units, old->count, sizeof(*unit), graft_order) : NULL;
		if (same && same->id.birth == unit->id.birth && same->id.crc == unit->id.crc && unit->id.birth <= trust)
			continue;
		count->units++;
		count->pages += unit->id.count;
	}
	bed_frame_free(now);
	bed_frame_free(old);
}
