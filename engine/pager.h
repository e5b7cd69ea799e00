/*
 * The page accessor (rule P1): from a pointer to verified bytes in the map, or to a page of the transaction's memory.
 *
 * Every touch compares the header's (pgno, birth, crc) with the pointer's.  The crc is computed once per
 * incarnation per process: tags[pgno] remembers the crc that was verified.  On first touch a node is also checked
 * structurally (node_check), so that later reads may trust its offsets.  A node that this process has just written from
 * memory counts as touched (pager_tag).
 */
#ifndef PAGER_H
#define PAGER_H

#include "layout.h"
#include <btree_store/env.h>
#include <stdatomic.h>

struct dirty;
struct tree_way;

#define PAGER_TAG_BLOCK 16384u /* tags in a block */

struct pager {
	struct bts_env *env;
	struct bts_file *file;
	const uint8_t *base;    /* the map */
	uint64_t map_bytes;     /* reserved for the map */
	bool unasked;           /* counted in pager_range */
	_Atomic uint64_t mapped; /* bytes of the file known to exist: no touch beyond */
	uint32_t page_size;
	uint32_t page_shift;
	/* by page number, in blocks made at first use; a tag is the crc that was verified, 0 = none */
	_Atomic(_Atomic uint32_t *) *tags;
	uint64_t tag_blocks;
};

/* Where the last entry that was put behind all others of its leaf stands: the next of a run needs no way down. */
struct tree_run {
	uint64_t changes;        /* of the context, right after it */
	struct page_ptr leaf;    /* private */
	struct bts_slice behind; /* separator behind the leaf; data NULL: none.  Borrowed from a branch above it */
	uint32_t tree;
};

/* What a tree operation works in: a snapshot's bounds, and for writers their private pages. */
struct tree_ctx {
	struct pager *pager;
	bts_pgno limit;          /* the snapshot's high-water mark: pointers to pages from here on are corrupt */
	bts_txid newest;         /* the snapshot's txid: births above it are corrupt */
	struct dirty *dirty;     /* NULL when reading only */
	bts_txid stamp;          /* version and last-delete given to what is written; 0 while private */
	struct bts_error *error; /* where failing calls explain themselves; never NULL */
	uint64_t changes;        /* +1 at every change, for cursors to notice */
	struct tree_run run;     /* a hint of tree_put's */
	struct tree_way *way;    /* another (tree_path.h), or NULL */
	bool aside;              /* what is released now is of a tree that named snapshots do not reach (snapshot.h) */
	/*
	 * NULL, or asked before the home of a page (redirect.h, apply_proof.c): where its bytes are, and the flag that says
	 * whether they were verified; NULL from it: at home.
	 */
	const uint8_t *(*redirect)(void *arg, const struct page_ptr *ptr, uint64_t count, _Atomic bool **verified);
	void *redirect_arg;
};

/* map_bytes 0: by how many handles of this process there are (bts_options.map_bytes). */
enum bts_err pager_init(struct pager *, struct bts_env *, struct bts_file *, uint32_t page_size, uint64_t map_bytes,
	struct bts_error *);
void pager_fini(struct pager *);

/* pager_node where it takes more than comparisons: private pages, first touches, pages not home, errors. */
enum bts_err pager_node_slow(struct tree_ctx *, const struct page_ptr *ptr, uint32_t tree, int level, const uint8_t **page);

static inline uint32_t pager_tag_value(uint32_t crc)
{
	return crc == 0 ? 1 : crc;
}

static inline bool pager_tagged(const struct pager *pager, bts_pgno pgno, uint32_t crc)
{
	_Atomic uint32_t *block;

	block = atomic_load_explicit(&pager->tags[pgno / PAGER_TAG_BLOCK], memory_order_acquire);
	return block != NULL && atomic_load_explicit(&block[pgno % PAGER_TAG_BLOCK], memory_order_relaxed) ==
					pager_tag_value(crc);
}

/*
 * What nearly every touch of a node is: a page in the file, verified before.  NULL: it takes more, or is not the node.  A tag
 * is set only by the slow way, which looked at everything; an extent's has no node of this tree in its header.
 */
