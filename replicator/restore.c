/* A file out of an archive. */
#include "restore.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "frame.h"
#include "replay.h"

#define RESTORE_FOLDER ".restore"
#define RESTORE_FILE "database" /* what the engine puts beside it has names that begin with it */

/* ---- what to restore ---- */

static enum bts_err restore_hole(const struct catalog_hole *hole, const char *what, struct bts_error *error)
{
	return fail_set(error, BTS_CORRUPT, "%s: %s; %s", hole->key, hole->why.text, what);
}

enum bts_err restore_survey(struct store *store, const struct restore_wish *wish,
	struct restore_choice *choice, struct bts_error *error)
{
	const struct catalog_hole *hole;
	size_t count;
	enum bts_err err;

	*choice = (struct restore_choice){.boundary = PLAN_NONE, .next = PLAN_NONE};
	err = catalog_read(store, wish->database, &choice->catalog, error);
	if (err)
		return err;
	choice->entries = calloc(choice->catalog.count + 1, sizeof(*choice->entries));
	if (!choice->entries)
		return fail_set(error, BTS_MEMORY, "no memory for the entries of an archive");
	count = catalog_kept(&choice->catalog, choice->entries);
	err = plan_init(&choice->plan, choice->entries, count, wish->epoch, wish->epoch_random, error);
	hole = err || wish->epoch ? NULL : catalog_newer_hole(&choice->catalog, &choice->plan);
	if (hole)
		return restore_hole(
			hole, "so it is not known which history is the newest: say one by --epoch", error);
	return err;
}

enum bts_err restore_choose(
	const struct restore_wish *wish, struct restore_choice *choice, struct bts_error *error)
{
	const struct catalog *catalog = &choice->catalog;
	const struct catalog_hole *hole = NULL;
	struct bts_error why = {0};
	enum bts_err err =
		plan_choose(&choice->plan, &wish->boundary, &choice->boundary, &choice->next, &why);

	if (err == BTS_NOT_FOUND && catalog->hole_count > 0)
		return fail_set(error, err, "%s; %s: %s", why.text, catalog->holes[0].key,
			catalog->holes[0].why.text);
	if (err)
		return fail_set(error, err, "%s", why.text);
	if (wish->boundary.kind != PLAN_TXID ||
		choice->plan.boundaries[choice->boundary].at.txid != wish->boundary.value)
		hole = catalog_beside_hole(catalog, &choice->plan, choice->boundary, choice->next);
	return hole ? restore_hole(hole,
			      "a boundary nearer to what is asked for may be in it: name one by its number",
			      error)
		    : BTS_OK;
}

void restore_choice_fini(struct restore_choice *choice)
{
	plan_fini(&choice->plan);
	free(choice->entries);
	choice->entries = NULL;
	catalog_fini(&choice->catalog);
}

/* ---- frames ---- */

static enum bts_err restore_check_header(
	const struct manifest_entry *entry, const struct frame_header *header, struct bts_error *error)
{
	struct bts_position base = header->base;

	memcpy(base.database, header->target.database, sizeof(base.database));
	if (header->partial.position.txid || !position_equal(&header->target, &entry->to) ||
		!position_equal(&base, &entry->from))
		return fail_set(error, BTS_CORRUPT,
			"the frame leads from transaction %" PRIu64 " to %" PRIu64
			", not to where the manifest says",
			base.txid, header->target.txid);
	return BTS_OK;
}

struct restore_check {
	const struct manifest_entry *entry;
	struct frame_decoder *decoder;
	uint64_t pages;
	bool ended;
};

static enum bts_err restore_check_part(void *arg, struct bts_slice bytes, struct bts_error *error)
{
	struct restore_check *check = arg;
	struct frame_event event = {.kind = FRAME_MORE};
	enum bts_err err = BTS_OK;

