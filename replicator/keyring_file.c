/* The file of tokens: its lines, and how it is replaced. */
#include "keyring.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "position.h"

#define KEYRING_HEAD "btree_store tokens 1"
#define KEYRING_LINE_SIZE 1024
#define KEYRING_PATH_SIZE 4096

static const struct {
	unsigned scope;
	const char *word;
} keyring_words[] = {{KEYRING_READ, "read"}, {KEYRING_WRITE, "write"}, {KEYRING_ADMIN, "admin"},
	{KEYRING_REPLICATE, "replicate"}, {KEYRING_ELECT, "elect"}};

#define KEYRING_WORDS (sizeof(keyring_words) / sizeof(keyring_words[0]))

bool keyring_scopes_parse(const char *text, unsigned *scopes)
{
	unsigned found = 0;
	size_t i, size;

	do {
		size = strcspn(text, ",");
		for (i = 0; i < KEYRING_WORDS; i++)
			if (strlen(keyring_words[i].word) == size &&
				memcmp(text, keyring_words[i].word, size) == 0)
				break;
		if (i == KEYRING_WORDS)
			return false;
		found |= keyring_words[i].scope;
		text += size;
	} while (*text++ == ',');
	*scopes = found;
	return true;
}

void keyring_scopes_text(unsigned scopes, char text[KEYRING_SCOPES_SIZE])
{
	text[0] = '\0';
	for (size_t i = 0; i < KEYRING_WORDS; i++)
		if (scopes & keyring_words[i].scope) {
			strcat(text, text[0] ? "," : "");
			strcat(text, keyring_words[i].word);
		}
	if (!text[0])
		strcpy(text, "none");
}

bool keyring_expiry_parse(const char *text, uint64_t *expires_s)
{
	static const struct {
		char unit;
		uint64_t seconds;
	} units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}};
	size_t size = strlen(text), i;
	uint64_t number;
	char digits[12];

	if (strcmp(text, "0") == 0) {
		*expires_s = 0;
		return true;
	}
	if (size < 2 || size > sizeof(digits))
		return false;
	memcpy(digits, text, size - 1);
	digits[size - 1] = '\0';
	for (i = 0; i < 4 && units[i].unit != text[size - 1]; i++)
		;
	if (i == 4 || !position_number_parse(digits, UINT64_C(1) << 32, &number))
		return false;
	*expires_s = (uint64_t)time(NULL) + number * units[i].seconds;
	return true;
}

bool keyring_name_valid(const char *name)
{
	size_t size = strlen(name), i;

	for (i = 0; i < size && (isalnum((unsigned char)name[i]) || strchr(".-_", name[i])); i++)
		;
	return i == size && size < KEYRING_NAME_SIZE && strcmp(name, "-") != 0;
}

/* A character of a pattern: percent-encoded but for the unreserved ones. */
static bool keyring_pattern_char(const char *at, size_t *size, unsigned char *byte)
{
	static const char digits[] = "0123456789abcdef";
	const char *high, *low;

	*size = 1;
	*byte = (unsigned char)*at;
	if (*at != '%')
		return isalnum(*byte) || (*at && strchr(".-_~", *at));
	high = at[1] ? strchr(digits, tolower((unsigned char)at[1])) : NULL;
	low = high && at[2] ? strchr(digits, tolower((unsigned char)at[2])) : NULL;
	*size = 3;
	if (low)
		*byte = (unsigned char)((high - digits) << 4 | (low - digits));
	return low != NULL;
}

bool keyring_buckets_valid(const char *buckets)
{
	size_t size;
	unsigned char byte;

	if (!*buckets || strlen(buckets) >= KEYRING_BUCKETS_SIZE)
		return false;
	for (;;) {
		if (*buckets == ',' || !*buckets)
			return false; /* an empty pattern */
		while (*buckets && *buckets != ',' && *buckets != '*') {
			if (!keyring_pattern_char(buckets, &size, &byte))
				return false;
			buckets += size;
		}
		buckets += *buckets == '*';
		if (!*buckets)
			return true;
		if (*buckets++ != ',')
			return false;
	}
}

