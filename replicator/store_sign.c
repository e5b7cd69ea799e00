/* Signatures of requests to S3. */
#include "store_sign.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define STORE_SIGN_BYTES 32
#define STORE_SIGN_DAY 8 /* of the time */
#define STORE_SIGN_SCOPE 80

/* A text that is put together; whatever is longer than its room is not used at all. */
struct store_sign_text {
	char *to;
	size_t room, used;
	bool full;
};

static void store_sign_add(struct store_sign_text *text, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void store_sign_add(struct store_sign_text *text, const char *format, ...)
{
	va_list args;
	int size;

	if (text->full)
		return;
	va_start(args, format);
	size = vsnprintf(text->to + text->used, text->room - text->used, format, args);
	va_end(args);
	text->full = size < 0 || (size_t)size >= text->room - text->used;
	text->used += text->full ? 0 : (size_t)size;
}

static void store_sign_hex(const uint8_t *bytes, char hex[STORE_SIGN_SUM])
{
	size_t i;

	for (i = 0; i < STORE_SIGN_BYTES; i++)
		sprintf(hex + 2 * i, "%02x", bytes[i]);
}

void store_sign_time(time_t now, char when[STORE_SIGN_TIME])
{
	struct tm utc;

	gmtime_r(&now, &utc);
	strftime(when, STORE_SIGN_TIME, "%Y%m%dT%H%M%SZ", &utc);
}

bool store_sign_sum(struct bts_slice bytes, char sum[STORE_SIGN_SUM])
{
	uint8_t digest[STORE_SIGN_BYTES];

	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes.data, bytes.size, digest) < 0)
		return false;
	store_sign_hex(digest, sum);
	return true;
}

bool store_sign_encode(const char *text, char *to, size_t room)
{
	struct store_sign_text out = {.to = to, .room = room};

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
			strchr("-._~", c))
			store_sign_add(&out, "%c", c);
		else
			store_sign_add(&out, "%%%02X", c);
	}
	if (out.used == 0 && room > 0)
		to[0] = '\0';
	return !out.full;
}

static void store_sign_add_names(struct store_sign_text *text, const struct store_sign_request *request)
{
	size_t i;

	for (i = 0; i < request->headers; i++)
		store_sign_add(text, "%s%s", i > 0 ? ";" : "", request->header[i].name);
}

bool store_sign_canonical(const struct store_sign_request *request, char text[STORE_SIGN_CANONICAL])
{
	struct store_sign_text out = {.to = text, .room = STORE_SIGN_CANONICAL};
	size_t i;

	store_sign_add(&out, "%s\n%s\n%s\n", request->method, request->path, request->query);
	for (i = 0; i < request->headers; i++)
		store_sign_add(&out, "%s:%s\n", request->header[i].name, request->header[i].value);
	store_sign_add(&out, "\n");
	store_sign_add_names(&out, request);
	store_sign_add(&out, "\n%s", request->sum);
	return !out.full;
}

static bool store_sign_chain(uint8_t key[STORE_SIGN_BYTES], const char *text)
{
	uint8_t next[STORE_SIGN_BYTES];

	if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, STORE_SIGN_BYTES, text, strlen(text), next) < 0)
		return false;
	memcpy(key, next, STORE_SIGN_BYTES);
	return true;
}

/* The key of a day, a region and a service signs; the secret itself never does. */
static bool store_sign_with(
	const struct store_sign_key *key, const char *when, const char *text, char signature[STORE_SIGN_SUM])
{
	uint8_t chain[STORE_SIGN_BYTES];
	char first[512], day[STORE_SIGN_DAY + 1];
	bool right;
	int size = snprintf(first, sizeof(first), "AWS4%s", key->secret);

	snprintf(day, sizeof(day), "%.*s", STORE_SIGN_DAY, when);
	right = size > 0 && (size_t)size < sizeof(first) &&
		gnutls_hmac_fast(GNUTLS_MAC_SHA256, first, (size_t)size, day, STORE_SIGN_DAY, chain) >= 0 &&
		store_sign_chain(chain, key->region) && store_sign_chain(chain, "s3") &&
		store_sign_chain(chain, "aws4_request") && store_sign_chain(chain, text);
	explicit_bzero(first, sizeof(first));
	if (right)
		store_sign_hex(chain, signature);
	return right;
}

bool store_sign_authorization(const struct store_sign_key *key, const struct store_sign_request *request,
	char text[STORE_SIGN_ANSWER])
{
	struct store_sign_text out = {.to = text, .room = STORE_SIGN_ANSWER};
	char canonical[STORE_SIGN_CANONICAL], scope[STORE_SIGN_SCOPE], sum[STORE_SIGN_SUM];
	char string[STORE_SIGN_SCOPE + STORE_SIGN_SUM + 64], signature[STORE_SIGN_SUM];

	if (!store_sign_canonical(request, canonical) ||
		!store_sign_sum((struct bts_slice){canonical, strlen(canonical)}, sum))
		return false;
	snprintf(scope, sizeof(scope), "%.*s/%s/s3/aws4_request", STORE_SIGN_DAY, request->when, key->region);
	snprintf(string, sizeof(string), "AWS4-HMAC-SHA256\n%s\n%s\n%s", request->when, scope, sum);
	if (!store_sign_with(key, request->when, string, signature))
		return false;
	store_sign_add(&out, "AWS4-HMAC-SHA256 Credential=%s/%s,SignedHeaders=", key->access, scope);
	store_sign_add_names(&out, request);
	store_sign_add(&out, ",Signature=%s", signature);
	return !out.full;
}
