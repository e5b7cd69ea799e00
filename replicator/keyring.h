/*
 * Tokens: who shows one may do what.  A file of them, which holds only their SHA-256 sums, and the set of it in memory.
 *
 * A token is 256 random bits, so its plain sum tells nothing about it and needs no salt.  A client certificate is kept the same
 * way, by the sum of its bytes: what it may do can be said, and taken back, like that of a token.
 *
 * The file is text: a line of KEYRING_HEAD, then a line a token with six fields, a space between:
 *
 *	SUM SCOPES CREATED EXPIRES BUCKETS NAME
 *
 * SUM in hex; scopes with commas, before them "certificate" where it is one's sum; times in seconds since 1970, 0 = never; patterns
 * with commas, "*" = all; "-" for no name.  It is replaced as a whole, and refused when others than its owner can read or write it.
 *
 * A certificate that is revoked stays in the file, without scopes: one that the file does not name may do what the authority's
 * clients may.
 */
#ifndef KEYRING_H
#define KEYRING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fail.h"

#define KEYRING_TOKEN_SIZE 48 /* "bts_", 43 of base64url, NUL */
#define KEYRING_SUM 32
#define KEYRING_ID_SIZE 13 /* the first six bytes of the sum in hex, NUL */
#define KEYRING_NAME_SIZE 64
#define KEYRING_BUCKETS_SIZE 512
#define KEYRING_ENTRIES_MAX 1024

/* What may be done, as flags.  Who may administer may do everything: they could give themselves the rest. */
#define KEYRING_READ 0x1u
#define KEYRING_WRITE 0x2u
#define KEYRING_ADMIN 0x4u
#define KEYRING_REPLICATE 0x8u
#define KEYRING_ELECT 0x10u /* to ask for promises, which fence a primary */
#define KEYRING_ALL 0x1fu

#define KEYRING_SCOPES_SIZE 48

struct keyring_entry {
	uint8_t sum[KEYRING_SUM];
	bool certificate;
	unsigned scopes; /* 0: a certificate that was revoked */
	uint64_t created_s, expires_s; /* since 1970; 0 = not known, never */
	char buckets
		[KEYRING_BUCKETS_SIZE]; /* "*", or names and prefixes ("logs*") with commas, percent-encoded */
	char name[KEYRING_NAME_SIZE];	/* for people; "" = none */
};

struct keyring_list {
	struct keyring_entry *entries; /* owned: keyring_list_free */
	size_t count;
};

/* "read,write"; false: malformed, or none.  And back, "none" for 0. */
bool keyring_scopes_parse(const char *text, unsigned *scopes);
void keyring_scopes_text(unsigned scopes, char text[KEYRING_SCOPES_SIZE]);
/* "30d", "12h", "90m", "10s" from now on, or "0" = never: as seconds since 1970. */
bool keyring_expiry_parse(const char *text, uint64_t *expires_s);
bool keyring_name_valid(
	const char *name); /* at most 63 of letters, digits, '.', '-', '_', and none is fine */
bool keyring_buckets_valid(const char *buckets);
/* Only reading and writing can be limited to buckets: the other scopes are for all of the file. */
bool keyring_limit_fits(const struct keyring_entry *);
void keyring_id(const uint8_t sum[KEYRING_SUM], char id[KEYRING_ID_SIZE]);

/* Is that bucket one of these? */
bool keyring_bucket_matches(const char *buckets, struct bts_slice bucket);

/* The sum of a token; false: it does not look like one. */
bool keyring_token_sum(const char *token, uint8_t sum[KEYRING_SUM]);
/* Of any bytes. */
void keyring_sum(const void *bytes, size_t size, uint8_t sum[KEYRING_SUM]);

/*
 * The file, each as a whole and under a lock against other processes that do the same.  BTS_INVALID: malformed, or others can read
 * it; BTS_IO.  add makes the file when there is none; id has room for KEYRING_ID_SIZE.
 */
BTS_MUST_CHECK enum bts_err keyring_load(
	const char *path, struct keyring_list *list, struct bts_error *error);
void keyring_list_free(struct keyring_list *);
/* A new token, printed into `token` and nowhere else; the entry's sum and time are filled in.  BTS_LIMIT: too many. */
BTS_MUST_CHECK enum bts_err keyring_create(const char *path, struct keyring_entry *entry,
	char token[KEYRING_TOKEN_SIZE], struct bts_error *error);
/* The entry as it is, which has a sum; an earlier one of the same sum goes. */
BTS_MUST_CHECK enum bts_err keyring_add(
	const char *path, const struct keyring_entry *entry, struct bts_error *error);
/* BTS_NOT_FOUND: there is none, or it is a certificate that was revoked before. */
BTS_MUST_CHECK enum bts_err keyring_revoke(const char *path, const char *id, struct bts_error *error);

/* An open descriptor of a file of secrets: BTS_INVALID when others than its owner, this user or root, get at it. */
BTS_MUST_CHECK enum bts_err keyring_check_private(int fd, const char *path, struct bts_error *error);

/* The set in memory.  It looks once a second whether the file is another one, so a revocation needs no signal.  Any thread. */
struct keyring;
BTS_MUST_CHECK enum bts_err keyring_open(const char *path, const struct repl_events *events,
	struct keyring **keyring, struct bts_error *error);
void keyring_free(struct keyring *); /* NULL is fine */
/* Reads the file again; when that fails the set stays as it was. */
BTS_MUST_CHECK enum bts_err keyring_reload(struct keyring *, struct bts_error *error);
/*
 * The entry of that sum, copied; false: there is none, and its buckets are "", or it has expired or was revoked.  Takes as long whatever
 * the sum is.
 */
bool keyring_find(struct keyring *, const uint8_t sum[KEYRING_SUM], struct keyring_entry *entry);
const char *keyring_path(const struct keyring *); /* borrowed */

#endif
