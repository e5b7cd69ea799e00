/* Who is asking: tokens, client certificates, hosts and origins. */
#include "guard.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tls.h"

#define GUARD_HOST_SIZE 256

struct guard {
	struct keyring *keyring;
	unsigned client_scopes;
	const char *hosts;
};

enum bts_err guard_new(const struct guard_options *options, struct guard **out, struct bts_error *error)
{
	struct guard *guard = calloc(1, sizeof(*guard));
	enum bts_err err = BTS_OK;

	if (!guard)
		return fail_set(error, BTS_MEMORY, "no memory for a guard");
	guard->client_scopes = options->client_scopes;
	guard->hosts = options->hosts;
	if (options->token_file)
		err = keyring_open(options->token_file, &options->events, &guard->keyring, error);
	if (err)
		guard_free(guard);
	else
		*out = guard;
	return err;
}

void guard_free(struct guard *guard)
{
	if (!guard)
		return;
	keyring_free(guard->keyring);
	free(guard);
}

enum bts_err guard_reload(struct guard *guard, struct bts_error *error)
{
	return guard->keyring ? keyring_reload(guard->keyring, error) : BTS_OK;
}

struct keyring *guard_keyring(const struct guard *guard)
{
	return guard->keyring;
}

bool guard_is_open(const struct guard *guard)
{
	return !guard->keyring && !tls_asks_clients();
}

/* A field's value without the white space that may stand behind it. */
static struct bts_slice guard_value(const char *field)
{
	size_t size = strlen(field);

	while (size > 0 && (field[size - 1] == ' ' || field[size - 1] == '\t'))
		size--;
	return (struct bts_slice){field, size};
}

/* "Bearer TOKEN". */
static bool guard_bearer(const char *authorization, uint8_t sum[KEYRING_SUM])
{
	size_t size = guard_value(authorization).size, at = 7;
	char token[KEYRING_TOKEN_SIZE];

	if (strncasecmp(authorization, "Bearer ", 7) != 0)
		return false;
	at += strspn(authorization + at, " ");
	if (size != at + sizeof(token) - 1)
		return false;
	memcpy(token, authorization + at, size - at);
	token[size - at] = '\0';
	return keyring_token_sum(token, sum);
}

static void guard_grant(struct guard_grant *grant, const struct keyring_entry *entry)
{
	grant->scopes = entry->scopes & KEYRING_ADMIN ? KEYRING_ALL : entry->scopes;
	grant->limited = strcmp(entry->buckets, "*") != 0;
	strcpy(grant->buckets, entry->buckets);
	keyring_id(entry->sum, grant->id);
}

/* A token counts when there is one, right or wrong; a certificate otherwise. */
static bool guard_identify(struct guard *guard, const struct guard_caller *caller, struct guard_grant *grant)
{
	struct keyring_entry entry;
	uint8_t sum[KEYRING_SUM];

	memset(grant, 0, sizeof(*grant));
	if (guard_is_open(guard)) {
		grant->scopes = KEYRING_ALL;
		return true;
	}
	if (caller->authorization) {
		if (!guard->keyring || !guard_bearer(caller->authorization, sum) || !keyring_find(guard->keyring, sum, &entry))
			return false;
		guard_grant(grant, &entry);
		return true;
	}
	if (!tls_client(caller->session, sum))
		return false;
	if (guard->keyring && keyring_find(guard->keyring, sum, &entry)) {
		guard_grant(grant, &entry);
	} else if (guard->keyring && entry.buckets[0]) {
		return false; /* what was said of it has expired, or was taken back: that does not give it more */
	} else {
		grant->scopes = guard->client_scopes & KEYRING_ADMIN ? KEYRING_ALL : guard->client_scopes;
		keyring_id(sum, grant->id);
	}
	return true;
}

/* "HOST", "HOST:PORT" or "[V6]:PORT" without the port and the brackets. */
static bool guard_host_name(const char *text, char host[GUARD_HOST_SIZE])
{
	size_t size = text[0] == '[' ? strcspn(text, "]") : strcspn(text, ":"), most = guard_value(text).size;

	if (size > most)
		size = most;
	if (text[0] == '[') {
		text++;
		size--;
	}
	if (size == 0 || size >= GUARD_HOST_SIZE)
		return false;
	memcpy(host, text, size);
	host[size] = '\0';
	return true;
}

static bool guard_host_listed(const char *list, const char *host)
{
	size_t size;

	for (;; list += size + 1) {
		size = strcspn(list, ",");
		if ((size == 1 && *list == '*') ||
			(size == strlen(host) && strncasecmp(list, host, size) == 0))
			return true;
		if (!list[size])
			return false;
	}
}

static bool guard_host_is_ours(const struct guard *guard, const struct guard_caller *caller)
{
	uint8_t address[sizeof(struct in6_addr)];
	char host[GUARD_HOST_SIZE];

	if (!guard->hosts && !guard_is_open(guard))
		return true;
	if (!caller->host) /* HTTP/1.0: no browser speaks it */
		return true;
	if (!guard_host_name(caller->host, host))
		return false;
	return strcasecmp(host, "localhost") == 0 || inet_pton(AF_INET, host, address) == 1 ||
	       inet_pton(AF_INET6, host, address) == 1 ||
	       (guard->hosts && guard_host_listed(guard->hosts, host));
}

static bool guard_same_origin(const struct guard_caller *caller)
{
	const char *scheme = caller->tls ? "https://" : "http://";
	struct bts_slice origin = guard_value(caller->origin), host = guard_value(caller->host ? caller->host : "");
	size_t size = strlen(scheme);

	return host.size && strncasecmp(caller->origin, scheme, size) == 0 && origin.size - size == host.size &&
	       strncasecmp(caller->origin + size, caller->host, host.size) == 0;
}

enum guard_verdict guard_admit(
	struct guard *guard, const struct guard_caller *caller, struct guard_grant *grant)
{
	bool known = guard_identify(guard, caller, grant);

	if (!guard_host_is_ours(guard, caller))
		return GUARD_HOST;
	if (caller->origin && !(caller->reads && guard_same_origin(caller)))
		return GUARD_ORIGIN;
	return known ? GUARD_ADMITTED : GUARD_UNKNOWN;
}

bool guard_allows(const struct guard_grant *grant, unsigned scope, struct bts_slice bucket)
{
	return (grant->scopes & scope) == scope &&
	       (!grant->limited || !bucket.size || keyring_bucket_matches(grant->buckets, bucket));
}

const struct guard_words *guard_words(enum guard_verdict verdict)
{
	static const struct guard_words words[] = {
		[GUARD_ADMITTED] = {403, "forbidden", "these credentials do not allow this"},
		[GUARD_UNKNOWN] = {401, "unauthorized",
			"a token or certificate is needed that is known here and has not expired"},
		[GUARD_HOST] = {421, "host-not-allowed",
			"the request is for a host name that this node does not answer to"},
		[GUARD_ORIGIN] = {403, "origin-not-allowed", "a page of another origin may not send this"},
	};

	return &words[verdict];
}
