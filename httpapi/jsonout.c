/* Writes JSON into a buffer as it goes. */
#include "jsonout.h"

#include <stdio.h>
#include <string.h>

#include "buf.h"
#include "text.h"

#define JSONOUT_PIECE 12288 /* bytes; a multiple of 3 for base64 */

static void jsonout_escape_one(struct buf *b, unsigned char c)
{
	static const char plain[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
	const char *at = c ? strchr(plain, c) : NULL;
	char code[8];

	if (at) {
		code[0] = '\\';
		code[1] = letters[at - plain];
		buf_add(b, code, 2);
	} else {
		snprintf(code, sizeof(code), "\\u%04x", c);
		buf_add(b, code, 6);
	}
}

void jsonout_escape(struct buf *b, const void *data, size_t size)
{
	const unsigned char *s = data;
	size_t i, from = 0;

	for (i = 0; i < size; i++) {
		if (s[i] >= 0x20 && s[i] != '"' && s[i] != '\\' && s[i] != 0x7f)
			continue;
		buf_add(b, s + from, i - from);
		jsonout_escape_one(b, s[i]);
		from = i + 1;
	}
	buf_add(b, s + from, size - from);
}

void jsonout_string(struct buf *b, const char *text)
{
	size_t size = strlen(text), i;

	buf_add(b, "\"", 1);
	if (text_utf8_plain(text, size)) {
		jsonout_escape(b, text, size);
	} else {
		for (i = 0; i < size; i++) {
			if ((unsigned char)text[i] < 0x80)
				jsonout_escape(b, text + i, 1);
			else
				buf_str(b, "\xef\xbf\xbd");
		}
	}
	buf_add(b, "\"", 1);
}

void jsonout_bytes(struct buf *b, const char *name, struct bts_slice bytes)
{
	if (text_utf8_plain(bytes.data, bytes.size)) {
		buf_printf(b, "\"%s\":\"", name);
		jsonout_escape(b, bytes.data, bytes.size);
	} else {
		buf_printf(b, "\"%s_base64\":\"", name);
		text_base64(b, bytes.data, bytes.size);
	}
	buf_add(b, "\"", 1);
}

void jsonout_pieces(struct jsonout_pieces *p, struct buf *b, const char *name, struct bts_slice bytes)
{
	jsonout_pieces_known(p, b, name, bytes, text_utf8_plain(bytes.data, bytes.size));
}

void jsonout_pieces_known(struct jsonout_pieces *p, struct buf *b, const char *name, struct bts_slice bytes, int plain)
{
	*p = (struct jsonout_pieces){bytes, 0, plain};
	buf_printf(b, "\"%s%s\":\"", name, plain ? "" : "_base64");
}

int jsonout_piece(struct jsonout_pieces *p, struct buf *b)
{
	const char *at = (const char *)p->bytes.data + p->sent;
	size_t n = p->bytes.size - p->sent;

	if (n > JSONOUT_PIECE)
		n = JSONOUT_PIECE;
	if (p->plain)
		jsonout_escape(b, at, n);
	else
		text_base64(b, at, n);
	p->sent += n;
	if (p->sent < p->bytes.size)
		return 0;
	buf_add(b, "\"", 1);
	return 1;
}
