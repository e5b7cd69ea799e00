/* The request for a frame, as a URL. */
#include "query.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fail.h"
#include "position.h"

#define QUERY_VALUE_MAX 511 /* bytes of one value, decoded */
#define QUERY_PGNO_MAX ((UINT64_C(1) << 47) - 1)

enum query_field {
	QUERY_AFTER = 1 << 0,
	QUERY_DATABASE = 1 << 1,
	QUERY_EPOCH = 1 << 2,
	QUERY_CHAIN = 1 << 3,
	QUERY_FOLLOWER = 1 << 4,
	QUERY_SESSION = 1 << 5,
	QUERY_URL = 1 << 6,
	QUERY_WAIT = 1 << 7,
	QUERY_PARTIAL = 1 << 8,
	QUERY_CURSOR = 1 << 9,
	QUERY_OLDER = 1 << 10,
	QUERY_ZSTD = 1 << 11,
	QUERY_LEAN = 1 << 12,
};

bool query_node_valid(const char *name)
{
	size_t size = strlen(name), i;

	if (size == 0 || size > BTS_ACK_NAME_MAX)
		return false;
	for (i = 0; i < size; i++) {
		if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
			return false;
	}
	return true;
}

bool query_url_valid(const char *url)
{
	size_t size = strlen(url), i;

	if (size >= sizeof(((struct query *)0)->url))
		return false;
	for (i = 0; i < size; i++) {
		if (url[i] <= ' ' || url[i] > '~' || strchr("\"'<>\\@", url[i]))
			return false;
	}
	return true;
}

/* Unreserved characters of RFC 3986 stay, all others become %XX. */
static void query_escape(const char *text, char *out, size_t size)
{
	size_t at = 0;

	for (; *text && at + 4 <= size; text++) {
		if (isalnum((unsigned char)*text) || strchr("-._~", *text))
			out[at++] = *text;
		else
			at += (size_t)snprintf(out + at, size - at, "%%%02X", (unsigned char)*text);
	}
	out[at] = '\0';
}

/* The pages below cursor are as of partial's commit, those from it up to the second cursor as of the older one. */
static size_t query_encode_partial(const struct bts_partial *partial, char *out, size_t size)
{
	char hex[POSITION_ID_SIZE], epoch[POSITION_EPOCH_SIZE];
	size_t at;

	position_epoch_text(&partial->position, epoch);
	position_hex(partial->position.chain, sizeof(partial->position.chain), hex);
	at = (size_t)snprintf(out, size, "&partial=%s.%" PRIu64 ".%s&cursor=%" PRIu64, epoch, partial->position.txid, hex,
		partial->cursor);
	if (partial->older)
		at += (size_t)snprintf(
			out + at, size - at, "&older=%" PRIu64 ".%" PRIu64, partial->older, partial->older_cursor);
	return at;
}

void query_encode(const struct query *query, char out[QUERY_TARGET_SIZE])
{
	char hex[POSITION_ID_SIZE], epoch[POSITION_EPOCH_SIZE], url[3 * sizeof(query->url) + 1];
	size_t at;

	at = (size_t)snprintf(out, QUERY_TARGET_SIZE, QUERY_PATH "?after=%" PRIu64, query->after.txid);
	if (query->has_database) {
		position_hex(query->after.database, sizeof(query->after.database), hex);
		at += (size_t)snprintf(out + at, QUERY_TARGET_SIZE - at, "&database=%s", hex);
	}
	if (query->after.txid != 0) {
		position_epoch_text(&query->after, epoch);
		position_hex(query->after.chain, sizeof(query->after.chain), hex);
		at += (size_t)snprintf(out + at, QUERY_TARGET_SIZE - at, "&epoch=%s&chain=%s", epoch, hex);
	}
	if (query->follower[0])
		at += (size_t)snprintf(out + at, QUERY_TARGET_SIZE - at, "&follower=%s", query->follower);
	if (query->session)
		at += (size_t)snprintf(
			out + at, QUERY_TARGET_SIZE - at, "&session=%016" PRIx64, query->session);
	if (query->url[0]) {
		query_escape(query->url, url, sizeof(url));
		at += (size_t)snprintf(out + at, QUERY_TARGET_SIZE - at, "&url=%s", url);
	}
	if (query->partial.position.txid)
		at += query_encode_partial(&query->partial, out + at, QUERY_TARGET_SIZE - at);
	if (query->zstd)
		at += (size_t)snprintf(out + at, QUERY_TARGET_SIZE - at, "&zstd=1");
	if (query->lean)
		at += (size_t)snprintf(out + at, QUERY_TARGET_SIZE - at, "&lean=1");
	snprintf(out + at, QUERY_TARGET_SIZE - at, "&wait=%ums", query->wait_ms);
}