	while (!err && !check->ended && (bytes.size > 0 || event.kind != FRAME_MORE)) {
		err = frame_decode(check->decoder, &bytes, &event, error);
		if (!err && event.kind == FRAME_HEADER)
			err = restore_check_header(check->entry, event.header, error);
		check->pages += event.piece.pages;
		check->ended = event.kind == FRAME_END;
	}
	if (!err && bytes.size > 0)
		err = fail_set(error, BTS_CORRUPT, "bytes after the end of the frame");
	return err;
}

enum bts_err restore_verify_frame(
	struct store *store, const struct manifest_entry *entry, struct bts_error *error)
{
	struct restore_check check = {.entry = entry, .decoder = frame_decoder_new()};
	struct bts_error why = {0};
	char key[MANIFEST_KEY_SIZE];
	enum bts_err err;

	if (!check.decoder)
		return fail_set(error, BTS_MEMORY, "no memory to read a frame");
	err = fetch_frame(store, entry, restore_check_part, &check, error);
	manifest_part_key(entry, entry->parts - 1, key);
	if (!err && frame_decode_finish(check.decoder, &why))
		err = fail_set(error, BTS_CORRUPT, "%s: %s", key, why.text);
	else if (!err && check.pages != entry->pages)
		err = fail_set(error, BTS_CORRUPT,
			"%s: the frame has %" PRIu64 " pages, the manifest says %" PRIu64, key, check.pages,
			entry->pages);
	frame_decoder_free(check.decoder);
	return err;
}

/* ---- the file ---- */

struct restore {
	const struct restore_options *options;
	char folder[PATH_MAX], file[PATH_MAX];
	int lock; /* the folder */
	struct replay *replay;
	const struct manifest_entry *entry; /* that is being applied */
	bool begun;			    /* something of it has come */
	uint64_t done, total;		    /* bytes */
};

/* What the header of a frame says is needed before the first of them is applied, and better known before any is. */
static enum bts_err restore_begin(struct restore *restore, struct bts_slice bytes, struct bts_error *error)
{
	struct frame_decoder *decoder = frame_decoder_new();
	struct frame_event event = {.kind = FRAME_MORE};
	enum bts_err err;

	if (!decoder)
		return fail_set(error, BTS_MEMORY, "no memory to read a frame");
	err = frame_decode(decoder, &bytes, &event, error);
	if (!err && event.kind != FRAME_HEADER)
		err = fail_set(error, BTS_CORRUPT, "too short for the header of a frame");
	if (!err)
		err = restore_check_header(restore->entry, event.header, error);
	if (!err && restore->entry->from.txid == 0)
		err = bts_ship_create(
			restore->file, NULL, &restore->entry->to, event.header->page_size, error);
	frame_decoder_free(decoder);
	return err;
}

static enum bts_err restore_part(void *arg, struct bts_slice bytes, struct bts_error *error)
{
	struct restore *restore = arg;
	enum bts_err err = restore->begun ? BTS_OK : restore_begin(restore, bytes, error);

	restore->begun = true;
	if (!err)
		err = replay_push(restore->replay, bytes, error);
	restore->done += bytes.size;
	if (!err && restore->options->progress)
		restore->options->progress(restore->options->arg, restore->done, restore->total);
	return err;
}

static enum bts_err restore_frame(struct restore *restore, struct store *store,
	const struct manifest_entry *entry, struct bts_error *error)
{
	struct bts_error why = {0};
	struct bts_position at;
	char key[MANIFEST_KEY_SIZE];
	enum bts_err err;

	restore->entry = entry;
	restore->begun = false;
	err = fetch_frame(store, entry, restore_part, restore, error);
	if (err)
		return err;
	err = replay_end(restore->replay, &why);
	if (!err)
		err = replay_position(restore->replay, &at, &why);
	if (!err && !position_equal(&at, &entry->to))
		err = fail_set(&why, BTS_CORRUPT,
			"it leads to transaction %" PRIu64 ", the manifest says %" PRIu64, at.txid,
			entry->to.txid);
	manifest_part_key(entry, entry->parts - 1, key);
	return err ? fail_set(error, err, "%s: %s", key, why.text) : BTS_OK;
}

