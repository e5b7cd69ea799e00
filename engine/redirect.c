/* Tables of redirected pages: see redirect.h. */
#include "redirect.h"

#include "base/ensure.h"
#include "error.h"

#include <inttypes.h>
#include <string.h>

#define REDIRECT_LEAST 1024u		   /* records there is room for at first */
#define REDIRECT_TRIES 64u		   /* times that the log of a snapshot is looked for */
#define REDIRECT_RESERVE (UINT64_C(64) << 20) /* address range beyond what the log needs */

struct redirect_entry {
	struct pending_entry record;
	_Atomic bool verified;
	uint32_t next; /* 1 + an earlier entry of the same bucket; 0: none */
};

struct redirect {
	_Atomic uint32_t users;
	struct bts_file *file;
	const uint8_t *map;
	uint64_t map_bytes;
	uint64_t salt, page_size;
	uint32_t count, cap; /* records; count and end under redirect_lock */
	uint64_t end;	     /* of the log, so far */
	uint32_t mask;
	_Atomic uint32_t *heads; /* 1 + the newest entry of a bucket */
	struct redirect_entry *entries;
};

static void redirect_free(struct bts *db, struct redirect *table)
{
	struct bts_env *env = db->env;

	if (table->map)
		env->ops->file_unmap(table->file, table->map, table->map_bytes);
	if (table->file)
		env->ops->file_close(table->file);
	env->ops->memory(env, table->entries, 0);
	env->ops->memory(env, (void *)table->heads, 0);
	env->ops->memory(env, table, 0);
}

static void redirect_put(struct bts *db, struct redirect *table)
{
	if (table && atomic_fetch_sub(&table->users, 1) == 1)
		redirect_free(db, table);
}

struct redirect *redirect_share(struct redirect *table)
{
	if (table)
		atomic_fetch_add(&table->users, 1);
	return table;
}

static uint32_t redirect_bucket(const struct redirect *table, bts_pgno pgno)
{
	return (uint32_t)(pgno * UINT64_C(0x9e3779b97f4a7c15) >> 32) & table->mask;
}

/* The slot is believed for its sum, not for what it says: room is made for what the file can hold. */
static enum bts_err redirect_holds(struct bts *db, const struct redirect *table, uint32_t count, struct bts_error *error)
{
	uint64_t least = PENDING_RECORD + table->page_size + PENDING_TRAILER;
	struct bts_file_identity id;
	int os = db->env->ops->file_identity(table->file, &id);

	if (os)
		return error_os(error, os, "cannot stat %s.pending", db->path);
	if (id.size < PENDING_HEADER || count > (id.size - PENDING_HEADER) / least)
		return error_set(error, BTS_CORRUPT, 0,
			"%s.pending, which the newest meta needs: %" PRIu64 " bytes are too few for %" PRIu32 " records", db->path,
			id.size, count);
	return BTS_OK;
}

/* Room for so many records, and somewhat more. */
static enum bts_err redirect_room(struct bts *db, struct redirect *table, uint32_t count, struct bts_error *error)
{
	struct bts_env *env = db->env;
	uint32_t cap = REDIRECT_LEAST, buckets;

	while (cap < count && cap < UINT32_MAX / 4)
		cap *= 2;
	cap *= 2;
	buckets = cap;
	table->entries = env->ops->memory(env, NULL, cap * sizeof(*table->entries));
	table->heads = env->ops->memory(env, NULL, buckets * sizeof(*table->heads));
	if (!table->entries || !table->heads || count > cap)
		return error_set(error, BTS_MEMORY, 0, "no memory for %" PRIu32 " records of %s.pending", count, db->path);
	memset((void *)table->heads, 0, buckets * sizeof(*table->heads));
	table->mask = buckets - 1;
	table->cap = cap;
	return BTS_OK;
}

static enum bts_err redirect_map(struct bts *db, struct redirect *table, struct bts_error *error)
{
	struct bts_env *env = db->env;
	struct bts_file_identity id;
	int os = env->ops->file_identity(table->file, &id);

	if (!os) {
		table->map_bytes = 2 * id.size + REDIRECT_RESERVE;
		os = env->ops->file_map(table->file, table->map_bytes, &table->map);
		if (os) {
			table->map_bytes = id.size;
			os = env->ops->file_map(table->file, table->map_bytes, &table->map);
		}
	}
	if (os) {
		table->map = NULL;
		return error_os(error, os, "cannot map %s.pending", db->path);
	}
	return BTS_OK;
}

static enum bts_err redirect_bad(
	struct bts *db, const struct redirect *table, uint32_t ordinal, const char *what, struct bts_error *error)
{
	return error_set(error, BTS_CORRUPT, 0, "%s.pending: record %" PRIu32 " at offset %" PRIu64 ": %s", db->path, ordinal,
		table->end, what);
}

/* *more false: the table has no room for that many. */
static enum bts_err redirect_extend(
	struct bts *db, struct redirect *table, uint32_t count, bool *more, struct bts_error *error)
{
	struct bts_file_identity id;
	int os = table->count < count ? db->env->ops->file_identity(table->file, &id) : 0;

