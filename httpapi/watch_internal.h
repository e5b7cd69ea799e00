/* Change feeds from the inside: states, segments, channels, watchers. */
#ifndef HTTPAPI_WATCH_INTERNAL_H
#define HTTPAPI_WATCH_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "buf.h"
#include "ttl.h"
#include "watch.h"

#define WATCH_PACE_MS 10    /* between two looks at what was committed, at least */
#define WATCH_SWEEP_MS 250  /* heartbeats, ends of waits, ages */
#define WATCH_PAGES_MS 2000 /* between two looks at what kept states cost */
#define WATCH_KEPT_MAX 256  /* states that bookmarks name */
#define WATCH_KEPT_ASKED 64 /* of them those that single watchers asked for, when there are too many */
#define WATCH_BURST 32	    /* of them that may be kept at once, before they are spread over their age */
#define WATCH_SEGMENTS 64   /* a channel holds, and their bytes: who is further behind goes on by itself */
#define WATCH_SEGMENT_BYTES (4u << 20)
#define WATCH_ALL_BYTES ((size_t)256 << 20) /* of the segments of all channels, also those that are still being sent */
#define WATCH_VALUE_MAX (256u << 10) /* longer values are not in the feed, only their sizes */
#define WATCH_BLOCK 16384	     /* of text made at a time */

/* More than span ago, by a clock that may have been read before at: what a round does has the time at which it began. */
static inline int watch_is_past(uint64_t at_ms, uint64_t span_ms, uint64_t now_ms)
{
	return now_ms > at_ms && now_ms - at_ms > span_ms;
}

/* A state that can be gone on from.  All fields but txn's inside: with watch.lock held. */
struct watch_root {
	struct watch_root *next, **link; /* of all */
	struct watch_root *kept_next;
	struct bts_txn *txn; /* read by the thread of the feeds alone; others: bts_begin_same */
	bts_txid txid;
	uint64_t serial;
	unsigned refs;
	int kept, expired;
	uint64_t owner; /* while kept: in whose name, 0: of all who follow */
	uint64_t kept_ms;
	uint64_t held_pages;
};

/* The text of what changed from one tick to the next, for one filter. */
struct watch_segment {
	struct watch_segment *next;
	struct watch_root *to;
	uint64_t tick, events;
	unsigned refs;
	size_t counted; /* of watch.bytes */
	struct buf text;
};

/* Those who have the same filter. */
struct watch_channel {
	struct watch_channel *next;
	struct watch_filter filter; /* slices into bytes */
	unsigned users;
	struct watch_segment *first, *last;
	unsigned count;
	size_t bytes;
	uint64_t trimmed; /* the tick of the newest segment that is gone, or never was */
	uint64_t changed; /* of the newest change */
	int pending;	  /* changes since the last bookmark */
	struct watcher *idle;
	char *allowed; /* of filter */
	uint8_t bytes_of[BTS_BUCKET_NAME_MAX + BTS_KEY_MAX];
};

/* A difference being told. */
struct watch_walk {
	const struct watch_filter *filter;
	struct bts_diff *diff;
	struct ttl_view ttl;
	uint64_t events;
	struct bts_error error;
};

struct watcher {
	struct watch *watch;
	struct request *r;
	struct watch_channel *channel;
	struct watcher *next, **link; /* of idle or arriving ones */
	struct watch_filter filter;
	enum bts_err met; /* by watcher_fill */
	enum watch_since since;
	enum watch_refusal refusal;
	uint64_t owner; /* who it is, by credentials or address; never 0 */
	int placed;
	struct watch_root *at, *upto; /* told up to here; and to be told up to there next */
	uint64_t position;	      /* tick of `at`, of `upto` while there is one */
	uint64_t wait_until_ms, idle_ms;
	int heartbeat, timed_out;
	/* its loop's */
	int begun, walking, ended, broken;
	struct bts_txn *older, *newer;
	struct watch_walk walk;
	bts_txid from;
	char bookmark[WATCH_BOOKMARK_MAX];
	bts_txid to;
	struct buf out;
	size_t sent; /* of out, or of the segment */
	struct watch_segment *segment;
	uint8_t bytes_of[BTS_BUCKET_NAME_MAX + BTS_KEY_MAX];
};

