/*
 * Images that are being handed out.
 *
 * One thread opens them, one after the other (that reads all nodes of the trees), and ends those that nobody has used for
 * their time.  When there are as many as may be, a new one takes the place of one that was read to its end and is
 * not used now: a download that broke off keeps its claim.
 */
#include "backups.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "config.h"
#include "log.h"
#include "role.h"
#include "server.h"
#include "text.h"

#define BACKUPS_LOOK_MS 1000

struct backup {
	struct backup *next;
	struct backups *of;
	char id[BACKUPS_ID_TEXT];
	uint64_t keep_ms;
	struct bts_error error; /* why it could not be opened */
	uint64_t size;
	struct bts_position position;
	uint8_t digest[16];
	pthread_mutex_t reading; /* of image, which is one thread's at a time; NULL: not open yet, or ended */
	struct bts_image *image;
	/* with the table's lock */
	struct request *waits; /* to be opened for it */
	unsigned users;
	int ended;    /* not in the table any more */
	int whole;    /* somebody has read its end */
	uint64_t ends_ms; /* while there are no users */
};

struct backups {
	struct role *role;
	size_t max;
	pthread_t thread;
	pthread_mutex_t lock; /* what follows */
	pthread_cond_t changed;
	struct backup *list;
	size_t count;  /* of the list, and claims */
	size_t claims; /* of what is no image */
	int stopping;
};

static void backups_free(struct backup *k)
{
	bts_image_close(k->image);
	pthread_mutex_destroy(&k->reading);
	free(k);
}

/* With the lock.  Freed now, or by the last user. */
static void backups_unlink(struct backups *b, struct backup *k)
{
	struct backup **link = &b->list;

	while (*link != k)
		link = &(*link)->next;
	*link = k->next;
	b->count--;
	k->ended = 1;
	if (!k->users) {
		backups_free(k);
		return;
	}
	/* Its pages are given back without waiting for who is sent to. */
	pthread_mutex_lock(&k->reading);
	bts_image_close(k->image);
	k->image = NULL;
	pthread_mutex_unlock(&k->reading);
}

static int backups_interrupted(void *arg)
{
	return role_draining(((struct backups *)arg)->role);
}

/* Without the lock; the waiting request is its user. */
static void backups_open(struct backups *b, struct backup *k)
{
	struct bts_image_options options = {sizeof(options), backups_interrupted, b};
	struct bts *db = role_db(b->role);
	struct request *r = k->waits;
	struct bts_image *image = NULL;
	enum bts_err err = BTS_BUSY;

	if (db)
		err = bts_image_open(db, &options, &image, &k->error);
	if (err && !k->error.code)
		k->error = (struct bts_error){err, 0, "this follower has not received the database yet"};
	if (!err) {
		k->size = bts_image_size(image);
		k->position = *bts_image_position(image);
		bts_image_digest(image, k->digest);
	}
	pthread_mutex_lock(&b->lock);
	k->waits = NULL;
	k->image = image;
	if (err)
		backups_unlink(b, k);
	pthread_mutex_unlock(&b->lock);
	server_resume(&r, 1);
}

/* Does a follower's frame wait for its pages?  Then it has to end. */
static int backups_pressed(struct backup *k)
{
	char byte;
	int pressed;

	pthread_mutex_lock(&k->reading);
	pressed = k->image && bts_image_read(k->image, 0, &byte, 1, NULL) == BTS_EXPIRED;
	pthread_mutex_unlock(&k->reading);
	return pressed;
}

/* With the lock.  When to look again; UINT64_MAX: when there is something. */
static uint64_t backups_reap(struct backups *b, uint64_t now)
{
	struct backup *k, *next;

	for (k = b->list; k; k = next) {
		next = k->next;
		if (!k->waits && ((!k->users && k->ends_ms <= now) || backups_pressed(k)))
			backups_unlink(b, k);
	}
	return b->list ? now + BACKUPS_LOOK_MS : UINT64_MAX;
}

static struct backup *backups_waiting(struct backups *b)
{
	struct backup *k, *found = NULL;

	for (k = b->list; k; k = k->next) /* the newest first: the longest waiting is the last */
		if (k->waits)
			found = k;
	return found;
}

static void *backups_main(void *arg)
{
	struct backups *b = arg;
	struct timespec at;
	struct backup *k;
	uint64_t next;

	pthread_setname_np(pthread_self(), "backups");
	pthread_mutex_lock(&b->lock);
	while (!b->stopping) {
		k = backups_waiting(b);
		if (k) {
			pthread_mutex_unlock(&b->lock);
			backups_open(b, k);
			pthread_mutex_lock(&b->lock);
			continue;
		}
		next = backups_reap(b, role_clock_ms());
		at = (struct timespec){.tv_sec = (time_t)(next / 1000), .tv_nsec = (long)(next % 1000) * 1000000};
		if (next == UINT64_MAX)
			pthread_cond_wait(&b->changed, &b->lock);
		else
			pthread_cond_timedwait(&b->changed, &b->lock, &at);
	}
	while (b->list)
		backups_unlink(b, b->list);
	pthread_mutex_unlock(&b->lock);
	return NULL;
}

int backups_start(struct role *role, const struct config *config, struct backups **out)
{
	struct backups *b = calloc(1, sizeof(*b));
	pthread_condattr_t clock;

	if (!b)
		return -1;
	b->role = role;
	b->max = config->backups_max;
	pthread_mutex_init(&b->lock, NULL);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&b->changed, &clock);
	pthread_condattr_destroy(&clock);
	if (pthread_create(&b->thread, NULL, backups_main, b)) {
		log_event("error", "no-thread", LOG_FIELDS(LOG_TEXT("detail", "for backups")));
		free(b);
		return -1;
	}
	*out = b;
	return 0;
}

