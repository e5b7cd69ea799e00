/*
 * The threads of the change feeds: see watch.h.
 *
 * The scout sleeps until something is committed and tells the other one, which goes round in ticks.  A tick takes the newest state,
 * works out the difference to the live one for each channel, without the lock, and then, with it, makes the new state the live one,
 * hands out the segments and wakes whom they concern.  So with the lock held, a channel's segments and the live state belong together,
 * and who has everything up to the live state can lie down and will be woken by whatever comes after it.
 *
 * A place in a feed is a tick: the segments with greater ticks are still to come.  A segment that is not there any more, or was too
 * long to be made, leaves its tick in channel.trimmed; who stands below that goes on with a difference of its own.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "btree_store/ship.h"
#include "log.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "watch_internal.h"

#define WATCH_SCOUT_MS 100
#define WATCH_BATCH 64
#define WATCH_SHARE 10 /* ticks take at most one part in so many of the time */

struct watch_wakes {
	struct request *batch[WATCH_BATCH];
	size_t count;
};

/* ---- segments; with the lock held ---- */

void watch_segment_drop(struct watch *watch, struct watch_segment **at)
{
	struct watch_segment *segment = *at;

	*at = NULL;
	if (!segment || --segment->refs)
		return;
	watch->bytes -= segment->counted;
	watch_root_drop(watch, &segment->to);
	buf_fini(&segment->text);
	free(segment);
}

struct watch_segment *watch_segment_after(struct watch_channel *channel, uint64_t tick)
{
	struct watch_segment *segment = channel->first;

	while (segment && segment->tick <= tick)
		segment = segment->next;
	return segment;
}

void watch_trim(struct watch *watch, struct watch_channel *channel)
{
	struct watch_segment *first = channel->first;

	channel->first = first->next;
	if (!channel->first)
		channel->last = NULL;
	channel->count--;
	channel->bytes -= first->text.size;
	channel->trimmed = first->tick;
	watch_segment_drop(watch, &first);
}

static void watch_append(struct watch *watch, struct watch_channel *channel, struct watch_segment *segment)
{
	if (channel->last)
		channel->last->next = segment;
	else
		channel->first = segment;
	channel->last = segment;
	channel->count++;
	channel->bytes += segment->text.size;
	segment->counted = segment->text.size;
	watch->bytes += segment->counted;
	watch->segments++;
	while (channel->count > WATCH_SEGMENTS ||
		(channel->count > 1 && channel->bytes > WATCH_SEGMENT_BYTES))
		watch_trim(watch, channel);
	/* Filters are the clients' to choose, and may be thousands: then all are for those alone who have begun to send them. */
	for (channel = watch->bytes > WATCH_ALL_BYTES ? watch->channels : NULL; channel; channel = channel->next)
		while (channel->first && channel->first != segment)
			watch_trim(watch, channel);
}

static int watch_has_room(struct watch *watch)
{
	int room;

	pthread_mutex_lock(&watch->lock);
	room = watch->bytes <= WATCH_ALL_BYTES;
	pthread_mutex_unlock(&watch->lock);
	return room;
}

/* ---- waking; with the lock held ---- */

/* Only loops take up what is resumed, and they may have to wait for the lock a moment. */
static void watch_flush(struct watch_wakes *wakes)
{
	if (wakes->count)
		server_resume(wakes->batch, wakes->count);
	wakes->count = 0;
}

static void watch_wake(struct watch_wakes *wakes, struct watcher *w)
{
	watch_unlist(w);
	if (wakes->count == WATCH_BATCH)
		watch_flush(wakes);
	wakes->batch[wakes->count++] = w->r;
}

void watch_unlist(struct watcher *w)
{
	if (!w->link)
		return;
	*w->link = w->next;
	if (w->next)
		w->next->link = w->link;
	if (w->placed)
		w->watch->idle--;
	else if (w->watch->arrivals_last == &w->next)
		w->watch->arrivals_last = w->link;
	w->link = NULL;
}

