/* A transaction that does everything, beside its oracle: see test_mixed__model.c. */
#ifndef MODEL_MIXED_H
#define MODEL_MIXED_H

#include "apply_bed.h"
#include "model_txn.h"

#define HANDLES 3
#define WRITERS 4
#define PINS 3
#define NAMES 5 /* of snapshots */
#define EXTRAS 32
#define READS 16
#define STREAMED 90000u
#define STREAMED_MAX (1400u << 10) /* these go to their place before the commit (lease.h) */

enum extra_kind { EXTRA_CREATE, EXTRA_DELETE, EXTRA_STREAM };

struct extra { /* what a transaction did that the model does not know; a rollback cuts the list */
	enum extra_kind kind;
	unsigned which;
	uint64_t serial;
};

struct seen { /* a key that a serializable transaction has read */
	uint64_t identity;
	struct bts_slice bucket, key;
	uint8_t bucket_bytes[BTS_BUCKET_NAME_MAX], key_bytes[BTS_KEY_MAX];
	bts_txid version; /* 0: absent */
};

struct writer {
	struct model_txn t;
	unsigned handle;
	bool serializable, alone;
	unsigned most; /* steps between two looks at it: short ones often pass by each other */
	struct extra extras[EXTRAS];
	bool names[NAMES]; /* at the snapshot */
	struct seen seen[READS];
	unsigned seen_count;
	struct bts_stream *stream;
	uint64_t stream_serial;
	size_t stream_at, stream_size, stream_done;
	bool stream_known;
	struct bts_slice stream_key;
	uint8_t stream_bytes[BTS_KEY_MAX], stream_fill;
};

struct named {
	bool there;
	bts_txid txid, changed; /* of its state; of its newest creation or deletion */
	struct oracle state;
};

struct pinned { /* a reader that stays, of the newest state or of a named one */
	struct bts_txn *txn;
	unsigned handle;
	struct oracle view;
};

struct mixed {
	struct model m;
	struct env_mem *mem;
	uint32_t page_size;
	struct bts *handles[HANDLES], *follower;
	struct writer writers[WRITERS];
	struct named named[NAMES];
	struct pinned pins[PINS];
	bts_txid deleted, moved; /* newest deletion of any name; newest compaction */
	uint64_t serial, loads, streams, snaps, groups, replays, conflicts, faults, ships, moves;
};

static inline struct rng *dice(struct mixed *x)
{
	return &x->m.rng;
}

static inline struct bts_slice mixed_name(unsigned which, char text[8])
{
	return (struct bts_slice){text, (size_t)snprintf(text, 8, "s%u", which)};
}

/* A failing allocation, now and then; the end of that, and whether it was met. */
void mixed_fault_begin(struct mixed *);
bool mixed_fault_end(struct mixed *, enum bts_err);
/* One random operation. */
void mixed_step(struct mixed *, struct writer *);

#endif
