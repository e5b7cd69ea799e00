/*
 * Private pages of a write context: nodes and large values that exist only in memory until the commit seals them.
 *
 * A dirty page has no page number yet: pointers to it carry LAYOUT_DIRTY_BIT and an index into this table, so a
 * commit can place all of its pages in one contiguous run, and an abort just forgets them.  Each entry has an
 * owner: the transaction of a group that made it.  A transaction changes its own pages in place and copies the pages
 * of earlier transactions of the group, so that it can be rolled back alone (dirty_begin, _keep, _rollback).
 */
#ifndef DIRTY_H
#define DIRTY_H

#include "tree.h"

struct dirty;

/* A clean page or extent that this context no longer reaches. */
struct dirty_freed {
	struct page_ptr ptr;
	uint64_t pages;
};

enum bts_err dirty_new(struct bts_env *, uint32_t page_size, struct dirty **dirty);
void dirty_free(struct dirty *); /* NULL is fine */

/* A new node, header initialised by the caller (node_init); *page borrowed until it is released. */
enum bts_err dirty_node(struct tree_ctx *, struct page_ptr *ptr, uint8_t **page);
/*
 * A writable copy of a node: *ptr (in) clean or another owner's is copied, released and replaced by the copy's
 * pointer; own pages are returned as they are.  image is what pager_node gave for *ptr.
 */
enum bts_err dirty_cow(struct tree_ctx *, struct page_ptr *ptr, const uint8_t *image, uint8_t **page);
/* No longer reached: a clean page is noted as freed, a private one is given back.  pages: 1, or an extent's. */
enum bts_err dirty_release(struct tree_ctx *, const struct page_ptr *ptr, uint64_t pages);
/* Make room: that many releases then cannot fail. */
enum bts_err dirty_reserve(struct tree_ctx *, uint64_t releases);
/* A large value, copied. */
enum bts_err dirty_extent(struct tree_ctx *, struct bts_slice value, struct page_ptr *ptr);

/* Reading: the image of a dirty node, the value of a dirty extent; NULL / false when ptr names no live entry. */
const uint8_t *dirty_image(const struct dirty *, const struct page_ptr *ptr);
bool dirty_value(const struct dirty *, const struct page_ptr *ptr, struct bts_slice *value);

/* Transactions within a group. */
enum bts_err dirty_begin(struct dirty *);
void dirty_keep(struct dirty *);     /* what the transaction replaced is given back for good */
void dirty_rollback(struct dirty *); /* what it made is given back, what it released is live again */

const struct dirty_freed *dirty_freed(const struct dirty *, size_t *count);
size_t dirty_bytes(const struct dirty *); /* memory held by pages and values */

#endif
