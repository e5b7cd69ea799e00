/* The writer of JSON text, UTF-8 and base64. */
#include "bts_json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t bts_json_character(const uint8_t *bytes, size_t size)
{
	uint8_t lead = size ? bytes[0] : 0x80;
	size_t count = lead < 0x80   ? 1
		       : lead < 0xc2 ? 0
		       : lead < 0xe0 ? 2
		       : lead < 0xf0 ? 3
		       : lead < 0xf5 ? 4
				     : 0;

	if (count == 0 || count > size)
		return 0;
	for (size_t i = 1; i < count; i++)
		if ((bytes[i] & 0xc0) != 0x80)
			return 0;
	if (lead == 0xe0 && bytes[1] < 0xa0) /* overlong */
		return 0;
	if (lead == 0xed && bytes[1] > 0x9f) /* surrogates */
		return 0;
	if (lead == 0xf0 && bytes[1] < 0x90) /* overlong */
		return 0;
	if (lead == 0xf4 && bytes[1] > 0x8f) /* past U+10FFFF */
		return 0;
	return count;
}

bool bts_json_is_text(struct bts_slice bytes)
{
	const uint8_t *at = bytes.data;
	size_t left = bytes.size;

	while (left) {
		size_t count = bts_json_character(at, left);

		if (count == 0 || *at == 0)
			return false;
		at += count;
		left -= count;
	}
	return true;
}

static char *json_text_room(struct bts_json_text *text, size_t more)
{
	size_t cap = text->cap ? text->cap : 256;
	char *data;

	if (text->failed || more > BTS_JSON_LINE_MAX - text->size) {
		text->failed = true;
		return NULL;
	}
	while (cap < text->size + more)
		cap *= 2;
	if (cap != text->cap) {
		data = realloc(text->data, cap);
		if (!data) {
			text->failed = true;
			return NULL;
		}
		text->data = data;
		text->cap = cap;
	}
	data = text->data + text->size;
	text->size += more;
	return data;
}

static void json_text_add(struct bts_json_text *text, const void *bytes, size_t size)
{
	char *to = json_text_room(text, size);

	if (to && size)
		memcpy(to, bytes, size);
}

void bts_json_raw(struct bts_json_text *text, const char *chars)
{
	json_text_add(text, chars, strlen(chars));
}

static void json_text_escape(struct bts_json_text *text, uint8_t c)
{
	static const char *const named[] = {['\b'] = "\\b",
		['\t'] = "\\t",
		['\n'] = "\\n",
		['\f'] = "\\f",
		['\r'] = "\\r",
		['"'] = "\\\"",
		['\\'] = "\\\\"};
	char chars[8];

	if (c < sizeof(named) / sizeof(named[0]) && named[c]) {
		bts_json_raw(text, named[c]);
		return;
	}
	snprintf(chars, sizeof(chars), "\\u%04x", c);
	bts_json_raw(text, chars);
}

void bts_json_quoted(struct bts_json_text *text, struct bts_slice value)
{
	const char *at = value.data;
	size_t plain = 0; /* bytes from at on that need no escape */

	bts_json_raw(text, "\"");
	for (size_t i = 0; i < value.size; i++) {
		uint8_t c = ((const uint8_t *)value.data)[i];

		if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) {
			plain++;
			continue;
		}
		json_text_add(text, at, plain);
		json_text_escape(text, c);
		at += plain + 1;
		plain = 0;
	}
	json_text_add(text, at, plain);
	bts_json_raw(text, "\"");
}

static void json_text_base64(struct bts_json_text *text, struct bts_slice value)
{
	const uint8_t *from = value.data;
	size_t left = value.size;
	char *to;

	if (left > BTS_JSON_LINE_MAX / 4 * 3) {
		text->failed = true;
		return;
	}
	to = json_text_room(text, (left + 2) / 3 * 4);
	for (; to && left; from += 3, to += 4) {
		uint32_t bits =
			(uint32_t)from[0] << 16 | (left > 1 ? from[1] << 8 : 0) | (left > 2 ? from[2] : 0);

		to[0] = alphabet[bits >> 18];
		to[1] = alphabet[bits >> 12 & 63];
		to[2] = left > 1 ? alphabet[bits >> 6 & 63] : '=';
		to[3] = left > 2 ? alphabet[bits & 63] : '=';
		left -= left < 3 ? left : 3;
	}
}

void bts_json_member(struct bts_json_text *text, const char *name, struct bts_slice value)
{
	bts_json_raw(text, "\"");
	bts_json_raw(text, name);
	if (bts_json_is_text(value)) {
		bts_json_raw(text, "\":");
		bts_json_quoted(text, value);
		return;
	}
	bts_json_raw(text, "_base64\":\"");
	json_text_base64(text, value);
	bts_json_raw(text, "\"");
}

void bts_json_number(struct bts_json_text *text, const char *name, uint64_t value)
{
	char chars[24];

	bts_json_raw(text, "\"");
	bts_json_raw(text, name);
	snprintf(chars, sizeof(chars), "\":%llu", (unsigned long long)value);
	bts_json_raw(text, chars);
}

void bts_json_free(struct bts_json_text *text)
{
	free(text->data);
	*text = (struct bts_json_text){0};
}

static int json_base64_digit(char c)
{
	const char *found = c ? memchr(alphabet, c, 64) : NULL;

	return found ? (int)(found - alphabet) : -1;
}

bool bts_json_base64_decode(char *chars, size_t *size)
{
	size_t left = *size, out = 0;

	if (left % 4)
		return false;
	for (const char *at = chars; left; at += 4, left -= 4) {
		int pad = left > 4 ? 0 : (at[3] == '=') + (at[3] == '=' && at[2] == '=');
		uint32_t bits = 0;

		for (int i = 0; i < 4 - pad; i++) {
			int digit = json_base64_digit(at[i]);

			if (digit < 0)
				return false;
			bits |= (uint32_t)digit << (18 - 6 * i);
		}
		if (pad && (bits & (pad == 1 ? 0xff : 0xffff))) /* bits that no byte takes */
			return false;
		for (int i = 0; i < 3 - pad; i++)
			chars[out++] = (char)(bits >> (16 - 8 * i));
	}
	*size = out;
	return true;
}
