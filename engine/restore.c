/*
 * bts_restore: an image made by bts_backup becomes a file, after every page of it was verified.  bts_restore_file: a file that is
 * there does, without a copy.
 *
 * An image is written as path.tmp and linked to its name when it is complete, verified and flushed, by the same steps as a new file (I11,
 * create.c): nothing that a crash or damage leaves behind can be taken for a database.
 */
#include "db.h"

#include "error.h"
#include "recover.h"
#include "shared.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#define RESTORE_BUFFER (256u << 10)
#define RESTORE_PIECE 4096u /* pieces of zeros are left out */

struct restore {
	struct bts_env *env;
	const struct bts_restore_options *options;
	int fd;
	struct bts_file *file;
	uint64_t size;
	uint8_t *buffer;
	struct recover_state state;
};

static bool restore_is_zero(const uint8_t *bytes, size_t size)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

static int restore_put(struct restore *restore, size_t size)
{
	int os = 0;

	for (size_t at = 0, end; at < size && os == 0; at = end) {
		struct iovec iov;
		size_t from = at;

		for (end = at; end < size; end += RESTORE_PIECE) {
			size_t piece = size - end < RESTORE_PIECE ? size - end : RESTORE_PIECE;

			if (restore_is_zero(restore->buffer + end, piece))
				break;
		}
		end = end < size ? end : size;
		iov = (struct iovec){restore->buffer + from, end - from};
		if (end > from)
			os = restore->env->ops->file_pwritev(restore->file, &iov, 1, restore->size + from);
		end += end < size ? RESTORE_PIECE : 0;
	}
	return os;
}

/* All there is to read. */
static enum bts_err restore_copy(struct restore *restore, struct bts_error *error)
{
	const struct bts_restore_options *options = restore->options;
	struct bts_env *env = restore->env;
	size_t got = RESTORE_BUFFER;
	int os;

	while (got == RESTORE_BUFFER) {
		os = env->ops->fd_read(env, restore->fd, restore->buffer, RESTORE_BUFFER, &got);
		if (os)
			return error_os(error, os, "reading the backup");
		if (restore->size == 0 && (got < sizeof(META_MAGIC) || memcmp(restore->buffer, META_MAGIC,
									       strlen(META_MAGIC)) != 0))
			return error_set(error, BTS_INVALID, 0, "this is no backup of a database");
		os = restore_put(restore, got);
		if (os)
			return error_os(error, os, "writing the restored file");
		restore->size += got;
		if (options->progress != NULL)
			options->progress(options->arg, restore->size);
	}
	os = env->ops->file_truncate(restore->file, restore->size);
	return os ? error_os(error, os, "sizing the restored file") : BTS_OK;
}

/* Every page of it, as a database of its own. */
static enum bts_err restore_check(struct restore *restore, const char *tmp, struct bts_error *error)
{
	struct bts_options options;
	struct bts *db;
	enum bts_err err;

	bts_options_init(&options);
	options.flags = BTS_OPEN_READ_ONLY | BTS_OPEN_EXISTING;
	options.env = restore->env;
	if (restore->options->map_bytes != 0)
		options.map_bytes = restore->options->map_bytes;
	err = bts_open(tmp, &options, &db, error);
	if (err == BTS_OK) {
		err = bts_check(db, NULL, error);
		bts_close(db);
	}
	return err;
}

static void restore_unlink_lock(struct restore *restore, const char *path)
{
	char lock[PATH_MAX + 8];

	snprintf(lock, sizeof(lock), "%s-lock", path);
	restore->env->ops->path_unlink(restore->env, lock);
}

/* Both slots anew: of no file yet, so that the first writer begins an epoch (R3); unless asked otherwise, of a new database. */
static enum bts_err restore_slots(struct restore *restore, struct bts_error *error)
{
	struct bts_env *env = restore->env;
	struct meta_slot *slot = &restore->state.slot;
	bool same = (restore->options->flags & BTS_RESTORE_SAME_ID) != 0;
	enum bts_err err;
	int os = env->ops->random(env, slot->node, sizeof(slot->node));

	if (os == 0 && !same)
		os = env->ops->random(env, slot->record.database, sizeof(slot->record.database));
	if (os)
		return error_os(error, os, "no random numbers for ids");
	if (!same)
		slot->role = META_PRIMARY;
	slot->inode = slot->birth_ns = 0;
	slot->durable = slot->record.txid;
	slot->durable_sequence = 0;
	slot->manifest_count = 0;
	slot->sequence = 1;
	slot->mode = META_TWO_FLUSH;
	err = recover_write_slot(env, restore->file, 0, slot, error);
	if (err)
		return err;
	slot->sequence = RECOVER_CREATED;
	slot->mode = META_SEAL;
	slot->durable_sequence = 1;
	err = recover_write_slot(env, restore->file, 1, slot, error);
	if (err)
		return err;
	os = env->ops->file_sync(restore->file);
	return os ? error_os(error, os, "flushing the restored file") : BTS_OK;
}

/* Another restore of the same file may have given it its own name meanwhile. */
static enum bts_err restore_named(struct restore *restore, const char *path, struct bts_error *error)
{
	bool same;
	int os = beside_names(restore->env, path, restore->file, &same);

