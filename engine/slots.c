/* Pieces of memory of one size: see slots.h. */
#include "slots.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifndef __has_feature
#define __has_feature(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#define SLOTS_CLOSE(at, size) __asan_poison_memory_region(at, size)
#define SLOTS_OPEN(at, size) __asan_unpoison_memory_region(at, size)
#define SLOTS_GAP SLOTS_LINE /* stays closed */
#else
#define SLOTS_CLOSE(at, size) ((void)0)
#define SLOTS_OPEN(at, size) ((void)0)
#define SLOTS_GAP 0u
#endif

#define SLOTS_LINE 64u
#define SLOTS_FIRST (UINT32_C(40) << 10) /* bytes of the first chunk, when a piece is not larger */
#define SLOTS_MOST (UINT32_C(120) << 10) /* and of later ones: of more the allocator makes a map each time */

struct slots_chunk {
	struct slots_chunk *before;
	size_t bytes; /* of pieces */
};

struct slots_free {
	struct slots_free *next;
};

void slots_init(struct slots *slots, struct bts_env *env, size_t size)
{
	*slots = (struct slots){ .env = env, .size = size };
}

static uint8_t *slots_begin(struct slots_chunk *chunk)
{
	return (uint8_t *)(((uintptr_t)(chunk + 1) + SLOTS_LINE - 1) & ~(uintptr_t)(SLOTS_LINE - 1));
}

void slots_fini(struct slots *slots)
{
	while (slots->chunks != NULL) {
		struct slots_chunk *chunk = slots->chunks;

		slots->chunks = chunk->before;
		SLOTS_OPEN(slots_begin(chunk), chunk->bytes);
		slots->env->ops->memory(slots->env, chunk, 0);
	}
	slots_init(slots, slots->env, slots->size);
}

static bool slots_more(struct slots *slots)
{
	size_t stride = slots->size + SLOTS_GAP;
	size_t count = (slots->chunks == NULL ? SLOTS_FIRST : SLOTS_MOST) / stride;
	struct slots_chunk *chunk;

	if (count == 0)
		count = 1;
	chunk = slots->env->ops->memory(slots->env, NULL, sizeof(*chunk) + SLOTS_LINE - 1 + count * stride);
	if (chunk == NULL)
		return false;
	*chunk = (struct slots_chunk){ slots->chunks, count * stride };
	slots->chunks = chunk;
	slots->next = slots_begin(chunk);
	slots->left = count;
	SLOTS_CLOSE(slots->next, chunk->bytes);
	return true;
}

uint8_t *slots_take(struct slots *slots)
{
	struct slots_free *given = slots->given;
	uint8_t *piece = slots->next;

	if (given != NULL) {
		SLOTS_OPEN(given, slots->size);
		slots->given = given->next;
		return (uint8_t *)given;
	}
	if (slots->left == 0) {
		if (!slots_more(slots))
			return NULL;
		piece = slots->next;
	}
	SLOTS_OPEN(piece, slots->size);
	slots->next = piece + slots->size + SLOTS_GAP;
	slots->left--;
	return piece;
}

void slots_give(struct slots *slots, uint8_t *piece)
{
	struct slots_free *given = (struct slots_free *)(void *)piece;

#ifdef BTS_PARANOID
	memset(piece, 0xa5, slots->size);
#endif
	given->next = slots->given;
	slots->given = given;
	SLOTS_CLOSE(piece, slots->size);
}
