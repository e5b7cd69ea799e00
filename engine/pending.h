/*
 * path.pending: pages of frames that could not go to their homes yet, because the durable root or a reader needs what
 * is there (R2, R5).  The bytes are in FORMAT.md; what is in it as seen by readers in redirect.h.
 *
 * Version 2, which is written: a log of records of several frames, appended to under one salt.  The slot that needs it holds salt
 * and number of records; what stands behind those is a frame that never became the state, and is written over.  A log is replaced by
 * one under the other of two names, so that the slot decides which one counts.  Readers have it mapped: it is never cut below what
 * a slot counted.  When its pages are home it is kept: its blocks are there, so the next log but one is written over it, under a new
 * salt, once nobody is left who began when it counted; a flush of it is then one of data alone.  If readers keep pages from going
 * home, or it is long, it loses its name instead.
 *
 * Version 1, of an earlier release: one frame.  It is redone at open.
 */
#ifndef PENDING_H
#define PENDING_H

#include "db.h"

#define PENDING_HEADER 136u /* with a record's head: pages begin at multiples of 64 */
#define PENDING_RECORD 56u
#define PENDING_TRAILER 8u

/* A record, without its pages. */
struct pending_entry {
	bts_pgno pgno;
	bts_txid birth;
	bts_txid txid;	/* of its frame */
	uint64_t where; /* offset of its pages */
	uint32_t crc, count, kind;
};

static inline uint64_t pending_record_bytes(const struct pending_entry *record, uint64_t page_size)
{
	return PENDING_RECORD + record->count * page_size + PENDING_TRAILER;
}

/* The two names, in turn.  Owned. */
enum bts_err pending_path(struct bts *, unsigned name, char **out, struct bts_error *);
/*
 * The log with this salt, whichever name it has.  BTS_NOT_FOUND, without a text: there is none.  BTS_VERSION: a file of another
 * version has the salt.
 */
enum bts_err pending_open(
	struct bts *, uint64_t salt, unsigned flags, struct bts_file **file, unsigned *name, struct bts_error *);

/* A new log beside db->log, with its header and no records; in a file that is kept, if nobody reads there.  build held. */
enum bts_err pending_create(struct bts *, struct pending_log *, struct bts_error *);
void pending_record_encode(uint64_t salt, uint32_t ordinal, const struct pending_entry *, uint8_t bytes[PENDING_RECORD]);
/* Hostile bytes; NULL: sound, but for its place in the file.  where is not set. */
const char *pending_record_decode(
	const uint8_t bytes[PENDING_RECORD], uint64_t salt, uint32_t ordinal, struct pending_entry *);
/* What was appended is part of the state now, or is forgotten (build held). */
void pending_keep(struct bts *);
void pending_forget(struct bts *);
/* Close the log, and take its name away: nobody needs it by that. */
void pending_remove(struct bts *, struct pending_log *);
/* The same, but the file may be kept.  No slot names it, and no commit above db->slot's ever will; build held. */
void pending_retire(struct bts *, struct pending_log *);
/* At close: what is kept goes. */
void pending_discard(struct bts *);

#define PENDING_CHUNK (256u << 10) /* bytes moved at a time; a multiple of every page size */

/*
 * At open of a follower's file, before anything is served: db->slot is the accepted slot.  Alone: records that it needs are
 * verified, copied home and flushed, the other slot is written with nothing pending (db->slot and db->slot_index follow) and
 * flushed.  Not alone, an heir: the log stays what it is, and db->log goes on in it.  A log that the slot does not name is removed,
 * by an heir not before he has published (pending_tidy).  Records that are absent, short or of another salt: BTS_CORRUPT, nothing
 * changed.  The pager is not open yet.
 */
enum bts_err pending_recover(struct bts *, bool alone, struct bts_error *);
/* Logs other than db->log lose their names. */
void pending_tidy(struct bts *);

#endif
