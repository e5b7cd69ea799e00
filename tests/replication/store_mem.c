/* Stores in memory. */
#include "cmocka.h"

#include "store_mem.h"

#include <pthread.h>
#include <stdlib.h>

#include "fail.h"

struct mem_object {
	char *key;
	void *bytes;
	size_t size;
};

struct mem_bucket {
	pthread_mutex_t lock;
	pthread_cond_t healed;
	struct mem_object *objects; /* ascending */
	size_t count, cap;
	enum mem_fault fault;
	unsigned left; /* calls until it fails; 0: none does */
	unsigned failed;
	bool broken;
	char hold[64];
	bool held;
};

struct store {
	struct mem_bucket *bucket;
	bool interrupted; /* under the bucket's lock */
};

struct mem_bucket *mem_bucket_new(void)
{
	struct mem_bucket *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->healed, NULL);
	return b;
}

void mem_empty(struct mem_bucket *b)
{
	pthread_mutex_lock(&b->lock);
	for (size_t i = 0; i < b->count; i++) {
		free(b->objects[i].key);
		free(b->objects[i].bytes);
	}
	b->count = 0;
	pthread_mutex_unlock(&b->lock);
}

void mem_bucket_free(struct mem_bucket *b)
{
	if (!b)
		return;
	mem_empty(b);
	free(b->objects);
	pthread_mutex_destroy(&b->lock);
	pthread_cond_destroy(&b->healed);
	free(b);
}

