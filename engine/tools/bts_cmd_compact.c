/* bts compact: steps until nothing more is to be gained, beside whoever uses the file. */
#include "bts_tool.h"
#include <inttypes.h>

struct compact {
	const struct bts_args *args;
	struct bts_progress progress;
	struct bts_compact_info info; /* of the last step */
	uint64_t before, moved;
};

static void compact_summary(const struct compact *compact)
{
	struct bts_json_text text = {0};

	if (!compact->args->json) {
		printf("%s: %" PRIu64 " bytes before, %" PRIu64 " after, %" PRIu64 " pages moved\n",
			compact->args->file, compact->before, compact->info.file_bytes, compact->moved);
		if (compact->info.reader)
			printf("a reader at transaction %" PRIu64 " holds the rest\n", compact->info.reader);
		if (compact->info.stuck)
			printf("page %" PRIu64 " cannot be moved\n", compact->info.stuck);
		return;
	}
	bts_json_raw(&text, "{");
	bts_json_number(&text, "bytes_before", compact->before);
	bts_json_raw(&text, ",");
	bts_json_number(&text, "bytes", compact->info.file_bytes);
	bts_json_raw(&text, ",");
	bts_json_number(&text, "pages_moved", compact->moved);
	bts_json_raw(&text, ",");
	bts_json_number(&text, "reader", compact->info.reader);
	bts_json_raw(&text, ",");
	bts_json_number(&text, "stuck", compact->info.stuck);
	bts_json_raw(&text, "}");
	bts_tool_put_line(&text);
	bts_json_free(&text);
}

static enum bts_err compact_all(struct compact *compact, struct bts *db, struct bts_error *error)
{
	struct bts_stat stat = {.size = sizeof(stat)};
	enum bts_err err = bts_stat(db, &stat, error);

	compact->before = stat.file_bytes;
	compact->info.more = 1;
	while (err == BTS_OK && compact->info.more) {
		compact->info.size = sizeof(compact->info);
		err = bts_compact_step(db, compact->args->batch, &compact->info, error);
		if (err)
			break;
		compact->moved += compact->info.pages_moved;
		bts_progress_step(&compact->progress, compact->moved, 0, 0);
	}
	return err;
}

int bts_cmd_compact(const struct bts_args *args)
{
	struct compact compact = {.args = args};
	struct bts_error error = {0};
	int status;
	struct bts *db = bts_tool_open(args, BTS_TOOL_WRITE, &status);

	if (!db)
		return status;
	bts_progress_begin(&compact.progress, args, "pages moved");
	status = compact_all(&compact, db, &error) ? BTS_EXIT_FAILURE : BTS_EXIT_OK;
	bts_progress_end(&compact.progress);
	if (status)
		status = bts_tool_fail_error(args, &error);
	else
		compact_summary(&compact);
	bts_close(db);
	return status;
}
