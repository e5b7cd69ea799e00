/*
 * The lock file, path-lock: what the processes on one data file share while they run.
 *
 * Liveness is by open-file-description locks, which the kernel drops when a process dies and which work across
 * pid namespaces: a shared lock on the data file for being there, one byte of the lock file for the writer, one
 * byte for each process's reader slots.  Contents are a fixed struct in a shared mapping, meaningful only while a process
 * lives; the first opener (who gets the exclusive lock on the data file) initialises it anew for this inode (M1).
 */
#ifndef SHARED_H
#define SHARED_H

#include "meta.h"

#define SHARED_READERS_MAX 4096u

struct shared; /* owned by one struct bts */

/* A read snapshot held by a transaction. */
struct shared_reader {
	uint32_t slot;
	bts_txid txid;
};

/*
 * Join: takes the data file's lock and maps path-lock.  *alone: this process holds the data file exclusively and the lock file is
 * initialised but nothing is published: recover, shared_publish, then shared_settle.  Otherwise the lock is shared and a head
 * is published.  may_write 0: the files are opened read-only where possible.  Blocks while another opener recovers.
 */
enum bts_err shared_open(struct bts_env *, const char *path, struct bts_file *data, struct shared **shared, bool *alone,
	struct bts_error *);
enum bts_err shared_settle(struct shared *, struct bts_error *); /* downgrade to shared */
/*
 * On the way out: true when no other process is there (the exclusive lock is then held until shared_close); else this one is
 * there no longer, and only shared_close may follow.
 */
bool shared_last(struct shared *);
void shared_close(struct shared *); /* NULL is fine */
/* The handle was inherited through fork (M4): its files are closed, its locks are the parent's, nothing but _close may follow. */
bool shared_foreign(const struct shared *);

/* The writing process (M2).  BTS_BUSY when there is another.  Held until shared_close or the process dies. */
enum bts_err shared_writer_enter(struct shared *, struct bts_error *);
void shared_writer_leave(struct shared *);

/* The newest durable commit.  Readers of it never block the publisher: a sequence lock over the record. */
void shared_publish(struct shared *, const struct commit_record *);
void shared_head(struct shared *, struct commit_record *);
bts_txid shared_head_txid(const struct shared *);
/* The slot that holds D, for an heir (M2): index 0 or 1 and its sequence.  Takes effect with the next shared_publish, at once. */
void shared_set_slot(struct shared *, unsigned index, uint64_t sequence);
void shared_slot(const struct shared *, unsigned *index, uint64_t *sequence);
/* The last assigned txid: stored before that txid's first page write (M2). */
void shared_assign(struct shared *, bts_txid);
bts_txid shared_assigned(const struct shared *);
/* An opening commit (I4) is owed before the first page write: set by an opener that recovered an unclean exit. */
void shared_set_unclean(struct shared *, bool unclean, bool fell_back, bts_txid highest);
void shared_unclean(const struct shared *, bool *unclean, bool *fell_back, bts_txid *highest);
void shared_clear_unclean(struct shared *); /* the opening commit was made; clean_open statistics stay as they were */
bool shared_was_clean(const struct shared *);

void shared_poison(struct shared *);
bool shared_poisoned(const struct shared *);

/*
 * Readers (G1): store the txid in a slot, full fence, re-read head, retry when it moved; the slot then holds what an heir needs
 * (the record).  record gets the snapshot.  Waits while the gate is closed.  BTS_LIMIT when all slots are taken.
 * BTS_NEEDS_RECOVERY, BTS_POISONED: the gate is closed and nobody is there who could open it (shared_gate_hold).
 */
enum bts_err shared_reader_enter(struct shared *, struct shared_reader *, struct commit_record *record, struct bts_error *);
/* The same; record gets no positions and segments, which only who ships or commits needs. */
enum bts_err shared_reader_enter_light(struct shared *, struct shared_reader *, struct commit_record *record,
	struct bts_error *);
void shared_reader_leave(struct shared *, struct shared_reader *);
/* Snapshots of live readers of all processes, ascending, each once; slots of dead processes are cleared.  At most cap are
 * written (cap >= SHARED_READERS_MAX gets all); returns how many. */
size_t shared_readers(struct shared *, bts_txid *snapshots, size_t cap, uint32_t *live);
/* The commit record held by reader slots with this snapshot (for an heir): BTS_NOT_FOUND when none is left. */
enum bts_err shared_reader_record(struct shared *, bts_txid snapshot, struct commit_record *);

/* The gate of a follower's install: while closed, shared_reader_enter waits. Opened again if its owner dies. */
void shared_gate_close(struct shared *);
void shared_gate_open(struct shared *);
/*
 * From here on pages of the published root are overwritten: if the owner of the closed gate dies now, the gate stays closed and
 * readers get BTS_NEEDS_RECOVERY, until an heir has finished the work, published and opened the gate.
 */
void shared_gate_hold(struct shared *);
/* +1 at every shared_wake, for those who wait for something else. */
uint32_t shared_wakes(const struct shared *);
/* Wait until a reader left or timeout (for the installer). */
void shared_wait_reader(struct shared *, unsigned timeout_ms);

/* Wait for head > after; BTS_TIMEOUT.  Across processes. */
enum bts_err shared_wait_head(struct shared *, bts_txid after, unsigned timeout_ms, bts_txid *head);
void shared_wake(struct shared *);

/* Acknowledgements of followers (ship.h). */
enum bts_err shared_ack_record(struct shared *, const struct bts_ack *, struct bts_error *);
size_t shared_ack_list(struct shared *, struct bts_ack *, size_t cap);

#endif
