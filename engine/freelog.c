/* The persisted free set as a log of deltas: see freelog.h. */
#include "freelog.h"
#include "base/ensure.h"
#include "error.h"

#include <inttypes.h>

#define FREELOG_PREVIOUS_AT 48u
#define FREELOG_SEQUENCE_AT 64u
#define FREELOG_GENERATION_AT 72u
#define FREELOG_COUNT_AT 76u
#define FREELOG_ENTRIES_AT 80u
#define FREELOG_FREED_BIT (UINT64_C(1) << 15)
#define FREELOG_SLACK 8192u /* chain entries that are never too many */

static uint64_t freelog_entry(struct space_run run, bool freed)
{
	return run.pgno << 16 | (freed ? FREELOG_FREED_BIT : 0) | run.count;
}

static struct space_run freelog_entry_run(uint64_t entry, bool *freed)
{
	*freed = (entry & FREELOG_FREED_BIT) != 0;
	return (struct space_run){entry >> 16, entry & FREELOG_COUNT_MAX};
}

static size_t freelog_page_entries(uint32_t page_size)
{
	return (page_size - FREELOG_ENTRIES_AT) / 8;
}

void freelog_delta_init(struct freelog_delta *delta, struct bts_env *env)
{
	*delta = (struct freelog_delta){.env = env};
}

void freelog_delta_fini(struct freelog_delta *delta)
{
	if (delta->env != NULL)
		delta->env->ops->memory(delta->env, delta->entries, 0);
	*delta = (struct freelog_delta){.env = delta->env};
}

static enum bts_err freelog_delta_push(struct freelog_delta *delta, uint64_t entry)
{
	if (delta->count == delta->cap) {
		size_t cap = delta->cap == 0 ? 64 : delta->cap * 2;
		uint64_t *entries =
			delta->env->ops->memory(delta->env, delta->entries, cap * sizeof(*entries));

		if (entries == NULL)
			return BTS_MEMORY;
		delta->entries = entries;
		delta->cap = cap;
	}
	delta->entries[delta->count++] = entry;
	return BTS_OK;
}

enum bts_err freelog_delta_add(struct freelog_delta *delta, struct space_run run, bool freed)
{
	enum bts_err err = BTS_OK;

	if (delta->count > 0 && run.count > 0) {
		bool same;
		struct space_run last = freelog_entry_run(delta->entries[delta->count - 1], &same);

		if (same == freed && last.pgno + last.count == run.pgno &&
			run.count <= FREELOG_COUNT_MAX - last.count) {
			delta->entries[delta->count - 1] += run.count;
			return BTS_OK;
		}
	}
	while (run.count > 0 && !err) {
		struct space_run part = {
			run.pgno, run.count < FREELOG_COUNT_MAX ? run.count : FREELOG_COUNT_MAX};

		err = freelog_delta_push(delta, freelog_entry(part, freed));
		run.pgno += part.count;
		run.count -= part.count;
	}
	return err;
}

uint64_t freelog_set_entries(const struct space *space)
{
	return space->free_runs + space_free_pages(space) / FREELOG_COUNT_MAX;
}

size_t freelog_plan(
	const struct freelog *log, uint64_t entries, uint64_t runs, uint32_t page_size, bool *condense)
{
	size_t each = freelog_page_entries(page_size);
	uint64_t total = log->inline_count + entries;

	if (*condense || log->sequence > 2 * runs + FREELOG_SLACK) {
		*condense = true;
		total = runs;
	} else if (total <= FREELOG_INLINE_MAX) {
		return 0;
	}
	/* All entries go to the pages: what stays inline is then small, and room for more than was planned.
	 */
	return (total + each - 1) / each;
}

/* Where entries go, in order: the pages, each full before the next, then inline. */
struct freelog_sink {
	struct freelog *log;
	uint8_t *images;
	size_t pages, page; /* given, full */
	size_t each;	    /* entries a page holds */
	uint32_t page_size, filled;
};

