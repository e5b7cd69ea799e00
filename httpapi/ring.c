/*
 * One writer, one reader, a power of two of bytes.  A record is its size, its mark and its bytes, cut where the memory ends; head
 * and tail count for ever, so head - tail is what is inside.  The writer releases head after the bytes, the reader tail after
 * its copy: neither sees the other's half work.
 */
#include "ring.h"

#include <stdlib.h>
#include <string.h>

#define RING_HEAD 5 /* size, mark */

int ring_init(struct ring *r)
{
	memset(r, 0, sizeof(*r));
	r->bytes = malloc(RING_SIZE);
	return r->bytes ? 0 : -1;
}

void ring_fini(struct ring *r)
{
	free(r->bytes);
	r->bytes = NULL;
}

static void ring_in(struct ring *r, size_t at, const void *data, size_t size)
{
	size_t start = at & (RING_SIZE - 1), first = RING_SIZE - start < size ? RING_SIZE - start : size;

	memcpy(r->bytes + start, data, first);
	memcpy(r->bytes, (const char *)data + first, size - first);
}

static void ring_out(const struct ring *r, size_t at, void *data, size_t size)
{
	size_t start = at & (RING_SIZE - 1), first = RING_SIZE - start < size ? RING_SIZE - start : size;

	memcpy(data, r->bytes + start, first);
	memcpy((char *)data + first, r->bytes, size - first);
}

int ring_put(struct ring *r, uint8_t mark, const void *data, size_t size)
{
	size_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	size_t used = head - atomic_load_explicit(&r->tail, memory_order_acquire);
	uint32_t length = (uint32_t)size;

	if (size > RING_RECORD_MAX || RING_SIZE - used < RING_HEAD + size) {
		atomic_fetch_add_explicit(&r->dropped, 1, memory_order_relaxed);
		return -1;
	}
	ring_in(r, head, &length, sizeof(length));
	ring_in(r, head + 4, &mark, 1);
	ring_in(r, head + RING_HEAD, data, size);
	atomic_store_explicit(&r->head, head + RING_HEAD + size, memory_order_release);
	return 0;
}

size_t ring_take(struct ring *r, uint8_t *mark, char *out)
{
	size_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
	uint32_t length;

	if (atomic_load_explicit(&r->head, memory_order_acquire) == tail)
		return 0;
	ring_out(r, tail, &length, sizeof(length));
	ring_out(r, tail + 4, mark, 1);
	ring_out(r, tail + RING_HEAD, out, length);
	atomic_store_explicit(&r->tail, tail + RING_HEAD + length, memory_order_release);
	return length;
}
