/* Keys and values of the torture, and reading a snapshot of them. */
#include "torture.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

const struct bts_slice torture_data = {"data", 4}, torture_common = {"common", 6};

const char *const torture_deed_names[TORTURE_TALLIES] = {
	[TORTURE_DEED_PUT] = "put",
	[TORTURE_DEED_MANY] = "many",
	[TORTURE_DEED_COUNT] = "count",
	[TORTURE_DEED_TRANSFER] = "transfer",
	[TORTURE_DEED_BUCKET] = "bucket",
	[TORTURE_DEED_COMMON] = "common",
	[TORTURE_DEED_DUTY] = "duty",
	[TORTURE_DEED_GROUP] = "group",
	[TORTURE_DEED_ASYNC] = "async",
	[TORTURE_DEED_ABORT] = "abort",
	[TORTURE_DEED_VIEW] = "view",
	[TORTURE_DEED_PIN] = "pin",
	[TORTURE_DEED_READ_ONLY] = "read-only",
	[TORTURE_DEED_REOPEN] = "reopen",
	[TORTURE_DEED_LEAVE] = "leave",
	[TORTURE_DEED_CONFLICT] = "conflicts",
	[TORTURE_DEED_ABANDON] = "abandoned",
	[TORTURE_DEED_BUSY] = "busy",
	[TORTURE_DEED_UNAVAILABLE] = "unavailable",
};

uint64_t torture_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct bts_slice torture_own_key(char room[32], unsigned place, unsigned index)
{
	return (struct bts_slice){room, (size_t)snprintf(room, 32, "own %04u of %u", index, place)};
}

struct bts_slice torture_number_key(char room[32], const char *what, unsigned index)
{
	return (struct bts_slice){room, (size_t)snprintf(room, 32, "%.16s %03u", what, index)};
}

struct bts_slice torture_bucket_name(char room[32], unsigned place)
{
	return (struct bts_slice){room, (size_t)snprintf(room, 32, "bucket of %u", place)};
}

/* One value in sixteen is large enough to be stored outside its leaf. */
static size_t words_size(uint64_t stamp)
{
	uint64_t mixed = (stamp ^ stamp >> 29) * UINT64_C(0x9e3779b97f4a7c15) >> 24;

	return mixed % 16 == 0 ? 2000 + mixed / 16 % (TORTURE_VALUE_MAX - 2000) : 8 + mixed / 16 % 300;
}

struct bts_slice torture_value(uint8_t *buffer, uint64_t stamp)
{
	size_t size = words_size(stamp);

	memcpy(buffer, &stamp, 8);
	for (size_t i = 8; i < size; i++)
		buffer[i] = (uint8_t)(stamp * 31 + i * (stamp % 251 | 1));
	return (struct bts_slice){buffer, size};
}

uint64_t torture_stamp(struct bts_slice value)
{
	const uint8_t *bytes = value.data;
	uint64_t stamp;

	if (value.size < 8)
		return UINT64_MAX;
	memcpy(&stamp, bytes, 8);
	if (value.size != words_size(stamp))
		return UINT64_MAX;
	for (size_t i = 8; i < value.size; i++)
		if (bytes[i] != (uint8_t)(stamp * 31 + i * (stamp % 251 | 1)))
			return UINT64_MAX;
	return stamp;
}

static enum bts_err words_get(
	struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key, uint64_t *stamp)
{
	struct bts_slice value;
	enum bts_err err = bts_get(txn, bucket, key, &value);

	*stamp = err ? 0 : torture_stamp(value);
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

enum bts_err torture_read_own(
	struct bts_txn *txn, unsigned place, uint64_t own[TORTURE_OWN], const char **wrong)
{
	struct bts_bucket *bucket;
	char room[32];
	enum bts_err err = bts_bucket(txn, torture_data, 0, &bucket, NULL);

	*wrong = NULL;
	for (unsigned i = 0; i < TORTURE_BUCKET && !err; i++) {
		err = words_get(txn, bucket, torture_own_key(room, place, i), &own[i]);
		if (!err && own[i] == UINT64_MAX)
			*wrong = "a value is not whole";
	}
	own[TORTURE_BUCKET] = 0;
	if (err)
		return err;
	err = bts_bucket(txn, torture_bucket_name(room, place), 0, &bucket, NULL);
	if (err == BTS_NOT_FOUND)
		return BTS_OK;
	for (unsigned i = 0; i < 20 && !err; i++) {
		uint64_t stamp;

		err = words_get(txn, bucket, torture_own_key(room, place, i), &stamp);
		if (i == 0)
			own[TORTURE_BUCKET] = stamp;
		if (stamp == 0 || stamp != own[TORTURE_BUCKET])
			*wrong = "a bucket's content is not of one transaction";
	}
	return err;
}

enum bts_err torture_get_number(
	struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key, int64_t *number)
{
	struct bts_slice value;
	enum bts_err err = bts_get(txn, bucket, key, &value);

	if (err)
		return err;
	if (value.size != sizeof(*number))
		return BTS_CORRUPT;
	memcpy(number, value.data, sizeof(*number));
	return BTS_OK;
}

enum bts_err torture_put_number(
	struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key, int64_t number)
{
	return bts_put(txn, bucket, key, (struct bts_slice){&number, sizeof(number)}, 0);
}

enum bts_err torture_read_shared(struct bts_txn *txn, struct torture_shared *shared, const char **wrong)
{
	struct bts_bucket *bucket;
	int64_t sum = 0;
	char room[32];
	enum bts_err err = bts_bucket(txn, torture_data, 0, &bucket, NULL);

	for (unsigned i = 0; i < TORTURE_COUNTERS && !err; i++)
		err = torture_get_number(
			txn, bucket, torture_number_key(room, "counter", i), &shared->counters[i]);
	for (unsigned i = 0; i < TORTURE_ACCOUNTS && !err; i++) {
		err = torture_get_number(
			txn, bucket, torture_number_key(room, "account", i), &shared->accounts[i]);
		sum += err ? 0 : shared->accounts[i];
	}
	for (unsigned i = 0; i < 2 && !err; i++)
		err = torture_get_number(txn, bucket, torture_number_key(room, "duty", i), &shared->duty[i]);
	if (err)
		return err;
	*wrong = sum != (int64_t)TORTURE_ACCOUNTS * TORTURE_BALANCE ? "money was made or lost"
		 : shared->duty[0] + shared->duty[1] < 1	    ? "nobody is on duty: write skew"
								    : NULL;
	return BTS_OK;
}
