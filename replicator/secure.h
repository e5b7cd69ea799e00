/* The settings of security that both servers have: who is let in, what is shown to others. */
#ifndef SECURE_H
#define SECURE_H

#include <stdbool.h>

#include "guard.h"
#include "settings.h"

struct secure {
	const char *token_file;		/* NULL: tokens are not known */
	const char *tls_cert, *tls_key; /* NULL: no TLS */
	const char *client_ca;		/* NULL: clients are not asked for certificates */
	const char *client_scope;	/* of those it vouches for, as text */
	const char *tls_ca;		/* for the nodes asked; NULL: as the system has it */
	const char *upstream_token;	/* a file of a token that is shown to them; NULL: none */
	const char *allow_host;		/* as guard_options has them */
};

/* The rows of a table of settings (settings.h) whose struct has such a field. */
/* clang-format off */
#define SECURE_ROWS(type, field) \
	SETTINGS_GROUP("Security"), \
	{"token-file", SETTINGS_PATH(type, field.token_file), .arg = "FILE", \
		.help = "who may do what (btsd token --help); without it and --client-ca, whoever gets here may do all"}, \
	{"tls-cert", SETTINGS_PATH(type, field.tls_cert), .arg = "FILE", \
		.help = "speak TLS with this certificate (PEM, its chain after it); it is shown to the nodes asked, too"}, \
	{"tls-key", SETTINGS_PATH(type, field.tls_key), .arg = "FILE", .help = "its key (PEM)"}, \
	{"client-ca", SETTINGS_PATH(type, field.client_ca), .arg = "FILE", \
		.help = "who signs for clients (PEM): then a client's certificate is as good as a token"}, \
	{"client-scope", SETTINGS_TEXT(type, field.client_scope), .arg = "SCOPES", .fallback = "replicate", \
		.check = secure_check_scopes, \
		.help = "what such a client may do, unless the token file names its certificate: read, write, admin, replicate, elect, with commas"}, \
	{"tls-ca", SETTINGS_PATH(type, field.tls_ca), .arg = "FILE", \
		.help = "who signs for the nodes that this one asks (PEM; default: as the system has it)"}, \
	{"upstream-token", SETTINGS_PATH(type, field.upstream_token), .arg = "FILE", \
		.help = "a file with the token that is shown to them"}, \
	{"allow-host", SETTINGS_LIST(type, field.allow_host), .arg = "NAME,NAME", .check = secure_check_hosts, \
		.help = "host names that requests may be for, * = any (default: any where credentials are asked for, else localhost and " \
			"numeric addresses)"}
/* clang-format on */
const char *secure_check_scopes(const char *text);
const char *secure_check_hosts(const char *text);

#define SECURE_WHY_SIZE 320

/* All settings are read: do they fit together? */
bool secure_fits(const struct secure *, char why[SECURE_WHY_SIZE]);
/* May that address be served?  plain: without TLS in any case. */
bool secure_may_serve(const struct secure *, const struct settings_address *, bool plain, char why[SECURE_WHY_SIZE]);

/* Loads the files.  Owned: guard_free.  Before any thread. */
BTS_MUST_CHECK enum bts_err secure_open(
	const struct secure *, const struct repl_events *events, struct guard **guard, struct bts_error *error);
/* All of them again (SIGHUP); what cannot be read stays as it was, false then.  An event tells what became of it. */
BTS_MUST_CHECK bool secure_reload(struct guard *, const struct repl_events *events);

#endif
