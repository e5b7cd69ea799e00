/* The naive oracle of the model tests: see oracle.h. */
#include "oracle.h"

#include "cmocka.h"
#include <stdlib.h>

static void *oracle_memory(void *old, size_t size)
{
	void *fresh = realloc(old, size);

	assert_non_null(fresh);
	return fresh;
}

int oracle_compare(struct bts_slice a, struct bts_slice b)
{
	size_t size = a.size < b.size ? a.size : b.size;
	int order = size ? memcmp(a.data, b.data, size) : 0;

	return order ? order : (a.size > b.size) - (a.size < b.size);
}

static bool oracle_same(struct bts_slice a, struct bts_slice b)
{
	return a.size == b.size && oracle_compare(a, b) == 0;
}

struct oracle_entry *oracle_entry_new(struct bts_slice key, struct bts_slice value, bts_txid version)
{
	struct oracle_entry *entry = oracle_memory(NULL, sizeof(*entry) + key.size + value.size);

	entry->refs = 1;
	entry->version = version;
	entry->key = (struct bts_slice){entry->bytes, key.size};
	entry->value = (struct bts_slice){entry->bytes + key.size, value.size};
	if (key.size)
		memcpy(entry->bytes, key.data, key.size);
	if (value.size)
		memcpy(entry->bytes + key.size, value.data, value.size);
	return entry;
}

void oracle_entry_drop(struct oracle_entry *entry)
{
	if (--entry->refs == 0)
		free(entry);
}

static void oracle_bucket_free(struct oracle_bucket *bucket)
{
	for (size_t i = 0; i < bucket->count; i++)
		oracle_entry_drop(bucket->entries[i]);
	free(bucket->entries);
	free(bucket);
}

void oracle_copy(struct oracle *to, const struct oracle *from)
{
	*to = *from;
	to->buckets = oracle_memory(NULL, (from->count + 1) * sizeof(*to->buckets));
	for (size_t i = 0; i < from->count; i++) {
		struct oracle_bucket *bucket = oracle_memory(NULL, sizeof(*bucket));
		const struct oracle_bucket *source = from->buckets[i];

		*bucket = *source;
		bucket->name.data = bucket->name_bytes;
		bucket->base.data = bucket->base_bytes;
		bucket->cap = source->count + 1;
		bucket->entries = oracle_memory(NULL, bucket->cap * sizeof(*bucket->entries));
		for (size_t k = 0; k < source->count; k++) {
			bucket->entries[k] = source->entries[k];
			bucket->entries[k]->refs++;
		}
		to->buckets[i] = bucket;
	}
}

void oracle_fini(struct oracle *o)
{
	for (size_t i = 0; i < o->count; i++)
		oracle_bucket_free(o->buckets[i]);
	free(o->buckets);
	*o = (struct oracle){0};
}

static size_t oracle_bucket_at(const struct oracle *o, struct bts_slice name, bool *exact)
{
	size_t at = 0;

	while (at < o->count && oracle_compare(o->buckets[at]->name, name) < 0)
		at++;
	*exact = at < o->count && oracle_same(o->buckets[at]->name, name);
	return at;
}

struct oracle_bucket *oracle_bucket(const struct oracle *o, struct bts_slice name)
{
	bool exact;
	size_t at = oracle_bucket_at(o, name, &exact);

	return exact ? o->buckets[at] : NULL;
}

struct oracle_bucket *oracle_bucket_after(const struct oracle *o, struct bts_slice name)
{
	bool exact;
	size_t at = oracle_bucket_at(o, name, &exact) + exact;

	return at < o->count ? o->buckets[at] : NULL;
}

struct oracle_bucket *oracle_create(
	struct oracle *o, struct bts_slice name, bts_txid version, uint64_t identity)
{
	struct oracle_bucket *bucket = oracle_memory(NULL, sizeof(*bucket));
	bool exact;
	size_t at = oracle_bucket_at(o, name, &exact);

	assert_false(exact);
	memset(bucket, 0, sizeof(*bucket));
	memcpy(bucket->name_bytes, name.data, name.size);
	bucket->name = (struct bts_slice){bucket->name_bytes, name.size};
	bucket->version = version;
	bucket->identity = identity;
	o->buckets = oracle_memory(o->buckets, (o->count + 1) * sizeof(*o->buckets));
	memmove(o->buckets + at + 1, o->buckets + at, (o->count - at) * sizeof(*o->buckets));
	o->buckets[at] = bucket;
	o->count++;
	return bucket;
}

void oracle_drop(struct oracle *o, struct bts_slice name)
{
	bool exact;
	size_t at = oracle_bucket_at(o, name, &exact);

	assert_true(exact);
	oracle_bucket_free(o->buckets[at]);
	o->count--;
	memmove(o->buckets + at, o->buckets + at + 1, (o->count - at) * sizeof(*o->buckets));
}

