/* bts dump: everything as lines that bts load takes back. */
#include "bts_tool.h"
#include <string.h>

struct dump {
	const struct bts_args *args;
	struct bts_txn *txn;
	struct bts_json_text text;
	struct bts_progress progress;
	uint64_t lines;
};

/* Ends a line.  False: a message was printed. */
static bool dump_line(struct dump *dump, struct bts_slice key)
{
	char name[160];

	bts_json_raw(&dump->text, "}");
	if (bts_tool_put_line(&dump->text))
		return true;
	bts_tool_shorten(name, sizeof(name), key);
	bts_tool_fail(dump->args, BTS_LIMIT, "the value of key \"%s\" is too long for a line of %llu bytes",
		name, (unsigned long long)BTS_JSON_LINE_MAX);
	return false;
}

static int dump_entries(struct dump *dump, struct bts_slice name, struct bts_cursor *cursor)
{
	struct bts_slice key, value;
	enum bts_err err = bts_cursor_first(cursor, &key, &value);

	for (; !err && !ferror(stdout); err = bts_cursor_next(cursor, &key, &value)) {
		bts_json_raw(&dump->text, "{");
		if (!dump->args->bucket) {
			bts_json_member(&dump->text, "bucket", name);
			bts_json_raw(&dump->text, ",");
		}
		bts_json_member(&dump->text, "key", key);
		bts_json_raw(&dump->text, ",");
		bts_json_member(&dump->text, "value", value);
		if (!dump_line(dump, key))
			return BTS_EXIT_FAILURE;
		if (++dump->lines % 1024 == 0)
			bts_progress_step(&dump->progress, dump->lines, 0, 0);
	}
	return err && err != BTS_NOT_FOUND ? bts_tool_fail_txn(dump->args, err, dump->txn) : BTS_EXIT_OK;
}

static int dump_bucket(struct dump *dump, struct bts_slice name)
{
	struct bts_bucket *bucket;
	struct bts_cursor *cursor;
	struct bts_error error = {0};
	enum bts_err err = bts_bucket(dump->txn, name, 0, &bucket, &error);
	char shown[160];
	int status;

	if (err == BTS_NOT_FOUND) {
		bts_tool_shorten(shown, sizeof(shown), name);
		return bts_tool_fail(dump->args, err, "no bucket \"%s\"", shown);
	}
	if (err || bts_cursor_open(dump->txn, bucket, &cursor, &error))
		return bts_tool_fail_error(dump->args, &error);
	status = dump_entries(dump, name, cursor);
	bts_cursor_close(cursor);
	return status;
}

/* What no entry says: a bucket's note, and that an empty bucket is there. */
static bool dump_description(struct dump *dump, const struct bts_bucket_info *info)
{
	if (info->entries && info->meta.size == 0)
		return true;
	bts_json_raw(&dump->text, "{");
	bts_json_member(&dump->text, "bucket", info->name);
	if (info->meta.size) {
		bts_json_raw(&dump->text, ",");
		bts_json_member(&dump->text, "meta", info->meta);
	}
	return dump_line(dump, (struct bts_slice){0});
}

static int dump_all(struct dump *dump)
{
	uint8_t bytes[BTS_BUCKET_NAME_MAX];
	struct bts_slice name = {bytes, 0};
	struct bts_bucket_info info;
	enum bts_err err;
	int status = BTS_EXIT_OK;

	while (status == BTS_EXIT_OK && (err = bts_bucket_next(dump->txn, name, &info)) == BTS_OK) {
		if (!dump_description(dump, &info))
			return BTS_EXIT_FAILURE;
		memcpy(bytes, info.name.data, info.name.size);
		name.size = info.name.size;
		status = dump_bucket(dump, name);
	}
	if (status == BTS_EXIT_OK && err != BTS_NOT_FOUND)
		return bts_tool_fail_txn(dump->args, err, dump->txn);
	return status;
}

int bts_cmd_dump(const struct bts_args *args)
{
	struct dump dump = {.args = args};
	struct bts_error error = {0};
	int status;
	struct bts *db = bts_tool_open(args, BTS_TOOL_READ, &status);

	if (!db)
		return status;
	bts_progress_begin(&dump.progress, args, "entries");
	if (bts_tool_begin(args, db, &dump.txn, &error)) {
		status = bts_tool_fail_error(args, &error);
	} else {
		status = args->bucket ? dump_bucket(&dump, bts_tool_slice(args->bucket)) : dump_all(&dump);
		bts_abort(dump.txn);
	}
	bts_progress_end(&dump.progress);
	bts_json_free(&dump.text);
	bts_close(db);
	return status;
}
