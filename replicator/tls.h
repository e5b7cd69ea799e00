/*
 * The certificate that this process serves with, and the authority by which it knows its clients.  One of each a process: the
 * HTTP library hands its callback nothing to tell daemons apart by.
 *
 * A reload takes effect for new connections.  What was loaded before is kept for good, a few kilobytes each time the files have
 * changed: a handshake under way may still point into it.
 */
#ifndef TLS_H
#define TLS_H

#include <stdbool.h>
#include <stdint.h>

#include "fail.h"

#define TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:%SERVER_PRECEDENCE"

struct tls_files {
	const char *cert,
		*key; /* PEM: the chain, own certificate first; its key, which not everybody may read.  NULL: no TLS */
	const char *client_ca; /* PEM: who signs for clients; NULL: they are not asked for certificates */
};

/* Before any thread.  The names are borrowed for good.  BTS_INVALID: malformed, or the key is another one's; BTS_IO. */
BTS_MUST_CHECK enum bts_err tls_load(const struct tls_files *files, struct bts_error *error);
/* Can those be read who sign for other nodes? */
BTS_MUST_CHECK enum bts_err tls_check_signers(const char *path, struct bts_error *error);
/* The same files again; when that fails all stays as it was.  Any thread, one at a time. */
BTS_MUST_CHECK enum bts_err tls_reload(struct bts_error *error);
bool tls_on(void);	     /* there is a certificate */
bool tls_asks_clients(void); /* there is an authority for clients */

/* For libmicrohttpd's MHD_OPTION_HTTPS_CERT_CALLBACK2. */
void *tls_callback(void);

/* The client's certificate of a TLS session, as libmicrohttpd gives it: true when the authority vouches for it now. */
bool tls_client(void *session, uint8_t sum[32]);

#endif