/* Percent-decode; no NUL may come out of it, and '+' is a plus. */
bool query_unescape(const char *text, char *out, size_t size)
{
	uint8_t byte;
	size_t at = 0;
	char two[3];

	for (; *text; text++) {
		byte = (uint8_t)*text;
		if (*text == '%') {
			if (!text[1] || !text[2])
				return false;
			memcpy(two, text + 1, 2);
			two[2] = '\0';
			if (!position_hex_parse(two, &byte, 1) || byte == 0)
				return false;
			text += 2;
		}
		if (at + 1 >= size)
			return false;
		out[at++] = (char)byte;
	}
	out[at] = '\0';
	return true;
}

bool query_duration_parse(const char *text, unsigned *ms)
{
	size_t digits = strspn(text, "0123456789");
	uint64_t value, unit;
	char number[8];

	if (digits == 0 || digits >= sizeof(number))
		return false;
	memcpy(number, text, digits);
	number[digits] = '\0';
	unit = strcmp(text + digits, "s") == 0 ? 1000 : strcmp(text + digits, "ms") == 0 ? 1 : 0;
	if (unit == 0 || !position_number_parse(number, QUERY_WAIT_MS_MAX / unit, &value))
		return false;
	*ms = (unsigned)(value * unit);
	return true;
}

static bool query_parse_session(const char *text, uint64_t *session)
{
	uint8_t bytes[8];
	size_t i;

	if (!position_hex_parse(text, bytes, sizeof(bytes)))
		return false;
	*session = 0;
	for (i = 0; i < sizeof(bytes); i++)
		*session = *session << 8 | bytes[i];
	return true;
}

/* Cuts text at the dot; NULL: there is none. */
static char *query_cut(char *text)
{
	char *dot = strchr(text, '.');

	if (dot)
		*dot++ = '\0';
	return dot;
}

static bool query_parse_partial(char *epoch, struct bts_position *position)
{
	char *txid = query_cut(epoch), *chain = txid ? query_cut(txid) : NULL;

	return chain && position_epoch_parse(epoch, position) &&
	       position_number_parse(txid, POSITION_TXID_MAX, &position->txid) && position->txid &&
	       position_hex_parse(chain, position->chain, sizeof(position->chain));
}

static bool query_parse_older(char *txid, struct bts_partial *partial)
{
	char *cursor = query_cut(txid);

	return cursor && position_number_parse(txid, POSITION_TXID_MAX, &partial->older) && partial->older &&
	       position_number_parse(cursor, QUERY_PGNO_MAX, &partial->older_cursor);
}

static bool query_parse(struct query *query, enum query_field field, char *value)
{
	switch (field) {
	case QUERY_AFTER:
		return position_number_parse(value, POSITION_TXID_MAX, &query->after.txid);
	case QUERY_DATABASE:
		query->has_database = true;
		return position_hex_parse(value, query->after.database, sizeof(query->after.database));
	case QUERY_EPOCH:
		return position_epoch_parse(value, &query->after);
	case QUERY_CHAIN:
		return position_hex_parse(value, query->after.chain, sizeof(query->after.chain));
	case QUERY_FOLLOWER:
		if (!query_node_valid(value))
			return false;
		strcpy(query->follower, value);
		return true;
	case QUERY_SESSION:
		return query_parse_session(value, &query->session);
	case QUERY_URL:
		if (!query_url_valid(value))
			return false;
		strcpy(query->url, value);
		return true;
	case QUERY_WAIT:
		return query_duration_parse(value, &query->wait_ms);
	case QUERY_PARTIAL:
		return query_parse_partial(value, &query->partial.position);
	case QUERY_CURSOR:
		return position_number_parse(value, QUERY_PGNO_MAX, &query->partial.cursor);
	case QUERY_OLDER:
		return query_parse_older(value, &query->partial);
	case QUERY_ZSTD:
		query->zstd = strcmp(value, "1") == 0;
		return query->zstd;
	case QUERY_LEAN:
		query->lean = strcmp(value, "1") == 0;
		return query->lean;
	}
	return false;
}

