/* Filling, aging and verifying the stores. */
#include "bench.h"
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <errno.h>
#include <unistd.h>

#define DATA_AGE_BATCH 1000u
#define DATA_VERIFY_GETS 20000u
#define DATA_FILL_BYTES ((uint64_t)256 << 20) /* of a batch */

int bench_batch_init(struct bench_batch *batch, const struct bench_set *set, size_t size)
{
	batch->count = 0;
	batch->ops = calloc(size, sizeof(*batch->ops));
	batch->keys = malloc(size * set->key_size);
	return batch->ops && batch->keys ? 0 : bench_fail("no memory for a batch of %zu", size);
}

void bench_batch_fini(struct bench_batch *batch)
{
	free(batch->ops);
	free(batch->keys);
}

static void data_add(
	struct bench_batch *batch, const struct bench_set *set, uint64_t index, const uint8_t *value)
{
	uint8_t *key = batch->keys + batch->count * set->key_size;

	bench_key(set, index, false, key);
	batch->ops[batch->count++] = (struct bench_op){key, value};
}

void bench_batch_put(struct bench_batch *batch, const struct bench_set *set, uint64_t index, uint8_t version)
{
	data_add(batch, set, index, bench_value(set, index, version));
}

void bench_batch_del(struct bench_batch *batch, const struct bench_set *set, uint64_t index)
{
	data_add(batch, set, index, NULL);
}

int bench_open(struct bench *bench, struct bench_lane *lane)
{
	lane->handle = lane->store->open(lane->dir, &bench->set);
	return lane->handle ? 0 : -1;
}

void bench_close(struct bench_lane *lane)
{
	if (lane->handle)
		lane->store->close(lane->handle);
	lane->handle = NULL;
}

static int data_remove(const char *path, const struct stat *stat, int type, struct FTW *ftw)
{
	(void)stat;
	(void)type;
	(void)ftw;
	return remove(path);
}

int bench_discard(struct bench *bench, struct bench_lane *lane)
{
	(void)bench;
	bench_close(lane);
	if (access(lane->dir, F_OK) == 0 && nftw(lane->dir, data_remove, 16, FTW_DEPTH | FTW_PHYS))
		return bench_fail("%s: %s", lane->dir, strerror(errno));
	return mkdir(lane->dir, 0755) ? bench_fail("%s: %s", lane->dir, strerror(errno)) : 0;
}

int bench_load(struct bench *bench, struct bench_lane *lane, const uint32_t *order, uint64_t size)
{
	uint64_t entries = bench->set.entries, done = 0;
	struct bench_batch batch;
	void *writer = NULL;
	char what[64];
	int err;

	if (size > entries)
		size = entries;
	err = bench_batch_init(&batch, &bench->set, size);
	snprintf(what, sizeof(what), "loading %s", lane->name);
	memset(lane->versions, 0, entries);
	if (!err) {
		writer = lane->store->writer(lane->handle);
		err = writer ? 0 : -1;
	}
	while (!err && done < entries) {
		for (batch.count = 0; batch.count < size && done < entries; done++)
			bench_batch_put(&batch, &bench->set, order ? order[done] : done, 0);
		err = bench_stopped();
		if (!err)
			err = lane->store->write(writer, batch.ops, batch.count);
		bench_progress(bench, what, done, entries);
	}
	if (writer)
		lane->store->writer_close(writer);
	bench_batch_fini(&batch);
	return err;
}

int bench_age(struct bench *bench, struct bench_lane *lane, uint64_t updates, uint64_t seed)
{
	struct bench_batch batch;
	void *writer = NULL;
	char what[64];
	int err = bench_batch_init(&batch, &bench->set, DATA_AGE_BATCH);

	snprintf(what, sizeof(what), "aging %s", lane->name);
	if (!err) {
		writer = lane->store->writer(lane->handle);
		err = writer ? 0 : -1;
	}
	lane->version++;
	for (uint64_t done = 0; !err && done < updates;) {
		for (batch.count = 0; batch.count < DATA_AGE_BATCH && done < updates; done++) {
			uint64_t index = bench_random(&seed) % bench->set.entries;

			bench_batch_put(&batch, &bench->set, index, lane->version);
			lane->versions[index] = lane->version;
		}
		err = bench_stopped();
		if (!err)
			err = lane->store->write(writer, batch.ops, batch.count);
		bench_progress(bench, what, done, updates);
	}
	if (writer)
		lane->store->writer_close(writer);
	bench_batch_fini(&batch);
	return err;
}

