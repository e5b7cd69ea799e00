/* Private pages of a write context: see dirty.h. */
#include "dirty.h"

#include "base/ensure.h"
#include "error.h"

#include <string.h>

enum dirty_kind { DIRTY_UNUSED, DIRTY_NODE, DIRTY_VALUE };

struct dirty_entry {
	uint8_t *data;
	uint64_t size; /* bytes of a value */
	uint32_t owner;
	enum dirty_kind kind;
};

struct dirty_list { /* of entry indices */
	uint32_t *items;
	size_t count, cap;
};

struct dirty {
	struct bts_env *env;
	uint32_t page_size;
	struct dirty_entry *entries;
	size_t count, cap;
	struct dirty_list unused;   /* entries to take again */
	struct dirty_list made;     /* by the transaction in progress */
	struct dirty_list replaced; /* of earlier owners, no longer reached if it is kept */
	struct dirty_freed *freed;
	size_t freed_count, freed_cap, freed_mark;
	uint32_t owner;
	bool nested;
	size_t bytes;
};

/* Make room for one more element in a vector that doubles. */
static bool dirty_grow(struct bts_env *env, void **items, size_t *cap, size_t count, size_t size)
{
	size_t want = *cap == 0 ? 16 : *cap * 2;
	void *fresh;

	if (count < *cap)
		return true;
	fresh = env->ops->memory(env, *items, want * size);
	if (fresh == NULL)
		return false;
	*items = fresh;
	*cap = want;
	return true;
}

static bool dirty_push(struct dirty *dirty, struct dirty_list *list, uint32_t index)
{
	if (!dirty_grow(dirty->env, (void **)&list->items, &list->cap, list->count, sizeof(*list->items)))
		return false;
	list->items[list->count++] = index;
	return true;
}

enum bts_err dirty_new(struct bts_env *env, uint32_t page_size, struct dirty **out)
{
	struct dirty *dirty = env->ops->memory(env, NULL, sizeof(*dirty));

	if (dirty == NULL)
		return BTS_MEMORY;
	memset(dirty, 0, sizeof(*dirty));
	dirty->env = env;
	dirty->page_size = page_size;
	*out = dirty;
	return BTS_OK;
}

void dirty_free(struct dirty *dirty)
{
	struct bts_env *env;

	if (dirty == NULL)
		return;
	env = dirty->env;
	for (size_t i = 0; i < dirty->count; i++)
		env->ops->memory(env, dirty->entries[i].data, 0);
	env->ops->memory(env, dirty->entries, 0);
	env->ops->memory(env, dirty->unused.items, 0);
	env->ops->memory(env, dirty->made.items, 0);
	env->ops->memory(env, dirty->replaced.items, 0);
	env->ops->memory(env, dirty->freed, 0);
	env->ops->memory(env, dirty, 0);
}

static struct dirty_entry *dirty_find(const struct dirty *dirty, const struct page_ptr *ptr, enum dirty_kind kind)
{
	uint64_t index = ptr->pgno & ~LAYOUT_DIRTY_BIT;

	if (index >= dirty->count || dirty->entries[index].kind != kind)
		return NULL;
	return &dirty->entries[index];
}

/* An entry's index goes back to the unused list, whose room was made when the entry was made: this cannot fail. */
static void dirty_give_back(struct dirty *dirty, uint32_t index)
{
	struct dirty_entry *entry = &dirty->entries[index];

	if (entry->kind == DIRTY_UNUSED)
		return;
	dirty->bytes -= entry->kind == DIRTY_NODE ? dirty->page_size : entry->size;
	dirty->env->ops->memory(dirty->env, entry->data, 0);
	entry->data = NULL;
	entry->kind = DIRTY_UNUSED;
	dirty->unused.items[dirty->unused.count++] = index;
}

static enum bts_err dirty_make(struct tree_ctx *ctx, enum dirty_kind kind, uint64_t size, struct page_ptr *ptr,
	uint8_t **data)
{
	struct dirty *dirty = ctx->dirty;
	struct bts_env *env = dirty->env;
	uint32_t index;
	uint8_t *memory;

	if (!dirty_grow(env, (void **)&dirty->entries, &dirty->cap, dirty->count, sizeof(*dirty->entries)))
		goto fail;
	while (dirty->unused.cap < dirty->cap)
		if (!dirty_grow(env, (void **)&dirty->unused.items, &dirty->unused.cap, dirty->unused.cap,
			    sizeof(*dirty->unused.items)))
			goto fail;
	if (!dirty_grow(env, (void **)&dirty->made.items, &dirty->made.cap, dirty->made.count, sizeof(uint32_t)))
		goto fail;
	memory = env->ops->memory(env, NULL, size == 0 ? 1 : size);
	if (memory == NULL)
		goto fail;
	index = dirty->unused.count > 0 ? dirty->unused.items[--dirty->unused.count] : (uint32_t)dirty->count++;
	dirty->entries[index] = (struct dirty_entry){ memory, size, dirty->owner, kind };
	if (dirty->nested)
		dirty->made.items[dirty->made.count++] = index;
	dirty->bytes += size;
	*ptr = (struct page_ptr){ LAYOUT_DIRTY_BIT | index, 0, 0 };
	*data = memory;
	return BTS_OK;
fail:
	return error_set(ctx->error, BTS_MEMORY, 0, "no memory for a private page (%zu bytes held)", dirty->bytes);
}