/* One pattern of the list, up to its end: does it match? */
static bool keyring_pattern_matches(const char *pattern, struct bts_slice bucket)
{
	const unsigned char *name = bucket.data;
	unsigned char byte;
	size_t at = 0, size;

	for (; *pattern && *pattern != ',' && *pattern != '*'; pattern += size) {
		if (!keyring_pattern_char(pattern, &size, &byte) || at == bucket.size || name[at++] != byte)
			return false;
	}
	return *pattern == '*' || at == bucket.size;
}

bool keyring_bucket_matches(const char *buckets, struct bts_slice bucket)
{
	for (;;) {
		if (keyring_pattern_matches(buckets, bucket))
			return true;
		buckets = strchr(buckets, ',');
		if (!buckets)
			return false;
		buckets++;
	}
}

bool keyring_limit_fits(const struct keyring_entry *entry)
{
	return strcmp(entry->buckets, "*") == 0 || !(entry->scopes & (KEYRING_ADMIN | KEYRING_REPLICATE | KEYRING_ELECT));
}

void keyring_id(const uint8_t sum[KEYRING_SUM], char id[KEYRING_ID_SIZE])
{
	position_hex(sum, (KEYRING_ID_SIZE - 1) / 2, id);
}

/* ---- lines ---- */

static bool keyring_kind_parse(const char *text, struct keyring_entry *entry)
{
	static const char word[] = "certificate";
	size_t size = sizeof(word) - 1;

	entry->certificate = strncmp(text, word, size) == 0;
	if (!entry->certificate)
		return keyring_scopes_parse(text, &entry->scopes);
	return !text[size] || (text[size] == ',' && keyring_scopes_parse(text + size + 1, &entry->scopes));
}

static bool keyring_line_parse(char *line, struct keyring_entry *entry)
{
	char *field[6], *at = line;
	size_t i;

	memset(entry, 0, sizeof(*entry));
	for (i = 0; i < 6; i++) {
		field[i] = at;
		at += strcspn(at, " ");
		if ((*at == ' ') != (i < 5))
			return false;
		*at++ = '\0';
	}
	if (!position_hex_parse(field[0], entry->sum, KEYRING_SUM) ||
		!keyring_kind_parse(field[1], entry) ||
		!position_number_parse(field[2], INT64_MAX, &entry->created_s) ||
		!position_number_parse(field[3], INT64_MAX, &entry->expires_s) ||
		!keyring_buckets_valid(field[4]))
		return false;
	strcpy(entry->buckets, field[4]);
	if (!keyring_limit_fits(entry))
		return false;
	if (strcmp(field[5], "-") == 0)
		return true;
	if (!field[5][0] || !keyring_name_valid(field[5]))
		return false;
	strcpy(entry->name, field[5]);
	return true;
}

static void keyring_line_write(FILE *file, const struct keyring_entry *entry)
{
	char sum[2 * KEYRING_SUM + 1], scopes[KEYRING_SCOPES_SIZE];

	position_hex(entry->sum, KEYRING_SUM, sum);
	keyring_scopes_text(entry->scopes, scopes);
	fprintf(file, "%s %s%s%s %" PRIu64 " %" PRIu64 " %s %s\n", sum, entry->certificate ? "certificate" : "",
		entry->certificate && entry->scopes ? "," : "", entry->scopes ? scopes : "", entry->created_s, entry->expires_s, entry->buckets, entry->name[0] ? entry->name : "-");
}

enum bts_err keyring_check_private(int fd, const char *path, struct bts_error *error)
{
	struct stat st;

	if (fstat(fd, &st))
		return fail_os(error, errno, "%.200s", path);
	if (!S_ISREG(st.st_mode))
		return fail_set(error, BTS_INVALID, "%.200s is not a file", path);
	if (st.st_mode & (S_IRWXG | S_IRWXO))
		return fail_set(error, BTS_INVALID,
			"%.200s has mode %03o: others than its owner get at it; chmod 600 it", path,
			(unsigned)st.st_mode & 0777);
	if (st.st_uid != geteuid() && st.st_uid != 0)
		return fail_set(error, BTS_INVALID, "%.200s belongs to another user", path);
	return BTS_OK;
}

