/*
 * Contents of the lock file.  Fixed size, sparse: the slots of readers that never were cost nothing.  What is about to be
 * touched for the first time is given its blocks before: on a full disk a store into a hole would kill the process.
 *
 * Only C11 atomics, no mutexes: a process may die at any instruction without leaving anything held.  What
 * needs an owner is a byte lock of the open file description, which the kernel drops.  Everything that can be
 * read while it is written is made of atomic words.
 */
#ifndef SHARED_MAP_H
#define SHARED_MAP_H

#include "shared.h"
#include <pthread.h>
#include <stdatomic.h>

#define SHARED_MAGIC UINT64_C(0x6b636f6c2d737462) /* "bts-lock" */
#define SHARED_LAYOUT 7u
#define SHARED_PROCESSES_MAX 1024u /* handles that have the file open at a time */
#define SHARED_ACKS_MAX 64u

/* Byte locks in the lock file.  Their places never change between layouts. */
#define SHARED_BYTE_WRITER 0u
#define SHARED_BYTE_ACKS 1u
#define SHARED_BYTE_CLOSE 2u /* who finds out whether it is the last */
#define SHARED_BYTE_LOCK 3u  /* + enum shared_lock */
#define SHARED_BYTE_PROCESS 16u /* + process index */

#define SHARED_RECORD_WORDS ((sizeof(struct commit_record) + 7) / 8)
#define SHARED_READER_WORDS (offsetof(struct commit_record, recent) / 8)

enum shared_state { SHARED_EMPTY, SHARED_RECOVERING, SHARED_READY };

#define SHARED_WAS_UNCLEAN 1u /* the environment began with an unclean exit */
#define SHARED_FELL_BACK 2u
#define SHARED_COMMIT_OWED 4u /* the opening commit (I4) is not made yet */
#define SHARED_POISONED 8u

struct shared_record {
	_Atomic uint64_t words[SHARED_RECORD_WORDS];
};

/* A commit record that is published by one store: shared_tip.c. */
struct shared_cell {
	_Alignas(64) _Atomic uint64_t sequence; /* + 1 at each publication; records[sequence & 1] is complete */
	_Atomic uint64_t txid[2];
	_Atomic uint64_t slot[2]; /* of D: the meta slot that holds it, sequence << 1 | index */
	_Atomic uint64_t ring[2]; /* of D and the tip: how far the ring goes */
	_Atomic uint64_t pending_salt[2], pending_count[2]; /* records of path.pending that it needs */
	struct shared_record records[2];
};

/* Beside the byte lock: who holds it.  owner stays behind when the holder dies, and so tells the next one. */
struct shared_lock_word {
	_Alignas(64) _Atomic uint64_t owner;
	_Atomic uint64_t since_ms; /* clock_ms at which it was taken */
	_Atomic uint32_t pid;
	_Atomic uint32_t word; /* futex, +1 when it is released and somebody waits */
	_Atomic uint32_t waiters;
};

struct shared_ring_entry {
	_Atomic uint64_t words[4];
};

struct shared_lease_word {
	_Atomic uint64_t owner; /* as of a reader's slot, or what shared_leases.c says; 0: free */
	_Atomic uint64_t pgno, count;
};

/* Of a slot's owner word: being made free by that process, whoever had it. */
#define SHARED_REAPING (UINT64_C(1) << 63)
/* Of a slot's txid: the owner keeps it for its next reader (shared_parked.c). */
#define SHARED_PARKED (UINT64_C(1) << 63)

/* One reader's slot, on a cache line of its own: threads that begin and end all the time do not share one. */
struct shared_slot {
	_Alignas(64) _Atomic uint64_t owner; /* instance << 16 | process index + 1, 0 = free */
	_Atomic uint64_t txid;	    /* snapshot + 1; 0: registering, or free; SHARED_PARKED | use: nobody reads */
	_Atomic uint64_t use;	    /* +1 at every registration: tells one reader from the next */
	_Atomic uint64_t since_ms;  /* when the snapshot was taken; UINT64_MAX: just now */
	_Atomic uint64_t expired;   /* the use that shall end: its owner looks at every operation */
	_Atomic uint64_t told_ms;   /* when a process last said that this reader holds too much */
	_Atomic uint64_t settled;   /* the use whose snapshot was still the newest when it was looked at again (G1) */
};

/*
 * Bytes of the data file: shared on the first = there, exclusive = alone.  Who only reads and has no lock file to register in
 * holds the second shared; who may write holds the third shared; each takes its own before it looks for the other.
 */
#define SHARED_DATA_BYTE 0u
#define SHARED_DATA_PRIVATE 1u
#define SHARED_DATA_WRITER 2u

#define SHARED_PRIVATE_SLOTS 1024u
#define SHARED_SLOTS_STEP 64u /* slots that get their blocks at a time */

/* Slots that get their blocks together, and what each reader needs of its record (META_READER_BYTES at most). */
struct shared_chunk {
	struct shared_slot slots[SHARED_SLOTS_STEP];
	_Atomic uint64_t records[SHARED_SLOTS_STEP][SHARED_READER_WORDS];
};

