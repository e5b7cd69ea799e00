/* What role.c and role_switch.c share. */
#ifndef HTTPAPI_ROLE_INTERNAL_H
#define HTTPAPI_ROLE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "follow.h"
#include "repair.h"
#include "role.h"

/* When commits were made, for the age of what a follower lacks: at most one entry in ROLE_AGE_STEP_MS. */
#define ROLE_AGES 8192
#define ROLE_AGE_STEP_MS 50

struct role_age {
	bts_txid txid;
	uint64_t ms;
};

/* A URL in use once: readers keep pointers to it, so all are kept. */
struct role_text {
	struct role_text *next;
	char text[];
};

struct role {
	const struct config *config;
	char name[64], url[80];
	uint64_t started_ms;
	atomic_int kind; /* enum bts_role_kind */
	_Atomic(const char *) source, primary_url; /* "": none known */
	/*
	 * db reads, and writes while the file is a primary's; NULL while only follow has the file open.  It stays for good: a
	 * handle once given out is never closed before the end.  applier: follows, where db can not (it was opened to
	 * write); else equal to db, or NULL.
	 */
	_Atomic(struct bts *) db;
	struct bts *applier;
	pthread_rwlock_t switching; /* of follow and applier: read to use them, written to change them */
	struct follow *follow;
	pthread_mutex_t changing; /* one change of role at a time */
	uint64_t changed_ms;
	atomic_uint_least64_t txid;
	atomic_int poisoned, draining, synced;
	atomic_uint_least64_t expired;
	pthread_mutex_t lock;	      /* what follows */
	struct bts_position position; /* epoch_txid's */
	bts_txid position_txid;
	struct bts_position seen; /* the newest that role_epoch_of has looked at */
	bts_txid seen_since;	  /* its epoch is that of all from here on */
	struct role_age ages[ROLE_AGES];
	size_t age_first, age_count;
	struct role_text *texts;
	pthread_mutex_t scrubbing; /* of repair */
	struct repair *repair;
};

/* Kept until role_close; "" without memory. */
const char *role_keep_text(struct role *, const char *text);
/* That this node follows nobody: for a bts-replicator beside it, which tells it to those who follow. */
enum bts_err role_record_primary(struct role *, struct bts_error *);
/* The follower's thread, on applier or a handle of its own.  switching is not held. */
enum bts_err role_start_follow(struct role *, const char *source, struct bts_error *);

#endif
