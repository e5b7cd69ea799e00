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
#define SHARED_LAYOUT 1u
#define SHARED_PROCESSES_MAX 1024u /* handles that have the file open at a time */
#define SHARED_ACKS_MAX 64u

/* Byte locks in the lock file.  Their places never change between layouts. */
#define SHARED_BYTE_WRITER 0u
#define SHARED_BYTE_ACKS 1u
#define SHARED_BYTE_CLOSE 2u /* who finds out whether it is the last */
#define SHARED_BYTE_PROCESS 16u /* + process index */

#define SHARED_GATE_HELD (UINT64_C(1) << 63) /* stays closed when its owner dies */

#define SHARED_RECORD_WORDS ((sizeof(struct commit_record) + 7) / 8)

enum shared_state { SHARED_EMPTY, SHARED_RECOVERING, SHARED_READY };

#define SHARED_WAS_UNCLEAN 1u /* the environment began with an unclean exit */
#define SHARED_FELL_BACK 2u
#define SHARED_COMMIT_OWED 4u /* the opening commit (I4) is not made yet */
#define SHARED_POISONED 8u

struct shared_record {
	_Atomic uint64_t words[SHARED_RECORD_WORDS];
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
	_Atomic uint64_t instances; /* handles that ever joined; numbers are not reused */

	/*
	 * The head: heads[head_sequence & 1] is complete, the other one belongs to the publisher.  A
	 * publisher that dies half-way has touched only the one that nobody reads.
	 */
	_Alignas(64) _Atomic uint64_t head_sequence;
	_Atomic uint64_t head_txid[2];
	_Atomic uint64_t slot[2];   /* of meta that holds it: sequence << 1 | index */
	_Atomic uint32_t head_word; /* futex, +1 at every publication and wake */
	_Atomic uint32_t head_waiters;
	_Atomic uint32_t wakes;
	struct shared_record heads[2];

	/* 0: open, else the owner word of who closed it, with SHARED_GATE_HELD. */
	_Alignas(64) _Atomic uint64_t gate;
	_Atomic uint32_t gate_word;  /* futex, +1 when it opens */
	_Atomic uint32_t leave_word; /* futex, +1 when a reader left and somebody waits for that */
	_Atomic uint32_t leave_waiters;
	_Atomic uint32_t slots_used; /* slots from here on were never taken */
	_Atomic uint32_t slots_backed; /* slots that have blocks on the disk */

	/* Reader slots.  owner: instance << 16 | process index + 1, 0 = free.  txid 0: registering. */
	_Alignas(64) _Atomic uint64_t owner[SHARED_READERS_MAX];
	_Atomic uint64_t txid[SHARED_READERS_MAX];

	struct bts_ack acks[SHARED_ACKS_MAX]; /* under SHARED_BYTE_ACKS */
	struct shared_record records[SHARED_READERS_MAX];
};

struct shared {
	struct bts_env *env;
	struct bts_file *data; /* borrowed */
	struct bts_file *lock;
	struct shared_map *map;
	char *path;	/* of the lock file */
	uint32_t index; /* process index */
	uint64_t owner; /* our word in reader slots and gate; 0: not joined */
	bool writer;
	uint64_t slot;	       /* for the next publication; 0: as it is */
	bool exclusive;	       /* on the data file */
	bool foreign;	       /* inherited through fork: the parent's, to be let alone (M4) */
	struct shared *next, **link; /* all handles of this process, for the child of a fork */
	_Atomic uint32_t hint; /* slot that was left last */
	pthread_mutex_t acks;  /* among threads, who share one open file description */
};

#define SHARED_SLOTS_STEP 64u /* slots that get their blocks at a time */
/* Blocks for the slots up to `slots`, and for all that lies before them; an errno. */
int shared_back(struct shared *, uint32_t slots);

/* Is the process behind an owner word alive? */
bool shared_alive(struct shared *, uint64_t owner);
/* Forget what a dead process left in the slots and at the gate under this process index. */
void shared_forget(struct shared *, uint32_t index);

void shared_record_store(struct shared_record *, const struct commit_record *);
void shared_record_load(const struct shared_record *, struct commit_record *);
/* What a reader needs of it alone (META_READER_BYTES): a third of the words. */
void shared_record_store_reader(struct shared_record *, const struct commit_record *);
void shared_record_load_reader(const struct shared_record *, struct commit_record *);

#endif
