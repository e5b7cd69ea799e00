/* path.pending: its bytes, and what is done with it at open.  See pending.h. */
#include "pending.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "error.h"
#include "homes.h"
#include "recover.h"
#include "redirect.h"

#define PENDING_MAGIC "BTSPEND\n"
#define PENDING_FRAME 1u /* versions: one frame; a log */
#define PENDING_LOG 2u
#define PENDING_HEADER_FRAME 96u
#define PENDING_RECORD_FRAME 48u
#define PENDING_SPARE (UINT64_C(64) << 20) /* bytes of a log that is worth keeping */

enum bts_err pending_path(struct bts *db, unsigned name, char **out, struct bts_error *error)
{
	const char *beside = beside_path(&db->beside);
	size_t size = strlen(beside) + sizeof(".pending2");
	char *path = db->env->ops->memory(db->env, NULL, size);

	if (!path)
		return error_set(error, BTS_MEMORY, 0, "no memory for a path");
	snprintf(path, size, "%s.pending%s", beside, name ? "2" : "");
	*out = path;
	return BTS_OK;
}

static void pending_header_encode(const struct bts *db, uint64_t salt, uint8_t bytes[PENDING_HEADER])
{
	memset(bytes, 0, PENDING_HEADER);
	memcpy(bytes, PENDING_MAGIC, 8);
	bytes_put_u32(bytes + 8, PENDING_LOG);
	bytes_put_u32(bytes + 12, db->slot.record.page_size);
	memcpy(bytes + 16, db->slot.record.database, 16);
	bytes_put_u64(bytes + 32, salt);
	bytes_put_u32(bytes + 92, crc32c(0, bytes, 92));
}

static bool pending_header_intact(const uint8_t *bytes)
{
	return !memcmp(bytes, PENDING_MAGIC, 8) && bytes_get_u32(bytes + 92) == crc32c(0, bytes, 92);
}

static bool pending_zero(const uint8_t *bytes, size_t from, size_t end)
{
	while (from < end && !bytes[from])
		from++;
	return from == end;
}

static const char *pending_header_check(const uint8_t *bytes, const struct meta_slot *slot)
{
	if (!pending_header_intact(bytes))
		return "its header is not what was written";
	if (slot->pending_log ? !pending_zero(bytes, 40, 92) || !pending_zero(bytes, 96, PENDING_HEADER)
			      : bytes_get_u32(bytes + 52) != 0 || bytes_get_u32(bytes + 88) != 0)
		return "reserved bytes are not zero";
	if (bytes_get_u64(bytes + 32) != slot->pending_salt)
		return "its salt is not the one the newest meta names";
	if (bytes_get_u32(bytes + 12) != slot->record.page_size || memcmp(bytes + 16, slot->record.database, 16))
		return "it belongs to another database";
	if (!slot->pending_log && (bytes_get_u32(bytes + 48) != slot->record.epoch ||
		bytes_get_u64(bytes + 56) != slot->record.epoch_random ||
		bytes_get_u64(bytes + 64) != slot->record.txid || memcmp(bytes + 72, slot->record.chain, 16)))
		return "it belongs to another commit";
	return NULL;
}

/* BTS_NOT_FOUND: this name does not lead to the log with the salt. */
static enum bts_err pending_open_name(struct bts *db, uint64_t salt, unsigned name, unsigned flags, struct bts_file **file,
	struct bts_error *error)
{
	const struct bts_env_ops *ops = db->env->ops;
	uint8_t header[PENDING_HEADER];
	size_t got = 0;
	enum bts_err err;
	char *path = NULL;
	int os;

	err = pending_path(db, name, &path, error);
	if (err)
		return err;
	os = ops->file_open(db->env, path, flags, file);
	if (!os)
		os = ops->file_pread(*file, header, sizeof(header), 0, &got);
	else
		*file = NULL;
	if (os && os != ENOENT)
		err = error_os(error, os, "cannot open %s", path);
	else if (os || got < sizeof(header) || !pending_header_intact(header) || bytes_get_u64(header + 32) != salt)
		err = BTS_NOT_FOUND;
	else if (bytes_get_u32(header + 8) != PENDING_LOG)
		err = error_set(error, BTS_VERSION, 0,
			"%s, which the newest meta needs: format version %" PRIu32 ", this release reads %u: open it with the "
			"release that wrote it",
			path, bytes_get_u32(header + 8), PENDING_LOG);
	else if (bytes_get_u32(header + 12) != db->slot.record.page_size || memcmp(header + 16, db->slot.record.database, 16) ||
		 !pending_zero(header, 40, 92) || !pending_zero(header, 96, sizeof(header)))
		err = error_set(error, BTS_CORRUPT, 0, "%s: its header is not of this database", path);
	if (err && *file) {
		ops->file_close(*file);
		*file = NULL;
	}
	ops->memory(db->env, path, 0);
	return err;
}

