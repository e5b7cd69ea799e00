/* The handlers of the routes, and what several of them share. */
#ifndef HTTPAPI_HANDLE_H
#define HTTPAPI_HANDLE_H

#include "btree_store.h"
#include "input.h"

struct request;

void handle_index(struct request *);
void handle_livez(struct request *);
void handle_readyz(struct request *);
void handle_status(struct request *);
void handle_metrics(struct request *);

void handle_role(struct request *);
void handle_scrub_get(struct request *);
void handle_scrub_post(struct request *);
void handle_promote(struct request *);
void handle_demote(struct request *);
void handle_follow(struct request *);
void handle_promise(struct request *);

void handle_buckets_get(struct request *);
void handle_bucket_get(struct request *);
void handle_bucket_put(struct request *);
void handle_bucket_delete(struct request *);

void handle_key_get(struct request *);
void handle_key_put(struct request *);
void handle_key_delete(struct request *);

void handle_scan(struct request *);

void handle_load(struct request *);
size_t handle_load_feed(struct request *, const char *data, size_t size);

/* Buckets whose names begin with a zero byte are the server's own: no request names them, no listing shows them. */
int handle_reserved(struct bts_slice bucket);

/* A read transaction on the newest snapshot (owned), or NULL after a reply. */
struct bts_txn *handle_begin(struct request *);
/* The request's bucket in it, or NULL after a reply; then the transaction has been ended. */
struct bts_bucket *handle_open_bucket(struct request *, struct bts_txn *);
void handle_end(void *txn);
/* Replies for what every write may end in; 0 when the result is one for the caller to tell. */
int handle_write_failed(struct request *);

/* If-Match and If-None-Match.  0, or -1 after a reply that refuses them. */
struct writer_conditions;
int handle_conditions(struct request *, struct writer_conditions *);

/* The content type kept in a bucket's meta, or the default. */
void handle_content_type(struct bts_slice meta, char type[INPUT_CONTENT_TYPE_MAX + 1]);

/* Opaque cursors of listings ("~..."), and a parameter that is one or a plain key.  Outputs at most 1024
 * bytes. */
struct buf;
void handle_cursor(struct buf *, struct bts_slice key);
size_t handle_cursor_key(struct bts_slice text, char *out);
#endif
