/*
 * The naive oracle of the model tests: a database as sorted arrays, copied whole.
 *
 * Entries are immutable and counted, so that a copy of a state costs one pointer an entry and every open
 * snapshot of the engine can have one.
 */
#ifndef MODEL_ORACLE_H
#define MODEL_ORACLE_H

#include <btree_store.h>
#include <stdbool.h>

struct oracle_entry {
	unsigned refs;
	bts_txid version;
	struct bts_slice key, value; /* into bytes */
	uint8_t bytes[];
};

struct oracle_bucket {
	struct bts_slice name;
	uint8_t name_bytes[BTS_BUCKET_NAME_MAX];
	uint8_t meta[BTS_BUCKET_META_MAX];
	size_t meta_size;
	bts_txid version;
	uint64_t identity; /* never used twice; 0: made by a transaction that has not committed */
	struct bts_slice base; /* the name when the transaction began */
	uint8_t base_bytes[BTS_BUCKET_NAME_MAX];
	struct oracle_entry **entries;
	size_t count, cap;
};

struct oracle {
	bts_txid txid;
	struct oracle_bucket **buckets; /* by name */
	size_t count;
};

int oracle_compare(struct bts_slice a, struct bts_slice b);
void oracle_copy(struct oracle *to, const struct oracle *from); /* to: uninitialised */
void oracle_fini(struct oracle *);

/* NULL: there is none. */
struct oracle_bucket *oracle_bucket(const struct oracle *, struct bts_slice name);
struct oracle_bucket *oracle_bucket_after(const struct oracle *, struct bts_slice name);
struct oracle_bucket *oracle_create(
	struct oracle *, struct bts_slice name, bts_txid version, uint64_t identity);
void oracle_drop(struct oracle *, struct bts_slice name);
void oracle_rename(struct oracle *, struct bts_slice from, struct bts_slice to, bts_txid version); /* to: is free */

/* The first entry with key >= key. */
size_t oracle_at(const struct oracle_bucket *, struct bts_slice key, bool *exact);
const struct oracle_entry *oracle_get(const struct oracle_bucket *, struct bts_slice key); /* NULL: absent */
void oracle_put(struct oracle_bucket *, struct bts_slice key, struct bts_slice value, bts_txid version);
bool oracle_del(struct oracle_bucket *, struct bts_slice key);

struct oracle_entry *oracle_entry_new(struct bts_slice key, struct bts_slice value, bts_txid version);
void oracle_entry_drop(struct oracle_entry *);

/* Compare all that a transaction sees with a state, both ways; fails the test at the first difference. */
void oracle_verify(struct bts_txn *, const struct oracle *);

#endif
