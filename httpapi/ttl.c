/* Times to live of keys: the records, their judgement, and the removal of what has expired. */
#include "ttl.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "btree_store/ship.h"

#define TTL_HASH 16
#define TTL_ROW (8 + TTL_HASH)
#define TTL_HEAD 9			      /* of a record: expiry and the name's length */
#define TTL_LAST_MS UINT64_C(253402300799999) /* the year 9999 */
#define TTL_RECORD_MAX (TTL_HEAD + BTS_BUCKET_NAME_MAX + BTS_KEY_MAX)

static const struct bts_slice ttl_records = {"\0ttl", 4};
static const struct bts_slice ttl_rows = {"\0expiry", 7};
static const struct bts_slice ttl_nothing = {"", 0};

struct ttl_record {
	uint64_t expires_ms;
	struct bts_slice bucket, key; /* borrowed as the value was */
};

static void ttl_number_write(uint8_t out[8], uint64_t value)
{
	int i;

	for (i = 0; i < 8; i++)
		out[i] = (uint8_t)(value >> (56 - 8 * i));
}

static uint64_t ttl_number_read(const uint8_t *in)
{
	uint64_t value = 0;
	int i;

	for (i = 0; i < 8; i++)
		value = value << 8 | in[i];
	return value;
}

/* The key need not be secret: who makes two names meet has a record that is not believed, of keys that he may write. */
static void ttl_hash(struct bts_slice bucket, struct bts_slice key, uint8_t out[TTL_HASH])
{
	static const uint8_t fixed[16] = "btree_store ttl";
	struct bts_digest digest;
	uint8_t size = (uint8_t)bucket.size;

	bts_digest_init(&digest, fixed);
	bts_digest_update(&digest, &size, 1);
	bts_digest_update(&digest, bucket.data, bucket.size);
	bts_digest_update(&digest, key.data, key.size);
	bts_digest_final(&digest, out);
}

/* 0, or -1: nothing that ttl_set would have written. */
static int ttl_parse(struct bts_slice value, struct ttl_record *out)
{
	const uint8_t *at = value.data;

	if (value.size <= TTL_HEAD || value.size > TTL_RECORD_MAX || value.size <= (size_t)TTL_HEAD + at[8])
		return -1;
	out->expires_ms = ttl_number_read(at);
	if (out->expires_ms > TTL_LAST_MS)
		return -1;
	out->bucket = (struct bts_slice){at + TTL_HEAD, at[8]};
	out->key = (struct bts_slice){at + TTL_HEAD + at[8], value.size - TTL_HEAD - at[8]};
	return 0;
}

static int ttl_same(struct bts_slice a, struct bts_slice b)
{
	return a.size == b.size && !memcmp(a.data, b.data, a.size);
}

enum bts_err ttl_open(struct ttl_view *v, struct bts_txn *txn)
{
	enum bts_err err;

	v->txn = txn;
	v->records = NULL;
	v->now_ms = 0;
	err = bts_bucket(txn, ttl_records, 0, &v->records, NULL);
	if (err == BTS_NOT_FOUND)
		return BTS_OK;
	if (!err)
		v->now_ms = ttl_now_ms();
	return err;
}

enum bts_err ttl_judge(const struct ttl_view *v, struct bts_slice bucket, struct bts_slice key,
	bts_txid version, int *alive, uint64_t *expires_ms)
{
	struct ttl_record record;
	struct bts_slice value;
	uint8_t hash[TTL_HASH];
	bts_txid written;
	enum bts_err err;

	*alive = 1;
	*expires_ms = 0;
	if (!v->records)
		return BTS_OK;
	ttl_hash(bucket, key, hash);
	err = bts_get_version(v->txn, v->records, (struct bts_slice){hash, sizeof(hash)}, &value, &written);
	if (err)
		return err == BTS_NOT_FOUND ? BTS_OK : err;
	if (written != version || ttl_parse(value, &record) || !ttl_same(record.bucket, bucket) ||
		!ttl_same(record.key, key))
		return BTS_OK;
	*expires_ms = record.expires_ms;
	*alive = record.expires_ms > v->now_ms;
	return BTS_OK;
}

enum bts_err ttl_peek(const struct ttl_view *v, struct bts_bucket *bucket, struct bts_slice name,
	struct bts_slice key, struct bts_slice *value, bts_txid *version, uint64_t *expires_ms)
{
	uint64_t expires = 0;
	struct bts_slice got;
	bts_txid at;
	enum bts_err err;
	int alive;

