/* bts check: verify the whole file and print each finding. */
#include "bts_tool.h"

struct check {
	const struct bts_args *args;
	struct bts_progress progress;
	uint64_t findings, pages;
};

static void check_report(void *arg, bts_pgno page, const char *what)
{
	struct check *check = arg;
	struct bts_json_text text = {0};

	check->findings++;
	if (!check->args->json) {
		printf("page %llu: %s\n", (unsigned long long)page, what);
		return;
	}
	bts_json_raw(&text, "{");
	bts_json_number(&text, "page", page);
	bts_json_raw(&text, ",");
	bts_json_member(&text, "text", bts_tool_slice(what));
	bts_json_raw(&text, "}");
	bts_tool_put_line(&text);
	bts_json_free(&text);
}

static void check_progress(void *arg, uint64_t done, uint64_t total)
{
	struct check *check = arg;

	check->pages = done;
	bts_progress_step(&check->progress, done, done, total);
}

static void check_summary(const struct check *check)
{
	struct bts_json_text text = {0};

	if (!check->args->json) {
		if (check->findings)
			printf("%s: DAMAGED, %llu findings\n", check->args->file,
				(unsigned long long)check->findings);
		else
			printf("%s: clean, %llu pages\n", check->args->file,
				(unsigned long long)check->pages);
		return;
	}
	bts_json_raw(&text, check->findings ? "{\"clean\":false," : "{\"clean\":true,");
	bts_json_number(&text, "findings", check->findings);
	bts_json_raw(&text, ",");
	bts_json_number(&text, "pages", check->pages);
	bts_json_raw(&text, "}");
	bts_tool_put_line(&text);
	bts_json_free(&text);
}

int bts_cmd_check(const struct bts_args *args)
{
	struct check check = {.args = args};
	const struct bts_check_options options = {
		.report = check_report, .progress = check_progress, .arg = &check};
	struct bts_error error = {0};
	enum bts_err err;
	int status;
	struct bts *db = bts_tool_open(args, BTS_TOOL_READ, &status);

	if (!db)
		return status;
	bts_progress_begin(&check.progress, args, "pages");
	err = bts_check(db, &options, &error);
	bts_progress_end(&check.progress);
	if (err && check.findings == 0) {
		status = bts_tool_fail_error(args, &error);
	} else {
		check_summary(&check);
		status = check.findings ? BTS_EXIT_FAILURE : BTS_EXIT_OK;
	}
	bts_close(db);
	return status;
}
