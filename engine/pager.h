/*
 * The page accessor (rule P1): from a pointer to verified bytes in the map, or to a page of the transaction's memory.
 *
 * Every touch compares the header's (pgno, birth, crc) with the pointer's.  The crc is computed once per
 * incarnation per process: tags[pgno] remembers the crc that was verified.  On first touch a node is also checked
 * structurally (node_check), so that later reads may trust its offsets.
 */
#ifndef PAGER_H
#define PAGER_H

#include "layout.h"
#include <btree_store/env.h>
#include <stdatomic.h>

struct dirty;

#define PAGER_TAG_BLOCK 16384u /* tags in a block */

struct pager {
	struct bts_env *env;
	struct bts_file *file;
	const uint8_t *base;    /* the map */
	uint64_t map_bytes;     /* reserved for the map */
	_Atomic uint64_t mapped; /* bytes of the file known to exist: no touch beyond */
	uint32_t page_size;
	uint32_t page_shift;
	/* by page number, in blocks made at first use; a tag is the crc that was verified, 0 = none */
	_Atomic(_Atomic uint32_t *) *tags;
	uint64_t tag_blocks;
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
	bool aside;              /* what is released now is of a tree that named snapshots do not reach (snapshot.h) */
	/* NULL, or where the bytes of a page are that is not home yet (apply.c); NULL from it: nowhere */
	const uint8_t *(*redirect)(void *arg, const struct page_ptr *ptr, uint64_t count);
	void *redirect_arg;
};

enum bts_err pager_init(struct pager *, struct bts_env *, struct bts_file *, uint32_t page_size, uint64_t map_bytes,
	struct bts_error *);
void pager_fini(struct pager *);

/*
 * The node that ptr names, which must be of this tree and level (level -1: any).  *page is borrowed: in the map until
 * the snapshot ends, in memory until the next change of the tree.  Errors: BTS_CORRUPT naming page and what differs.
 */
enum bts_err pager_node(struct tree_ctx *, const struct page_ptr *ptr, uint32_t tree, int level, const uint8_t **page);

/* The value of an extent, all of its chunks verified once per incarnation. */
enum bts_err pager_extent(struct tree_ctx *, const struct page_ptr *ptr, uint64_t size, struct bts_slice *value);

/* A page of the free log. */
enum bts_err pager_free_log(struct tree_ctx *, const struct page_ptr *ptr, const uint8_t **page);

/* Reads and verifies without tags, from the map: used by check, walk and apply.  count pages from ptr->pgno. */
const uint8_t *pager_raw(struct pager *, bts_pgno pgno, uint64_t count); /* NULL when beyond the file */

/* crc of a page image, or of the header pages of an extent: bytes 4 .. size. */
uint32_t pager_crc(const uint8_t *image, size_t size);

#endif
