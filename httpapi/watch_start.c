/* Change feeds: their beginning and end, newcomers, figures. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "config.h"
#include "request.h"
#include "role.h"
#include "server.h"
#include "watch_internal.h"

int watch_start(struct role *role, const struct config *config, struct watch **out)
{
	struct watch *watch = calloc(1, sizeof(*watch));
	pthread_condattr_t monotonic;

	if (!watch)
		return -1;
	watch->role = role;
	watch->watchers_max = (unsigned)config->watchers_max;
	watch->retain_ms = config->changes_retain_ms;
	watch->retain_pages = config->changes_pages;
	watch->heartbeat_ms = config->changes_heartbeat_ms;
	watch->arrivals_last = &watch->arrivals;
	watch->tokens = WATCH_BURST * 1000;
	watch->tokens_ms = role_clock_ms();
	(void)!getrandom(&watch->random, sizeof(watch->random), 0);
	pthread_mutex_init(&watch->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&watch->news, &monotonic);
	pthread_cond_init(&watch->some, NULL);
	pthread_condattr_destroy(&monotonic);
	if (pthread_create(&watch->thread, NULL, watch_main, watch)) {
		free(watch);
		return -1;
	}
	*out = watch;
	if (!pthread_create(&watch->scout, NULL, watch_scout, watch))
		return 0;
	watch->scout = watch->thread;
	return -1;
}

/* With the lock held: everybody who lies idle, and who has not been given a place yet. */
static size_t start_collect(struct watch *watch, struct request **batch, size_t most)
{
	struct watch_channel *channel;
	size_t n = 0;

	while (watch->arrivals && n < most) {
		watch->arrivals->refusal = WATCH_STOPPING;
		batch[n++] = watch->arrivals->r;
		watch_unlist(watch->arrivals);
	}
	for (channel = watch->channels; channel; channel = channel->next) {
		while (channel->idle && n < most) {
			batch[n++] = channel->idle->r;
			channel->idle->timed_out = 1;
			watch_unlist(channel->idle);
		}
	}
	return n;
}

void watch_drain(struct watch *watch)
{
	struct request *batch[64];
	size_t n;

	pthread_mutex_lock(&watch->lock);
	watch->stopping = 1;
	pthread_cond_signal(&watch->news);
	pthread_cond_signal(&watch->some);
	while ((n = start_collect(watch, batch, sizeof(batch) / sizeof(batch[0]))))
		server_resume(batch, n);
	pthread_mutex_unlock(&watch->lock);
}

void watch_stop(struct watch *watch)
{
	if (!watch)
		return;
	watch_drain(watch);
	pthread_join(watch->thread, NULL);
	if (!pthread_equal(watch->scout, watch->thread))
		pthread_join(watch->scout, NULL);
	watch_root_expire_all(watch);
	watch_reap(watch);
	watch_root_drop(watch, &watch->live);
	pthread_mutex_destroy(&watch->lock);
	pthread_cond_destroy(&watch->news);
	pthread_cond_destroy(&watch->some);
	free(watch);
}

size_t watch_clear(struct watch *watch)
{
	size_t count;

	pthread_mutex_lock(&watch->lock);
	count = watch->kept_count;
	watch->clearing = 1;
	pthread_cond_signal(&watch->news);
	pthread_mutex_unlock(&watch->lock);
	return count;
}

void watch_stat(struct watch *watch, struct watch_stat *stat)
{
	const struct watch_channel *channel;

	memset(stat, 0, sizeof(*stat));
	pthread_mutex_lock(&watch->lock);
	for (channel = watch->channels; channel; channel = channel->next)
		stat->channels++;
	stat->watchers = watch->watchers;
	stat->idle = watch->idle;
	stat->kept = watch->kept_count;
	stat->segments = watch->segments;
	stat->ticks = watch->ticks;
	stat->lagged = watch->lagged;
	stat->refused = watch->refused;
	stat->expired = watch->expired;
	pthread_mutex_unlock(&watch->lock);
	stat->events = atomic_load(&watch->events);
}

