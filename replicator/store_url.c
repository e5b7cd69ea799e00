/* URLs of stores, and keys. */
#include "store_url.h"

#include <stdio.h>
#include <string.h>

static bool store_url_is_among(const char *text, size_t size, const char *more)
{
	size_t i;

	for (i = 0; i < size; i++) {
		bool plain = (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= '0' && text[i] <= '9');

		if (!plain && (text[i] == '\0' || !strchr(more, text[i])))
			return false;
	}
	return true;
}

bool store_url_is_part(const char *part, size_t size)
{
	return size > 0 && size <= STORE_PART_MAX && part[0] != '.' &&
	       store_url_is_among(part, size, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_.");
}

bool store_url_is_key(const char *key)
{
	size_t size;

	if (strnlen(key, STORE_KEY_MAX + 1) > STORE_KEY_MAX)
		return false;
	for (;;) {
		size = strcspn(key, "/");
		if (!store_url_is_part(key, size))
			return false;
		if (!key[size])
			return true;
		key += size + 1;
	}
}

bool store_url_is_region(const char *text)
{
	size_t size = strlen(text);

	return size > 0 && size <= STORE_REGION_MAX && store_url_is_among(text, size, "-");
}

static int store_url_nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* %XX to bytes; to has room for as many as there are.  false: not encoded rightly, or a NUL. */
static bool store_url_decode(const char *from, size_t size, char *to)
{
	size_t i;

	for (i = 0; i < size; i++, to++) {
		int high, low;

		*to = from[i];
		if (from[i] != '%')
			continue;
		high = i + 2 < size ? store_url_nibble(from[i + 1]) : -1;
		low = i + 2 < size ? store_url_nibble(from[i + 2]) : -1;
		if (high < 0 || low < 0 || high + low == 0)
			return false;
		*to = (char)(high * 16 + low);
		i += 2;
	}
	*to = '\0';
	return true;
}

static const char *store_url_parse_file(const char *text, struct store_url *url)
{
	size_t size = strlen(text);

	if (text[0] != '/')
		return "file:// is followed by an absolute path";
	if (strpbrk(text, "?#"))
		return "file:///path has no ? and no # (%3F, %23)";
	while (size > 1 && text[size - 1] == '/')
		size--;
	snprintf(url->name, sizeof(url->name), "file://%.*s", (int)size, text);
	return store_url_decode(text, size, url->path) ? NULL : "a % is followed by two hexadecimal digits";
}

static bool store_url_is_port(const char *text)
{
	size_t size = strlen(text);

	return size > 0 && size <= 5 && strspn(text, "0123456789") == size;
}

/* A name or numbers, or an address of version 6 in brackets; then perhaps a port. */
static bool store_url_is_host(const char *text)
{
	size_t size;

	if (text[0] == '[') {
		size = 1 + strspn(text + 1, "0123456789abcdefABCDEF:.");
		if (size < 3 || text[size++] != ']')
			return false;
	} else {
		size = strcspn(text, ":");
		if (size == 0 || !store_url_is_among(text, size, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-."))
			return false;
	}
	return !text[size] || (text[size] == ':' && store_url_is_port(text + size + 1));
}

const char *store_url_parse_endpoint(const char *text, struct store_endpoint *endpoint)
{
	const char *own, *host;
	size_t size;

	endpoint->tls = strncmp(text, "https://", 8) == 0;
	if (!endpoint->tls && strncmp(text, "http://", 7) != 0)
		return "an endpoint begins with http:// or https://";
	host = strchr(text, '/') + 2;
	size = strlen(host);
	if (size > 0 && host[size - 1] == '/')
		size--;
	if (size >= sizeof(endpoint->host))
		return "the endpoint is too long";
	snprintf(endpoint->host, sizeof(endpoint->host), "%.*s", (int)size, host);
	if (!store_url_is_host(endpoint->host))
		return "an endpoint is http://HOST:PORT or https://HOST:PORT";
	own = endpoint->tls ? ":443" : ":80";
	size = strlen(endpoint->host);
	if (size > strlen(own) && strcmp(endpoint->host + size - strlen(own), own) == 0)
		endpoint->host[size - strlen(own)] = '\0';
	return NULL;
}

static const char *store_url_parse_parameter(const char *text, size_t size, struct store_url *url)
{
	char value[STORE_URL_MAX + 1];

	if (size > 9 && strncmp(text, "endpoint=", 9) == 0) {
		if (!store_url_decode(text + 9, size - 9, value))
			return "a % is followed by two hexadecimal digits";
		return store_url_parse_endpoint(value, &url->endpoint);
	}
	if (size > 7 && strncmp(text, "region=", 7) == 0) {
		snprintf(value, sizeof(value), "%.*s", (int)(size - 7), text + 7);
		if (!store_url_is_region(value))
			return "a region is of small letters, digits and '-'";
		strcpy(url->region, value);
		return NULL;
	}
	return "after the ? of s3:// stand endpoint=URL and region=NAME, with & between";
}

static bool store_url_is_bucket(const char *text, size_t size)
{
	return size >= 3 && size <= STORE_BUCKET_MAX && text[0] != '.' && text[0] != '-' &&
	       text[size - 1] != '.' && store_url_is_among(text, size, "-.");
}

static const char *store_url_parse_s3(const char *text, struct store_url *url)
{
	size_t size = strcspn(text, "/?"), place = strcspn(text, "?"), end;
	const char *why = NULL;

	if (!store_url_is_bucket(text, size))
		return "s3:// is followed by a bucket: 3 to 63 of small letters, digits, '-' and '.'";
	snprintf(url->bucket, sizeof(url->bucket), "%.*s", (int)size, text);
	for (end = place; end > size && text[end - 1] == '/';)
		end--;
	snprintf(url->name, sizeof(url->name), "s3://%.*s", (int)end, text);
	if (end > size + 1) {
		if (end - size - 1 > STORE_PREFIX_MAX)
			return "the prefix is too long";
		snprintf(url->prefix, sizeof(url->prefix), "%.*s", (int)(end - size - 1), text + size + 1);
		if (!store_url_is_key(url->prefix))
			return "a prefix is of letters, digits, '-', '_', '.' and '/', and nothing in it "
			       "begins with '.'";
	}
	for (text += place; *text && !why; text += size) {
		text++;
		size = strcspn(text, "&");
		why = store_url_parse_parameter(text, size, url);
	}
	return why;
}

const char *store_url_parse(const char *text, struct store_url *url)
{
	memset(url, 0, sizeof(*url));
	if (strnlen(text, STORE_URL_MAX + 1) > STORE_URL_MAX)
		return "a URL of a store is at most 1024 bytes long";
	if (strncmp(text, "file://", 7) == 0)
		return store_url_parse_file(text + 7, url);
	url->s3 = true;
	if (strncmp(text, "s3://", 5) == 0)
		return store_url_parse_s3(text + 5, url);
	return "a store is file:///DIRECTORY or s3://BUCKET/PREFIX";
}
