/* Positions as text, and their comparison.  A position names one durable state for ever (invariant R3). */
#ifndef POSITION_H
#define POSITION_H

#include <stdbool.h>

#include <btree_store/ship.h>

/* Beyond this a primary refuses to write (R3), so no honest position reaches it. */
#define POSITION_TXID_MAX ((UINT64_C(1) << 48) - (UINT64_C(1) << 32) - 1)

#define POSITION_EPOCH_SIZE 28 /* "4294967295-" and 16 hex digits, NUL */
#define POSITION_ID_SIZE 33    /* 16 bytes in hex, NUL */
#define POSITION_TEXT_SIZE 84  /* epoch/txid/chain */

/* Lower-case hex of size bytes; out has room for 2 * size + 1. */
void position_hex(const uint8_t *bytes, size_t size, char *out);
/* text must be exactly 2 * size hex digits; out untouched when it is not. */
bool position_hex_parse(const char *text, uint8_t *out, size_t size);
/* Decimal digits only, at most max. */
bool position_number_parse(const char *text, uint64_t max, uint64_t *out);

/* "NUMBER-RANDOM", the random in 16 hex digits. */
void position_epoch_text(const struct bts_position *, char out[POSITION_EPOCH_SIZE]);
bool position_epoch_parse(const char *text, struct bts_position *);
/* "EPOCH/TXID/CHAIN". */
void position_text(const struct bts_position *, char out[POSITION_TEXT_SIZE]);
/* The same back; the database is left alone.  Of malformed text nothing counts. */
bool position_parse(const char *text, struct bts_position *);

/* One state: two empty positions of a database are equal whatever their epoch and chain say. */
bool position_equal(const struct bts_position *a, const struct bts_position *b);
bool position_same_database(const struct bts_position *a, const struct bts_position *b);

#endif