static void freelog_sink_put(struct freelog_sink *sink, uint64_t entry)
{
	struct freelog *log = sink->log;

	if (sink->page == sink->pages) {
		ENSURE(log->inline_count < FREELOG_INLINE_MAX);
		log->inline_entries[log->inline_count++] = entry;
		return;
	}
	bytes_put_u64(
		sink->images + sink->page * sink->page_size + FREELOG_ENTRIES_AT + 8 * sink->filled, entry);
	bytes_put_u32(sink->images + sink->page * sink->page_size + FREELOG_COUNT_AT, ++sink->filled);
	if (sink->filled == sink->each) {
		sink->page++;
		sink->filled = 0;
	}
}

/* The entries are there: give the pages their headers and hang them on the chain, oldest first. */
static void freelog_sink_seal(struct freelog_sink *sink, const bts_pgno *numbers, bts_txid birth)
{
	struct freelog *log = sink->log;

	for (size_t i = 0; i < sink->pages; i++) {
		uint8_t *page = sink->images + i * sink->page_size;

		page[4] = LAYOUT_FREE_LOG;
		layout_set_pgno(page, numbers[i]);
		layout_set_birth(page, birth);
		layout_set_tree(page, LAYOUT_TREE_FREE_LOG);
		layout_set_pages(page, 1);
		layout_set_heap(page, sink->page_size);
		layout_put_ptr(page + FREELOG_PREVIOUS_AT, &log->head);
		bytes_put_u64(page + FREELOG_SEQUENCE_AT, log->sequence);
		bytes_put_u32(page + FREELOG_GENERATION_AT, log->generation);
		log->sequence += bytes_get_u32(page + FREELOG_COUNT_AT);
		layout_set_crc(page, pager_crc(page, sink->page_size));
		log->head = (struct page_ptr){numbers[i], birth, layout_crc(page)};
		log->pages++;
	}
}

void freelog_append(struct freelog *log, const struct freelog_delta *delta, uint8_t *images,
	const bts_pgno *numbers, size_t pages, bts_txid birth, uint32_t page_size)
{
	struct freelog_sink sink = {log, images, pages, 0, freelog_page_entries(page_size), page_size, 0};
	uint64_t before[FREELOG_INLINE_MAX];
	uint32_t count = log->inline_count;

	ENSURE(count <= FREELOG_INLINE_MAX);
	if (pages > 0) {
		memcpy(before, log->inline_entries, sizeof(before));
		memset(log->inline_entries, 0, sizeof(log->inline_entries));
		log->inline_count = 0;
		for (uint32_t i = 0; i < count; i++)
			freelog_sink_put(&sink, before[i]);
	}
	for (size_t i = 0; i < delta->count; i++)
		freelog_sink_put(&sink, delta->entries[i]);
	freelog_sink_seal(&sink, numbers, birth);
}

void freelog_condense(struct freelog *log, bool (*next)(void *arg, struct space_run *run), void *arg,
	uint8_t *images, const bts_pgno *numbers, size_t pages, bts_txid birth, uint32_t page_size)
{
	struct freelog_sink sink = {log, images, pages, 0, freelog_page_entries(page_size), page_size, 0};
	struct space_run run;

	*log = (struct freelog){.generation = log->generation + 1};
	while (next(arg, &run)) {
		while (run.count > 0) {
			struct space_run part = {
				run.pgno, run.count < FREELOG_COUNT_MAX ? run.count : FREELOG_COUNT_MAX};

			freelog_sink_put(&sink, freelog_entry(part, true));
			run.pgno += part.count;
			run.count -= part.count;
		}
	}
	freelog_sink_seal(&sink, numbers, birth);
}

static bool freelog_is_none(const struct page_ptr *ptr)
{
	return ptr->pgno == 0 && ptr->birth == 0 && ptr->crc == 0;
}

static enum bts_err freelog_bad_page(struct tree_ctx *ctx, const struct page_ptr *ptr, const char *what)
{
	return error_set(ctx->error, BTS_CORRUPT, 0, "page %" PRIu64 ": free log: %s", ptr->pgno, what);
}

