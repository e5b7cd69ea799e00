/*
 * Leased snapshots.
 *
 * One thread ends what has run out.  It sleeps while there is no lease; else it looks again when the first one ends, and
 * every second or so at what the leases keep of the file: a lease beyond its budget, and one that the engine told to end
 * (BTS_EXPIRED), are ended before their time, since as long as they stand no page of theirs is used again.  Uploads that take long
 * keep pages the same way: they are told when it is too much.
 */
#include "snapshots.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "buf.h"
#include "btree_store/ship.h"
#include "config.h"
#include "log.h"
#include "role.h"
#include "text.h"

#define SNAPSHOTS_RANDOM 16 /* bytes of an id; as text with the sum: SNAPSHOTS_ID_TEXT */
#define SNAPSHOTS_SUM 8
#define SNAPSHOTS_LOOK_MS 1000
#define SNAPSHOTS_LOOK_SHARE 50 /* a look may take this part of the time */
#define SNAPSHOTS_CHAINS 256u

struct snapshots_lease {
	struct snapshots_lease *next; /* of its chain */
	struct bts_txn *txn;
	uint64_t ends_ms;
	struct snapshots_info info; /* left_ms is not kept */
};

struct snapshots {
	struct role *role;
	size_t max;
	uint64_t budget; /* bytes that one may keep; 0: no limit */
	uint8_t key[16];
	pthread_t thread;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t changed;
	struct snapshots_lease *chains[SNAPSHOTS_CHAINS];
	struct snapshots_pin *pins;
	int stopping;
	struct snapshots_stat stat;
};

/* ---- ids ---- */

static void snapshots_sum(const struct snapshots *s, const uint8_t random[SNAPSHOTS_RANDOM], uint8_t sum[SNAPSHOTS_SUM])
{
	struct bts_digest digest;
	uint8_t whole[16];

	bts_digest_init(&digest, s->key);
	bts_digest_update(&digest, random, SNAPSHOTS_RANDOM);
	bts_digest_final(&digest, whole);
	memcpy(sum, whole, SNAPSHOTS_SUM);
}

static int snapshots_id(const struct snapshots *s, char text[SNAPSHOTS_ID_TEXT])
{
	uint8_t bytes[SNAPSHOTS_RANDOM + SNAPSHOTS_SUM];
	struct buf b = {0};
	int failed;

	if (getrandom(bytes, SNAPSHOTS_RANDOM, 0) != SNAPSHOTS_RANDOM)
		return -1;
	snapshots_sum(s, bytes, bytes + SNAPSHOTS_RANDOM);
	text_base64url(&b, bytes, sizeof(bytes));
	failed = b.failed || b.size != SNAPSHOTS_ID_TEXT - 1;
	if (!failed)
		memcpy(text, b.data, b.size);
	text[failed ? 0 : SNAPSHOTS_ID_TEXT - 1] = '\0';
	buf_fini(&b);
	return failed ? -1 : 0;
}

/* Whether this process has ever given it out. */
static int snapshots_ours(const struct snapshots *s, struct bts_slice id)
{
	uint8_t bytes[SNAPSHOTS_ID_TEXT], sum[SNAPSHOTS_SUM];

	if (id.size != SNAPSHOTS_ID_TEXT - 1 ||
		text_base64url_decode(id.data, id.size, bytes) != SNAPSHOTS_RANDOM + SNAPSHOTS_SUM)
		return 0;
	snapshots_sum(s, bytes, sum);
	return !memcmp(sum, bytes + SNAPSHOTS_RANDOM, SNAPSHOTS_SUM);
}

static struct snapshots_lease **snapshots_chain(struct snapshots *s, const char *id)
{
	return &s->chains[((unsigned char)id[0] * 31u + (unsigned char)id[1]) % SNAPSHOTS_CHAINS];
}

/* ---- with the lock ---- */

/* The link to it, or NULL and why. */
static struct snapshots_lease **snapshots_find(struct snapshots *s, struct bts_slice id, enum bts_err *err)
{
	struct snapshots_lease **link;

	*err = snapshots_ours(s, id) ? BTS_EXPIRED : BTS_NOT_FOUND;
	if (*err == BTS_NOT_FOUND)
		return NULL;
	for (link = snapshots_chain(s, id.data); *link; link = &(*link)->next)
		if (!memcmp((*link)->info.id, id.data, id.size) && (*link)->ends_ms > role_clock_ms())
			return link;
	return NULL;
}

static void snapshots_end(struct snapshots *s, struct snapshots_lease **link)
{
	struct snapshots_lease *lease = *link;

	*link = lease->next;
	s->stat.live--;
	bts_abort(lease->txn);
	free(lease);
}

static void snapshots_tell(const struct snapshots_lease *lease, uint64_t now, struct snapshots_info *info)
{
	*info = lease->info;
	info->left_ms = lease->ends_ms > now ? lease->ends_ms - now : 0;
}

