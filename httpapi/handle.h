/* The handlers of the routes, and what several of them share. */
#ifndef HTTPAPI_HANDLE_H
#define HTTPAPI_HANDLE_H

#include "btree_store.h"
#include "input.h"
#include "writer.h"

struct request;

void handle_index(struct request *);
void handle_livez(struct request *);
void handle_readyz(struct request *);
void handle_status(struct request *);
void handle_openapi(struct request *);
void handle_metrics(struct request *);

void handle_role(struct request *);
void handle_scrub_get(struct request *);
void handle_scrub_post(struct request *);
void handle_promote(struct request *);
void handle_demote(struct request *);
void handle_follow(struct request *);
void handle_promise(struct request *);

void handle_tokens_get(struct request *);
void handle_tokens_post(struct request *);
void handle_tokens_delete(struct request *);

void handle_buckets_get(struct request *);
void handle_bucket_get(struct request *);
void handle_bucket_put(struct request *);
void handle_bucket_delete(struct request *);

void handle_key_get(struct request *);
void handle_key_put(struct request *);
size_t handle_key_feed(struct request *, const char *data, size_t size);
/* of handle_kv.c, for handle_upload.c too */
void handle_key_etag(struct request *, bts_txid version);
void handle_key_write(struct request *, enum writer_kind);
void handle_key_written(struct request *); /* the reply when r->op is done */
void handle_key_delete(struct request *);

#define HANDLE_LARGE ((size_t)1 << 20) /* of a value: from here on it is written by threads of its own (work.h) */

void handle_scan(struct request *);
void handle_range_delete(struct request *);

void handle_snapshots_get(struct request *);
void handle_snapshots_post(struct request *);
void handle_snapshot_patch(struct request *);
void handle_snapshot_delete(struct request *);
void handle_named_list(struct request *);
void handle_named_get(struct request *);
void handle_named_put(struct request *);
void handle_named_delete(struct request *);

void handle_compact_get(struct request *);
void handle_compact_post(struct request *);
void handle_compact_delete(struct request *);

void handle_backup_get(struct request *);
void handle_backup_delete(struct request *);
void handle_backup_since(struct request *);

void handle_changes(struct request *);

void handle_load(struct request *);
size_t handle_load_feed(struct request *, const char *data, size_t size);

void handle_get(struct request *);
void handle_txn(struct request *);
size_t handle_txn_feed(struct request *, const char *data, size_t size);

/* Buckets whose names begin with a zero byte are the server's own: no request names them, no listing shows them. */
int handle_reserved(struct bts_slice bucket);

/* A read transaction on the newest state, or on the one that ?snapshot= says (owned), or NULL after a reply. */
struct bts_txn *handle_begin(struct request *);
/* On the leased snapshot of an id, or on "name:" and a named one's name. */
struct bts_txn *handle_begin_at(struct request *, struct bts *, const struct bts_slice *which);
/* The request's bucket in it, or NULL after a reply; then the transaction has been ended. */
struct bts_bucket *handle_open_bucket(struct request *, struct bts_txn *);
void handle_end(void *txn);
/* Replies for what every write may end in; 0 when the result is one for the caller to tell. */
int handle_write_failed(struct request *);

/* If-Match and If-None-Match.  0, or -1 after a reply that refuses them. */
struct writer_conditions;
int handle_conditions(struct request *, struct writer_conditions *);
/* The parameter ttl, 0 without it.  0, or -1 after request_refuse. */
int handle_ttl(struct request *, uint64_t *ms);
void handle_expires(struct request *, uint64_t expires_ms); /* BTS-Expires, when it is not 0 */

/* A parameter that holds a key; NULL when absent or empty, or *bad, which is set after a reply. */
const struct bts_slice *handle_key_param(struct request *, const char *name, size_t max, int *bad);
/* prefix, from, to.  0, or -1 after a reply that refuses them. */
struct range;
int handle_range_params(struct request *, struct range *);

/* The content type kept in a bucket's meta, or the default. */
void handle_content_type(struct bts_slice meta, char type[INPUT_CONTENT_TYPE_MAX + 1]);

/* Opaque cursors of listings ("~..."), and a parameter that is one or a plain key.  Outputs at most 1024
 * bytes. */
struct buf;
void handle_cursor(struct buf *, struct bts_slice key);
size_t handle_cursor_key(struct bts_slice text, char *out);
#endif
