/* The oracle of the crash tests, and the digest by which whole contents are compared. */
#include "crash.h"

#include <ensure.h>
#include <siphash.h>

static const uint8_t crash_hash_key[16] = "crash test hash";

/* Entries are added up, so the oracle needs no order; that keys ascend is checked where they are read. */
static uint64_t crash_hash(struct bts_slice bucket, struct bts_slice key, struct bts_slice value)
{
	uint8_t out[16], sizes[8];
	struct siphash hash;
	uint64_t sum;

	siphash_init(&hash, crash_hash_key);
	memcpy(sizes, (uint32_t[2]){(uint32_t)bucket.size, (uint32_t)key.size}, 8);
	siphash_update(&hash, sizes, 8);
	siphash_update(&hash, bucket.data, bucket.size);
	siphash_update(&hash, key.data, key.size);
	siphash_update(&hash, value.data, value.size);
	siphash_final(&hash, out);
	memcpy(&sum, out, sizeof(sum));
	return sum;
}

struct bts_slice crash_bucket_name(unsigned bucket)
{
	static const char *const names[CRASH_BUCKETS] = {"alpha", "beta", "gamma", "delta"};

	return (struct bts_slice){names[bucket], strlen(names[bucket])};
}

struct bts_slice crash_key(unsigned key, char text[64])
{
	int size = snprintf(text, 64, "key-%03u-%.*s", key, (int)(key * 7 % 31),
		"........................................");

	return (struct bts_slice){text, (size_t)size};
}

void crash_value_fill(uint8_t *data, uint32_t size, uint32_t seed)
{
	uint64_t state = seed, word;

	for (uint32_t at = 0; at < size; at += 8) {
		word = rng_splitmix(&state);
		memcpy(data + at, &word, size - at < 8 ? size - at : 8);
	}
}

void crash_oracle_put(
	struct crash_oracle *oracle, unsigned bucket, unsigned key, uint32_t size, uint32_t seed)
{
	struct crash_value *value = &oracle->values[bucket][key];
	uint8_t *data = malloc(size + 1);
	char text[64];

	ENSURE(data);
	crash_value_fill(data, size, seed);
	value->size = size;
	value->seed = seed;
	value->present = true;
	value->hash =
		crash_hash(crash_bucket_name(bucket), crash_key(key, text), (struct bts_slice){data, size});
	free(data);
}

void crash_oracle_drop(struct crash_oracle *oracle, unsigned bucket)
{
	oracle->bucket[bucket] = false;
	for (unsigned key = 0; key < CRASH_KEYS; key++)
		oracle->values[bucket][key].present = false;
}

void crash_oracle_rename(struct crash_oracle *oracle, unsigned from, unsigned to)
{
	oracle->bucket[from] = false;
	oracle->bucket[to] = true;
	for (unsigned key = 0; key < CRASH_KEYS; key++) {
		struct crash_value *value = &oracle->values[from][key];

		if (value->present)
			crash_oracle_put(oracle, to, key, value->size, value->seed);
		value->present = false;
	}
}

uint64_t crash_oracle_contents(const struct crash_oracle *oracle)
{
	static const struct bts_slice none;
	uint64_t sum = oracle->probes;

	for (unsigned bucket = 0; bucket < CRASH_BUCKETS; bucket++) {
		if (oracle->bucket[bucket])
			sum += crash_hash(crash_bucket_name(bucket), none, none);
		for (unsigned key = 0; key < CRASH_KEYS; key++) {
			if (oracle->values[bucket][key].present)
				sum += oracle->values[bucket][key].hash;
		}
	}
	return sum;
}

struct bts_slice crash_snapshot_name(unsigned snapshot)
{
	static const char *const names[CRASH_SNAPSHOTS] = {"monday", "thursday", "tuesday"};

	return (struct bts_slice){names[snapshot], strlen(names[snapshot])};
}

static uint64_t crash_snapshot_hash(struct bts_slice name, uint64_t contents)
{
	static const struct bts_slice bucket = {"~snapshot", 9};

	return crash_hash(bucket, name, (struct bts_slice){&contents, sizeof(contents)});
}

uint64_t crash_oracle_digest(const struct crash_oracle *oracle)
{
	uint64_t contents = crash_oracle_contents(oracle), sum = contents;

	for (unsigned i = 0; i < CRASH_SNAPSHOTS; i++) {
		if (oracle->snapshots[i].present)
			sum += crash_snapshot_hash(crash_snapshot_name(i),
				oracle->snapshots[i].fresh ? contents : oracle->snapshots[i].contents);
	}
	return sum;
}

