/*
 * What this process shows to the nodes it asks, and by what it knows them: a token, a certificate, an authority.  One a process,
 * as all of its transports ask for the same node.
 */
#ifndef IDENTITY_H
#define IDENTITY_H

#include <stdbool.h>

#include "keyring.h"

struct identity {
	const char *ca;		/* PEM: who signs for the nodes asked; NULL: as the system has it */
	const char *cert, *key; /* PEM, NULL: no certificate is shown */
	const char *token_file; /* a file whose first line is a token; NULL: none is sent */
};

/* Before any transport.  The names are borrowed for good.  BTS_INVALID: no token, or one that others can read; BTS_IO. */
BTS_MUST_CHECK enum bts_err identity_set(const struct identity *, struct bts_error *error);
/* Reads the token again (certificates are at each connection); when that fails it stays.  Any thread. */
BTS_MUST_CHECK enum bts_err identity_reload(struct bts_error *error);
const struct identity *identity_get(void);
/* The header "Authorization: ..." for a request to that URL; false: none.  Never over the network in the clear. */
#define IDENTITY_HEADER_SIZE 128
bool identity_header(const char *url, char header[IDENTITY_HEADER_SIZE]);

#endif
