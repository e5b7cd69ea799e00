/*
 * The commit record (what is shipped) and the meta slot around it (what is local to a file), with their bytes.
 *
 * A slot is LAYOUT_META_SIZE bytes at 0 (A) or LAYOUT_META_B_OFFSET (B).  Its envelope says how it was written (mode), what
 * must verify before it may be believed (manifest), which root the other slot holds, and whose file this is.
 */
#ifndef META_H
#define META_H

#include "freelog.h"
#include "tree.h"
#include <btree_store/ship.h>

#define META_MAGIC "BTSTORE\n"
#define META_FORMAT 1u                       /* of slot and record; no other is read (FORMAT.md) */
#define META_MANIFEST_MAX 128u               /* runs */
#define META_MANIFEST_BYTES (2u << 20)       /* a larger commit is made in two-flush mode (I3) */
#define META_JUMP ((UINT64_C(1) << 20) + 1)  /* J of I4 */
#define META_EPOCH_JUMP (UINT64_C(1) << 31)
#define META_RECENT_MAX 40u
#define META_SEGMENTS_INLINE 8u

enum meta_mode { META_ONE_FLUSH = 1, META_TWO_FLUSH = 2, META_SEAL = 3 };
enum meta_role { META_PRIMARY = 1, META_FOLLOWER = 2, META_FENCED = 3 };

/* Bits of the envelope that must be understood (FORMAT.md). */
#define META_BIT_FENCED UINT64_C(1)  /* role 3 */
#define META_BIT_PROMISE UINT64_C(2) /* option 0x8001 */
#define META_BIT_LOG (UINT64_C(1) << 2) /* the pending records are a log */
#define META_BITS_KNOWN (META_BIT_FENCED | META_BIT_PROMISE | META_BIT_LOG)
#define META_PROMISE_BYTES 16u /* of the option of a promise, which any slot may have */

struct history_entry { /* one published txid and its chain */
	bts_txid txid;
	uint8_t chain[16];
};

/* An unclean open, promotion or restore: transaction numbers (last, first) were never committed (R3). */
struct history_segment {
	uint32_t epoch;
	uint64_t epoch_random;
	bts_txid last;       /* before */
	uint8_t chain[16];   /* at last */
	bts_txid first;      /* after */
};

struct commit_record {
	uint8_t database[16];
	uint32_t epoch;
	uint64_t epoch_random;
	bts_txid txid;        /* published txid: of the batch's last transaction */
	uint8_t chain[16];
	uint64_t time_ms;     /* CLOCK_REALTIME at commit */
	uint32_t page_size;
	uint32_t next_tree;   /* id for the next bucket */
	bts_pgno first, high_water;
	uint64_t features;    /* must-understand bits; none is defined */
	struct tree catalog;  /* id LAYOUT_TREE_CATALOG */
	struct tree history;  /* id LAYOUT_TREE_HISTORY */
	struct tree snapshots; /* id LAYOUT_TREE_SNAPSHOTS */
	uint64_t buckets;
	uint32_t recent_count;
	uint32_t segment_count;
	/*
	 * The arrays come last, each used up to its count: a reader needs nothing from here on, an heir of a reader's slot the
	 * free log alone (META_READER_BYTES).
	 */
	struct freelog free; /* its inline entries last */
	struct history_entry recent[META_RECENT_MAX]; /* newest positions, oldest first; the last one is this commit's */
	struct history_segment segments[META_SEGMENTS_INLINE]; /* not yet in the history tree */
};
/* Bytes of the struct that matter to a reader: up to the used part of the free log. */
#define META_READER_BYTES(record) \
	(offsetof(struct commit_record, free.inline_entries) + (record)->free.inline_count * sizeof(uint64_t))
/* The same without the positions and segments, of which it then has none. */
void meta_record_copy_reader(struct commit_record *to, const struct commit_record *from);

struct meta_run { /* a manifest entry: content crc over count pages */
	bts_pgno pgno;
	uint32_t count; /* 1 .. 65535 */
	uint32_t crc;
};

struct meta_slot {
	uint64_t sequence;       /* +1 at every slot write (except I6's rewriting) */
	enum meta_mode mode;
	enum meta_role role;
	bts_txid durable;        /* D: the txid in the other slot; the fallback must be exactly this one (I3) */
	uint64_t durable_sequence; /* and its slot sequence */
	uint8_t node[16];
	uint64_t inode, birth_ns; /* identity of the file written, for noticing copies (R3) */
	uint64_t pending_salt;   /* follower: .pending records that belong to this commit (R5) */
	uint32_t pending_count;  /* 0: none needed */
	bool pending_log;        /* they are of several frames (version 2 of path.pending) */
	uint32_t promised;       /* R8: the epoch that was promised; written down while it is above the record's */
	uint64_t promised_random;
	uint32_t manifest_count;
	struct meta_run manifest[META_MANIFEST_MAX];
	struct bts_partial first; /* follower without a commit: how far its first transfer has come; position.txid 0: no further than that */
	struct commit_record record;
};

/* Exact bytes; *size <= BTS_RECORD_MAX.  The record inside a slot has the same form. */
size_t meta_record_encode(const struct commit_record *, uint8_t bytes[BTS_RECORD_MAX]);
/* Hostile bytes: every count, bound and relation is checked.  BTS_CORRUPT or BTS_VERSION with a text. */
enum bts_err meta_record_decode(const void *bytes, size_t size, struct commit_record *, struct bts_error *);

void meta_slot_encode(const struct meta_slot *, uint8_t bytes[LAYOUT_META_SIZE]);
/* BTS_CORRUPT: crc or content; BTS_VERSION: another format, foreign byte order or unknown must-understand bit;
 * BTS_INVALID: no magic at all (not a database). */
enum bts_err meta_slot_decode(const uint8_t bytes[LAYOUT_META_SIZE], struct meta_slot *, struct bts_error *);

/* Magic and crc are right: somebody wrote all of it, whether or not decoding it works. */
bool meta_slot_intact(const uint8_t bytes[LAYOUT_META_SIZE]);

/* A tree as it stands in the record and wherever else one is written down. */
#define META_TREE_SIZE 48u
void meta_put_tree(uint8_t bytes[META_TREE_SIZE], const struct tree *);
void meta_get_tree(const uint8_t bytes[META_TREE_SIZE], struct tree *);

/* The envelope's must-understand bits, as the slot's contents have it. */
uint64_t meta_slot_bits(const struct meta_slot *);
/* Options of a slot (meta_options.c): put to `at`, how many bytes; and taken from there, hostile bytes. */
size_t meta_options_put(const struct meta_slot *, uint8_t *at);
enum bts_err meta_options_get(
	const uint8_t *at, size_t size, struct meta_slot *, const char *where, struct bts_error *);
/* Options of which none is known: those that must be understood are refused, the others skipped. */
enum bts_err meta_options_check(const uint8_t *at, size_t size, const char *where, struct bts_error *);
/*
 * Options (FORMAT.md) in the room of a record in a tree, hostile bytes.  NULL: sound, and nothing in them that must be understood;
 * else what is wrong.
 */
const char *meta_room_check(const uint8_t *bytes, size_t size);

/* Digest of the root pointers and identity: equal digests, equal databases. */
void meta_root_digest(const struct commit_record *, uint8_t digest[16]);
void meta_position(const struct commit_record *, struct bts_position *);

#endif
