/*
 * Signatures of requests to S3: Amazon's "Signature Version 4", signed payload, in the header Authorization.  Pure,
 * but for what libgnutls does.  Written after "Authenticating Requests: Using the Authorization Header" of the
 * Amazon S3 API Reference.
 */
#ifndef STORE_SIGN_H
#define STORE_SIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <btree_store.h>

#define STORE_SIGN_SUM 65	   /* SHA-256 as hexadecimal digits */
#define STORE_SIGN_TIME 17	   /* "20130524T000000Z" */
#define STORE_SIGN_CANONICAL 16384 /* of a canonical request */
#define STORE_SIGN_ANSWER 1024	   /* of the header's value */
#define STORE_SIGN_HEADERS 8

struct store_sign_header {
	const char *name;  /* small letters */
	const char *value; /* no spaces at its ends, no two in a row */
};

struct store_sign_request {
	const char *method;
	const char *path;  /* encoded as it is sent */
	const char *query; /* as store_sign_encode and the order of names have it, "" for none */
	const char *when;  /* as the header x-amz-date has it */
	const char *sum;   /* of the body, as the header x-amz-content-sha256 has it */
	/* All that are signed, ascending by name: host, x-amz-date, x-amz-content-sha256 at least. */
	struct store_sign_header header[STORE_SIGN_HEADERS];
	size_t headers;
};

struct store_sign_key {
	const char *access, *secret, *region;
};

void store_sign_time(time_t now, char when[STORE_SIGN_TIME]);
/* false: libgnutls cannot. */
bool store_sign_sum(struct bts_slice bytes, char sum[STORE_SIGN_SUM]);
/* A value for a query.  false: no room. */
bool store_sign_encode(const char *text, char *to, size_t room);
/* What is signed; false: too long. */
bool store_sign_canonical(const struct store_sign_request *, char text[STORE_SIGN_CANONICAL]);
/* The value of the header Authorization; false: too long, or libgnutls cannot. */
bool store_sign_authorization(
	const struct store_sign_key *, const struct store_sign_request *, char text[STORE_SIGN_ANSWER]);

#endif
