/*
 * The archiver: a thread that writes what a file commits into a store (store.h), as frames that a restore can apply (manifest.h).
 * It only reads the file; what fails is tried again and never stops or delays whoever writes.
 *
 * When the frame of a commit and the manifest that names it are stored, that is acknowledged under BTS_ACK_ARCHIVE in the lock file
 * (bts_ack_record), for every process on the file.
 */
#ifndef ARCHIVE_H
#define ARCHIVE_H

#include <stdint.h>

#include "fail.h"
#include "position.h"
#include "settings.h"
#include "store.h"

#define ARCHIVE_FULL_LEAST                                                                                   \
	(UINT64_C(64) << 20) /* bytes of increments that are worth a full frame, at least */

struct archive_settings {
	const char *url;	       /* NULL: no archive */
	uint64_t interval_ms, full_ms; /* as below */
};

/* The rows of a table of settings (settings.h) whose struct has such a field. */
/* clang-format off */
#define ARCHIVE_ROWS(type, field) \
	SETTINGS_GROUP("Archive"), \
	{"archive", SETTINGS_TEXT(type, field.url), .arg = "URL", .check = store_check_url, \
		.help = "write what is committed into file:///DIR or s3://BUCKET/PREFIX, below the database's id; for s3 the key is in " \
			"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"}, \
	{"archive-interval", SETTINGS_DURATION(type, field.interval_ms), .arg = "DURATION", .fallback = "1s", .most = 86400000, \
		.help = "commits are archived together, at most once in so long; 0s: as they come"}, \
	{"archive-full", SETTINGS_DURATION(type, field.full_ms), .arg = "DURATION", .fallback = "24h", .most = UINT64_C(366) * 86400000, \
		.help = "the database is archived whole again after so long, or when what was archived since is more; 0s: only then"}
/* clang-format on */

struct archive_options {
	/* NULL from it: there is no file yet, asked again.  Then always the same one, open until archive_stop. */
	struct bts *(*db)(void *arg);
	void *arg;
	struct store *store;  /* owned from archive_start on, also when that fails */
	uint64_t interval_ms; /* the least between two frames; 0: at once */
	uint64_t full_ms;     /* the age of the last full frame at which a new one is due; 0: only by bytes */
	uint64_t pin_limit;   /* bytes that the snapshot of a frame may keep from reuse; 0: by the file's size */
	unsigned patience_ms;	   /* after the first failure; doubles; 0: 250 */
	unsigned look_ms;	   /* so often it is seen whether the archive is still there; 0: a minute */
	uint64_t rest_ms; /* a frame that rested so long is not gone on with, as its parts may have been pruned; 0: twelve hours */
	struct repl_events events; /* called from the archiver's thread */
};

struct archive;
/* Owned: archive_stop. */
BTS_MUST_CHECK enum bts_err archive_start(
	const struct archive_options *, struct archive **, struct bts_error *);
/* The same with the store that the settings name.  Of options db, arg, pin_limit and events are looked at. */
BTS_MUST_CHECK enum bts_err archive_open(const struct archive_settings *, const struct archive_options *,
	struct archive **, struct bts_error *);
/* Breaks off what is under way.  NULL is fine. */
void archive_stop(struct archive *);

enum archive_state {
	ARCHIVE_STARTING, /* where the archive stands is not known yet */
	ARCHIVE_FULL,	  /* the first full frame is being written */
	ARCHIVE_GOING,	  /* commits are archived as they come */
	ARCHIVE_BEHIND,	  /* another archiver is further than this file */
	ARCHIVE_FAILING,  /* the last attempt failed */
};
struct archive_status {
	enum archive_state state;
	struct bts_position position; /* archived; txid 0: nothing of this file's history yet */
	uint64_t lag_ms; /* age of the first commit that is not archived, about; 0: there is none */
	uint64_t frames, fulls, parts, bytes; /* stored since the start; fulls are counted among frames */
	uint64_t failures;
	char last_error[256]; /* "": none so far */
};
/* Any thread. */
void archive_status(struct archive *, struct archive_status *);
/*
 * The member `archive` of a status, after a comma (owned: free), NULL without memory.  archive NULL: what the lock file tells of another
 * process', or "".  db may be NULL.
 */
char *archive_json(struct archive *, struct bts *db);
/* The same as Prometheus text. */
char *archive_metrics(struct archive *, struct bts *db);

#endif
