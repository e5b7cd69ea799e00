/*
 * A new file that is never seen half made (I11): written as path.tmp, flushed, then linked to its name.
 *
 * path.tmp is one name for all creators, so whoever makes it locks it.  One found locked is being made right
 * now: wait and look again.  One found unlocked was left by a crash and is removed; its maker, should it have
 * been about to lock it, notices that the name is gone and starts over.
 */
#include "recover.h"

#include "base/ensure.h"
#include "base/fault.h"
#include "beside.h"
#include "error.h"
#include "history.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>

#define CREATE_LOCK_BYTE (UINT64_C(1) << 62) /* of path.tmp; far from the bytes that openers lock */
#define CREATE_ATTEMPTS 100

static enum bts_err create_fault(struct bts_env *env, const char *point, struct bts_error *error)
{
	int os = env->ops->fault(env, point);

	return os ? error_set(error, BTS_IO, os, "failed on purpose at %s", point) : BTS_OK;
}

static enum bts_err create_look(struct bts_env *env, const char *path, struct bts_error *error)
{
	struct bts_file *file;
	int os = env->ops->file_open(env, path, BTS_FILE_READ, &file);

	if (os == ENOENT)
		return BTS_OK;
	if (!os)
		env->ops->file_close(file);
	else if (os != EACCES)
		return error_os(error, os, "opening %s", path);
	return error_set(error, BTS_EXISTS, 0, "%s exists already", path);
}

/* Remove what a dead creator left, or wait for a living one. */
static enum bts_err create_clear(struct bts_env *env, const char *tmp, struct bts_error *error)
{
	struct bts_file *file;
	bool same;
	int os;

	os = env->ops->file_open(env, tmp, BTS_FILE_WRITE, &file);
	if (os)
		return os == ENOENT ? BTS_OK : error_os(error, os, "opening %s", tmp);
	os = env->ops->file_lock(file, CREATE_LOCK_BYTE, 1, BTS_LOCK_EXCLUSIVE, 1);
	if (!os)
		os = beside_names(env, tmp, file, &same);
	if (!os && same)
		os = env->ops->path_unlink(env, tmp);
	env->ops->file_close(file);
	return os ? error_os(error, os, "clearing %s", tmp) : BTS_OK;
}

/* path.tmp, new, empty and locked by us. */
static enum bts_err create_tmp(struct bts_env *env, const char *path, const char *tmp, struct bts_file **out,
	struct bts_error *error)
{
	for (int i = 0; i < CREATE_ATTEMPTS; i++) {
		struct bts_file *file;
		enum bts_err err;
		bool same;
		int os;

		err = create_look(env, path, error);
		if (err)
			return err;
		os = env->ops->file_open(env, tmp, BTS_FILE_WRITE | BTS_FILE_CREATE | BTS_FILE_EXCL, &file);
		if (os == EEXIST) {
			err = create_clear(env, tmp, error);
			if (err)
				return err;
			continue;
		}
		if (os)
			return error_os(error, os, "creating %s", tmp);
		os = env->ops->file_lock(file, CREATE_LOCK_BYTE, 1, BTS_LOCK_EXCLUSIVE, 1);
		if (!os)
			os = beside_names(env, tmp, file, &same);
		if (!os && same) {
			*out = file;
			return BTS_OK;
		}
		env->ops->file_close(file);
		if (os)
			return error_os(error, os, "locking %s", tmp);
	}
	return error_set(error, BTS_BUSY, 0, "%s is being created by others all the time", path);
}

static int create_identify(struct bts_env *env, struct bts_file *file, const struct recover_create *create,
	struct meta_slot *slot)
{
	struct commit_record *record = &slot->record;
	struct bts_file_identity identity;
	int os;

	os = env->ops->file_identity(file, &identity);
	if (!os)
		os = env->ops->random(env, slot->node, sizeof(slot->node));
	if (os)
		return os;
	slot->inode = identity.inode;
	slot->birth_ns = identity.birth_ns;
	if (create->source) {
		memcpy(record->database, create->source->database, sizeof(record->database));
		record->epoch = create->source->epoch;
		record->epoch_random = create->source->epoch_random;
		return 0;
	}
	record->epoch = 1;
	os = env->ops->random(env, record->database, sizeof(record->database));
	if (!os)
		os = env->ops->random(env, &record->epoch_random, sizeof(record->epoch_random));
	return os;
}

