/* A frame out of an archive. */
#include "fetch.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct fetch_buffer {
	uint8_t *bytes;
	size_t size, cap, most;
};

static enum bts_err fetch_piece(void *arg, const void *data, size_t size, struct bts_error *error)
{
	struct fetch_buffer *buffer = arg;

	if (size > buffer->most - buffer->size)
		return fail_set(error, BTS_CORRUPT, "more than the %zu bytes it should have", buffer->most);
	if (size > buffer->cap - buffer->size) {
		size_t cap = 2 * buffer->cap + size < buffer->most ? 2 * buffer->cap + size : buffer->most;
		uint8_t *bigger = realloc(buffer->bytes, cap);

		if (!bigger)
			return fail_set(error, BTS_MEMORY, "no memory for an object of %zu bytes", cap);
		buffer->bytes = bigger;
		buffer->cap = cap;
	}
	if (size)
		memcpy(buffer->bytes + buffer->size, data, size);
	buffer->size += size;
	return BTS_OK;
}

enum bts_err fetch_object(
	struct store *store, const char *key, size_t most, struct bts_slice *bytes, struct bts_error *error)
{
	struct fetch_buffer buffer = {.most = most};
	enum bts_err err = store_get(store, key, fetch_piece, &buffer, error);

	if (err)
		free(buffer.bytes);
	else
		*bytes = (struct bts_slice){buffer.bytes, buffer.size};
	return err;
}

static size_t fetch_part_size(const struct manifest_entry *entry, uint32_t part)
{
	uint64_t left = entry->bytes - (uint64_t)part * MANIFEST_PART_BYTES;

	return left < MANIFEST_PART_BYTES ? (size_t)left : MANIFEST_PART_BYTES;
}

/* Before the text that is there already: which object it is about. */
static enum bts_err fetch_failed(
	enum bts_err err, const char *key, const struct bts_error *why, struct bts_error *error)
{
	if (err == BTS_NOT_FOUND)
		return fail_set(
			error, BTS_CORRUPT, "%s: the archive lacks it, though a manifest names it", key);
	if (strstr(why->text, key))
		return fail_set(error, err, "%s", why->text);
	return fail_set(error, err, "%s: %s", key, why->text);
}

static enum bts_err fetch_part(struct store *store, const struct manifest_entry *entry, uint32_t part,
	struct fetch_buffer *buffer, uint32_t *crc, struct bts_error *error)
{
	size_t size = fetch_part_size(entry, part);
	char key[MANIFEST_KEY_SIZE];
	enum bts_err err;

	manifest_part_key(entry, part, key);
	buffer->size = 0;
	buffer->most = size;
	err = store_get(store, key, fetch_piece, buffer, error);
	if (err)
		return err;
	if (buffer->size != size)
		return fail_set(error, BTS_CORRUPT, "%zu bytes, it should have %zu", buffer->size, size);
	*crc = bts_crc32c(*crc, buffer->bytes, size);
	if (part + 1 == entry->parts && *crc != entry->crc)
		return fail_set(error, BTS_CORRUPT,
			"the frame that it ends has another sum than the manifest says: one of its %" PRIu32
			" parts is damaged or another's",
			entry->parts);
	return BTS_OK;
}

enum bts_err fetch_frame(struct store *store, const struct manifest_entry *entry, fetch_part_fn *visit,
	void *arg, struct bts_error *error)
{
	struct fetch_buffer buffer = {.cap = 0};
	struct bts_error why = {0};
	char key[MANIFEST_KEY_SIZE];
	enum bts_err err = BTS_OK;
	uint32_t crc = 0, part;

	for (part = 0; part < entry->parts && !err; part++) {
		err = fetch_part(store, entry, part, &buffer, &crc, &why);
		if (!err)
			err = visit(arg, (struct bts_slice){buffer.bytes, buffer.size}, &why);
	}
	free(buffer.bytes);
	if (!err)
		return BTS_OK;
	manifest_part_key(entry, part - 1, key);
	return fetch_failed(err, key, &why, error);
}
