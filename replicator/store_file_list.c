/*
 * The listing of a directory as a store, in the order of whole keys: a directory "a" counts as "a/", which is
 * behind "a-b" and "a.b".  A directory may hold any number of names and memory does not: it is read again and
 * again, and each time the least of the names that are left are kept.
 */
#include "store_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fail.h"

#define STORE_FILE_PAGE 8192 /* names kept of one reading; twice as many for a moment */
#define STORE_FILE_DEPTH 16  /* directories into each other that are looked into */
#define STORE_FILE_TEMP_AGE                                                                                  \
	(24 * 60 * 60) /* seconds after which a put that has left its other name is dead */

struct store_file_listing {
	const struct store *store;
	const char *prefix, *after;
	store_key_fn *visit;
	void *arg;
	struct bts_error *error;
	char key[STORE_KEY_MAX + 2]; /* the directory of the moment, "" or ending with / */
};

/* Names, a / behind those of directories. */
struct store_file_names {
	char **name;
	size_t count;
	bool more; /* some were dropped */
};

static int store_file_compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All but the least STORE_FILE_PAGE are dropped; the rest is in order and without doubles. */
static void store_file_thin(struct store_file_names *names)
{
	size_t i, kept = 0;

	if (names->count > 0)
		qsort(names->name, names->count, sizeof(*names->name), store_file_compare);
	for (i = 0; i < names->count; i++) {
		bool twice = kept > 0 && strcmp(names->name[i], names->name[kept - 1]) == 0;

		if (!twice && kept < STORE_FILE_PAGE) {
			names->name[kept++] = names->name[i];
			continue;
		}
		names->more = names->more || !twice;
		free(names->name[i]);
	}
	names->count = kept;
}

static void store_file_drop(struct store_file_names *names)
{
	while (names->count > 0)
		free(names->name[--names->count]);
	free(names->name);
}

/* What a put left that did not end, of a process that is gone by now. */
static void store_file_clean(int dir, const char *name)
{
	struct stat stat;
	size_t size = strlen(STORE_FILE_TEMP);

	if (strlen(name) != size + 16 || strspn(name + size, "0123456789abcdef") != 16)
		return;
	if (fstatat(dir, name, &stat, AT_SYMLINK_NOFOLLOW) || !S_ISREG(stat.st_mode))
		return;
	if (stat.st_mtime < time(NULL) - STORE_FILE_TEMP_AGE)
		(void)unlinkat(dir, name, 0);
}

/* May the key, or with a / at its end something below it, be asked for? */
static bool store_file_wants(const struct store_file_listing *listing, const char *key)
{
	size_t size = strlen(key), prefix = strlen(listing->prefix);

	if (strncmp(key, listing->prefix, size < prefix ? size : prefix))
		return false;
	if (key[size - 1] != '/')
		return size >= prefix && strcmp(key, listing->after) > 0;
	return strcmp(key, listing->after) > 0 || strncmp(listing->after, key, size) == 0;
}

/* The entry as it is sorted; false: passed over.  dir: of the entry. */
static bool store_file_entry(struct store_file_listing *listing, int dir, const struct dirent *entry,
	const char *last, char name[STORE_PART_MAX + 2])
{
	size_t size = strlen(entry->d_name), used = strlen(listing->key);
	unsigned char type = entry->d_type;
	struct stat stat;
	bool wanted;

	if (strncmp(entry->d_name, STORE_FILE_TEMP, strlen(STORE_FILE_TEMP)) == 0)
		store_file_clean(dir, entry->d_name);
	if (!store_url_is_part(entry->d_name, size) || used + size > STORE_KEY_MAX)
		return false;
	if (type == DT_UNKNOWN && !fstatat(dir, entry->d_name, &stat, AT_SYMLINK_NOFOLLOW))
		type = S_ISREG(stat.st_mode) ? DT_REG : S_ISDIR(stat.st_mode) ? DT_DIR : DT_UNKNOWN;
	if (type != DT_REG && type != DT_DIR)
		return false;
	memcpy(name, entry->d_name, size);
	strcpy(name + size, type == DT_DIR ? "/" : "");
	if (strcmp(name, last) <= 0)
		return false;
	strcpy(listing->key + used, name);
	wanted = store_file_wants(listing, listing->key);
	listing->key[used] = '\0';
	return wanted;
}