void oracle_rename(struct oracle *o, struct bts_slice from, struct bts_slice to, bts_txid version)
{
	bool exact;
	size_t at = oracle_bucket_at(o, from, &exact);
	struct oracle_bucket *bucket = o->buckets[at];

	assert_true(exact);
	o->count--;
	memmove(o->buckets + at, o->buckets + at + 1, (o->count - at) * sizeof(*o->buckets));
	at = oracle_bucket_at(o, to, &exact);
	assert_false(exact);
	memmove(o->buckets + at + 1, o->buckets + at, (o->count - at) * sizeof(*o->buckets));
	o->buckets[at] = bucket;
	o->count++;
	memmove(bucket->name_bytes, to.data, to.size);
	bucket->name.size = to.size;
	bucket->version = version;
}

size_t oracle_at(const struct oracle_bucket *bucket, struct bts_slice key, bool *exact)
{
	size_t low = 0, high = bucket->count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (oracle_compare(bucket->entries[middle]->key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*exact = low < bucket->count && oracle_same(bucket->entries[low]->key, key);
	return low;
}

const struct oracle_entry *oracle_get(const struct oracle_bucket *bucket, struct bts_slice key)
{
	bool exact;
	size_t at = oracle_at(bucket, key, &exact);

	return exact ? bucket->entries[at] : NULL;
}

void oracle_put(struct oracle_bucket *bucket, struct bts_slice key, struct bts_slice value, bts_txid version)
{
	struct oracle_entry *entry = oracle_entry_new(key, value, version);
	bool exact;
	size_t at = oracle_at(bucket, key, &exact);

	if (exact) {
		oracle_entry_drop(bucket->entries[at]);
		bucket->entries[at] = entry;
		return;
	}
	if (bucket->count == bucket->cap) {
		bucket->cap = bucket->cap * 2 + 16;
		bucket->entries = oracle_memory(bucket->entries, bucket->cap * sizeof(*bucket->entries));
	}
	memmove(bucket->entries + at + 1, bucket->entries + at,
		(bucket->count - at) * sizeof(*bucket->entries));
	bucket->entries[at] = entry;
	bucket->count++;
}

bool oracle_del(struct oracle_bucket *bucket, struct bts_slice key)
{
	bool exact;
	size_t at = oracle_at(bucket, key, &exact);

	if (!exact)
		return false;
	oracle_entry_drop(bucket->entries[at]);
	bucket->count--;
	memmove(bucket->entries + at, bucket->entries + at + 1,
		(bucket->count - at) * sizeof(*bucket->entries));
	return true;
}

static void oracle_same_entry(const struct oracle_entry *entry, struct bts_cursor *cursor,
	struct bts_slice key, struct bts_slice value)
{
	assert_true(oracle_same(entry->key, key));
	assert_true(oracle_same(entry->value, value));
	assert_int_equal(entry->version, bts_cursor_version(cursor));
}

static void oracle_verify_bucket(struct bts_txn *txn, const struct oracle_bucket *bucket)
{
	struct bts_slice key, value;
	struct bts_cursor *cursor;
	struct bts_bucket *handle;
	struct bts_bucket_info info;
	uint64_t bytes = 0;
	enum bts_err err;

	assert_int_equal(bts_bucket(txn, bucket->name, 0, &handle, NULL), BTS_OK);
	assert_int_equal(bts_cursor_open(txn, handle, &cursor, NULL), BTS_OK);
	err = bts_cursor_first(cursor, &key, &value);
	for (size_t i = 0; i < bucket->count; i++) {
		assert_int_equal(err, BTS_OK);
		oracle_same_entry(bucket->entries[i], cursor, key, value);
		bytes += key.size + value.size;
		err = bts_cursor_next(cursor, &key, &value);
	}
	assert_int_equal(err, BTS_NOT_FOUND);
	err = bts_cursor_last(cursor, &key, &value);
	for (size_t i = bucket->count; i-- > 0;) {
		assert_int_equal(err, BTS_OK);
		oracle_same_entry(bucket->entries[i], cursor, key, value);
		err = bts_cursor_prev(cursor, &key, &value);
	}
	assert_int_equal(err, BTS_NOT_FOUND);
	bts_cursor_close(cursor);
	assert_int_equal(bts_bucket_info(txn, handle, &info), BTS_OK);
	assert_int_equal(info.entries, bucket->count);
	assert_int_equal(info.bytes, bytes);
}

void oracle_verify(struct bts_txn *txn, const struct oracle *o)
{
	struct bts_slice after = {0};
	struct bts_bucket_info info;

	for (size_t i = 0; i < o->count; i++) {
		const struct oracle_bucket *bucket = o->buckets[i];

		assert_int_equal(bts_bucket_next(txn, after, &info), BTS_OK);
		assert_true(oracle_same(info.name, bucket->name));
		assert_true(oracle_same(info.meta, (struct bts_slice){bucket->meta, bucket->meta_size}));
		if (bucket->version != 0)
			assert_int_equal(info.version, bucket->version);
		after = bucket->name;
		oracle_verify_bucket(txn, bucket);
	}
	assert_int_equal(bts_bucket_next(txn, after, &info), BTS_NOT_FOUND);
}
