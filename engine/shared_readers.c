/*
 * Reader slots (G1).
 *
 * A reader stores its snapshot, then looks again whether it is still the head; a
 * writer first moves the head, then reads the slots.  Both sides in sequentially
 * consistent order: either the writer sees the reader, or the reader sees that it came too late and starts
 * over.
 *
 * A reader that holds too much is told to end by the number of its registration, written into its slot: whoever has the slot by
 * then is another registration, and not meant.  Nothing is taken away from it: what it reaches stays until it leaves.
 */
#include "shared_map.h"

#include <errno.h>
#include <string.h>

#include "base/ensure.h"
#include "base/fault.h"
#include "error.h"


ENSURE_STATIC(SHARED_READERS_MAX % SHARED_SLOTS_STEP == 0);

static _Atomic uint64_t *shared_slot_record(struct shared *s, uint32_t slot)
{
	return s->map->chunks[slot / SHARED_SLOTS_STEP].records[slot % SHARED_SLOTS_STEP];
}

/*
 * Make the slot of a process that died free, unless somebody else did meanwhile.  The owner word becomes ours
 * first, so that the snapshot is zeroed before the slot can belong to somebody new, and is marked, so that it differs
 * from before even if it was ours: who takes parked slots away then knows that he came too late.
 */
static void shared_reap(struct shared *s, uint32_t index, uint64_t owner)
{
	struct shared_slot *slot = shared_slot_at(s, index);

	if (!atomic_compare_exchange_strong(&slot->owner, &owner, s->owner | SHARED_REAPING))
		return;
	atomic_store(&slot->txid, 0);
	atomic_store(&slot->owner, 0);
}

void shared_forget(struct shared *s, uint32_t index)
{
	struct shared_map *map = s->map;
	uint32_t used = atomic_load(&map->slots_used), i;

	for (i = 0; i < used; i++) {
		uint64_t owner = atomic_load(&shared_slot_at(s, i)->owner);

		if ((owner & 0xffff) == index + 1)
			shared_reap(s, i, owner);
	}
	shared_leases_forget(s, index);
}

/*
 * Processes seen alive during one scan.  Death is not remembered: a new process may have the same index a
 * moment later, with another owner word.
 */
struct shared_census {
	uint64_t alive[SHARED_PROCESSES_MAX / 64];
};

static bool shared_census_alive(struct shared *s, struct shared_census *census, uint64_t owner)
{
	uint32_t index = (uint32_t)(owner & 0xffff) - 1;
	uint64_t bit = UINT64_C(1) << (index % 64);

	if (!(census->alive[index / 64] & bit) && shared_alive(s, owner))
		census->alive[index / 64] |= bit;
	return (census->alive[index / 64] & bit) != 0;
}

/* Insert into an ascending list without duplicates; when it is full the largest falls out. */
static size_t shared_insert(bts_txid *list, size_t count, size_t cap, bts_txid txid)
{
	size_t at = count;

	while (at > 0 && list[at - 1] > txid)
		at--;
	if ((at > 0 && list[at - 1] == txid) || at == cap)
		return count;
	if (count == cap)
		count--;
	memmove(list + at + 1, list + at, (count - at) * sizeof(*list));
	list[at] = txid;
	return count + 1;
}

/*
 * The owner word of a living reader in the slot and txid, its snapshot + 1; 0: there is none.  Whether the owner lives is asked
 * only where somebody reads: a slot that is merely kept costs no call.
 */
static uint64_t shared_slot_look(
	struct shared *s, struct shared_census *census, uint32_t index, bts_txid *txid)
{
	struct shared_slot *slot = shared_slot_at(s, index);
	uint64_t owner = atomic_load(&slot->owner);

	if (!owner)
		return 0;
	*txid = atomic_load(&slot->txid);
	if (!*txid || *txid & SHARED_PARKED)
		return 0;
	if (shared_census_alive(s, census, owner))
		return owner;
	shared_reap(s, index, owner);
	return 0;
}

/* The slots of the dead become free, whether they read or not. */
static void shared_bury(struct shared *s)
{
	uint32_t used = atomic_load(&s->map->slots_used), i;
	struct shared_census census = {{0}};

	for (i = 0; i < used; i++) {
		uint64_t owner = atomic_load(&shared_slot_at(s, i)->owner);

		if (owner && !shared_census_alive(s, &census, owner))
			shared_reap(s, i, owner);
	}
}

