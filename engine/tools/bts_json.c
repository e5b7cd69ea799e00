/*
 * The reader of one line of a dump.
 *
 * A string is decoded where it stands: no escape is shorter than what it means, so the decoded bytes never
 * overtake the reader.  That leaves nothing to allocate and nothing to free.
 */
#include "bts_json.h"
#include <stdio.h>
#include <string.h>

struct json_reader {
	char *line;
	size_t size, at;
	struct bts_json_error *error;
};

static bool json_refuse(struct json_reader *r, size_t at, const char *text)
{
	r->error->column = at + 1;
	snprintf(r->error->text, sizeof(r->error->text), "%s", text);
	return false;
}

static void json_skip_space(struct json_reader *r)
{
	while (r->at < r->size && memchr(" \t\r", r->line[r->at], 3))
		r->at++;
}

static bool json_take(struct json_reader *r, char c)
{
	json_skip_space(r);
	if (r->at == r->size || r->line[r->at] != c)
		return false;
	r->at++;
	return true;
}

/* Four hex digits; -1 when they are not there. */
static long json_hex(struct json_reader *r)
{
	long value = 0;

	if (r->size - r->at < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		char c = r->line[r->at + (size_t)i];
		int digit = c >= '0' && c <= '9'   ? c - '0'
			    : c >= 'a' && c <= 'f' ? c - 'a' + 10
			    : c >= 'A' && c <= 'F' ? c - 'A' + 10
						   : -1;

		if (digit < 0)
			return -1;
		value = value << 4 | digit;
	}
	r->at += 4;
	return value;
}

static size_t json_utf8(unsigned long code, char *to)
{
	if (code < 0x80) {
		to[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		to[0] = (char)(0xc0 | code >> 6);
		to[1] = (char)(0x80 | (code & 63));
		return 2;
	}
	if (code < 0x10000) {
		to[0] = (char)(0xe0 | code >> 12);
		to[1] = (char)(0x80 | (code >> 6 & 63));
		to[2] = (char)(0x80 | (code & 63));
		return 3;
	}
	to[0] = (char)(0xf0 | code >> 18);
	to[1] = (char)(0x80 | (code >> 12 & 63));
	to[2] = (char)(0x80 | (code >> 6 & 63));
	to[3] = (char)(0x80 | (code & 63));
	return 4;
}

/* Behind "\u": one character, two escapes when it is a surrogate pair. */
static bool json_unicode(struct json_reader *r, size_t *out)
{
	size_t start = r->at - 2;
	long code = json_hex(r), low;

	if (code < 0)
		return json_refuse(r, start, "\\u needs four hex digits");
	if (code == 0)
		return json_refuse(r, start, "U+0000 in a string: use the base64 form");
	if (code >= 0xdc00 && code <= 0xdfff)
		return json_refuse(r, start, "half of a surrogate pair");
	if (code >= 0xd800 && code <= 0xdbff) {
		if (r->size - r->at < 2 || r->line[r->at] != '\\' || r->line[r->at + 1] != 'u')
			return json_refuse(r, start, "half of a surrogate pair");
		r->at += 2;
		low = json_hex(r);
		if (low < 0xdc00 || low > 0xdfff)
			return json_refuse(r, start, "half of a surrogate pair");
		code = 0x10000 + ((code - 0xd800) << 10 | (low - 0xdc00));
	}
	*out += json_utf8((unsigned long)code, r->line + *out);
	return true;
}

/* At the backslash. */
static bool json_escape(struct json_reader *r, size_t *out)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *found;

	if (r->size - r->at < 2)
		return json_refuse(r, r->at, "the string does not end");
	r->at += 2;
	if (r->line[r->at - 1] == 'u')
		return json_unicode(r, out);
	found = memchr(from, r->line[r->at - 1], sizeof(from) - 1);
	if (!found)
		return json_refuse(r, r->at - 2, "no such escape");
	r->line[(*out)++] = to[found - from];
	return true;
}

