/* Idempotency keys of transactions. */
#include "idem.h"

#include <string.h>

#include "btree_store/ship.h"
#include "ttl.h"

#define IDEM_VERSION 1
#define IDEM_HEAD (1 + 16) /* of a record: version, digest */

static const struct bts_slice idem_bucket = {"\0idem", 5};

int idem_key_init(struct idem_key *key, const char *header, struct bts_slice body)
{
	static const uint8_t fixed[16] = "btree_store idem";
	struct bts_digest digest;
	size_t i;

	key->size = strlen(header);
	if (!key->size || key->size > IDEM_KEY_MAX)
		return -1;
	for (i = 0; i < key->size; i++)
		if (header[i] < ' ' || header[i] > '~')
			return -1;
	memcpy(key->text, header, key->size);
	bts_digest_init(&digest, fixed);
	bts_digest_update(&digest, body.data, body.size);
	bts_digest_final(&digest, key->digest);
	return 0;
}

enum bts_err idem_find(
	struct bts_txn *txn, const struct idem_key *key, enum idem_state *state, struct bts_slice *reply)
{
	struct bts_bucket *bucket;
	struct bts_slice value;
	struct ttl_view ttl;
	const uint8_t *at;
	bts_txid version;
	enum bts_err err;

	*state = IDEM_NEW;
	err = bts_bucket(txn, idem_bucket, 0, &bucket, NULL);
	if (!err)
		err = ttl_open(&ttl, txn);
	if (!err)
		err = ttl_get(&ttl, bucket, idem_bucket, (struct bts_slice){key->text, key->size}, &value,
			&version, NULL);
	if (err)
		return err == BTS_NOT_FOUND ? BTS_OK : err;
	at = value.data;
	/* What this version cannot read was asked by somebody else all the same. */
	if (value.size < IDEM_HEAD || at[0] != IDEM_VERSION || memcmp(at + 1, key->digest, 16)) {
		*state = IDEM_REUSED;
		return BTS_OK;
	}
	*state = IDEM_KEPT;
	*reply = (struct bts_slice){at + IDEM_HEAD, value.size - IDEM_HEAD};
	return BTS_OK;
}

enum bts_err idem_keep(struct bts_txn *txn, const struct idem_key *key, const struct idem_limits *limits,
	struct bts_slice reply)
{
	struct bts_slice name = {key->text, key->size};
	uint8_t record[IDEM_HEAD + IDEM_REPLY_MAX];
	struct bts_bucket_info info;
	struct bts_bucket *bucket;
	enum bts_err err;

	if (reply.size > IDEM_REPLY_MAX)
		return BTS_INVALID;
	err = bts_bucket(txn, idem_bucket, BTS_CREATE, &bucket, NULL);
	if (!err)
		err = bts_bucket_info(txn, bucket, &info);
	if (err)
		return err;
	if (info.entries >= limits->max)
		return BTS_LIMIT;
	record[0] = IDEM_VERSION;
	memcpy(record + 1, key->digest, 16);
	memcpy(record + IDEM_HEAD, reply.data, reply.size);
	err = bts_put(txn, bucket, name, (struct bts_slice){record, IDEM_HEAD + reply.size}, 0);
	return err ? err : ttl_set(txn, idem_bucket, name, ttl_now_ms() + limits->ttl_ms);
}
