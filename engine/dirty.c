/* Private pages of a write context: see dirty.h. */
#include "dirty.h"

#include "base/ensure.h"
#include "error.h"
#include "spill.h"

#include <string.h>

enum dirty_kind { DIRTY_UNUSED, DIRTY_NODE, DIRTY_VALUE };

struct dirty_entry {
	uint8_t *data;
	uint64_t size; /* bytes of a value */
	uint64_t serial; /* of the making, never 0; an index is used again, this is not */
	uint32_t owner; /* level_count when it was made or saved; 0: none of the levels in progress */
	uint32_t saved; /* 1 + place in undo of the former image that its owner keeps; 0: its owner made it */
	enum dirty_kind kind;
	const uint8_t *sums; /* not NULL: a value whose bytes, data, are not ours */
	struct lease *lease; /* and are in their place already */
};

struct dirty_list { /* of entry indices */
	uint32_t *items;
	size_t count, cap;
};

/* What a level did to a page of the levels around it. */
struct dirty_undo {
	uint32_t index;
	uint32_t owner; /* of the page before */
	uint32_t saved; /* likewise; 0 */
	unsigned slot;  /* of a branch whose child became another */
	struct page_ptr child; /* the former one; page 0: image counts */
	uint8_t *image; /* the former one of a page that was changed anyhow; NULL: it is back already */
};

/* A transaction of a group, or a savepoint.  Lists are shared: a level has what lies behind its marks. */
struct dirty_level {
	size_t made, replaced, freed, undo;
};

struct dirty {
	struct bts_env *env;
	uint32_t page_size;
	struct spill spill; /* where pages and values are */
	uint64_t serial;    /* of the newest entry */
	struct dirty_entry *entries;
	size_t count, cap;
	struct dirty_list unused;   /* entries to take again */
	struct dirty_list made;     /* by the levels in progress */
	struct dirty_list replaced; /* of outer owners, no longer reached if the level is kept */
	struct dirty_freed *freed;
	size_t freed_count, freed_cap;
	struct dirty_undo *undo;    /* of the levels in progress, in order */
	size_t undo_count, undo_cap;
	size_t saved; /* images in undo */
	struct dirty_level *levels; /* outermost first */
	size_t level_count, level_cap;
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

/* Room for so many releases of outer owners' pages, and for those of the pages saved: these then never fail. */
static bool dirty_room_replaced(struct dirty *dirty, uint64_t releases)
{
	struct dirty_list *list = &dirty->replaced;

	while (list->cap < list->count + dirty->saved + releases)
		if (!dirty_grow(dirty->env, (void **)&list->items, &list->cap, list->cap, sizeof(*list->items)))
			return false;
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
	spill_init(&dirty->spill, env, page_size);
	*out = dirty;
	return BTS_OK;
}

void dirty_spill(struct dirty *dirty, const struct beside *near, uint64_t limit)
{
	spill_near(&dirty->spill, near, limit);
}

void dirty_free(struct dirty *dirty)
{
	struct bts_env *env;

	if (dirty == NULL)
		return;
	env = dirty->env;
	spill_ending(&dirty->spill);
	for (size_t i = 0; i < dirty->count; i++)
		if (dirty->entries[i].sums == NULL)
			spill_give(&dirty->spill, dirty->entries[i].data, dirty->entries[i].size);
	for (size_t i = 0; i < dirty->undo_count; i++)
		spill_give(&dirty->spill, dirty->undo[i].image, dirty->page_size);
	spill_fini(&dirty->spill);
	env->ops->memory(env, dirty->entries, 0);
	env->ops->memory(env, dirty->undo, 0);
	env->ops->memory(env, dirty->unused.items, 0);
	env->ops->memory(env, dirty->made.items, 0);
	env->ops->memory(env, dirty->replaced.items, 0);
	env->ops->memory(env, dirty->freed, 0);
	env->ops->memory(env, dirty->levels, 0);
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
	if (entry->sums == NULL) {
		dirty->bytes -= entry->size;
		spill_give(&dirty->spill, entry->data, entry->size);
	}
	entry->data = NULL;
	entry->kind = DIRTY_UNUSED;
	dirty->unused.items[dirty->unused.count++] = index;
}

/* Room for one more entry. */
static bool dirty_room(struct dirty *dirty)
{
	struct bts_env *env = dirty->env;

	if (!dirty_grow(env, (void **)&dirty->entries, &dirty->cap, dirty->count, sizeof(*dirty->entries)))
		return false;
	while (dirty->unused.cap < dirty->cap)
		if (!dirty_grow(env, (void **)&dirty->unused.items, &dirty->unused.cap, dirty->unused.cap,
			    sizeof(*dirty->unused.items)))
			return false;
	return dirty_grow(env, (void **)&dirty->made.items, &dirty->made.cap, dirty->made.count, sizeof(uint32_t));
}

static void dirty_enter(struct dirty *dirty, const struct dirty_entry *entry, struct page_ptr *ptr)
{
	uint32_t index = dirty->unused.count > 0 ? dirty->unused.items[--dirty->unused.count] : (uint32_t)dirty->count++;

	dirty->entries[index] = *entry;
	dirty->entries[index].serial = ++dirty->serial;
	dirty->entries[index].owner = (uint32_t)dirty->level_count;
	if (dirty->level_count > 0)
		dirty->made.items[dirty->made.count++] = index;
	*ptr = (struct page_ptr){ LAYOUT_DIRTY_BIT | index, 0, 0 };
}

static enum bts_err dirty_make(struct tree_ctx *ctx, enum dirty_kind kind, uint64_t size, struct page_ptr *ptr,
	uint8_t **data)
{
	struct dirty *dirty = ctx->dirty;
	struct dirty_entry entry = { .size = size, .kind = kind };
	enum bts_err err = dirty_room(dirty) ? BTS_OK : BTS_MEMORY;

	if (err == BTS_OK)
		err = spill_take(&dirty->spill, size, &entry.data, ctx->error);
	if (err == BTS_MEMORY) /* anything else was explained where it happened */
		error_set(ctx->error, BTS_MEMORY, 0, "no memory for a private page (%zu bytes held)", dirty->bytes);
	if (err)
		return err;
	dirty_enter(dirty, &entry, ptr);
	dirty->bytes += size;
	*data = entry.data;
	return BTS_OK;
}

enum bts_err dirty_node(struct tree_ctx *ctx, struct page_ptr *ptr, uint8_t **page)
{
	return dirty_make(ctx, DIRTY_NODE, ctx->dirty->page_size, ptr, page);
}

uint8_t *dirty_own(const struct dirty *dirty, const struct page_ptr *ptr)
{
	struct dirty_entry *entry = layout_is_dirty(ptr) ? dirty_find(dirty, ptr, DIRTY_NODE) : NULL;

	return entry != NULL && entry->owner == dirty->level_count ? entry->data : NULL;
}

/* Its former image is back, whoever changed it since. */
static void dirty_unsave(struct dirty *dirty, struct dirty_entry *entry)
{
	struct dirty_undo *undo = &dirty->undo[entry->saved - 1];

	spill_give(&dirty->spill, entry->data, entry->size);
	dirty->bytes -= entry->size;
	entry->data = undo->image;
	entry->owner = undo->owner;
	entry->saved = undo->saved;
	undo->image = NULL;
	dirty->saved--;
}

static enum bts_err dirty_undo_room(struct tree_ctx *ctx)
{
	struct dirty *dirty = ctx->dirty;