struct watch {
	struct role *role;
	unsigned watchers_max;
	uint64_t retain_ms, retain_pages, heartbeat_ms;
	uint64_t random; /* of this process */
	pthread_t thread, scout;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t news, some;
	int stopping, moved, clearing;
	struct bts *db; /* that the states are of */
	struct watch_root *roots, *live, *kept_first, *kept_last;
	unsigned kept_count;
	uint64_t serial, tick;
	uint64_t tokens, tokens_ms;	/* for bookmarks: thousandths, when they were last counted */
	struct watch_channel *channels; /* changed by the thread alone */
	size_t bytes;			/* of segments */
	struct watcher *arrivals, **arrivals_last;
	unsigned watchers, idle;
	uint64_t ticks, segments, lagged, refused, expired;
	atomic_uint_least64_t events;
	/* the thread's */
	uint64_t next_tick_ms, next_sweep_ms, next_pages_ms;
};

/* watch_root.c; all with the lock held. */
struct watch_root *watch_root_ref(struct watch_root *);
void watch_root_drop(struct watch *, struct watch_root **);
struct watch_root *watch_root_new(
	struct watch *, struct bts_txn *);		 /* takes it; NULL: no memory, and it was ended */
int watch_root_affords(struct watch *, uint64_t now_ms); /* may one more be kept, in this tick? */
void watch_root_keep(struct watch *, struct watch_root *, uint64_t owner, uint64_t now_ms);
void watch_root_age(struct watch *, uint64_t now_ms);
void watch_root_expire_all(struct watch *);
/* Right after a tick: none but the live one is kept, and nobody who only waits stands at another one. */
struct watch_wakes;
void watch_root_clear(struct watch *, struct watch_wakes *);
void watch_root_measure(struct watch *); /* without the lock: what they cost; ends those that cost too much */
void watch_root_bookmark(const struct watch *, const struct watch_root *, char text[WATCH_BOOKMARK_MAX]);
/* A kept one (referred to), NULL: it is not there any more, or *malformed. */
struct watch_root *watch_root_find(struct watch *, struct bts_slice text, int *malformed);

/* watch_text.c.  Transactions: borrowed until the close; older NULL: of nothing. */
enum bts_err watch_walk_open(
	struct watch_walk *, const struct watch_filter *, struct bts_txn *older, struct bts_txn *newer);
/* One more event into the text (NULL: none is wanted); BTS_NOT_FOUND at the end. */
enum bts_err watch_walk_next(struct watch_walk *, struct buf *);
void watch_walk_close(struct watch_walk *);
/* The end of a range of commits; bookmark "": there is none. */
void watch_text_group(struct buf *, enum watch_form, bts_txid from, bts_txid to, const char *bookmark);
void watch_text_error(struct buf *, enum watch_form, const char *code, const char *detail);

/* watch.c; with the lock held. */
struct watch_segment *watch_segment_after(struct watch_channel *, uint64_t tick);
void watch_segment_drop(struct watch *, struct watch_segment **);
void watch_trim(struct watch *, struct watch_channel *);
void watch_wake_to_live(struct watch *, struct watcher *, struct watch_wakes *);
void watch_set_idle(struct watcher *);
void watch_unlist(struct watcher *); /* from idle or arriving ones */
void watch_reap(struct watch *);     /* channels that nobody has any more */
/* Its threads; arg: struct watch. */
void *watch_main(void *arg);
void *watch_scout(void *arg);

void watcher_end_walk(struct watcher *); /* in its loop */

#endif
