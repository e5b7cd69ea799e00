/*
 * RocksDB under the benchmarks: its defaults, checksums among them, with what its tuning guide advises first
 * for point reads, a Bloom filter of 10 bits a key and a block cache (1 GiB).  No compression, so that bytes
 * compare.  Every write batch is synced.  Reads of one transaction go through a snapshot, a brief one needs
 * none.  The bulk load ingests a file of sorted entries a batch.
 */
#include "bench_store.h"
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ROCKS_CACHE ((size_t)1 << 30)
#define ROCKS_BLOOM_BITS 10
#define ROCKS_POLL_US 10000
#define ROCKS_POLLS 30000

struct rocks {
	rocksdb_t *db;
	rocksdb_options_t *options;
	rocksdb_block_based_table_options_t *table;
	rocksdb_cache_t *cache;
	rocksdb_writeoptions_t *write;
	const struct bench_set *set;
	char dir[4200], file[4300];
};

struct rocks_writer {
	struct rocks *store;
	rocksdb_writebatch_t *batch;
};

struct rocks_reader {
	struct rocks *store;
	rocksdb_readoptions_t *options;
	const rocksdb_snapshot_t *snapshot;
	rocksdb_pinnableslice_t *value;
	rocksdb_iterator_t *iterator;
};

static const char *rocks_version(void)
{
	return ROCKSDB_VERSION;
}

static int rocks_fail(const char *what, char *text)
{
	bench_fail("RocksDB: %s: %s", what, text);
	rocksdb_free(text);
	return -1;
}

static void rocks_close(void *store)
{
	struct rocks *r = store;

	if (r->db)
		rocksdb_close(r->db);
	rocksdb_writeoptions_destroy(r->write);
	rocksdb_options_destroy(r->options);
	rocksdb_block_based_options_destroy(r->table);
	rocksdb_cache_destroy(r->cache);
	free(r);
}

static void *rocks_open(const char *dir, const struct bench_set *set)
{
	struct rocks *r = calloc(1, sizeof(*r));
	char *text = NULL;

	if (!r)
		return NULL;
	r->set = set;
	snprintf(r->dir, sizeof(r->dir), "%s/data", dir);
	snprintf(r->file, sizeof(r->file), "%s/bulk.sst", dir);
	r->options = rocksdb_options_create();
	r->table = rocksdb_block_based_options_create();
	r->cache = rocksdb_cache_create_lru(ROCKS_CACHE);
	r->write = rocksdb_writeoptions_create();
	rocksdb_block_based_options_set_block_cache(r->table, r->cache);
	rocksdb_block_based_options_set_filter_policy(
		r->table, rocksdb_filterpolicy_create_bloom_full(ROCKS_BLOOM_BITS));
	rocksdb_options_set_block_based_table_factory(r->options, r->table);
	rocksdb_options_set_create_if_missing(r->options, 1);
	rocksdb_options_set_compression(r->options, rocksdb_no_compression);
	rocksdb_writeoptions_set_sync(r->write, 1);
	r->db = rocksdb_open(r->options, r->dir, &text);
	if (!text)
		return r;
	rocks_fail("open", text);
	rocks_close(r);
	return NULL;
}

/* Until neither flush nor compaction is due or running, twice in a row: one starts the other. */
static int rocks_quiet(void *store)
{
	static const char *const names[] = {"rocksdb.num-running-compactions", "rocksdb.compaction-pending",
		"rocksdb.num-running-flushes", "rocksdb.mem-table-flush-pending"};
	struct rocks *r = store;
	int quiet = 0;

	for (int poll = 0; poll < ROCKS_POLLS && quiet < 2; poll++) {
		uint64_t busy = 0, number;

		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
			if (!rocksdb_property_int(r->db, names[i], &number))
				busy += number;
		quiet = busy ? 0 : quiet + 1;
		if (bench_stopped())
			return -1;
		if (quiet < 2)
			usleep(ROCKS_POLL_US);
	}
	return quiet < 2 ? bench_fail("RocksDB: compaction does not end") : 0;
}

static int rocks_settle(void *store)
{
	struct rocks *r = store;
	rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
	char *text = NULL;

	rocksdb_flush(r->db, options, &text);
	rocksdb_flushoptions_destroy(options);
	return text ? rocks_fail("flush", text) : rocks_quiet(store);
}

static void *rocks_writer(void *store)
{
	struct rocks_writer *w = calloc(1, sizeof(*w));

	if (!w) {
		bench_fail("no memory");
		return NULL;
	}
	w->store = store;
	w->batch = rocksdb_writebatch_create();
	return w;
}

static void rocks_writer_close(void *writer)
{
	struct rocks_writer *w = writer;

	rocksdb_writebatch_destroy(w->batch);
	free(w);
}

static int rocks_write(void *writer, const struct bench_op *ops, size_t count)
{
	struct rocks_writer *w = writer;
	const struct bench_set *set = w->store->set;
	char *text = NULL;

	rocksdb_writebatch_clear(w->batch);
	for (size_t i = 0; i < count; i++) {
		if (ops[i].value)
			rocksdb_writebatch_put(
				w->batch, ops[i].key, set->key_size, ops[i].value, set->value_size);
		else
			rocksdb_writebatch_delete(w->batch, ops[i].key, set->key_size);
	}
	rocksdb_write(w->store->db, w->store->write, w->batch, &text);
	return text ? rocks_fail("write", text) : 0;
}