	if (dirty_grow(dirty->env, (void **)&dirty->undo, &dirty->undo_cap, dirty->undo_count, sizeof(*dirty->undo)) &&
		dirty_room_replaced(dirty, 1))
		return BTS_OK;
	return error_set(ctx->error, BTS_MEMORY, 0, "no memory to change a private page");
}

/* A page of an outer owner is about to be changed: the level has it from now on, and keeps what it was. */
static enum bts_err dirty_save(struct tree_ctx *ctx, uint32_t index)
{
	struct dirty *dirty = ctx->dirty;
	struct dirty_entry *entry = &dirty->entries[index];
	struct dirty_undo undo = { .index = index, .owner = entry->owner, .saved = entry->saved };
	enum bts_err err = dirty_undo_room(ctx);

	if (err)
		return err;
	err = spill_take(&dirty->spill, dirty->page_size, &undo.image, ctx->error);
	if (err == BTS_MEMORY)
		error_set(ctx->error, BTS_MEMORY, 0, "no memory for a private page (%zu bytes held)", dirty->bytes);
	if (err)
		return err;
	memcpy(undo.image, entry->data, dirty->page_size);
	dirty->bytes += dirty->page_size;
	dirty->saved++;
	dirty->undo[dirty->undo_count++] = undo;
	entry->saved = (uint32_t)dirty->undo_count;
	entry->owner = (uint32_t)dirty->level_count;
	return BTS_OK;
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
		err = entry->owner == dirty->level_count ? BTS_OK : dirty_save(ctx, (uint32_t)(entry - dirty->entries));
		if (err == BTS_OK)
			*page = entry->data;
		return err;
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

enum bts_err dirty_point(struct tree_ctx *ctx, const struct page_ptr *ptr, unsigned slot, uint8_t **page)
{
	struct dirty *dirty = ctx->dirty;
	struct dirty_entry *entry = dirty_find(dirty, ptr, DIRTY_NODE);
	enum bts_err err;

