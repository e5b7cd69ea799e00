/* Writing down what a rewind leaves behind. */
#include "orphans.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct orphans {
	FILE *file;
	uint64_t lines;
};

/* Bytes of the valid UTF-8 character at p, 0 when there is none. */
static size_t orphans_character(const uint8_t *p, size_t size)
{
	size_t n = p[0] < 0x80 ? 1 : p[0] >= 0xc2 && p[0] < 0xe0 ? 2 : p[0] >= 0xe0 && p[0] < 0xf0 ? 3 : p[0] >= 0xf0 && p[0] < 0xf5 ? 4 : 0;

	if (n == 0 || n > size || p[0] == 0)
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0) || (p[0] == 0xf0 && p[1] < 0x90) ||
		(p[0] == 0xf4 && p[1] >= 0x90))
		return 0;
	return n;
}

static bool orphans_is_text(struct bts_slice bytes)
{
	const uint8_t *p = bytes.data;

	for (size_t at = 0, n; at < bytes.size; at += n) {
		n = orphans_character(p + at, bytes.size - at);
		if (n == 0)
			return false;
	}
	return true;
}

static void orphans_base64(FILE *file, struct bts_slice bytes)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const uint8_t *p = bytes.data;

	for (size_t at = 0; at < bytes.size; at += 3) {
		size_t left = bytes.size - at;
		uint32_t word = (uint32_t)p[at] << 16 | (left > 1 ? (uint32_t)p[at + 1] << 8 : 0) | (left > 2 ? p[at + 2] : 0);

		fputc(digits[word >> 18], file);
		fputc(digits[word >> 12 & 63], file);
		fputc(left > 1 ? digits[word >> 6 & 63] : '=', file);
		fputc(left > 2 ? digits[word & 63] : '=', file);
	}
}

static void orphans_text(FILE *file, struct bts_slice bytes)
{
	const uint8_t *p = bytes.data;

	for (size_t at = 0; at < bytes.size; at++) {
		if (p[at] == '"' || p[at] == '\\')
			fprintf(file, "\\%c", p[at]);
		else if (p[at] < 0x20)
			fprintf(file, "\\u%04x", p[at]);
		else
			fputc(p[at], file);
	}
}

/* "name":"text", or "name_base64":"..." of bytes that are no text: as `bts dump` has them. */
static void orphans_member(FILE *file, const char *name, struct bts_slice bytes)
{
	bool text = orphans_is_text(bytes);

	fprintf(file, ",\"%s%s\":\"", name, text ? "" : "_base64");
	if (text)
		orphans_text(file, bytes);
	else
		orphans_base64(file, bytes);
	fputc('"', file);
}

static enum bts_err orphans_line(void *arg, const struct bts_orphan *orphan, struct bts_error *error)
{
	static const char *const ops[] = {"put", "delete", "create-bucket", "rename-bucket", "drop-bucket", "snapshot"};
	struct orphans *o = arg;
	bool snapshot = orphan->kind == BTS_ORPHAN_SNAPSHOT;

	fprintf(o->file, "{\"op\":\"%s\"", ops[orphan->kind]);
	if (!snapshot)
		orphans_member(o->file, "bucket", orphan->bucket);
	if (orphan->kind == BTS_ORPHAN_RENAME)
		orphans_member(o->file, "was", orphan->was);
	if (orphan->kind == BTS_ORPHAN_PUT || orphan->kind == BTS_ORPHAN_DELETE || snapshot)
		orphans_member(o->file, snapshot ? "snapshot" : "key", orphan->key);
	if (orphan->kind == BTS_ORPHAN_PUT)
		orphans_member(o->file, "value", orphan->value);
	if (orphan->other != BTS_ORPHAN_SAME)
		fprintf(o->file, ",\"both\":%s", orphan->other == BTS_ORPHAN_CHANGED ? "true" : "\"maybe\"");
	if (orphan->txid)
		fprintf(o->file, ",\"txid\":%" PRIu64, orphan->txid);
	fputs("}\n", o->file);
	o->lines++;
	return ferror(o->file) ? fail_os(error, errno ? errno : EIO, "writing orphans") : BTS_OK;
}

static enum bts_err orphans_flush_directory(const char *path, struct bts_error *error)
{
	char directory[ORPHANS_PATH_MAX];
	char *slash;
	int fd, os = 0;

	snprintf(directory, sizeof(directory), "%s", path);
	slash = strrchr(directory, '/');
	if (slash == directory)
		slash++;
	if (slash)
		*slash = '\0';
	fd = open(slash ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd))
		os = errno;
	if (fd >= 0)
		close(fd);
	return os ? fail_os(error, os, "cannot flush the directory of %s", path) : BTS_OK;
}

static enum bts_err orphans_fill(struct bts_apply *apply, const char *tmp, uint64_t *lines, struct bts_error *error)
{
	struct orphans o = {.file = NULL};
	int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	enum bts_err err;

	if (fd >= 0)
		o.file = fdopen(fd, "w");
	if (!o.file) {
		err = fail_os(error, errno, "cannot create %s", tmp);
		if (fd >= 0)
			close(fd);
		return err;
	}
	errno = 0;
	err = bts_apply_orphans(apply, orphans_line, &o, error);
	if (!err && (fflush(o.file) || ferror(o.file) || fsync(fd)))
		err = fail_os(error, errno ? errno : EIO, "cannot write %s", tmp);
	if (fclose(o.file) && !err)
		err = fail_os(error, errno, "cannot write %s", tmp);
	*lines = o.lines;
	return err;
}

enum bts_err orphans_write(struct bts_apply *apply, const char *path, const struct bts_position *own,
	char out[ORPHANS_PATH_MAX], uint64_t *lines, struct bts_error *error)
{
	char tmp[ORPHANS_PATH_MAX + 8];
	enum bts_err err;

	if (snprintf(out, ORPHANS_PATH_MAX, "%s.orphans-%" PRIu32 "-%" PRIu64 ".ndjson", path, own->epoch, own->txid) >=
		ORPHANS_PATH_MAX)
		return fail_set(error, BTS_INVALID, "the name of the file is too long");
	snprintf(tmp, sizeof(tmp), "%s.tmp", out);
	err = orphans_fill(apply, tmp, lines, error);
	if (!err && rename(tmp, out))
		err = fail_os(error, errno, "cannot name %s", out);
	if (err) {
		unlink(tmp);
		return err;
	}
	return orphans_flush_directory(out, error);
}
