/* What a diff has to say, found the long way. */
#include "diff_bed.h"

#include <inttypes.h>

static struct diff_change *list_add(struct diff_list *list)
{
	if (list->count == list->cap) {
		list->cap = list->cap ? list->cap * 2 : 64;
		list->items = realloc(list->items, list->cap * sizeof(*list->items));
		assert_non_null(list->items);
	}
	memset(&list->items[list->count], 0, sizeof(*list->items));
	return &list->items[list->count++];
}

void diff_list_fini(struct diff_list *list)
{
	free(list->items);
	memset(list, 0, sizeof(*list));
}

static void text_set(char text[DIFF_KEY_MAX], struct bts_slice bytes)
{
	assert_true(bytes.size < DIFF_KEY_MAX);
	if (bytes.size)
		memcpy(text, bytes.data, bytes.size);
	text[bytes.size] = '\0';
}

static uint64_t sum_of(struct bts_slice bytes)
{
	uint64_t sum = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < bytes.size; i++)
		sum = (sum ^ ((const uint8_t *)bytes.data)[i]) * UINT64_C(0x100000001b3);
	return sum;
}

/* The whole state as puts, with a change of kind CREATED before each bucket's; its note's sum is its value_sum. */
static void state_read(struct bts_txn *txn, const struct bts_diff_options *options, struct diff_list *list)
{
	struct bts_bucket_info info = {.name = {"", 0}};

	while (txn && bts_bucket_next(txn, info.name, &info) == BTS_OK) {
		struct diff_change *change;
		struct bts_bucket *bucket;
		struct bts_cursor *cursor;
		struct bts_slice key, value;
		enum bts_err err;

		if (options->bucket.size &&
			(options->bucket.size != info.name.size ||
				memcmp(options->bucket.data, info.name.data, info.name.size) != 0))
			continue;
		change = list_add(list);
		*change = (struct diff_change){.kind = BTS_CHANGE_BUCKET_CREATED,
			.value_sum = sum_of(info.meta),
			.version = info.version};
		text_set(change->bucket, info.name);
		assert_int_equal(bts_bucket(txn, info.name, 0, &bucket, NULL), BTS_OK);
		assert_int_equal(bts_cursor_open(txn, bucket, &cursor, NULL), BTS_OK);
		for (err = bts_cursor_seek(cursor, options->from, &key, &value); !err;
			err = bts_cursor_next(cursor, &key, &value)) {
			char to[DIFF_KEY_MAX];

			change = list_add(list);
			change->kind = BTS_CHANGE_PUT;
			text_set(change->bucket, info.name);
			text_set(change->key, key);
			text_set(to, options->to);
			if (options->to.size && strcmp(change->key, to) >= 0) {
				list->count--;
				break;
			}
			change->value_size = value.size;
			change->value_sum = sum_of(value);
			change->version = bts_cursor_version(cursor);
		}
		bts_cursor_close(cursor);
	}
}

static int place_compare(const struct diff_change *a, const struct diff_change *b)
{
	int order = strcmp(a->bucket, b->bucket);

	return order ? order : strcmp(a->key, b->key);
}

/* The older one's alone.  dropped: the bucket it is in, or was. */
static void gone(const struct diff_change *change, char dropped[DIFF_KEY_MAX], struct diff_list *list)
{
	struct diff_change *out;

	if (change->kind == BTS_CHANGE_PUT && strcmp(dropped, change->bucket) == 0)
		return;
	out = list_add(list);
	*out = *change;
	out->value_size = out->value_sum = 0;
	out->kind = BTS_CHANGE_DELETE;
	if (change->kind == BTS_CHANGE_PUT)
		return;
	out->kind = BTS_CHANGE_BUCKET_DROPPED;
	strcpy(dropped, change->bucket);
}

static void both(const struct diff_change *a, const struct diff_change *b, struct diff_list *list)
{
	bool bucket = b->kind == BTS_CHANGE_BUCKET_CREATED;

	if (bucket ? a->value_sum == b->value_sum : a->version == b->version)
		return;
	*list_add(list) = *b;
	if (bucket)
		list->items[list->count - 1].kind = BTS_CHANGE_BUCKET_META;
}

void diff_expected(struct bts_txn *older, struct bts_txn *newer, const struct bts_diff_options *options,
	struct diff_list *list)
{
	static const struct bts_diff_options all;
	struct diff_list a = {0}, b = {0};
	char dropped[DIFF_KEY_MAX] = "";
	size_t i = 0, j = 0;

	state_read(older, options ? options : &all, &a);
	state_read(newer, options ? options : &all, &b);
	while (i < a.count || j < b.count) {
		int order = i == a.count ? 1 : j == b.count ? -1 : place_compare(&a.items[i], &b.items[j]);

		if (order < 0)
			gone(&a.items[i++], dropped, list);
		else if (order > 0)
			*list_add(list) = b.items[j++];
		else
			both(&a.items[i++], &b.items[j++], list);
	}
	diff_list_fini(&a);
	diff_list_fini(&b);
}

enum bts_err diff_collect(struct bts_diff *diff, size_t most, struct diff_list *list)
{
	struct bts_change change = {.size = sizeof(change)};
	enum bts_err err = BTS_OK;

	while (most-- > 0 && (err = bts_diff_next(diff, &change, NULL)) == BTS_OK) {
		struct diff_change *out = list_add(list);
		struct bts_slice value;

		out->kind = change.kind;
		out->version = change.version;
		text_set(out->bucket, change.bucket);
		text_set(out->key, change.key);
		if (change.kind == BTS_CHANGE_BUCKET_CREATED || change.kind == BTS_CHANGE_BUCKET_META)
			out->value_sum = sum_of(change.meta);
		if (change.kind != BTS_CHANGE_PUT)
			continue;
		err = bts_diff_value(diff, &value, NULL);
		if (err)
			return err;
		assert_int_equal(change.value_size, value.size);
		assert_true(change.value.data == NULL || change.value.data == value.data);
		out->value_size = value.size;
		out->value_sum = sum_of(value);
	}
	return err;
}

void diff_equal(const struct diff_list *expected, size_t from, const struct diff_list *found)
{
	for (size_t i = 0; i < found->count && from + i < expected->count; i++) {
		const struct diff_change *a = &expected->items[from + i], *b = &found->items[i];

		if (a->kind != b->kind || place_compare(a, b) || a->version != b->version ||
			a->value_size != b->value_size || a->value_sum != b->value_sum)
			fail_msg("change %zu: expected kind %d of %s/%s at %" PRIu64
				 ", found kind %d of %s/%s at %" PRIu64,
				i, a->kind, a->bucket, a->key, a->version, b->kind, b->bucket, b->key,
				b->version);
	}
	assert_int_equal(found->count, expected->count - from);
}