enum bts_err pending_open(
	struct bts *db, uint64_t salt, unsigned flags, struct bts_file **file, unsigned *name, struct bts_error *error)
{
	enum bts_err err = BTS_NOT_FOUND;

	for (*name = 0; *name < 2; ++*name) {
		err = pending_open_name(db, salt, *name, flags, file, error);
		if (err != BTS_NOT_FOUND)
			break;
	}
	return err;
}

/* Nothing needs what has this name. */
static void pending_unlink(struct bts *db, unsigned name)
{
	char *path = NULL;

	if (pending_path(db, name, &path, NULL))
		return;
	/* A file that stays does no harm: no slot names its salt. */
	db->env->ops->path_unlink(db->env, path);
	db->env->ops->memory(db->env, path, 0);
}

/*
 * Whoever has it mapped began at a commit up to `retired`, before the one that was published without it: registered, so seen
 * here.  A frame in progress looks at the log of its base, retired or not; so a later commit must be there.
 */
static bool pending_reusable(struct bts *db, const struct pending_log *spare)
{
	size_t readers;

	if (!spare->file || spare->retired >= db->slot.record.txid)
		return false;
	readers = SABOTAGE(FAULT_R6_LOG_READ) ? 0 : db_snapshots(db);
	return readers == 0 || db->snapshots[0] > spare->retired;
}

/* The other name than db->log's; of two free ones that which can be written again, else the one that has no file to lose. */
static unsigned pending_choose(struct bts *db)
{
	if (db->log.file)
		return !db->log.name;
	for (unsigned name = 0; name < 2; name++)
		if (pending_reusable(db, &db->spare[name]))
			return name;
	return db->spare[0].file && !db->spare[1].file;
}

/* The file that is kept under this name, or a new one. */
static int pending_file(struct bts *db, const char *path, struct pending_log *log)
{
	const struct bts_env_ops *ops = db->env->ops;
	struct pending_log *spare = &db->spare[log->name];
	int os;

	if (pending_reusable(db, spare)) {
		log->file = spare->file;
		log->unnamed = spare->unnamed;
		memset(spare, 0, sizeof(*spare));
		return 0;
	}
	pending_remove(db, spare);
	pending_unlink(db, log->name);
	log->unnamed = true;
	os = ops->file_open(db->env, path, BTS_FILE_WRITE | BTS_FILE_CREATE | BTS_FILE_EXCL, &log->file);
	if (os)
		log->file = NULL;
	return os;
}

enum bts_err pending_create(struct bts *db, struct pending_log *log, struct bts_error *error)
{
	struct bts_env *env = db->env;
	uint8_t header[PENDING_HEADER];
	struct iovec iov = {header, sizeof(header)};
	char *path = NULL;
	enum bts_err err;
	int os;

	*log = (struct pending_log){.name = pending_choose(db), .size = PENDING_HEADER, .kept_size = PENDING_HEADER};
	err = pending_path(db, log->name, &path, error);
	if (err)
		return err;
	os = env->ops->random(env, &log->salt, sizeof(log->salt));
	if (!os)
		os = pending_file(db, path, log);
	log->salt += !log->salt; /* 0 is for none */
	pending_header_encode(db, log->salt, header);
	if (!os)
		os = env->ops->file_pwritev(log->file, &iov, 1, 0);
	if (os) {
		err = error_os(error, os, "cannot create %s", path);
		pending_remove(db, log);
	}
	env->ops->memory(env, path, 0);
	return err;
}

void pending_record_encode(
	uint64_t salt, uint32_t ordinal, const struct pending_entry *record, uint8_t bytes[PENDING_RECORD])
{
	memset(bytes, 0, PENDING_RECORD);
	bytes_put_u64(bytes, salt);
	bytes_put_u32(bytes + 8, ordinal);
	bytes_put_u32(bytes + 12, record->count);
	bytes_put_u64(bytes + 16, record->pgno);
	bytes_put_u64(bytes + 24, record->birth);
	bytes_put_u32(bytes + 32, record->crc);
	bytes_put_u32(bytes + 36, record->kind);
	bytes_put_u64(bytes + 40, record->txid);
	bytes_put_u32(bytes + 52, crc32c(0, bytes, 52));
}