void watch_oldest(struct watch *watch, char text[WATCH_BOOKMARK_MAX])
{
	text[0] = '\0';
	pthread_mutex_lock(&watch->lock);
	if (watch->kept_first)
		watch_root_bookmark(watch, watch->kept_first, text);
	pthread_mutex_unlock(&watch->lock);
}

/* With the lock held: the state that it begins with, and a place in the queue. */
static enum watch_refusal start_enter(struct watch *watch, struct watcher *w, struct bts_slice bookmark)
{
	int malformed = 0;

	if (watch->stopping)
		return WATCH_STOPPING;
	if (watch->watchers >= watch->watchers_max) {
		watch->refused++;
		return WATCH_TOO_MANY;
	}
	if (w->since == WATCH_AT) {
		w->at = watch_root_find(watch, bookmark, &malformed);
		if (!w->at && !malformed)
			watch->expired++;
		if (!w->at)
			return malformed ? WATCH_MALFORMED : WATCH_EXPIRED;
	}
	watch->watchers++;
	w->link = watch->arrivals_last;
	*watch->arrivals_last = w;
	watch->arrivals_last = &w->next;
	pthread_cond_signal(&watch->news);
	return WATCH_FINE;
}

/* FNV-1a. */
static uint64_t start_hash(const void *data, size_t size)
{
	const unsigned char *at = data;
	uint64_t hash = UINT64_C(14695981039346656037);

	while (size--)
		hash = (hash ^ *at++) * UINT64_C(1099511628211);
	return hash ? hash : 1;
}

/* Whom bookmarks are counted for: the credentials, else the address, of which an IPv6 network (/64) is one. */
static uint64_t start_owner(const struct request *r)
{
	char peer[REQUEST_PEER_SIZE];
	struct in6_addr v6;

	if (r->who[0])
		return start_hash(r->who, strlen(r->who));
	request_peer(r, peer);
	if (inet_pton(AF_INET6, peer, &v6) == 1 && !IN6_IS_ADDR_V4MAPPED(&v6))
		return start_hash(&v6, 8);
	return start_hash(peer, strlen(peer));
}

enum watch_refusal watch_attach(
	struct watch *watch, struct request *r, const struct watch_asked *asked, struct watcher **out)
{
	struct watcher *w = calloc(1, sizeof(*w));
	enum watch_refusal refusal;

	if (!w)
		return WATCH_FAILED;
	w->watch = watch;
	w->r = r;
	w->owner = start_owner(r);
	w->since = asked->since;
	w->wait_until_ms = role_clock_ms() + asked->wait_ms;
	w->filter = asked->filter;
	memcpy(w->bytes_of, asked->filter.bucket.data, asked->filter.bucket.size);
	memcpy(w->bytes_of + asked->filter.bucket.size, asked->filter.prefix.data, asked->filter.prefix.size);
	w->filter.bucket.data = w->bytes_of;
	w->filter.prefix.data = w->bytes_of + asked->filter.bucket.size;
	pthread_mutex_lock(&watch->lock);
	refusal = start_enter(watch, w, asked->bookmark);
	pthread_mutex_unlock(&watch->lock);
	if (refusal)
		free(w);
	else
		*out = w;
	return refusal;
}

void watcher_free(void *arg)
{
	struct watcher *w = arg;
	struct watch *watch = w->watch;

	watcher_end_walk(w);
	pthread_mutex_lock(&watch->lock);
	watch_unlist(w);
	if (w->channel)
		w->channel->users--;
	watch->watchers--;
	watch_segment_drop(watch, &w->segment);
	watch_root_drop(watch, &w->at);
	watch_root_drop(watch, &w->upto);
	pthread_mutex_unlock(&watch->lock);
	buf_fini(&w->out);
	free(w);
}
