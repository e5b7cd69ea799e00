/*
 * Private pages of a write context: nodes and large values that exist only in memory, or in a temporary file that stands
 * in for it (spill.h), until the commit seals them.
 *
 * A dirty page has no page number yet: pointers to it carry LAYOUT_DIRTY_BIT and an index into this table, so a
 * commit can place all of its pages in one contiguous run, and an abort just forgets them.  Each entry has an
 * owner: the level that made it, a transaction of a group or a savepoint.  A level changes its own pages in place; of those
 * of the levels around it and of earlier transactions it keeps what they were, the image or, of a branch whose child
 * became private, the child's pointer, so that it can be rolled back alone (dirty_begin, _keep, _rollback).
 */
#ifndef DIRTY_H
#define DIRTY_H

#include "tree.h"

struct dirty;

/* A clean page or extent that this context no longer reaches. */
struct dirty_freed {
	struct page_ptr ptr;
	uint64_t pages;
	bool aside; /* named snapshots never reached it */
};

enum bts_err dirty_new(struct bts_env *, uint32_t page_size, struct dirty **dirty);
struct beside;
/* Pages and values beyond limit bytes go to a temporary file beside that file (borrowed until dirty_free). */
void dirty_spill(struct dirty *, const struct beside *near, uint64_t limit);
void dirty_free(struct dirty *); /* NULL is fine */

/* A new node, header initialised by the caller (node_init); *page borrowed until it is released. */
enum bts_err dirty_node(struct tree_ctx *, struct page_ptr *ptr, uint8_t **page);
/*
 * The node, writable and the innermost level's: *ptr (in) clean is copied, released and replaced by the copy's pointer;
 * a private page stays where it is.  image is what pager_node gave for *ptr.
 */
enum bts_err dirty_cow(struct tree_ctx *, struct page_ptr *ptr, const uint8_t *image, uint8_t **page);
/* A private branch, writable in as far as the child at a slot gets another pointer. */
enum bts_err dirty_point(struct tree_ctx *, const struct page_ptr *ptr, unsigned slot, uint8_t **page);
/* No longer reached: a clean page is noted as freed, a private one is given back.  pages: 1, or an extent's. */
enum bts_err dirty_release(struct tree_ctx *, const struct page_ptr *ptr, uint64_t pages);
/* Make room: that many releases then cannot fail. */
enum bts_err dirty_reserve(struct tree_ctx *, uint64_t releases);
/* A large value, copied. */
enum bts_err dirty_extent(struct tree_ctx *, struct bts_slice value, struct page_ptr *ptr);
/* The same, to be filled by the caller: *data borrowed until it is released or resized. */
enum bts_err dirty_extent_open(struct tree_ctx *, uint64_t size, struct page_ptr *ptr, uint8_t **data);
/* Content kept; *data may move. */
enum bts_err dirty_extent_resize(struct tree_ctx *, const struct page_ptr *ptr, uint64_t size, uint8_t **data);
/* Tells a private value from any other that had or gets its pointer; 0: there is none now. */
uint64_t dirty_serial(const struct dirty *, const struct page_ptr *ptr);

/*
 * A large value that stays where it is, with the chunk sums of its extent's header (LAYOUT_EXTENT_TABLE_AT): both borrowed
 * until the commit or the end of the context.
 */
enum bts_err dirty_borrow(struct tree_ctx *, struct bts_slice value, const uint8_t *sums, struct page_ptr *ptr);
/* The same of a value that is where it will stay (lease.h). */
struct lease;
enum bts_err dirty_leased(struct tree_ctx *, struct bts_slice value, const uint8_t *sums, struct lease *, struct page_ptr *ptr);
struct lease *dirty_lease(const struct dirty *, const struct page_ptr *ptr); /* NULL: it is to be placed */
/* The chunk sums of a borrowed value; NULL: it is not a borrowed one. */
const uint8_t *dirty_sums(const struct dirty *, const struct page_ptr *ptr);

/* The node, writable, if the innermost level made it; else NULL. */
uint8_t *dirty_own(const struct dirty *, const struct page_ptr *ptr);

/* Reading: the image of a dirty node, the value of a dirty extent; NULL / false when ptr names no live entry. */
const uint8_t *dirty_image(const struct dirty *, const struct page_ptr *ptr);
bool dirty_value(const struct dirty *, const struct page_ptr *ptr, struct bts_slice *value);

/*
 * Levels: transactions within a group, savepoints within a transaction, one change that needs many steps; nested to
 * any depth.  _keep and _rollback end the innermost.  A failing _begin has changed nothing; after a _rollback the next
 * one does not fail for memory.
 */
enum bts_err dirty_begin(struct dirty *);
void dirty_keep(struct dirty *);     /* what it made is the outer level's; what it replaced of that is given back */
void dirty_rollback(struct dirty *); /* what it made is given back, what it released is live again */

const struct dirty_freed *dirty_freed(const struct dirty *, size_t *count);
size_t dirty_bytes(const struct dirty *); /* memory held by pages and values */

#endif