static enum bts_err keyring_list_add(
	struct keyring_list *list, const struct keyring_entry *entry, struct bts_error *error)
{
	struct keyring_entry *entries;

	if (list->count == KEYRING_ENTRIES_MAX)
		return fail_set(error, BTS_LIMIT, "more than %d tokens", KEYRING_ENTRIES_MAX);
	entries = realloc(list->entries, (list->count + 1) * sizeof(*entries));
	if (!entries)
		return fail_set(error, BTS_MEMORY, "no memory for tokens");
	list->entries = entries;
	entries[list->count++] = *entry;
	return BTS_OK;
}

void keyring_list_free(struct keyring_list *list)
{
	free(list->entries);
	list->entries = NULL;
	list->count = 0;
}

/* Takes fd.  An empty file has no tokens yet. */
static enum bts_err keyring_read(int fd, const char *path, struct keyring_list *list, struct bts_error *error)
{
	char line[KEYRING_LINE_SIZE], *end;
	struct keyring_entry entry;
	enum bts_err err;
	unsigned number;
	FILE *file;

	memset(list, 0, sizeof(*list));
	err = keyring_check_private(fd, path, error);
	file = err ? NULL : fdopen(fd, "r");
	if (!file) {
		close(fd);
		return err ? err : fail_os(error, errno, "%.200s", path);
	}
	for (number = 1; !err && fgets(line, sizeof(line), file); number++) {
		end = strchr(line, '\n');
		if (end)
			*end = '\0';
		if (!end ||
			(number == 1 ? strcmp(line, KEYRING_HEAD) != 0 : !keyring_line_parse(line, &entry)))
			err = fail_set(error, BTS_INVALID, "%.200s: line %u is not one of a file of tokens",
				path, number);
		else if (number > 1)
			err = keyring_list_add(list, &entry, error);
	}
	if (!err && ferror(file))
		err = fail_set(error, BTS_IO, "%.200s cannot be read", path);
	fclose(file);
	if (err)
		keyring_list_free(list);
	return err;
}

enum bts_err keyring_load(const char *path, struct keyring_list *list, struct bts_error *error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return fail_os(error, errno, "%.200s", path);
	return keyring_read(fd, path, list, error);
}

/* ---- replacing it ---- */

/*
 * The file, made when there is none, locked against others who replace it; the descriptor, or -1.  Who waited for the lock may hold
 * it on a file that has been replaced meanwhile.
 */
static int keyring_lock(const char *path, bool make, struct bts_error *error)
{
	struct stat held, named;
	int fd;

	for (;;) {
		fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | (make ? O_CREAT : 0), 0600);
		if (fd < 0 || flock(fd, LOCK_EX) || fstat(fd, &held))
			break;
		if (stat(path, &named) == 0 && named.st_ino == held.st_ino && named.st_dev == held.st_dev)
			return fd;
		close(fd);
	}
	(void)fail_os(error, errno, "%.200s", path);
	if (fd >= 0)
		close(fd);
	return -1;
}

static enum bts_err keyring_sync_folder(const char *path, struct bts_error *error)
{
	char folder[KEYRING_PATH_SIZE];
	char *slash;
	int fd, failed;

