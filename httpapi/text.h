/* Encodings of bytes as text: UTF-8 check, base64 in both alphabets, percent-encoding, hexadecimal. */
#ifndef HTTPAPI_TEXT_H
#define HTTPAPI_TEXT_H

#include <stddef.h>
#include <stdint.h>

struct buf;

/* Valid UTF-8 (no surrogates, no overlong forms, at most U+10FFFF) without U+0000. */
int text_utf8_plain(const void *data, size_t size);

void text_base64(struct buf *, const void *data, size_t size);	  /* with padding */
void text_base64url(struct buf *, const void *data, size_t size); /* without */
/* The same to out, which has room for size / 3 * 4 + 3; how many characters. */
size_t text_base64url_to(char *out, const void *data, size_t size);
/* Writes at most size / 4 * 3 + 3 bytes to out, returns how many, or -1.  Strict: no spaces, no stray bits.
 */
long text_base64_decode(const char *text, size_t size, void *out);
long text_base64url_decode(const char *text, size_t size, void *out);

/* Writes at most size bytes to out (which may be text), returns how many, or -1 with *bad at the offending
 * '%'. */
long text_percent_decode(const char *text, size_t size, char *out, size_t *bad);
/* All but unreserved characters as %XX. */
void text_percent(struct buf *, const void *data, size_t size);

void text_hex(char *out, const void *data, size_t size); /* 2 * size characters and a NUL */

/* Decimal without sign or spaces; 0, or -1 when it is not that or above max. */
int text_u64(const char *text, size_t size, uint64_t max, uint64_t *value);
/* value as decimal and a NUL; how many digits.  What snprintf would do, in a tenth of its time. */
size_t text_from_u64(uint64_t value, char out[21]);
/* "500ms", "30s", "2m", "8h", "7d"; 0 or -1. */
int text_duration_ms(const char *text, size_t size, uint64_t *ms);
#endif
