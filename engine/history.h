/*
 * Which commits this database has had (R3): a map txid -> chain and the table of segments.
 *
 * The newest META_RECENT_MAX positions and META_SEGMENTS_INLINE segments stand in the commit record; when they are full, they are
 * moved to the history tree (an ordinary tree, id LAYOUT_TREE_HISTORY): key 'h' + txid big-endian 8 -> chain 16; key
 * 's' + first txid big-endian 8 -> segment.  Dense for the newest 2^20 positions,
 * then thinned to one in 1024 numbers, a few at each spill; key 't' -> big-endian 8: how far thinning has come.  Segments stay.
 */
#ifndef HISTORY_H
#define HISTORY_H

#include "meta.h"

/*
 * chain' = SipHash-2-4-128(key = database id; chain, epoch, epoch random, txid, root pointers, then (pgno, birth, crc) of every
 * new page in the order they were placed).
 */
struct history_page { /* one new page of a commit */
	bts_pgno pgno;
	uint32_t crc;
};
void history_chain(struct commit_record *record, const struct history_page *pages, size_t count); /* sets record->chain */

/*
 * Before a commit is sealed: make room for one more position (and for what history_segment_add added).  When the inline tables are
 * full they are moved into record->history through ctx (dirty pages of the commit).
 */
enum bts_err history_make_room(struct tree_ctx *, struct commit_record *);
#define HISTORY_DENSE (UINT64_C(1) << 20) /* entries of the tree from which on the oldest are thinned */
/* A step of thinning (history_make_room does it with HISTORY_DENSE). */
enum bts_err history_thin(struct tree_ctx *, struct commit_record *, uint64_t dense);
/* Append (record->txid, record->chain) to the inline table; there must be room. */
void history_append(struct commit_record *);
/* Note a gap; adjacent gaps without commits between are merged, so there is always room. */
void history_segment_add(struct commit_record *, bts_txid last, const uint8_t chain[16], bts_txid first);

/* Is transaction txid of that epoch part of it: KNOWN, AHEAD, or DIVERGED (R10)? */
enum bts_err history_reached(struct tree_ctx *, struct commit_record *record, uint32_t epoch, uint64_t epoch_random,
	bts_txid txid, enum bts_standing *standing);
/* ship.h: bts_ship_segments, bts_ship_fork (history_fork.c). */
enum bts_err history_segments(struct tree_ctx *, struct commit_record *record, struct bts_segment *out, size_t cap, size_t *count);
enum bts_err history_fork(struct tree_ctx *, struct commit_record *record, const struct bts_position *claimed,
	const struct bts_segment *segments, size_t count, struct bts_position *fork);
/* Every segment, the oldest first. */
typedef void history_segment_fn(void *arg, const struct history_segment *);
enum bts_err history_each_segment(struct tree_ctx *, struct commit_record *record, history_segment_fn *, void *arg);
/* The first commit of the history tree at or above *txid: BTS_NOT_FOUND. */
enum bts_err history_at_or_above(struct tree_ctx *, struct commit_record *record, bts_txid *txid, uint8_t chain[16]);
/* How a claimed position stands to the history that record and its tree hold. */
enum bts_err history_standing(struct tree_ctx *, struct commit_record *record, const struct bts_position *claimed,
	enum bts_standing *standing);

#endif
