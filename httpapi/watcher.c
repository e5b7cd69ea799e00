/*
 * A watcher in its loop: what it sends next, and lying down when there is nothing.
 *
 * It has been told everything up to `at`, and stands in its channel at the tick `position`.  From there it goes on by a segment of its
 * channel, or, when `upto` says so, by a difference of its own from `at` to `upto`.  Idle, it needs neither: who wakes it gives it
 * the state from which on there is something.
 */
#include <string.h>

#include "reply.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "watch_internal.h"

enum watch_refusal watcher_placed(const struct watcher *w)
{
	return w->refusal;
}

bts_txid watcher_txid(const struct watcher *w)
{
	return w->upto->txid;
}

/* ---- a difference of its own ---- */

void watcher_end_walk(struct watcher *w)
{
	watch_walk_close(&w->walk);
	bts_abort(w->older);
	bts_abort(w->newer);
	w->older = w->newer = NULL;
	w->walking = 0;
}

/* upto, as what is told from there to there. */
static void watcher_name_place(struct watcher *w)
{
	w->from = w->to = w->upto->txid;
	w->bookmark[0] = '\0';
	pthread_mutex_lock(&w->watch->lock);
	if (w->upto->kept)
		watch_root_bookmark(w->watch, w->upto, w->bookmark);
	pthread_mutex_unlock(&w->watch->lock);
}

/* From at to upto.  BTS_EXPIRED: the state is not kept any more. */
static enum bts_err watcher_begin_walk(struct watcher *w, struct bts_error *error)
{
	struct watch *watch = w->watch;
	enum bts_err err = BTS_OK;

	watcher_name_place(w);
	w->from = w->at ? w->at->txid : 0;
	pthread_mutex_lock(&watch->lock);
	if (w->at && w->at->expired) {
		err = BTS_EXPIRED;
		watch->expired++;
	}
	pthread_mutex_unlock(&watch->lock);
	if (!err && w->at)
		err = bts_begin_same(w->at->txn, &w->older, error);
	if (!err)
		err = bts_begin_same(w->upto->txn, &w->newer, error);
	if (!err) {
		err = watch_walk_open(&w->walk, &w->filter, w->older, w->newer);
		*error = w->walk.error;
	}
	w->walking = !err;
	if (err)
		watcher_end_walk(w);
	return err;
}

/* Told: from now on it stands there. */
static void watcher_arrive(struct watcher *w)
{
	atomic_fetch_add(&w->watch->events, w->walk.events);
	w->walk.events = 0;
	watcher_end_walk(w);
	pthread_mutex_lock(&w->watch->lock);
	watch_root_drop(w->watch, &w->at);
	w->at = w->upto;
	w->upto = NULL;
	pthread_mutex_unlock(&w->watch->lock);
}

/* ---- streams ---- */

static void watcher_fail(struct watcher *w, enum bts_err err, const struct bts_error *error)
{
	const char *code = "bookmark-expired",
		   *detail = "the state that this feed stands at is not kept any more";

	if (err != BTS_EXPIRED) {
		reply_meaning(err, &code);
		detail = error->text[0] ? error->text : bts_err_name(err);
	}
	role_met(w->watch->role, err, error);
	watch_text_error(&w->out, w->filter.form, code, detail);
	w->ended = 1;
}

static void watcher_walk_some(struct watcher *w)
{
	enum bts_err err = BTS_OK;

	while (!err && w->out.size < WATCH_BLOCK && !w->out.failed)
		err = watch_walk_next(&w->walk, &w->out);
	if (err == BTS_NOT_FOUND) {
		watch_text_group(&w->out, w->filter.form, w->from, w->to, w->bookmark);
		watcher_arrive(w);
	} else if (err) {
		watcher_fail(w, err, &w->walk.error);
	}
}

/* To be told at once, without a walk: it is there. */
static void watcher_tell_place(struct watcher *w)
{
	watcher_name_place(w);
	watch_text_group(&w->out, w->filter.form, w->from, w->to, w->bookmark);
	watcher_arrive(w);
}

enum watcher_next { WATCHER_SEGMENT, WATCHER_WALK, WATCHER_PLACE, WATCHER_IDLE, WATCHER_OVER };

static enum watcher_next watcher_next(struct watcher *w)
{
	struct watch *watch = w->watch;
	struct watch_channel *channel = w->channel;
	enum watcher_next next = WATCHER_SEGMENT;

	pthread_mutex_lock(&watch->lock);
	if (watch->stopping) {
		next = WATCHER_OVER;
	} else if (w->upto) {
		next = w->heartbeat || (w->since == WATCH_NOW && !w->begun) ? WATCHER_PLACE : WATCHER_WALK;
		w->heartbeat = 0;
		w->begun = 1;
	} else if (channel->trimmed > w->position) {
		w->upto = watch_root_ref(watch->live);
		w->position = watch->tick;
		watch->lagged++;
		next = WATCHER_WALK;
	} else {
		w->segment = watch_segment_after(channel, w->position);
		if (w->segment) {
			w->segment->refs++;
		} else {
			watch_root_drop(watch, &w->at);
			watch_set_idle(w);
			next = WATCHER_IDLE;
		}
	}
	pthread_mutex_unlock(&watch->lock);
	return next;
}