size_t shared_readers(struct shared *s, bts_txid *snapshots, size_t cap, uint32_t *live)
{
	struct shared_census census = {{0}};
	uint32_t i, readers = 0;
	size_t count = 0;
	bts_txid txid;

	/* Upwards, to the end as it is then: shared_reader_enter_beside relies on it. */
	for (i = 0; i < atomic_load(&s->map->slots_used); i++) {
		if (!shared_slot_look(s, &census, i, &txid))
			continue;
		readers++;
		count = shared_insert(snapshots, count, cap, txid - 1);
	}
	if (live)
		*live = readers;
	return count;
}

uint32_t shared_reader_slots(const struct shared *s)
{
	return atomic_load(&s->map->slots_used);
}

size_t shared_readers_seen(struct shared *s, struct shared_reader_seen *seen, size_t cap)
{
	uint64_t now = s->env->ops->tick_ms(s->env);
	struct shared_census census = {{0}};
	size_t count = 0;
	uint32_t i;

	for (i = 0; i < atomic_load(&s->map->slots_used) && count < cap; i++) {
		struct shared_slot *slot = shared_slot_at(s, i);
		uint64_t use = atomic_load(&slot->use), since, owner;
		bts_txid txid;

		owner = shared_slot_look(s, &census, i, &txid);
		if (!owner)
			continue;
		since = atomic_load(&slot->since_ms);
		seen[count] = (struct shared_reader_seen){.slot = i,
			.pid = atomic_load(&s->map->pids[(uint32_t)(owner & 0xffff) - 1]),
			.own = owner == s->owner,
			.expired = atomic_load(&slot->expired) == use,
			.use = use,
			.txid = txid - 1,
			.age_ms = now > since ? now - since : 0};
		if (atomic_load(&slot->owner) == owner && atomic_load(&slot->use) == use)
			count++; /* else it left meanwhile, and this is a mixture */
	}
	return count;
}

void shared_reader_expire(struct shared *s, const struct shared_reader_seen *seen)
{
	atomic_store(&shared_slot_at(s, seen->slot)->expired, seen->use);
}

bool shared_reader_tell(struct shared *s, const struct shared_reader_seen *seen, unsigned interval_ms)
{
	struct shared_slot *slot = shared_slot_at(s, seen->slot);
	uint64_t now = s->env->ops->tick_ms(s->env) + 1, told = atomic_load(&slot->told_ms);

	/* 0 is never: so the registration leaves it, and so it is before any time. */
	if (told && now < told + interval_ms)
		return false;
	return atomic_compare_exchange_strong(&slot->told_ms, &told, now);
}

enum bts_err shared_reader_record(struct shared *s, bts_txid snapshot, struct commit_record *record)
{
	uint32_t i;

	/* To the end as it is then, as above: the snapshot may go on in a slot that was never used when this began. */
	for (i = 0; i < atomic_load(&s->map->slots_used); i++) {
		struct shared_slot *slot = shared_slot_at(s, i);
		uint64_t owner = atomic_load(&slot->owner), use = atomic_load(&slot->use);
		struct commit_record copy;

		if (!owner || atomic_load(&slot->txid) != snapshot + 1)
			continue;
		shared_record_load_reader(shared_slot_record(s, i), &copy);
		/* The same number in the same use means that the record did not move meanwhile. */
		if (atomic_load(&slot->owner) != owner || atomic_load(&slot->use) != use ||
			atomic_load(&slot->txid) != snapshot + 1)
			continue;
		*record = copy;
		return BTS_OK;
	}
	return BTS_NOT_FOUND;
}

bool shared_reader_settled(struct shared *s, bts_txid snapshot)
{
	uint32_t i;

	/* As above: who opens the file takes damage of a snapshot that nobody holds for none, and would not hold this one's pages. */
	for (i = 0; i < atomic_load(&s->map->slots_used); i++) {
		struct shared_slot *slot = shared_slot_at(s, i);
		uint64_t use = atomic_load(&slot->use);

		if (atomic_load(&slot->txid) == snapshot + 1 && atomic_load(&slot->settled) == use)
			return true;
	}
	return false;
}

/* An errno; EAGAIN: taken. */
static int shared_claim_at(struct shared *s, uint32_t index)
{
	struct shared_slot *slot = shared_slot_at(s, index);
	uint32_t used = atomic_load(&s->map->slots_used);
	uint64_t none = 0;
	int os;

	if (index >= atomic_load(&s->map->slots_backed)) {
		os = shared_back(s, index + 1);
		if (os)
			return os;
	}
	if (atomic_load(&slot->owner) || !atomic_compare_exchange_strong(&slot->owner, &none, s->owner))
		return EAGAIN;
	while (used <= index && !atomic_compare_exchange_weak(&s->map->slots_used, &used, index + 1))
		;
	return 0;
}