int bench_verify_value(
	struct bench *bench, struct bench_lane *lane, uint64_t index, const struct bench_slice *value)
{
	const struct bench_set *set = &bench->set;

	if (value->size == set->value_size &&
		memcmp(value->data, bench_value(set, index, lane->versions[index]), value->size) == 0)
		return 0;
	return bench_fail("%s gave back another value of entry %llu than was stored", lane->name,
		(unsigned long long)index);
}

int bench_verify(struct bench *bench, struct bench_lane *lane, uint64_t gets)
{
	uint64_t seed = bench->round_seed + 77;
	void *reader = lane->store->reader(lane->handle);
	uint8_t key[BENCH_KEY_MAX];
	int err = reader ? lane->store->begin(reader, false) : -1;

	for (uint64_t i = 0; !err && i < gets; i++) {
		uint64_t index = bench_random(&seed) % bench->set.entries;
		bool miss = i % 4 == 3;
		struct bench_slice value;
		int found;

		bench_key(&bench->set, index, miss, key);
		found = lane->store->get(reader, key, &value);
		if (found < 0)
			err = -1;
		else if (found != !miss)
			err = bench_fail("%s %s entry %llu", lane->name, found ? "made up an" : "lost",
				(unsigned long long)index);
		else if (found)
			err = bench_verify_value(bench, lane, index, &value);
		if (i + 1 == gets || err)
			lane->store->end(reader);
	}
	if (reader)
		lane->store->reader_close(reader);
	return err;
}

/* Every entry once: a check, and all pages are mapped and cached before the clock runs. */
static int data_walk(struct bench *bench, struct bench_lane *lane)
{
	uint64_t seen = 0, sum = 0, expected = 0;
	void *reader = lane->store->reader(lane->handle);
	int err = reader ? lane->store->begin(reader, false) : -1;

	if (!err) {
		err = lane->store->scan(reader, NULL, false, UINT64_MAX, &seen, &sum);
		lane->store->end(reader);
	}
	if (reader)
		lane->store->reader_close(reader);
	for (uint64_t i = 0; i < bench->set.entries && !err; i++)
		expected += *bench_value(&bench->set, i, lane->versions[i]);
	if (!err && (seen != bench->set.entries || sum != expected))
		err = bench_fail("%s has %llu entries, or others, not the %llu that were stored", lane->name,
			(unsigned long long)seen, (unsigned long long)bench->set.entries);
	return err;
}

static int data_fill(struct bench *bench, struct bench_lane *lane, const uint32_t *order, uint64_t batch)
{
	uint64_t entries = bench->set.entries, gets = entries < DATA_VERIFY_GETS ? entries : DATA_VERIFY_GETS;
	int err = bench_discard(bench, lane);

	if (!err)
		err = bench_open(bench, lane);
	if (!err)
		err = bench_load(bench, lane, order, batch);
	if (!err && bench->options.aged)
		err = bench_age(bench, lane, bench->options.age, bench->options.seed + 1);
	if (!err && lane->store->settle)
		err = lane->store->settle(lane->handle);
	if (!err)
		err = bench_verify(bench, lane, gets);
	return err ? err : data_walk(bench, lane);
}

/* Large batches for many entries: filling is not what is measured here. */
int bench_fill(struct bench *bench)
{
	uint64_t entries = bench->set.entries, batch = entries / 20 > 10000 ? entries / 20 : 10000;
	uint64_t most = DATA_FILL_BYTES / bench->set.value_size + 1;
	uint32_t *order = NULL;
	int err = 0;

	if (!bench->options.fill_sorted) {
		order = bench_order(bench);
		if (!order)
			return -1;
	}
	for (unsigned i = 0; i < bench->lane_count && !err; i++)
		err = data_fill(bench, &bench->lanes[i], order, batch < most ? batch : most);
	free(order);
	return err;
}