	*more = count <= table->cap;
	if (os)
		return error_os(error, os, "cannot stat %s.pending", db->path);
	while (table->count < count && *more) {
		struct redirect_entry *entry = &table->entries[table->count];
		struct pending_entry *record = &entry->record;
		_Atomic uint32_t *head;
		const char *wrong;

		if (table->end + PENDING_RECORD > id.size)
			return redirect_bad(db, table, table->count, "the file ends here", error);
		if (table->end + PENDING_RECORD > table->map_bytes) {
			*more = false;
			break;
		}
		wrong = pending_record_decode(table->map + table->end, table->salt, table->count, record);
		if (!wrong && record->count > id.size / table->page_size)
			wrong = "the file ends in its pages";
		if (!wrong && table->end + pending_record_bytes(record, table->page_size) > id.size)
			wrong = "the file ends in its pages";
		if (wrong)
			return redirect_bad(db, table, table->count, wrong, error);
		*more = table->end + pending_record_bytes(record, table->page_size) <= table->map_bytes;
		if (!*more)
			break;
		record->where = table->end + PENDING_RECORD;
		atomic_init(&entry->verified, false);
		head = &table->heads[redirect_bucket(table, record->pgno)];
		entry->next = atomic_load_explicit(head, memory_order_relaxed);
		table->end += pending_record_bytes(record, table->page_size);
		/* Release: who finds the entry finds it whole. */
		atomic_store_explicit(head, ++table->count, memory_order_release);
	}
	return BTS_OK;
}

static enum bts_err redirect_new(
	struct bts *db, uint64_t salt, uint32_t count, struct redirect **out, struct bts_error *error)
{
	struct bts_env *env = db->env;
	struct redirect *table = env->ops->memory(env, NULL, sizeof(*table));
	bool more = true;
	enum bts_err err;
	unsigned name;

	if (!table)
		return error_set(error, BTS_MEMORY, 0, "no memory for a table of %s.pending", db->path);
	memset(table, 0, sizeof(*table));
	atomic_init(&table->users, 1);
	table->salt = salt;
	table->page_size = db->slot.record.page_size;
	table->end = PENDING_HEADER;
	err = pending_open(db, salt, BTS_FILE_READ, &table->file, &name, error);
	if (!err)
		err = redirect_holds(db, table, count, error);
	if (!err)
		err = redirect_room(db, table, count, error);
	if (!err)
		err = redirect_map(db, table, error);
	if (!err)
		err = redirect_extend(db, table, count, &more, error);
	if (!err && !more)
		err = redirect_bad(db, table, table->count, "more than can be mapped", error);
	if (err) {
		redirect_free(db, table);
		return err;
	}
	*out = table;
	return BTS_OK;
}

enum bts_err redirect_open(struct bts *db, uint64_t salt, uint32_t count, struct redirect **out, struct bts_error *error)
{
	struct redirect *table, *fresh = NULL;
	enum bts_err err = BTS_OK;
	bool more;

	*out = NULL;
	if (!count)
		return BTS_OK;
	pthread_mutex_lock(&db->redirect_lock);
	table = db->redirect;
	more = table && table->salt == salt;
	if (more)
		err = redirect_extend(db, table, count, &more, error);
	if (!err && !more) {
		err = redirect_new(db, salt, count, &fresh, error);
		if (!err) {
			redirect_put(db, table);
			db->redirect = table = fresh;
		}
	}
	if (!err)
		*out = redirect_share(table);
	pthread_mutex_unlock(&db->redirect_lock);
	return err;
}

/* What is kept for the next reader is of no use when the log was replaced. */
static void redirect_forget(struct bts *db)
{
	struct redirect *table = NULL;

	pthread_mutex_lock(&db->redirect_lock);
	if (db->redirect && db->redirect->salt != shared_pending_salt(db->shared)) {
		table = db->redirect;
		db->redirect = NULL;
	}
	pthread_mutex_unlock(&db->redirect_lock);
	redirect_put(db, table);
}

void redirect_drop(struct bts *db, struct redirect *table)
{
	if (!table)
		return;
	if (table->salt != shared_pending_salt(db->shared))
		redirect_forget(db);
	redirect_put(db, table);
}

void redirect_fini(struct bts *db)
{
	redirect_put(db, db->redirect);
	db->redirect = NULL;
}

/* The reader is registered.  *late: its log is gone, and it is not the newest any more: to be registered anew. */
static enum bts_err redirect_for(
	struct bts *db, const struct shared_reader *reader, struct redirect **table, bool *late, struct bts_error *error)
{
	enum bts_err err = BTS_NOT_FOUND;

	*late = false;
	for (unsigned i = 0; i < REDIRECT_TRIES && err == BTS_NOT_FOUND && !*late; i++) {
		err = redirect_open(db, reader->pending_salt, reader->pending_count, table, error);
		*late = err == BTS_NOT_FOUND && shared_reader_late(reader);
	}
	if (err == BTS_NOT_FOUND && !*late)
		err = error_set(error, BTS_CORRUPT, 0, "%s.pending, which the newest meta needs, is absent", db->path);
	return err;
}