/* The slot left last, then the next ones, from the first again, and at last one that was never used.  An errno; EAGAIN: all
 * are taken. */
static int shared_claim(struct shared *s, uint32_t *index)
{
	uint32_t used = atomic_load(&s->map->slots_used), hint = atomic_load(&s->hint), i, at;
	int os = EAGAIN;

	for (i = 0; i < used && os == EAGAIN; i++) {
		at = hint + i < used ? hint + i : (hint + i) % used;
		os = shared_claim_at(s, at);
	}
	for (; used < SHARED_READERS_MAX && os == EAGAIN; used++) {
		at = used;
		os = shared_claim_at(s, at);
	}
	if (os)
		return os;
	if (i > 1)
		atomic_store(&s->hint, at + 1);
	*index = at;
	return 0;
}

/*
 * Release: what was read has been read.  No fence before the look at who waits, and no store where nobody does, since that
 * word is on a line that all readers read: who begins to wait at this moment may be missed, and looks again in a moment.
 */
void shared_slot_clear(struct shared *s, struct shared_slot *slot)
{
	atomic_store_explicit(&slot->txid, 0, memory_order_release);
	if (atomic_load_explicit(&s->map->leave_waiters, memory_order_relaxed) == 0)
		return;
	atomic_fetch_add(&s->map->leave_word, 1);
	s->env->ops->wake(s->env, (const uint32_t *)&s->map->leave_word);
}

/* A slot that has just become ours: a new use of it begins. */
static void shared_slot_begin(struct shared *s, struct shared_slot *slot)
{
	atomic_store_explicit(&slot->use, atomic_load(&slot->use) + 1, memory_order_relaxed);
	atomic_store_explicit(&slot->told_ms, 0, memory_order_relaxed);
	atomic_store_explicit(&slot->since_ms, s->env->ops->tick_ms(s->env), memory_order_relaxed);
}

/* A free slot becomes ours. */
static enum bts_err shared_slot_take(struct shared *s, uint32_t *index, struct bts_error *error)
{
	int os;

	if (s->foreign)
		return error_set(error, BTS_INVALID, 0,
			"%s was opened by another process, before a fork: open the file again", s->path);
	os = shared_claim(s, index);
	if (os == EAGAIN) {
		shared_bury(s);
		os = shared_claim(s, index);
	}
	if (os && shared_steal(s, index))
		os = 0;
	if (os == EAGAIN)
		return error_set(error, BTS_LIMIT, 0, "%s: %u read snapshots are open, no more are possible",
			s->path, SHARED_READERS_MAX);
	if (os)
		return error_os(error, os, "%s: no room for another reader", s->path);
	shared_slot_begin(s, shared_slot_at(s, *index));
	return BTS_OK;
}

void shared_register(struct shared *s, struct shared_reader *reader, const struct shared_cell *cell, bool light,
	struct commit_record *record)
{
	struct shared_slot *slot = shared_slot_at(s, reader->slot);
	uint64_t sequence;

	for (;;) {
		sequence = atomic_load(&cell->sequence);
		if (light)
			shared_record_load_reader(cell->records[sequence & 1].words, record);
		else
			shared_record_load(&cell->records[sequence & 1], record);
		reader->pending_salt = atomic_load(&cell->pending_salt[sequence & 1]);
		reader->pending_count = (uint32_t)atomic_load(&cell->pending_count[sequence & 1]);
		if (atomic_load(&cell->sequence) != sequence)
			continue;
		shared_record_store_reader(shared_slot_record(s, reader->slot), record);
		atomic_store(&slot->txid, record->txid + 1);
		if (atomic_load(&cell->sequence) == sequence)
			break;
		shared_slot_clear(s, slot);
	}
	reader->txid = record->txid;
	reader->expired = &slot->expired;
	reader->published = &cell->sequence;
	atomic_store_explicit(&reader->sequence, sequence, memory_order_relaxed);
	atomic_store_explicit(&reader->snapshot, record->txid + 1, memory_order_relaxed);
	atomic_store_explicit(&slot->settled, reader->use, memory_order_release);
}