static void rocks_bulk_some(
	struct rocks *r, rocksdb_sstfilewriter_t *file, uint64_t from, uint64_t to, char **text)
{
	uint8_t key[BENCH_KEY_MAX];

	rocksdb_sstfilewriter_open(file, r->file, text);
	for (uint64_t i = from; i < to && !*text; i++) {
		bench_key(r->set, i, false, key);
		rocksdb_sstfilewriter_put(file, (const char *)key, r->set->key_size,
			(const char *)bench_value(r->set, i, 0), r->set->value_size, text);
	}
	if (!*text)
		rocksdb_sstfilewriter_finish(file, text);
}

static int rocks_bulk(void *store, uint64_t batch)
{
	struct rocks *r = store;
	uint64_t entries = r->set->entries;
	rocksdb_envoptions_t *env = rocksdb_envoptions_create();
	rocksdb_sstfilewriter_t *file = rocksdb_sstfilewriter_create(env, r->options);
	rocksdb_ingestexternalfileoptions_t *ingest = rocksdb_ingestexternalfileoptions_create();
	const char *const files[] = {r->file};
	char *text = NULL;

	rocksdb_ingestexternalfileoptions_set_move_files(ingest, 1);
	for (uint64_t done = 0, end; done < entries && !text; done = end) {
		end = entries - done < batch ? entries : done + batch;
		rocks_bulk_some(r, file, done, end, &text);
		if (!text)
			rocksdb_ingest_external_file(r->db, files, 1, ingest, &text);
	}
	rocksdb_ingestexternalfileoptions_destroy(ingest);
	rocksdb_sstfilewriter_destroy(file);
	rocksdb_envoptions_destroy(env);
	unlink(r->file);
	return text ? rocks_fail("bulk load", text) : 0;
}

static void *rocks_reader(void *store)
{
	struct rocks_reader *r = calloc(1, sizeof(*r));

	if (!r) {
		bench_fail("no memory");
		return NULL;
	}
	r->store = store;
	r->options = rocksdb_readoptions_create();
	return r;
}

static void rocks_drop_value(struct rocks_reader *r)
{
	if (r->value)
		rocksdb_pinnableslice_destroy(r->value);
	r->value = NULL;
}

static void rocks_end(void *reader)
{
	struct rocks_reader *r = reader;

	rocks_drop_value(r);
	if (r->iterator)
		rocksdb_iter_destroy(r->iterator);
	r->iterator = NULL;
	if (!r->snapshot)
		return;
	rocksdb_readoptions_set_snapshot(r->options, NULL);
	rocksdb_release_snapshot(r->store->db, r->snapshot);
	r->snapshot = NULL;
}

static void rocks_reader_close(void *reader)
{
	struct rocks_reader *r = reader;

	rocks_end(r);
	rocksdb_readoptions_destroy(r->options);
	free(r);
}

static int rocks_begin(void *reader, bool brief)
{
	struct rocks_reader *r = reader;

	if (brief)
		return 0;
	r->snapshot = rocksdb_create_snapshot(r->store->db);
	rocksdb_readoptions_set_snapshot(r->options, r->snapshot);
	return 0;
}

static int rocks_get(void *reader, const void *key, struct bench_slice *value)
{
	struct rocks_reader *r = reader;
	char *text = NULL;

	rocks_drop_value(r);
	r->value = rocksdb_get_pinned(r->store->db, r->options, key, r->store->set->key_size, &text);
	if (text)
		return rocks_fail("get", text);
	if (!r->value)
		return 0;
	value->data = rocksdb_pinnableslice_value(r->value, &value->size);
	return 1;
}

static int rocks_scan(
	void *reader, const void *from, bool back, uint64_t limit, uint64_t *seen, uint64_t *sum)
{
	struct rocks_reader *r = reader;
	uint64_t count = 0, total = 0;
	char *text = NULL;
	size_t size;

	if (!r->iterator)
		r->iterator = rocksdb_create_iterator(r->store->db, r->options);
	if (from)
		rocksdb_iter_seek(r->iterator, from, r->store->set->key_size);
	else if (back)
		rocksdb_iter_seek_to_last(r->iterator);
	else
		rocksdb_iter_seek_to_first(r->iterator);
	while (rocksdb_iter_valid(r->iterator)) {
		total += *(const uint8_t *)rocksdb_iter_value(r->iterator, &size);
		if (++count == limit)
			break;
		if (back)
			rocksdb_iter_prev(r->iterator);
		else
			rocksdb_iter_next(r->iterator);
	}
	*seen = count;
	*sum = total;
	rocksdb_iter_get_error(r->iterator, &text);
	return text ? rocks_fail("scan", text) : 0;
}

const struct bench_store store_rocksdb = {
	.name = "rocksdb",
	.version = rocks_version,
	.open = rocks_open,
	.close = rocks_close,
	.settle = rocks_settle,
	.quiet = rocks_quiet,
	.bulk = rocks_bulk,
	.writer = rocks_writer,
	.writer_close = rocks_writer_close,
	.write = rocks_write,
	.reader = rocks_reader,
	.reader_close = rocks_reader_close,
	.begin = rocks_begin,
	.end = rocks_end,
	.get = rocks_get,
	.scan = rocks_scan,
};
