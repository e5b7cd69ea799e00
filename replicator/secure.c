/* The settings of security that both servers have. */
#include "secure.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "identity.h"
#include "tls.h"

const char *secure_check_scopes(const char *text)
{
	unsigned scopes;

	return keyring_scopes_parse(text, &scopes) ? NULL : "of read, write, admin, replicate, elect, with commas";
}

/* As a request's Host has it, without port and brackets: nothing else could ever be equal. */
static bool secure_host_can_be(const char *host, size_t size)
{
	static const char known[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_";
	uint8_t address[sizeof(struct in6_addr)];
	char text[256];

	if (!size || size >= sizeof(text))
		return false;
	memcpy(text, host, size);
	text[size] = '\0';
	return !strcmp(text, "*") || strspn(text, known) == size || inet_pton(AF_INET6, text, address) == 1;
}

const char *secure_check_hosts(const char *text)
{
	size_t size;

	for (;; text += size + 1) {
		size = strcspn(text, ",");
		if (!secure_host_can_be(text, size))
			return "host names or addresses without scheme, port and brackets, or *, with commas";
		if (!text[size])
			return NULL;
	}
}

bool secure_fits(const struct secure *s, char why[SECURE_WHY_SIZE])
{
	const char *missing = NULL;

	if (!s->tls_cert != !s->tls_key)
		missing = s->tls_key ? "--tls-key needs --tls-cert" : "--tls-cert needs --tls-key";
	else if (s->client_ca && !s->tls_cert)
		missing = "--client-ca needs --tls-cert and --tls-key";
	snprintf(why, SECURE_WHY_SIZE, "%s", missing ? missing : "");
	return !missing;
}

bool secure_may_serve(
	const struct secure *s, const struct settings_address *address, bool plain, char why[SECURE_WHY_SIZE])
{
	if (!address->size || settings_address_loopback(address))
		return true;
	if (!s->tls_cert || plain)
		snprintf(why, SECURE_WHY_SIZE,
			"'%.80s' can be reached from other machines: that needs --tls-cert and --tls-key, "
			"or, behind a proxy or a "
			"tunnel, a loopback address",
			address->text);
	else if (!s->token_file && !s->client_ca)
		snprintf(why, SECURE_WHY_SIZE,
			"'%.80s' can be reached from other machines: that needs --token-file or --client-ca, "
			"or a loopback address",
			address->text);
	else
		return true;
	return false;
}

enum bts_err secure_open(const struct secure *s, const struct repl_events *events, struct guard **guard,
	struct bts_error *error)
{
	const struct tls_files files = {.cert = s->tls_cert, .key = s->tls_key, .client_ca = s->client_ca};
	const struct identity identity = {
		.ca = s->tls_ca, .cert = s->tls_cert, .key = s->tls_key, .token_file = s->upstream_token};
	struct guard_options options = {
		.token_file = s->token_file, .hosts = s->allow_host, .events = *events};
	enum bts_err err;

	if (!keyring_scopes_parse(s->client_scope, &options.client_scopes))
		return fail_set(
			error, BTS_INVALID, "--client-scope: %s", secure_check_scopes(s->client_scope));
	err = tls_load(&files, error);
	if (!err && s->tls_ca)
		err = tls_check_signers(s->tls_ca, error);
	if (!err)
		err = identity_set(&identity, error);
	return err ? err : guard_new(&options, guard, error);
}

bool secure_reload(struct guard *guard, const struct repl_events *events)
{
	struct bts_error error = {0};
	bool failed = false;

	if (tls_reload(&error)) {
		failed = true;
		repl_emit(events, REPL_ERROR, "certificate-not-read", "%s; the one before stays", error.text);
	}
	if (identity_reload(&error) || guard_reload(guard, &error)) {
		failed = true;
		repl_emit(events, REPL_ERROR, "tokens-not-read", "%s; those read before stay", error.text);
	}
	if (!failed)
		repl_emit(events, REPL_INFO, "secrets-read", "tokens and certificates");
	return !failed;
}