/* The least names of the directory that come after last. */
static enum bts_err store_file_page(
	struct store_file_listing *listing, DIR *dir, const char *last, struct store_file_names *names)
{
	char name[STORE_PART_MAX + 2];
	const struct dirent *entry;

	names->name = malloc(2 * STORE_FILE_PAGE * sizeof(*names->name));
	if (!names->name)
		return fail_set(listing->error, BTS_MEMORY, "no memory for a listing");
	rewinddir(dir);
	for (;;) {
		if (store_is_interrupted(listing->store))
			return store_fail_interrupted(listing->store, listing->error);
		errno = 0;
		entry = readdir(dir);
		if (!entry && errno)
			return fail_os(listing->error, errno,
				"%" STORE_NAME "/%" STORE_KEY ": reading the directory", listing->store->name,
				listing->key);
		if (!entry)
			break;
		if (!store_file_entry(listing, dirfd(dir), entry, last, name))
			continue;
		if (names->count == 2 * STORE_FILE_PAGE)
			store_file_thin(names);
		names->name[names->count] = strdup(name);
		if (!names->name[names->count])
			return fail_set(listing->error, BTS_MEMORY, "no memory for a listing");
		names->count++;
	}
	store_file_thin(names);
	return BTS_OK;
}

static enum bts_err store_file_list_dir(struct store_file_listing *listing, int fd, unsigned depth);

static enum bts_err store_file_list_name(
	struct store_file_listing *listing, int dir, const char *name, unsigned depth)
{
	size_t used = strlen(listing->key), size = strlen(name);
	enum bts_err err = BTS_OK;
	struct stat stat;
	int64_t ms;
	int fd;

	strcpy(listing->key + used, name);
	if (name[size - 1] == '/') {
		fd = depth < STORE_FILE_DEPTH
			     ? openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
			     : -1;
		if (fd >= 0)
			err = store_file_list_dir(listing, fd, depth + 1);
		else if (depth < STORE_FILE_DEPTH && errno != ENOENT && errno != ENOTDIR && errno != ELOOP)
			err = fail_os(listing->error, errno, "%" STORE_NAME "/%" STORE_KEY,
				listing->store->name, listing->key);
	} else if (!fstatat(dir, name, &stat, AT_SYMLINK_NOFOLLOW) && S_ISREG(stat.st_mode)) {
		ms = stat.st_mtim.tv_sec > 0 ? stat.st_mtim.tv_sec * 1000 + stat.st_mtim.tv_nsec / 1000000
					     : 0;
		err = listing->visit(
			listing->arg, listing->key, (uint64_t)stat.st_size, (uint64_t)ms, listing->error);
	}
	listing->key[used] = '\0';
	return err;
}

/* Takes fd. */
static enum bts_err store_file_list_dir(struct store_file_listing *listing, int fd, unsigned depth)
{
	struct store_file_names names = {.more = true};
	char last[STORE_PART_MAX + 2] = "";
	DIR *dir = fdopendir(fd);
	enum bts_err err = BTS_OK;
	size_t i;

	if (!dir) {
		close(fd);
		return fail_set(listing->error, BTS_MEMORY, "no memory for a listing");
	}
	while (!err && names.more) {
		names = (struct store_file_names){.count = 0};
		err = store_file_page(listing, dir, last, &names);
		for (i = 0; !err && i < names.count; i++)
			err = store_file_list_name(listing, dirfd(dir), names.name[i], depth);
		if (names.count > 0)
			strcpy(last, names.name[names.count - 1]);
		store_file_drop(&names);
	}
	closedir(dir);
	return err;
}

enum bts_err store_file_list(struct store *store, const char *prefix, const char *after, store_key_fn *visit,
	void *arg, struct bts_error *error)
{
	struct store_file_listing listing = {
		.store = store, .prefix = prefix, .after = after, .visit = visit, .arg = arg, .error = error};
	int fd = open(((struct store_file *)store)->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? BTS_OK : fail_os(error, errno, "%" STORE_NAME, store->name);
	return store_file_list_dir(&listing, fd, 1);
}
