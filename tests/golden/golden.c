/* See golden.h. */
#include "golden.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

void golden_must(enum bts_err err, const struct bts_error *error, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "%s: %s: %s\n", what, bts_err_name(err), error ? error->text : "");
	exit(1);
}

enum bts_err golden_open(struct bts_env *env, const char *path, unsigned flags, uint32_t page_size,
	struct bts **db, struct bts_error *error)
{
	struct bts_options options;

	bts_options_init(&options);
	options.env = env;
	options.flags = flags;
	options.page_size = page_size;
	options.map_bytes = GOLDEN_MAP;
	return bts_open(path, &options, db, error);
}

static void golden_u32(struct bts_digest *digest, size_t value)
{
	uint8_t bytes[4];

	bytes_put_u32(bytes, (uint32_t)value);
	bts_digest_update(digest, bytes, sizeof(bytes));
}

static void golden_u64(struct bts_digest *digest, uint64_t value)
{
	uint8_t bytes[8];

	bytes_put_u64(bytes, value);
	bts_digest_update(digest, bytes, sizeof(bytes));
}

static void golden_name(struct bts_digest *digest, struct bts_slice name)
{
	golden_u32(digest, name.size);
	bts_digest_update(digest, name.data, name.size);
}

static void golden_bucket(struct bts_txn *txn, struct bts_slice name, struct bts_digest *digest)
{
	struct bts_slice key, value;
	struct bts_bucket *bucket;
	struct bts_cursor *cursor;
	enum bts_err err;

	golden_must(bts_bucket(txn, name, 0, &bucket, NULL), bts_txn_error(txn), "bucket");
	golden_must(bts_cursor_open(txn, bucket, &cursor, NULL), bts_txn_error(txn), "cursor");
	for (err = bts_cursor_first(cursor, &key, &value); !err;
		err = bts_cursor_next(cursor, &key, &value)) {
		bts_digest_update(digest, "E", 1);
		golden_name(digest, key);
		golden_u64(digest, value.size);
		bts_digest_update(digest, value.data, value.size);
		golden_u64(digest, bts_cursor_version(cursor));
	}
	golden_must(err == BTS_NOT_FOUND ? BTS_OK : err, bts_txn_error(txn), "scan");
	bts_cursor_close(cursor);
}

static void golden_state(struct bts_txn *txn, struct bts_digest *digest)
{
	char name[BTS_BUCKET_NAME_MAX];
	struct bts_slice after = {name, 0};
	struct bts_bucket_info info;
	enum bts_err err;

	while ((err = bts_bucket_next(txn, after, &info)) == BTS_OK) {
		memcpy(name, info.name.data, info.name.size);
		after.size = info.name.size;
		bts_digest_update(digest, "B", 1);
		golden_name(digest, after);
		golden_name(digest, info.meta);
		golden_u64(digest, info.version);
		golden_bucket(txn, after, digest);
	}
	golden_must(err == BTS_NOT_FOUND ? BTS_OK : err, bts_txn_error(txn), "buckets");
}

void golden_dump(struct bts *db, uint8_t out[16], unsigned *snapshots)
{
	static const uint8_t none[16];
	char name[BTS_SNAPSHOT_NAME_MAX];
	struct bts_slice after = {name, 0};
	struct bts_snapshot_info info = {.name = {"", 0}};
	struct bts_digest digest;
	struct bts_error error;
	struct bts_txn *head, *at;
	enum bts_err err = BTS_OK;

	*snapshots = 0;
	bts_digest_init(&digest, none);
	golden_must(bts_begin(db, BTS_READ, &head, &error), &error, "begin");
	for (at = head; !err; err = bts_snapshot_next(head, after, &info)) {
		memcpy(name, info.name.data, info.name.size);
		after.size = info.name.size;
		if (after.size) {
			golden_must(bts_begin_at(db, after, &at, &error), &error, "snapshot");
			++*snapshots;
		}
		bts_digest_update(&digest, "S", 1);
		golden_name(&digest, after);
		golden_u64(&digest, info.txid);
		golden_u64(&digest, info.time_ms);
		golden_state(at, &digest);
		if (at != head)
			bts_abort(at);
	}
	golden_must(err == BTS_NOT_FOUND ? BTS_OK : err, bts_txn_error(head), "snapshots");
	bts_abort(head);
	bts_digest_final(&digest, out);
}

static void golden_hex(const uint8_t bytes[16], char text[33])
{
	for (unsigned i = 0; i < 16; i++)
		snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

void golden_line(struct bts *db, char line[GOLDEN_LINE])
{
	struct bts_stat stat = {.size = sizeof(stat)};
	char text[3][33];
	struct bts_error error;
	unsigned snapshots;
	uint8_t dump[16];

	golden_dump(db, dump, &snapshots);
	golden_must(bts_stat(db, &stat, &error), &error, "stat");
	golden_hex(dump, text[0]);
	golden_hex(stat.root_digest, text[1]);
	golden_hex(stat.chain, text[2]);
	snprintf(line, GOLDEN_LINE,
		"dump=%s root=%s chain=%s epoch=%u txid=%llu first=%llu pages=%llu free=%llu buckets=%llu "
		"snapshots=%u "
		"follower=%d clean=%d fell_back=%d",
		text[0], text[1], text[2], stat.epoch, (unsigned long long)stat.txid,
		(unsigned long long)stat.first_page, (unsigned long long)stat.pages,
		(unsigned long long)stat.free_pages, (unsigned long long)stat.buckets, snapshots,
		stat.follower, stat.clean_open, stat.fell_back);
}

uint8_t *golden_load(const char *folder, const char *name, const char *suffix, size_t *size)
{
	uint8_t *bytes = NULL;
	char path[600];
	FILE *file;
	long end;

	snprintf(path, sizeof(path), "%s/%s%s", folder, name, suffix);
	file = fopen(path, "rb");
	if (!file || fseek(file, 0, SEEK_END) || (end = ftell(file)) < 0 || fseek(file, 0, SEEK_SET) ||
		!(bytes = malloc((size_t)end + 1)) || fread(bytes, 1, (size_t)end, file) != (size_t)end) {
		perror(path);
		exit(1);
	}
	fclose(file);
	*size = (size_t)end;
	return bytes;
}
