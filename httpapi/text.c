/* Encodings of bytes as text. */
#include "text.h"

#include <string.h>

#include "buf.h"

/* Bytes of the well-formed sequence at s, or 0 (Unicode 15, table 3-7). */
static size_t text_utf8_length(const uint8_t *s, size_t size)
{
	uint8_t low = 0x80, high = 0xbf;
	size_t length, i;

	if (s[0] < 0x80)
		return s[0] != 0;
	if (s[0] < 0xc2 || s[0] > 0xf4)
		return 0;
	length = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
	if (size < length)
		return 0;
	if (s[0] == 0xe0)
		low = 0xa0;
	else if (s[0] == 0xed)
		high = 0x9f;
	else if (s[0] == 0xf0)
		low = 0x90;
	else if (s[0] == 0xf4)
		high = 0x8f;
	if (s[1] < low || s[1] > high)
		return 0;
	for (i = 2; i < length; i++)
		if (s[i] < 0x80 || s[i] > 0xbf)
			return 0;
	return length;
}

int text_utf8_plain(const void *data, size_t size)
{
	const uint8_t *s = data;
	size_t i = 0, n;

	while (i < size) {
		n = text_utf8_length(s + i, size - i);
		if (!n)
			return 0;
		i += n;
	}
	return 1;
}

static const char text_alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char text_alphabet_url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static size_t text_base64_write(char *out, const uint8_t *s, size_t size, const char *alphabet, int pad)
{
	char *start = out;
	size_t i;

	for (i = 0; i + 3 <= size; i += 3) {
		*out++ = alphabet[s[i] >> 2];
		*out++ = alphabet[(s[i] & 3) << 4 | s[i + 1] >> 4];
		*out++ = alphabet[(s[i + 1] & 15) << 2 | s[i + 2] >> 6];
		*out++ = alphabet[s[i + 2] & 63];
	}
	if (i < size) {
		unsigned second = i + 1 < size ? s[i + 1] : 0;

		*out++ = alphabet[s[i] >> 2];
		*out++ = alphabet[(s[i] & 3) << 4 | second >> 4];
		if (i + 1 < size)
			*out++ = alphabet[(second & 15) << 2];
		else if (pad)
			*out++ = '=';
		if (pad)
			*out++ = '=';
	}
	return (size_t)(out - start);
}

static void text_base64_with(struct buf *b, const void *data, size_t size, const char *alphabet, int pad)
{
	char *out = buf_room(b, size / 3 * 4 + 4);

	if (out)
		b->size += text_base64_write(out, data, size, alphabet, pad);
}

void text_base64(struct buf *b, const void *data, size_t size)
{
	text_base64_with(b, data, size, text_alphabet, 1);
}

void text_base64url(struct buf *b, const void *data, size_t size)
{
	text_base64_with(b, data, size, text_alphabet_url, 0);
}

size_t text_base64url_to(char *out, const void *data, size_t size)
{
	return text_base64_write(out, data, size, text_alphabet_url, 0);
}

static int text_base64_digit(char c, char c62, char c63)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == c62 ? 62 : c == c63 ? 63 : -1;
}

static long text_base64_decode_with(const char *text, size_t size, uint8_t *out, char c62, char c63)
{
	uint32_t bits = 0;
	unsigned have = 0;
	long n = 0;
	size_t i;

	if (size % 4 == 1)
		return -1;
	for (i = 0; i < size; i++) {
		int digit = text_base64_digit(text[i], c62, c63);

		if (digit < 0)
			return -1;
		bits = bits << 6 | (uint32_t)digit;
		have += 6;
		if (have >= 8) {
			have -= 8;
			out[n++] = (uint8_t)(bits >> have);
		}
	}
	return bits & ((1u << have) - 1) ? -1 : n;
}

long text_base64_decode(const char *text, size_t size, void *out)
{
	if (size % 4)
		return -1;
	if (size && text[size - 1] == '=')
		size -= text[size - 2] == '=' ? 2 : 1;
	return text_base64_decode_with(text, size, out, '+', '/');
}

long text_base64url_decode(const char *text, size_t size, void *out)
{
	return text_base64_decode_with(text, size, out, '-', '_');
}

static int text_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

long text_percent_decode(const char *text, size_t size, char *out, size_t *bad)
{
	long n = 0;
	size_t i;

	for (i = 0; i < size; i++) {
		if (text[i] == '%') {
			int high = size - i > 2 ? text_hex_digit(text[i + 1]) : -1;
			int low = size - i > 2 ? text_hex_digit(text[i + 2]) : -1;

			if (high < 0 || low < 0) {
				*bad = i;
				return -1;
			}
			out[n++] = (char)(high << 4 | low);
			i += 2;
		} else {
			out[n++] = text[i];
		}
	}
	return n;
}

void text_percent(struct buf *b, const void *data, size_t size)
{
	static const char digits[] = "0123456789ABCDEF";
	const uint8_t *s = data;
	size_t i;

	for (i = 0; i < size; i++) {
		uint8_t c = s[i];

		if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
			(c && strchr("-._~", c))) {
			buf_add(b, &c, 1);
		} else {
			char code[3] = {'%', digits[c >> 4], digits[c & 15]};

			buf_add(b, code, 3);
		}
	}
}

void text_hex(char *out, const void *data, size_t size)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *s = data;
	size_t i;

	for (i = 0; i < size; i++) {
		*out++ = digits[s[i] >> 4];
		*out++ = digits[s[i] & 15];
	}
	*out = '\0';
}

size_t text_from_u64(uint64_t value, char out[21])
{
	char digits[20];
	size_t n = 0, i;

	do {
		digits[n++] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	for (i = 0; i < n; i++)
		out[i] = digits[n - 1 - i];
	out[n] = '\0';
	return n;
}

int text_u64(const char *text, size_t size, uint64_t max, uint64_t *value)
{
	uint64_t v = 0;
	size_t i;

	if (!size || size > 20)
		return -1;
	for (i = 0; i < size; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -1;
		if (__builtin_mul_overflow(v, 10, &v) ||
			__builtin_add_overflow(v, (uint64_t)(text[i] - '0'), &v))
			return -1;
	}
	if (v > max)
		return -1;
	*value = v;
	return 0;
}

int text_duration_ms(const char *text, size_t size, uint64_t *ms)
{
	uint64_t unit, value;
	size_t suffix = 1;

	if (size > 2 && !memcmp(text + size - 2, "ms", 2)) {
		unit = 1;
		suffix = 2;
	} else if (size > 1 && text[size - 1] == 's') {
		unit = 1000;
	} else if (size > 1 && text[size - 1] == 'm') {
		unit = 60 * 1000;
	} else if (size > 1 && text[size - 1] == 'h') {
		unit = 3600 * 1000;
	} else if (size > 1 && text[size - 1] == 'd') {
		unit = 24 * 3600 * 1000;
	} else {
		return -1;
	}
	if (text_u64(text, size - suffix, UINT64_MAX / unit, &value))
		return -1;
	*ms = value * unit;
	return 0;
}
