/* bts scan: keys and values of a bucket in order. */
#include "bts_tool.h"
#include <string.h>

struct scan {
	const struct bts_args *args;
	struct bts_slice prefix, from, to; /* keys in [from, to); an empty to: no bound */
	uint8_t prefix_end[BTS_KEY_MAX];
	struct bts_progress progress;
	uint64_t shown;
};

static int scan_compare(struct bts_slice a, struct bts_slice b)
{
	size_t least = a.size < b.size ? a.size : b.size;
	int order = least ? memcmp(a.data, b.data, least) : 0;

	return order ? order : (a.size > b.size) - (a.size < b.size);
}

/* The prefix as bounds: [prefix, the first key behind all that begin with it). */
static void scan_bounds(struct scan *scan)
{
	struct bts_slice end = {scan->prefix_end, scan->prefix.size};

	if (scan_compare(scan->prefix, scan->from) > 0)
		scan->from = scan->prefix;
	memcpy(scan->prefix_end, scan->prefix.data, scan->prefix.size);
	while (end.size && scan->prefix_end[end.size - 1] == 0xff)
		end.size--;
	if (end.size == 0)
		return;
	scan->prefix_end[end.size - 1]++;
	if (scan->to.size == 0 || scan_compare(end, scan->to) < 0)
		scan->to = end;
}

static bool scan_show(
	struct scan *scan, struct bts_json_text *text, struct bts_slice key, struct bts_slice value)
{
	scan->shown++;
	if (!scan->args->json) {
		bts_tool_print(stdout, key);
		putchar('\t');
		bts_tool_print(stdout, value);
		putchar('\n');
		return true;
	}
	bts_json_raw(text, "{");
	bts_json_member(text, "key", key);
	bts_json_raw(text, ",");
	bts_json_member(text, "value", value);
	bts_json_raw(text, "}");
	return bts_tool_put_line(text);
}

static enum bts_err scan_start(
	struct scan *scan, struct bts_cursor *cursor, struct bts_slice *key, struct bts_slice *value)
{
	enum bts_err err;

	if (!scan->args->reverse)
		return scan->from.size ? bts_cursor_seek(cursor, scan->from, key, value)
				       : bts_cursor_first(cursor, key, value);
	if (scan->to.size == 0)
		return bts_cursor_last(cursor, key, value);
	err = bts_cursor_seek(cursor, scan->to, key, value);
	if (err == BTS_NOT_FOUND)
		return bts_cursor_last(cursor, key, value);
	return err ? err : bts_cursor_prev(cursor, key, value);
}

static bool scan_inside(const struct scan *scan, struct bts_slice key)
{
	if (scan->args->reverse)
		return scan_compare(key, scan->from) >= 0;
	return scan->to.size == 0 || scan_compare(key, scan->to) < 0;
}

static int scan_run(struct scan *scan, struct bts_txn *txn, struct bts_cursor *cursor)
{
	struct bts_json_text text = {0};
	struct bts_slice key, value;
	enum bts_err err = scan_start(scan, cursor, &key, &value);
	int status = BTS_EXIT_OK;

	while (!err && scan_inside(scan, key)) {
		if (!scan_show(scan, &text, key, value)) {
			status = bts_tool_fail(
				scan->args, BTS_LIMIT, "a value is too long for a line of JSON");
			break;
		}
		if (scan->shown == scan->args->limit || ferror(stdout))
			break;
		if (scan->shown % 1024 == 0)
			bts_progress_step(&scan->progress, scan->shown, 0, 0);
		err = scan->args->reverse ? bts_cursor_prev(cursor, &key, &value)
					  : bts_cursor_next(cursor, &key, &value);
	}
	bts_progress_end(&scan->progress);
	bts_json_free(&text);
	if (err && err != BTS_NOT_FOUND)
		return bts_tool_fail_txn(scan->args, err, txn);
	return status;
}

static int scan_txn(struct scan *scan, struct bts_txn *txn)
{
	struct bts_bucket *bucket;
	struct bts_cursor *cursor;
	struct bts_error error = {0};
	enum bts_err err = bts_bucket(txn, bts_tool_slice(scan->args->words[0]), 0, &bucket, &error);
	int status;

	if (err == BTS_NOT_FOUND)
		return bts_tool_fail(scan->args, err, "no bucket \"%.160s\"", scan->args->words[0]);
	if (err || bts_cursor_open(txn, bucket, &cursor, &error))
		return bts_tool_fail_error(scan->args, &error);
	status = scan_run(scan, txn, cursor);
	bts_cursor_close(cursor);
	return status;
}

int bts_cmd_scan(const struct bts_args *args)
{
	struct scan scan = {
		.args = args,
		.prefix = bts_tool_slice(args->prefix),
		.from = bts_tool_slice(args->from),
		.to = bts_tool_slice(args->to),
	};
	struct bts_error error = {0};
	struct bts_txn *txn;
	struct bts *db;
	int status;

	if (scan.prefix.size > BTS_KEY_MAX || scan.from.size > BTS_KEY_MAX || scan.to.size > BTS_KEY_MAX)
		return bts_tool_fail(
			args, BTS_INVALID, "a bound is longer than a key can be (%d bytes)", BTS_KEY_MAX);
	scan_bounds(&scan);
	db = bts_tool_open(args, BTS_TOOL_READ, &status);
	if (!db)
		return status;
	bts_progress_begin(&scan.progress, args, "keys");
	if (bts_tool_begin(args, db, &txn, &error)) {
		status = bts_tool_fail_error(args, &error);
	} else {
		status = scan_txn(&scan, txn);
		bts_abort(txn);
	}
	bts_close(db);
	return status;
}
