/*
 * bts load: lines of JSON into the store, committed in batches.
 *
 * A batch is one transaction: after an error at some line the batches before it stay, the one it belongs to
 * does not happen.  A batch ends early when its values grow large, since a transaction holds its changes in
 * memory.
 */
#include "bts_tool.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LOAD_BATCH_BYTES (UINT64_C(16) << 20)

struct load {
	const struct bts_args *args;
	struct bts *db;
	FILE *input;
	char *line;
	size_t line_cap;
	uint64_t line_number, input_bytes, input_size; /* size 0: not known */
	struct bts_txn *txn;			       /* NULL: no batch is open */
	struct bts_bucket *bucket;
	uint8_t bucket_name[BTS_BUCKET_NAME_MAX];
	size_t bucket_name_size; /* 0: no bucket is open */
	uint64_t batch_lines, batch_bytes;
	uint64_t batch_entries;
	uint64_t entries; /* committed */
	struct bts_progress progress;
};

static int load_refuse(struct load *load, enum bts_err code, const char *text)
{
	bts_progress_end(&load->progress);
	bts_tool_fail(load->args, code, "line %llu: %s (%llu entries before it are stored)",
		(unsigned long long)load->line_number, text, (unsigned long long)load->entries);
	return BTS_EXIT_FAILURE;
}

static int load_commit(struct load *load)
{
	struct bts_error error = {0};
	enum bts_err err;

	if (!load->txn)
		return BTS_EXIT_OK;
	err = bts_commit(load->txn, &error);
	if (err == BTS_CONFLICT) /* only then it stays open */
		bts_abort(load->txn);
	load->txn = NULL;
	load->bucket_name_size = 0;
	if (err)
		return load_refuse(load, err, error.text);
	load->entries += load->batch_entries;
	load->batch_lines = load->batch_bytes = load->batch_entries = 0;
	return BTS_EXIT_OK;
}

static int load_open_bucket(struct load *load, struct bts_slice name)
{
	struct bts_error error = {0};
	enum bts_err err;

	if (load->bucket_name_size == name.size && name.size &&
		!memcmp(load->bucket_name, name.data, name.size))
		return BTS_EXIT_OK;
	err = bts_bucket(load->txn, name, BTS_CREATE, &load->bucket, &error);
	if (err)
		return load_refuse(load, err, error.text);
	memcpy(load->bucket_name, name.data, name.size);
	load->bucket_name_size = name.size;
	return BTS_EXIT_OK;
}

static int load_record(struct load *load, const struct bts_json_record *record)
{
	struct bts_slice wanted = bts_tool_slice(load->args->bucket), name = record->bucket;
	struct bts_error error = {0};
	enum bts_err err = BTS_OK;
	int status;

	if (!name.data && !load->args->bucket)
		return load_refuse(load, BTS_INVALID, "names no bucket, and --bucket is not given");
	if (!name.data)
		name = wanted;
	else if (load->args->bucket &&
		 (name.size != wanted.size || memcmp(name.data, wanted.data, name.size)))
		return load_refuse(load, BTS_INVALID, "names another bucket than --bucket");
	if (!load->txn && bts_begin(load->db, BTS_WRITE, &load->txn, &error))
		return load_refuse(load, error.code, error.text);
	status = load_open_bucket(load, name);
	if (status)
		return status;
	if (record->key.data)
		err = bts_put(load->txn, load->bucket, record->key, record->value, 0);
	else if (record->meta.data)
		err = bts_bucket_set_meta(load->txn, load->bucket, record->meta);
	if (err)
		return load_refuse(load, err, bts_txn_error(load->txn)->text);
	load->batch_entries += record->key.data != NULL;
	load->batch_lines++;
	load->batch_bytes += record->key.size + record->value.size;
	if (load->batch_lines < load->args->batch && load->batch_bytes < LOAD_BATCH_BYTES)
		return BTS_EXIT_OK;
	status = load_commit(load);
	bts_progress_step(&load->progress, load->entries, load->input_bytes, load->input_size);
	return status;
}

/* 1: a line; 0: the end; -1: a message was printed. */
static int load_line(struct load *load, size_t *size)
{
	int c;

	*size = 0;
	load->line_number++;
	while ((c = getc_unlocked(load->input)) != EOF && c != '\n') {
		if (*size == load->line_cap) {
			size_t cap = load->line_cap ? load->line_cap * 2 : 4096;
			char *line = cap <= BTS_JSON_LINE_MAX ? realloc(load->line, cap) : NULL;

			if (!line) {
				load_refuse(
					load, BTS_LIMIT, "longer than a line may be, or than memory allows");
				return -1;
			}
			load->line = line;
			load->line_cap = cap;
		}
		load->line[(*size)++] = (char)c;
	}
	load->input_bytes += *size + 1;
	if (c == EOF && ferror(load->input)) {
		load_refuse(load, BTS_IO, strerror(errno));
		return -1;
	}
	return c != EOF || *size;
}

static bool load_blank(const char *line, size_t size)
{
	while (size && memchr(" \t\r", line[size - 1], 3))
		size--;
	return size == 0;
}

static int load_lines(struct load *load)
{
	struct bts_json_record record;
	struct bts_json_error error;
	char text[200];
	size_t size;
	int got, status;

	while ((got = load_line(load, &size)) > 0) {
		if (load_blank(load->line, size))
			continue;
		if (!bts_json_parse(load->line, size, &record, &error)) {
			snprintf(text, sizeof(text), "column %zu: %s", error.column, error.text);
			return load_refuse(load, BTS_INVALID, text);
		}
		status = load_record(load, &record);
		if (status)
			return status;
	}
	return got < 0 ? BTS_EXIT_FAILURE : load_commit(load);
}

static int load_report(const struct load *load)
{
	struct bts_json_text text = {0};
	double seconds = bts_progress_clock() - load->progress.start;

	if (!load->args->json) {
		printf("%llu entries stored in %.2f s\n", (unsigned long long)load->entries, seconds);
		return BTS_EXIT_OK;
	}
	bts_json_raw(&text, "{");
	bts_json_number(&text, "entries", load->entries);
	bts_json_raw(&text, ",");
	bts_json_number(&text, "milliseconds", (uint64_t)(seconds * 1000));
	bts_json_raw(&text, "}");
	bts_tool_put_line(&text);
	bts_json_free(&text);
	return BTS_EXIT_OK;
}

static FILE *load_input(const struct bts_args *args, uint64_t *size)
{
	struct stat st;
	FILE *input = stdin;

	if (args->word_count && strcmp(args->words[0], "-"))
		input = fopen(args->words[0], "re");
	if (!input) {
		bts_tool_fail(args, BTS_IO, "input %s: %s", args->words[0], strerror(errno));
		return NULL;
	}
	*size = fstat(fileno(input), &st) == 0 && S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
	return input;
}

int bts_cmd_load(const struct bts_args *args)
{
	struct load load = {.args = args};
	int status = BTS_EXIT_FAILURE;

	load.input = load_input(args, &load.input_size);
	if (!load.input)
		return BTS_EXIT_FAILURE;
	load.db = bts_tool_open(args, BTS_TOOL_CREATE, &status);
	if (load.db) {
		bts_progress_begin(&load.progress, args, "entries");
		status = load_lines(&load);
		bts_progress_end(&load.progress);
		bts_abort(load.txn);
		if (status == BTS_EXIT_OK)
			status = load_report(&load);
		bts_close(load.db);
	}
	free(load.line);
	if (load.input != stdin)
		fclose(load.input);
	return status;
}
