/* Operations of simulated processes, and what they were told. */
#include "interleave.h"

#include <ensure.h>
#include <rng.h>
#include <string.h>

#define IL_MAGIC UINT64_C(0x696e7465726c6561)
#define IL_VALUE 704u /* bytes: a leaf holds few, so that commits take and free pages */

struct il_value {
	uint64_t magic;
	uint32_t op, key, previous, pad;
	uint8_t fill[IL_VALUE - 24];
};

static const struct bts_slice il_bucket = {"b", 1};

static struct bts_slice il_key(unsigned key, char text[8])
{
	memcpy(text, "key 0", 6);
	text[4] = (char)('0' + key);
	return (struct bts_slice){text, 5};
}

static void il_value_fill(struct il_value *value, unsigned op, unsigned key, unsigned previous)
{
	uint64_t state = op * 100 + key, word;

	value->magic = IL_MAGIC;
	value->op = op;
	value->key = key;
	value->previous = previous;
	value->pad = 0;
	for (size_t at = 0; at < sizeof(value->fill); at += 8) {
		word = rng_splitmix(&state);
		memcpy(value->fill + at, &word, sizeof(value->fill) - at < 8 ? sizeof(value->fill) - at : 8);
	}
}

/* Whole and of an operation that there is; false: reported. */
static bool il_value_check(struct il *il, struct bts_slice got, unsigned key, unsigned *op)
{
	struct il_value want;
	const struct il_value *value = got.data;
	uint32_t head[2] = {0, 0};

	if (got.size == sizeof(want)) {
		memcpy(head, &value->op, sizeof(head[0]));
		memcpy(head + 1, &value->previous, sizeof(head[1]));
	}
	il_value_fill(&want, head[0], key, head[1]);
	if (got.size != sizeof(want) || memcmp(&want, got.data, sizeof(want)) || head[0] >= il->op_count ||
		(key == IL_SHARED && head[1] != il->ops[head[0]].previous)) {
		sched_fail(il->sched, "key %u holds %zu bytes that nobody wrote", key, got.size);
		return false;
	}
	*op = head[0];
	return true;
}

static struct bts_options il_options(struct bts_env *env, unsigned flags)
{
	struct bts_options options;

	bts_options_init(&options);
	options.env = env;
	options.flags = flags;
	options.map_bytes = 64 << 20;
	return options;
}

void il_open(struct il *il, unsigned process, unsigned flags)
{
	struct bts_options options = il_options(sched_env(il->sched), flags | BTS_OPEN_EXISTING);
	struct bts_error error = {BTS_OK, 0, ""};
	enum bts_err err = bts_open(IL_PATH, &options, &il->db[process], &error);

	if (!err)
		return;
	il->db[process] = NULL;
	sched_fail(il->sched, "process %u: open: %s: %s", process, bts_err_name(err), error.text);
}

void il_close(struct il *il, unsigned process)
{
	if (sched_failed(il->sched)) /* transactions may be open */
		return;
	bts_close(il->db[process]);
	il->db[process] = NULL;
}

static enum bts_err il_put_one(
	struct bts_txn *txn, struct bts_bucket *bucket, unsigned key, unsigned op, unsigned previous)
{
	struct il_value value;
	char text[8];

	il_value_fill(&value, op, key, previous);
	return bts_put(txn, bucket, il_key(key, text), (struct bts_slice){&value, sizeof(value)}, 0);
}

void il_make_base(struct il *il)
{
	struct env_mem *mem = env_mem_new(IL_RESERVE);
	struct bts_options options = il_options(env_mem_env(mem), 0);
	struct bts_bucket *bucket;
	struct bts_txn *txn;
	struct bts *db;

	ENSURE(!bts_open(IL_PATH, &options, &db, NULL));
	ENSURE(!bts_begin(db, BTS_WRITE, &txn, NULL));
	ENSURE(!bts_bucket(txn, il_bucket, BTS_CREATE, &bucket, NULL));
	for (unsigned key = 0; key < IL_KEYS; key++)
		ENSURE(!il_put_one(txn, bucket, key, 0, 0));
	ENSURE(!bts_commit(txn, NULL));
	il->bases[IL_CUT] = env_mem_crash(mem, env_mem_choose_newest, NULL);
	il->bases[IL_KILLED] = env_mem_clone(mem);
	bts_close(db);
	il->bases[IL_CLOSED] = env_mem_crash(mem, env_mem_choose_newest, NULL);
	env_mem_free(mem);
}

