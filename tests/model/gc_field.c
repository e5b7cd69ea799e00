/* See gc_field.h. */
#include "gc_field.h"

#define PAGE_SIZE 4096u
#define POSITION_BYTES 46u /* of one position in its leaf */

static struct bts_slice key_of(uint8_t key[GC_KEY_SIZE], uint32_t number)
{
	uint64_t state = number, word = rng_splitmix(&state);

	memcpy(key, &word, 8);
	memset(key + 8, 0, GC_KEY_SIZE - 8);
	memcpy(key + 8, &number, 4);
	return (struct bts_slice){key, GC_KEY_SIZE};
}

static struct bts_slice value_of(uint8_t value[GC_VALUE_SIZE], uint32_t number, uint32_t writes)
{
	uint64_t state = (uint64_t)number << 32 | writes, word = rng_splitmix(&state);

	memset(value, 0, GC_VALUE_SIZE);
	for (size_t at = 0; at + 8 <= GC_VALUE_SIZE; at += 8, word += state)
		memcpy(value + at, &word, 8);
	return (struct bts_slice){value, GC_VALUE_SIZE};
}

static void put(struct gc_field *f, struct bts_txn *txn, uint32_t number)
{
	uint8_t key[GC_KEY_SIZE], value[GC_VALUE_SIZE];

	assert_int_equal(bts_put(txn, bed_find(txn, "b"), key_of(key, number),
				 value_of(value, number, ++f->writes[number]), 0),
		BTS_OK);
}

void gc_init(struct gc_field *f, uint64_t seed)
{
	struct bts_txn *txn;

	memset(f, 0, sizeof(*f));
	rng_init(&f->rng, seed);
	f->writes = calloc(GC_ENTRIES, sizeof(*f->writes));
	assert_non_null(f->writes);
	bed_init_memory(&f->bed);
	txn = bed_begin(&f->bed, BTS_WRITE);
	bed_bucket(txn, "b");
	for (uint32_t i = 0; i < GC_ENTRIES; i++)
		put(f, txn, i);
	bed_commit(&f->bed, txn);
}

void gc_fini(struct gc_field *f)
{
	bed_fini(&f->bed);
	free(f->writes);
}

static void commit_one(struct gc_field *f, struct bed *by)
{
	struct bts_txn *txn = bed_begin(by, BTS_WRITE);

	put(f, txn, (uint32_t)rng_below(&f->rng, GC_ENTRIES));
	bed_commit(by, txn);
}

void gc_commit(struct gc_field *f, struct bed *by, unsigned count)
{
	f->commits += count;
	while (count-- > 0)
		commit_one(f, by);
}

void gc_pin(struct gc_field *f, struct bed *by, struct gc_pin *p)
{
	p->writes = malloc(GC_ENTRIES * sizeof(*p->writes));
	assert_non_null(p->writes);
	memcpy(p->writes, f->writes, GC_ENTRIES * sizeof(*p->writes));
	p->txn = bed_begin(by, BTS_READ);
}

/* Every entry, found by its key, and nothing else. */
static void expect(struct bts_txn *txn, const uint32_t *writes)
{
	struct bts_bucket *bucket = bed_find(txn, "b");
	uint8_t key[GC_KEY_SIZE], value[GC_VALUE_SIZE];
	struct bts_cursor *cursor;
	struct bts_slice found;
	uint32_t entries = 0;

	for (uint32_t i = 0; i < GC_ENTRIES; i++) {
		assert_int_equal(bts_get(txn, bucket, key_of(key, i), &found), BTS_OK);
		assert_int_equal(found.size, GC_VALUE_SIZE);
		value_of(value, i, writes[i]);
		assert_memory_equal(found.data, value, GC_VALUE_SIZE);
	}
	assert_int_equal(bts_cursor_open(txn, bucket, &cursor, NULL), BTS_OK);
	while (bts_cursor_next(cursor, &found, NULL) == BTS_OK)
		entries++;
	assert_int_equal(entries, GC_ENTRIES);
	bts_cursor_close(cursor);
}

void gc_unpin(struct gc_pin *p)
{
	expect(p->txn, p->writes);
	bts_abort(p->txn);
	free(p->writes);
	p->txn = NULL;
}

void gc_verify(struct gc_field *f, struct bed *by)
{
	struct bts_txn *txn = bed_begin(by, BTS_READ);

	expect(txn, f->writes);
	bts_abort(txn);
}

uint64_t gc_used(struct bed *by)
{
	struct bts_stat stat = bed_stat(by);

	return stat.pages - stat.first_page - stat.free_pages;
}

void gc_print(const char *what, unsigned commits, const struct bts_stat *before, const struct bts_stat *after)
{
	printf("%s: %u commits, %llu pages, then %llu (%.3f times); %llu bytes, then %llu (%.3f times)\n",
		what, commits, (unsigned long long)before->pages, (unsigned long long)after->pages,
		(double)after->pages / (double)before->pages, (unsigned long long)before->file_bytes,
		(unsigned long long)after->file_bytes,
		(double)after->file_bytes / (double)before->file_bytes);
}

/*
 * Its position in the history, until there are 2^20 and the oldest are thinned; and the free log, which grows
 * and is condensed again, with what the newest commits took and freed.
 */
uint64_t gc_kept(unsigned commits)
{
	return commits * (uint64_t)POSITION_BYTES / PAGE_SIZE + 128;
}
