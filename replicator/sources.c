/* The sources a follower may ask. */
#include "sources.h"

#include <string.h>
#include <strings.h>

#define SOURCES_STRANGE "?# \t\r\n@<>\""

/* Of "HOST", "HOST:PORT" or "[V6]:PORT", and perhaps a path. */
static bool sources_port_can_be(const char *authority)
{
	size_t size = strcspn(authority, "/"), host = authority[0] == '[' ? strcspn(authority, "]") + 1 : strcspn(authority, ":/"), i;
	unsigned port = 0;

	if (!host || host > size)
		return false;
	if (host == size)
		return true;
	if (authority[host] != ':' || size - host < 2 || size - host > 6)
		return false;
	for (i = host + 1; i < size; i++) {
		if (authority[i] < '0' || authority[i] > '9')
			return false;
		port = port * 10 + (unsigned)(authority[i] - '0');
	}
	return port && port <= 65535;
}

static size_t sources_scheme(const char *url)
{
	if (strncasecmp(url, "http://", 7) == 0)
		return 7;
	return strncasecmp(url, "https://", 8) == 0 ? 8 : 0;
}

bool sources_is_url(const char *text)
{
	size_t scheme = sources_scheme(text);

	return scheme && strlen(text) <= SOURCES_PLACE_MAX && !strpbrk(text, SOURCES_STRANGE ",") && sources_port_can_be(text + scheme);
}

static enum bts_err sources_add(struct sources *sources, const char *url, size_t size, struct bts_error *error)
{
	char *to = sources->urls[sources->count];
	size_t scheme;

	if (sources->count == SOURCES_MAX)
		return fail_set(error, BTS_INVALID, "more than %d sources", SOURCES_MAX);
	if (size <= SOURCES_URL_MAX) {
		memcpy(to, url, size);
		to[size] = '\0';
	}
	scheme = sources_scheme(url);
	if (!scheme || size > SOURCES_URL_MAX || strpbrk(to, SOURCES_STRANGE))
		return fail_set(error, BTS_INVALID, "source '%.*s': must be http://HOST:PORT",
			size < 80 ? (int)size : 80, url);
	if (!sources_port_can_be(to + scheme))
		return fail_set(error, BTS_INVALID, "source '%.80s': no host, or a port that is no number from 1 to 65535", to);
	while (size > 0 && to[size - 1] == '/')
		to[--size] = '\0';
	sources->count++;
	return BTS_OK;
}

enum bts_err sources_parse(struct sources *out, const char *list, struct bts_error *error)
{
	struct sources sources;
	enum bts_err err;
	size_t size;

	memset(&sources, 0, sizeof(sources));
	for (;;) {
		size = strcspn(list, ",");
		err = sources_add(&sources, list, size, error);
		if (err)
			return err;
		if (!list[size])
			break;
		list += size + 1;
	}
	*out = sources;
	return BTS_OK;
}

const char *sources_current(const struct sources *sources)
{
	return sources->urls[sources->current];
}

void sources_next(struct sources *sources)
{
	sources->current = (sources->current + 1) % sources->count;
}

bool sources_refused(struct sources *sources)
{
	sources->refused |= UINT32_C(1) << sources->current;
	if (sources->refused == (UINT32_C(1) << sources->count) - 1)
		return false;
	sources_next(sources);
	return true;
}

void sources_answered(struct sources *sources)
{
	sources->refused = 0;
}