static unsigned il_op_new(struct il *il, unsigned process, bool shared)
{
	ENSURE(il->op_count < IL_OPS);
	il->ops[il->op_count] = (struct il_op){.process = process, .shared = shared};
	return il->op_count++;
}

/* Inside a transaction, all of one operation. */
static bool il_put(struct il *il, struct bts_txn *txn, unsigned op)
{
	struct il_op *o = &il->ops[op];
	struct bts_bucket *bucket;
	struct bts_slice got;
	char text[8];
	enum bts_err err = bts_bucket(txn, il_bucket, 0, &bucket, NULL);

	if (!err)
		err = bts_get(txn, bucket, il_key(IL_SHARED, text), &got);
	if (!err && !il_value_check(il, got, IL_SHARED, &o->previous))
		return false;
	if (!err && o->shared)
		err = il_put_one(txn, bucket, IL_SHARED, op, o->previous);
	if (!err)
		err = il_put_one(txn, bucket, o->process, op, 0);
	if (err)
		sched_fail(il->sched, "process %u: put: %s: %s", o->process, bts_err_name(err),
			bts_txn_error(txn)->text);
	return !err;
}

static void il_acked(struct il *il, unsigned op, bts_txid txid)
{
	struct il_op *o = &il->ops[op];

	if (o->txid && o->txid != txid)
		sched_fail(il->sched,
			"operation %u was read as transaction %" PRIu64 " and acknowledged as %" PRIu64, op,
			o->txid, txid);
	o->fate = IL_ACKED;
	o->txid = txid;
}

/* Whoever begins now stands there or later. */
static bts_txid il_newest_known(const struct il *il)
{
	bts_txid newest = 0;

	for (unsigned i = 1; i < il->op_count; i++)
		if ((il->ops[i].fate == IL_ACKED || il->ops[i].seen) && il->ops[i].txid > newest)
			newest = il->ops[i].txid;
	return newest;
}

/* One attempt; true: done. */
static bool il_attempt(struct il *il, unsigned process, bool shared, struct bts_txn *txn)
{
	unsigned op = il_op_new(il, process, shared);
	struct bts_error error = {BTS_OK, 0, ""};
	enum bts_err err;
	bts_txid txid;

	il->ops[op].snapshot = bts_txn_id(txn);
	if (!il_put(il, txn, op))
		return true;
	sched_point(il->sched, "before commit");
	err = bts_commit_id(txn, &txid, &error);
	if (!err) {
		il_acked(il, op, txid);
		return true;
	}
	if (err != BTS_CONFLICT || !shared) {
		sched_fail(il->sched, "process %u: commit: %s: %s", process, bts_err_name(err), error.text);
		return true;
	}
	il->ops[op].fate = IL_REFUSED;
	il->conflicts++;
	return false;
}

void il_write(struct il *il, unsigned process, bool shared)
{
	bts_txid newest = il_newest_known(il);
	struct bts_error error = {BTS_OK, 0, ""};
	struct bts_txn *txn;
	enum bts_err err = bts_begin(il->db[process], BTS_WRITE, &txn, &error);

	if (!err && bts_txn_id(txn) < newest)
		sched_fail(il->sched,
			"process %u: begins to write at %" PRIu64 " though %" PRIu64 " was known before",
			process, bts_txn_id(txn), newest);
	for (unsigned i = 0; !err && i < IL_TRIES; i++) {
		if (il_attempt(il, process, shared, txn))
			return;
		err = bts_refresh(txn, &error);
	}
	if (err)
		sched_fail(il->sched, "process %u: begin: %s: %s", process, bts_err_name(err), error.text);
	else
		sched_fail(il->sched, "process %u: conflicts for ever", process);
}

/* What a transaction of a group sees may be told to somebody before the group commits: it must be durable (I8). */
static void il_group_saw(struct il *il, struct bts_txn *txn)
{
	struct bts_bucket *bucket;
	struct bts_slice got;
	bts_txid version;
	unsigned op;
	char text[8];
	enum bts_err err = bts_bucket(txn, il_bucket, 0, &bucket, NULL);

	if (!err)
		err = bts_get_version(txn, bucket, il_key(IL_SHARED, text), &got, &version);
	if (err) {
		sched_fail(il->sched, "read in a group: %s: %s", bts_err_name(err), bts_txn_error(txn)->text);
		return;
	}
	if (!il_value_check(il, got, IL_SHARED, &op) || op == 0)
		return;
	il->ops[op].seen = true;
	il->ops[op].txid = version;
}

