/*
 * A frame on its way into a follower's file: what apply.c (receiving), apply_proof.c (R1, R4), and
 * apply_install.c (making it the state of the file) share.
 */
#ifndef APPLY_H
#define APPLY_H

#include "db.h"
#include "pending.h"
#include "recover.h"
#include "redirect.h"
#include "snapshot.h"
#include "traverse.h"

#define APPLY_UNITS_MAX (UINT64_C(1) << 26) /* of a frame */
#define APPLY_SINK_BYTES (256u << 10)
#define APPLY_FIRST_STEP (UINT64_C(256) << 20) /* bytes after which a first transfer notes how far it has come */
#define APPLY_FIRST_START (UINT64_C(4) << 20)  /* bytes after which the disk begins to write them */
#define APPLY_FIRST_GAP (UINT64_C(32) << 10)   /* free bytes between two units that are written with them */

struct apply_unit {
	bts_pgno pgno;
	bts_txid birth;
	uint64_t where; /* 0: at home; else its offset in path.pending */
	uint32_t crc;
	uint32_t count; /* pages */
	uint32_t kind;
	bool reached;
};

/* Writes that follow each other are gathered. */
struct apply_sink {
	struct bts_file *file;
	uint64_t offset;
	size_t used;
	uint8_t *bytes; /* APPLY_SINK_BYTES */
};

/* An edge of the new state to something that the frame does not bring: it must be part of the old state. */
struct apply_kept {
	struct traverse_edge edge; /* keys borrowed from images of the frame */
	bool met;
};

/* Pages of the old state that the new one does not reach. */
struct apply_released {
	bts_pgno pgno;
	uint64_t pages;
	bts_txid birth;
};

/* A state of the chain that a frame proves: the base's head, each named snapshot above it, the target's head. */
struct apply_state {
	bts_txid txid;
	bts_pgno limit; /* its pages lie below */
	struct tree catalog;
};

enum apply_releases { APPLY_RELEASE_ALL, APPLY_RELEASE_UNHELD, APPLY_RELEASE_NONE };

/* A tree's counters, claimed less counted (apply_tally.c). */
struct apply_sum {
	uint32_t tree;
	uint64_t entries, bytes, pages;
};

struct apply_fetch; /* apply_fetch.c */

/* Snapshots s with birth <= s < freed read what stands at these homes. */
struct apply_need {
	bts_pgno pgno;
	uint64_t count;
	bts_txid birth, freed;
};

/* A frame from the empty state (apply_first.c). */
struct apply_first {
	bool on;
	bool resumed;		   /* pages of an earlier frame lie about */
	bool unordered;		   /* not in page order: it can not be gone on with */
	struct bts_partial before; /* where it was resumed */
	bts_pgno next;		   /* behind the unit that came last; 0: none did */
	bts_pgno started;	   /* up to there writing to the disk has begun */
	uint64_t pages;		   /* that came */
	uint64_t unnoted;	   /* bytes since the slot was written */
	uint64_t *staged;	   /* a bit a page that came, from the first page on; NULL: none */
	uint64_t words;
	uint64_t *reached;	   /* a bit a page, in the proof: of words, or up to the mark if that is more */
	struct apply_unit unit;	   /* the one found last */
};

struct bts_apply {
	struct bts *db;
	struct bts_position base, target;
	enum bts_err failed; /* the first failure; nothing is taken after it */
	struct bts_error error;
	struct apply_fetch *fetch; /* a graft: what is asked for unit by unit; NULL: a frame */

	/* Receiving. */
	struct apply_unit *units; /* in order of arrival, sorted by page number for the proof */
	size_t unit_count, unit_cap;
	struct bts_page_id current; /* unit in progress */
	uint32_t taken;		    /* pages of it; 0: none in progress */
	uint64_t file_bytes;	    /* at begin */
	struct apply_sink home, log;
	struct redirect *redirect; /* pages of the base that are not home */
	uint64_t redirected;	   /* pages of the frame in path.pending */
	uint32_t log_crc;	   /* of the record in progress */
	const uint8_t *log_map;	   /* path.pending, for the proof */
	uint64_t log_bytes;
	_Atomic bool unverified; /* never true for long: a page of the frame is verified at every touch */
	struct apply_first first;

	/* Proof. */
	struct commit_record record;
	struct traverse traverse;
	struct apply_kept *kept; /* hash by page number, kept_cap a power of two */
	size_t kept_count, kept_cap;
	struct apply_released *released;
	size_t released_count, released_cap;
	struct apply_sum *sums; /* hash by tree id, sum_cap a power of two */
	size_t sum_count, sum_cap;
	size_t reached;			  /* units */
	struct snapshot_list named_before; /* named snapshots of the base */
	struct snapshot_list named;	   /* of the target */
	struct snapshot_list named_kept;   /* of both */
	struct space space; /* of the new state */
	bool space_there;
	struct apply_need *needs;
	size_t need_count, need_cap;

	/* Install. */
	bool committed; /* the slot was touched: failures from here on poison */
	struct meta_slot slot;
};

