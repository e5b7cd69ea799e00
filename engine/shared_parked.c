/*
 * Reader slots that are kept from one transaction to the next.
 *
 * A reader that ends does not give its slot back: it leaves SHARED_PARKED and the number of its use in place of the
 * snapshot.  To everybody else that is no reader, just as 0 is: who asks what is read (reclaiming, an allocator built anew,
 * an install, compaction, limits, figures) has nothing to know of parking and nothing to undo, and a parked slot holds no page.
 *
 * To begin again is to exchange that word for the snapshot, and to look then whether it is the head still: the two steps of G1 in
 * the order of G1, both sequentially consistent, so the same argument holds whatever happened while nobody was registered.  Either
 * the writer that has moved the head sees the snapshot in its scan, which follows, or the claim sees the head moved, and
 * its snapshot is given up before a page of it was read.  That nothing else changed with the head unmoved is why what was
 * found in the snapshot's pages (the record, the buckets) may be used again: a sequence is never given twice.
 *
 * The word is given once in a slot, so the exchange succeeds only for the parking that was looked at: it decides between
 * the threads of the handle, too, and against a process that finds no free slot and takes parked ones away.
 */
#include "shared_map.h"

#include "base/ensure.h"
#include "base/fault.h"
#include "error.h"

static struct shared_slot *shared_parked_slot(struct shared *s, const struct shared_reader *reader)
{
	struct shared_slot *slot;

	ENSURE(reader->slot < SHARED_READERS_MAX);
	slot = shared_slot_at(s, reader->slot);
	ENSURE(!shared_reader_parked(reader) &&
		atomic_load_explicit(&slot->owner, memory_order_relaxed) == s->owner);
	return slot;
}

/* The use is over before the slot can be anybody's, so that no list and no order (shared_reader_expire) takes the next for it. */
void shared_reader_rest(struct shared *s, struct shared_reader *reader)
{
	struct shared_slot *slot;

	shared_reader_spoil(reader);
	if (s->foreign) /* the parent's registration */
		return;
	slot = shared_parked_slot(s, reader);
	shared_slot_clear(s, slot);
	atomic_store_explicit(&slot->use, ++reader->use, memory_order_release);
	atomic_store_explicit(&slot->since_ms, UINT64_MAX, memory_order_relaxed);
	atomic_store_explicit(&slot->told_ms, 0, memory_order_relaxed);
}

void shared_reader_park(struct shared *s, struct shared_reader *reader)
{
	uint64_t sequence = atomic_load_explicit(&reader->sequence, memory_order_relaxed), word;

	shared_reader_rest(s, reader);
	atomic_store_explicit(&reader->sequence, sequence, memory_order_relaxed);
	word = SHARED_PARKED | reader->use;
	/* Release: what the transaction has left behind is there for the thread that claims it. */
	atomic_store_explicit(&reader->parked, word, memory_order_release);
	if (!s->foreign)
		atomic_store_explicit(&shared_slot_at(s, reader->slot)->txid, word, memory_order_release);
}

enum shared_claim shared_reader_claim(struct shared *s, struct shared_reader *reader)
{
	struct shared_map *map = s->map;
	uint64_t parked = atomic_load_explicit(&reader->parked, memory_order_acquire);
	uint64_t sequence = atomic_load_explicit(&reader->sequence, memory_order_relaxed), snapshot = 0;
	struct shared_slot *slot = shared_slot_at(s, reader->slot);

	/* Read before the slot is ours, these belong to the parking that the exchange then finds in it, or it fails. */
	if (atomic_load_explicit(&map->head.sequence, memory_order_relaxed) == sequence)
		snapshot = atomic_load_explicit(&reader->snapshot, memory_order_relaxed);
	if (parked == 0 || !atomic_compare_exchange_strong(&slot->txid, &parked, snapshot))
		return SHARED_CLAIM_NONE;
	atomic_store_explicit(&reader->parked, 0, memory_order_relaxed);
	atomic_store_explicit(&slot->since_ms, s->env->ops->tick_ms(s->env), memory_order_relaxed);
	if (snapshot == 0)
		return SHARED_CLAIM_STALE;
	if (!SABOTAGE(FAULT_G1_NO_LOOK) && atomic_load(&map->head.sequence) != sequence) {
		shared_reader_rest(s, reader);
		return SHARED_CLAIM_STALE;
	}
	atomic_store_explicit(&slot->settled, reader->use, memory_order_release);
	return SHARED_CLAIM_FRESH;
}

enum bts_err shared_reader_again(
	struct shared *s, struct shared_reader *reader, struct commit_record *record, struct bts_error *error)
{
	struct shared_slot *slot;

	shared_reader_spoil(reader);
	if (s->foreign)
		return error_set(error, BTS_INVALID, 0,
			"%s was opened by another process, before a fork: open the file again", s->path);
	slot = shared_parked_slot(s, reader);
	atomic_store_explicit(&slot->since_ms, s->env->ops->tick_ms(s->env), memory_order_relaxed);
	shared_register(s, reader, &s->map->head, true, record);
	return BTS_OK;
}

/*
 * The slot word first: from then on no claim succeeds, and the owner stays who it is, unless it dies or closes and the slot is
 * reaped; then the owner word is marked or gone (shared_reap), and this one was too late.  Who dies between the two words
 * leaves a slot that is nobody's until its former owner closes.
 */
static bool shared_steal_at(struct shared *s, uint32_t index)
{
	struct shared_slot *slot = shared_slot_at(s, index);
	uint64_t parked = atomic_load(&slot->txid);
	uint64_t owner = atomic_load(&slot->owner);

	if (!(parked & SHARED_PARKED) || owner == 0 || owner & SHARED_REAPING)
		return false;
	return atomic_compare_exchange_strong(&slot->txid, &parked, 0) &&
	       atomic_compare_exchange_strong(&slot->owner, &owner, s->owner);
}

bool shared_steal(struct shared *s, uint32_t *index)
{
	uint32_t used = atomic_load(&s->map->slots_used), i;

	for (i = 0; i < used; i++) {
		if (shared_steal_at(s, i)) {
			*index = i;
			return true;
		}
	}
	return false;
}
