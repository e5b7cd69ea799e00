/*
 * Images of the database that are being handed out: each of one commit, which it pins, readable at any offset, by
 * several at once, until nobody has read it for a while.
 */
#ifndef HTTPAPI_BACKUPS_H
#define HTTPAPI_BACKUPS_H

#include <stddef.h>
#include <stdint.h>

#include "btree_store/ship.h"

struct backup;
struct backups;
struct config;
struct request;
struct role;

#define BACKUPS_ID_TEXT 33 /* 32 hexadecimal digits and a NUL */

int backups_start(struct role *, const struct config *, struct backups **); /* 0, or -1 with the reason logged */
void backups_stop(struct backups *); /* NULL is fine; all users have left */

/*
 * A new image, with one user (backups_leave).  It is opened by another thread, which then resumes the request: so the caller
 * suspends that, and asks backups_error afterwards.  keep_ms: how long it stays when nobody uses it.  NULL: there are as
 * many as may be.
 */
struct backup *backups_new(struct backups *, struct request *, uint64_t keep_ms);
/* One more user of the image of that id; NULL: there is none. */
struct backup *backups_find(struct backups *, struct bts_slice id);
void backups_leave(struct backup *);
/* Ends the image of that id; those who read it are cut.  0, or -1: there is none. */
int backups_end(struct backups *, struct bts_slice id);

size_t backups_clear(struct backups *); /* likewise all, but those that are being opened; how many they were */

/* BTS_OK: it is open, and the rest may be called. */
enum bts_err backups_error(const struct backup *, struct bts_error *);
const char *backups_id(const struct backup *);
uint64_t backups_size(const struct backup *);
const struct bts_position *backups_position(const struct backup *); /* borrowed while it is used */
void backups_digest(const struct backup *, uint8_t digest[16]);
/* Any thread.  0, or -1, the reason logged. */
int backups_read(struct backup *, uint64_t at, void *out, size_t size);

/* Something else that takes the place of an image.  0, or -1: there are as many as may be. */
int backups_claim(struct backups *);
void backups_unclaim(struct backups *);
void backups_stat(struct backups *, size_t *images, size_t *users);
#endif
