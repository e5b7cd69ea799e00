/*
 * path.pending: pages of a frame that could not go to their homes yet, because the durable root or a reader needs what
 * is there (R2, R5).  What was in flight when a process died is found here and completed or discarded at open.
 *
 * One frame at a time.  Little-endian.  A header of 96 bytes:
 *	 0 "BTSPEND\n"     8 u32 version 1    12 u32 page size   16 database 16   32 u64 salt   40 u64 base txid
 *	48 u32 epoch      52 u32 zero         56 u64 epoch random                 64 u64 txid   72 chain 16
 *	88 u32 zero       92 u32 crc32c of bytes 0 to 92
 * then records, each 48 bytes:
 *	 0 u64 salt        8 u32 ordinal from 0   12 u32 pages   16 u64 page number   24 u64 birth
 *	32 u32 crc of the pointer to it           36 u32 kind    40 u64 bytes of payload
 * the pages, and 8 bytes: u32 crc32c of record and pages, u32 zero.
 *
 * The slot that needs the records holds their salt, drawn anew for every frame, and their number: what an earlier frame
 * left behind it can not be taken for them.
 */
#ifndef PENDING_H
#define PENDING_H

#include "db.h"

#define PENDING_HEADER 96u
#define PENDING_RECORD 48u
#define PENDING_TRAILER 8u

/* The file while a frame is received. */
struct pending_log {
	struct bts_file *file; /* NULL: no page was redirected */
	char *path;
	uint64_t salt;
	uint64_t size;	/* bytes appended */
	uint32_t count; /* records */
	uint64_t pages;
	uint32_t crc; /* of the record in progress */
	const uint8_t *map;
	size_t map_bytes;
};

/* Make the file (or empty the one that is there) and fill header. */
enum bts_err pending_create(struct bts *, struct pending_log *, const struct bts_position *base,
	const struct bts_position *target, uint8_t header[PENDING_HEADER], struct bts_error *);
void pending_record_encode(const struct pending_log *, const struct bts_page_id *, uint32_t page_size,
	uint8_t bytes[PENDING_RECORD]);
/* See all that was appended. */
enum bts_err pending_map(struct bts *, struct pending_log *, struct bts_error *);
/* Close; cut: nothing needs the contents any more. */
void pending_close(struct bts *, struct pending_log *, bool cut);

#define PENDING_CHUNK (256u << 10) /* bytes moved at a time; a multiple of every page size */
/* Copy every page of the records that slot needs home, through chunk (PENDING_CHUNK bytes).  No flush.  Errors as pending_recover. */
enum bts_err pending_copy_home(struct bts *, struct bts_file *pending, const struct meta_slot *slot, uint8_t *chunk,
	struct bts_error *);

/*
 * At open of a follower's file, before anything is served: db->slot is the accepted slot.  It needs records
 * (pending_count != 0): verify all of them, copy them home, flush, write the other slot with nothing pending
 * (db->slot and db->slot_index follow), flush, cut the file.  It needs none: cut what is left over.  Either
 * way the state is then published and the gate opened that a predecessor who died may have left closed
 * (shared_gate_hold: no reader needs an overwritten page). Records that are absent, short or of another salt:
 * BTS_CORRUPT, nothing changed.  The pager is not open yet.
 */
enum bts_err pending_recover(struct bts *, struct bts_error *);

#endif
