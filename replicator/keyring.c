/* The set of tokens in memory, and sums. */
#include "keyring.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define KEYRING_LOOK_MS 1000

struct keyring {
	char *path;
	struct repl_events events;
	_Atomic uint64_t looked_ms;
	atomic_bool failed;    /* at the last look: it is tried again */
	pthread_rwlock_t lock; /* what follows */
	struct keyring_list list;
	struct stat seen;
};

static uint64_t keyring_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void keyring_sum(const void *bytes, size_t size, uint8_t sum[KEYRING_SUM])
{
	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, bytes, size, sum))
		abort(); /* a library without SHA-256 can not judge anybody */
}

bool keyring_token_sum(const char *token, uint8_t sum[KEYRING_SUM])
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

	if (strnlen(token, KEYRING_TOKEN_SIZE) != KEYRING_TOKEN_SIZE - 1 || memcmp(token, "bts_", 4) != 0 ||
		strspn(token + 4, digits) != KEYRING_TOKEN_SIZE - 5)
		return false;
	keyring_sum(token, KEYRING_TOKEN_SIZE - 1, sum);
	return true;
}

enum bts_err keyring_reload(struct keyring *keyring, struct bts_error *error)
{
	struct keyring_list list, old;
	struct stat st;
	enum bts_err err;

	/* Before it is read: one that is replaced in between is read again at the next look. */
	if (stat(keyring->path, &st))
		return fail_os(error, errno, "%.200s", keyring->path);
	err = keyring_load(keyring->path, &list, error);
	if (err)
		return err;
	pthread_rwlock_wrlock(&keyring->lock);
	old = keyring->list;
	keyring->list = list;
	keyring->seen = st;
	pthread_rwlock_unlock(&keyring->lock);
	keyring_list_free(&old);
	return BTS_OK;
}

enum bts_err keyring_open(
	const char *path, const struct repl_events *events, struct keyring **out, struct bts_error *error)
{
	struct keyring *keyring = calloc(1, sizeof(*keyring));
	pthread_rwlockattr_t writers_first;
	enum bts_err err;

	if (!keyring)
		return fail_set(error, BTS_MEMORY, "no memory for tokens");
	/* Requests come without a pause, and each reads: a revocation must not wait for one. */
	pthread_rwlockattr_init(&writers_first);
	pthread_rwlockattr_setkind_np(&writers_first, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&keyring->lock, &writers_first);
	pthread_rwlockattr_destroy(&writers_first);
	keyring->events = *events;
	keyring->path = strdup(path);
	atomic_init(&keyring->looked_ms, keyring_now_ms());
	err = keyring->path ? keyring_reload(keyring, error)
			    : fail_set(error, BTS_MEMORY, "no memory for tokens");
	if (err) {
		keyring_free(keyring);
		return err;
	}
	*out = keyring;
	return BTS_OK;
}

void keyring_free(struct keyring *keyring)
{
	if (!keyring)
		return;
	pthread_rwlock_destroy(&keyring->lock);
	keyring_list_free(&keyring->list);
	free(keyring->path);
	free(keyring);
}

static bool keyring_same(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
	       a->st_mode == b->st_mode && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* One thread a second looks; the others go on with what is there. */
static void keyring_look(struct keyring *keyring)
{
	uint64_t now = keyring_now_ms(), looked = atomic_load(&keyring->looked_ms);
	struct bts_error error = {0};
	struct stat st;
	bool same, failed;

	if (now - looked < KEYRING_LOOK_MS ||
		!atomic_compare_exchange_strong(&keyring->looked_ms, &looked, now))
		return;
	if (stat(keyring->path, &st))
		memset(&st, 0, sizeof(st));
	pthread_rwlock_wrlock(&keyring->lock);
	same = keyring_same(&st, &keyring->seen);
	keyring->seen = st;
	pthread_rwlock_unlock(&keyring->lock);
	if (same && !atomic_load(&keyring->failed))
		return;
	/* It may only have been for want of a descriptor, and the change a revocation: tried at each look, said once. */
	failed = keyring_reload(keyring, &error) != BTS_OK;
	atomic_store(&keyring->failed, failed);
	if (!failed)
		repl_emit(&keyring->events, REPL_INFO, "tokens-read", "%s", keyring->path);
	else if (!same)
		repl_emit(&keyring->events, REPL_ERROR, "tokens-not-read", "%s; those read before stay",
			error.text);
}

bool keyring_find(struct keyring *keyring, const uint8_t sum[KEYRING_SUM], struct keyring_entry *entry)
{
	const struct keyring_entry *found = NULL;
	uint64_t now = (uint64_t)time(NULL);
	size_t i;

	keyring_look(keyring);
	pthread_rwlock_rdlock(&keyring->lock);
	for (i = 0; i < keyring->list.count; i++)
		if (gnutls_memcmp(keyring->list.entries[i].sum, sum, KEYRING_SUM) == 0)
			found = &keyring->list.entries[i];
	if (found)
		*entry = *found;
	else
		memset(entry, 0, sizeof(*entry));
	pthread_rwlock_unlock(&keyring->lock);
	return found && entry->scopes && (!entry->expires_s || entry->expires_s > now);
}

const char *keyring_path(const struct keyring *keyring)
{
	return keyring->path;
}
