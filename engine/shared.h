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
#include <stdatomic.h>

#define SHARED_READERS_MAX 16384u /* a multiple of SHARED_SLOTS_STEP */

struct shared; /* owned by one struct bts */

/* A read snapshot held by a transaction. */
struct shared_reader {
	uint32_t slot;
	bts_txid txid;
	uint64_t use;			 /* of the slot */
	const _Atomic uint64_t *expired; /* the slot's, in shared memory */
	/* For who parks it; threads that want it look at these before it is theirs. */
	_Atomic uint64_t parked;   /* what the slot says while it is parked; 0: it is not */
	_Atomic uint64_t sequence; /* of the publication that the snapshot was taken from; 0: it does not count any more */
	_Atomic uint64_t snapshot; /* txid + 1 */
	/* A follower's: the pages that are not home (redirect.h), of the same publication. */
	const _Atomic uint64_t *published; /* whose sequence it was taken from */
	uint64_t pending_salt;
	uint32_t pending_count; /* 0: all pages are home */
};

/*
 * Join: takes the data file's lock and maps path-lock.  *alone: this process holds the data file exclusively and the lock file is
 * initialised but nothing is published: recover, shared_publish, then shared_settle.  Otherwise the lock is shared and a head
 * is published.  may_write 0: the files are opened read-only where possible.  Blocks while another opener recovers.
 */
enum bts_err shared_open(struct bts_env *, const char *path, struct bts_file *data, struct shared **shared, bool *alone,
	struct bts_error *);
/*
 * For reading where the lock file can not be written (M3): nothing is shared but the presence on the data file, and no writer may be
 * there or come (BTS_BUSY).  As after *alone.
 */
enum bts_err shared_open_private(struct bts_env *, const char *path, struct bts_file *data, struct shared **shared,
	struct bts_error *);
/* Without opening: nobody has the file open (else BTS_BUSY), and nobody gets it open before _give or until data is closed. */
enum bts_err shared_take(struct bts_env *, const char *path, struct bts_file *data, struct bts_error *);
void shared_give(struct bts_env *, struct bts_file *data);
/* This handle may write: not beside readers of that kind (BTS_BUSY). */
enum bts_err shared_announce_writer(struct shared *, struct bts_error *);
enum bts_err shared_settle(struct shared *, struct bts_error *); /* downgrade to shared */
/*
 * On the way out: true when no other process is there (the exclusive lock is then held until shared_close); else this one is
 * there no longer, and only shared_close may follow.
 */
bool shared_last(struct shared *);
/* No other process, nor handle, is there at this moment; one may come at any time. */
bool shared_without_others(struct shared *);
void shared_close(struct shared *); /* NULL is fine */
/* The handle was inherited through fork (M4): its files are closed, its locks are the parent's, nothing but _close may follow. */
bool shared_foreign(const struct shared *);

/* The writing process (M2).  BTS_BUSY when there is another.  Held until shared_close or the process dies. */
enum bts_err shared_writer_enter(struct shared *, struct bts_error *);
void shared_writer_leave(struct shared *);

/*
 * The newest commits (shared_tip.c): head, what readers see; D, what is durable; tip, what is built.  Reading never blocks the
 * publisher.  shared_publish makes one record all three (a follower; an opener that is alone).
 */
struct shared_durable {
	unsigned index;    /* of the slot that holds D: 0 A, 1 B */
	uint64_t sequence; /* of that slot */
	uint64_t ring;     /* the ring's end when D was built */
};
void shared_publish(struct shared *, const struct commit_record *);
void shared_publish_head(struct shared *, const struct commit_record *); /* publish lock held */
/* And the head, when that is older.  Publish lock held. */
void shared_publish_durable(struct shared *, const struct commit_record *, const struct shared_durable *);
void shared_publish_tip(struct shared *, const struct commit_record *, uint64_t ring); /* build lock held */
void shared_tip(struct shared *, struct commit_record *, uint64_t *ring);
void shared_durable(struct shared *, struct commit_record *, struct shared_durable *); /* record may be NULL */
bts_txid shared_tip_txid(const struct shared *);
bts_txid shared_durable_txid(const struct shared *);

