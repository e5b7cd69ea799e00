/* A bucket as a store. */
#include "store_private.h"

#include "fail.h"

enum bts_err store_s3_open(const struct store_url *url, const struct store_options *options,
	struct store **store, struct bts_error *error)
{
	(void)options;
	(void)store;
	return fail_set(error, BTS_INVALID, "%.100s: buckets are not supported", url->name);
}
