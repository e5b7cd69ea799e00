/*
 * The three commit records that processes share: the tip (the newest that was built: its pages are written), the head (the
 * newest that readers see) and D (the newest that is known to be durable).  durable <= head <= tip, and all three are the
 * same one except while a batch waits for its flush, or after commits that did not ask for one (BTS_ASYNC).
 *
 * Each is kept twice: the copy that the sequence names is complete, the other belongs to the publisher, and one store of the
 * sequence makes the new one effective together with what is told beside it (M2).  A publisher that dies half-way has
 * touched only what nobody reads.  Publishers of one record exclude each other: of the tip by the build lock, of head and D
 * by the publish lock (or by being the only writer: a follower, an opener that is alone).
 *
 * Head before D: who allocates reads D and then the readers' slots, who reads takes the head and then looks again; were D to
 * move first, a reader could begin below it unseen (I1, G1).
 */
#include "shared_map.h"

#include "base/ensure.h"
#include "base/fault.h"

static void shared_words_store(_Atomic uint64_t *to, const void *from, size_t at, size_t bytes)
{
	const uint64_t *words = from;

	/* Release: who reads a new word also sees that the sequence had moved on before it. */
	for (size_t i = at / 8; i < (bytes + 7) / 8; i++)
		atomic_store_explicit(&to[i], words[i], memory_order_release);
}

static void shared_words_load(const _Atomic uint64_t *from, void *to, size_t at, size_t bytes)
{
	uint64_t *words = to;

	for (size_t i = at / 8; i < (bytes + 7) / 8; i++)
		words[i] = atomic_load_explicit(&from[i], memory_order_acquire);
}

/* The struct is made of whole words, aligned as words are. */
ENSURE_STATIC(sizeof(struct commit_record) % 8 == 0 && _Alignof(struct commit_record) == 8);
#define SHARED_READER_HEAD offsetof(struct commit_record, free.inline_entries)
ENSURE_STATIC(SHARED_READER_HEAD % 8 == 0);

void shared_record_store(struct shared_record *to, const struct commit_record *record)
{
	shared_words_store(to->words, record, 0, sizeof(*record));
}

void shared_record_load(const struct shared_record *from, struct commit_record *record)
{
	shared_words_load(from->words, record, 0, sizeof(*record));
}

void shared_record_store_reader(_Atomic uint64_t *to, const struct commit_record *record)
{
	shared_words_store(to, record, 0, META_READER_BYTES(record));
}

/* Torn when the publisher is at it, which the caller sees by the sequence; the count is bounded all the same. */
void shared_record_load_reader(const _Atomic uint64_t *from, struct commit_record *record)
{
	shared_words_load(from, record, 0, SHARED_READER_HEAD);
	if (record->free.inline_count > FREELOG_INLINE_MAX)
		record->free.inline_count = FREELOG_INLINE_MAX;
	shared_words_load(from, record, SHARED_READER_HEAD, META_READER_BYTES(record));
	record->recent_count = 0;
	record->segment_count = 0;
}

static void shared_wake_word(struct shared *s, _Atomic uint32_t *word, const _Atomic uint32_t *waiters)
{
	atomic_fetch_add(word, 1);
	if (atomic_load(waiters))
		s->env->ops->wake(s->env, (const uint32_t *)word);
}

static void shared_wake_head(struct shared *s)
{
	shared_wake_word(s, &s->map->head_word, &s->map->head_waiters);
}

void shared_wake_acks(struct shared *s)
{
	shared_wake_word(s, &s->map->ack_word, &s->map->ack_waiters);
}

static void shared_cell_store(const struct shared *s, struct shared_cell *cell, const struct commit_record *record, uint64_t slot,
	uint64_t ring)
{
	uint64_t sequence = atomic_load(&cell->sequence);
	unsigned next = !(sequence & 1);

	shared_record_store(&cell->records[next], record);
	atomic_store(&cell->txid[next], record->txid);
	atomic_store(&cell->slot[next], slot);
	atomic_store(&cell->ring[next], ring);
	atomic_store(&cell->pending_salt[next], s->pending_salt);
	atomic_store(&cell->pending_count[next], s->pending_count);
	atomic_store(&cell->sequence, sequence + 1);
}

void shared_cell_load(const struct shared_cell *cell, struct commit_record *record, uint64_t *slot, uint64_t *ring)
{
	uint64_t sequence;

	do {
		sequence = atomic_load(&cell->sequence);
		if (record != NULL)
			shared_record_load(&cell->records[sequence & 1], record);
		if (slot != NULL)
			*slot = atomic_load(&cell->slot[sequence & 1]);
		if (ring != NULL)
			*ring = atomic_load(&cell->ring[sequence & 1]);
	} while (atomic_load(&cell->sequence) != sequence);
}

static bts_txid shared_cell_txid(const struct shared_cell *cell)
{
	uint64_t sequence;
	bts_txid txid;

	do { /* the other copy is being written when the sequence moved meanwhile */
		sequence = atomic_load(&cell->sequence);
		txid = atomic_load(&cell->txid[sequence & 1]);
	} while (atomic_load(&cell->sequence) != sequence);
	return txid;
}

void shared_publish_head(struct shared *s, const struct commit_record *record)
{
	shared_cell_store(s, &s->map->head, record, 0, 0);
	shared_wake_head(s);
}

void shared_publish_durable(struct shared *s, const struct commit_record *record, const struct shared_durable *durable)
{
	if (SABOTAGE(FAULT_I8_D_BEFORE_HEAD))
		shared_cell_store(s,
			&s->map->durable, record, durable->sequence << 1 | (durable->index & 1), durable->ring);
	if (shared_head_txid(s) < record->txid)
		shared_cell_store(s, &s->map->head, record, 0, 0);
	shared_cell_store(s, &s->map->durable, record, durable->sequence << 1 | (durable->index & 1), durable->ring);
	shared_wake_head(s);
}

