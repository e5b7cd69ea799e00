/*
 * Values written in pieces.
 *
 * The bytes go where the transaction's large values are (dirty.h, spill.h), once; the end of the stream is the put.  A
 * value of unknown size grows by doubling, later by quarters: at the end of the temporary file it grows where it is.  One whose
 * size is known to be large goes to its final place (lease.h), if there is one to be had.
 */
#include "ops.h"

#include "error.h"
#include "lease.h"

#include <string.h>

#define STREAM_FIRST UINT64_C(65536) /* bytes to begin with when the size is not known */
#define STREAM_DOUBLES (UINT64_C(64) << 20)

struct bts_stream {
	struct bts_txn *txn;
	struct bucket_state *bucket;
	struct bts_stream *next, **link;
	unsigned flags;
	bool known;
	uint64_t size; /* bytes of room: of the value when its size is known */
	uint64_t done;
	struct page_ptr ptr; /* the private value */
	uint64_t serial;     /* of it: a savepoint may have taken it away */
	uint8_t *data;
	struct lease *lease; /* NULL: the bytes go to data */
	enum bts_err broken; /* a write to the final place failed */
	uint32_t key_size;
	uint8_t key[BTS_KEY_MAX];
};

static struct tree_ctx *stream_ctx(struct bts_stream *stream)
{
	return &stream->txn->state->ctx;
}

static bool stream_has_value(struct bts_stream *stream)
{
	return dirty_serial(stream->txn->state->dirty, &stream->ptr) == stream->serial;
}

static void stream_free(struct bts_stream *stream)
{
	struct bts_env *env = stream->txn->db->env;

	*stream->link = stream->next;
	if (stream->next != NULL)
		stream->next->link = stream->link;
	env->ops->memory(env, stream, 0);
}

static enum bts_err stream_check(
	struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key, uint64_t size, unsigned flags)
{
	enum bts_err err = ops_check_write(txn);

	if (err == BTS_OK)
		err = ops_check_key(txn, bucket, key);
	if (err == BTS_OK && size != BTS_SIZE_UNKNOWN && size > BTS_VALUE_MAX)
		err = error_set(&txn->error, BTS_INVALID, 0, "value of %llu bytes (at most 2^40 - 1)",
			(unsigned long long)size);
	if (err == BTS_OK)
		err = ops_check_presence(txn, (struct bucket_state *)bucket, key, flags);
	return err;
}

static enum bts_err stream_place(struct bts_stream *stream)
{
	struct bts_slice value = {0};

	if (stream->known && stream->size >= LEASE_MIN)
		stream->lease = lease_take(stream->txn, stream->size);
	if (stream->lease == NULL)
		return dirty_extent_open(stream_ctx(stream), stream->size, &stream->ptr, &stream->data);
	value = (struct bts_slice){stream->lease->data, (size_t)stream->size};
	return dirty_leased(stream_ctx(stream), value, stream->lease->sums, stream->lease, &stream->ptr);
}

enum bts_err bts_put_begin(struct bts_txn *txn, struct bts_bucket *bucket, struct bts_slice key,
	uint64_t size, unsigned flags, struct bts_stream **out, struct bts_error *error)
{
	struct bts_env *env = txn->db->env;
	struct bts_stream *stream = NULL;
	enum bts_err err = stream_check(txn, bucket, key, size, flags);

	if (err)
		goto fail;
	stream = env->ops->memory(env, NULL, sizeof(*stream));
	if (stream == NULL) {
		err = error_set(&txn->error, BTS_MEMORY, 0, "no memory for a stream");
		goto fail;
	}
	memset(stream, 0, offsetof(struct bts_stream, key));
	stream->txn = txn;
	stream->bucket = (struct bucket_state *)bucket;
	stream->flags = flags;
	stream->known = size != BTS_SIZE_UNKNOWN;
	stream->size = stream->known ? size : STREAM_FIRST;
	err = stream_place(stream);
	if (err)
		goto fail;
	stream->serial = dirty_serial(txn->state->dirty, &stream->ptr);
	stream->key_size = (uint32_t)key.size;
	memcpy(stream->key, key.data, key.size);
	stream->next = txn->streams;
	stream->link = &txn->streams;
	if (stream->next != NULL)
		stream->next->link = &stream->next;
	txn->streams = stream;
	*out = stream;
	return BTS_OK;
fail:
	if (stream != NULL)
		lease_drop(stream->lease);
	env->ops->memory(env, stream, 0);
	if (error != NULL)
		*error = txn->error;
	return err;
}

/* Room for that many bytes in all, of a value whose size is not known. */
static enum bts_err stream_grow(struct bts_stream *stream, uint64_t need)
{
	uint64_t size = stream->size;
	enum bts_err err;