	err = bts_peek(v->txn, bucket, key, &got, &at);
	if (!err)
		err = ttl_judge(v, name, key, at, &alive, &expires);
	if (!err && !alive)
		err = BTS_NOT_FOUND;
	if (err)
		return err;
	*value = got;
	*version = at;
	if (expires_ms)
		*expires_ms = expires;
	return BTS_OK;
}

enum bts_err ttl_get(const struct ttl_view *v, struct bts_bucket *bucket, struct bts_slice name,
	struct bts_slice key, struct bts_slice *value, bts_txid *version, uint64_t *expires_ms)
{
	struct bts_slice got;
	enum bts_err err;

	err = ttl_peek(v, bucket, name, key, &got, version, expires_ms);
	if (!err && !got.data)
		err = bts_get(v->txn, bucket, key, &got);
	if (!err)
		*value = got;
	return err;
}

static void ttl_row(uint64_t expires_ms, const uint8_t hash[TTL_HASH], uint8_t row[TTL_ROW])
{
	ttl_number_write(row, expires_ms);
	memcpy(row + 8, hash, TTL_HASH);
}

/* Of a row that may have gone already. */
static enum bts_err ttl_forget(struct bts_txn *txn, struct bts_bucket *bucket, const void *key, size_t size)
{
	enum bts_err err = bts_del(txn, bucket, (struct bts_slice){key, size});

	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static enum bts_err ttl_buckets(
	struct bts_txn *txn, unsigned flags, struct bts_bucket **records, struct bts_bucket **rows)
{
	enum bts_err err = bts_bucket(txn, ttl_records, flags, records, NULL);

	return err ? err : bts_bucket(txn, ttl_rows, flags, rows, NULL);
}

enum bts_err ttl_set(struct bts_txn *txn, struct bts_slice bucket, struct bts_slice key, uint64_t expires_ms)
{
	uint8_t hash[TTL_HASH], row[TTL_ROW], record[TTL_RECORD_MAX];
	struct bts_slice at = {hash, sizeof(hash)}, old;
	struct bts_bucket *records, *rows;
	enum bts_err err;

	err = ttl_buckets(txn, expires_ms ? BTS_CREATE : 0, &records, &rows);
	if (err)
		return err == BTS_NOT_FOUND && !expires_ms ? BTS_OK : err;
	ttl_hash(bucket, key, hash);
	err = bts_get(txn, records, at, &old);
	if (!err && old.size >= 8) {
		ttl_row(ttl_number_read(old.data), hash, row);
		err = ttl_forget(txn, rows, row, sizeof(row));
	}
	if (err && err != BTS_NOT_FOUND)
		return err;
	if (!expires_ms)
		return err ? BTS_OK : ttl_forget(txn, records, hash, sizeof(hash));
	ttl_row(expires_ms, hash, row);
	err = bts_put(txn, rows, (struct bts_slice){row, sizeof(row)}, ttl_nothing, 0);
	if (err)
		return err;
	ttl_number_write(record, expires_ms);
	record[8] = (uint8_t)bucket.size;
	memcpy(record + TTL_HEAD, bucket.data, bucket.size);
	memcpy(record + TTL_HEAD + bucket.size, key.data, key.size);
	return bts_put(txn, records, at, (struct bts_slice){record, TTL_HEAD + bucket.size + key.size}, 0);
}

static enum bts_err ttl_make(struct bts_txn *txn, void *arg)
{
	struct bts_bucket *records, *rows;

	(void)arg;
	return ttl_buckets(txn, BTS_CREATE, &records, &rows);
}

enum bts_err ttl_prepare(struct bts *db, struct bts_error *error)
{
	return bts_update(db, ttl_make, NULL, error);
}

struct ttl_entry {
	struct bts_slice bucket, key;
};

static enum bts_err ttl_clear_run(struct bts_txn *txn, void *arg)
{
	const struct ttl_entry *entry = arg;
	struct bts_bucket *bucket;
	struct bts_slice value;
	struct ttl_view view;
	uint64_t expires;
	bts_txid version;
	int alive = 1;
	enum bts_err err = ttl_open(&view, txn);

	if (!err)
		err = bts_bucket(txn, entry->bucket, 0, &bucket, NULL);
	if (!err)
		err = bts_peek(txn, bucket, entry->key, &value, &version);
	if (!err)
		err = ttl_judge(&view, entry->bucket, entry->key, version, &alive, &expires);
	if (!err && !alive)
		err = bts_del(txn, bucket, entry->key);
	if (!err && !alive)
		err = ttl_set(txn, entry->bucket, entry->key, 0);
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

enum bts_err ttl_clear(struct bts *db, struct bts_slice bucket, struct bts_slice key, struct bts_error *error)
{
	struct ttl_entry entry = {bucket, key};