static bool json_string(struct json_reader *r, struct bts_slice *string)
{
	size_t start, out;

	json_skip_space(r);
	start = r->at;
	if (!json_take(r, '"'))
		return json_refuse(r, r->at, "a string must stand here");
	out = r->at;
	string->data = r->line + out;
	while (r->at < r->size && r->line[r->at] != '"') {
		const uint8_t *here = (const uint8_t *)r->line + r->at;
		size_t count;

		if (*here == '\\') {
			if (!json_escape(r, &out))
				return false;
			continue;
		}
		if (*here < 0x20)
			return json_refuse(r, r->at, "a control character in a string must be escaped");
		count = bts_json_character(here, r->size - r->at);
		if (count == 0)
			return json_refuse(r, r->at, "not UTF-8: use the base64 form");
		memmove(r->line + out, here, count);
		out += count;
		r->at += count;
	}
	if (r->at == r->size)
		return json_refuse(r, start, "the string does not end");
	r->at++;
	string->size = (size_t)(r->line + out - (const char *)string->data);
	return true;
}

static bool json_is(struct bts_slice name, const char *word, size_t size)
{
	return name.size == size && memcmp(name.data, word, size) == 0;
}

/* The member called name, and whether its value is base64. */
static struct bts_slice *json_place(struct bts_json_record *record, struct bts_slice name, bool *base64)
{
	static const char suffix[] = "_base64";
	size_t tail = sizeof(suffix) - 1;

	*base64 = name.size > tail && memcmp((const char *)name.data + name.size - tail, suffix, tail) == 0;
	if (*base64)
		name.size -= tail;
	if (json_is(name, "key", 3))
		return &record->key;
	if (json_is(name, "value", 5))
		return &record->value;
	if (json_is(name, "bucket", 6))
		return &record->bucket;
	if (json_is(name, "meta", 4))
		return &record->meta;
	return NULL;
}

static bool json_member(struct json_reader *r, struct bts_json_record *record)
{
	struct bts_slice name, value, *place;
	size_t start, value_start;
	bool base64;

	json_skip_space(r);
	start = r->at;
	if (!json_string(r, &name))
		return false;
	place = json_place(record, name, &base64);
	if (!place)
		return json_refuse(
			r, start, "unknown member (known: key, value, bucket, meta, each also with _base64)");
	if (place->data)
		return json_refuse(r, start, "this member is given twice");
	if (!json_take(r, ':'))
		return json_refuse(r, r->at, "a colon must stand here");
	json_skip_space(r);
	value_start = r->at;
	if (!json_string(r, &value))
		return false;
	if (base64 && !bts_json_base64_decode((char *)(uintptr_t)value.data, &value.size))
		return json_refuse(r, value_start, "not base64 (standard alphabet, padded)");
	*place = value;
	return true;
}

static bool json_whole(struct json_reader *r, struct bts_json_record *record)
{
	if (!record->key.data && !record->bucket.data)
		return json_refuse(r, 0, "neither key nor bucket in this line");
	if (!record->key.data != !record->value.data)
		return json_refuse(
			r, 0, record->key.data ? "a key without a value" : "a value without a key");
	if (record->key.data && record->meta.data)
		return json_refuse(r, 0, "meta belongs to a line without a key");
	return true;
}

bool bts_json_parse(char *line, size_t size, struct bts_json_record *record, struct bts_json_error *error)
{
	struct json_reader r = {.line = line, .size = size, .error = error};
	struct bts_json_record got = {0};

	if (!json_take(&r, '{'))
		return json_refuse(&r, r.at, "an object must stand here");
	if (!json_take(&r, '}')) {
		do {
			if (!json_member(&r, &got))
				return false;
		} while (json_take(&r, ','));
		if (!json_take(&r, '}'))
			return json_refuse(&r, r.at, "a comma or a closing brace must stand here");
	}
	json_skip_space(&r);
	if (r.at != r.size)
		return json_refuse(&r, r.at, "something follows the object");
	if (!json_whole(&r, &got))
		return false;
	*record = got;
	return true;
}
