/* The naive model: changes, sums, states. */
#include "sim_model.h"

#include <stdio.h>
#include <string.h>

#include <ensure.h>

#include "position.h"

static uint64_t model_mix(uint64_t a, uint64_t b)
{
	unsigned __int128 product =
		(unsigned __int128)(a ^ UINT64_C(0x9e3779b97f4a7c15)) * (b ^ UINT64_C(0xd6e8feb86659fd93));

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t model_hash(uint64_t seed, const void *data, size_t size)
{
	const uint8_t *p = data;
	uint64_t h = model_mix(seed, size), g = ~h, word[2];

	for (; size >= 16; size -= 16, p += 16) {
		memcpy(word, p, 16);
		h = model_mix(h, word[0]);
		g = model_mix(g, word[1]);
	}
	word[0] = word[1] = 0;
	if (size)
		memcpy(word, p, size);
	return model_mix(model_mix(h, word[0]), model_mix(g, word[1])) | 1;
}

static struct bts_slice model_text(char *text, size_t size, const char *format, unsigned number)
{
	return (struct bts_slice){text, (size_t)snprintf(text, size, format, number)};
}

static struct bts_slice model_bucket_name(unsigned number, char text[16])
{
	return model_text(text, 16, "bucket%u", number);
}

static uint64_t model_bucket_hash(struct bts_slice name)
{
	return model_hash(1, name.data, name.size);
}

static uint64_t model_entry_hash(uint64_t bucket, struct bts_slice key, struct bts_slice value)
{
	return model_mix(model_hash(bucket, key.data, key.size), model_hash(2, value.data, value.size)) | 1;
}

static struct bts_slice model_key(unsigned number, char text[BTS_KEY_MAX])
{
	struct bts_slice key = model_text(text, 16, "%06u", number * 7919 % 1000000);

	if (number % 16 == 0) { /* long keys make deep trees */
		memset(text + key.size, 'k', 500);
		key.size += 500;
	}
	return key;
}

static enum bts_err model_failed(struct bts_txn *txn, enum bts_err err, struct bts_error *error)
{
	if (err)
		*error = *bts_txn_error(txn);
	return err;
}

static enum bts_err model_open(struct sim_model *model, struct bts_txn *txn, unsigned number,
	struct bts_bucket **bucket, uint64_t *hash, struct bts_error *error)
{
	char text[16];
	struct bts_slice name = model_bucket_name(number, text);

	*hash = model_bucket_hash(name);
	if (!model->exists[number])
		model->content += *hash;
	model->exists[number] = true;
	return bts_bucket(txn, name, BTS_CREATE, bucket, error);
}

static size_t model_size(struct rng *rng)
{
	if (rng_one_in(rng, 150))
		return 40000 + rng_below(rng, MODEL_VALUE_MAX - 40000);
	if (rng_one_in(rng, 30))
		return 1000 + rng_below(rng, 14000);
	return rng_below(rng, 180);
}

static enum bts_err model_put(
	struct sim_model *model, struct bts_txn *txn, struct rng *rng, struct bts_error *error)
{
	static uint8_t value[MODEL_VALUE_MAX];
	unsigned number = (unsigned)rng_below(rng, MODEL_BUCKETS), run = rng_one_in(rng, 4) ? 12 : 1;
	unsigned first = (unsigned)rng_below(rng, MODEL_KEYS - run);
	struct bts_bucket *bucket;
	char text[BTS_KEY_MAX];
	uint64_t hash;
	enum bts_err err = model_open(model, txn, number, &bucket, &hash, error);

	for (unsigned i = 0; !err && i < run; i++) {
		struct bts_slice key = model_key(first + i, text), bytes = {value, model_size(rng)};
		uint64_t *entry = &model->entries[number][first + i], mark = rng_next(rng);

		memset(value, (int)(mark & 0xff), bytes.size);
		if (bytes.size >= 8)
			memcpy(value + bytes.size / 2 - 4, &mark, 8);
		err = model_failed(txn, bts_put(txn, bucket, key, bytes, 0), error);
		model->content -= *entry;
		*entry = model_entry_hash(hash, key, bytes);
		model->content += *entry;
	}
	return err;
}

static enum bts_err model_del(
	struct sim_model *model, struct bts_txn *txn, struct rng *rng, struct bts_error *error)
{
	unsigned number = (unsigned)rng_below(rng, MODEL_BUCKETS), key = (unsigned)rng_below(rng, MODEL_KEYS);
	struct bts_bucket *bucket;
	char text[BTS_KEY_MAX];
	uint64_t hash;
	enum bts_err err = model_open(model, txn, number, &bucket, &hash, error);

	if (!err)
		err = bts_del(txn, bucket, model_key(key, text));
	if (err && err != BTS_NOT_FOUND)
		return model_failed(txn, err, error);
	model->content -= model->entries[number][key];
	model->entries[number][key] = 0;
	return BTS_OK;
}

static enum bts_err model_del_range(
	struct sim_model *model, struct bts_txn *txn, struct rng *rng, struct bts_error *error)
{
	unsigned number = (unsigned)rng_below(rng, MODEL_BUCKETS);
	unsigned low = (unsigned)rng_below(rng, 1000000), high = low + (unsigned)rng_below(rng, 400000);
	char from[16], to[16], text[BTS_KEY_MAX];
	struct bts_slice begin = model_text(from, sizeof(from), "%06u", low);
	struct bts_slice end = model_text(to, sizeof(to), "%06u", high < 999999 ? high : 999999);
	struct bts_bucket *bucket;
	uint64_t hash;
	enum bts_err err = model_open(model, txn, number, &bucket, &hash, error);

	if (!err)
		err = model_failed(txn, bts_del_range(txn, bucket, begin, end, NULL), error);
	for (unsigned n = 0; !err && n < MODEL_KEYS; n++) {
		struct bts_slice key = model_key(n, text);
		if (memcmp(key.data, begin.data, 6) < 0 || memcmp(key.data, end.data, 6) >= 0)
			continue;
		model->content -= model->entries[number][n];
		model->entries[number][n] = 0;
	}
	return err;
}

static enum bts_err model_drop(
	struct sim_model *model, struct bts_txn *txn, struct rng *rng, struct bts_error *error)
{
	unsigned number = (unsigned)rng_below(rng, MODEL_BUCKETS);
	char text[16];
	struct bts_slice name = model_bucket_name(number, text);

	if (!model->exists[number])
		return BTS_OK;
	model->exists[number] = false;
	model->content -= model_bucket_hash(name);
	for (unsigned n = 0; n < MODEL_KEYS; n++) {
		model->content -= model->entries[number][n];
		model->entries[number][n] = 0;
	}
	return bts_bucket_drop(txn, name, error);
}

static enum bts_err model_snapshot(
	struct sim_model *model, struct bts_txn *txn, struct rng *rng, struct bts_error *error)
{
	unsigned number = (unsigned)rng_below(rng, MODEL_NAMES);
	char text[16];
	struct bts_slice name = model_text(text, sizeof(text), "snap%u", number);

	if (model->named[number])
		return BTS_OK;
	if (model->names[number]) {
		model->names[number] = 0;
		return bts_snapshot_delete(txn, name, error);
	}
	model->named[number] = true;
	return bts_snapshot_create(txn, name, error);
}

static enum bts_err model_append(struct sim_model *model, struct bts_txn *txn, struct rng *rng,
	uint32_t *item, struct bts_error *error)
{
	unsigned list = (unsigned)rng_below(rng, MODEL_LISTS);
	uint32_t *count = &model->list_counts[list];
	struct bts_slice name = {"lists", 5}, key, value;
	struct bts_bucket *bucket;
	char text[16];
	enum bts_err err;

	if (*count == MODEL_LIST_MAX)
		return BTS_OK;
	err = bts_bucket(txn, name, BTS_CREATE, &bucket, error);
	if (err)
		return err;
	model->lists[list][(*count)++] = (*item)++;
	key = model_text(text, sizeof(text), "list%u", list);
	value = (struct bts_slice){model->lists[list], *count * sizeof(uint32_t)};
	model->content -= model->list_sums[list];
	model->list_sums[list] = model_entry_hash(model_bucket_hash(name), key, value);
	model->content += model->list_sums[list];
	return model_failed(txn, bts_put(txn, bucket, key, value, 0), error);
}

enum bts_err model_change(struct sim_model *model, struct bts_txn *txn, struct rng *rng, uint32_t *item,
	struct bts_error *error)
{
	unsigned count = 1 + (unsigned)rng_below(rng, rng_one_in(rng, 8) ? 60 : 5);
	bool any_list = false;
	enum bts_err err = BTS_OK;

	for (unsigned l = 0; l < MODEL_LISTS; l++)
		any_list = any_list || model->list_counts[l];
	if (!any_list)
		model->content += model_bucket_hash((struct bts_slice){"lists", 5});
	if (!any_list || rng_one_in(rng, 2))
		err = model_append(model, txn, rng, item, error);
	for (; !err && count > 0; count--) {
		if (rng_one_in(rng, 4))
			err = model_del(model, txn, rng, error);
		else if (rng_one_in(rng, 40))
			err = model_del_range(model, txn, rng, error);
		else
			err = model_put(model, txn, rng, error);
	}
	if (!err && rng_one_in(rng, 30))
		err = model_drop(model, txn, rng, error);
	if (!err && rng_one_in(rng, 10))
		err = model_snapshot(model, txn, rng, error);
	return err;
}

void model_seal(struct sim_model *model)
{
	for (unsigned i = 0; i < MODEL_NAMES; i++)
		if (model->named[i])
			model->names[i] = model->content;
	memset(model->named, 0, sizeof(model->named));
}

static enum bts_err model_scan_bucket(
	struct bts_txn *txn, struct bts_slice name, uint64_t *sum, struct bts_error *error)
{
	uint64_t hash = model_bucket_hash(name);
	struct bts_slice key, value;
	struct bts_bucket *bucket;
	struct bts_cursor *cursor;
	enum bts_err err = bts_bucket(txn, name, 0, &bucket, error);

	*sum += hash;
	if (!err)
		err = bts_cursor_open(txn, bucket, &cursor, error);
	if (err)
		return err;
	for (err = bts_cursor_first(cursor, &key, &value); !err; err = bts_cursor_next(cursor, &key, &value))
		*sum += model_entry_hash(hash, key, value);
	bts_cursor_close(cursor);
	return err == BTS_NOT_FOUND ? BTS_OK : model_failed(txn, err, error);
}

enum bts_err model_scan(struct bts_txn *txn, uint64_t *content, struct bts_error *error)
{
	char name[BTS_BUCKET_NAME_MAX];
	struct bts_slice after = {"", 0};
	struct bts_bucket_info info;
	enum bts_err err;

	*content = 0;
	while ((err = bts_bucket_next(txn, after, &info)) == BTS_OK) {
		memcpy(name, info.name.data, info.name.size);
		after = (struct bts_slice){name, info.name.size};
		err = model_scan_bucket(txn, after, content, error);
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : model_failed(txn, err, error);
}

enum bts_err model_scan_names(struct bts *db, uint64_t names[MODEL_NAMES], struct bts_error *error)
{
	for (unsigned i = 0; i < MODEL_NAMES; i++) {
		struct bts_txn *txn;
		char text[16];
		enum bts_err err = bts_begin_at(db, model_text(text, sizeof(text), "snap%u", i), &txn, error);

		names[i] = 0;
		if (err == BTS_NOT_FOUND)
			continue;
		if (err)
			return err;
		err = model_scan(txn, &names[i], error);
		bts_abort(txn);
		if (err)
			return err;
	}
	return BTS_OK;
}

enum bts_err model_scan_pages(struct bts *db, uint64_t *pages, struct bts_error *error)
{
	struct bts_page_id id;
	struct bts_slice bytes;
	struct bts_walk *walk;
	enum bts_err err = bts_walk_open(db, 0, &walk, error);

	if (err)
		return err;
	bytes = bts_walk_record(walk);
	*pages = model_hash(3, bytes.data, bytes.size);
	while ((err = bts_walk_next(walk, &id, &bytes, error)) == BTS_OK) {
		uint64_t ids[4] = {id.pgno, id.birth, id.crc, (uint64_t)id.count << 8 | id.kind};

		*pages += model_mix(model_hash(4, ids, sizeof(ids)), model_hash(5, bytes.data, bytes.size));
	}
	bts_walk_close(walk);
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

enum bts_err model_read_list(struct bts_txn *txn, unsigned list, uint32_t items[MODEL_LIST_MAX],
	uint32_t *count, struct bts_error *error)
{
	struct bts_bucket *bucket;
	struct bts_slice value;
	char text[16];
	enum bts_err err = bts_bucket(txn, (struct bts_slice){"lists", 5}, 0, &bucket, error);

	*count = 0;
	if (!err)
		err = model_failed(txn,
			bts_get(txn, bucket, model_text(text, sizeof(text), "list%u", list), &value), error);
	if (err == BTS_NOT_FOUND)
		return BTS_OK;
	if (err)
		return err;
	ENSURE(value.size <= MODEL_LIST_MAX * sizeof(*items));
	memcpy(items, value.data, value.size);
	*count = (uint32_t)(value.size / sizeof(*items));
	return BTS_OK;
}

struct sim_state *states_find(const struct sim_states *states, const struct bts_position *position)
{
	for (size_t i = states->count; i-- > 0;)
		if (position_equal(&states->list[i]->position, position))
			return states->list[i];
	return NULL;
}

struct sim_state *states_add(struct sim_states *states, struct sim_state *parent,
	const struct bts_position *position, const struct sim_model *model)
{
	struct sim_state *state = calloc(1, sizeof(*state));

	if (states->count == states->cap) {
		states->cap = states->cap ? states->cap * 2 : 64;
		states->list = realloc(states->list, states->cap * sizeof(struct sim_state *));
	}
	ENSURE(state && states->list);
	state->parent = parent;
	state->position = *position;
	state->model = *model;
	states->list[states->count++] = state;
	return state;
}

bool states_lead_to(const struct sim_state *from, const struct sim_state *to)
{
	while (to && to != from)
		to = to->parent;
	return to == from;
}

void states_free(struct sim_states *states)
{
	for (size_t i = 0; i < states->count; i++)
		free(states->list[i]);
	free(states->list);
	memset(states, 0, sizeof(*states));
}
