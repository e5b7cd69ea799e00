/* Requests that two parties may read differently. */
#include "framing.h"

#include <microhttpd.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "text.h"

/* RFC 9110, token. */
static const bool framing_token[256] = {['!'] = true, ['#' ... '\''] = true, ['*'] = true, ['+'] = true, ['-'] = true, ['.'] = true,
	['0' ... '9'] = true, ['A' ... 'Z'] = true, ['^' ... 'z'] = true, ['|'] = true, ['~'] = true};

static int framing_is_token(const char *s, size_t size)
{
	size_t i;

	for (i = 0; i < size; i++)
		if (!framing_token[(unsigned char)s[i]])
			return 0;
	return size > 0;
}

uint64_t framing_mark(const char *name, size_t size)
{
	unsigned first = size ? (unsigned char)name[0] | 0x20 : 0, last = size ? (unsigned char)name[size - 1] | 0x20 : 0;

	return UINT64_C(1) << ((size * 7 + first * 5 + last) & 63);
}

/* Fields that say one thing: of two lines a proxy may have gone by the other one.  Those above are counted apart. */
static const char *const framing_single[] = {"BTS-After", "BTS-Max-Staleness", "Content-Range", "Content-Type", "Idempotency-Key", "If-Range",
	"Last-Event-ID", "Range"};

struct framing_lines {
	const char *name;
	unsigned count;
};

static enum MHD_Result framing_count(
	void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct framing_lines *lines = cls;

	(void)kind;
	(void)value;
	lines->count += !strcasecmp(name, lines->name);
	return MHD_YES;
}

/* Few requests get here: only where two names have one mark. */
static const char *framing_twice(uint64_t again, struct MHD_Connection *mhd)
{
	size_t i;

	for (i = 0; i < sizeof(framing_single) / sizeof(framing_single[0]); i++) {
		struct framing_lines lines = {framing_single[i], 0};

		if (again & framing_mark(lines.name, strlen(lines.name)))
			MHD_get_connection_values(mhd, MHD_HEADER_KIND, framing_count, &lines);
		if (lines.count > 1)
			return lines.name;
	}
	return NULL;
}

static enum MHD_Result framing_see(void *cls, enum MHD_ValueKind kind, const char *name, size_t name_size,
	const char *value, size_t size)
{
	struct framing *f = cls;
	uint64_t mark = framing_mark(name, name_size);
	size_t i;

	(void)kind;
	f->fields++;
	rawhead_field(&f->raw, name, value, size);
	f->bad += !framing_is_token(name, name_size);
	f->again |= f->seen & mark;
	f->seen |= mark;
	for (i = 0; i < size; i++)
		f->bad += (unsigned char)value[i] < ' ' && value[i] != '\t';
	if (!strcasecmp(name, "Cookie")) {
		f->cookies += size + 16;
	} else if (!strcasecmp(name, "Host")) {
		f->hosts++;
		f->host = value;
	} else if (!strcasecmp(name, "Content-Length")) {
		f->lengths++;
		f->bad += text_u64(value, size, UINT64_MAX, &f->length) != 0;
	} else if (!strcasecmp(name, "Transfer-Encoding")) {
		f->codings++;
		f->coding_unknown |= strcasecmp(value, "chunked") != 0;
	} else if (!strcasecmp(name, "Authorization")) {
		f->authorizations++;
		f->authorization = value;
	} else if (!strcasecmp(name, "Origin")) {
		f->origins++;
		f->origin = value;
	}
	return MHD_YES;
}

static const char *framing_refusal(const struct framing *f, const char *version)
{
	if (f->bad)
		return "a header field has a malformed name or value";
	if (f->lengths > 1)
		return "more than one Content-Length";
	if (f->lengths && f->codings)
		return "both Content-Length and Transfer-Encoding";
	if (f->codings > 1 || f->coding_unknown)
		return "the only Transfer-Encoding known is chunked, once";
	if (f->codings && strcmp(version, "HTTP/1.1"))
		return "Transfer-Encoding needs HTTP/1.1";
	if (f->hosts > 1 || (!f->hosts && !strcmp(version, "HTTP/1.1")))
		return "exactly one Host is needed";
	if (f->authorizations > 1)
		return "more than one Authorization";
	if (f->origins > 1)
		return "more than one Origin";
	return NULL;
}

/* A zero byte, a folded line, a bare line feed. */
static int framing_is_odd(const struct framing *f, const struct framing_line *line)
{
	return !strcmp(MHD_get_version(), RAWHEAD_LIBRARY) && f->head && rawhead_is_odd(&f->raw, line->method, f->head);
}

const char *framing_problem(struct framing *f, struct MHD_Connection *mhd, const struct framing_line *line)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);

	memset(f, 0, sizeof(*f));
	f->head = info ? info->header_size : 0;
	rawhead_begin(&f->raw, line->url, line->target_size, line->version);
	MHD_get_connection_values_n(mhd, MHD_HEADER_KIND, framing_see, f);
	if (f->cookies) /* taken apart by the library */
		f->fields += (size_t)MHD_get_connection_values(mhd, MHD_COOKIE_KIND, NULL, NULL);
	if (framing_is_odd(f, line))
		return "a zero byte, a folded line or a bare line feed in the head";
	f->twice = f->again ? framing_twice(f->again, mhd) : NULL;
	return framing_refusal(f, line->version);
}