enum bts_err redirect_enter(struct bts *db, enum redirect_at at, struct shared_reader *reader, struct commit_record *record,
	struct redirect **table, struct bts_error *error)
{
	enum bts_err err;
	bool late;

	*table = NULL;
	do {
		err = at == REDIRECT_LIGHT   ? shared_reader_enter_light(db->shared, reader, record, error)
		      : at == REDIRECT_HEAD ? shared_reader_enter(db->shared, reader, record, error)
					    : shared_reader_enter_durable(db->shared, reader, record, error);
		if (err || !reader->pending_count)
			return err;
		err = redirect_for(db, reader, table, &late, error);
		if (err)
			shared_reader_leave(db->shared, reader);
	} while (late);
	return err;
}

enum bts_err redirect_again(
	struct bts *db, struct shared_reader *reader, struct commit_record *record, struct redirect **table, struct bts_error *error)
{
	enum bts_err err;
	bool late;

	*table = NULL;
	do {
		err = shared_reader_again(db->shared, reader, record, error);
		if (err || !reader->pending_count)
			return err;
		err = redirect_for(db, reader, table, &late, error);
		if (err)
			shared_reader_rest(db->shared, reader);
	} while (late);
	return err;
}

const uint8_t *redirect_find(struct redirect *table, const struct page_ptr *ptr, uint64_t count, _Atomic bool **verified)
{
	uint32_t at = atomic_load_explicit(&table->heads[redirect_bucket(table, ptr->pgno)], memory_order_acquire);

	while (at) {
		struct redirect_entry *entry = &table->entries[at - 1];

		if (entry->record.pgno == ptr->pgno && entry->record.birth == ptr->birth && entry->record.crc == ptr->crc &&
			count <= entry->record.count) {
			*verified = &entry->verified;
			return table->map + entry->record.where;
		}
		at = entry->next;
	}
	return NULL;
}

void redirect_suspect(struct redirect *table, const struct page_ptr *ptr)
{
	_Atomic bool *verified;

	if (table && redirect_find(table, ptr, 1, &verified))
		atomic_store_explicit(verified, false, memory_order_relaxed);
}

static const uint8_t *redirect_ask(void *arg, const struct page_ptr *ptr, uint64_t count, _Atomic bool **verified)
{
	return redirect_find(arg, ptr, count, verified);
}

void redirect_use(struct tree_ctx *ctx, struct redirect *table)
{
	ctx->redirect = table ? redirect_ask : NULL;
	ctx->redirect_arg = table;
}

static const uint8_t *redirect_ask_afresh(void *arg, const struct page_ptr *ptr, uint64_t count, _Atomic bool **verified)
{
	struct redirect_afresh *look = arg;
	const uint8_t *image = redirect_find(look->table, ptr, count, verified);

	if (image) {
		atomic_store_explicit(&look->verified, false, memory_order_relaxed);
		*verified = &look->verified;
	}
	return image;
}

void redirect_use_afresh(struct tree_ctx *ctx, struct redirect_afresh *look)
{
	ctx->redirect = look->table ? redirect_ask_afresh : NULL;
	ctx->redirect_arg = look;
}

enum bts_err redirect_repair(
	struct bts *db, struct redirect *table, const struct page_ptr *ptr, struct bts_slice bytes, struct bts_error *error)
{
	struct iovec iov = {(void *)(uintptr_t)bytes.data, bytes.size};
	_Atomic bool *verified;
	const uint8_t *image = table ? redirect_find(table, ptr, bytes.size / table->page_size, &verified) : NULL;
	enum bts_err err = BTS_OK;
	int os = 0;

	if (!image)
		return BTS_NOT_FOUND;
	pthread_mutex_lock(&db->build);
	if (!db->log.file || db->log.salt != table->salt)
		err = error_set(error, BTS_BUSY, 0, "page %" PRIu64 ": its log was replaced meanwhile", ptr->pgno);
	else
		os = db->env->ops->file_pwritev(db->log.file, &iov, 1, (uint64_t)(image - table->map));
	if (!err && !os)
		os = db->env->ops->file_sync(db->log.file);
	atomic_store_explicit(verified, false, memory_order_relaxed);
	pthread_mutex_unlock(&db->build);
	return os ? db_poison(db, error, os, "writing a repaired page") : err;
}

const struct pending_entry *redirect_newest(const struct redirect *table, bts_pgno pgno, uint32_t count)
{
	uint32_t at = atomic_load_explicit(&table->heads[redirect_bucket(table, pgno)], memory_order_acquire);

	while (at && (at > count || table->entries[at - 1].record.pgno != pgno))
		at = table->entries[at - 1].next;
	return at ? &table->entries[at - 1].record : NULL;
}

const uint8_t *redirect_bytes(const struct redirect *table, const struct pending_entry *record)
{
	return table->map + record->where;
}

const struct pending_entry *redirect_entry(const struct redirect *table, uint32_t i)
{
	return &table->entries[i].record;
}

uint64_t redirect_end(const struct redirect *table, uint32_t count)
{
	const struct pending_entry *last = &table->entries[count - 1].record;

	return last->where - PENDING_RECORD + pending_record_bytes(last, table->page_size);
}