void shared_publish_tip(struct shared *s, const struct commit_record *record, uint64_t ring)
{
	shared_cell_store(s, &s->map->tip, record, 0, ring);
}

void shared_publish(struct shared *s, const struct commit_record *record)
{
	uint64_t slot, ring;

	shared_cell_load(&s->map->durable, NULL, &slot, NULL);
	shared_cell_load(&s->map->tip, NULL, NULL, &ring);
	shared_cell_store(s, &s->map->head, record, 0, 0);
	shared_cell_store(s, &s->map->durable, record, s->slot ? s->slot : slot, ring);
	shared_cell_store(s, &s->map->tip, record, 0, ring);
	s->slot = 0;
	shared_wake_head(s);
}

void shared_set_pending(struct shared *s, uint64_t salt, uint32_t count)
{
	s->pending_salt = count ? salt : 0;
	s->pending_count = count;
}

uint64_t shared_pending_salt(const struct shared *s)
{
	const struct shared_cell *cell = &s->map->head;

	return atomic_load(&cell->pending_salt[atomic_load(&cell->sequence) & 1]);
}

void shared_head(struct shared *s, struct commit_record *record)
{
	shared_cell_load(&s->map->head, record, NULL, NULL);
}

bts_txid shared_head_txid(const struct shared *s)
{
	return shared_cell_txid(&s->map->head);
}

bts_txid shared_durable_txid(const struct shared *s)
{
	return shared_cell_txid(&s->map->durable);
}

bts_txid shared_tip_txid(const struct shared *s)
{
	return shared_cell_txid(&s->map->tip);
}

void shared_tip(struct shared *s, struct commit_record *record, uint64_t *ring)
{
	shared_cell_load(&s->map->tip, record, NULL, ring);
}

void shared_durable(struct shared *s, struct commit_record *record, struct shared_durable *durable)
{
	uint64_t slot;

	shared_cell_load(&s->map->durable, record, &slot, &durable->ring);
	durable->index = (unsigned)(slot & 1);
	durable->sequence = slot >> 1;
}

void shared_set_slot(struct shared *s, unsigned index, uint64_t sequence)
{
	s->slot = sequence << 1 | (index & 1);
}

void shared_slot(const struct shared *s, unsigned *index, uint64_t *sequence)
{
	uint64_t slot;

	shared_cell_load(&s->map->durable, NULL, &slot, NULL);
	*index = (unsigned)(slot & 1);
	*sequence = slot >> 1;
}

void shared_assign(struct shared *s, bts_txid txid)
{
	atomic_store(&s->map->assigned, txid);
}

bts_txid shared_assigned(const struct shared *s)
{
	return atomic_load(&s->map->assigned);
}

void shared_ring_put(struct shared *s, uint64_t at, const struct shared_change *change)
{
	struct shared_ring_entry *entry = &s->map->ring[at % SHARED_RING_ENTRIES];

	/* Release: who reads a new word also sees how far the tip's end had come before it. */
	atomic_store_explicit(&entry->words[0], change->pgno << 8 | (uint64_t)change->kind, memory_order_release);
	atomic_store_explicit(&entry->words[1], change->count, memory_order_release);
	atomic_store_explicit(&entry->words[2], change->birth, memory_order_release);
	atomic_store_explicit(&entry->words[3], change->freed, memory_order_release);
}

void shared_ring_get(const struct shared *s, uint64_t at, struct shared_change *change)
{
	const struct shared_ring_entry *entry = &s->map->ring[at % SHARED_RING_ENTRIES];
	uint64_t word = atomic_load_explicit(&entry->words[0], memory_order_acquire);

	change->kind = (enum shared_change_kind)(word & 0xff);
	change->pgno = word >> 8;
	change->count = atomic_load_explicit(&entry->words[1], memory_order_acquire);
	change->birth = atomic_load_explicit(&entry->words[2], memory_order_acquire);
	change->freed = atomic_load_explicit(&entry->words[3], memory_order_acquire);
}

enum bts_err shared_wait_head(struct shared *s, bts_txid after, unsigned timeout_ms, bts_txid *head)
{
	struct shared_map *map = s->map;
	struct bts_env *env = s->env;
	uint64_t deadline = env->ops->clock_ms(env) + timeout_ms;
	uint32_t wakes = atomic_load(&map->wakes);
	enum bts_err err = BTS_OK;

	/* A waiter that dies leaves the count too high, which costs the publisher a call and nothing else. */
	atomic_fetch_add(&map->head_waiters, 1);
	for (;;) {
		uint32_t word = atomic_load(&map->head_word);
		bts_txid txid = shared_durable_txid(s);
		uint64_t now;

		if (txid > after) {
			*head = txid;
			break;
		}
		now = env->ops->clock_ms(env);
		if (now >= deadline || atomic_load(&map->wakes) != wakes) {
			err = BTS_TIMEOUT;
			break;
		}
		env->ops->wait(env, (const uint32_t *)&map->head_word, word, (unsigned)(deadline - now));
	}
	atomic_fetch_sub(&map->head_waiters, 1);
	return err;
}

void shared_wake(struct shared *s)
{
	atomic_fetch_add(&s->map->wakes, 1);
	shared_wake_head(s);
	shared_wake_acks(s);
}

uint32_t shared_wakes(const struct shared *s)
{
	return atomic_load(&s->map->wakes);
}