const char *pending_record_decode(
	const uint8_t bytes[PENDING_RECORD], uint64_t salt, uint32_t ordinal, struct pending_entry *record)
{
	if (bytes_get_u64(bytes) != salt || bytes_get_u32(bytes + 8) != ordinal)
		return "it belongs to another log";
	if (bytes_get_u32(bytes + 52) != crc32c(0, bytes, 52))
		return "checksum mismatch of its head";
	*record = (struct pending_entry){
		.pgno = bytes_get_u64(bytes + 16),
		.birth = bytes_get_u64(bytes + 24),
		.txid = bytes_get_u64(bytes + 40),
		.crc = bytes_get_u32(bytes + 32),
		.count = bytes_get_u32(bytes + 12),
		.kind = bytes_get_u32(bytes + 36),
	};
	if (record->pgno == 0 || record->pgno >= LAYOUT_PGNO_LIMIT || record->count < 1 || record->kind < BTS_KIND_NODE ||
		record->kind > BTS_KIND_FREE_LOG || bytes_get_u32(bytes + 48) != 0)
		return "it makes no sense";
	return NULL;
}

void pending_keep(struct bts *db)
{
	db->log.kept_size = db->log.size;
	db->log.kept_count = db->log.count;
}

void pending_forget(struct bts *db)
{
	struct pending_log *log = &db->log;

	if (!log->file)
		return;
	if (!log->kept_count) {
		pending_retire(db, log);
		return;
	}
	if (log->size > log->kept_size && log->size > PENDING_SPARE)
		db->env->ops->file_truncate(log->file, log->kept_size);
	log->size = log->kept_size;
	log->count = log->kept_count;
}

void pending_remove(struct bts *db, struct pending_log *log)
{
	if (log->file) {
		db->env->ops->file_close(log->file);
		pending_unlink(db, log->name);
	}
	memset(log, 0, sizeof(*log));
}

void pending_retire(struct bts *db, struct pending_log *log)
{
	struct pending_log *spare = &db->spare[log->name];

	if (!log->file || spare->file || log->size > PENDING_SPARE) {
		pending_remove(db, log);
		return;
	}
	*spare = *log;
	spare->retired = log->kept_count ? db->slot.record.txid : 0; /* nobody was told of one that never counted */
	memset(log, 0, sizeof(*log));
}

void pending_discard(struct bts *db)
{
	pending_remove(db, &db->spare[0]);
	pending_remove(db, &db->spare[1]);
}

/* A pass over the records that slot needs: verify, or copy home. */
struct pending_pass {
	struct bts *db;
	struct bts_file *file;
	const struct meta_slot *slot;
	struct bts_error *error;
	bool copy;
	uint64_t offset;
	uint8_t *chunk;
};

static enum bts_err pending_bad(struct pending_pass *pass, uint32_t ordinal, const char *what)
{
	return error_set(pass->error, BTS_CORRUPT, 0,
		"%s.pending, which the newest meta needs: record %" PRIu32 " of %" PRIu32
		" at offset %" PRIu64 ": %s",
		pass->db->path, ordinal, pass->slot->pending_count, pass->offset, what);
}

/* Exactly size bytes at the pass's offset, which moves on. */
static enum bts_err pending_read(struct pending_pass *pass, uint32_t ordinal, void *bytes, size_t size)
{
	size_t got;
	int os = pass->db->env->ops->file_pread(pass->file, bytes, size, pass->offset, &got);

	if (os)
		return error_os(pass->error, os, "cannot read %s.pending", pass->db->path);
	if (got < size)
		return pending_bad(pass, ordinal, "the file ends here");
	pass->offset += size;
	return BTS_OK;
}

/* home: where the pages belong; UINT64_MAX: nowhere, by now. */
static enum bts_err pending_payload(
	struct pending_pass *pass, uint32_t ordinal, uint64_t home, uint64_t left, uint32_t *crc)
{
	struct bts_env *env = pass->db->env;

