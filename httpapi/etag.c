/* Entity tags: the version of a value in quotes. */
#include "etag.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "text.h"

void etag_text(bts_txid version, char text[24])
{
	size_t n = text_from_u64(version, text + 1);

	text[0] = '"';
	text[1 + n] = '"';
	text[2 + n] = '\0';
}

static const char *etag_skip(const char *at)
{
	return at + strspn(at, " \t");
}

/* Elements of a list may be empty (RFC 9110, 5.6.1). */
static const char *etag_next(const char *at)
{
	return at + strspn(at, " \t,");
}

int etag_parse(const char *header, int weak, struct writer_tags *tags)
{
	const char *at, *end;
	unsigned seen = 0;
	int is_weak;

	memset(tags, 0, sizeof(*tags));
	if (!header)
		return 0;
	tags->given = 1;
	at = etag_skip(header);
	if (*at == '*') {
		tags->any = 1;
		return *etag_skip(at + 1) ? -1 : 0;
	}
	for (at = etag_next(at);; at = etag_next(at)) {
		is_weak = at[0] == 'W' && at[1] == '/';
		at += is_weak ? 2 : 0;
		end = *at == '"' ? strchr(at + 1, '"') : NULL;
		if (!end || seen++ == WRITER_TAGS_MAX)
			return -1;
		if ((!is_weak || weak) && at[1] != '0' &&
			!text_u64(at + 1, (size_t)(end - at - 1), UINT64_MAX, &tags->versions[tags->count]))
			tags->count++;
		at = etag_skip(end + 1);
		if (*at && *at != ',')
			return -1;
		if (!*etag_next(at))
			return 0;
	}
}