void il_group(struct il *il, unsigned process)
{
	struct bts_error error = {BTS_OK, 0, ""};
	struct bts_group *group;
	struct bts_txn *txn;
	bts_txid txid[2];
	unsigned op[2];
	enum bts_err err = bts_group_begin(il->db[process], &group, &error);

	for (unsigned i = 0; i < 2 && !err; i++) {
		err = bts_group_txn(group, &txn, &error);
		if (err)
			break;
		if (i == 0)
			il_group_saw(il, txn);
		op[i] = il_op_new(il, process, true);
		if (!il_put(il, txn, op[i]))
			return;
		err = bts_commit_id(txn, &txid[i], &error);
		sched_point(il->sched, "in the group");
	}
	if (!err)
		err = bts_group_commit(group, &error);
	if (err) {
		sched_fail(il->sched, "process %u: group: %s: %s", process, bts_err_name(err), error.text);
		return;
	}
	il_acked(il, op[0], txid[0]);
	il_acked(il, op[1], txid[1]);
}

/* One key of a read: which operation, and its number. */
static bool il_read_key(
	struct il *il, struct bts_txn *txn, struct bts_bucket *bucket, unsigned key, struct il_read *read)
{
	struct bts_slice got;
	bts_txid version;
	struct il_op *o;
	char text[8];
	enum bts_err err = bts_get_version(txn, bucket, il_key(key, text), &got, &version);

	if (err) {
		sched_fail(il->sched, "process %u: read of key %u at %" PRIu64 ": %s: %s", read->process, key,
			read->snapshot, bts_err_name(err), bts_txn_error(txn)->text);
		return false;
	}
	if (!il_value_check(il, got, key, &read->op[key]))
		return false;
	o = &il->ops[read->op[key]];
	if (read->op[key] == 0)
		return true;
	if (o->fate == IL_REFUSED || version > read->snapshot || (o->txid && o->txid != version))
		sched_fail(il->sched,
			"process %u: at %" PRIu64 " key %u shows operation %u as transaction %" PRIu64
			", which %s",
			read->process, read->snapshot, key, read->op[key], version,
			o->fate == IL_REFUSED ? "was refused" : "is wrong");
	o->txid = version;
	return !sched_failed(il->sched);
}

/* All keys of a read transaction; a finding unless they are one state. */
static void il_read_all(struct il *il, unsigned process, struct bts_txn *txn)
{
	struct il_read read = {.process = process, .snapshot = bts_txn_id(txn)};
	struct bts_bucket *bucket;
	enum bts_err err = bts_bucket(txn, il_bucket, 0, &bucket, NULL);

	if (err) {
		sched_fail(il->sched, "process %u: bucket: %s: %s", process, bts_err_name(err),
			bts_txn_error(txn)->text);
		return;
	}
	for (unsigned key = 0; key < IL_KEYS; key++) {
		if (key == IL_KEYS / 2)
			sched_point(il->sched, "reading");
		if (!il_read_key(il, txn, bucket, key, &read))
			return;
	}
	for (unsigned key = 0; key < IL_KEYS; key++)
		il->ops[read.op[key]].seen = true;
	ENSURE(il->read_count < IL_READS);
	il->reads[il->read_count++] = read;
}

void il_pin(struct il *il, unsigned process, struct bts_txn **txn)
{
	bts_txid newest = il_newest_known(il);
	struct bts_error error = {BTS_OK, 0, ""};
	enum bts_err err = bts_begin(il->db[process], BTS_READ, txn, &error);

	if (err)
		sched_fail(il->sched, "process %u: begin: %s: %s", process, bts_err_name(err), error.text);
	else if (bts_txn_id(*txn) < newest)
		sched_fail(il->sched,
			"process %u: begins at %" PRIu64 " though %" PRIu64
			" was acknowledged or read before",
			process, bts_txn_id(*txn), newest);
}

void il_unpin(struct il *il, unsigned process, struct bts_txn *txn)
{
	if (sched_failed(il->sched))
		return;
	il_read_all(il, process, txn);
	bts_abort(txn);
}

void il_read(struct il *il, unsigned process)
{
	struct bts_txn *txn;

	il_pin(il, process, &txn);
	il_unpin(il, process, txn);
}
