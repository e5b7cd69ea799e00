/* bts backup and bts restore: a database to a descriptor and back. */
#include "bts_tool.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

struct backup {
	struct bts_progress progress;
	uint64_t done;
};

static void backup_pages(void *arg, uint64_t done, uint64_t total)
{
	struct backup *backup = arg;

	backup->done = done;
	bts_progress_step(&backup->progress, done, done, total);
}

static void backup_bytes(void *arg, uint64_t done)
{
	struct backup *backup = arg;

	backup->done = done;
	bts_progress_step(&backup->progress, done >> 20, 0, 0);
}

static void backup_summary(const struct bts_args *args, const char *what, uint64_t count, const char *unit)
{
	struct bts_json_text text = {0};

	if (!args->json) {
		printf("%s: %" PRIu64 " %s %s\n", args->file, count, unit, what);
		return;
	}
	bts_json_raw(&text, "{");
	bts_json_number(&text, unit, count);
	bts_json_raw(&text, "}");
	bts_tool_put_line(&text);
	bts_json_free(&text);
}

static int backup_to(const struct bts_args *args, int fd, bool quiet)
{
	struct backup backup = {.done = 0};
	const struct bts_backup_options options = {
		.size = sizeof(options), .progress = backup_pages, .arg = &backup};
	struct bts_error error = {0};
	int status;
	struct bts *db = bts_tool_open(args, BTS_TOOL_READ, &status);

	if (!db)
		return status;
	bts_progress_begin(&backup.progress, args, "pages");
	status = bts_backup(db, fd, &options, &error) ? BTS_EXIT_FAILURE : BTS_EXIT_OK;
	bts_progress_end(&backup.progress);
	bts_close(db);
	if (status)
		return bts_tool_fail_error(args, &error);
	if (!quiet && fsync(fd))
		return bts_tool_fail(args, BTS_IO, "flushing %s: %s", args->words[0], strerror(errno));
	if (!quiet)
		backup_summary(args, "copied", backup.done, "pages");
	return status;
}

int bts_cmd_backup(const struct bts_args *args)
{
	const char *output = args->words[0];
	int fd, status;

	if (strcmp(output, "-") == 0)
		return backup_to(args, STDOUT_FILENO, true);
	fd = open(output, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd == -1)
		return bts_tool_fail(
			args, errno == EEXIST ? BTS_EXISTS : BTS_IO, "%s: %s", output, strerror(errno));
	status = backup_to(args, fd, false);
	close(fd);
	if (status)
		unlink(output);
	return status;
}

int bts_cmd_restore(const struct bts_args *args)
{
	struct backup backup = {.done = 0};
	struct bts_restore_options options = {
		.size = sizeof(options), .progress = backup_bytes, .arg = &backup};
	const char *input = args->word_count ? args->words[0] : "-";
	struct bts_error error = {0};
	int fd = STDIN_FILENO;
	enum bts_err err;

	if (strcmp(input, "-") != 0) {
		fd = open(input, O_RDONLY | O_CLOEXEC);
		if (fd == -1)
			return bts_tool_fail(args, errno == ENOENT ? BTS_NOT_FOUND : BTS_IO, "%s: %s", input,
				strerror(errno));
	}
	options.flags = args->same_id ? BTS_RESTORE_SAME_ID : 0;
	bts_progress_begin(&backup.progress, args, "MiB");
	err = bts_restore(fd, args->file, &options, &error);
	bts_progress_end(&backup.progress);
	if (fd != STDIN_FILENO)
		close(fd);
	if (err)
		return bts_tool_fail_error(args, &error);
	backup_summary(args, "restored", backup.done, "bytes");
	return BTS_EXIT_OK;
}
