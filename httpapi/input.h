/* JSON that clients send, checked and taken apart. */
#ifndef HTTPAPI_INPUT_H
#define HTTPAPI_INPUT_H

#include "btree_store.h"

struct input_record {
	struct bts_slice key, value; /* borrowed until input_record_fini */
	void *tree;		     /* what they point into */
	void *key_bytes, *value_bytes;
};

/* A line of a bulk load.  NULL, or the code of the problem and why. */
const char *input_record_parse(struct input_record *, struct bts_slice line, char why[160]);
void input_record_fini(struct input_record *);

#define INPUT_CONTENT_TYPE_MAX 200

/* The body of a bucket's PUT, which may be empty; content_type is "" when it was not named.  As above. */
const char *input_bucket_parse(
	struct bts_slice body, char content_type[INPUT_CONTENT_TYPE_MAX + 1], char why[160]);

/* A body that is empty or {"ttl":"30s"}; *ms stays when it is not named.  As above. */
const char *input_ttl_parse(struct bts_slice body, uint64_t *ms, char why[160]);

/* Before threads: hash tables that an outsider cannot aim at. */
void input_seed(unsigned seed);
#endif
