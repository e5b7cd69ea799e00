/* A store of whatever kind: what all of them check. */
#include "store_private.h"

#include <stdio.h>
#include <string.h>

#include "fail.h"

const char *store_check_url(const char *text)
{
	struct store_url url;

	return store_url_parse(text, &url);
}

enum bts_err store_open(
	const char *text, const struct store_options *options, struct store **store, struct bts_error *error)
{
	static const struct store_options none;
	struct store_url url;
	const char *why = store_url_parse(text, &url);

	if (why)
		return fail_set(error, BTS_INVALID, "%.100s: %s", text, why);
	return url.s3 ? store_s3_open(&url, options ? options : &none, store, error)
		      : store_file_open(&url, store, error);
}

void store_close(struct store *store)
{
	if (store)
		store->ops->close(store);
}

const char *store_name(const struct store *store)
{
	return store->name;
}

enum bts_err store_fail_interrupted(const struct store *store, struct bts_error *error)
{
	return fail_set(error, BTS_TIMEOUT, "%" STORE_NAME ": interrupted", store->name);
}

static enum bts_err store_check_key(const struct store *store, const char *key, struct bts_error *error)
{
	if (store_is_interrupted(store))
		return store_fail_interrupted(store, error);
	if (!store_url_is_key(key))
		return fail_set(
			error, BTS_INVALID, "%" STORE_NAME ": %" STORE_KEY " is no key", store->name, key);
	return BTS_OK;
}

enum bts_err store_put(
	struct store *store, const char *key, struct bts_slice bytes, bool only_new, struct bts_error *error)
{
	enum bts_err err = store_check_key(store, key, error);

	if (err)
		return err;
	if (bytes.size > STORE_OBJECT_MAX)
		return fail_set(error, BTS_INVALID,
			"%" STORE_NAME "/%" STORE_KEY ": %zu bytes, more than an object may have",
			store->name, key, bytes.size);
	return store->ops->put(store, key, bytes, only_new, error);
}

enum bts_err store_get(
	struct store *store, const char *key, store_piece_fn *visit, void *arg, struct bts_error *error)
{
	enum bts_err err = store_check_key(store, key, error);

	return err ? err : store->ops->get(store, key, visit, arg, error);
}

/* Of any text that keys may begin with, so that "a/" and "a/b-" can be asked for. */
static bool store_is_prefix(const char *text)
{
	char key[STORE_KEY_MAX + 2];

	if (!*text)
		return true;
	return snprintf(key, sizeof(key), "%sx", text) <= STORE_KEY_MAX && store_url_is_key(key);
}

enum bts_err store_list(struct store *store, const char *prefix, const char *after, store_key_fn *visit,
	void *arg, struct bts_error *error)
{
	if (store_is_interrupted(store))
		return store_fail_interrupted(store, error);
	if (!store_is_prefix(prefix) || !store_is_prefix(after))
		return fail_set(error, BTS_INVALID, "%" STORE_NAME ": no key begins with %" STORE_KEY,
			store->name, store_is_prefix(prefix) ? after : prefix);
	return store->ops->list(store, prefix, after, visit, arg, error);
}

enum bts_err store_delete(struct store *store, const char *key, struct bts_error *error)
{
	enum bts_err err = store_check_key(store, key, error);

	return err ? err : store->ops->remove(store, key, error);
}

void store_interrupt(struct store *store)
{
	atomic_store(&store->interrupted, true);
	if (store->ops->interrupt)
		store->ops->interrupt(store);
}
