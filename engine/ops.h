/* Steps of a change that several kinds of it share: checked, logged for a replay, done. */
#ifndef OPS_H
#define OPS_H

#include "txn.h"

enum bts_err ops_check_key(struct bts_txn *, struct bts_bucket *, struct bts_slice key);
/* Nothing that changes private pages in the child of a fork. */
enum bts_err ops_check_fork(struct bts_txn *);
/* A write now: in a write transaction of this process, no load open. */
enum bts_err ops_check_write(struct bts_txn *);
/* BTS_PUT_NEW and BTS_PUT_EXISTING. */
enum bts_err ops_check_presence(
	struct bts_txn *, struct bucket_state *, struct bts_slice key, unsigned flags);
/* Into the log of a private transaction, before it is done; to be cut from it when that fails. */
enum bts_err ops_log_op(struct bts_txn *, const struct oplog_op *);
/* made NULL: value is logged; else the private value *made of value.size bytes is referred to. */
enum bts_err ops_log_put(struct bts_txn *, const struct bucket_state *, struct bts_slice key,
	struct bts_slice value, const struct page_ptr *made);
/* Everything a put does after the checks.  *made (or NULL) is taken over, and given back on failure. */
enum bts_err ops_put(struct bts_txn *, struct bucket_state *, struct bts_slice key, struct bts_slice value,
	const struct page_ptr *made);

/* load.c, stream.c: what is open in the transaction is dropped, before it ends or is refreshed. */
void load_drop(struct bts_txn *);
void stream_drop(struct bts_txn *);

#endif
