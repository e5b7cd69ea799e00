/* Where each field of a frame lies.  Private to the encoder and the decoder. */
#ifndef FRAME_LAYOUT_H
#define FRAME_LAYOUT_H

enum {
	/* header */
	FRAME_AT_MAGIC = 0,
	FRAME_AT_VERSION = 8,
	FRAME_AT_SIZE = 10, /* u16, of the header: FRAME_HEADER_SIZE */
	FRAME_AT_NEED = 12,
	FRAME_AT_DATABASE = 16,
	FRAME_AT_BASE = 32,
	FRAME_AT_TARGET = 72,
	FRAME_AT_PAGE_SIZE = 112,
	FRAME_AT_HEADER_SUM = 116, /* of a long header the rest of it, and the sum at the end */
	FRAME_AT_PARTIAL = 116,	   /* a position */
	FRAME_AT_CURSOR = 156,
	FRAME_AT_OLDER = 164,
	FRAME_AT_OLDER_CURSOR = 172,

	/* a position within the header, 40 bytes */
	FRAME_AT_EPOCH = 0,
	FRAME_AT_EPOCH_ZERO = 4,
	FRAME_AT_EPOCH_RANDOM = 8,
	FRAME_AT_TXID = 16,
	FRAME_AT_CHAIN = 24,

	/* chunk head */
	FRAME_AT_TAG = 0,
	FRAME_AT_ENTRIES = 4,
	FRAME_AT_CHUNK_PAGES = 8,
	FRAME_AT_STORED = 12, /* zero without zstd */

	/* index entry */
	FRAME_AT_PGNO = 0,   /* u48 */
	FRAME_AT_BIRTH = 6,  /* u48 */
	FRAME_AT_CRC = 12,
	FRAME_AT_COUNT = 16,
	FRAME_AT_FIRST = 20,
	FRAME_AT_PAGES = 24, /* u16 */
	FRAME_AT_KIND = 26,  /* u8 */
	FRAME_AT_ENTRY_ZERO = 27,

	/* trailer; the record and the sum follow */
	FRAME_AT_RECORD_SIZE = 4,
	FRAME_AT_UNITS = 8,
	FRAME_AT_TOTAL_PAGES = 16,
	FRAME_AT_DIGEST = 24,
	FRAME_AT_RECORD_STORED = 40, /* of a lean frame; the record comes behind it */
};

#endif
