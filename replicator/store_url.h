/* Where a store is, as a URL says it, and what a key may be.  Pure. */
#ifndef STORE_URL_H
#define STORE_URL_H

#include <stdbool.h>

#include "store.h"

#define STORE_BUCKET_MAX 63
#define STORE_REGION_MAX 32
#define STORE_PREFIX_MAX 255

struct store_endpoint {
	bool tls;
	char host[256]; /* with a port, unless it is the scheme's own; as the header Host has it */
};

struct store_url {
	bool s3;
	char name[STORE_URL_MAX + 1]; /* for people: no query, no / at the end */
	char path[STORE_URL_MAX + 1]; /* file: absolute, decoded */
	/* s3 */
	char bucket[STORE_BUCKET_MAX + 1];
	char prefix[STORE_PREFIX_MAX + 1]; /* "" or a key */
	char region[STORE_REGION_MAX + 1]; /* "" = not said */
	struct store_endpoint endpoint;	   /* host "": not said */
};

/* NULL, or what is wrong with it. */
const char *store_url_parse(const char *text, struct store_url *url);
const char *store_url_parse_endpoint(const char *text, struct store_endpoint *endpoint);
bool store_url_is_region(const char *text);

/* Of store.h. */
bool store_url_is_key(const char *key);
/* The same for one part of a key. */
bool store_url_is_part(const char *part, size_t size);

#endif
