/*
 * The names and the texts of an archive: which objects hold the bytes of a frame, and the manifests that list the frames of an
 * epoch.  Pure.  What a store gives is not trusted: parsing takes exactly what writing makes.
 *
 * All of a database lies below its id, and is of these two kinds:
 *
 *	HEX/frames/EPOCH/TARGET-BASE-NONCE.PART		a part of a frame: MANIFEST_PART_BYTES of it, the last one less
 *	HEX/manifest/EPOCH/SEQUENCE			entry number SEQUENCE of that epoch, with those of its block before it
 *
 * EPOCH is number and random in hex, of the frame's target.  A manifest is put only where there is none, so each number is given
 * once.  It has the entries of its block of MANIFEST_BLOCK up to its own; who has the last one of each block has all.
 *
 * Entries stand in the order in which their frames were complete, which is not that of their targets: a frame of everything takes long,
 * and others are written meanwhile.  Of two entries of one history the one with the higher target never has the lower time.
 */
#ifndef MANIFEST_H
#define MANIFEST_H

#include "fail.h"
#include "position.h"

#define MANIFEST_PART_BYTES (UINT32_C(16) << 20)
#define MANIFEST_PARTS_MAX 1000000
#define MANIFEST_BLOCK 256
#define MANIFEST_SEQUENCE_MAX UINT64_C(999999999999)
#define MANIFEST_TIME_MAX (UINT64_C(1) << 53) /* ms */
#define MANIFEST_KEY_SIZE 128		      /* of any key here, NUL included */
#define MANIFEST_LINE_SIZE 512
#define MANIFEST_TEXT_MAX ((MANIFEST_BLOCK + 2) * MANIFEST_LINE_SIZE)

/* A frame that is in the archive whole.  Its target is a state that can be restored. */
struct manifest_entry {
	struct bts_position from; /* txid 0: the frame holds everything */
	struct bts_position to;
	uint32_t nonce; /* of its parts' names: two that write the same difference do not meet */
	uint32_t parts;
	uint32_t crc; /* CRC32C of all its bytes */
	uint64_t bytes, pages;
	uint64_t
		time_ms; /* wall clock: every commit made before that is in it.  Never decreases from entry to entry */
};

struct manifest {
	struct bts_position
		epoch;	   /* database, number and random, of every entry's target; the rest is not used */
	uint64_t sequence; /* of the last entry; that of entries[0] is a multiple of MANIFEST_BLOCK */
	size_t count;	   /* sequence % MANIFEST_BLOCK + 1 */
	struct manifest_entry entries[MANIFEST_BLOCK];
};

/* Bytes put to out; no NUL.  The manifest must be one that parses. */
size_t manifest_write(const struct manifest *, char out[MANIFEST_TEXT_MAX]);
/*
 * epoch and sequence are set, from the key that the text was under; the rest is filled.  BTS_CORRUPT names the line, BTS_VERSION: it
 * is of a later kind; then the entries are of no use.
 */
BTS_MUST_CHECK enum bts_err manifest_parse(struct bts_slice text, struct manifest *, struct bts_error *error);
/* Parts that so many bytes are cut in; 0: more than an archive takes, or none. */
uint32_t manifest_parts(uint64_t bytes);

/* Keys, and what all keys of a database, of its manifests or of those of an epoch begin with; of *epoch as manifest.epoch. */
void manifest_root(const uint8_t database[16], char out[MANIFEST_KEY_SIZE]);	       /* "HEX/" */
void manifest_frames_root(const uint8_t database[16], char out[MANIFEST_KEY_SIZE]);    /* "HEX/frames/" */
void manifest_manifests_root(const uint8_t database[16], char out[MANIFEST_KEY_SIZE]); /* "HEX/manifest/" */
void manifest_epoch_root(
	const struct bts_position *epoch, char out[MANIFEST_KEY_SIZE]); /* "HEX/manifest/EPOCH/" */
void manifest_key(const struct bts_position *epoch, uint64_t sequence, char out[MANIFEST_KEY_SIZE]);
void manifest_part_key(const struct manifest_entry *, uint32_t part, char out[MANIFEST_KEY_SIZE]);

struct manifest_part {
	struct bts_position epoch; /* as manifest.epoch */
	bts_txid target, base;
	uint32_t nonce, part;
};
/* false: not such a key, whatever it is.  Outputs untouched then. */
bool manifest_key_parse(const char *key, struct bts_position *epoch, uint64_t *sequence);
bool manifest_part_key_parse(const char *key, struct manifest_part *);
/* Is the part one of that frame's? */
bool manifest_part_of(const struct manifest_part *, const struct manifest_entry *);

#endif