void backups_stop(struct backups *b)
{
	if (!b)
		return;
	pthread_mutex_lock(&b->lock);
	b->stopping = 1;
	pthread_cond_signal(&b->changed);
	pthread_mutex_unlock(&b->lock);
	pthread_join(b->thread, NULL);
	pthread_mutex_destroy(&b->lock);
	pthread_cond_destroy(&b->changed);
	free(b);
}

/* With the lock: room for one more, at the cost of one that is not needed. */
static int backups_room(struct backups *b)
{
	struct backup *k, *least = NULL;

	if (b->count < b->max)
		return 1;
	for (k = b->list; k; k = k->next)
		if (!k->users && !k->waits && k->whole && (!least || k->ends_ms < least->ends_ms))
			least = k;
	if (least)
		backups_unlink(b, least);
	return least != NULL;
}

struct backup *backups_new(struct backups *b, struct request *r, uint64_t keep_ms)
{
	struct backup *k = calloc(1, sizeof(*k));
	uint8_t id[(BACKUPS_ID_TEXT - 1) / 2];
	int taken;

	if (!k || getrandom(id, sizeof(id), 0) != sizeof(id)) {
		free(k);
		return NULL;
	}
	text_hex(k->id, id, sizeof(id));
	k->of = b;
	k->keep_ms = keep_ms;
	k->users = 1;
	k->waits = r;
	pthread_mutex_init(&k->reading, NULL);
	pthread_mutex_lock(&b->lock);
	taken = !b->stopping && backups_room(b);
	if (taken) {
		k->next = b->list;
		b->list = k;
		b->count++;
		pthread_cond_signal(&b->changed);
	}
	pthread_mutex_unlock(&b->lock);
	if (taken)
		return k;
	backups_free(k);
	return NULL;
}

/* With the lock. */
static struct backup *backups_look(struct backups *b, struct bts_slice id)
{
	struct backup *k = b->list;

	while (k && (k->waits || id.size != BACKUPS_ID_TEXT - 1 || memcmp(id.data, k->id, id.size)))
		k = k->next;
	return k;
}

struct backup *backups_find(struct backups *b, struct bts_slice id)
{
	struct backup *k;

	pthread_mutex_lock(&b->lock);
	k = backups_look(b, id);
	if (k)
		k->users++;
	pthread_mutex_unlock(&b->lock);
	return k;
}

int backups_end(struct backups *b, struct bts_slice id)
{
	struct backup *k;

	pthread_mutex_lock(&b->lock);
	k = backups_look(b, id);
	if (k)
		backups_unlink(b, k);
	pthread_mutex_unlock(&b->lock);
	return k ? 0 : -1;
}

size_t backups_clear(struct backups *b)
{
	struct backup *k, *next;
	size_t count = 0;

	pthread_mutex_lock(&b->lock);
	for (k = b->list; k; k = next) {
		next = k->next;
		if (k->waits)
			continue;
		backups_unlink(b, k);
		count++;
	}
	pthread_mutex_unlock(&b->lock);
	return count;
}

void backups_leave(struct backup *k)
{
	struct backups *b = k->of;

	pthread_mutex_lock(&b->lock);
	k->ends_ms = role_clock_ms() + k->keep_ms;
	if (!--k->users && k->ended)
		backups_free(k);
	pthread_mutex_unlock(&b->lock);
}

enum bts_err backups_error(const struct backup *k, struct bts_error *error)
{
	if (k->error.code)
		*error = k->error;
	return k->error.code;
}

const char *backups_id(const struct backup *k)
{
	return k->id;
}

uint64_t backups_size(const struct backup *k)
{
	return k->size;
}

const struct bts_position *backups_position(const struct backup *k)
{
	return &k->position;
}

void backups_digest(const struct backup *k, uint8_t digest[16])
{
	memcpy(digest, k->digest, 16);
}

int backups_read(struct backup *k, uint64_t at, void *out, size_t size)
{
	struct bts_error error = {.text = "the image was ended"};
	enum bts_err err = BTS_EXPIRED;

	pthread_mutex_lock(&k->reading);
	if (k->image)
		err = bts_image_read(k->image, at, out, size, &error);
	pthread_mutex_unlock(&k->reading);
	if (err) {
		role_met(k->of->role, err, &error);
		log_event("error", "backup-cut", LOG_FIELDS(LOG_TEXT("code", bts_err_name(err)), LOG_TEXT("detail", error.text)));
		return -1;
	}
	if (at + size == k->size) {
		pthread_mutex_lock(&k->of->lock);
		k->whole = 1;
		pthread_mutex_unlock(&k->of->lock);
	}
	return 0;
}

int backups_claim(struct backups *b)
{
	int taken;

	pthread_mutex_lock(&b->lock);
	taken = !b->stopping && backups_room(b);
	b->count += (size_t)taken;
	b->claims += (size_t)taken;
	pthread_mutex_unlock(&b->lock);
	return taken ? 0 : -1;
}

void backups_unclaim(struct backups *b)
{
	pthread_mutex_lock(&b->lock);
	b->count--;
	b->claims--;
	pthread_mutex_unlock(&b->lock);
}

void backups_stat(struct backups *b, size_t *images, size_t *users)
{
	struct backup *k;

	pthread_mutex_lock(&b->lock);
	*images = b->count - b->claims;
	*users = b->claims;
	for (k = b->list; k; k = k->next)
		*users += k->users;
	pthread_mutex_unlock(&b->lock);
}
