/*
 * The routes: one table drives dispatch, 405 with Allow, which parameters are known, metrics labels and,
 * later, the OpenAPI document.
 */
#ifndef HTTPAPI_ROUTE_H
#define HTTPAPI_ROUTE_H

#include <stddef.h>

#include "auth.h"
#include "uri.h"

struct request;

#define ROUTE_GET 0x1u /* and HEAD */
#define ROUTE_PUT 0x2u
#define ROUTE_DELETE 0x4u
#define ROUTE_POST 0x8u
#define ROUTE_OPTIONS 0x10u /* every known path answers it */
#define ROUTE_PATCH 0x20u
#define ROUTE_METHODS 6

/* flags */
#define ROUTE_ADMIN 0x1u  /* also on the admin listener */
#define ROUTE_WRITES 0x2u /* a follower sends it to the primary */
#define ROUTE_BODY 0x4u	  /* takes a body, collected before handle is called */
#define ROUTE_READS 0x8u  /* honours BTS-After and BTS-Max-Staleness */
#define ROUTE_MAY_WRITE 0x10u /* what is in the body tells: the handler calls request_check_write, and wait_before where it reads */

/* feed is also called when the headers are there and nothing was refused: no data, and as size the Content-Length, 0 without */
#define ROUTE_ANNOUNCED 0x40u

/* Of a route without a bucket in its path: it asks auth_allows for each bucket it touches, or touches none.  Without this, who is limited
 * to some buckets is refused. */
#define ROUTE_EACH 0x100u

#define ROUTE_PARAMS_MAX 20

struct route {
	unsigned method;
	const char *template; /* "/v1/buckets/{bucket}": a part in braces stands for one segment of data */
	unsigned flags;
	enum auth_scope scope; /* what a caller needs; on a path's bucket where it has one */
	const char *params[ROUTE_PARAMS_MAX]; /* known query parameters, NULL-terminated */
	void (*handle)(struct request *);
	/* takes pieces of the body as they come instead (ROUTE_BODY unset); returns bytes consumed */
	size_t (*feed)(struct request *, const char *data, size_t size);
};

struct route_match {
	const struct route *route; /* NULL: nothing there, or not with this method */
	unsigned allowed;	   /* methods of the path, all of them when route is NULL; 0 = no such path */
};

/* The template of the first row that matches counts: those asked for most often come first, a literal part before one in braces. */
extern const struct route route_table[];
extern const size_t route_table_size;

/* Route flags needed: 0, or ROUTE_ADMIN to see only those. */
struct route_match route_find(
	const struct route *table, size_t size, const struct uri *, unsigned method, unsigned needed);
/* Index of the segment named name ("{name}"), or -1. */
int route_segment(const struct route *, const char *name);
/* The name of a query parameter that route does not know or that came twice; NULL when all is well. */
const struct bts_slice *route_bad_param(const struct route *, const struct uri *, int *twice);
/* "GET, HEAD, OPTIONS" for an Allow header. */
void route_allow(unsigned methods, char text[64]);
/* All of them as JSON to standard output (route_print.c). */
void route_print(void);
/* 0 when the method is none of ours. */
unsigned route_method(const char *name);
const char *route_method_name(unsigned method);
#endif