void watch_set_idle(struct watcher *w)
{
	struct watch_channel *channel = w->channel;

	w->idle_ms = role_clock_ms();
	w->next = channel->idle;
	w->link = &channel->idle;
	if (w->next)
		w->next->link = &w->next;
	channel->idle = w;
	w->watch->idle++;
}

/* Everybody who lies here, with the live state as theirs to go up to. */
void watch_wake_to_live(struct watch *watch, struct watcher *w, struct watch_wakes *wakes)
{
	watch_root_drop(watch, &w->upto);
	w->upto = watch_root_ref(watch->live);
	w->position = watch->tick;
	watch_wake(wakes, w);
}

/* ---- ticks ---- */

/* What a tick found for a channel. */
struct watch_found {
	struct watch_segment *segment;
	int changed, gap;
};

/* The difference for one channel, without the lock: its filter does not change, and only this thread frees it. */
static void watch_compute(struct watch_channel *channel, const struct watch_root *from,
	const struct watch_root *to, struct watch_found *found)
{
	struct watch_segment *segment = found->segment;
	struct watch_walk walk;
	enum bts_err err = watch_walk_open(&walk, &channel->filter, from->txn, to->txn);

	if (!err && !segment)
		err = watch_walk_next(&walk, NULL);
	found->changed =
		err !=
		BTS_NOT_FOUND; /* what could not be read, each finds for itself, and tells its client */
	while (!err && segment && segment->text.size <= WATCH_SEGMENT_BYTES && !segment->text.failed)
		err = watch_walk_next(&walk, &segment->text);
	if (segment) {
		segment->events = walk.events;
		found->changed = walk.events > 0;
	}
	found->gap = segment ? err != BTS_NOT_FOUND : found->changed;
	watch_walk_close(&walk);
}

static struct watch_segment *watch_segment_new(void)
{
	struct watch_segment *segment = calloc(1, sizeof(*segment));

	if (segment)
		segment->refs = 1;
	return segment;
}

/* With the lock held: what is found becomes the channel's, and wakes whom it concerns. */
static void watch_publish(struct watch *watch, struct watch_channel *channel, struct watch_root *before,
	struct watch_found *found, struct watch_wakes *wakes)
{
	struct watcher *w, *next;

	if (found->changed)
		channel->changed = watch->tick;
	if (found->gap) {
		while (channel->first)
			watch_trim(watch, channel);
		channel->trimmed = watch->tick;
	} else if (found->segment) {
		found->segment->tick = watch->tick;
		found->segment->to = watch_root_ref(watch->live);
		watch_append(watch, channel, found->segment);
		found->segment = NULL;
	}
	watch_segment_drop(watch, &found->segment);
	for (w = channel->idle; w; w = next) {
		next = w->next;
		if (!w->at)
			w->at = watch_root_ref(before);
		watch_wake(wakes, w);
	}
}

/*
 * One channel in a tick.  marks: a bookmark can be had.  A channel of those that wait for one reply only notes that there is something,
 * until there can be a bookmark with it.
 */
static void watch_serve(struct watch *watch, struct watch_channel *channel, struct watch_root *before,
	struct watch_root *now, int marks, struct watch_wakes *wakes)
{
	struct watch_found found = {.segment = NULL};
	char bookmark[WATCH_BOOKMARK_MAX] = "";
	int moved = before != now, json = channel->filter.form == WATCH_JSON;
	struct watcher *w, *next;