/*
 * The ring: what each built batch took from the free space and retired, for the allocators of the other processes.  Positions
 * only grow; an entry is valid when it lies at most SHARED_RING_REACH before the tip's end, since a builder that dies may have
 * written that far beyond it.  Build lock held; without it what was read counts only if it is valid by the tip's end afterwards.
 */
#define SHARED_RING_ENTRIES 16384u
#define SHARED_RING_REACH (SHARED_RING_ENTRIES / 2)
#define SHARED_RING_UNKNOWN UINT64_MAX /* of D, when an heir found it in a slot */
enum shared_change_kind {
	SHARED_TAKE = 1,
	SHARED_RETIRE,
	SHARED_LOWER, /* the mark falls to pgno, before the batch takes anything */
	SHARED_LEASE, /* taken for a transaction in progress (lease.h) */
	SHARED_GIVE, /* live pages are ready again; above the mark: which rises behind them */
	SHARED_UNFLUSHED /* this batch has pages that no manifest names */
};
struct shared_change {
	enum shared_change_kind kind;
	bts_pgno pgno;
	uint64_t count;
	bts_txid birth, freed; /* of SHARED_RETIRE */
};
void shared_ring_put(struct shared *, uint64_t at, const struct shared_change *);
void shared_ring_get(const struct shared *, uint64_t at, struct shared_change *);

/*
 * Leases (lease.h): runs of pages that transactions in progress write.  In every allocator they are live, in the tip they are
 * free.  Build lock held, but for _leave and _forget.
 */
#define SHARED_LEASES 256u
enum shared_lease_state {
	SHARED_LEASE_NONE,
	SHARED_LEASE_HELD,
	SHARED_LEASE_LEFT, /* to be given back by the next builder */
	SHARED_LEASE_DEAD  /* its owner died: what the tip says is right */
};
uint32_t shared_leases(const struct shared *); /* entries in use; may be too many after a death */
bool shared_lease_take(struct shared *, bts_pgno, uint64_t count, uint32_t *index); /* false: the table is full */
enum shared_lease_state shared_lease_get(const struct shared *, uint32_t index, bts_pgno *pgno, uint64_t *count);
void shared_lease_clear(struct shared *, uint32_t index);
void shared_lease_leave(struct shared *, uint32_t index); /* one's own */
/* A builder died: what was left may or may not have been given back. */
void shared_leases_doubt(struct shared *);
/* Another process has this index now. */
void shared_leases_forget(struct shared *, uint32_t index);
/* Marks those of dead owners dead; true when there are any.  The allocators then have to be built anew. */
bool shared_leases_bury(struct shared *);

/*
 * Locks between processes: byte locks, which the kernel drops when their holder dies.  In this order.  Threads of one handle
 * exclude each other before (struct bts has a mutex for each).
 */
enum shared_lock {
	SHARED_LOCK_BUILD,   /* forming the next batch: allocator, tip, ring */
	SHARED_LOCK_FLUSH,   /* writing a slot, flushing, D */
	SHARED_LOCK_PUBLISH, /* head and D: a moment */
	SHARED_LOCKS
};
/*
 * Waits timeout_ms (0: for ever) for a holder that lives, however long it is stopped: then BTS_BUSY, naming it.  *orphaned: the
 * last holder died holding it; shared_lock_settled says that what it may have left is in order.
 */
enum bts_err shared_lock(struct shared *, enum shared_lock, unsigned timeout_ms, bool *orphaned, struct bts_error *);
/* The same, and BTS_NOT_FOUND, without the lock, as soon as D has reached `done`: somebody else did what it was wanted for. */
enum bts_err shared_lock_until(struct shared *, enum shared_lock, unsigned timeout_ms, bts_txid done, bool *orphaned,
	struct bts_error *);