	while (left > 0) {
		size_t part = left < PENDING_CHUNK ? (size_t)left : PENDING_CHUNK;
		enum bts_err err = pending_read(pass, ordinal, pass->chunk, part);
		struct iovec iov = {pass->chunk, part};
		int os;

		if (err)
			return err;
		*crc = crc32c(*crc, pass->chunk, part);
		left -= part;
		if (!pass->copy || home == UINT64_MAX)
			continue;
		os = env->ops->file_pwritev(pass->db->file, &iov, 1, home);
		if (os)
			return error_os(pass->error, os, "cannot write pages of %s home", pass->db->path);
		home += part;
	}
	return BTS_OK;
}

/* The head of a record of either version. */
static const char *pending_head(const struct meta_slot *slot, const uint8_t *head, uint32_t ordinal, struct pending_entry *record)
{
	const struct commit_record *commit = &slot->record;
	const char *wrong;

	if (slot->pending_log) {
		wrong = pending_record_decode(head, slot->pending_salt, ordinal, record);
		return wrong || record->txid <= commit->txid ? wrong : "it belongs to a later frame";
	}
	if (bytes_get_u64(head) != slot->pending_salt || bytes_get_u32(head + 8) != ordinal)
		return "it belongs to another frame";
	*record = (struct pending_entry){.pgno = bytes_get_u64(head + 16), .count = bytes_get_u32(head + 12)};
	if (record->pgno < commit->first || record->pgno >= commit->high_water || record->count < 1 ||
		record->count > commit->high_water - record->pgno ||
		bytes_get_u64(head + 40) != (uint64_t)record->count * commit->page_size)
		return "pages outside the file";
	return NULL;
}

static enum bts_err pending_record(struct pending_pass *pass, uint32_t ordinal)
{
	const struct commit_record *commit = &pass->slot->record;
	size_t size = pass->slot->pending_log ? PENDING_RECORD : PENDING_RECORD_FRAME;
	uint8_t head[PENDING_RECORD], tail[PENDING_TRAILER];
	struct pending_entry record;
	enum bts_err err = pending_read(pass, ordinal, head, size);
	uint32_t crc = crc32c(0, head, size);
	uint64_t home = UINT64_MAX;
	const char *wrong;

	if (err)
		return err;
	wrong = pending_head(pass->slot, head, ordinal, &record);
	if (wrong)
		return pending_bad(pass, ordinal, wrong);
	/* Behind a mark that fell since nothing lives. */
	if (record.pgno >= commit->first && record.pgno < commit->high_water &&
		record.count <= commit->high_water - record.pgno)
		home = record.pgno * commit->page_size;
	err = pending_payload(pass, ordinal, home, (uint64_t)record.count * commit->page_size, &crc);
	if (!err)
		err = pending_read(pass, ordinal, tail, sizeof(tail));
	if (!err && (bytes_get_u32(tail) != crc || bytes_get_u32(tail + 4) != 0))
		err = pending_bad(pass, ordinal, "checksum mismatch");
	return err;
}

static enum bts_err pending_run(struct pending_pass *pass)
{
	size_t size = pass->slot->pending_log ? PENDING_HEADER : PENDING_HEADER_FRAME;
	uint32_t version = pass->slot->pending_log ? PENDING_LOG : PENDING_FRAME;
	uint8_t header[PENDING_HEADER] = {0};
	const char *wrong;
	enum bts_err err;

	pass->offset = 0;
	err = pending_read(pass, 0, header, size);
	if (!err && pending_header_intact(header) && bytes_get_u32(header + 8) != version)
		return error_set(pass->error, BTS_VERSION, 0,
			"%s.pending, which the newest meta needs: format version %" PRIu32
			", this release reads %u: open it with the release that wrote it",
			pass->db->path, bytes_get_u32(header + 8), version);
	wrong = err ? NULL : pending_header_check(header, pass->slot);
	if (wrong)
		err = error_set(pass->error, BTS_CORRUPT, 0, "%s.pending, which the newest meta needs: %s",
			pass->db->path, wrong);
	for (uint32_t i = 0; !err && i < pass->slot->pending_count; i++)
		err = pending_record(pass, i);
	return err;
}

static enum bts_err pending_fault(struct bts *db, const char *point, struct bts_error *error)
{
	int os = db->env->ops->fault(db->env, point);

	return os ? error_os(error, os, "failed on purpose at %s", point) : BTS_OK;
}

/* Verify all the records before the first is written, then copy them home. */
static enum bts_err pending_replay(struct bts *db, struct bts_file *file, struct bts_error *error)
{
	struct pending_pass pass = {.db = db, .file = file, .slot = &db->slot, .error = error};
	enum bts_err err;

