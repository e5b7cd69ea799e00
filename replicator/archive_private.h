/* What the files of the archiver share. */
#ifndef ARCHIVE_PRIVATE_H
#define ARCHIVE_PRIVATE_H

#include <pthread.h>

#include "archive.h"
#include "catalog.h"
#include "manifest.h"
#include "source.h"
#include "store.h"

/* A frame on its way into the archive, of which each step stores a part. */
struct archive_frame {
	struct source_stream *stream; /* NULL: all its bytes were read, or it is not under way */
	struct manifest_entry entry;
	uint8_t *part;	    /* MANIFEST_PART_BYTES; NULL: it is not under way */
	size_t size;	    /* of the part to be stored next; 0: it has to be read first */
	bool broken;	    /* nothing more comes of it */
	bool named;	    /* a manifest that names its parts may be there */
	uint64_t looked_ms; /* monotonic: what it pins was looked at */
	uint64_t stored_ms; /* boottime: the last part was stored */
};

/* Frames that lead one to the next, from a full one on. */
struct archive_chain {
	bool known; /* there is a full one */
	uint64_t full_bytes, full_ms;
	uint64_t bytes, frames; /* of those after it */
};

struct archive {
	struct archive_options options;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t wake;
	bool stopping;
	struct archive_status status;
	uint64_t
		behind_ms; /* monotonic: since when there is a commit that is not archived; 0: there is none */

	/* The thread's alone.  db is set once, under the lock. */
	struct bts *db;
	struct source source;
	uint64_t clock_ms; /* the greatest time that was put into an entry, or read */
	unsigned failed;   /* times in a row */

	/* Where the archive stands, as last read or written. */
	bool found;
	uint64_t looked_ms;    /* monotonic: that the last manifest is there was seen */
	struct manifest *last; /* newest of the file's own epoch; count 0: there is none */
	struct manifest *look; /* for others */
	struct catalog pruned; /* what nothing can be built upon */
	char *text;	       /* twice MANIFEST_TEXT_MAX */
	struct bts_position
		target; /* where the next increment begins: the newest archived commit of this file's history once a full frame leads
			   there (chain.known); txid 0: none to go on from */
	bts_txid ahead; /* the archive has this commit, and the file not yet; 0: no such thing */

	/* What the next frame is to be. */
	struct bts_position span; /* where the increments since the last coalesced frame begin */
	unsigned increments;
	uint64_t span_bytes;
	struct archive_chain chain; /* what a restore of target reads */
	/*
	 * A full frame is written beside the increments.  Its target is where one of them begins, so that they lead on from it however long it
	 * takes: positions are not kept for ever, and a frame cannot begin where none is.
	 */
	bool joined;		     /* target has come to, or beyond, that of the full frame under way */
	struct archive_chain coming; /* what `chain` becomes with it: so far those after it */
	uint64_t full_after_ms; /* monotonic: a full frame that is not needed at once is not tried before */

	uint64_t began_ms; /* monotonic: the last increment was begun */
	struct archive_frame increment, full;
};

uint64_t archive_now_ms(void);		     /* monotonic */
uint64_t archive_clock_ms(struct archive *); /* wall clock that does not go back */

/* archive_find.c.  Fills the part "where the archive stands" and what follows from it. */
enum bts_err archive_find(struct archive *, struct bts_error *);
/* Is the last manifest still there as it was?  If not, found is false afterwards. */
enum bts_err archive_verify(struct archive *, struct bts_error *);
/* BTS_NOT_FOUND. */
enum bts_err archive_read(struct archive *, const struct bts_position *epoch, uint64_t sequence,
	struct manifest *, struct bts_error *);
/* Is position part of this file's history? */
enum bts_err archive_standing(
	struct archive *, const struct bts_position *, enum bts_standing *, struct bts_error *);

/* archive_write.c.  from txid 0: everything.  BTS_DIVERGED: the file's history has changed meanwhile; found is false. */
enum bts_err archive_frame_open(
	struct archive *, struct archive_frame *, const struct bts_position *from, struct bts_error *);
/* Stores a part.  After a failure it can be repeated, unless it is broken. */
enum bts_err archive_frame_step(struct archive *, struct archive_frame *, struct bts_error *);
bool archive_frame_complete(const struct archive_frame *); /* all parts are stored */
/* All parts are stored: into the next manifest.  BTS_EXISTS: another archiver was first; found is false. */
enum bts_err archive_append(struct archive *, struct archive_frame *, struct bts_error *);
/* Ends it.  With remove the parts that were stored are deleted, if no manifest can name them. */
void archive_frame_end(struct archive *, struct archive_frame *, bool remove);

#endif
