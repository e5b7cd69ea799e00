/* bts snapshot: named snapshots made, deleted and listed. */
#include "bts_tool.h"
#include <string.h>
#include <time.h>

struct snapshot_change {
	const struct bts_args *args;
	struct bts_slice name;
	bool remove;
	int status; /* exit status, once a message was printed; -1 before */
};

static enum bts_err snapshot_apply(struct bts_txn *txn, void *arg)
{
	struct snapshot_change *change = arg;
	struct bts_error error = {0};
	char name[160];
	enum bts_err err;

	if (change->remove)
		err = bts_snapshot_delete(txn, change->name, &error);
	else
		err = bts_snapshot_create(txn, change->name, &error);
	if (err == BTS_OK)
		return BTS_OK;
	bts_tool_shorten(name, sizeof(name), change->name);
	if (err == BTS_EXISTS)
		change->status = bts_tool_fail(change->args, err, "snapshot \"%s\" is there already", name);
	else if (err == BTS_NOT_FOUND)
		change->status = bts_tool_fail(change->args, err, "no snapshot \"%s\"", name);
	else
		change->status = bts_tool_fail_error(change->args, &error);
	return err;
}

static int snapshot_change(const struct bts_args *args, bool remove)
{
	struct snapshot_change change = {
		.args = args, .name = bts_tool_slice(args->words[1]), .remove = remove, .status = -1};
	struct bts_error error = {0};
	int status;
	struct bts *db = bts_tool_open(args, BTS_TOOL_WRITE, &status);

	if (!db)
		return status;
	status = BTS_EXIT_OK;
	if (bts_update(db, snapshot_apply, &change, &error))
		status = change.status >= 0 ? change.status : bts_tool_fail_error(args, &error);
	bts_close(db);
	return status;
}

static bool snapshot_print(const struct bts_args *args, const struct bts_snapshot_info *info)
{
	struct bts_json_text text = {0};
	time_t seconds = (time_t)(info->time_ms / 1000);
	struct tm when;
	char date[32] = "?";
	bool done;

	if (!args->json) {
		if (gmtime_r(&seconds, &when))
			strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &when);
		printf("%12llu  %s  ", (unsigned long long)info->txid, date);
		bts_tool_print(stdout, info->name);
		putchar('\n');
		return true;
	}
	bts_json_raw(&text, "{");
	bts_json_member(&text, "name", info->name);
	bts_json_raw(&text, ",");
	bts_json_number(&text, "txid", info->txid);
	bts_json_raw(&text, ",");
	bts_json_number(&text, "time_ms", info->time_ms);
	bts_json_raw(&text, ",");
	bts_json_number(&text, "buckets", info->buckets);
	bts_json_raw(&text, "}");
	done = bts_tool_put_line(&text);
	bts_json_free(&text);
	return done;
}

static int snapshot_list(const struct bts_args *args)
{
	struct bts_snapshot_info info = {.name = {"", 0}};
	struct bts_error error = {0};
	struct bts_txn *txn;
	enum bts_err err;
	int status;
	struct bts *db = bts_tool_open(args, BTS_TOOL_READ, &status);

	if (!db)
		return status;
	if (bts_begin(db, BTS_READ, &txn, &error)) {
		status = bts_tool_fail_error(args, &error);
		bts_close(db);
		return status;
	}
	while ((err = bts_snapshot_next(txn, info.name, &info)) == BTS_OK) {
		if (!snapshot_print(args, &info)) {
			err = BTS_MEMORY;
			break;
		}
	}
	status = err == BTS_NOT_FOUND ? BTS_EXIT_OK : bts_tool_fail_txn(args, err, txn);
	bts_abort(txn);
	bts_close(db);
	return status;
}

int bts_cmd_snapshot(const struct bts_args *args)
{
	const char *what = args->word_count > 0 ? args->words[0] : "list";
	bool create = strcmp(what, "create") == 0;

	if (strcmp(what, "list") == 0 && args->word_count <= 1)
		return snapshot_list(args);
	if ((create || strcmp(what, "delete") == 0) && args->word_count == 2)
		return snapshot_change(args, !create);
	fprintf(stderr, "bts snapshot: expected list, create NAME or delete NAME after FILE\n");
	return BTS_EXIT_USAGE;
}
