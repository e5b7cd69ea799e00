/*
 * A file out of an archive.  What is fetched goes as one stream of frames onto a follower's file in FILE.restore/, a
 * folder of our own beside FILE; when it stands where it should, it is verified whole and linked to FILE.  A restore that broke off
 * leaves that folder, which the next one clears.
 */
#ifndef RESTORE_H
#define RESTORE_H

#include "catalog.h"

/* What is asked of an archive: a state of a history. */
struct restore_wish {
	uint8_t database[16];
	uint32_t epoch; /* whose lineage; 0: the newest's */
	uint64_t epoch_random;
	struct plan_wish boundary;
};

/* What was found for a wish. */
struct restore_choice {
	struct catalog catalog;
	struct manifest_entry *entries; /* what is not pruned */
	struct plan plan;		/* of these */
	size_t boundary, next;		/* PLAN_NONE: it is the newest that the archive has of this history */
};
/*
 * restore_survey reads what there is, restore_choose then which boundary is meant.  Errors as of catalog_read, plan_init and plan_choose, and
 * BTS_CORRUPT: a manifest that may name a nearer one is missing or damaged.  restore_choice_fini in every case.
 */
BTS_MUST_CHECK enum bts_err restore_survey(
	struct store *, const struct restore_wish *wish, struct restore_choice *, struct bts_error *error);
BTS_MUST_CHECK enum bts_err restore_choose(
	const struct restore_wish *wish, struct restore_choice *, struct bts_error *error);
void restore_choice_fini(struct restore_choice *);

/* Called for each part that was fetched. */
typedef void restore_progress_fn(void *arg, uint64_t bytes, uint64_t total);
struct restore_options {
	const char *path;
	bool same_database; /* a follower's file of the same database; else a primary's of a new one */
	restore_progress_fn *progress; /* NULL: nobody looks */
	void *arg;
};
/*
 * Makes the file: complete, verified and durable, or not there.  BTS_EXISTS: there is a file of that name; BTS_BUSY: another restore is at it.
 * BTS_CORRUPT names the object that is missing, damaged or not what the manifest says.
 */
BTS_MUST_CHECK enum bts_err restore_file(struct store *, const struct restore_choice *,
	const struct restore_options *options, struct bts_error *error);

/*
 * Reads a frame and checks all that can be seen without the ones before it: its parts, sums, digest, and that it leads from and to where the manifest
 * says.
 */
BTS_MUST_CHECK enum bts_err restore_verify_frame(
	struct store *, const struct manifest_entry *entry, struct bts_error *error);

#endif
