/*
 * A request target: path segments and query parameters.
 *
 * Both are split before they are decoded, so an encoded slash or ampersand is data.  '+' is a plus.
 */
#ifndef HTTPAPI_URI_H
#define HTTPAPI_URI_H

#include <stddef.h>

#include "btree_store.h"

#define URI_SEGMENTS_MAX 8
#define URI_PARAMS_MAX 16
#define URI_NEAR 192 /* both texts, where they fit */

struct uri_param {
	struct bts_slice name, value; /* decoded */
};

struct uri {
	char *target; /* as it came: owned, or in near */
	char *text;   /* behind it; everything below points into it */
	unsigned segments, params; /* 0 segments: a path of more than URI_SEGMENTS_MAX */
	struct bts_slice segment[URI_SEGMENTS_MAX]; /* raw: uri_decode is for the ones that are data */
	struct uri_param param[URI_PARAMS_MAX];
	char near[URI_NEAR];
};

enum uri_err {
	URI_OK,
	URI_MEMORY,
	URI_NOT_ORIGIN_FORM, /* absolute-form, authority-form, or not beginning with a slash */
	URI_MALFORMED,	     /* a bad percent-encoding, '#' */
	URI_PARAMS,	     /* too many query parameters */
};

/* Parses target, which is copied.  On failure *problem says what and where; uri_fini is needed in any case.
 */
enum uri_err uri_parse(struct uri *, const char *target, char problem[128]);
void uri_fini(struct uri *);

/* Decode segment i in place: percent-encoding, or base64url when b64u is set.  URI_OK or URI_MALFORMED. */
enum uri_err uri_decode(struct uri *, unsigned i, int b64u, char problem[128]);

/* NULL when it was not given. */
const struct bts_slice *uri_param(const struct uri *, const char *name);
#endif