	return bts_update(db, ttl_clear_run, &entry, error);
}

/* ---- the sweep ---- */

/* The entry of a record, when it is still the record's. */
static enum bts_err ttl_remove_entry(
	struct bts_txn *txn, const struct ttl_record *record, bts_txid version, uint64_t *removed)
{
	struct bts_bucket *bucket;
	struct bts_slice value;
	enum bts_err err;
	bts_txid at;

	err = bts_bucket(txn, record->bucket, 0, &bucket, NULL);
	if (!err)
		err = bts_peek(txn, bucket, record->key, &value, &at);
	if (!err && at == version) {
		err = bts_del(txn, bucket, record->key);
		*removed += !err;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

/* What a row stands for goes, and the row. */
static enum bts_err ttl_remove_row(struct bts_txn *txn, struct bts_bucket *records, struct bts_bucket *rows,
	const uint8_t row[TTL_ROW], struct ttl_swept *swept, size_t *bytes)
{
	struct bts_slice at = {row + 8, TTL_HASH}, value;
	uint8_t copy[TTL_RECORD_MAX]; /* a write ends what was borrowed */
	struct ttl_record record;
	enum bts_err err;
	bts_txid version;

	err = bts_get_version(txn, records, at, &value, &version);
	if (!err && value.size <= sizeof(copy)) {
		memcpy(copy, value.data, value.size);
		*bytes += value.size;
		value.data = copy;
		if (!ttl_parse(value, &record) && record.expires_ms == ttl_number_read(row)) {
			err = ttl_remove_entry(txn, &record, version, &swept->entries);
			if (!err)
				err = ttl_forget(txn, records, at.data, at.size);
		}
	}
	if (err && err != BTS_NOT_FOUND)
		return err;
	return ttl_forget(txn, rows, row, TTL_ROW);
}

/* The first row: BTS_NOT_FOUND when there is none, or it is not due.  What is no row counts as one of 1970. */
static enum bts_err ttl_first(
	struct bts_txn *txn, struct bts_bucket *rows, uint64_t now_ms, struct bts_slice *key)
{
	struct bts_cursor *cursor;
	enum bts_err err;

	err = bts_cursor_open(txn, rows, &cursor, NULL);
	if (err)
		return err;
	err = bts_cursor_first(cursor, key, NULL);
	bts_cursor_close(cursor);
	if (!err && key->size == TTL_ROW && ttl_number_read(key->data) > now_ms)
		err = BTS_NOT_FOUND;
	return err;
}

enum bts_err ttl_sweep_batch(struct bts_txn *txn, uint64_t now_ms, struct ttl_swept *swept)
{
	struct bts_bucket *records, *rows;
	uint8_t row[BTS_KEY_MAX];
	struct bts_slice key;
	size_t bytes = 0;
	enum bts_err err;

	memset(swept, 0, sizeof(*swept));
	err = ttl_buckets(txn, 0, &records, &rows);
	while (!err) {
		err = ttl_first(txn, rows, now_ms, &key);
		if (err)
			break;
		swept->more = swept->rows == TTL_SWEEP_ROWS || bytes >= TTL_SWEEP_BYTES;
		if (swept->more)
			break;
		swept->rows++;
		memcpy(row, key.data, key.size);
		err = key.size == TTL_ROW ? ttl_remove_row(txn, records, rows, row, swept, &bytes)
					  : ttl_forget(txn, rows, row, key.size);
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

enum bts_err ttl_sweep_due(struct bts_txn *txn, uint64_t now_ms, int *due, uint64_t *pending)
{
	struct bts_bucket_info info;
	struct bts_bucket *rows;
	struct bts_slice key;
	enum bts_err err;

	*due = 0;
	*pending = 0;
	err = bts_bucket(txn, ttl_rows, 0, &rows, NULL);
	if (!err)
		err = bts_bucket_info(txn, rows, &info);
	if (err)
		return err == BTS_NOT_FOUND ? BTS_OK : err;
	*pending = info.entries;
	err = ttl_first(txn, rows, now_ms, &key);
	*due = !err;
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

void ttl_text(uint64_t expires_ms, char text[TTL_TEXT_MAX])
{
	time_t seconds = (time_t)(expires_ms / 1000);
	struct tm tm;
	size_t n;

	gmtime_r(&seconds, &tm);
	n = strftime(text, TTL_TEXT_MAX - 8, "%Y-%m-%dT%H:%M:%S", &tm);
	snprintf(text + n, TTL_TEXT_MAX - n, ".%03uZ", (unsigned)(expires_ms % 1000));
}
