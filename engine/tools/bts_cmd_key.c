/* bts get, put, del: one key. */
#include "bts_tool.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A value read from standard input is held in memory whole: its limit. */
#define KEY_INPUT_MAX BTS_JSON_LINE_MAX

/* What put and del do inside bts_update. */
struct key_change {
	const struct bts_args *args;
	struct bts_slice bucket, key, value;
	bool remove;
	int status; /* exit status, once a message was printed; -1 before */
};

static int key_absent(
	const struct bts_args *args, struct bts_slice bucket, struct bts_slice key, bool no_bucket)
{
	char names[2][160];

	bts_tool_shorten(names[0], sizeof(names[0]), bucket);
	bts_tool_shorten(names[1], sizeof(names[1]), key);
	if (no_bucket)
		return bts_tool_fail(args, BTS_NOT_FOUND, "no bucket \"%s\"", names[0]);
	return bts_tool_fail(args, BTS_NOT_FOUND, "no key \"%s\" in bucket \"%s\"", names[1], names[0]);
}

static int key_print(const struct bts_args *args, struct bts_slice bucket, struct bts_slice key,
	struct bts_slice value, bts_txid version)
{
	struct bts_json_text text = {0};
	int status = BTS_EXIT_OK;

	if (!args->json) {
		fwrite(value.data, 1, value.size, stdout);
		if (isatty(STDOUT_FILENO))
			putchar('\n');
		return BTS_EXIT_OK;
	}
	bts_json_raw(&text, "{");
	bts_json_member(&text, "bucket", bucket);
	bts_json_raw(&text, ",");
	bts_json_member(&text, "key", key);
	bts_json_raw(&text, ",");
	bts_json_number(&text, "version", version);
	bts_json_raw(&text, ",");
	bts_json_member(&text, "value", value);
	bts_json_raw(&text, "}");
	if (!bts_tool_put_line(&text))
		status = bts_tool_fail(args, BTS_LIMIT, "the value is too long for a line of JSON");
	bts_json_free(&text);
	return status;
}

static int key_get(const struct bts_args *args, struct bts_txn *txn)
{
	struct bts_slice name = bts_tool_slice(args->words[0]), key, value;
	struct bts_bucket *bucket;
	struct bts_error error = {0};
	bts_txid version;
	enum bts_err err;

	if (!bts_tool_argument(args, args->words[1], &key))
		return BTS_EXIT_USAGE;
	err = bts_bucket(txn, name, 0, &bucket, &error);
	if (err == BTS_NOT_FOUND)
		return key_absent(args, name, key, true);
	if (err)
		return bts_tool_fail_error(args, &error);
	err = bts_get_version(txn, bucket, key, &value, &version);
	if (err == BTS_NOT_FOUND)
		return key_absent(args, name, key, false);
	if (err)
		return bts_tool_fail_txn(args, err, txn);
	return key_print(args, name, key, value, version);
}

int bts_cmd_get(const struct bts_args *args)
{
	struct bts_error error = {0};
	struct bts_txn *txn;
	int status;
	struct bts *db = bts_tool_open(args, BTS_TOOL_READ, &status);

	if (!db)
		return status;
	if (bts_tool_begin(args, db, &txn, &error)) {
		status = bts_tool_fail_error(args, &error);
	} else {
		status = key_get(args, txn);
		bts_abort(txn);
	}
	bts_close(db);
	return status;
}

static enum bts_err key_apply(struct bts_txn *txn, void *arg)
{
	struct key_change *change = arg;
	struct bts_bucket *bucket;
	struct bts_error error = {0};
	unsigned flags = (change->args->only_new ? BTS_PUT_NEW : 0) |
			 (change->args->only_existing ? BTS_PUT_EXISTING : 0);
	enum bts_err err = bts_bucket(txn, change->bucket, change->remove ? 0 : BTS_CREATE, &bucket, &error);
	char name[160];

	if (err == BTS_NOT_FOUND) {
		change->status = key_absent(change->args, change->bucket, change->key, true);
		return err;
	}
	if (err) {
		change->status = bts_tool_fail_error(change->args, &error);
		return err;
	}
	if (change->remove)
		err = bts_del(txn, bucket, change->key);
	else
		err = bts_put(txn, bucket, change->key, change->value, flags);
	if (err == BTS_NOT_FOUND) {
		change->status = key_absent(change->args, change->bucket, change->key, false);
	} else if (err == BTS_EXISTS) {
		bts_tool_shorten(name, sizeof(name), change->key);
		change->status = bts_tool_fail(change->args, err, "key \"%s\" is there already", name);
	} else if (err) {
		change->status = bts_tool_fail_txn(change->args, err, txn);
	}
	return err;
}

static int key_change(struct key_change *change, enum bts_tool_access access)
{
	const struct bts_args *args = change->args;
	struct bts_error error = {0};
	int status;
	struct bts *db = bts_tool_open(args, access, &status);

	if (!db)
		return status;
	change->status = -1;
	if (bts_update(db, key_apply, change, &error) == BTS_OK)
		status = BTS_EXIT_OK;
	else
		status = change->status >= 0 ? change->status : bts_tool_fail_error(args, &error);
	bts_close(db);
	return status;
}

int bts_cmd_del(const struct bts_args *args)
{
	struct key_change change = {.args = args, .bucket = bts_tool_slice(args->words[0]), .remove = true};

	if (!bts_tool_argument(args, args->words[1], &change.key))
		return BTS_EXIT_USAGE;
	return key_change(&change, BTS_TOOL_WRITE);
}

/* All of standard input.  False: a message was printed. */
static bool key_input(const struct bts_args *args, char **data, size_t *size)
{
	size_t cap = 0, have = 0, got = 1;
	char *all = NULL;

	while (got) {
		if (have == cap) {
			char *more = realloc(all, cap = cap ? cap * 2 : 65536);

			if (!more || cap > KEY_INPUT_MAX) {
				bts_tool_fail(
					args, BTS_LIMIT, "standard input is longer than put holds in memory");
				free(more ? more : all);
				return false;
			}
			all = more;
		}
		got = fread(all + have, 1, cap - have, stdin);
		have += got;
	}
	if (ferror(stdin)) {
		bts_tool_fail(args, BTS_IO, "standard input: %s", strerror(errno));
		free(all);
		return false;
	}
	*data = all;
	*size = have;
	return true;
}

int bts_cmd_put(const struct bts_args *args)
{
	struct key_change change = {.args = args, .bucket = bts_tool_slice(args->words[0])};
	char *input = NULL;
	int status;

	if (!bts_tool_argument(args, args->words[1], &change.key))
		return BTS_EXIT_USAGE;
	if (args->word_count > 2) {
		if (!bts_tool_argument(args, args->words[2], &change.value))
			return BTS_EXIT_USAGE;
	} else {
		if (!key_input(args, &input, &change.value.size))
			return BTS_EXIT_FAILURE;
		change.value.data = input;
	}
	status = key_change(&change, args->only_existing ? BTS_TOOL_WRITE : BTS_TOOL_CREATE);
	free(input);
	return status;
}
