/*
 * Change feeds: who follows what changes, and from where on.
 *
 * A thread takes the newest state every few milliseconds while there are watchers and something was committed, works out the
 * difference to the one before, once for each filter, and hands the text of it, a segment, to all watchers of that filter.  Who is
 * not where these segments begin (resumed, or slower than they come) works out a difference of its own, from its state to the
 * newest, in its loop: what happened in between is coalesced by that, so that nobody's slowness costs memory or others.
 *
 * A bookmark names a state that is kept for a while, within limits of number, age and pages; what it is asked for is a
 * difference of two states, so there is no log of events and nothing is written for it.
 */
#ifndef HTTPAPI_WATCH_H
#define HTTPAPI_WATCH_H

#include <stdint.h>
#include <sys/types.h>

#include "btree_store.h"

struct buf;
struct config;
struct request;
struct role;
struct watch;
struct watcher;

#define WATCH_BOOKMARK_MAX 48

enum watch_form { WATCH_JSON, WATCH_NDJSON, WATCH_SSE };

struct watch_filter {
	enum watch_form form;
	int values;
	struct bts_slice bucket, prefix; /* empty: all */
	const char *allowed; /* the buckets that may be told of, as auth_among takes them; the request's */
};

enum watch_since { WATCH_NOW, WATCH_BEGIN, WATCH_AT };

struct watch_stat {
	unsigned watchers, idle, channels, kept;
	uint64_t events, segments, ticks, lagged, refused, expired;
};

int watch_start(struct role *, const struct config *, struct watch **); /* 0 or -1 */
/* Streams end, those that wait get what there is; nobody comes any more. */
void watch_drain(struct watch *);
void watch_stop(struct watch *); /* NULL is fine */
/* Bookmarks are not good any more, for the pages that their states keep; how many they were.  Does not wait. */
size_t watch_clear(struct watch *);
void watch_stat(struct watch *, struct watch_stat *);
/* The bookmark that goes back the furthest, "" when there is none. */
void watch_oldest(struct watch *, char text[WATCH_BOOKMARK_MAX]);

enum watch_refusal {
	WATCH_FINE,
	WATCH_MALFORMED,
	WATCH_EXPIRED,
	WATCH_TOO_MANY,
	WATCH_STOPPING,
	WATCH_FAILED
};
struct watch_asked {
	struct watch_filter filter; /* copied, but for allowed */
	enum watch_since since;
	struct bts_slice bookmark; /* WATCH_AT */
	uint64_t wait_ms;	   /* WATCH_JSON: how long for the first change */
};
/*
 * The following are called in the loop of the request.  WATCH_FINE: the watcher is owned (watcher_free, which the end of the request
 * must call); the request is to be suspended, and is resumed when it has its place.
 */
enum watch_refusal watch_attach(
	struct watch *, struct request *, const struct watch_asked *, struct watcher **);
void watcher_free(void *watcher);
/* After that resume: WATCH_FINE, or why not. */
enum watch_refusal watcher_placed(const struct watcher *);
bts_txid watcher_txid(const struct watcher *); /* that it goes up to at first */

/* A stream's next bytes: how many; 0: the request has been suspended until there are some; WATCHER_END; WATCHER_BROKEN. */
#define WATCHER_END (-1)
#define WATCHER_BROKEN (-2)
ssize_t watcher_read(void *watcher, char *out, size_t max);

/* WATCH_JSON: 1: there is a reply (watcher_fill makes it); 0: the request is to be suspended and resumed to ask again. */
int watcher_answers(struct watcher *, enum bts_err *err, struct bts_error *error);
int watcher_fill(void *watcher, struct buf *);
/* Why that broke. */
enum bts_err watcher_broken(const struct watcher *, struct bts_error *);

#endif
