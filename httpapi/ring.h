/* Lines from one thread to another through bounded memory: what does not fit is dropped and counted, nobody waits. */
#ifndef HTTPAPI_RING_H
#define HTTPAPI_RING_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define RING_SIZE ((size_t)1 << 18) /* bytes; a power of two */

struct ring {
	char *bytes;
	atomic_size_t head, tail; /* ever put and ever taken: the writer's, the reader's */
	atomic_uint_least64_t dropped;
};

int ring_init(struct ring *);  /* 0, or -1: no memory */
void ring_fini(struct ring *); /* a zeroed one is fine */
/* One record with its mark, whole or not at all.  0, or -1 when it was dropped.  One thread. */
int ring_put(struct ring *, uint8_t mark, const void *data, size_t size);
/* The oldest record into out, which has room for RING_RECORD_MAX.  Its size, 0 when there is none.  One thread. */
#define RING_RECORD_MAX 16384
size_t ring_take(struct ring *, uint8_t *mark, char *out);
#endif