void query_decode_start(struct query_decoder *decoder)
{
	memset(decoder, 0, sizeof(*decoder));
	decoder->query.wait_ms = QUERY_WAIT_MS_DEFAULT;
}

enum bts_err query_decode(
	struct query_decoder *decoder, const char *name, const char *value, struct bts_error *error)
{
	static const struct {
		const char *name;
		enum query_field field;
	} fields[] = {
		{"after", QUERY_AFTER},
		{"database", QUERY_DATABASE},
		{"epoch", QUERY_EPOCH},
		{"chain", QUERY_CHAIN},
		{"follower", QUERY_FOLLOWER},
		{"session", QUERY_SESSION},
		{"url", QUERY_URL},
		{"wait", QUERY_WAIT},
		{"partial", QUERY_PARTIAL},
		{"cursor", QUERY_CURSOR},
		{"older", QUERY_OLDER},
		{"zstd", QUERY_ZSTD},
		{"lean", QUERY_LEAN},
	};
	char decoded[QUERY_VALUE_MAX + 1];
	size_t i;

	for (i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (strcmp(name, fields[i].name) != 0)
			continue;
		if (decoder->seen & fields[i].field)
			return fail_set(error, BTS_INVALID, "parameter '%s' is given twice", name);
		decoder->seen |= fields[i].field;
		if (!value || !query_unescape(value, decoded, sizeof(decoded)) ||
			!query_parse(&decoder->query, fields[i].field, decoded))
			return fail_set(error, BTS_INVALID, "parameter '%s' is malformed", name);
		return BTS_OK;
	}
	return fail_set(error, BTS_INVALID, "unknown parameter '%.40s'", name);
}

static enum bts_err query_check_partial(const struct query_decoder *decoder, struct bts_error *error)
{
	const struct bts_partial *partial = &decoder->query.partial;
	unsigned seen = decoder->seen & (QUERY_PARTIAL | QUERY_CURSOR | QUERY_OLDER);

	if (!seen)
		return BTS_OK;
	if (!(seen & QUERY_PARTIAL) || !(seen & QUERY_CURSOR) || !(decoder->seen & QUERY_DATABASE) ||
		decoder->query.after.txid != 0)
		return fail_set(error, BTS_INVALID, "'partial', 'cursor' and 'database' come together, and with 'after=0'");
	if ((seen & QUERY_OLDER) && (partial->older >= partial->position.txid || partial->older_cursor < partial->cursor))
		return fail_set(error, BTS_INVALID, "'older' is not before 'partial'");
	return BTS_OK;
}

enum bts_err query_decode_finish(const struct query_decoder *decoder, struct bts_error *error)
{
	if (!(decoder->seen & QUERY_AFTER))
		return fail_set(error, BTS_INVALID, "parameter 'after' is missing");
	if (decoder->query.after.txid != 0 &&
		(decoder->seen & (QUERY_EPOCH | QUERY_CHAIN)) != (QUERY_EPOCH | QUERY_CHAIN))
		return fail_set(error, BTS_INVALID, "'after' above 0 needs 'epoch' and 'chain'");
	if (decoder->query.after.txid == 0 && (decoder->seen & (QUERY_EPOCH | QUERY_CHAIN)))
		return fail_set(error, BTS_INVALID, "'after=0' has neither 'epoch' nor 'chain'");
	if (decoder->query.after.txid == 0 && decoder->query.lean)
		return fail_set(error, BTS_INVALID, "'after=0' has no 'lean'");
	return query_check_partial(decoder, error);
}
