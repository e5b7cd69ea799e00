/*
 * Where the pages of a follower's file are that are not home yet (R6).
 *
 * path.pending is a log of records that is only ever appended to, under one salt.  Which records belong to a state is said by
 * salt and number, in the slot and beside the published record.  Each process derives from the log, for itself, a table from page
 * number to versions; a version is meant when birth and checksum are the pointer's, so one table serves every snapshot: older ones
 * go home for what they see there.  Nothing of this is shared but the log, and nobody waits for anybody.
 *
 * A table lives as long as somebody uses it, with its own open file and map: a log that was replaced has lost its name, not its
 * bytes.  It grows, by what was appended to the log, while others look things up in it.
 */
#ifndef REDIRECT_H
#define REDIRECT_H

#include "db.h"
#include "pending.h"

struct redirect;

/* As shared_reader_enter, _light and _durable, and *table: of the snapshot; NULL: all pages are home.  Owned: redirect_drop. */
enum redirect_at { REDIRECT_HEAD, REDIRECT_LIGHT, REDIRECT_DURABLE };
enum bts_err redirect_enter(struct bts *, enum redirect_at, struct shared_reader *, struct commit_record *,
	struct redirect **table, struct bts_error *);
/* As shared_reader_again. */
enum bts_err redirect_again(
	struct bts *, struct shared_reader *, struct commit_record *, struct redirect **table, struct bts_error *);
/*
 * The table of so many records of the log with this salt.  count 0: *table is NULL.  BTS_NOT_FOUND, without a text: neither name
 * leads to that log.  BTS_CORRUPT: a record of it is not what was written.
 */
enum bts_err redirect_open(struct bts *, uint64_t salt, uint32_t count, struct redirect **table, struct bts_error *);
struct redirect *redirect_share(struct redirect *); /* one more that owns it; NULL is fine */
void redirect_drop(struct bts *, struct redirect *); /* NULL is fine */
void redirect_fini(struct bts *);		     /* at close: the one that is kept for the next reader */

/* Let the context ask the table first; NULL: all is home. */
void redirect_use(struct tree_ctx *, struct redirect *);
/* The same for who verifies every page himself, whatever others have found. */
struct redirect_afresh {
	struct redirect *table;
	_Atomic bool verified;
};
void redirect_use_afresh(struct tree_ctx *, struct redirect_afresh *);
/*
 * The page that ptr leads to was damaged; these are its bytes, proven.  BTS_NOT_FOUND: it is not in the log.  BTS_BUSY: the
 * log was replaced since, and what is damaged in the old one is nobody's soon.  By the handle that applies.
 */
enum bts_err redirect_repair(
	struct bts *, struct redirect *, const struct page_ptr *ptr, struct bts_slice bytes, struct bts_error *);
/* Its bytes turned out to be damaged: what passed for verified is looked at again by the next who reads it. */
void redirect_suspect(struct redirect *, const struct page_ptr *ptr); /* NULL is fine */
/* Is the page that ptr leads to in the log?  NULL: no. */
const uint8_t *redirect_find(struct redirect *, const struct page_ptr *ptr, uint64_t count, _Atomic bool **verified);
/* The newest of the first `count` records that begins at this page; NULL: it is home.  For who goes by page number. */
const struct pending_entry *redirect_newest(const struct redirect *, bts_pgno, uint32_t count);
const uint8_t *redirect_bytes(const struct redirect *, const struct pending_entry *);
/* Record i, in order, of those the table was opened for. */
const struct pending_entry *redirect_entry(const struct redirect *, uint32_t i);
uint64_t redirect_end(const struct redirect *, uint32_t count); /* offset behind so many records */

#endif