/* Enter, with nothing received.  base NULL: the file's own position, a graft. */
enum bts_err apply_start(struct bts *, const struct bts_position *base, const struct bts_position *target,
	struct bts_apply **, struct bts_error *);
/* What was received is in the files, though not durable. */
enum bts_err apply_settle(struct bts_apply *);
/* The same at the end: all units are whole. */
enum bts_err apply_received(struct bts_apply *);
/* Copies the first failure. */
enum bts_err apply_report(const struct bts_apply *, enum bts_err, struct bts_error *);
/* Room for one more element of an array. */
enum bts_err apply_grow(struct bts_apply *, void **array, size_t count, size_t *cap, size_t element);
/* Reclaim; behind a mark that fell readers may have needed pages (space_reach): what has become ready there is forgotten. */
void apply_trim(struct bts *);
/* See all that was appended to path.pending. */
enum bts_err apply_map_log(struct bts_apply *);
void apply_unmap_log(struct bts_apply *);
/* Before the first record of a frame: when path.pending is too long, wait until readers have ended. */
enum bts_err apply_make_room(struct bts_apply *);
static inline _Atomic bool *apply_unverified(struct bts_apply *apply)
{
	atomic_store_explicit(&apply->unverified, false, memory_order_relaxed);
	return &apply->unverified;
}
/* Fails where the environment says so (env.h, fault). */
enum bts_err apply_fault(struct bts_apply *, const char *point);

/* Gathered writes go out. */
enum bts_err apply_flush_home(struct bts_apply *);
/* A unit begins, is complete.  What came is to be kept for the next frame; is worth nothing. */
enum bts_err apply_first_unit(struct bts_apply *, const struct bts_page_id *);
enum bts_err apply_first_unit_done(struct bts_apply *);
/* Bytes between two units at home that are written as zeros, so that both go out at once; 0: they stay apart. */
size_t apply_first_gap(const struct bts_apply *, uint64_t from, uint64_t to);
void apply_first_keep(struct bts_apply *);
void apply_first_forget(struct bts_apply *);
void apply_first_fini(struct bts_apply *);
/* In the proof, in this order: it begins; the unit that an edge leads to; all are reached; bits: what is free but for them. */
enum bts_err apply_first_prove(struct bts_apply *);
enum bts_err apply_first_match(struct bts_apply *, const struct traverse_edge *, struct apply_unit **unit);
enum bts_err apply_first_reached(struct bts_apply *);
enum bts_err apply_first_live(struct bts_apply *, uint64_t *bits);

/* Everything that must hold before the slot is written.  Reads only; on return space and needs are filled. */
enum bts_err apply_prove(struct bts_apply *, struct bts_slice record);
enum bts_err apply_refuse_page(struct bts_apply *, bts_pgno pgno, const char *what);
/* The unit that begins at a page; NULL: none.  Its bytes where they are now; NULL: cannot be read. */
struct apply_unit *apply_unit_find(const struct bts_apply *, bts_pgno pgno);
const uint8_t *apply_unit_image(const struct bts_apply *, const struct apply_unit *);
/* The durable state of this file; the target's pages, before they are home. */
struct tree_ctx apply_old_ctx(struct bts_apply *);
struct tree_ctx apply_new_ctx(struct bts_apply *);
/* apply_graft.c: history, named snapshots' records and free log of the target against the base's. */
enum bts_err apply_graft_aside(struct bts_apply *);
/* One state of the chain against the one before; first: that is the base's head. */
enum bts_err apply_graft_state(struct bts_apply *, const struct apply_state *before, const struct apply_state *now,
	bool first);
/* apply_states.c: the chain, and what named snapshots release or hold. */
enum bts_err apply_states(struct bts_apply *);
/* Count a node that the frame brought or that it released. */
enum bts_err apply_tally_node(
	struct bts_apply *, const struct traverse_edge *, const uint8_t *image, bool brought);
/* Claim a tree's counters: with all nodes counted every sum is zero. */
enum bts_err apply_tally_claim(struct bts_apply *, const struct tree *now, const struct tree *before);
/* All are counted and claimed: do they add up?  Begins anew. */
enum bts_err apply_tally_close(struct bts_apply *);
/* apply_fetch.c: a unit comes that was asked for; it will have this place among the units. */
enum bts_err apply_fetch_take(struct bts_apply *, const struct bts_page_id *, size_t place);
/* Local pages born later are not believed; NULL: no fork is known. */
const struct bts_position *apply_fetch_fork(const struct bts_apply *, bts_txid *trust);
const struct commit_record *apply_fetch_record(const struct bts_apply *);
/* Before the proof: the unit that came for this page; NULL: none. */
const struct apply_unit *apply_fetch_unit(const struct bts_apply *, bts_pgno pgno);
void apply_fetch_free(struct bts_apply *);
/* apply_whole.c: closure, counters and free set of all there is. */
enum bts_err apply_whole(struct bts_apply *);
/* Flush, slot, homes, publication.  build held. */
enum bts_err apply_install(struct bts_apply *);

#endif