static enum bts_err restore_frames(struct restore *restore, struct store *store,
	const struct restore_choice *choice, struct bts_error *error)
{
	const struct plan_boundary *boundary = &choice->plan.boundaries[choice->boundary];
	size_t *frames = NULL;
	enum bts_err err = plan_frames(&choice->plan, choice->boundary, &frames, error);

	restore->total = boundary->bytes;
	if (!err)
		err = replay_open(restore->file, &restore->replay, error);
	for (size_t i = 0; !err && i < boundary->frames; i++)
		err = restore_frame(restore, store, &choice->plan.entries[frames[i]], error);
	/* Brings home what waits beside the file. */
	replay_close(restore->replay);
	free(frames);
	return err;
}

/* What another restore has left; nobody else puts anything into this folder. */
static enum bts_err restore_clear(const struct restore *restore, struct bts_error *error)
{
	int fd = openat(restore->lock, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);
	enum bts_err err = BTS_OK;
	struct dirent *entry;

	if (!folder) {
		err = fail_os(error, errno, "reading %s", restore->folder);
		if (fd >= 0)
			close(fd);
		return err;
	}
	while (!err && (entry = readdir(folder)))
		if (!strncmp(entry->d_name, RESTORE_FILE, sizeof(RESTORE_FILE) - 1) &&
			unlinkat(restore->lock, entry->d_name, 0))
			err = fail_os(error, errno, "removing %s/%s", restore->folder, entry->d_name);
	closedir(folder);
	return err;
}

static enum bts_err restore_enter(struct restore *restore, struct bts_error *error)
{
	struct stat mine, there;

	if (access(restore->options->path, F_OK) == 0)
		return fail_set(error, BTS_EXISTS, "%s exists already", restore->options->path);
	if ((size_t)snprintf(restore->folder, PATH_MAX, "%s" RESTORE_FOLDER, restore->options->path) + 64 >=
		PATH_MAX)
		return fail_set(error, BTS_INVALID, "the path is too long");
	snprintf(restore->file, PATH_MAX, "%.*s/" RESTORE_FILE, PATH_MAX - 64, restore->folder);
	if (mkdir(restore->folder, 0700) && errno != EEXIST)
		return fail_os(error, errno, "creating %s", restore->folder);
	restore->lock = open(restore->folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (restore->lock < 0)
		return fail_os(error, errno, "opening %s", restore->folder);
	/* One that ends meanwhile takes the folder away: then what is locked is not what the name stands for. */
	if (flock(restore->lock, LOCK_EX | LOCK_NB) || fstat(restore->lock, &mine) ||
		stat(restore->folder, &there) || mine.st_ino != there.st_ino || mine.st_dev != there.st_dev) {
		close(restore->lock);
		restore->lock = -1;
		return fail_set(
			error, BTS_BUSY, "%s: another restore of this file is under way", restore->folder);
	}
	return restore_clear(restore, error);
}

static void restore_leave(struct restore *restore)
{
	if (restore->lock < 0)
		return;
	if (!restore_clear(restore, NULL))
		(void)rmdir(restore->folder);
	close(restore->lock);
}

enum bts_err restore_file(struct store *store, const struct restore_choice *choice,
	const struct restore_options *options, struct bts_error *error)
{
	const struct bts_restore_options finish = {
		.size = sizeof(finish), .flags = options->same_database ? BTS_RESTORE_SAME_ID : 0};
	struct restore *restore = calloc(1, sizeof(*restore));
	enum bts_err err;

	if (!restore)
		return fail_set(error, BTS_MEMORY, "no memory to restore");
	restore->options = options;
	restore->lock = -1;
	err = restore_enter(restore, error);
	if (!err)
		err = restore_frames(restore, store, choice, error);
	if (!err)
		err = bts_restore_file(restore->file, options->path, &finish, error);
	restore_leave(restore);
	free(restore);
	return err;
}