	ENSURE(entry != NULL);
	if (entry->owner != dirty->level_count) {
		err = dirty_undo_room(ctx);
		if (err)
			return err;
		dirty->undo[dirty->undo_count++] = (struct dirty_undo){ .index = (uint32_t)(entry - dirty->entries),
			.owner = entry->owner, .slot = slot, .child = node_child(entry->data, slot) };
	}
	*page = entry->data;
	return BTS_OK;
}

/* The innermost level no longer reaches a page: gone if it made it, else as it was; false: it is of an outer one, then. */
static bool dirty_drop(struct dirty *dirty, uint32_t index)
{
	struct dirty_entry *entry = &dirty->entries[index];

	if (entry->owner == dirty->level_count && entry->saved == 0) {
		dirty_give_back(dirty, index);
		return true;
	}
	if (entry->owner == dirty->level_count)
		dirty_unsave(dirty, entry);
	return false;
}

enum bts_err dirty_release(struct tree_ctx *ctx, const struct page_ptr *ptr, uint64_t pages)
{
	struct dirty *dirty = ctx->dirty;

	if (layout_is_dirty(ptr)) {
		uint32_t index = (uint32_t)(ptr->pgno & ~LAYOUT_DIRTY_BIT);

		ENSURE(index < dirty->count && dirty->entries[index].kind != DIRTY_UNUSED);
		if (dirty_drop(dirty, index))
			return BTS_OK;
		if (!dirty_room_replaced(dirty, 1))
			return error_set(ctx->error, BTS_MEMORY, 0, "no memory to release a private page");
		dirty->replaced.items[dirty->replaced.count++] = index;
		return BTS_OK;
	}
	if (!dirty_grow(dirty->env, (void **)&dirty->freed, &dirty->freed_cap, dirty->freed_count, sizeof(*dirty->freed)))
		return error_set(ctx->error, BTS_MEMORY, 0, "no memory to release page %llu",
			(unsigned long long)ptr->pgno);
	dirty->freed[dirty->freed_count++] = (struct dirty_freed){ *ptr, pages, ctx->aside };
	return BTS_OK;
}

enum bts_err dirty_reserve(struct tree_ctx *ctx, uint64_t releases)
{
	struct dirty *dirty = ctx->dirty;

	while (dirty->freed_cap < dirty->freed_count + releases)
		if (!dirty_grow(dirty->env, (void **)&dirty->freed, &dirty->freed_cap, dirty->freed_cap,
			    sizeof(*dirty->freed)))
			goto fail;
	if (!dirty_room_replaced(dirty, releases))
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
	if (value.size > 0)
		memcpy(data, value.data, value.size);
	return BTS_OK;
}

enum bts_err dirty_extent_open(struct tree_ctx *ctx, uint64_t size, struct page_ptr *ptr, uint8_t **data)
{
	return dirty_make(ctx, DIRTY_VALUE, size, ptr, data);
}

enum bts_err dirty_extent_resize(struct tree_ctx *ctx, const struct page_ptr *ptr, uint64_t size, uint8_t **data)
{
	struct dirty *dirty = ctx->dirty;
	struct dirty_entry *entry = dirty_find(dirty, ptr, DIRTY_VALUE);
	enum bts_err err;

	ENSURE(entry != NULL);
	err = spill_resize(&dirty->spill, &entry->data, entry->size, size, ctx->error);
	if (err == BTS_MEMORY)
		return error_set(ctx->error, BTS_MEMORY, 0, "no memory for a value of %llu bytes", (unsigned long long)size);
	if (err)
		return err;
	dirty->bytes += size - entry->size;
	entry->size = size;
	*data = entry->data;
	return BTS_OK;
}

uint64_t dirty_serial(const struct dirty *dirty, const struct page_ptr *ptr)
{
	struct dirty_entry *entry = dirty_find(dirty, ptr, DIRTY_VALUE);

	return entry == NULL ? 0 : entry->serial;
}

enum bts_err dirty_borrow(struct tree_ctx *ctx, struct bts_slice value, const uint8_t *sums, struct page_ptr *ptr)
{
	return dirty_leased(ctx, value, sums, NULL, ptr);
}

enum bts_err dirty_leased(struct tree_ctx *ctx, struct bts_slice value, const uint8_t *sums, struct lease *lease,
	struct page_ptr *ptr)
{
	struct dirty_entry entry = { .size = value.size, .kind = DIRTY_VALUE, .sums = sums, .lease = lease };

