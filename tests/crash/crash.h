/*
 * Crash states of the commit protocol: a random script runs on an environment in memory; whenever it is about
 * to write, flush, cut, link or unlink, the power goes in every way that the fault model allows (or a fair
 * choice of the ways, when there are too many), and what is left is opened and judged.
 *
 * What must hold of every image: it opens; its contents are those of the last acknowledged commit or of the
 * one in flight, compared whole; bts_check finds nothing; the next write and the next opening work; and all
 * of this again when the power goes a second time while the first loss is being recovered from.
 */
#ifndef CRASH_H
#define CRASH_H

#include <btree_store.h>
#include <env_mem.h>
#include <rng.h>
#include <stdbool.h>
#include <string.h>

#define CRASH_PATH "/db"
#define CRASH_BUCKETS 4u
#define CRASH_KEYS 48u
#define CRASH_SNAPSHOTS 3u
#define CRASH_STATES 3u
#define CRASH_DEPTH_MAX 2u

/* What a value was made of; present: the key exists. */
struct crash_value {
	uint32_t size;
	uint32_t seed;
	uint64_t hash;
	bool present;
};

/* The oracle: contents of a database, kept without any tree. */
struct crash_oracle {
	bool bucket[CRASH_BUCKETS];
	struct crash_value values[CRASH_BUCKETS][CRASH_KEYS];
	/* Named snapshots: the contents when their batch was committed; fresh: those of this very state. */
	struct {
		bool present, fresh;
		uint64_t contents;
	} snapshots[CRASH_SNAPSHOTS];
	uint64_t probes; /* digest of the entries of the bucket "~probe" */
};

void crash_oracle_put(struct crash_oracle *, unsigned bucket, unsigned key, uint32_t size, uint32_t seed);
void crash_oracle_drop(struct crash_oracle *, unsigned bucket);
void crash_oracle_rename(struct crash_oracle *, unsigned from, unsigned to);
/* Order-free digest of all contents; with those of named snapshots. */
uint64_t crash_oracle_contents(const struct crash_oracle *);
uint64_t crash_oracle_digest(const struct crash_oracle *);
void crash_oracle_committed(struct crash_oracle *); /* fresh snapshots are of the past from here on */
struct bts_slice crash_snapshot_name(unsigned snapshot);
struct bts_slice crash_bucket_name(unsigned bucket);
struct bts_slice crash_key(unsigned key, char text[64]); /* ascending with key */
/* data: room for size bytes. */
void crash_value_fill(uint8_t *data, uint32_t size, uint32_t seed);
/* The same digest of what a database holds; order of keys is checked on the way.  NULL or what is wrong. */
const char *crash_digest(struct bts_txn *txn, uint64_t *digest);
/* With the named snapshots that txn sees, which must still be there. */
const char *crash_digest_all(struct bts *db, struct bts_txn *txn, uint64_t *digest);
/* What an entry of the bucket "~probe" adds to a digest; the bucket itself adds nothing. */
uint64_t crash_probe_digest(uint32_t number);
enum bts_err crash_probe_put(struct bts *db, uint32_t number, bts_txid *txid, struct bts_error *error);
/* flags: of bts_begin besides BTS_WRITE. */
enum bts_err crash_probe_commit(
	struct bts *db, unsigned flags, uint32_t number, bts_txid *txid, struct bts_error *error);

/* What may be found at this moment. */
struct crash_watch {
	struct crash *crash;
	uint64_t states[CRASH_STATES]; /* digests; [0] acknowledged (or seen), then those in flight */
	unsigned count;
	bts_txid in_flight; /* the highest number given to a commit that was not acknowledged; 0 none */
	bool exists;	    /* the file was there once, so it must be */
	unsigned depth;	    /* 0: the script itself; 1: inside the recovery of an image, ... */
	unsigned effort;    /* images a moment, about */
	/* For findings: what was about to happen when the power went, here and in the watch this one came
	 * from. */
	const struct crash_watch *above;
	enum env_mem_op op;
	uint64_t offset;
};

struct crash_counts {
	uint64_t moments, images, distinct, second, kills, commits, refused, cuts;
	uint64_t deaths, batches, overtaken; /* of many handles: crash_many.c */
};

struct crash {
	struct rng rng;
	uint64_t *seen;	 /* hash set: images judged already */
	uint64_t *known; /* hash set: (image, expectation) judged already */
	size_t seen_cap;
	struct crash_counts counts;
	uint64_t bad;
	char first[512]; /* the first finding */
	uint64_t seed;
	bool stop;	 /* at the first finding */
	unsigned sparse; /* make images of one moment in so many only; 0: of every one */
};

void crash_init(struct crash *);
void crash_fini(struct crash *);
void crash_report(struct crash *, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with the moments that led there. */
void crash_report_at(const struct crash_watch *, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Options of every opening: small map, this environment. */
struct bts_options crash_options(struct env_mem *mem, unsigned flags);

/* The hook for env_mem_set_hook; arg: struct crash_watch. */
env_mem_hook_fn crash_hook;
/* Open, compare, check, write, reopen.  found (may be NULL): the digest it opened with. */
void crash_judge(struct crash_watch *, struct env_mem *image);
/* Judge images of mem as it is now. */
void crash_images(struct crash_watch *, struct env_mem *mem);

enum crash_kind {
	CRASH_DENSE, /* few commits, many images of each moment */
	CRASH_BIG,   /* with commits too large for a manifest */
	CRASH_LONG,  /* many commits, so that free log and history leave the commit record; few images */
	CRASH_MANY,  /* several handles in turns, which die one by one */
	CRASH_KINDS
};
/* One random script. */
void crash_script(struct crash *, uint64_t seed, unsigned steps, enum crash_kind);

#endif