	if (!moved && !(marks && channel->pending))
		return;
	if (!json && watch_has_room(watch))
		found.segment = watch_segment_new();
	if (moved)
		watch_compute(channel, before, now, &found);
	if (found.segment && (found.changed || !moved)) {
		if (marks)
			watch_root_bookmark(watch, now, bookmark);
		watch_text_group(
			&found.segment->text, channel->filter.form, before->txid, now->txid, bookmark);
		found.gap |= found.segment->text.failed;
	}
	pthread_mutex_lock(&watch->lock);
	channel->pending |= found.changed;
	if (channel->pending && marks)
		watch_root_keep(watch, now, 0, role_clock_ms());
	if (json && found.changed)
		channel->changed = watch->tick;
	if (!json && (found.changed || found.gap || !moved))
		watch_publish(watch, channel, before, &found, wakes);
	for (w = json && channel->pending && marks ? channel->idle : NULL; w; w = next) {
		next = w->next;
		watch_wake_to_live(watch, w, wakes);
	}
	if (marks)
		channel->pending = 0;
	watch_segment_drop(watch, &found.segment);
	pthread_mutex_unlock(&watch->lock);
}

/* The newest state, in a transaction of its own: those that bts_begin gives are for short use. */
static enum bts_err watch_begin(struct bts *db, struct bts_txn **txn, struct bts_error *error)
{
	struct bts_txn *newest;
	enum bts_err err = bts_begin(db, BTS_READ, &newest, error);

	if (err)
		return err;
	err = bts_begin_same(newest, txn, error);
	bts_abort(newest);
	return err;
}

/* A reference to the newest state, which may be the live one. */
static struct watch_root *watch_newest(struct watch *watch)
{
	struct bts *db = role_db(watch->role);
	struct bts_error error = {0};
	struct watch_root *root;
	struct bts_txn *txn;
	enum bts_err err = db ? watch_begin(db, &txn, &error) : BTS_BUSY;

	if (err) {
		if (db)
			log_event("warn", "changes-failed", LOG_FIELDS(LOG_TEXT("detail", error.text)));
		return NULL;
	}
	pthread_mutex_lock(&watch->lock);
	if (db != watch->db)
		watch_root_expire_all(watch);
	if (watch->live && db == watch->db && watch->live->txid == bts_txn_id(txn) && !watch->live->expired) {
		bts_abort(txn);
		root = watch_root_ref(watch->live);
	} else {
		root = watch_root_new(watch, txn);
	}
	watch->db = db;
	pthread_mutex_unlock(&watch->lock);
	return root;
}

/* Two states of different files have no difference: all who follow are told that their place is gone. */
static int watch_parted(const struct watch *watch)
{
	return watch->live && watch->live->expired;
}

static void watch_tick(struct watch *watch, struct watch_wakes *wakes)
{
	struct watch_root *now = watch_newest(watch), *before;
	struct watch_channel *channel;
	int marks, parted;

	if (!now)
		return;
	pthread_mutex_lock(&watch->lock);
	parted = watch_parted(watch);
	before = watch->live ? watch->live : watch_root_ref(now); /* without one there is no channel */
	watch->live = watch_root_ref(now);
	watch->tick++;
	watch->ticks++;
	marks = watch_root_affords(watch, role_clock_ms());
	pthread_mutex_unlock(&watch->lock);
	for (channel = watch->channels; channel; channel = channel->next) {
		struct watch_found gap = {.gap = 1};

		if (!parted) {
			watch_serve(watch, channel, before, now, marks, wakes);
			continue;
		}
		pthread_mutex_lock(&watch->lock);
		watch_publish(watch, channel, before, &gap, wakes);
		pthread_mutex_unlock(&watch->lock);
	}
	pthread_mutex_lock(&watch->lock);
	watch_root_drop(watch, &before);
	watch_root_drop(watch, &now);
	pthread_mutex_unlock(&watch->lock);
}

/* ---- those who come ---- */

static int watch_same(const struct watch_filter *a, const struct watch_filter *b)
{
	return a->form == b->form && a->values == b->values && a->bucket.size == b->bucket.size &&
	       a->prefix.size == b->prefix.size &&
	       !strcmp(a->allowed ? a->allowed : "", b->allowed ? b->allowed : "") &&
	       !memcmp(a->bucket.data, b->bucket.data, a->bucket.size) &&
	       !memcmp(a->prefix.data, b->prefix.data, a->prefix.size);
}

