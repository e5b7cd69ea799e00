/* What the kinds of store give to store.c, which checks keys and sizes for them. */
#ifndef STORE_PRIVATE_H
#define STORE_PRIVATE_H

#include <stdatomic.h>

#include "store.h"
#include "store_url.h"

struct store_ops {
	void (*close)(struct store *);
	enum bts_err (*put)(
		struct store *, const char *key, struct bts_slice bytes, bool only_new, struct bts_error *);
	enum bts_err (*get)(
		struct store *, const char *key, store_piece_fn *visit, void *arg, struct bts_error *);
	enum bts_err (*list)(struct store *, const char *prefix, const char *after, store_key_fn *visit,
		void *arg, struct bts_error *);
	enum bts_err (*remove)(struct store *, const char *key, struct bts_error *);
	void (*interrupt)(struct store *); /* NULL: looking at interrupted is enough */
};

/* The first member of each kind's struct. */
struct store {
	const struct store_ops *ops;
	char name[STORE_URL_MAX + 1];
	atomic_bool interrupted;
};

/* How a name or key goes into an error text, which has 256 bytes. */
#define STORE_NAME ".80s"
#define STORE_KEY ".115s"

enum bts_err store_file_open(const struct store_url *url, struct store **store, struct bts_error *error);
enum bts_err store_s3_open(const struct store_url *url, const struct store_options *options,
	struct store **store, struct bts_error *error);

static inline bool store_is_interrupted(const struct store *store)
{
	return atomic_load(&store->interrupted);
}
/* Fills error, as all that were interrupted end. */
enum bts_err store_fail_interrupted(const struct store *store, struct bts_error *error);

#endif