static const char *freelog_page_check(const uint8_t *page, const struct freelog *log, uint32_t page_size)
{
	uint32_t count = bytes_get_u32(page + FREELOG_COUNT_AT);

	if (count > freelog_page_entries(page_size))
		return "more entries than a page holds";
	if (bytes_get_u32(page + FREELOG_GENERATION_AT) != log->generation)
		return "a page of another generation";
	if (layout_level(page) != 0 || layout_count(page) != 0 || layout_prefix(page) != 0 ||
		layout_hint(page) != 0 || layout_last_delete(page) != 0 || layout_flags(page) != 0 ||
		layout_pages(page) != 1 || layout_heap(page) != page_size || layout_dead(page) != 0)
		return "header fields that should be unused are set";
	for (size_t i = FREELOG_ENTRIES_AT + 8 * (size_t)count; i < page_size; i++)
		if (page[i] != 0)
			return "bytes behind the last entry";
	return NULL;
}

/*
 * The chain from its newest page back, as the record describes it: so many pages, their sequences without a
 * gap down to 0.
 */
struct freelog_walk {
	const struct freelog *log;
	struct page_ptr ptr; /* current */
	const uint8_t *page; /* borrowed from the pager */
	struct page_ptr next;
	uint64_t sequence; /* of the first entry walked so far */
	uint32_t left;	   /* pages */
};

static void freelog_walk_begin(struct freelog_walk *walk, const struct freelog *log)
{
	*walk = (struct freelog_walk){
		.log = log, .next = log->head, .sequence = log->sequence, .left = log->pages};
}

/* BTS_NOT_FOUND at the end. */
static enum bts_err freelog_walk_next(struct tree_ctx *ctx, struct freelog_walk *walk)
{
	const char *wrong;
	enum bts_err err;
	uint64_t first;

	if (walk->left == 0) {
		if (walk->sequence != 0 || !freelog_is_none(&walk->next))
			return freelog_bad_page(ctx, &walk->next, "the chain is longer than the record says");
		return BTS_NOT_FOUND;
	}
	if (freelog_is_none(&walk->next))
		return error_set(
			ctx->error, BTS_CORRUPT, 0, "free log: the chain ends %u pages early", walk->left);
	if (walk->ptr.birth != 0 && walk->next.birth > walk->ptr.birth)
		return freelog_bad_page(ctx, &walk->next, "born after the page that points to it");
	err = pager_free_log(ctx, &walk->next, &walk->page);
	if (err)
		return err;
	walk->ptr = walk->next;
	wrong = freelog_page_check(walk->page, walk->log, ctx->pager->page_size);
	if (wrong != NULL)
		return freelog_bad_page(ctx, &walk->ptr, wrong);
	first = bytes_get_u64(walk->page + FREELOG_SEQUENCE_AT);
	if (first > walk->sequence || walk->sequence - first != bytes_get_u32(walk->page + FREELOG_COUNT_AT))
		return freelog_bad_page(ctx, &walk->ptr, "its entries do not join those of the next page");
	walk->sequence = first;
	walk->next = layout_get_ptr(walk->page + FREELOG_PREVIOUS_AT);
	walk->left--;
	return BTS_OK;
}

enum bts_err freelog_pages(struct tree_ctx *ctx, const struct freelog *log,
	enum bts_err (*visit)(void *arg, const struct page_ptr *ptr), void *arg)
{
	struct freelog_walk walk;
	enum bts_err err;

