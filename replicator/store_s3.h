/* A bucket as a store: what its files share. */
#ifndef STORE_S3_H
#define STORE_S3_H

#include "store_private.h"
#include "store_sign.h"
#include "store_xml.h"

#define STORE_S3_KEY_MAX (STORE_PREFIX_MAX + 1 + STORE_KEY_MAX)
#define STORE_S3_ACCESS_MAX 256
#define STORE_S3_TOKEN_MAX 4096 /* bytes of a session token */
#define STORE_S3_ETAG_MAX 128
#define STORE_S3_ANSWER_MAX                                                                                  \
	(8u * 1024 * 1024) /* bytes of a page of a listing, or of what else is kept of an answer */

struct transport;

struct store_s3 {
	struct store base;
	struct transport *transport;
	char bucket[STORE_BUCKET_MAX + 1];
	char prefix[STORE_PREFIX_MAX + 2];	/* "", or with a / at its end */
	char root[16 + 256 + STORE_BUCKET_MAX]; /* scheme and host of the URLs */
	char host[256 + STORE_BUCKET_MAX + 1];
	bool by_path; /* the bucket is the first part of the path, else of the host's name */
	char access[STORE_S3_ACCESS_MAX + 1], secret[257], token[STORE_S3_TOKEN_MAX + 1],
		region[STORE_REGION_MAX + 1];
	unsigned retry_ms, idle_s, total_ms;
	bool probed; /* only_new is known to be kept */
};

/* A question, tried until it is answered or the time is up. */
struct store_s3_ask {
	const char *method;
	const char *key;   /* below the prefix; NULL: the bucket itself is asked */
	const char *query; /* NULL: none */
	struct bts_slice body;
	bool only_new;
	/*
	 * The body of an answer that says 200, while it comes.  An attempt after one that broke off goes on behind
	 * what has been visited; without visit the body is kept in text.
	 */
	store_piece_fn *visit;
	void *arg;

	/* The answer: to be freed with store_s3_ask_fini. */
	long status;
	struct store_xml_problem problem; /* of a status that is none of success */
	char *text;
	size_t size, room;
	bool in_doubt; /* an attempt failed of which the store may have done what it said */
	unsigned attempts;

	/* of the attempts */
	struct store_s3 *s3;
	uint64_t visited, skip;
	uint64_t from, whole; /* of the header Content-Range; UINT64_MAX: not there */
	char etag[STORE_S3_ETAG_MAX + 1], new_etag[STORE_S3_ETAG_MAX + 1];
	bool bounded;			   /* where the body ends is said before it */
	char region[STORE_REGION_MAX + 1]; /* the bucket's, as a header says */
	struct bts_error *caller,
		error;	      /* the caller's own, for visit; and what ended the attempt, without names */
	bool lasting;	      /* no further attempt would end otherwise */
	enum bts_err refused; /* what visit returned */
};

/*
 * BTS_OK: the store has answered for good, with any status, and in a GET all of the body has come.  Otherwise
 * BTS_IO, BTS_INVALID, ... as store.h has them, error filled.
 */
BTS_MUST_CHECK enum bts_err store_s3_ask(
	struct store_s3 *s3, struct store_s3_ask *ask, struct bts_error *error);
void store_s3_ask_fini(struct store_s3_ask *ask);
/* The answer was not the one wanted: what its status and code mean. */
BTS_MUST_CHECK enum bts_err store_s3_refuse(const struct store_s3_ask *ask, struct bts_error *error);

#endif
