/* bts diff: what turns a named snapshot into a later one, or into the newest commit, as lines of JSON. */
#include "bts_tool.h"

struct diff {
	const struct bts_args *args;
	struct bts_diff *diff;
	struct bts_json_text text;
	struct bts_error error;
};

/* Without the value: false when that is too long for a line. */
static bool diff_line(struct diff *diff, const struct bts_change *change, struct bts_slice value)
{
	static const char *const ops[] = {
		[BTS_CHANGE_PUT] = "{\"op\":\"put\",",
		[BTS_CHANGE_DELETE] = "{\"op\":\"delete\",",
		[BTS_CHANGE_BUCKET_CREATED] = "{\"op\":\"create-bucket\",",
		[BTS_CHANGE_BUCKET_DROPPED] = "{\"op\":\"drop-bucket\",",
		[BTS_CHANGE_BUCKET_META] = "{\"op\":\"change-bucket\",",
	};
	bool entry = change->kind == BTS_CHANGE_PUT || change->kind == BTS_CHANGE_DELETE;

	bts_json_raw(&diff->text, ops[change->kind]);
	bts_json_member(&diff->text, "bucket", change->bucket);
	bts_json_raw(&diff->text, ",");
	if (entry) {
		bts_json_member(&diff->text, "key", change->key);
		bts_json_raw(&diff->text, ",");
	} else if (change->kind != BTS_CHANGE_BUCKET_DROPPED) {
		bts_json_member(&diff->text, "meta", change->meta);
		bts_json_raw(&diff->text, ",");
	}
	if (change->kind == BTS_CHANGE_PUT) {
		bts_json_member(&diff->text, "value", value);
		bts_json_raw(&diff->text, ",");
	}
	bts_json_number(&diff->text, "txid", change->version);
	bts_json_raw(&diff->text, "}");
	return bts_tool_put_line(&diff->text);
}

static int diff_print(struct diff *diff)
{
	struct bts_change change = {.size = sizeof(change)};
	enum bts_err err;

	while (!ferror(stdout) && (err = bts_diff_next(diff->diff, &change, &diff->error)) == BTS_OK) {
		struct bts_slice value = {"", 0};
		char shown[160];

		if (change.kind == BTS_CHANGE_PUT)
			err = bts_diff_value(diff->diff, &value, &diff->error);
		if (err)
			break;
		if (!diff_line(diff, &change, value)) {
			bts_tool_shorten(shown, sizeof(shown), change.key);
			return bts_tool_fail(diff->args, BTS_LIMIT,
				"the value of key \"%s\" is too long for a line", shown);
		}
	}
	if (ferror(stdout) || err == BTS_NOT_FOUND)
		return BTS_EXIT_OK; /* the end of the program tells of what could not be written */
	return bts_tool_fail_error(diff->args, &diff->error);
}

static int diff_between(struct diff *diff, struct bts *db, struct bts_txn *older)
{
	struct bts_diff_options options = {
		.size = sizeof(options), .bucket = bts_tool_slice(diff->args->bucket)};
	struct bts_txn *newer;
	int status;

	if (bts_tool_begin(diff->args, db, &newer, &diff->error))
		return bts_tool_fail_error(diff->args, &diff->error);
	if (bts_diff_open(older, newer, &options, &diff->diff, &diff->error))
		status = bts_tool_fail_error(diff->args, &diff->error);
	else
		status = diff_print(diff);
	bts_diff_close(diff->diff);
	bts_abort(newer);
	return status;
}

int bts_cmd_diff(const struct bts_args *args)
{
	struct diff diff = {.args = args};
	struct bts_txn *older;
	int status;
	struct bts *db = bts_tool_open(args, BTS_TOOL_READ, &status);

	if (!db)
		return status;
	if (bts_begin_at(db, bts_tool_slice(args->words[0]), &older, &diff.error)) {
		status = bts_tool_fail_error(args, &diff.error);
	} else {
		status = diff_between(&diff, db, older);
		bts_abort(older);
	}
	bts_json_free(&diff.text);
	bts_close(db);
	return status;
}
