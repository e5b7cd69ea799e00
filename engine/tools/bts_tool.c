/* Opening, output and errors for the commands of bts. */
#include "bts_tool.h"
#include <errno.h>
#include <stdarg.h>
#include <string.h>

static int tool_exit(enum bts_err code)
{
	switch (code) {
	case BTS_OK:
		return BTS_EXIT_OK;
	case BTS_NOT_FOUND:
		return BTS_EXIT_NOT_FOUND;
	case BTS_CONFLICT:
	case BTS_EXISTS:
		return BTS_EXIT_CONFLICT;
	case BTS_INVALID:
		return BTS_EXIT_USAGE;
	default:
		return BTS_EXIT_FAILURE;
	}
}

static void tool_fail_json(const struct bts_args *args, enum bts_err code, const char *message)
{
	struct bts_json_text text = {0};

	bts_json_raw(&text, "{");
	bts_json_member(&text, "error", bts_tool_slice(bts_err_name(code)));
	bts_json_raw(&text, ",");
	bts_json_member(&text, "file", bts_tool_slice(args->file));
	bts_json_raw(&text, ",");
	bts_json_member(&text, "text", bts_tool_slice(message));
	bts_json_raw(&text, "}\n");
	if (!text.failed)
		fwrite(text.data, 1, text.size, stderr);
	bts_json_free(&text);
}

int bts_tool_fail(const struct bts_args *args, enum bts_err code, const char *format, ...)
{
	char message[640];
	va_list list;

	va_start(list, format);
	vsnprintf(message, sizeof(message), format, list);
	va_end(list);
	fflush(stdout);
	if (args->json)
		tool_fail_json(args, code, message);
	else if (strstr(message, args->file))
		fprintf(stderr, "bts %s: %s\n", args->command, message);
	else
		fprintf(stderr, "bts %s: %s: %s\n", args->command, args->file, message);
	return tool_exit(code);
}

int bts_tool_fail_error(const struct bts_args *args, const struct bts_error *error)
{
	return bts_tool_fail(args, error->code, "%s", error->text);
}

int bts_tool_fail_txn(const struct bts_args *args, enum bts_err code, const struct bts_txn *txn)
{
	const struct bts_error *error = bts_txn_error(txn);

	return bts_tool_fail(
		args, code, "%s", error && error->code == code ? error->text : bts_err_name(code));
}

int bts_tool_finish(const struct bts_args *args, int status)
{
	if (fflush(stdout) || ferror(stdout))
		return bts_tool_fail(args, BTS_IO, "standard output: %s", strerror(errno));
	return status;
}

static enum bts_err tool_open_flags(
	const struct bts_args *args, uint32_t flags, struct bts **db, struct bts_error *error)
{
	struct bts_options options;

	bts_options_init(&options);
	options.flags = flags;
	options.page_size = (uint32_t)args->page_size;
	return bts_open(args->file, &options, db, error);
}

struct bts *bts_tool_open(const struct bts_args *args, enum bts_tool_access access, int *status)
{
	static const uint32_t flags[] = {
		[BTS_TOOL_READ] = BTS_OPEN_READ_ONLY | BTS_OPEN_EXISTING,
		[BTS_TOOL_WRITE] = BTS_OPEN_EXISTING,
		[BTS_TOOL_CREATE] = 0,
	};
	struct bts_error error = {0};
	struct bts *db = NULL;
	enum bts_err err = tool_open_flags(args, flags[access], &db, &error);

	if (err == BTS_NEEDS_RECOVERY && access == BTS_TOOL_READ) {
		err = tool_open_flags(args, BTS_OPEN_EXISTING, &db, &error);
		if (err == BTS_READ_ONLY) /* a follower's file */
			err = tool_open_flags(args, BTS_OPEN_EXISTING | BTS_OPEN_FOLLOWER, &db, &error);
	}
	if (err) {
		*status = bts_tool_fail_error(args, &error);
		if (err != BTS_NOT_FOUND) /* BTS_INVALID: the file is no database, not that the command line
					     is wrong */
			*status = BTS_EXIT_FAILURE;
		return NULL;
	}
	return db;
}

struct bts_slice bts_tool_slice(const char *chars)
{
	return (struct bts_slice){chars ? chars : "", chars ? strlen(chars) : 0};
}

bool bts_tool_argument(const struct bts_args *args, char *word, struct bts_slice *bytes)
{
	size_t size = strlen(word);

	if (args->base64 && !bts_json_base64_decode(word, &size)) {
		bts_tool_fail(args, BTS_INVALID, "an argument is not base64 (standard alphabet, padded)");
		return false;
	}
	*bytes = (struct bts_slice){word, size};
	return true;
}

/* One character or byte, escaped when it must be; returns how many bytes of the input it took. */
static size_t tool_escape(char to[8], const uint8_t *at, size_t left)
{
	static const char from[] = "\t\n\r\\", name[] = "tnr\\";
	const char *found = memchr(from, *at, sizeof(from) - 1);
	size_t count = bts_json_character(at, left);
	bool control = *at < 0x20 || *at == 0x7f || (*at == 0xc2 && count == 2 && at[1] < 0xa0);

	if (found) {
		snprintf(to, 8, "\\%c", name[found - from]);
		return 1;
	}
	if (count == 0 || control) {
		snprintf(to, 8, "\\x%02x", *at);
		return 1;
	}
	memcpy(to, at, count);
	to[count] = 0;
	return count;
}

void bts_tool_print(FILE *to, struct bts_slice bytes)
{
	const uint8_t *at = bytes.data;
	size_t left = bytes.size;
	char piece[8];

	while (left) {
		size_t took = tool_escape(piece, at, left);

		fputs(piece, to);
		at += took;
		left -= took;
	}
}

void bts_tool_shorten(char *to, size_t cap, struct bts_slice bytes)
{
	const uint8_t *at = bytes.data;
	size_t left = bytes.size, used = 0;
	char piece[8];

	while (left) {
		size_t took = tool_escape(piece, at, left);

		if (used + strlen(piece) + sizeof("...") > cap) {
			used += (size_t)sprintf(to + used, "...");
			break;
		}
		used += (size_t)sprintf(to + used, "%s", piece);
		at += took;
		left -= took;
	}
	to[used] = 0;
}

bool bts_tool_put_line(struct bts_json_text *text)
{
	bts_json_raw(text, "\n");
	if (text->failed)
		return false;
	fwrite(text->data, 1, text->size, stdout);
	text->size = 0;
	return true;
}

enum bts_err bts_tool_begin(const struct bts_args *args, struct bts *db, struct bts_txn **txn, struct bts_error *error)
{
	if (args->snapshot)
		return bts_begin_at(db, bts_tool_slice(args->snapshot), txn, error);
	return bts_begin(db, BTS_READ, txn, error);
}