/* An acknowledgement, and whose session was there before the present one. */
struct shared_ack {
	struct bts_ack ack;
	uint64_t session_before;
};

struct shared_map {
	uint64_t magic;
	uint32_t layout;
	uint32_t size; /* of this struct: also tells builds with another commit record apart */
	uint64_t device, inode, birth_ns; /* of the data file */
	_Atomic uint32_t state;
	_Atomic uint32_t flags;
	_Atomic uint64_t highest;
	_Atomic uint64_t assigned;
	_Atomic uint64_t lost; /* the last number that a builder who died may have given to pages */
	_Atomic uint64_t instances; /* handles that ever joined; numbers are not reused */
	_Atomic uint32_t role;	    /* enum meta_role, as the newest slot says, or what it is about to become (role.c) */
	_Atomic uint32_t fences;    /* how often it stopped being a primary's */
	_Atomic uint32_t promised;  /* the epoch, as in the newest slot */
	_Atomic uint64_t promised_random;
	_Atomic uint64_t deadline;	/* shared_deadline.c */
	_Atomic uint32_t deadline_terms;

	struct shared_cell head, durable, tip;
	_Alignas(64) _Atomic uint32_t head_word; /* futex, +1 at every publication and wake */
	_Atomic uint32_t head_waiters;
	_Atomic uint32_t wakes;
	struct shared_lock_word locks[SHARED_LOCKS];
	struct shared_ring_entry ring[SHARED_RING_ENTRIES];
	_Atomic uint32_t leases_used;
	struct shared_lease_word leases[SHARED_LEASES];

	_Alignas(64) _Atomic uint32_t leave_word; /* futex, +1 when a reader left and somebody waits for that */
	_Atomic uint32_t leave_waiters;
	_Atomic uint32_t slots_used; /* slots from here on were never taken */
	_Atomic uint32_t slots_backed; /* slots that have blocks on the disk */

	_Atomic uint32_t pids[SHARED_PROCESSES_MAX]; /* by process index, as each process sees itself */
	_Atomic uint32_t ack_word; /* futex, +1 at every acknowledgement and wake */
	_Atomic uint32_t ack_waiters;
	struct shared_ack acks[SHARED_ACKS_MAX]; /* under SHARED_BYTE_ACKS */
	struct bts_upstream upstream;		 /* likewise */
	struct shared_chunk chunks[SHARED_READERS_MAX / SHARED_SLOTS_STEP]; /* last: backed as readers come */
};

struct shared {
	struct bts_env *env;
	struct bts_file *data; /* borrowed */
	struct bts_file *lock;
	struct shared_map *map;
	char *path;	/* of the lock file */
	uint32_t index; /* process index */
	uint64_t owner; /* our word in reader slots; 0: not joined */
	bool writer;
	uint64_t slot;	       /* for the next publication; 0: as it is */
	uint64_t pending_salt, pending_count; /* for the publications of this handle */
	bool exclusive;	       /* on the data file */
	bool alone;            /* map is this handle's memory, shared with nobody (shared_open_private) */
	bool foreign;	       /* inherited through fork: the parent's, to be let alone (M4) */
	struct shared *next, **link; /* all handles of this process, for the child of a fork */
	_Atomic uint32_t hint; /* slot to try first */
	pthread_mutex_t acks;  /* among threads, who share one open file description */
};

static inline struct shared_slot *shared_slot_at(struct shared *s, uint32_t slot)
{
	return &s->map->chunks[slot / SHARED_SLOTS_STEP].slots[slot % SHARED_SLOTS_STEP];
}

/* Nobody reads in the slot: snapshot out, and whoever waits for readers is told. */
void shared_slot_clear(struct shared *, struct shared_slot *);
/* Register in a slot that is the reader's: its slot and use are given, the rest is filled in. */
void shared_register(struct shared *, struct shared_reader *, const struct shared_cell *, bool light, struct commit_record *);
/* A slot that another reader of any process has parked becomes ours, without a use yet; false: there is none. */
bool shared_steal(struct shared *, uint32_t *index);

void shared_wake_acks(struct shared *);

/* Blocks for the slots up to `slots`, and for all that lies before them; an errno. */
int shared_back(struct shared *, uint32_t slots);

/* Is the process behind an owner word alive? */
bool shared_alive(struct shared *, uint64_t owner);
/* Forget what a dead process left in the slots under this process index. */
void shared_forget(struct shared *, uint32_t index);

/* NULL: not wanted. */
void shared_cell_load(const struct shared_cell *, struct commit_record *, uint64_t *slot, uint64_t *ring);

void shared_record_store(struct shared_record *, const struct commit_record *);
void shared_record_load(const struct shared_record *, struct commit_record *);
/* What a reader needs of it alone (META_READER_BYTES, SHARED_READER_WORDS at most): a third of the words. */
void shared_record_store_reader(_Atomic uint64_t *words, const struct commit_record *);
void shared_record_load_reader(const _Atomic uint64_t *words, struct commit_record *);

#endif
