/*
 * The operation log of a private write transaction: packed records in chunks that never move, so that a long log can
 * spill.  A position counts the bytes of all records before it; a record never crosses the end of its chunk.
 *
 * A record: u8 kind (bit 7: the value is not here), u8 bucket name size, u16 key size, u32 tree id, u64 value size, u8 size
 * of the snapshot's name, then name, that name, key, value.  A value that is not here is a private one of the
 * transaction (dirty.h): u64 pointer, u64 serial.
 */
#include "txn.h"

#include "dirty.h"

#include <string.h>

#define OPLOG_HEADER 17u
#define OPLOG_ELSEWHERE 0x80u
#define OPLOG_CHUNK_MIN 1024u
#define OPLOG_CHUNK_MAX (1024u * 1024u) /* of a chunk of many records */

void oplog_init(struct oplog *log, struct bts_env *env, const struct beside *near, uint64_t memory)
{
	memset(log, 0, sizeof(*log));
	log->env = env;
	spill_init(&log->spill, env, OPLOG_CHUNK_MAX);
	if (near != NULL)
		spill_near(&log->spill, near, memory);
}

/* Chunks that begin behind the end: the log was cut since. */
static void oplog_trim(struct oplog *log)
{
	while (log->count > 0 && log->chunks[log->count - 1].start >= log->size) {
		struct oplog_chunk *chunk = &log->chunks[log->count - 1];

		if (chunk->start == log->size && log->count == 1)
			return; /* the first one is kept: it will be wanted */
		spill_give(&log->spill, chunk->bytes, chunk->cap);
		log->count--;
	}
}

static bool oplog_room_for_chunk(struct oplog *log)
{
	size_t cap = log->cap * 2;
	void *fresh;

	if (log->chunks == NULL) {
		log->chunks = log->few;
		log->cap = OPLOG_FEW;
	}
	if (log->count < log->cap)
		return true;
	fresh = log->env->ops->memory(log->env, log->chunks == log->few ? NULL : log->chunks, cap * sizeof(*log->chunks));
	if (fresh == NULL)
		return false;
	if (log->chunks == log->few)
		memcpy(fresh, log->few, sizeof(log->few));
	log->chunks = fresh;
	log->cap = cap;
	return true;
}

static enum bts_err oplog_grow(struct oplog *log, size_t need, struct bts_error *error)
{
	size_t size = log->count == 0 ? OPLOG_CHUNK_MIN : log->chunks[log->count - 1].cap * 2;
	uint8_t *bytes;
	enum bts_err err;

	if (!oplog_room_for_chunk(log))
		return BTS_MEMORY;
	if (size > OPLOG_CHUNK_MAX)
		size = OPLOG_CHUNK_MAX;
	while (size < need)
		size *= 2;
	err = spill_take(&log->spill, size, &bytes, error);
	if (err)
		return err;
	log->chunks[log->count++] = (struct oplog_chunk){ bytes, log->size, size };
	return BTS_OK;
}

static uint8_t *oplog_put(uint8_t *at, struct bts_slice bytes)
{
	if (bytes.size > 0)
		memcpy(at, bytes.data, bytes.size);
	return at + bytes.size;
}

enum bts_err oplog_add(struct oplog *log, const struct oplog_op *op, struct bts_error *error)
{
	bool elsewhere = op->serial != 0;
	size_t size = elsewhere ? 16 : op->value.size;
	size_t need = OPLOG_HEADER + op->bucket.size + op->base.size + op->key.size + size;
	struct oplog_chunk *chunk;
	uint8_t *at;
	enum bts_err err;

	oplog_trim(log);
	chunk = log->count > 0 ? &log->chunks[log->count - 1] : NULL;
	if (chunk == NULL || chunk->cap - (log->size - chunk->start) < need) {
		err = oplog_grow(log, need, error);
		if (err)
			return err;
		chunk = &log->chunks[log->count - 1];
	}
	at = chunk->bytes + (log->size - chunk->start);
	at[0] = (uint8_t)(op->kind | (elsewhere ? OPLOG_ELSEWHERE : 0));
	at[1] = (uint8_t)op->bucket.size;
	bytes_put_u16(at + 2, (uint16_t)op->key.size);
	bytes_put_u32(at + 4, op->tree);
	bytes_put_u64(at + 8, size);
	at[16] = (uint8_t)op->base.size;
	at = oplog_put(oplog_put(oplog_put(at + OPLOG_HEADER, op->bucket), op->base), op->key);
	if (elsewhere) {
		bytes_put_u64(at, op->made.pgno);
		bytes_put_u64(at + 8, op->serial);
	} else {
		oplog_put(at, op->value);
	}
	log->size += need;
	return BTS_OK;
}

/* The chunk that holds the record at a position: the last one that begins at or before it. */
static const struct oplog_chunk *oplog_chunk(const struct oplog *log, size_t at)
{
	size_t low = 0, high = log->count;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (log->chunks[middle].start <= at)
			low = middle;
		else
			high = middle;
	}
	return &log->chunks[low];
}

bool oplog_next(const struct oplog *log, size_t *at, struct oplog_op *op)
{
	const struct oplog_chunk *chunk;
	const uint8_t *p;

	if (*at >= log->size)
		return false;
	chunk = oplog_chunk(log, *at);
	p = chunk->bytes + (*at - chunk->start);
	op->kind = (enum oplog_kind)(p[0] & ~OPLOG_ELSEWHERE);
	op->tree = bytes_get_u32(p + 4);
	op->bucket = (struct bts_slice){ p + OPLOG_HEADER, p[1] };
	op->base = (struct bts_slice){ p + OPLOG_HEADER + op->bucket.size, p[16] };
	op->key = (struct bts_slice){ (const uint8_t *)op->base.data + op->base.size, bytes_get_u16(p + 2) };
	op->value = (struct bts_slice){ (const uint8_t *)op->key.data + op->key.size, (size_t)bytes_get_u64(p + 8) };
	op->serial = 0;
	*at += OPLOG_HEADER + op->bucket.size + op->base.size + op->key.size + op->value.size;
	if (p[0] & OPLOG_ELSEWHERE) {
		op->made = (struct page_ptr){ bytes_get_u64(op->value.data), 0, 0 };
		op->serial = bytes_get_u64((const uint8_t *)op->value.data + 8);
		op->value = (struct bts_slice){ op->value.data, 0 };
	}
	return true;
}

void oplog_value(const struct dirty *dirty, struct oplog_op *op)
{
	if (op->serial != 0 && dirty_serial(dirty, &op->made) == op->serial)
		(void)dirty_value(dirty, &op->made, &op->value);
}

void oplog_fini(struct oplog *log)
{
	spill_ending(&log->spill);
	for (size_t i = 0; i < log->count; i++)
		spill_give(&log->spill, log->chunks[i].bytes, log->chunks[i].cap);
	if (log->chunks != log->few)
		log->env->ops->memory(log->env, log->chunks, 0);
	spill_fini(&log->spill);
	log->chunks = NULL;
	log->count = log->cap = log->size = 0;
}