enum bts_err dirty_node(struct tree_ctx *ctx, struct page_ptr *ptr, uint8_t **page)
{
	return dirty_make(ctx, DIRTY_NODE, ctx->dirty->page_size, ptr, page);
}

enum bts_err dirty_cow(struct tree_ctx *ctx, struct page_ptr *ptr, const uint8_t *image, uint8_t **page)
{
	struct dirty *dirty = ctx->dirty;
	struct page_ptr fresh;
	uint8_t *copy;
	enum bts_err err;

	if (layout_is_dirty(ptr)) {
		struct dirty_entry *entry = dirty_find(dirty, ptr, DIRTY_NODE);

		ENSURE(entry != NULL);
		if (entry->owner == dirty->owner) {
			*page = entry->data;
			return BTS_OK;
		}
	}
	err = dirty_node(ctx, &fresh, &copy);
	if (err)
		return err;
	memcpy(copy, image, dirty->page_size);
	err = dirty_release(ctx, ptr, 1);
	if (err) {
		dirty_give_back(dirty, (uint32_t)(fresh.pgno & ~LAYOUT_DIRTY_BIT));
		return err;
	}
	*ptr = fresh;
	*page = copy;
	return BTS_OK;
}

enum bts_err dirty_release(struct tree_ctx *ctx, const struct page_ptr *ptr, uint64_t pages)
{
	struct dirty *dirty = ctx->dirty;

	if (layout_is_dirty(ptr)) {
		uint32_t index = (uint32_t)(ptr->pgno & ~LAYOUT_DIRTY_BIT);

		ENSURE(index < dirty->count && dirty->entries[index].kind != DIRTY_UNUSED);
		if (dirty->entries[index].owner == dirty->owner) {
			dirty_give_back(dirty, index);
			return BTS_OK;
		}
		if (!dirty_push(dirty, &dirty->replaced, index))
			return error_set(ctx->error, BTS_MEMORY, 0, "no memory to release a private page");
		return BTS_OK;
	}
	if (!dirty_grow(dirty->env, (void **)&dirty->freed, &dirty->freed_cap, dirty->freed_count, sizeof(*dirty->freed)))
		return error_set(ctx->error, BTS_MEMORY, 0, "no memory to release page %llu",
			(unsigned long long)ptr->pgno);
	dirty->freed[dirty->freed_count++] = (struct dirty_freed){ *ptr, pages };
	return BTS_OK;
}

enum bts_err dirty_reserve(struct tree_ctx *ctx, uint64_t releases)
{
	struct dirty *dirty = ctx->dirty;
	struct dirty_list *replaced = &dirty->replaced;

	while (dirty->freed_cap < dirty->freed_count + releases)
		if (!dirty_grow(dirty->env, (void **)&dirty->freed, &dirty->freed_cap, dirty->freed_cap,
			    sizeof(*dirty->freed)))
			goto fail;
	while (replaced->cap < replaced->count + releases)
		if (!dirty_grow(dirty->env, (void **)&replaced->items, &replaced->cap, replaced->cap,
			    sizeof(*replaced->items)))
			goto fail;
	return BTS_OK;
fail:
	return error_set(ctx->error, BTS_MEMORY, 0, "no memory to release %llu pages", (unsigned long long)releases);
}

enum bts_err dirty_extent(struct tree_ctx *ctx, struct bts_slice value, struct page_ptr *ptr)
{
	uint8_t *data;
	enum bts_err err = dirty_make(ctx, DIRTY_VALUE, value.size, ptr, &data);

	if (err)
		return err;
	memcpy(data, value.data, value.size);
	return BTS_OK;
}

const uint8_t *dirty_image(const struct dirty *dirty, const struct page_ptr *ptr)
{
	struct dirty_entry *entry = dirty_find(dirty, ptr, DIRTY_NODE);

	return entry == NULL ? NULL : entry->data;
}

bool dirty_value(const struct dirty *dirty, const struct page_ptr *ptr, struct bts_slice *value)
{
	struct dirty_entry *entry = dirty_find(dirty, ptr, DIRTY_VALUE);

	if (entry == NULL)
		return false;
	*value = (struct bts_slice){ entry->data, entry->size };
	return true;
}

enum bts_err dirty_begin(struct dirty *dirty)
{
	ENSURE(!dirty->nested);
	dirty->nested = true;
	dirty->owner++;
	dirty->made.count = 0;
	dirty->replaced.count = 0;
	dirty->freed_mark = dirty->freed_count;
	return BTS_OK;
}

void dirty_keep(struct dirty *dirty)
{
	ENSURE(dirty->nested);
	for (size_t i = 0; i < dirty->replaced.count; i++)
		dirty_give_back(dirty, dirty->replaced.items[i]);
	dirty->nested = false;
	dirty->owner++; /* what is kept is no longer anybody's to change in place */
}

void dirty_rollback(struct dirty *dirty)
{
	ENSURE(dirty->nested);
	for (size_t i = 0; i < dirty->made.count; i++) {
		uint32_t index = dirty->made.items[i];

		if (dirty->entries[index].kind != DIRTY_UNUSED && dirty->entries[index].owner == dirty->owner)
			dirty_give_back(dirty, index);
	}
	dirty->freed_count = dirty->freed_mark;
	dirty->nested = false;
	dirty->owner++;
}

const struct dirty_freed *dirty_freed(const struct dirty *dirty, size_t *count)
{
	*count = dirty->freed_count;
	return dirty->freed;
}

size_t dirty_bytes(const struct dirty *dirty)
{
	return dirty->bytes;
}