static inline const uint8_t *pager_near(const struct tree_ctx *ctx, const struct page_ptr *ptr, uint32_t tree, int level)
{
	const struct pager *pager = ctx->pager;
	/* a number, not a pointer, while it may lie outside the map: a private page's does */
	const uint8_t *image = (const uint8_t *)((uintptr_t)pager->base + (ptr->pgno << pager->page_shift));
	bool near = ptr->pgno < ctx->limit && ptr->birth <= ctx->newest && ctx->redirect == NULL &&
		    (ptr->pgno + 1) << pager->page_shift <= atomic_load_explicit(&pager->mapped, memory_order_relaxed);

	/* one branch for all that is equal nearly always */
	if (__builtin_expect(near && pager_tagged(pager, ptr->pgno, ptr->crc), 1)) {
		uint64_t differs = (layout_crc(image) ^ ptr->crc) | (layout_pgno(image) ^ ptr->pgno) |
				   (layout_birth(image) ^ ptr->birth) | (layout_tree(image) ^ tree);

		if (__builtin_expect(differs == 0 && (level < 0 || layout_level(image) == level), 1))
			return image;
	}
	return NULL;
}

/*
 * The node that ptr names, which must be of this tree and level (level -1: any).  *page is borrowed: in the map until
 * the snapshot ends, in memory until the next change of the tree.  Errors: BTS_CORRUPT naming page and what differs.
 */
static inline enum bts_err pager_node(struct tree_ctx *ctx, const struct page_ptr *ptr, uint32_t tree, int level,
	const uint8_t **page)
{
	const uint8_t *image = pager_near(ctx, ptr, tree, level);

	if (__builtin_expect(image == NULL, 0))
		return pager_node_slow(ctx, ptr, tree, level, page);
	*page = image;
	return BTS_OK;
}

/*
 * Ask the caches for lines (64 bytes each) of a page that is about to be read; no harm when ptr is wrong.  A macro in
 * all but name: compilers take a function that only prefetches for one without effect, and drop its calls.
 */
#define PAGER_INLINE __attribute__((always_inline)) static inline
PAGER_INLINE void pager_prefetch(const struct tree_ctx *ctx, const struct page_ptr *ptr, unsigned line, unsigned count)
{
	const uint8_t *at;

	at = (const uint8_t *)((uintptr_t)ctx->pager->base + (ptr->pgno << ctx->pager->page_shift)) + 64 * line;
	if (ptr->pgno < ctx->limit)
		for (unsigned i = 0; i < count; i++)
			__builtin_prefetch(at + 64 * i);
}

/* The same for what a search in a node reads first: header and slots. */
PAGER_INLINE void pager_expect(const struct tree_ctx *ctx, const struct page_ptr *ptr, bool branch)
{
	pager_prefetch(ctx, ptr, 0, branch ? 8 : 5);
}

/* The value of an extent, all of its chunks verified once per incarnation. */
enum bts_err pager_extent(struct tree_ctx *, const struct page_ptr *ptr, uint64_t size, struct bts_slice *value);
/* The same, at most so many bytes of chunks in a call: value->data stays NULL until all are verified (bts_get_bounded). */
enum bts_err pager_extent_bounded(struct tree_ctx *, const struct page_ptr *ptr, uint64_t size, uint64_t most,
	struct bts_get_state *state, struct bts_slice *value);

/* A page of the free log. */
enum bts_err pager_free_log(struct tree_ctx *, const struct page_ptr *ptr, const uint8_t **page);

/* Reads and verifies without tags, from the map: used by check, walk and apply.  count pages from ptr->pgno. */
const uint8_t *pager_raw(struct pager *, bts_pgno pgno, uint64_t count); /* NULL when beyond the file */

/* The same of what the context shows there: asks for redirected pages first. */
const uint8_t *pager_image(const struct tree_ctx *, const struct page_ptr *ptr, uint64_t count);

/* This incarnation needs no verification: it was verified, or this process has made it and written it from memory. */
void pager_tag(struct pager *, bts_pgno pgno, uint32_t crc);
/* It turned out to be damaged: the next touch verifies. */
void pager_forget(struct pager *, bts_pgno pgno);

/* crc of a page image, or of the header pages of an extent: bytes 4 .. size. */
uint32_t pager_crc(const uint8_t *image, size_t size);

#endif