static size_t mem_find(const struct mem_bucket *b, const char *key, bool *there)
{
	size_t low = 0, high = b->count, middle;
	int order;

	while (low < high) {
		middle = low + (high - low) / 2;
		order = strcmp(b->objects[middle].key, key);
		if (order == 0) {
			*there = true;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*there = false;
	return low;
}

static void mem_set(struct mem_bucket *b, const char *key, const void *bytes, size_t size)
{
	bool there;
	size_t at = mem_find(b, key, &there);

	if (!there) {
		if (b->count == b->cap) {
			b->cap = b->cap ? 2 * b->cap : 64;
			b->objects = realloc(b->objects, b->cap * sizeof(b->objects[0]));
			assert_non_null(b->objects);
		}
		memmove(&b->objects[at + 1], &b->objects[at], (b->count - at) * sizeof(b->objects[0]));
		b->objects[at] = (struct mem_object){.key = strdup(key)};
		b->count++;
	}
	free(b->objects[at].bytes);
	b->objects[at].bytes = malloc(size ? size : 1);
	assert_true(b->objects[at].key && b->objects[at].bytes);
	memcpy(b->objects[at].bytes, bytes, size);
	b->objects[at].size = size;
}

struct mem_bucket *mem_copy(struct mem_bucket *from)
{
	struct mem_bucket *to = mem_bucket_new();

	pthread_mutex_lock(&from->lock);
	for (size_t i = 0; i < from->count; i++)
		mem_set(to, from->objects[i].key, from->objects[i].bytes, from->objects[i].size);
	pthread_mutex_unlock(&from->lock);
	return to;
}

size_t mem_count(struct mem_bucket *b, const char *within)
{
	size_t found = 0;

	pthread_mutex_lock(&b->lock);
	for (size_t i = 0; i < b->count; i++)
		found += strstr(b->objects[i].key, within) != NULL;
	pthread_mutex_unlock(&b->lock);
	return found;
}

void mem_fail(struct mem_bucket *b, enum mem_fault fault, unsigned n)
{
	pthread_mutex_lock(&b->lock);
	b->fault = fault;
	b->left = n;
	b->failed = 0;
	pthread_mutex_unlock(&b->lock);
}

void mem_hold(struct mem_bucket *b, const char *within)
{
	pthread_mutex_lock(&b->lock);
	strcpy(b->hold, within);
	b->held = false;
	pthread_cond_broadcast(&b->healed); /* what was held for another name goes on */
	pthread_mutex_unlock(&b->lock);
}

void mem_heal(struct mem_bucket *b)
{
	pthread_mutex_lock(&b->lock);
	b->left = 0;
	b->broken = b->held = false;
	b->hold[0] = '\0';
	pthread_cond_broadcast(&b->healed);
	pthread_mutex_unlock(&b->lock);
}

unsigned mem_failed(struct mem_bucket *b)
{
	unsigned failed;

	pthread_mutex_lock(&b->lock);
	failed = b->failed;
	pthread_mutex_unlock(&b->lock);
	return failed;
}

bool mem_held(struct mem_bucket *b)
{
	bool held;

	pthread_mutex_lock(&b->lock);
	held = b->held;
	pthread_mutex_unlock(&b->lock);
	return held;
}

/* ---- store.h ---- */

struct store *mem_store(struct mem_bucket *b)
{
	struct store *store = calloc(1, sizeof(*store));

	assert_non_null(store);
	store->bucket = b;
	return store;
}

const char *store_check_url(const char *url)
{
	(void)url;
	return NULL;
}

enum bts_err store_open(
	const char *url, const struct store_options *options, struct store **store, struct bts_error *error)
{
	(void)url;
	(void)options;
	(void)store;
	return fail_set(error, BTS_INVALID, "only mem_store");
}

void store_close(struct store *store)
{
	free(store);
}

const char *store_name(const struct store *store)
{
	(void)store;
	return "mem:";
}

/* Under the lock: what the call is to return instead; *silent: after it was done. */
static enum bts_err mem_enter(struct store *store, bool *silent, struct bts_error *error)
{
	struct mem_bucket *b = store->bucket;
	bool now = b->left && --b->left == 0;

	*silent = false;
	if (store->interrupted)
		return fail_set(error, BTS_TIMEOUT, "interrupted");
	b->broken = b->broken || (now && b->fault == MEM_STICKY);
	if (!now && !b->broken)
		return BTS_OK;
	b->failed++;
	*silent = now && b->fault == MEM_ANSWER;
	return fail_set(error, BTS_IO, "as it was told");
}

enum bts_err store_put(
	struct store *store, const char *key, struct bts_slice bytes, bool only_new, struct bts_error *error)
{
	struct mem_bucket *b = store->bucket;
	bool there, silent;
	enum bts_err err;

	pthread_mutex_lock(&b->lock);
	while (*b->hold && strstr(key, b->hold) && !store->interrupted) {
		b->held = true;
		pthread_cond_wait(&b->healed, &b->lock);
	}
	err = mem_enter(store, &silent, error);
	(void)mem_find(b, key, &there);
	if (!err && only_new && there)
		err = fail_set(error, BTS_EXISTS, "there is one");
	else if ((!err || silent) && !(only_new && there))
		mem_set(b, key, bytes.data, bytes.size);
	pthread_mutex_unlock(&b->lock);
	return err;
}

enum bts_err store_get(
	struct store *store, const char *key, store_piece_fn *visit, void *arg, struct bts_error *error)
{
	struct mem_bucket *b = store->bucket;
	bool there, silent;
	enum bts_err err;
	size_t at;

	pthread_mutex_lock(&b->lock);
	err = mem_enter(store, &silent, error);
	at = mem_find(b, key, &there);
	if (!err && !there)
		err = fail_set(error, BTS_NOT_FOUND, "%s", key);
	if (!err)
		err = visit(arg, b->objects[at].bytes, b->objects[at].size, error);
	pthread_mutex_unlock(&b->lock);
	return err;
}

enum bts_err store_list(struct store *store, const char *prefix, const char *after, store_key_fn *visit,
	void *arg, struct bts_error *error)
{
	struct mem_bucket *b = store->bucket;
	enum bts_err err;
	bool silent;

	pthread_mutex_lock(&b->lock);
	err = mem_enter(store, &silent, error);
	for (size_t i = 0; !err && i < b->count; i++)
		if (!strncmp(b->objects[i].key, prefix, strlen(prefix)) &&
			strcmp(b->objects[i].key, after) > 0)
			err = visit(arg, b->objects[i].key, b->objects[i].size, 0, error);
	pthread_mutex_unlock(&b->lock);
	return err;
}

enum bts_err store_delete(struct store *store, const char *key, struct bts_error *error)
{
	struct mem_bucket *b = store->bucket;
	bool there, silent;
	enum bts_err err;
	size_t at;

	pthread_mutex_lock(&b->lock);
	err = mem_enter(store, &silent, error);
	at = mem_find(b, key, &there);
	if ((!err || silent) && there) {
		free(b->objects[at].key);
		free(b->objects[at].bytes);
		memmove(&b->objects[at], &b->objects[at + 1], (--b->count - at) * sizeof(b->objects[0]));
	}
	pthread_mutex_unlock(&b->lock);
	return err;
}

void store_interrupt(struct store *store)
{
	pthread_mutex_lock(&store->bucket->lock);
	store->interrupted = true;
	pthread_cond_broadcast(&store->bucket->healed);
	pthread_mutex_unlock(&store->bucket->lock);
}