	while (size < need)
		size += size < STREAM_DOUBLES ? size : size / 4;
	err = dirty_extent_resize(stream_ctx(stream), &stream->ptr, size, &stream->data);
	if (err && size > need) /* what is needed may do */
		err = dirty_extent_resize(stream_ctx(stream), &stream->ptr, size = need, &stream->data);
	if (err == BTS_OK)
		stream->size = size;
	return err;
}

static enum bts_err stream_write_lease(struct bts_stream *stream, struct bts_slice bytes)
{
	stream->broken = lease_write(stream->lease, bytes, &stream->txn->error);
	stream->done += bytes.size;
	return stream->broken;
}

enum bts_err bts_put_write(struct bts_stream *stream, struct bts_slice bytes)
{
	struct bts_error *error = &stream->txn->error;
	uint64_t limit = stream->known ? stream->size : BTS_VALUE_MAX;
	enum bts_err err = ops_check_write(stream->txn);

	if (err)
		return err;
	if (!stream_has_value(stream))
		return error_set(error, BTS_INVALID, 0,
			"the stream was begun after a savepoint that was rolled back to");
	if (stream->broken)
		return error_set(error, stream->broken, 0, "an earlier write of this stream failed");
	if (bytes.size > limit - stream->done)
		return error_set(error, BTS_INVALID, 0, "a value of more than the %llu bytes it may have",
			(unsigned long long)limit);
	if (stream->lease != NULL)
		return stream_write_lease(stream, bytes);
	if (bytes.size > stream->size - stream->done) {
		err = stream_grow(stream, stream->done + bytes.size);
		if (err)
			return err;
	}
	if (bytes.size > 0)
		memcpy(stream->data + stream->done, bytes.data, bytes.size);
	stream->done += bytes.size;
	return BTS_OK;
}

static enum bts_err stream_complete(struct bts_stream *stream)
{
	struct bts_txn *txn = stream->txn;
	struct bts_slice key = {stream->key, stream->key_size};
	enum bts_err err =
		stream_check(txn, (struct bts_bucket *)stream->bucket, key, stream->done, stream->flags);

	if (err)
		return err;
	if (!stream_has_value(stream))
		return error_set(&txn->error, BTS_INVALID, 0,
			"the stream was begun after a savepoint that was rolled back to");
	if (stream->broken)
		return error_set(&txn->error, stream->broken, 0, "an earlier write of this stream failed");
	if (stream->known && stream->done != stream->size)
		return error_set(&txn->error, BTS_INVALID, 0,
			"a value of %llu bytes was announced, %llu were written",
			(unsigned long long)stream->size, (unsigned long long)stream->done);
	return BTS_OK;
}

/* The value in the leaf when it is small, where it is otherwise. */
static enum bts_err stream_put(struct bts_stream *stream)
{
	struct bts_txn *txn = stream->txn;
	struct bts_slice key = {stream->key, stream->key_size};
	struct bts_slice value = {stream->data, (size_t)stream->done};
	enum bts_err err = BTS_OK;

	if (stream->lease != NULL) {
		value.data = stream->lease->data;
		return ops_put(txn, stream->bucket, key, value, &stream->ptr);
	}
	if (node_fits_inline(txn->db->pager.page_size, key.size, value.size)) {
		err = ops_put(txn, stream->bucket, key, value, NULL);
		(void)dirty_release(
			stream_ctx(stream), &stream->ptr, 1); /* else it goes with the transaction */
		return err;
	}
	if (stream->size > stream->done)
		err = dirty_extent_resize(stream_ctx(stream), &stream->ptr, stream->done, &stream->data);
	if (err) {
		(void)dirty_release(stream_ctx(stream), &stream->ptr, 1);
		return err;
	}
	value.data = stream->data;
	return ops_put(txn, stream->bucket, key, value, &stream->ptr);
}

enum bts_err bts_put_end(struct bts_stream *stream, struct bts_error *error)
{
	struct bts_txn *txn = stream->txn;
	enum bts_err err = stream_complete(stream);

	if (err) {
		bts_put_abort(stream);
	} else {
		err = stream_put(stream);
		stream_free(stream);
	}
	if (err && error != NULL)
		*error = txn->error;
	return err;
}

void bts_put_abort(struct bts_stream *stream)
{
	if (stream == NULL)
		return;
	if (stream_has_value(stream))
		(void)dirty_release(
			stream_ctx(stream), &stream->ptr, 1); /* else it goes with the transaction */
	lease_drop(stream->lease);
	stream_free(stream);
}

void stream_drop(struct bts_txn *txn)
{
	while (txn->streams != NULL)
		bts_put_abort(txn->streams);
}
