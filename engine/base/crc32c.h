/*
 * CRC32C (Castagnoli, reflected polynomial 0x82f63b78, as in iSCSI, RFC 3720 appendix B.4).
 */
#ifndef CRC32C_H
#define CRC32C_H

#include <stddef.h>
#include <stdint.h>

/*
 * The checksum of size bytes at data.  seed is 0 to begin, or the checksum of what came before:
 * crc32c(crc32c(0, a), b) is that of a followed by b.  Any alignment; uses the processor's instruction when
 * it has one.
 */
uint32_t crc32c(uint32_t seed, const void *data, size_t size);

/* The same by tables alone: the reference that the tests hold crc32c against. */
uint32_t crc32c_portable(uint32_t seed, const void *data, size_t size);

/*
 * From the checksums of two pieces that of one behind the other, without their bytes: a of the first, b of the second, begun with
 * seed 0, shift for the size of the second.
 */
uint32_t crc32c_join(uint32_t a, uint32_t b, uint32_t shift);
uint32_t crc32c_join_portable(uint32_t a, uint32_t b, uint32_t shift);
uint32_t crc32c_shift(uint64_t size);

#endif