static enum bts_err shared_reader_register(struct shared *s, struct shared_reader *reader,
	const struct shared_cell *cell, bool light, struct commit_record *record, struct bts_error *error)
{
	struct shared_slot *slot;
	enum bts_err err = shared_slot_take(s, &reader->slot, error);

	if (err)
		return err;
	slot = shared_slot_at(s, reader->slot);
	reader->use = atomic_load_explicit(&slot->use, memory_order_relaxed);
	atomic_store_explicit(&reader->parked, 0, memory_order_relaxed);
	shared_register(s, reader, cell, light, record);
	return BTS_OK;
}

enum bts_err shared_reader_enter(
	struct shared *s, struct shared_reader *reader, struct commit_record *record, struct bts_error *error)
{
	return shared_reader_register(s, reader, &s->map->head, false, record, error);
}

enum bts_err shared_reader_enter_durable(
	struct shared *s, struct shared_reader *reader, struct commit_record *record, struct bts_error *error)
{
	return shared_reader_register(s, reader, SABOTAGE(FAULT_I8_SHIP_AT_HEAD) ? &s->map->head : &s->map->durable,
		false, record, error);
}

enum bts_err shared_reader_enter_light(
	struct shared *s, struct shared_reader *reader, struct commit_record *record, struct bts_error *error)
{
	return shared_reader_register(s, reader, &s->map->head, true, record, error);
}

/* A slot above this one.  An errno; EAGAIN: all are taken. */
static int shared_claim_above(struct shared *s, uint32_t above, uint32_t *index)
{
	int os = EAGAIN;

	for (uint32_t i = above + 1; i < SHARED_READERS_MAX && os == EAGAIN; i++) {
		os = shared_claim_at(s, i);
		*index = i;
	}
	return os;
}

/*
 * Nothing is looked at again, as a reader at the head must: the snapshot is held throughout, by `of` first.  A scan goes upwards
 * through the slots and comes to that of `of` before it comes to ours: if it finds `of` gone, ours was filled by then.
 */
enum bts_err shared_reader_enter_beside(
	struct shared *s, struct shared_reader *reader, const struct shared_reader *of, struct bts_error *error)
{
	struct commit_record record;
	struct shared_slot *slot;
	int os;

	if (s->foreign)
		return error_set(error, BTS_INVALID, 0,
			"%s was opened by another process, before a fork: open the file again", s->path);
	os = shared_claim_above(s, of->slot, &reader->slot);
	if (os == EAGAIN)
		return error_set(error, BTS_LIMIT, 0, "%s: too many read snapshots are open", s->path);
	if (os)
		return error_os(error, os, "%s: no room for another reader", s->path);
	slot = shared_slot_at(s, reader->slot);
	shared_slot_begin(s, slot);
	shared_record_load_reader(shared_slot_record(s, of->slot), &record);
	shared_record_store_reader(shared_slot_record(s, reader->slot), &record);
	atomic_store(&slot->txid, of->txid + 1);
	reader->use = atomic_load_explicit(&slot->use, memory_order_relaxed);
	reader->txid = of->txid;
	reader->expired = &slot->expired;
	reader->published = of->published;
	reader->pending_salt = of->pending_salt;
	reader->pending_count = of->pending_count;
	atomic_store_explicit(&reader->parked, 0, memory_order_relaxed);
	atomic_store_explicit(&reader->snapshot, of->txid + 1, memory_order_relaxed);
	shared_reader_spoil(reader);
	atomic_store_explicit(&slot->settled, reader->use, memory_order_release);
	return BTS_OK;
}

void shared_reader_leave(struct shared *s, struct shared_reader *reader)
{
	struct shared_slot *slot;

	if (s->foreign) /* the parent's registration */
		return;
	ENSURE(reader->slot < SHARED_READERS_MAX);
	slot = shared_slot_at(s, reader->slot);
	ENSURE(atomic_load(&slot->owner) == s->owner);
	shared_slot_clear(s, slot);
	atomic_store(&slot->owner, 0);
	atomic_store(&s->hint, reader->slot);
}

void shared_wait_reader(struct shared *s, unsigned timeout_ms)
{
	struct shared_map *map = s->map;
	uint32_t word;

	atomic_fetch_add(&map->leave_waiters, 1);
	word = atomic_load(&map->leave_word);
	s->env->ops->wait(s->env, (const uint32_t *)&map->leave_word, word, timeout_ms);
	atomic_fetch_sub(&map->leave_waiters, 1);
}