	freelog_walk_begin(&walk, log);
	while ((err = freelog_walk_next(ctx, &walk)) == BTS_OK) {
		err = visit(arg, &walk.ptr);
		if (err)
			return err;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

/* Pages of a chain, newest first, so that they can be applied from the oldest on. */
struct freelog_list {
	struct bts_env *env;
	const uint8_t **pages;
	size_t count, cap;
};

static enum bts_err freelog_list_fill(
	struct tree_ctx *ctx, const struct freelog *log, struct freelog_list *list)
{
	struct freelog_walk walk;
	enum bts_err err;

	if (log->inline_count > FREELOG_INLINE_MAX)
		return error_set(
			ctx->error, BTS_CORRUPT, 0, "free log: %u inline entries", log->inline_count);
	freelog_walk_begin(&walk, log);
	while ((err = freelog_walk_next(ctx, &walk)) == BTS_OK) {
		if (list->count == list->cap) {
			size_t cap = list->cap == 0 ? 64 : list->cap * 2;
			const uint8_t **pages =
				list->env->ops->memory(list->env, (void *)list->pages, cap * sizeof(*pages));

			if (pages == NULL)
				return error_set(
					ctx->error, BTS_MEMORY, 0, "no memory for %zu free-log pages", cap);
			list->pages = pages;
			list->cap = cap;
		}
		list->pages[list->count++] = walk.page;
	}
	return err == BTS_NOT_FOUND ? BTS_OK : err;
}

static void freelog_list_fini(struct freelog_list *list)
{
	list->env->ops->memory(list->env, (void *)list->pages, 0);
}

/* The i-th entry of a page of the list, or, past the last page, of the inline ones; false at the end. */
static bool freelog_list_entry(const struct freelog_list *list, const struct freelog *log, size_t *page,
	uint32_t *index, uint64_t *entry)
{
	for (; *page < list->count; *index = 0, ++*page) {
		const uint8_t *bytes = list->pages[list->count - 1 - *page];

		if (*index < bytes_get_u32(bytes + FREELOG_COUNT_AT)) {
			*entry = bytes_get_u64(bytes + FREELOG_ENTRIES_AT + 8 * (size_t)(*index)++);
			return true;
		}
	}
	if (*index >= log->inline_count)
		return false;
	*entry = log->inline_entries[(*index)++];
	return true;
}

static enum bts_err freelog_bad_entry(struct tree_ctx *ctx, const struct freelog_list *list, size_t page,
	uint32_t index, struct space_run run, const char *what)
{
	if (page >= list->count)
		return error_set(ctx->error, BTS_CORRUPT, 0,
			"free log: inline entry %u, pages %" PRIu64 " to %" PRIu64 ": %s", index, run.pgno,
			run.pgno + run.count - (run.count > 0), what);
	return error_set(ctx->error, BTS_CORRUPT, 0,
		"page %" PRIu64 ": free log: entry %u, pages %" PRIu64 " to %" PRIu64 ": %s",
		layout_pgno(list->pages[list->count - 1 - page]), index, run.pgno,
		run.pgno + run.count - (run.count > 0), what);
}

static const char *freelog_apply(struct space *space, struct space_run run, bool freed)
{
	if (run.count == 0)
		return "names no page";
	if (run.pgno < space->first || run.pgno > LAYOUT_PGNO_LIMIT)
		return "outside the file";
	/* The mark was higher when this was written. */
	if (run.pgno >= space->high_water)
		return NULL;
	if (run.count > space->high_water - run.pgno)
		run.count = space->high_water - run.pgno;
	if (!freed)
		return space_take(space, run) ? NULL : "allocated, but not free";
	if (!space_is_live(space, run))
		return "freed twice";
	return space_give(space, run) ? "cannot be given" : NULL;
}

enum bts_err freelog_load(struct tree_ctx *ctx, const struct freelog *log, struct space *space)
{
	struct freelog_list list = {.env = ctx->pager->env};
	size_t page = 0;
	uint32_t index = 0;
	uint64_t entry;
	enum bts_err err;

	err = freelog_list_fill(ctx, log, &list);
	while (!err && freelog_list_entry(&list, log, &page, &index, &entry)) {
		bool freed;
		struct space_run run = freelog_entry_run(entry, &freed);
		const char *wrong = freelog_apply(space, run, freed);

		if (wrong != NULL)
			err = freelog_bad_entry(ctx, &list, page, index - 1, run, wrong);
	}
	freelog_list_fini(&list);
	return err;
}