	entry.data = (uint8_t *)(uintptr_t)value.data; /* only read */
	if (!dirty_room(ctx->dirty))
		return error_set(ctx->error, BTS_MEMORY, 0, "no memory for a large value");
	dirty_enter(ctx->dirty, &entry, ptr);
	return BTS_OK;
}

const uint8_t *dirty_sums(const struct dirty *dirty, const struct page_ptr *ptr)
{
	struct dirty_entry *entry = dirty_find(dirty, ptr, DIRTY_VALUE);

	return entry == NULL ? NULL : entry->sums;
}

struct lease *dirty_lease(const struct dirty *dirty, const struct page_ptr *ptr)
{
	struct dirty_entry *entry = dirty_find(dirty, ptr, DIRTY_VALUE);

	return entry == NULL ? NULL : entry->lease;
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
	if (!dirty_grow(dirty->env, (void **)&dirty->levels, &dirty->level_cap, dirty->level_count, sizeof(*dirty->levels)))
		return BTS_MEMORY;
	dirty->levels[dirty->level_count++] = (struct dirty_level){
		.made = dirty->made.count,
		.replaced = dirty->replaced.count,
		.freed = dirty->freed_count,
		.undo = dirty->undo_count,
	};
	return BTS_OK;
}

/* What an ending level changed is now changed by the one around it, who need not go back to what is its own. */
static void dirty_keep_undo(struct dirty *dirty, size_t from)
{
	size_t left = from;

	for (size_t i = from; i < dirty->undo_count; i++) {
		struct dirty_undo *undo = &dirty->undo[i];
		struct dirty_entry *entry = &dirty->entries[undo->index];
		bool outer = undo->owner == dirty->level_count;

		if (undo->image != NULL) {
			entry->owner = (uint32_t)dirty->level_count;
			entry->saved = outer ? undo->saved : (uint32_t)left + 1;
		}
		if (undo->image != NULL && outer) {
			spill_give(&dirty->spill, undo->image, entry->size);
			dirty->bytes -= entry->size;
			dirty->saved--;
		} else if (!outer && (undo->image != NULL || undo->child.pgno != 0)) {
			dirty->undo[left++] = *undo;
		}
	}
	dirty->undo_count = left;
}

void dirty_keep(struct dirty *dirty)
{
	size_t owner = dirty->level_count, left;
	struct dirty_level level;

	ENSURE(owner > 0);
	level = dirty->levels[--dirty->level_count];
	left = level.replaced;
	for (size_t i = level.made; i < dirty->made.count; i++) {
		struct dirty_entry *entry = &dirty->entries[dirty->made.items[i]];

		if (entry->kind != DIRTY_UNUSED && entry->owner == owner)
			entry->owner = (uint32_t)dirty->level_count;
	}
	dirty_keep_undo(dirty, level.undo);
	for (size_t i = level.replaced; i < dirty->replaced.count; i++)
		if (!dirty_drop(dirty, dirty->replaced.items[i]))
			dirty->replaced.items[left++] = dirty->replaced.items[i];
	dirty->replaced.count = left;
	if (dirty->level_count == 0)
		dirty->made.count = 0;
}

void dirty_rollback(struct dirty *dirty)
{
	size_t owner = dirty->level_count;
	struct dirty_level level;

	ENSURE(owner > 0);
	level = dirty->levels[--dirty->level_count];
	while (dirty->undo_count > level.undo) {
		struct dirty_undo *undo = &dirty->undo[dirty->undo_count - 1];
		struct dirty_entry *entry = &dirty->entries[undo->index];

		if (undo->image != NULL)
			dirty_unsave(dirty, entry);
		else if (undo->child.pgno != 0)
			node_set_child(entry->data, undo->slot, &undo->child);
		dirty->undo_count--;
	}
	for (size_t i = level.made; i < dirty->made.count; i++) {
		uint32_t index = dirty->made.items[i];

		if (dirty->entries[index].kind != DIRTY_UNUSED && dirty->entries[index].owner == owner)
			dirty_give_back(dirty, index);
	}
	dirty->made.count = level.made;
	dirty->replaced.count = level.replaced;
	dirty->freed_count = level.freed;
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