	pass.chunk = db->env->ops->memory(db->env, NULL, PENDING_CHUNK);
	if (!pass.chunk)
		return error_set(error, BTS_MEMORY, 0, "no memory to read %s.pending", db->path);
	err = pending_run(&pass);
	if (!err)
		err = pending_fault(db, "pending.copy", error);
	if (!err) {
		pass.copy = true;
		err = pending_run(&pass);
	}
	db->env->ops->memory(db->env, pass.chunk, 0);
	return err;
}

/* The slot needs the records. */
static enum bts_err pending_redo(struct bts *db, struct bts_file *file, struct bts_error *error)
{
	struct recover_state *state;
	enum bts_err err = pending_replay(db, file, error);

	if (!err)
		err = pending_fault(db, "pending.checkpoint", error);
	if (err)
		return err;
	state = db->env->ops->memory(db->env, NULL, sizeof(*state));
	if (!state)
		return error_set(error, BTS_MEMORY, 0, "no memory to open %s", db->path);
	memset(state, 0, sizeof(*state));
	state->slot = db->slot;
	state->slot.pending_count = 0;
	state->slot.pending_salt = 0;
	state->slot.pending_log = false;
	state->index = db->slot_index;
	err = recover_envelope(db->env, db->file, state, META_TWO_FLUSH, error);
	if (!err) {
		db->slot = state->slot;
		db->slot_index = state->index;
		err = pending_fault(db, "pending.truncate", error);
	}
	db->env->ops->memory(db->env, state, 0);
	return err;
}

/* The file that the slot needs. */
static enum bts_err pending_find(struct bts *db, struct bts_file **file, unsigned *name, struct bts_error *error)
{
	char *path = NULL;
	enum bts_err err;
	int os;

	*name = 0;
	if (db->slot.pending_log) {
		err = pending_open(db, db->slot.pending_salt, BTS_FILE_WRITE, file, name, error);
		if (err != BTS_NOT_FOUND)
			return err;
		*name = 0; /* to say what is wrong with it */
	}
	err = pending_path(db, 0, &path, error);
	if (err)
		return err;
	os = db->env->ops->file_open(db->env, path, BTS_FILE_WRITE, file);
	if (os)
		*file = NULL;
	if (os == ENOENT)
		err = error_set(error, BTS_CORRUPT, 0, "%s, which the newest meta needs, is absent", path);
	else if (os)
		err = error_os(error, os, "cannot open %s", path);
	db->env->ops->memory(db->env, path, 0);
	return err;
}

/* Other processes may read what stands at home: the log goes on. */
static enum bts_err pending_inherit(struct bts *db, struct bts_file *file, unsigned name, struct bts_error *error)
{
	struct redirect *table;
	enum bts_err err;

	err = redirect_open(db, db->slot.pending_salt, db->slot.pending_count, &table, error);
	if (err == BTS_NOT_FOUND)
		err = error_set(error, BTS_CORRUPT, 0, "%s.pending, which the newest meta needs, is absent", db->path);
	if (err)
		return err;
	db->log = (struct pending_log){.file = file,
		.name = name,
		.salt = db->slot.pending_salt,
		.size = redirect_end(table, db->slot.pending_count),
		.count = db->slot.pending_count};
	pending_keep(db);
	err = homes_inherit(db, table, error);
	redirect_drop(db, table);
	if (err)
		db->log.file = NULL;
	return err;
}

void pending_tidy(struct bts *db)
{
	for (unsigned i = 0; i < 2; i++)
		if (!db->log.file || i != db->log.name)
			pending_unlink(db, i);
}

enum bts_err pending_recover(struct bts *db, bool alone, struct bts_error *error)
{
	struct bts_file *file = NULL;
	enum bts_err err = BTS_OK;
	unsigned name = 0;
	bool kept = false;

	if (db->slot.pending_count)
		err = pending_find(db, &file, &name, error);
	if (!err && file && !alone && db->slot.pending_log) {
		err = pending_inherit(db, file, name, error);
		kept = !err;
	} else if (!err && file) {
		err = pending_redo(db, file, error);
	}
	if (file && !kept)
		db->env->ops->file_close(file);
	if (err)
		return err;
	if (alone) /* else readers may be about to open what is published still: pending_tidy */
		pending_tidy(db);
	shared_set_pending(db->shared, db->slot.pending_salt, db->slot.pending_count);
	return BTS_OK;
}