void shared_lock_settled(struct shared *, enum shared_lock);
void shared_unlock(struct shared *, enum shared_lock);
/* Who holds it and since when by clock_ms; false: nobody. */
bool shared_lock_owner(struct shared *, enum shared_lock, uint32_t *pid, uint64_t *since_ms);
bool shared_lock_orphaned(struct shared *, enum shared_lock);
/*
 * A builder died: numbers up to the last assigned may stand in pages.  Until D has passed them the exit is not clean, whoever
 * closes last (I4).
 */
void shared_lose_numbers(struct shared *);
bool shared_lost_numbers(const struct shared *);
void shared_head(struct shared *, struct commit_record *);
bts_txid shared_head_txid(const struct shared *);
/* The slot that holds D: index 0 or 1 and its sequence.  Takes effect with the next shared_publish, at once. */
void shared_set_slot(struct shared *, unsigned index, uint64_t sequence);
void shared_slot(const struct shared *, unsigned *index, uint64_t *sequence);
/* A follower's: records of path.pending that go with what this handle publishes, from the next time on. */
void shared_set_pending(struct shared *, uint64_t salt, uint32_t count);
/* The salt that goes with the head; 0: all pages are home. */
uint64_t shared_pending_salt(const struct shared *);
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
 * The file's role (role.c), changed by who holds build and flush; shared_fences counts how often it stopped being a primary's: what
 * was begun before is over.  A promise is changed with flush held, or by a follower.
 */
enum meta_role shared_role(const struct shared *);
void shared_set_role(struct shared *, enum meta_role);
uint32_t shared_fences(const struct shared *);
uint32_t shared_promised(const struct shared *, uint64_t *random); /* 0: none */
void shared_set_promised(struct shared *, uint32_t epoch, uint64_t random);

/*
 * A deadline for writes (deadline.h), in milliseconds of clock_ms.  In use from the first _use on until nobody is there.  _set: 0:
 * given up, there is none; else only later than it is.  Terms are counted: one is over when the deadline was given up or had passed.
 */
void shared_deadline_use(struct shared *);
bool shared_deadline(const struct shared *, uint64_t *ms); /* false: not in use; *ms 0: none was given */
uint32_t shared_deadline_term(const struct shared *);
void shared_deadline_set(struct shared *, uint64_t ms, uint64_t now);

/*
 * Readers (G1): store the txid in a slot, full fence, re-read head, retry when it moved; the slot then holds what an heir needs
 * (the record).  record gets the snapshot.  BTS_LIMIT when all slots are taken.
 */
enum bts_err shared_reader_enter(struct shared *, struct shared_reader *, struct commit_record *record, struct bts_error *);
/* The same; record gets no positions and segments, which only who ships or commits needs. */
enum bts_err shared_reader_enter_light(struct shared *, struct shared_reader *, struct commit_record *record,
	struct bts_error *);
/* At D instead of the head: what is shipped (I8). */
enum bts_err shared_reader_enter_durable(struct shared *, struct shared_reader *, struct commit_record *record,
	struct bts_error *);
/* At the snapshot that `of` is registered with, which stays so during the call; in a slot above its. */
enum bts_err shared_reader_enter_beside(
	struct shared *, struct shared_reader *, const struct shared_reader *of, struct bts_error *);
void shared_reader_leave(struct shared *, struct shared_reader *);
/*
 * Parking (shared_parked.c): the reader ends and is no reader to anybody any more, but the slot is kept, and what was read from
 * the snapshot's pages may be believed again when a later claim finds it to be the head still.  What is parked is
 * claimed by any thread of the handle, with one atomic operation and no other store into memory that readers share.
 */
