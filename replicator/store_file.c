/*
 * A directory as a store.  A key is a path below it.
 *
 * An object is written beside its place under a name that is no key, flushed, given its name by rename(2) or, only
 * if it is new, by link(2), and the directory is flushed: after a crash there is the whole object, or none and
 * perhaps the other name.  A directory is flushed in its parent before anything in it counts, whoever made it.
 *
 * Below the root no symbolic link is followed: each part of a key is opened in its parent's descriptor.
 */
#include "store_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"

#define STORE_FILE_CHUNK (256 * 1024)
#define STORE_FILE_TEMP_SIZE (sizeof(STORE_FILE_TEMP) + 16)

static enum bts_err store_file_fail(
	const struct store *store, const char *key, const char *what, struct bts_error *error)
{
	int os = errno;

	if (os == EACCES || os == EPERM || os == EROFS || os == ENOTDIR || os == ELOOP || os == EISDIR) {
		fail_os(error, os, "%" STORE_NAME "/%" STORE_KEY ": %s", store->name, key, what);
		if (error)
			error->code = BTS_INVALID;
		return BTS_INVALID;
	}
	return fail_os(error, os, "%" STORE_NAME "/%" STORE_KEY ": %s", store->name, key, what);
}

/* The directory and all above it; each that is made is flushed in its parent. */
static int store_file_make_root(const char *root)
{
	char path[STORE_URL_MAX + 1];
	char *slash = path;
	int fd, failed;

	strcpy(path, root);
	while (slash) {
		slash = strchr(slash + 1, '/');
		if (slash)
			*slash = '\0';
		failed = mkdir(path, 0700);
		if (failed && errno != EEXIST)
			return -1;
		if (!failed) {
			char *last = strrchr(path, '/');
			char parent[STORE_URL_MAX + 1];

			snprintf(parent, sizeof(parent), "%.*s", last == path ? 1 : (int)(last - path), path);
			fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
			failed = fd < 0 || fsync(fd);
			if (fd >= 0)
				close(fd);
			if (failed)
				return -1;
		}
		if (slash)
			*slash = '/';
	}
	return 0;
}

