/*
 * Fixed-width integers in bytes: little-endian everywhere on disk and on the wire, big-endian where byte
 * order must be key order.  The pointer needs no alignment and must have that many bytes; the caller has
 * checked the bounds.
 */
#ifndef BYTES_H
#define BYTES_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define BYTES_LE16(v) (v)
#define BYTES_LE32(v) (v)
#define BYTES_LE64(v) (v)
#define BYTES_BE32(v) __builtin_bswap32(v)
#define BYTES_BE64(v) __builtin_bswap64(v)
#else
#define BYTES_LE16(v) __builtin_bswap16(v)
#define BYTES_LE32(v) __builtin_bswap32(v)
#define BYTES_LE64(v) __builtin_bswap64(v)
#define BYTES_BE32(v) (v)
#define BYTES_BE64(v) (v)
#endif

static inline uint16_t bytes_get_u16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return BYTES_LE16(v);
}

static inline uint32_t bytes_get_u32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return BYTES_LE32(v);
}

/* 6 bytes. */
static inline uint64_t bytes_get_u48(const void *p)
{
	return (uint64_t)bytes_get_u32(p) | (uint64_t)bytes_get_u16((const uint8_t *)p + 4) << 32;
}

/* 6 bytes of which 2 more can be read: one load. */
static inline uint64_t bytes_get_u48_wide(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return BYTES_LE64(v) & ((UINT64_C(1) << 48) - 1);
}

static inline uint64_t bytes_get_u64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return BYTES_LE64(v);
}

static inline void bytes_put_u16(void *p, uint16_t v)
{
	v = BYTES_LE16(v);
	memcpy(p, &v, sizeof(v));
}

static inline void bytes_put_u32(void *p, uint32_t v)
{
	v = BYTES_LE32(v);
	memcpy(p, &v, sizeof(v));
}

/* 6 bytes; the upper 16 bits of v are not stored. */
static inline void bytes_put_u48(void *p, uint64_t v)
{
	bytes_put_u32(p, (uint32_t)v);
	bytes_put_u16((uint8_t *)p + 4, (uint16_t)(v >> 32));
}

static inline void bytes_put_u64(void *p, uint64_t v)
{
	v = BYTES_LE64(v);
	memcpy(p, &v, sizeof(v));
}

static inline uint32_t bytes_get_be32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return BYTES_BE32(v);
}

static inline uint64_t bytes_get_be64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return BYTES_BE64(v);
}

static inline void bytes_put_be32(void *p, uint32_t v)
{
	v = BYTES_BE32(v);
	memcpy(p, &v, sizeof(v));
}

static inline void bytes_put_be64(void *p, uint64_t v)
{
	v = BYTES_BE64(v);
	memcpy(p, &v, sizeof(v));
}

#endif