static ssize_t watcher_give(struct watcher *w, const struct buf *text, char *out, size_t max)
{
	size_t n = text->size - w->sent;

	if (n > max)
		n = max;
	memcpy(out, text->data + w->sent, n);
	w->sent += n;
	return (ssize_t)n;
}

static void watcher_segment_done(struct watcher *w)
{
	struct watch *watch = w->watch;

	atomic_fetch_add(&watch->events, w->segment->events);
	w->sent = 0;
	pthread_mutex_lock(&watch->lock);
	w->position = w->segment->tick;
	watch_root_drop(watch, &w->at);
	w->at = watch_root_ref(w->segment->to);
	watch_segment_drop(watch, &w->segment);
	pthread_mutex_unlock(&watch->lock);
}

/* Something to send is in out or segment when 0 is returned. */
static int watcher_prepare(struct watcher *w)
{
	struct bts_error error = {0};
	enum bts_err err;

	w->out.size = w->sent = 0;
	if (w->walking) {
		watcher_walk_some(w);
		return 0;
	}
	switch (watcher_next(w)) {
	case WATCHER_SEGMENT:
		return 0;
	case WATCHER_WALK:
		err = watcher_begin_walk(w, &error);
		if (err)
			watcher_fail(w, err, &error);
		return 0;
	case WATCHER_PLACE:
		watcher_tell_place(w);
		return 0;
	case WATCHER_IDLE:
		return 1;
	default:
		w->ended = 1;
		return 0;
	}
}

ssize_t watcher_read(void *arg, char *out, size_t max)
{
	struct watcher *w = arg;

	for (;;) {
		if (w->out.failed)
			return WATCHER_BROKEN;
		if (w->segment && w->sent < w->segment->text.size)
			return watcher_give(w, &w->segment->text, out, max);
		if (w->segment)
			watcher_segment_done(w);
		else if (w->sent < w->out.size)
			return watcher_give(w, &w->out, out, max);
		if (w->ended)
			return WATCHER_END;
		if (watcher_prepare(w))
			return 0;
	}
}

/* ---- one reply ---- */

/* Nothing has changed up to upto: 1: it lies down; 0: the channel has something newer, to which upto now goes. */
static int watcher_lie_down(struct watcher *w)
{
	struct watch *watch = w->watch;
	int idle = 0;

	pthread_mutex_lock(&watch->lock);
	watch_root_drop(watch, &w->at);
	w->at = w->upto;
	w->upto = NULL;
	if (watch->stopping || w->channel->changed > w->position) {
		w->upto = watch_root_ref(watch->live);
		w->position = watch->tick;
		w->timed_out |= watch->stopping;
		watch_root_keep(watch, w->upto, w->owner, role_clock_ms());
	} else {
		watch_set_idle(w);
		idle = 1;
	}
	pthread_mutex_unlock(&watch->lock);
	return idle;
}

/* Woken without a state to go up to: it was the end of its wait with the server's, or its feed's. */
static enum bts_err watcher_last_words(struct watcher *w)
{
	if (!w->timed_out)
		return BTS_EXPIRED;
	w->upto = w->at;
	w->at = NULL;
	watcher_name_place(w);
	return BTS_OK;
}

int watcher_answers(struct watcher *w, enum bts_err *err, struct bts_error *error)
{
	for (;;) {
		w->out.size = 0;
		buf_str(&w->out, "{\"events\":[");
		if (!w->upto) {
			*err = watcher_last_words(w);
			return 1;
		}
		*err = BTS_OK;
		if (w->since == WATCH_NOW && !w->begun) {
			watcher_name_place(w);
			return 1;
		}
		w->begun = 1;
		*err = watcher_begin_walk(w, error);
		if (*err)
			return 1;
		*err = watch_walk_next(&w->walk, &w->out);
		if (*err != BTS_NOT_FOUND) {
			*error = w->walk.error;
			return 1;
		}
		*err = BTS_OK;
		watcher_end_walk(w);
		if (w->timed_out || role_clock_ms() >= w->wait_until_ms)
			return 1;
		if (watcher_lie_down(w))
			return 0;
	}
}

enum bts_err watcher_broken(const struct watcher *w, struct bts_error *error)
{
	if (!w->met)
		return BTS_MEMORY;
	*error = w->walk.error;
	return w->met;
}

int watcher_fill(void *arg, struct buf *b)
{
	struct watcher *w = arg;
	enum bts_err err = BTS_OK;

	if (w->out.size)
		buf_add(b, w->out.data, w->out.size);
	w->out.size = 0;
	if (w->walking)
		err = watch_walk_next(&w->walk, b);
	w->met = err == BTS_NOT_FOUND ? BTS_OK : err;
	if (w->met)
		return -1;
	if (w->walking && !err)
		return 1;
	atomic_fetch_add(&w->watch->events, w->walk.events);
	watch_text_group(b, WATCH_JSON, w->from, w->to, w->bookmark);
	buf_str(b, "\n");
	watcher_end_walk(w);
	return 0;
}