static enum bts_err create_slot(struct bts_env *env, struct bts_file *file,
	const struct recover_create *create, struct meta_slot *slot, struct bts_error *error)
{
	struct commit_record *record = &slot->record;
	int os;

	memset(slot, 0, sizeof(*slot));
	os = create_identify(env, file, create, slot);
	if (os)
		return error_os(error, os, "naming a new database");
	slot->role = create->role;
	record->page_size = create->page_size;
	record->first = record->high_water = LAYOUT_RESERVED_BYTES / create->page_size;
	record->next_tree = LAYOUT_TREE_FIRST_BUCKET;
	record->catalog.id = LAYOUT_TREE_CATALOG;
	record->history.id = LAYOUT_TREE_HISTORY;
	record->snapshots.id = LAYOUT_TREE_SNAPSHOTS;
	record->time_ms = env->ops->realtime_ms(env);
	if (create->source)
		return BTS_OK;
	record->txid = 1;
	history_chain(record, NULL, 0);
	history_append(record);
	return BTS_OK;
}

/* Both slots hold the empty database, B as the seal of A, so that its first opening is a clean one. */
static enum bts_err create_fill(
	struct bts_env *env, struct bts_file *file, struct meta_slot *slot, struct bts_error *error)
{
	enum bts_err err;
	int os;

	os = env->ops->file_truncate(file, LAYOUT_RESERVED_BYTES);
	if (os)
		return error_os(error, os, "sizing the new file");
	slot->sequence = 1;
	slot->mode = META_TWO_FLUSH;
	slot->durable = slot->record.txid;
	err = recover_write_slot(env, file, 0, slot, error);
	if (err)
		return err;
	slot->sequence = RECOVER_CREATED;
	slot->mode = META_SEAL;
	slot->durable_sequence = 1;
	err = recover_write_slot(env, file, 1, slot, error);
	if (!err)
		err = create_fault(env, "create.written", error);
	if (err || SABOTAGE(FAULT_I11_LINK_EARLY))
		return err;
	os = env->ops->file_sync(file);
	if (os)
		return error_os(error, os, "flushing the new file");
	return create_fault(env, "create.flushed", error);
}

enum bts_err recover_link(struct bts_env *env, const char *path, const char *tmp, bool *tmp_there, struct bts_error *error)
{
	enum bts_err err;
	int os;

	os = env->ops->path_link(env, tmp, path);
	if (os == EEXIST)
		return error_set(error, BTS_EXISTS, 0, "%s exists already", path);
	if (os)
		return error_os(error, os, "linking %s", path);
	err = create_fault(env, "create.linked", error);
	if (err)
		return err;
	*tmp_there = false;
	os = env->ops->path_unlink(env, tmp);
	if (!os)
		os = env->ops->path_sync_dir(env, path);
	if (os)
		return error_os(error, os, "flushing the directory of %s", path);
	return create_fault(env, "create.synced", error);
}

enum bts_err recover_create(
	struct bts_env *env, const char *path, const struct recover_create *create, struct bts_error *error)
{
	struct bts_file *file = NULL;
	struct meta_slot *slot = NULL;
	char tmp[PATH_MAX];
	bool tmp_there = true;
	enum bts_err err;

	ENSURE(create->page_size >= BTS_PAGE_SIZE_MIN && create->page_size <= BTS_PAGE_SIZE_MAX &&
		!(create->page_size & (create->page_size - 1)));
	if ((size_t)snprintf(tmp, sizeof(tmp), "%s.tmp", path) >= sizeof(tmp))
		return error_set(error, BTS_INVALID, 0, "the path is too long");
	err = create_tmp(env, path, tmp, &file, error);
	if (err)
		return err;
	slot = env->ops->memory(env, NULL, sizeof(*slot));
	if (!slot)
		err = error_set(error, BTS_MEMORY, 0, "no memory to create %s", path);
	if (!err && create->fill)
		err = create->fill(create->fill_arg, file, tmp, error);
	else if (!err)
		err = create_slot(env, file, create, slot, error);
	if (!err && !create->fill)
		err = create_fill(env, file, slot, error);
	if (!err)
		err = recover_link(env, path, tmp, &tmp_there, error);
	if (tmp_there)
		env->ops->path_unlink(env, tmp);
	env->ops->file_close(file);
	if (slot)
		env->ops->memory(env, slot, 0);
	return err;
}
