/* Lines of JSON: the records that bts loads and dumps, and a small writer for everything it prints. */
#ifndef BTS_JSON_H
#define BTS_JSON_H

#include <btree_store.h>
#include <stdbool.h>

/* A line may be this long: what one value can make of the memory of a reader.  Longer ones are refused by
 * both ends. */
#define BTS_JSON_LINE_MAX (UINT64_C(1) << 30)

/*
 * One line of a dump: {"bucket":..,"key":..,"value":..}, or {"bucket":..,"meta":..} for what a bucket is
 * besides its entries.  Each member may come as NAME_base64 instead.  data is NULL when the member is absent.
 */
struct bts_json_record {
	struct bts_slice bucket, key, value, meta;
};

struct bts_json_error {
	size_t column; /* from 1, bytes */
	char text[120];
};

/*
 * Decode one line, without its newline, in place: the slices point into line.  Strict: an object of known
 * members, each at most once, strings of valid UTF-8 without U+0000, canonical base64, nothing behind. False:
 * error is filled.
 */
bool bts_json_parse(char *line, size_t size, struct bts_json_record *record, struct bts_json_error *error);

/* Text being built.  Zero-initialised; failed is set when memory ran out or the text passed
 * BTS_JSON_LINE_MAX. */
struct bts_json_text {
	char *data;
	size_t size, cap;
	bool failed;
};

void bts_json_raw(struct bts_json_text *text, const char *chars); /* as it is */
/* "name":"value", or "name_base64":".." when the value is not UTF-8 without U+0000. */
void bts_json_member(struct bts_json_text *text, const char *name, struct bts_slice value);
void bts_json_quoted(struct bts_json_text *text, struct bts_slice value); /* a string; value must be UTF-8 */
void bts_json_number(struct bts_json_text *text, const char *name, uint64_t value); /* "name":value */
void bts_json_free(struct bts_json_text *text);

/* Valid UTF-8 (no overlong forms, no surrogates) without U+0000. */
bool bts_json_is_text(struct bts_slice bytes);
/* Bytes of the valid UTF-8 character at the start, 0 when there is none. */
size_t bts_json_character(const uint8_t *bytes, size_t size);
/* Canonical base64 with padding, in place; *size becomes the decoded size. */
bool bts_json_base64_decode(char *chars, size_t *size);

#endif
