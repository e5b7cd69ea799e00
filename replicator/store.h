/*
 * Objects by name, somewhere else: a directory or a bucket.  What an archive is kept in.
 *
 *	file:///dir/prefix
 *	s3://bucket/prefix[?endpoint=http://host:port][&region=name]
 *
 * Whoever can write there can lie: what comes back is as hostile as a peer's bytes.  Only the shape of it is
 * checked here (keys, order, sizes, XML); what an object says is checked by its reader.
 *
 * Threads: one at a time a store, but for store_interrupt.  Every call may block for as long as store_options says;
 * calls of a store of s3 that fail by what may pass (no connection, 5xx, 429) are tried again within that time.
 *
 * Errors of all calls, besides those named: BTS_IO (may pass: not reached, refused by the system, not in time),
 * BTS_INVALID (does not pass: a bad key, the settings, the rights, a store that cannot do what is needed),
 * BTS_CORRUPT (an answer that no honest store gives), BTS_FULL, BTS_MEMORY, BTS_TIMEOUT (store_interrupt).
 * The text names store and key, never a secret.
 */
#ifndef STORE_H
#define STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <btree_store.h>

/*
 * A key: one or more parts with / between, each of letters, digits, '-', '_' and '.', not beginning with '.'.  What
 * else is in the place (others' files, names of our own that are not for readers) is passed over by store_list.
 */
#define STORE_KEY_MAX 255  /* bytes */
#define STORE_PART_MAX 200 /* bytes between two / */
#define STORE_URL_MAX 1024 /* bytes */
#define STORE_OBJECT_MAX                                                                                     \
	(64u * 1024 * 1024) /* bytes of an object; a longer one is BTS_INVALID to put, BTS_CORRUPT to get */

/* All may be zero: then it is as the comment says. */
struct store_options {
	const char *user_agent; /* "btree_store" */

	/* s3 alone; borrowed until store_open returns.  NULL: the variable named; "" counts as NULL. */
	const char *access_key;	   /* AWS_ACCESS_KEY_ID, must be there */
	const char *secret_key;	   /* AWS_SECRET_ACCESS_KEY, must be there */
	const char *session_token; /* AWS_SESSION_TOKEN; none */
	const char *region;	   /* the URL's, AWS_REGION, AWS_DEFAULT_REGION, us-east-1 */
	const char *endpoint;	   /* the URL's, AWS_ENDPOINT_URL, Amazon's */
	const char *ca; /* a file (PEM) of who signs for the endpoint; AWS_CA_BUNDLE; as the system has it */

	unsigned retry_ms; /* a call begins no further attempt after so long; 60 s */
	unsigned idle_s;   /* an attempt that moves less than a KiB a second for so long has failed; 30 s */
	unsigned total_ms; /* an attempt that takes longer has failed; 15 min */
};

struct store;

/* NULL when store_open would take this URL, else what is wrong with it: the check of a setting. */
const char *store_check_url(const char *url);

/*
 * Owned: store_close.  Reads no object and makes nothing: whether the place is there is seen by the first call,
 * which makes directories when it is a put.  options may be NULL.  BTS_INVALID: the URL, or no credentials.
 */
BTS_MUST_CHECK enum bts_err store_open(
	const char *url, const struct store_options *options, struct store **store, struct bts_error *error);
void store_close(struct store *); /* NULL is fine */

/* For logs: the URL without what stands behind '?'.  Borrowed until store_close. */
const char *store_name(const struct store *);

/*
 * bytes become the object key, whole or not at all, and are durable when it returns BTS_OK.  What is there is
 * replaced; with only_new it stays, and the call returns BTS_EXISTS.  Of several who put something new at most one
 * gets BTS_OK (unless they put the same bytes); rarely, when an answer got lost, BTS_EXISTS is told even of one's
 * own object, so read what is there.  When BTS_IO is returned the object may be there nevertheless, then or a
 * little later.  Before its first put a store of s3 finds out that the bucket keeps the rule of only_new (the
 * object `.only-new` below the prefix stays); BTS_INVALID when it does not.
 */
BTS_MUST_CHECK enum bts_err store_put(
	struct store *, const char *key, struct bts_slice bytes, bool only_new, struct bts_error *error);

/*
 * A piece of an object, in order, borrowed for the call.  What is not BTS_OK (error filled) ends the call, which
 * returns it.
 */
typedef enum bts_err store_piece_fn(void *arg, const void *data, size_t size, struct bts_error *error);

/* All pieces of the object; none when it is empty.  BTS_NOT_FOUND.  A failure may come after pieces have. */
BTS_MUST_CHECK enum bts_err store_get(
	struct store *, const char *key, store_piece_fn *visit, void *arg, struct bts_error *error);

/*
 * An object.  The key is borrowed for the call; modified_ms: milliseconds since 1970 by the store's clock, 0 when
 * not known.
 */
typedef enum bts_err store_key_fn(
	void *arg, const char *key, uint64_t size, uint64_t modified_ms, struct bts_error *error);

/*
 * All objects whose key begins with prefix ("" = all) and is greater than after ("" = from the first; need not
 * exist), ascending by bytes.  Objects put before the call are met, later ones may be.  None: BTS_OK.  visit must
 * make no call of this store.
 */
BTS_MUST_CHECK enum bts_err store_list(struct store *, const char *prefix, const char *after,
	store_key_fn *visit, void *arg, struct bts_error *error);

/* The object is not there (any more); BTS_OK also when it never was. */
BTS_MUST_CHECK enum bts_err store_delete(struct store *, const char *key, struct bts_error *error);

/* From any thread: the call under way and all later ones end soon, with BTS_TIMEOUT. */
void store_interrupt(struct store *);

#endif
