/*
 * The operation log of a private write transaction: packed records in one growing buffer.
 * A record: u8 kind, u8 bucket name size, u16 key size, u32 tree id, u64 value size, then name, key, value.
 */
#include "txn.h"

#include <string.h>

#define OPLOG_HEADER 16u

enum bts_err oplog_add(struct oplog *log, const struct oplog_op *op)
{
	size_t need = OPLOG_HEADER + op->bucket.size + op->key.size + op->value.size;
	uint8_t *at;

	if (log->cap - log->size < need) {
		size_t cap = log->cap == 0 ? 1024 : log->cap;
		void *fresh;

		while (cap - log->size < need)
			cap *= 2;
		fresh = log->env->ops->memory(log->env, log->bytes, cap);
		if (fresh == NULL)
			return BTS_MEMORY;
		log->bytes = fresh;
		log->cap = cap;
	}
	at = log->bytes + log->size;
	at[0] = (uint8_t)op->kind;
	at[1] = (uint8_t)op->bucket.size;
	bytes_put_u16(at + 2, (uint16_t)op->key.size);
	bytes_put_u32(at + 4, op->tree);
	bytes_put_u64(at + 8, op->value.size);
	at += OPLOG_HEADER;
	memcpy(at, op->bucket.data, op->bucket.size);
	at += op->bucket.size;
	if (op->key.size > 0)
		memcpy(at, op->key.data, op->key.size);
	at += op->key.size;
	if (op->value.size > 0)
		memcpy(at, op->value.data, op->value.size);
	log->size += need;
	return BTS_OK;
}

bool oplog_next(const struct oplog *log, size_t *at, struct oplog_op *op)
{
	const uint8_t *p = log->bytes + *at;

	if (*at == log->size)
		return false;
	op->kind = (enum oplog_kind)p[0];
	op->tree = bytes_get_u32(p + 4);
	op->bucket = (struct bts_slice){ p + OPLOG_HEADER, p[1] };
	op->key = (struct bts_slice){ p + OPLOG_HEADER + op->bucket.size, bytes_get_u16(p + 2) };
	op->value = (struct bts_slice){ (const uint8_t *)op->key.data + op->key.size, (size_t)bytes_get_u64(p + 8) };
	*at += OPLOG_HEADER + op->bucket.size + op->key.size + op->value.size;
	return true;
}

void oplog_fini(struct oplog *log)
{
	if (log->bytes != NULL)
		log->env->ops->memory(log->env, log->bytes, 0);
	log->bytes = NULL;
	log->size = log->cap = 0;
}