	snprintf(folder, sizeof(folder), "%s", path);
	slash = strrchr(folder, '/');
	if (slash)
		slash[slash == folder] = '\0';
	fd = open(slash ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	failed = fd < 0 || fsync(fd) ? errno : 0;
	if (fd >= 0)
		close(fd);
	return failed ? fail_os(error, failed, "the folder of %.200s", path) : BTS_OK;
}

/* Under keyring_lock. */
static enum bts_err keyring_replace(
	const char *path, const struct keyring_list *list, struct bts_error *error)
{
	char beside[KEYRING_PATH_SIZE];
	FILE *file;
	size_t i;
	int fd, os = 0;

	if ((size_t)snprintf(beside, sizeof(beside), "%s.new", path) >= sizeof(beside))
		return fail_set(error, BTS_INVALID, "the path of the token file is too long");
	/* What a process left here that died: nobody else is at it, who holds the lock. */
	unlink(beside);
	fd = open(beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	file = fd < 0 ? NULL : fdopen(fd, "w");
	if (!file) {
		os = errno;
		if (fd >= 0)
			close(fd);
		return fail_os(error, os, "%.200s", beside);
	}
	fputs(KEYRING_HEAD "\n", file);
	for (i = 0; i < list->count; i++)
		keyring_line_write(file, &list->entries[i]);
	if (fflush(file) || fsync(fd))
		os = errno;
	if (fclose(file) && !os)
		os = errno;
	if (!os && rename(beside, path))
		os = errno;
	if (os) {
		unlink(beside);
		return fail_os(error, os, "%.200s", beside);
	}
	return keyring_sync_folder(path, error);
}

/* The lock stays until fd is closed; list is read from it. */
static enum bts_err keyring_begin(
	const char *path, bool make, int *fd, struct keyring_list *list, struct bts_error *error)
{
	int again;

	memset(list, 0, sizeof(*list));
	*fd = keyring_lock(path, make, error);
	if (*fd < 0)
		return error ? error->code : BTS_IO;
	again = dup(*fd);
	if (again < 0)
		return fail_os(error, errno, "%.200s", path);
	return keyring_read(again, path, list, error);
}

enum bts_err keyring_add(const char *path, const struct keyring_entry *entry, struct bts_error *error)
{
	struct bts_error why = {0};
	struct keyring_list list;
	enum bts_err err;
	size_t i;
	int fd;

	err = keyring_begin(path, true, &fd, &list, &why);
	for (i = 0; !err && i < list.count; i++)
		if (memcmp(list.entries[i].sum, entry->sum, KEYRING_SUM) == 0)
			break;
	if (!err && i < list.count)
		list.entries[i] = *entry;
	else if (!err)
		err = keyring_list_add(&list, entry, &why);
	if (!err)
		err = keyring_replace(path, &list, &why);
	keyring_list_free(&list);
	if (fd >= 0)
		close(fd);
	return err ? fail_set(error, err, "%s", why.text) : BTS_OK;
}

enum bts_err keyring_revoke(const char *path, const char *id, struct bts_error *error)
{
	struct bts_error why = {0};
	char one[KEYRING_ID_SIZE];
	struct keyring_list list;
	enum bts_err err;
	size_t i, kept = 0;
	bool found = false;
	int fd;

	err = keyring_begin(path, false, &fd, &list, &why);
	for (i = 0; !err && i < list.count; i++) {
		struct keyring_entry *entry = &list.entries[i];
		bool this = (keyring_id(entry->sum, one), strcmp(one, id) == 0 && entry->scopes);

		found |= this;
		if (this)
			entry->scopes = 0;
		if (!this || entry->certificate)
			list.entries[kept++] = *entry;
	}
	if (!err && !found)
		err = fail_set(&why, BTS_NOT_FOUND, "there is no token %.20s", id);
	list.count = kept;
	if (!err)
		err = keyring_replace(path, &list, &why);
	keyring_list_free(&list);
	if (fd >= 0)
		close(fd);
	return err ? fail_set(error, err, "%s", why.text) : BTS_OK;
}

enum bts_err keyring_create(const char *path, struct keyring_entry *entry, char token[KEYRING_TOKEN_SIZE],
	struct bts_error *error)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	char text[KEYRING_TOKEN_SIZE] = "bts_";
	uint8_t random[33] = {
		0}; /* a byte of nought rounds it up to 44 digits, of which the last is left out */
	enum bts_err err;
	size_t i;

	if (getrandom(random, 32, 0) != 32)
		return fail_set(error, BTS_IO, "no random numbers for a token");
	for (i = 0; i < 43; i++) {
		unsigned two =
			(unsigned)random[i * 6 / 8] << 8 | (i * 6 / 8 + 1 < 33 ? random[i * 6 / 8 + 1] : 0);

		text[4 + i] = digits[two >> (10 - i * 6 % 8) & 63];
	}
	text[47] = '\0';
	if (!keyring_token_sum(text, entry->sum))
		return fail_set(error, BTS_IO, "no sum of a token");
	entry->created_s = (uint64_t)time(NULL);
	err = keyring_add(path, entry, error);
	if (!err)
		memcpy(token, text, sizeof(text));
	return err;
}