static struct watch_channel *watch_channel_new(struct watch *watch, const struct watch_filter *filter)
{
	struct watch_channel *channel = calloc(1, sizeof(*channel));

	if (channel && filter->allowed)
		channel->allowed = strdup(filter->allowed);
	if (!channel || (filter->allowed && !channel->allowed)) {
		free(channel);
		return NULL;
	}
	memcpy(channel->bytes_of, filter->bucket.data, filter->bucket.size);
	memcpy(channel->bytes_of + filter->bucket.size, filter->prefix.data, filter->prefix.size);
	channel->filter = *filter;
	channel->filter.allowed = channel->allowed;
	channel->filter.bucket.data = channel->bytes_of;
	channel->filter.prefix.data = channel->bytes_of + filter->bucket.size;
	channel->trimmed = channel->changed = watch->tick;
	channel->next = watch->channels;
	watch->channels = channel;
	pthread_cond_signal(&watch->some); /* the scout: there is somebody now */
	return channel;
}

static struct watch_channel *watch_channel(struct watch *watch, const struct watch_filter *filter)
{
	struct watch_channel *channel = watch->channels;

	while (channel && !watch_same(&channel->filter, filter))
		channel = channel->next;
	return channel ? channel : watch_channel_new(watch, filter);
}

/* With the lock held, right after a tick: the newcomer goes up to the live state, and gets a bookmark of it. */
static void watch_place(struct watch *watch, struct watcher *w, struct watch_wakes *wakes)
{
	watch_unlist(w);
	w->placed = 1;
	w->channel = watch->live ? watch_channel(watch, &w->filter) : NULL;
	if (!w->channel || watch->stopping)
		w->refusal = watch->stopping ? WATCH_STOPPING : WATCH_FAILED;
	if (w->channel) {
		w->channel->users++;
		watch_root_keep(watch, watch->live, w->owner, role_clock_ms());
		w->upto = watch_root_ref(watch->live);
		w->position = watch->tick;
	}
	if (wakes->count == WATCH_BATCH)
		watch_flush(wakes);
	wakes->batch[wakes->count++] = w->r;
}

/* ---- now and then ---- */

void watch_reap(struct watch *watch)
{
	struct watch_channel **link = &watch->channels, *channel;

	while ((channel = *link)) {
		if (channel->users) {
			link = &channel->next;
			continue;
		}
		*link = channel->next;
		while (channel->first)
			watch_trim(watch, channel);
		free(channel->allowed);
		free(channel);
	}
	if (!watch->channels)
		watch_root_drop(watch, &watch->live); /* or it would keep its pages until somebody comes */
}

/* Not those of all at once who were woken by the same change. */
static uint64_t watch_heartbeat_ms(const struct watch *watch, const struct watcher *w)
{
	return watch->heartbeat_ms - watch->heartbeat_ms / 4 * ((uintptr_t)w / 64 % 64) / 64;
}

/* Heartbeats carry a bookmark, so that who hears nothing else does not fall behind what is kept. */
static void watch_sweep(struct watch *watch, uint64_t now_ms, struct watch_wakes *wakes)
{
	struct watch_channel *channel;
	struct watcher *w, *next;

	for (channel = watch->channels; channel; channel = channel->next) {
		for (w = channel->idle; w; w = next) {
			int json = channel->filter.form == WATCH_JSON;

			next = w->next;
			if (json ? now_ms < w->wait_until_ms
				 : !watch_is_past(w->idle_ms, watch_heartbeat_ms(watch, w), now_ms))
				continue;
			w->timed_out = json;
			w->heartbeat = !json;
			watch_root_keep(watch, watch->live, w->owner, now_ms);
			watch_wake_to_live(watch, w, wakes);
		}
	}
	watch_reap(watch);
	watch_root_age(watch, now_ms);
}

static int watch_pending(const struct watch *watch)
{
	const struct watch_channel *channel = watch->channels;

	while (channel && !channel->pending)
		channel = channel->next;
	return channel != NULL;
}

/* ---- the threads ---- */