/* Ends what has run out; when the next one does, UINT64_MAX: there is none. */
static uint64_t snapshots_reap(struct snapshots *s, uint64_t now)
{
	struct snapshots_lease **link;
	uint64_t next = UINT64_MAX;
	unsigned i;

	for (i = 0; i < SNAPSHOTS_CHAINS; i++) {
		for (link = &s->chains[i]; *link;) {
			if ((*link)->ends_ms <= now) {
				s->stat.timed_out++;
				snapshots_end(s, link);
				continue;
			}
			if ((*link)->ends_ms < next)
				next = (*link)->ends_ms;
			link = &(*link)->next;
		}
	}
	return next;
}

/* ---- what they keep ---- */

static int snapshots_too_much(const struct snapshots *s, const struct bts_reader_info *reader)
{
	return reader->expired || (s->budget && reader->held_bytes > s->budget);
}

static void snapshots_judge_pins(struct snapshots *s, const struct bts_reader_info *reader)
{
	struct snapshots_pin *pin;

	for (pin = s->pins; pin; pin = pin->next) {
		if (pin->txid != reader->txid || !snapshots_too_much(s, reader) || atomic_exchange(&pin->over, 1))
			continue;
		log_event("warn", "upload-expired",
			LOG_FIELDS(LOG_U64("txid", reader->txid), LOG_U64("held_bytes", reader->held_bytes),
				LOG_U64("age_ms", reader->age_ms)));
	}
}

static void snapshots_reader(void *arg, const struct bts_reader_info *reader)
{
	struct snapshots *s = arg;
	struct snapshots_lease **link;
	unsigned i;

	if (!reader->own)
		return;
	pthread_mutex_lock(&s->lock);
	snapshots_judge_pins(s, reader);
	for (i = 0; i < SNAPSHOTS_CHAINS; i++) {
		for (link = &s->chains[i]; *link;) {
			struct snapshots_lease *lease = *link;

			if (lease->info.txid == reader->txid && lease->info.held_bytes < reader->held_bytes)
				lease->info.held_bytes = reader->held_bytes;
			if (lease->info.txid == reader->txid && snapshots_too_much(s, reader)) {
				s->stat.expired++;
				log_event("warn", "snapshot-expired",
					LOG_FIELDS(LOG_U64("txid", reader->txid), LOG_U64("held_bytes", reader->held_bytes),
						LOG_U64("age_ms", reader->age_ms)));
				snapshots_end(s, link);
			} else {
				link = &lease->next;
			}
		}
	}
	pthread_mutex_unlock(&s->lock);
}

/* Without the lock.  When to look again. */
static uint64_t snapshots_look(struct snapshots *s)
{
	uint64_t began = role_clock_ms(), took;
	struct bts *db = role_db(s->role);

	if (db && bts_readers(db, snapshots_reader, s, NULL))
		log_event("warn", "readers-unknown", NULL);
	took = role_clock_ms() - began;
	return began + took + (took * SNAPSHOTS_LOOK_SHARE > SNAPSHOTS_LOOK_MS ? took * SNAPSHOTS_LOOK_SHARE : SNAPSHOTS_LOOK_MS);
}

static void snapshots_sleep(struct snapshots *s, uint64_t until_ms)
{
	struct timespec at = {.tv_sec = (time_t)(until_ms / 1000), .tv_nsec = (long)(until_ms % 1000) * 1000000};

	if (until_ms == UINT64_MAX)
		pthread_cond_wait(&s->changed, &s->lock);
	else
		pthread_cond_timedwait(&s->changed, &s->lock, &at);
}

