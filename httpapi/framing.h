/*
 * The framing of a request: what would let two parties, a proxy and this server, disagree on where it ends.
 * The HTTP library accepts more than it should.
 */
#ifndef HTTPAPI_FRAMING_H
#define HTTPAPI_FRAMING_H

#include <stddef.h>
#include <stdint.h>

#include "rawhead.h"

struct MHD_Connection;

struct framing {
	unsigned hosts, lengths, codings, authorizations, origins, bad;
	const char *twice; /* NULL, or a field that says one thing and came more than once */
	int coding_unknown;
	size_t head, fields; /* bytes of it, the request line included; how many, and cookies */
	size_t cookies;	     /* bytes of them, of which the library has a copy */
	struct rawhead raw;
	uint64_t length; /* Content-Length, 0 without */
	const char *host, *authorization, *origin; /* values, NULL: absent; borrowed from the connection */
	uint64_t seen;	 /* framing_mark of every name: one that is not in it was not sent */
	uint64_t again;	 /* of every name whose mark was there before */
};

/* A bit for a header name in any case; different names may have the same. */
uint64_t framing_mark(const char *name, size_t size);

/* The request line, as the library gives it: pointers into its buffer (rawhead.h). */
struct framing_line {
	const char *method, *url, *version;
	size_t target_size; /* of all of the target, as it came */
};

/* Looks at all header lines.  NULL when they are sound, else what is not: the connection cannot go on then. */
const char *framing_problem(struct framing *, struct MHD_Connection *, const struct framing_line *);

#endif