static int store_file_open_root(const struct store_file *file, bool make)
{
	int fd = open(file->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0 || errno != ENOENT || !make)
		return fd;
	return store_file_make_root(file->root) ? -1 : open(file->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/*
 * The directory of the key, a descriptor to close, and the last part of the key; -1: errno. make: what is missing
 * is made, and the way down is flushed unless this handle has done so before.
 */
static int store_file_walk(struct store_file *file, const char *key, bool make, const char **leaf)
{
	char part[STORE_PART_MAX + 1];
	const char *at = key, *slash;
	bool flush, made;
	int fd, next;

	*leaf = strrchr(key, '/') ? strrchr(key, '/') + 1 : key;
	flush = make && (strlen(file->synced) != (size_t)(*leaf - key) ||
				strncmp(file->synced, key, (size_t)(*leaf - key)));
	fd = store_file_open_root(file, make);
	for (; fd >= 0 && (slash = strchr(at, '/')); at = slash + 1) {
		snprintf(part, sizeof(part), "%.*s", (int)(slash - at), at);
		made = make && !mkdirat(fd, part, 0700);
		next = -1;
		if ((!make || made || errno == EEXIST) && (!(flush || made) || !fsync(fd)))
			next = openat(fd, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(fd); /* a directory's: nothing of it can fail, and errno stays */
		fd = next;
	}
	if (fd >= 0 && flush)
		snprintf(file->synced, sizeof(file->synced), "%.*s", (int)(*leaf - key), key);
	return fd;
}

static enum bts_err store_file_write(
	const struct store *store, const char *key, int fd, struct bts_slice bytes, struct bts_error *error)
{
	const char *data = bytes.data;
	size_t left = bytes.size;
	ssize_t wrote;

	while (left > 0) {
		if (store_is_interrupted(store))
			return store_fail_interrupted(store, error);
		wrote = write(fd, data, left < STORE_FILE_CHUNK ? left : STORE_FILE_CHUNK);
		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote <= 0)
			return store_file_fail(store, key, "write", error);
		data += wrote;
		left -= (size_t)wrote;
	}
	return fsync(fd) ? store_file_fail(store, key, "flush", error) : BTS_OK;
}

/* The object under its other name gets its own.  The other name is gone, or is left when it fails. */
static enum bts_err store_file_name(const struct store *store, int dir, const char *key, const char *temp,
	const char *leaf, bool only_new, struct bts_error *error)
{
	struct stat ours;
	enum bts_err err = BTS_OK;

	if (!only_new) {
		if (renameat(dir, temp, dir, leaf))
			return store_file_fail(store, key, "rename", error);
	} else if (linkat(dir, temp, dir, leaf, 0)) {
		if (errno != EEXIST)
			return store_file_fail(
				store, key, "link (the file system must have hard links)", error);
		/* Over a network the answer to the link may have been lost, and it was asked again. */
		if (fstatat(dir, temp, &ours, AT_SYMLINK_NOFOLLOW) || ours.st_nlink != 2)
			err = BTS_EXISTS;
	}
	/* Also before "it exists": what the caller does next may build on the other's. */
	if (fsync(dir))
		return store_file_fail(store, key, "flush of the directory", error);
	if (only_new)
		unlinkat(dir, temp, 0);
	return err ? fail_set(error, err, "%" STORE_NAME "/%" STORE_KEY ": it exists", store->name, key)
		   : BTS_OK;
}

static enum bts_err store_file_put(
	struct store *store, const char *key, struct bts_slice bytes, bool only_new, struct bts_error *error)
{
	struct store_file *file = (struct store_file *)store;
	char temp[STORE_FILE_TEMP_SIZE];
	const char *leaf;
	uint64_t random;
	int dir, fd;
	enum bts_err err;

	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return store_file_fail(store, key, "getrandom", error);
	snprintf(temp, sizeof(temp), STORE_FILE_TEMP "%016" PRIx64, random);
	dir = store_file_walk(file, key, true, &leaf);
	if (dir < 0)
		return store_file_fail(store, key, "directory", error);
	fd = openat(dir, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0) {
		err = store_file_fail(store, key, "create", error);
		close(dir);
		return err;
	}
	err = store_file_write(store, key, fd, bytes, error);
	if (close(fd) && !err)
		err = store_file_fail(store, key, "close", error);
	if (!err)
		err = store_file_name(store, dir, key, temp, leaf, only_new, error);
	if (err)
		unlinkat(dir, temp, 0);
	close(dir);
	return err;
}

static enum bts_err store_file_read(const struct store *store, const char *key, int fd, store_piece_fn *visit,
	void *arg, struct bts_error *error)
{
	char *buffer = malloc(STORE_FILE_CHUNK);
	enum bts_err err = BTS_OK;
	size_t all = 0;
	ssize_t got;

	if (!buffer)
		return fail_set(error, BTS_MEMORY, "no memory to read an object");
	while (!err) {
		got = read(fd, buffer, STORE_FILE_CHUNK);
		if (got == 0)
			break;
		if (store_is_interrupted(store))
			err = store_fail_interrupted(store, error);
		else if (got < 0 && errno != EINTR)
			err = store_file_fail(store, key, "read", error);
		if (err || got < 0)
			continue;
		all += (size_t)got;
		err = all > STORE_OBJECT_MAX
			      ? fail_set(error, BTS_CORRUPT,
					"%" STORE_NAME "/%" STORE_KEY ": longer than any object", store->name,
					key)
			      : visit(arg, buffer, (size_t)got, error);
	}
	free(buffer);
	return err;
}

static enum bts_err store_file_missing(const struct store *store, const char *key, struct bts_error *error)
{
	return fail_set(error, BTS_NOT_FOUND, "%" STORE_NAME "/%" STORE_KEY ": there is no such object",
		store->name, key);
}

static enum bts_err store_file_get(
	struct store *store, const char *key, store_piece_fn *visit, void *arg, struct bts_error *error)
{
	const char *leaf;
	int dir = store_file_walk((struct store_file *)store, key, false, &leaf), fd;
	struct stat stat;
	enum bts_err err;

	if (dir < 0)
		return errno == ENOENT ? store_file_missing(store, key, error)
				       : store_file_fail(store, key, "directory", error);
	/* O_NONBLOCK: opening somebody's FIFO must not wait. */
	fd = openat(dir, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		err = errno == ENOENT ? store_file_missing(store, key, error)
				      : store_file_fail(store, key, "open", error);
	else if (fstat(fd, &stat))
		err = store_file_fail(store, key, "stat", error);
	else if (!S_ISREG(stat.st_mode))
		err = fail_set(
			error, BTS_INVALID, "%" STORE_NAME "/%" STORE_KEY ": not a file", store->name, key);
	else
		err = store_file_read(store, key, fd, visit, arg, error);
	if (fd >= 0)
		close(fd);
	close(dir);
	return err;
}

static enum bts_err store_file_remove(struct store *store, const char *key, struct bts_error *error)
{
	const char *leaf;
	int dir = store_file_walk((struct store_file *)store, key, false, &leaf);
	enum bts_err err = BTS_OK;

	if (dir < 0)
		return errno == ENOENT ? BTS_OK : store_file_fail(store, key, "directory", error);
	if (unlinkat(dir, leaf, 0) && errno != ENOENT)
		err = store_file_fail(store, key, "unlink", error);
	else if (fsync(dir))
		err = store_file_fail(store, key, "flush of the directory", error);
	close(dir);
	return err;
}

static void store_file_close(struct store *store)
{
	free(store);
}

enum bts_err store_file_open(const struct store_url *url, struct store **store, struct bts_error *error)
{
	static const struct store_ops ops = {
		.close = store_file_close,
		.put = store_file_put,
		.get = store_file_get,
		.list = store_file_list,
		.remove = store_file_remove,
	};
	struct store_file *file = calloc(1, sizeof(*file));

	if (!file)
		return fail_set(error, BTS_MEMORY, "no memory for a store");
	file->base.ops = &ops;
	strcpy(file->base.name, url->name);
	strcpy(file->root, url->path);
	strcpy(file->synced, "/"); /* no key's */
	atomic_init(&file->base.interrupted, false);
	*store = &file->base;
	return BTS_OK;
}