static uint64_t watch_min(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* With the lock held: until there is something to do, or may be. */
static void watch_sleep(struct watch *watch)
{
	uint64_t now = role_clock_ms(), until = UINT64_MAX;
	struct timespec at;

	if (watch->stopping || watch->arrivals || watch->clearing)
		return;
	if (watch->channels && watch->moved)
		until = watch->next_tick_ms;
	if (watch->channels || watch->kept_first)
		until = watch_min(until, watch->next_sweep_ms);
	if (until <= now)
		return;
	if (until == UINT64_MAX) {
		pthread_cond_wait(&watch->news, &watch->lock);
		return;
	}
	at.tv_sec = (time_t)(until / 1000);
	at.tv_nsec = (long)(until % 1000) * 1000000;
	pthread_cond_timedwait(&watch->news, &watch->lock, &at);
}

/* With the lock held.  What is due at this time. */
static void watch_round(struct watch *watch, struct watch_wakes *wakes)
{
	uint64_t now = role_clock_ms(), took;
	struct watcher *arrivals = watch->arrivals;
	int sweep = now >= watch->next_sweep_ms;

	/* Who comes during the tick may want a newer state than it takes. */
	watch->arrivals = NULL;
	watch->arrivals_last = &watch->arrivals;
	if (arrivals)
		arrivals->link = &arrivals;
	if (arrivals || (watch->channels && (watch->clearing || (watch->moved && now >= watch->next_tick_ms))) ||
		(sweep && watch_pending(watch))) {
		watch->moved = 0;
		pthread_mutex_unlock(&watch->lock);
		watch_tick(watch, wakes);
		watch_flush(wakes);
		pthread_mutex_lock(&watch->lock);
		took = role_clock_ms() - now;
		watch->next_tick_ms = now + WATCH_PACE_MS + took * WATCH_SHARE;
	}
	while (arrivals)
		watch_place(watch, arrivals, wakes);
	if (watch->clearing)
		watch_root_clear(watch, wakes);
	if (sweep) {
		watch->next_sweep_ms = now + WATCH_SWEEP_MS;
		watch_sweep(watch, now, wakes);
	}
}

void *watch_main(void *arg)
{
	struct watch *watch = arg;
	struct watch_wakes wakes = {.count = 0};

	pthread_setname_np(pthread_self(), "changes");
	pthread_mutex_lock(&watch->lock);
	while (!watch->stopping) {
		int measure;

		watch_sleep(watch);
		if (watch->stopping)
			break;
		watch_round(watch, &wakes);
		measure = watch->kept_first && role_clock_ms() >= watch->next_pages_ms;
		pthread_mutex_unlock(&watch->lock);
		watch_flush(&wakes);
		if (measure) {
			watch_root_measure(watch);
			watch->next_pages_ms = role_clock_ms() + WATCH_PAGES_MS;
		}
		pthread_mutex_lock(&watch->lock);
	}
	pthread_mutex_unlock(&watch->lock);
	return NULL;
}

/* Sleeps on the file's newest commit while there is somebody whom it concerns. */
void *watch_scout(void *arg)
{
	struct watch *watch = arg;
	bts_txid seen = 0, head;

	pthread_setname_np(pthread_self(), "scout");
	pthread_mutex_lock(&watch->lock);
	while (!watch->stopping) {
		struct bts *db;
		int news;

		if (!watch->channels) {
			pthread_cond_wait(&watch->some, &watch->lock);
			continue;
		}
		db = watch->db;
		pthread_mutex_unlock(&watch->lock);
		news = bts_ship_wait(db, seen, WATCH_SCOUT_MS, &head) == BTS_OK;
		if (news)
			seen = head;
		if (role_db(watch->role) != db) {
			news = 1;
			seen = 0;
		}
		pthread_mutex_lock(&watch->lock);
		if (news && !watch->moved) {
			watch->moved = 1;
			pthread_cond_signal(&watch->news);
		}
	}
	pthread_mutex_unlock(&watch->lock);
	return NULL;
}