void crash_oracle_committed(struct crash_oracle *oracle)
{
	uint64_t contents = crash_oracle_contents(oracle);

	for (unsigned i = 0; i < CRASH_SNAPSHOTS; i++) {
		if (oracle->snapshots[i].fresh)
			oracle->snapshots[i].contents = contents;
		oracle->snapshots[i].fresh = false;
	}
}

static bool crash_ascends(struct bts_slice before, struct bts_slice key)
{
	size_t common = before.size < key.size ? before.size : key.size;
	int order = memcmp(before.data, key.data, common);

	return order < 0 || (!order && before.size < key.size);
}

static const char *crash_digest_bucket(struct bts_txn *txn, struct bts_slice name, uint64_t *sum)
{
	struct bts_slice key, value, before;
	struct bts_bucket *bucket;
	struct bts_cursor *cursor;
	uint8_t last[64];
	enum bts_err err;

	if (bts_bucket(txn, name, 0, &bucket, NULL) || bts_cursor_open(txn, bucket, &cursor, NULL))
		return "a listed bucket does not open";
	before = (struct bts_slice){last, 0};
	for (err = bts_cursor_first(cursor, &key, &value); !err;
		err = bts_cursor_next(cursor, &key, &value)) {
		if (key.size > sizeof(last) || !crash_ascends(before, key))
			break;
		memcpy(last, key.data, key.size);
		before.size = key.size;
		*sum += crash_hash(name, key, value);
	}
	bts_cursor_close(cursor);
	if (err == BTS_NOT_FOUND)
		return NULL;
	return err ? bts_txn_error(txn)->text : "keys out of order";
}

const char *crash_digest(struct bts_txn *txn, uint64_t *digest)
{
	struct bts_slice after, none = {NULL, 0};
	struct bts_bucket_info info;
	uint64_t sum = 0;
	enum bts_err err;
	uint8_t name[32];

	after = (struct bts_slice){name, 0};
	for (err = bts_bucket_next(txn, after, &info); !err; err = bts_bucket_next(txn, after, &info)) {
		const char *wrong;

		if (info.name.size > sizeof(name))
			return "a bucket nobody made";
		memcpy(name, info.name.data, info.name.size);
		after.size = info.name.size;
		if (name[0] != '~')
			sum += crash_hash(after, none, none);
		wrong = crash_digest_bucket(txn, after, &sum);
		if (wrong)
			return wrong;
	}
	*digest = sum;
	return err == BTS_NOT_FOUND ? NULL : bts_txn_error(txn)->text;
}

const char *crash_digest_all(struct bts *db, struct bts_txn *txn, uint64_t *digest)
{
	struct bts_snapshot_info info = {.name = {"", 0}};
	const char *wrong = crash_digest(txn, digest);
	uint64_t contents;
	struct bts_txn *at;
	enum bts_err err;

	if (wrong)
		return wrong;
	while ((err = bts_snapshot_next(txn, info.name, &info)) == BTS_OK) {
		if (bts_begin_at(db, info.name, &at, NULL))
			return "a listed snapshot does not open";
		wrong = crash_digest(at, &contents);
		bts_abort(at);
		if (wrong)
			return "a named snapshot cannot be read";
		*digest += crash_snapshot_hash(info.name, contents);
	}
	return err == BTS_NOT_FOUND ? NULL : bts_txn_error(txn)->text;
}

static struct bts_slice crash_probe_key(uint32_t number, char text[64])
{
	return (struct bts_slice){text, (size_t)snprintf(text, 64, "probe %u", number)};
}

static const struct bts_slice crash_probe_bucket = {"~probe", 6}, crash_probe_value = {"works", 5};

uint64_t crash_probe_digest(uint32_t number)
{
	char text[64];

	return crash_hash(crash_probe_bucket, crash_probe_key(number, text), crash_probe_value);
}

enum bts_err crash_probe_put(struct bts *db, uint32_t number, bts_txid *txid, struct bts_error *error)
{
	return crash_probe_commit(db, 0, number, txid, error);
}

enum bts_err crash_probe_commit(
	struct bts *db, unsigned flags, uint32_t number, bts_txid *txid, struct bts_error *error)
{
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	enum bts_err err;
	char text[64];

	err = bts_begin(db, BTS_WRITE | flags, &txn, error);
	if (err)
		return err;
	err = bts_bucket(txn, crash_probe_bucket, BTS_CREATE, &bucket, error);
	if (!err)
		err = bts_put(txn, bucket, crash_probe_key(number, text), crash_probe_value, BTS_PUT_NEW);
	if (err) {
		bts_abort(txn);
		return err;
	}
	err = bts_commit_id(txn, txid, error);
	if (err == BTS_CONFLICT)
		bts_abort(txn);
	return err;
}
