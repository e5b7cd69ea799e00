/*
 * A snapshot held on a file that others overwrite: for tests/bench/held, which starts them.
 *
 *	held_reader FILE
 *
 * Begins a read transaction, copies every key and value of bucket "b", and compares all of them with the copy, byte for byte, at each
 * line on standard input and once more at its end.  Prints a line a comparison; exits 1 when anything differs.
 */
#include <btree_store/ship.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct held {
	struct bts *db;
	struct bts_txn *txn;
	uint8_t *bytes; /* u32 size of key and of value, key, value; again and again */
	size_t size, cap;
	uint64_t entries;
};

static void die(const char *what, const struct bts_error *error)
{
	fprintf(stderr, "held_reader: %s: %s\n", what, error ? error->text : "failed");
	exit(1);
}

static void held_append(struct held *held, const void *data, size_t size)
{
	if (held->size + size > held->cap) {
		held->cap = (held->size + size) * 2;
		held->bytes = realloc(held->bytes, held->cap);
		if (!held->bytes)
			die("memory", NULL);
	}
	memcpy(held->bytes + held->size, data, size);
	held->size += size;
}

/* Into the copy, or held against it from *at on: false where it differs. */
static bool held_entry(struct held *held, struct bts_slice key, struct bts_slice value, bool compare, size_t *at)
{
	uint32_t sizes[2] = {(uint32_t)key.size, (uint32_t)value.size};
	size_t all = sizeof(sizes) + key.size + value.size;
	const uint8_t *copy = held->bytes + *at;

	if (!compare) {
		held_append(held, sizes, sizeof(sizes));
		held_append(held, key.data, key.size);
		held_append(held, value.data, value.size);
		held->entries++;
		return true;
	}
	if (all > held->size - *at || memcmp(copy, sizes, sizeof(sizes)) ||
		memcmp(copy + sizeof(sizes), key.data, key.size) ||
		memcmp(copy + sizeof(sizes) + key.size, value.data, value.size))
		return false;
	*at += all;
	return true;
}

static bool held_read(struct held *held, bool compare)
{
	struct bts_slice key, value;
	struct bts_bucket *bucket;
	struct bts_cursor *cursor = NULL;
	size_t at = 0;
	enum bts_err err = bts_bucket(held->txn, (struct bts_slice){"b", 1}, 0, &bucket, NULL);

	if (!err)
		err = bts_cursor_open(held->txn, bucket, &cursor, NULL);
	if (err)
		die("bucket b", bts_txn_error(held->txn));
	err = bts_cursor_first(cursor, &key, &value);
	while (!err && held_entry(held, key, value, compare, &at))
		err = bts_cursor_next(cursor, &key, &value);
	bts_cursor_close(cursor);
	if (err && err != BTS_NOT_FOUND)
		die("reading", bts_txn_error(held->txn));
	return err == BTS_NOT_FOUND && (!compare || at == held->size);
}

static void held_compare(struct held *held)
{
	struct bts_position newest;
	bool same = held_read(held, true);

	if (bts_ship_position(held->db, &newest, NULL))
		die("position", NULL);
	printf("%s txid=%" PRIu64 " entries=%" PRIu64 " bytes=%zu newest=%" PRIu64 "\n", same ? "same" : "DIFFERS",
		(uint64_t)bts_txn_id(held->txn), held->entries, held->size, (uint64_t)newest.txid);
	fflush(stdout);
	if (!same)
		exit(1);
}

int main(int argc, char **argv)
{
	struct held held = {.db = NULL};
	struct bts_options options;
	struct bts_error error;
	char line[64];

	if (argc != 2) {
		fprintf(stderr, "usage: held_reader FILE\n");
		return 2;
	}
	bts_options_init(&options);
	options.flags = BTS_OPEN_READ_ONLY | BTS_OPEN_EXISTING;
	if (bts_open(argv[1], &options, &held.db, &error) || bts_begin(held.db, BTS_READ, &held.txn, &error))
		die(argv[1], &error);
	held_read(&held, false);
	held_compare(&held);
	while (fgets(line, sizeof(line), stdin))
		held_compare(&held);
	held_compare(&held);
	bts_abort(held.txn);
	bts_close(held.db);
	free(held.bytes);
	return 0;
}
