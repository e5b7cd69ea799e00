/*
 * Reader slots (G1) and the gate before them.
 *
 * A reader stores its snapshot, then looks again whether it is still the head and the gate still open; a
 * writer first moves the head (or closes the gate), then reads the slots.  Both sides in sequentially
 * consistent order: either the writer sees the reader, or the reader sees that it came too late and starts
 * over.
 */
#include "shared_map.h"

#include <string.h>

#include "base/ensure.h"
#include "error.h"

#define SHARED_GATE_PATIENCE_MS 100u /* then see whether who closed it still lives */

/*
 * Make the slot of a process that died free, unless somebody else did meanwhile.  The owner word becomes ours
 * first, so that the snapshot is zeroed before the slot can belong to somebody new.
 */
static void shared_reap(struct shared *s, uint32_t slot, uint64_t owner)
{
	if (!atomic_compare_exchange_strong(&s->map->owner[slot], &owner, s->owner))
		return;
	atomic_store(&s->map->txid[slot], 0);
	atomic_store(&s->map->owner[slot], 0);
}

void shared_forget(struct shared *s, uint32_t index)
{
	struct shared_map *map = s->map;
	uint32_t used = atomic_load(&map->slots_used), i;
	uint64_t gate = atomic_load(&map->gate);

	for (i = 0; i < used; i++) {
		uint64_t owner = atomic_load(&map->owner[i]);

		if ((owner & 0xffff) == index + 1)
			shared_reap(s, i, owner);
	}
	/* A held gate loses its owner, lest the newcomer under this index passes for him. */
	if ((gate & 0xffff) == index + 1 &&
		atomic_compare_exchange_strong(&map->gate, &gate, gate & SHARED_GATE_HELD)) {
		atomic_fetch_add(&map->gate_word, 1);
		s->env->ops->wake(s->env, (const uint32_t *)&map->gate_word);
	}
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

size_t shared_readers(struct shared *s, bts_txid *snapshots, size_t cap, uint32_t *live)
{
	struct shared_map *map = s->map;
	uint32_t used = atomic_load(&map->slots_used), i, readers = 0;
	struct shared_census census = {{0}};
	size_t count = 0;

	for (i = 0; i < used; i++) {
		uint64_t owner = atomic_load(&map->owner[i]);
		bts_txid txid;

		if (!owner)
			continue;
		if (!shared_census_alive(s, &census, owner)) {
			shared_reap(s, i, owner);
			continue;
		}
		txid = atomic_load(&map->txid[i]);
		if (!txid)
			continue;
		readers++;
		count = shared_insert(snapshots, count, cap, txid - 1);
	}
	if (live)
		*live = readers;
	return count;
}

enum bts_err shared_reader_record(struct shared *s, bts_txid snapshot, struct commit_record *record)
{
	struct shared_map *map = s->map;
	uint32_t used = atomic_load(&map->slots_used), i;

	for (i = 0; i < used; i++) {
		uint64_t owner = atomic_load(&map->owner[i]);
		struct commit_record copy;

		if (!owner || atomic_load(&map->txid[i]) != snapshot + 1)
			continue;
		shared_record_load_reader(&map->records[i], &copy);
		/* Snapshots only grow: the same number again means that the record did not move meanwhile. */
		if (atomic_load(&map->owner[i]) != owner || atomic_load(&map->txid[i]) != snapshot + 1)
			continue;
		*record = copy;
		return BTS_OK;
	}
	return BTS_NOT_FOUND;
}

static bool shared_claim_at(struct shared *s, uint32_t slot)
{
	uint32_t used = atomic_load(&s->map->slots_used);
	uint64_t none = 0;

	if (atomic_load(&s->map->owner[slot]) ||
		!atomic_compare_exchange_strong(&s->map->owner[slot], &none, s->owner))
		return false;
	while (used <= slot && !atomic_compare_exchange_weak(&s->map->slots_used, &used, slot + 1))
		;
	return true;
}

static bool shared_claim(struct shared *s, uint32_t *slot)
{
	uint32_t hint = atomic_load(&s->hint), i;

	if (shared_claim_at(s, hint)) {
		*slot = hint;
		return true;
	}
	for (i = 0; i < SHARED_READERS_MAX; i++)
		if (shared_claim_at(s, i)) {
			*slot = i;
			return true;
		}
	return false;
}

/* Wait until the gate is open; one that was closed by a process that died is opened here, unless it is held.
 */
static enum bts_err shared_gate_wait(struct shared *s, struct bts_error *error)
{
	struct shared_map *map = s->map;

	for (;;) {
		uint32_t word = atomic_load(&map->gate_word);
		uint64_t gate = atomic_load(&map->gate);

		if (!gate)
			return BTS_OK;
		if (shared_poisoned(s))
			return error_set(error, BTS_POISONED, 0, "%s: a write failed earlier", s->path);
		if (gate == SHARED_GATE_HELD || !shared_alive(s, gate & ~SHARED_GATE_HELD)) {
			if (gate & SHARED_GATE_HELD)
				return error_set(error, BTS_NEEDS_RECOVERY, 0,
					"%s: a process died while it installed a frame; open the file for "
					"writing",
					s->path);
			if (atomic_compare_exchange_strong(&map->gate, &gate, 0))
				atomic_fetch_add(&map->gate_word, 1);
			continue;
		}
		s->env->ops->wait(s->env, (const uint32_t *)&map->gate_word, word, SHARED_GATE_PATIENCE_MS);
	}
}

static void shared_slot_clear(struct shared *s, uint32_t slot)
{
	atomic_store(&s->map->txid[slot], 0);
	atomic_fetch_add(&s->map->leave_word, 1);
	if (atomic_load(&s->map->leave_waiters))
		s->env->ops->wake(s->env, (const uint32_t *)&s->map->leave_word);
}

static enum bts_err shared_reader_register(struct shared *s, struct shared_reader *reader, bool light,
	struct commit_record *record, struct bts_error *error)
{
	struct shared_map *map = s->map;
	uint32_t slot;

	if (s->foreign)
		return error_set(error, BTS_INVALID, 0, "%s was opened by another process, before a fork: open the file again",
			s->path);
	if (!shared_claim(s, &slot)) {
		bts_txid first;

		shared_readers(s, &first, 1, NULL); /* for the places of the dead */
		if (!shared_claim(s, &slot))
			return error_set(error, BTS_LIMIT, 0,
				"%s: %u read snapshots are open, no more are possible", s->path,
				SHARED_READERS_MAX);
	}
	if (slot >= atomic_load(&map->slots_backed)) {
		int os = shared_back(s, slot + 1);

		if (os) {
			atomic_store(&map->owner[slot], 0);
			return error_os(error, os, "%s: no room for another reader", s->path);
		}
	}
	for (;;) {
		enum bts_err err = shared_gate_wait(s, error);
		uint64_t sequence;

		if (err) {
			atomic_store(&map->owner[slot], 0);
			return err;
		}
		sequence = atomic_load(&map->head_sequence);
		if (light)
			shared_record_load_reader(&map->heads[sequence & 1], record);
		else
			shared_record_load(&map->heads[sequence & 1], record);
		if (atomic_load(&map->head_sequence) != sequence)
			continue;
		shared_record_store_reader(&map->records[slot], record);
		atomic_store(&map->txid[slot], record->txid + 1);
		if (!atomic_load(&map->gate) && atomic_load(&map->head_sequence) == sequence)
			break;
		shared_slot_clear(s, slot);
	}
	reader->slot = slot;
	reader->txid = record->txid;
	return BTS_OK;
}

enum bts_err shared_reader_enter(
	struct shared *s, struct shared_reader *reader, struct commit_record *record, struct bts_error *error)
{
	return shared_reader_register(s, reader, false, record, error);
}

enum bts_err shared_reader_enter_light(
	struct shared *s, struct shared_reader *reader, struct commit_record *record, struct bts_error *error)
{
	return shared_reader_register(s, reader, true, record, error);
}

void shared_reader_leave(struct shared *s, struct shared_reader *reader)
{
	if (s->foreign) /* the parent's registration */
		return;
	ENSURE(reader->slot < SHARED_READERS_MAX && atomic_load(&s->map->owner[reader->slot]) == s->owner);
	shared_slot_clear(s, reader->slot);
	atomic_store(&s->map->owner[reader->slot], 0);
	atomic_store(&s->hint, reader->slot);
}

void shared_gate_close(struct shared *s)
{
	atomic_store(&s->map->gate, s->owner);
}

void shared_gate_open(struct shared *s)
{
	atomic_store(&s->map->gate, 0);
	atomic_fetch_add(&s->map->gate_word, 1);
	s->env->ops->wake(s->env, (const uint32_t *)&s->map->gate_word);
}

void shared_gate_hold(struct shared *s)
{
	ENSURE(atomic_load(&s->map->gate) == s->owner);
	atomic_store(&s->map->gate, s->owner | SHARED_GATE_HELD);
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