	if (os)
		return error_os(error, os, "opening %s", path);
	return same ? BTS_OK : error_set(error, BTS_BUSY, 0, "%s: this name is another file's by now", path);
}

/* The file has all of its pages.  Nobody else has it open until shared_give. */
static enum bts_err restore_finish(struct restore *restore, const char *tmp, struct bts_error *error)
{
	enum bts_err check = restore_check(restore, tmp, error);
	struct bts_error *why = check ? NULL : error;
	enum bts_err err = shared_take(restore->env, tmp, restore->file, why);

	if (err == BTS_OK)
		err = restore_named(restore, tmp, why);
	if (err == BTS_OK) /* else the lock file is another's, who may be using it */
		restore_unlink_lock(restore, tmp);
	err = check ? check : err;
	if (err == BTS_OK)
		err = recover_choose(restore->env, restore->file, &restore->state, error);
	if (err == BTS_OK && restore->state.slot.pending_count > 0)
		err = error_set(
			error, BTS_INVALID, 0, "a copy of a follower's file without its pending pages");
	if (err == BTS_OK && restore->state.slot.record.txid == 0 && !(restore->options->flags & BTS_RESTORE_SAME_ID))
		err = error_set(error, BTS_INVALID, 0, "of a follower without a commit: there is nothing a new database could begin with");
	return err ? err : restore_slots(restore, error);
}

static enum bts_err restore_fill(void *arg, struct bts_file *file, const char *tmp, struct bts_error *error)
{
	struct restore *restore = arg;
	enum bts_err err;

	restore->file = file;
	err = restore_copy(restore, error);
	if (err)
		return err;
	err = restore_finish(restore, tmp, error);
	shared_give(restore->env, file); /* a child that the program has forked meanwhile would keep it */
	return err;
}

static enum bts_err restore_options_check(const struct bts_restore_options *options, struct bts_error *error)
{
	if (options->size != sizeof(*options) || (options->flags & ~BTS_RESTORE_SAME_ID) != 0)
		return error_set(error, BTS_INVALID, 0, "struct bts_restore_options of %zu bytes, flags %#x",
			options->size, options->flags);
	return BTS_OK;
}

/* Owned: restore_free. */
static enum bts_err restore_new(const struct bts_restore_options *options, struct restore **out, struct bts_error *error)
{
	static const struct bts_restore_options plain = {.size = sizeof(plain)};
	struct restore *restore;
	struct bts_env *env;
	enum bts_err err;

	if (options == NULL)
		options = &plain;
	err = restore_options_check(options, error);
	if (err)
		return err;
	env = options->env != NULL ? options->env : bts_env_posix();
	restore = env->ops->memory(env, NULL, sizeof(*restore));
	if (restore == NULL)
		return error_set(error, BTS_MEMORY, 0, "no memory to restore");
	memset(restore, 0, sizeof(*restore));
	restore->env = env;
	restore->options = options;
	*out = restore;
	return BTS_OK;
}

static void restore_free(struct restore *restore)
{
	struct bts_env *env = restore->env;

	env->ops->memory(env, restore->buffer, 0);
	env->ops->memory(env, restore, 0);
}

enum bts_err bts_restore(
	int fd, const char *path, const struct bts_restore_options *options, struct bts_error *error)
{
	struct recover_create create = {
		.page_size = BTS_PAGE_SIZE_MIN, .role = META_PRIMARY, .fill = restore_fill};
	struct restore *restore;
	enum bts_err err = restore_new(options, &restore, error);

	if (err)
		return err;
	restore->fd = fd;
	restore->buffer = restore->env->ops->memory(restore->env, NULL, RESTORE_BUFFER);
	create.fill_arg = restore;
	err = restore->buffer == NULL ? error_set(error, BTS_MEMORY, 0, "no memory to restore")
				      : recover_create(restore->env, path, &create, error);
	restore_free(restore);
	return err;
}

/* Is it a database, and nobody's?  The lock is given back: it would be in the way of the handle that checks. */
static enum bts_err restore_judge(struct restore *restore, const char *from, struct bts_error *error)
{
	struct bts_error why = {0};
	enum bts_err err = shared_take(restore->env, from, restore->file, error);

	if (err)
		return err;
	err = recover_choose(restore->env, restore->file, &restore->state, &why);
	shared_give(restore->env, restore->file);
	return err ? error_set(error, err, why.os, "%s: %s", from, why.text) : BTS_OK;
}

enum bts_err bts_restore_file(
	const char *from, const char *path, const struct bts_restore_options *options, struct bts_error *error)
{
	struct restore *restore;
	struct bts_env *env;
	bool there = true;
	enum bts_err err = restore_new(options, &restore, error);
	int os;

	if (err)
		return err;
	env = restore->env;
	os = env->ops->file_open(env, from, BTS_FILE_WRITE, &restore->file);
	err = os ? error_os(error, os, "opening %s", from) : restore_judge(restore, from, error);
	if (err == BTS_OK)
		err = restore_finish(restore, from, error);
	if (err == BTS_OK)
		err = recover_link(env, path, from, &there, error);
	if (os == 0) {
		shared_give(env, restore->file); /* as in restore_fill */
		env->ops->file_close(restore->file);
	}
	restore_free(restore);
	return err;
}
