/*
 * Options of slots and records: u16 type, u16 bytes, the bytes.  Known are two, in a slot:
 *
 *	1  how far a first transfer has come, 64 bytes: u32 epoch, u32 zero, u64 epoch random, u64 transaction, chain 16 of the
 *	   commit it is of; u64 cursor, u64 older transaction, u64 older cursor (struct bts_partial)
 *	0x8001  the epoch that was promised, 12 bytes: u32 number, u64 random
 */
#include "meta.h"

#include <string.h>

#include "error.h"

#define META_OPTION_MUST 0x8000u
#define META_OPTION_FIRST 1u
#define META_FIRST_SIZE 64u
#define META_OPTION_PROMISE 0x8001u
#define META_PROMISE_SIZE (META_PROMISE_BYTES - 4)

/* Bytes of the option that comes first, or 0: it is cut short. */
static size_t meta_option_size(const uint8_t *at, size_t size)
{
	if (size < 4 || bytes_get_u16(at + 2) > size - 4)
		return 0;
	return 4 + (size_t)bytes_get_u16(at + 2);
}

enum bts_err meta_options_check(const uint8_t *at, size_t size, const char *where, struct bts_error *error)
{
	while (size) {
		size_t bytes = meta_option_size(at, size);

		if (!bytes)
			return error_set(error, BTS_CORRUPT, 0, "%s: an option is longer than the room for it", where);
		if (bytes_get_u16(at) & META_OPTION_MUST)
			return error_set(error, BTS_VERSION, 0,
				"%s: needs option type 0x%04x, which this library lacks", where,
				bytes_get_u16(at));
		at += bytes;
		size -= bytes;
	}
	return BTS_OK;
}

const char *meta_room_check(const uint8_t *at, size_t size)
{
	while (size) {
		size_t bytes = meta_option_size(at, size);

		if (!bytes)
			return "an option in its room is cut short";
		if (bytes_get_u16(at) & META_OPTION_MUST)
			return "its room has an option that must be understood and is not";
		at += bytes;
		size -= bytes;
	}
	return NULL;
}

/* A promise that the record has reached says nothing any more, and asks nothing of other libraries. */
static bool meta_promises(const struct meta_slot *slot)
{
	return slot->promised > slot->record.epoch;
}

uint64_t meta_slot_bits(const struct meta_slot *slot)
{
	return (slot->role == META_FENCED ? META_BIT_FENCED : 0) | (meta_promises(slot) ? META_BIT_PROMISE : 0) |
	       (slot->pending_log ? META_BIT_LOG : 0);
}

static size_t meta_put_first(const struct meta_slot *slot, uint8_t *at)
{
	const struct bts_partial *first = &slot->first;

	if (!first->position.txid)
		return 0;
	memset(at, 0, 4 + META_FIRST_SIZE);
	bytes_put_u16(at, META_OPTION_FIRST);
	bytes_put_u16(at + 2, META_FIRST_SIZE);
	at += 4;
	bytes_put_u32(at, first->position.epoch);
	bytes_put_u64(at + 8, first->position.epoch_random);
	bytes_put_u64(at + 16, first->position.txid);
	memcpy(at + 24, first->position.chain, 16);
	bytes_put_u64(at + 40, first->cursor);
	bytes_put_u64(at + 48, first->older);
	bytes_put_u64(at + 56, first->older_cursor);
	return 4 + META_FIRST_SIZE;
}

static size_t meta_put_promise(const struct meta_slot *slot, uint8_t *at)
{
	if (!meta_promises(slot))
		return 0;
	bytes_put_u16(at, META_OPTION_PROMISE);
	bytes_put_u16(at + 2, META_PROMISE_SIZE);
	bytes_put_u32(at + 4, slot->promised);
	bytes_put_u64(at + 8, slot->promised_random);
	return META_PROMISE_BYTES;
}

size_t meta_options_put(const struct meta_slot *slot, uint8_t *at)
{
	size_t size = meta_put_first(slot, at);

	return size + meta_put_promise(slot, at + size);
}

/* NULL, or what is wrong with it. */
static const char *meta_get_first(const uint8_t *at, size_t size, struct bts_partial *first)
{
	if (size != META_FIRST_SIZE || bytes_get_u32(at + 4) || first->position.txid)
		return "the option of a first transfer is malformed";
	first->position.epoch = bytes_get_u32(at);
	first->position.epoch_random = bytes_get_u64(at + 8);
	first->position.txid = bytes_get_u64(at + 16);
	memcpy(first->position.chain, at + 24, 16);
	first->cursor = bytes_get_u64(at + 40);
	first->older = bytes_get_u64(at + 48);
	first->older_cursor = bytes_get_u64(at + 56);
	if (!first->position.txid || first->position.txid >= LAYOUT_TXID_LIMIT || first->cursor >= LAYOUT_PGNO_LIMIT ||
		first->older >= first->position.txid || first->older_cursor >= LAYOUT_PGNO_LIMIT ||
		(first->older ? first->older_cursor < first->cursor : first->older_cursor != 0))
		return "a first transfer that has come nowhere";
	return NULL;
}

static const char *meta_get_promise(const uint8_t *at, size_t size, struct meta_slot *slot)
{
	if (size != META_PROMISE_SIZE || slot->promised)
		return "the option of a promise is malformed";
	slot->promised = bytes_get_u32(at);
	slot->promised_random = bytes_get_u64(at + 4);
	return slot->promised ? NULL : "a promise of no epoch";
}

enum bts_err meta_options_get(
	const uint8_t *at, size_t size, struct meta_slot *slot, const char *where, struct bts_error *error)
{
	const char *wrong = NULL;

	for (size_t bytes; !wrong && size; at += bytes, size -= bytes) {
		enum bts_err err = BTS_OK;

		bytes = meta_option_size(at, size);
		if (bytes && bytes_get_u16(at) == META_OPTION_FIRST)
			wrong = meta_get_first(at + 4, bytes - 4, &slot->first);
		else if (bytes && bytes_get_u16(at) == META_OPTION_PROMISE)
			wrong = meta_get_promise(at + 4, bytes - 4, slot);
		else
			err = meta_options_check(at, bytes ? bytes : size, where, error);
		if (err)
			return err;
	}
	return wrong ? error_set(error, BTS_CORRUPT, 0, "%s: %s", where, wrong) : BTS_OK;
}