enum shared_claim {
	SHARED_CLAIM_NONE,  /* somebody has it, or took the slot away for want of others */
	SHARED_CLAIM_STALE, /* it is the caller's, but reads nothing: shared_reader_again, or park it */
	SHARED_CLAIM_FRESH  /* it is the caller's and reads the snapshot that it read, which is the head */
};
void shared_reader_park(struct shared *, struct shared_reader *);
enum shared_claim shared_reader_claim(struct shared *, struct shared_reader *);
/* Not reading, and not parked: before shared_reader_again or shared_reader_park. */
void shared_reader_rest(struct shared *, struct shared_reader *);
/* As shared_reader_enter_light, in the slot that the reader has.  After an error it rests. */
enum bts_err shared_reader_again(struct shared *, struct shared_reader *, struct commit_record *record, struct bts_error *);
/* What was read is not what the snapshot says: a claim is not fresh. */
static inline void shared_reader_spoil(struct shared_reader *reader)
{
	atomic_store_explicit(&reader->sequence, 0, memory_order_relaxed);
}
/* Something was published since the snapshot was taken. */
static inline bool shared_reader_late(const struct shared_reader *reader)
{
	return atomic_load(reader->published) != atomic_load_explicit(&reader->sequence, memory_order_relaxed);
}
static inline bool shared_reader_parked(const struct shared_reader *reader)
{
	return atomic_load_explicit(&reader->parked, memory_order_relaxed) != 0;
}
/* One relaxed load: was this reader told to end? */
static inline bool shared_reader_expired(const struct shared_reader *reader)
{
	return reader->expired != NULL && atomic_load_explicit(reader->expired, memory_order_relaxed) == reader->use;
}
/* A live reader of some process, as seen by a scan. */
struct shared_reader_seen {
	uint32_t slot, pid;
	bool own;     /* of this handle */
	bool expired; /* told to end */
	uint64_t use;
	bts_txid txid;
	uint64_t age_ms;
};
/* As shared_readers, each reader by itself, in no order.  At most cap are written (shared_reader_slots is enough). */
size_t shared_readers_seen(struct shared *, struct shared_reader_seen *seen, size_t cap);
/* Slots ever used in this environment: more readers than that are not there at this moment. */
uint32_t shared_reader_slots(const struct shared *);
/* Tell this reader to end, if it still is the one seen. */
void shared_reader_expire(struct shared *, const struct shared_reader_seen *);
/* May something be said of this reader now?  True for one caller of all processes in every interval. */
bool shared_reader_tell(struct shared *, const struct shared_reader_seen *, unsigned interval_ms);
/* Snapshots of live readers of all processes, ascending, each once; slots of dead processes are cleared.  At most cap are
 * written (cap >= shared_reader_slots gets all); returns how many. */
size_t shared_readers(struct shared *, bts_txid *snapshots, size_t cap, uint32_t *live);
/* The commit record held by reader slots with this snapshot (for an heir): BTS_NOT_FOUND when none is left. */
enum bts_err shared_reader_record(struct shared *, bts_txid snapshot, struct commit_record *);
/*
 * False: who stands in a slot with this snapshot has not looked again yet; when pages of it are gone he came too late, will see that
 * and start over.
 */
bool shared_reader_settled(struct shared *, bts_txid snapshot);

/* +1 at every shared_wake, for those who wait for something else. */
uint32_t shared_wakes(const struct shared *);
/* Wait until a reader left or timeout (for the installer). */
void shared_wait_reader(struct shared *, unsigned timeout_ms);

/* Wait for D > after; BTS_TIMEOUT.  Across processes. */
enum bts_err shared_wait_head(struct shared *, bts_txid after, unsigned timeout_ms, bts_txid *head);
void shared_wake(struct shared *);

/* Acknowledgements of followers (ship.h). */
enum bts_err shared_ack_record(struct shared *, const struct bts_ack *, struct bts_error *);
size_t shared_ack_list(struct shared *, struct bts_ack *, size_t cap);
enum bts_err shared_ack_wait(struct shared *, uint32_t *seen, unsigned timeout_ms);
enum bts_err shared_upstream_record(struct shared *, const struct bts_upstream *, struct bts_error *);
void shared_upstream(struct shared *, struct bts_upstream *);

#endif