static void *snapshots_main(void *arg)
{
	struct snapshots *s = arg;
	uint64_t next, look = 0;

	pthread_setname_np(pthread_self(), "snapshots");
	pthread_mutex_lock(&s->lock);
	while (!s->stopping) {
		next = snapshots_reap(s, role_clock_ms());
		if (s->pins && look < next)
			next = look;
		if (next != UINT64_MAX && look <= role_clock_ms()) {
			pthread_mutex_unlock(&s->lock);
			look = snapshots_look(s);
			pthread_mutex_lock(&s->lock);
			continue; /* a lease may have come or gone */
		}
		snapshots_sleep(s, next < look ? next : next == UINT64_MAX ? next : look);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* ---- the calls ---- */

int snapshots_start(struct role *role, const struct config *config, struct snapshots **out)
{
	struct snapshots *s = calloc(1, sizeof(*s));
	pthread_condattr_t clock;

	if (!s)
		return -1;
	s->role = role;
	s->max = config->snapshots_max;
	s->budget = config->snapshot_bytes_max;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &clock);
	pthread_condattr_destroy(&clock);
	if (getrandom(s->key, sizeof(s->key), 0) != sizeof(s->key) || pthread_create(&s->thread, NULL, snapshots_main, s)) {
		log_event("error", "no-thread", LOG_FIELDS(LOG_TEXT("detail", "for leased snapshots")));
		free(s);
		return -1;
	}
	*out = s;
	return 0;
}

size_t snapshots_clear(struct snapshots *s)
{
	size_t count = 0;
	unsigned i;

	pthread_mutex_lock(&s->lock);
	for (i = 0; i < SNAPSHOTS_CHAINS; i++)
		for (; s->chains[i]; count++)
			snapshots_end(s, &s->chains[i]);
	s->stat.expired += count;
	pthread_mutex_unlock(&s->lock);
	return count;
}

void snapshots_stop(struct snapshots *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stopping = 1;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
	snapshots_clear(s);
	pthread_join(s->thread, NULL);
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	free(s);
}

/* With a transaction begun, which it takes. */
static enum bts_err snapshots_add(struct snapshots *s, struct snapshots_lease *lease, uint64_t ttl_ms, struct snapshots_info *info)
{
	struct snapshots_lease **link = snapshots_chain(s, lease->info.id);
	uint64_t now = role_clock_ms();

	pthread_mutex_lock(&s->lock);
	if (s->stopping || s->stat.live >= s->max) {
		pthread_mutex_unlock(&s->lock);
		bts_abort(lease->txn);
		free(lease);
		return BTS_LIMIT;
	}
	lease->ends_ms = now + ttl_ms;
	lease->next = *link;
	*link = lease;
	s->stat.live++;
	s->stat.taken++;
	snapshots_tell(lease, now, info);
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return BTS_OK;
}

enum bts_err snapshots_take(struct snapshots *s, uint64_t ttl_ms, struct snapshots_info *info, struct bts_error *error)
{
	struct bts *db = role_db(s->role);
	struct snapshots_lease *lease;
	enum bts_err err;

	if (!db)
		return BTS_NOT_FOUND;
	lease = calloc(1, sizeof(*lease));
	if (!lease || snapshots_id(s, lease->info.id)) {
		free(lease);
		return BTS_MEMORY;
	}
	err = bts_begin(db, BTS_READ, &lease->txn, error);
	if (err) {
		free(lease);
		return err;
	}
	lease->info.txid = bts_txn_id(lease->txn);
	return snapshots_add(s, lease, ttl_ms, info);
}

enum bts_err snapshots_begin(struct snapshots *s, struct bts_slice id, struct bts_txn **txn, struct bts_error *error)
{
	struct snapshots_lease **link;
	enum bts_err err;

	/* Under the lock, so that the lease stands until the request has its own. */
	pthread_mutex_lock(&s->lock);
	link = snapshots_find(s, id, &err);
	if (link)
		err = bts_begin_same((*link)->txn, txn, error);
	pthread_mutex_unlock(&s->lock);
	return err;
}

enum bts_err snapshots_renew(struct snapshots *s, struct bts_slice id, uint64_t ttl_ms, struct snapshots_info *info)
{
	uint64_t now = role_clock_ms();
	struct snapshots_lease **link;
	enum bts_err err;

	pthread_mutex_lock(&s->lock);
	link = snapshots_find(s, id, &err);
	if (link) {
		err = BTS_OK;
		(*link)->ends_ms = now + ttl_ms;
		snapshots_tell(*link, now, info);
		pthread_cond_signal(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
	return err;
}

enum bts_err snapshots_release(struct snapshots *s, struct bts_slice id)
{
	struct snapshots_lease **link;
	enum bts_err err;

	pthread_mutex_lock(&s->lock);
	link = snapshots_find(s, id, &err);
	if (link) {
		err = BTS_OK;
		snapshots_end(s, link);
	}
	pthread_mutex_unlock(&s->lock);
	return err;
}

void snapshots_watch(struct snapshots *s, struct snapshots_pin *pin, bts_txid txid)
{
	pthread_mutex_lock(&s->lock);
	pin->txid = txid;
	atomic_init(&pin->over, 0);
	pin->next = s->pins;
	pin->link = &s->pins;
	if (pin->next)
		pin->next->link = &pin->next;
	s->pins = pin;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
}

void snapshots_unwatch(struct snapshots *s, struct snapshots_pin *pin)
{
	if (!pin->link)
		return;
	pthread_mutex_lock(&s->lock);
	*pin->link = pin->next;
	if (pin->next)
		pin->next->link = pin->link;
	pthread_mutex_unlock(&s->lock);
	pin->link = NULL;
}

static int snapshots_sooner(const void *a, const void *b)
{
	const struct snapshots_info *x = a, *y = b;

	return (x->left_ms > y->left_ms) - (x->left_ms < y->left_ms);
}

size_t snapshots_list(struct snapshots *s, struct snapshots_info *infos, size_t cap)
{
	uint64_t now = role_clock_ms();
	struct snapshots_lease *lease;
	size_t n = 0;
	unsigned i;

	pthread_mutex_lock(&s->lock);
	for (i = 0; i < SNAPSHOTS_CHAINS; i++) {
		for (lease = s->chains[i]; lease; lease = lease->next) {
			if (lease->ends_ms <= now)
				continue;
			if (n < cap)
				snapshots_tell(lease, now, &infos[n]);
			n++;
		}
	}
	pthread_mutex_unlock(&s->lock);
	qsort(infos, n < cap ? n : cap, sizeof(*infos), snapshots_sooner);
	return n;
}

void snapshots_stat(struct snapshots *s, struct snapshots_stat *stat)
{
	pthread_mutex_lock(&s->lock);
	*stat = s->stat;
	pthread_mutex_unlock(&s->lock);
}
