/* path.pending: its bytes, and what is done with it at open.  See pending.h. */
#include "pending.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "base/ensure.h"
#include "error.h"
#include "recover.h"

#define PENDING_MAGIC "BTSPEND\n"
#define PENDING_VERSION 1u

static enum bts_err pending_path(struct bts *db, char **out, struct bts_error *error)
{
	size_t size = strlen(db->path) + sizeof(".pending");
	char *path = db->env->ops->memory(db->env, NULL, size);

	if (!path)
		return error_set(error, BTS_MEMORY, 0, "no memory for a path");
	snprintf(path, size, "%s.pending", db->path);
	*out = path;
	return BTS_OK;
}

static void pending_header_encode(const struct bts *db, uint64_t salt, const struct bts_position *base,
	const struct bts_position *target, uint8_t bytes[PENDING_HEADER])
{
	memset(bytes, 0, PENDING_HEADER);
	memcpy(bytes, PENDING_MAGIC, 8);
	bytes_put_u32(bytes + 8, PENDING_VERSION);
	bytes_put_u32(bytes + 12, db->slot.record.page_size);
	memcpy(bytes + 16, target->database, 16);
	bytes_put_u64(bytes + 32, salt);
	bytes_put_u64(bytes + 40, base->txid);
	bytes_put_u32(bytes + 48, target->epoch);
	bytes_put_u64(bytes + 56, target->epoch_random);
	bytes_put_u64(bytes + 64, target->txid);
	memcpy(bytes + 72, target->chain, 16);
	bytes_put_u32(bytes + 92, crc32c(0, bytes, 92));
}

static bool pending_is_foreign(const uint8_t *bytes)
{
	return !memcmp(bytes, PENDING_MAGIC, 8) && bytes_get_u32(bytes + 8) != PENDING_VERSION &&
	       bytes_get_u32(bytes + 92) == crc32c(0, bytes, 92);
}

static const char *pending_header_check(const uint8_t *bytes, const struct meta_slot *slot)
{
	if (memcmp(bytes, PENDING_MAGIC, 8) || bytes_get_u32(bytes + 92) != crc32c(0, bytes, 92))
		return "its header is not what was written";
	if (bytes_get_u32(bytes + 52) != 0 || bytes_get_u32(bytes + 88) != 0)
		return "reserved bytes are not zero";
	if (bytes_get_u64(bytes + 32) != slot->pending_salt)
		return "its salt is not the one the newest meta names";
	if (bytes_get_u32(bytes + 12) != slot->record.page_size ||
		memcmp(bytes + 16, slot->record.database, 16) ||
		bytes_get_u32(bytes + 48) != slot->record.epoch ||
		bytes_get_u64(bytes + 56) != slot->record.epoch_random ||
		bytes_get_u64(bytes + 64) != slot->record.txid || memcmp(bytes + 72, slot->record.chain, 16))
		return "it belongs to another commit";
	return NULL;
}

enum bts_err pending_create(struct bts *db, struct pending_log *log, const struct bts_position *base,
	const struct bts_position *target, uint8_t header[PENDING_HEADER], struct bts_error *error)
{
	struct bts_env *env = db->env;
	enum bts_err err;
	int os;

	ENSURE(!log->file && db->slot.pending_count == 0);
	err = pending_path(db, &log->path, error);
	if (err)
		return err;
	os = env->ops->random(env, &log->salt, sizeof(log->salt));
	if (!os)
		os = env->ops->file_open(
			env, log->path, BTS_FILE_WRITE | BTS_FILE_CREATE | BTS_FILE_TRUNCATE, &log->file);
	if (os) {
		log->file = NULL;
		return error_os(error, os, "cannot create %s", log->path);
	}
	pending_header_encode(db, log->salt, base, target, header);
	log->size = PENDING_HEADER;
	return BTS_OK;
}

void pending_record_encode(const struct pending_log *log, const struct bts_page_id *id, uint32_t page_size,
	uint8_t bytes[PENDING_RECORD])
{
	memset(bytes, 0, PENDING_RECORD);
	bytes_put_u64(bytes, log->salt);
	bytes_put_u32(bytes + 8, log->count);
	bytes_put_u32(bytes + 12, id->count);
	bytes_put_u64(bytes + 16, id->pgno);
	bytes_put_u64(bytes + 24, id->birth);
	bytes_put_u32(bytes + 32, id->crc);
	bytes_put_u32(bytes + 36, id->kind);
	bytes_put_u64(bytes + 40, (uint64_t)id->count * page_size);
}

enum bts_err pending_map(struct bts *db, struct pending_log *log, struct bts_error *error)
{
	int os = db->env->ops->file_map(log->file, log->size, &log->map);

	if (os) {
		log->map = NULL;
		return error_os(error, os, "cannot map %s", log->path);
	}
	log->map_bytes = log->size;
	return BTS_OK;
}

void pending_close(struct bts *db, struct pending_log *log, bool cut)
{
	struct bts_env *env = db->env;

	if (log->map)
		env->ops->file_unmap(log->file, log->map, log->map_bytes);
	/* A file that could not be cut does no harm: no slot names its salt. */
	if (log->file && cut)
		env->ops->file_truncate(log->file, 0);
	if (log->file)
		env->ops->file_close(log->file);
	env->ops->memory(env, log->path, 0);
	memset(log, 0, sizeof(*log));
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
		os = pass->copy ? env->ops->file_pwritev(pass->db->file, &iov, 1, home) : 0;
		if (os)
			return error_os(pass->error, os, "cannot write pages of %s home", pass->db->path);
		home += part;
		left -= part;
	}
	return BTS_OK;
}

static enum bts_err pending_record(struct pending_pass *pass, uint32_t ordinal)
{
	const struct commit_record *commit = &pass->slot->record;
	uint8_t head[PENDING_RECORD], tail[PENDING_TRAILER];
	uint64_t pgno, count;
	enum bts_err err = pending_read(pass, ordinal, head, sizeof(head));
	uint32_t crc = crc32c(0, head, sizeof(head));

	if (err)
		return err;
	count = bytes_get_u32(head + 12);
	pgno = bytes_get_u64(head + 16);
	if (bytes_get_u64(head) != pass->slot->pending_salt || bytes_get_u32(head + 8) != ordinal)
		return pending_bad(pass, ordinal, "it belongs to another frame");
	if (pgno < commit->first || pgno >= commit->high_water || count < 1 ||
		count > commit->high_water - pgno || bytes_get_u64(head + 40) != count * commit->page_size)
		return pending_bad(pass, ordinal, "pages outside the file");
	err = pending_payload(pass, ordinal, pgno * commit->page_size, count * commit->page_size, &crc);
	if (!err)
		err = pending_read(pass, ordinal, tail, sizeof(tail));
	if (!err && (bytes_get_u32(tail) != crc || bytes_get_u32(tail + 4) != 0))
		err = pending_bad(pass, ordinal, "checksum mismatch");
	return err;
}

static enum bts_err pending_run(struct pending_pass *pass)
{
	uint8_t header[PENDING_HEADER];
	const char *wrong;
	enum bts_err err;

	pass->offset = 0;
	err = pending_read(pass, 0, header, sizeof(header));
	if (!err && pending_is_foreign(header))
		return error_set(pass->error, BTS_VERSION, 0,
			"%s.pending, which the newest meta needs: format version %" PRIu32
			", this release reads %u: open it with the release that wrote it",
			pass->db->path, bytes_get_u32(header + 8), PENDING_VERSION);
	wrong = err ? NULL : pending_header_check(header, pass->slot);
	if (wrong)
		err = error_set(pass->error, BTS_CORRUPT, 0, "%s.pending, which the newest meta needs: %s",
			pass->db->path, wrong);
	for (uint32_t i = 0; !err && i < pass->slot->pending_count; i++)
		err = pending_record(pass, i);
	return err;
}

enum bts_err pending_copy_home(struct bts *db, struct bts_file *pending, const struct meta_slot *slot, uint8_t *chunk,
	struct bts_error *error)
{
	struct pending_pass pass = {
		.db = db, .file = pending, .slot = slot, .error = error, .copy = true, .chunk = chunk};

	return pending_run(&pass);
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
	if (!err)
		err = pending_copy_home(db, file, &db->slot, pass.chunk, error);
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

enum bts_err pending_recover(struct bts *db, struct bts_error *error)
{
	struct bts_env *env = db->env;
	struct bts_file_identity identity;
	struct bts_file *file = NULL;
	enum bts_err err;
	char *path = NULL;
	int os;

	err = pending_path(db, &path, error);
	if (err)
		return err;
	os = env->ops->file_open(env, path, BTS_FILE_WRITE, &file);
	if (os)
		file = NULL;
	if (os == ENOENT && db->slot.pending_count)
		err = error_set(error, BTS_CORRUPT, 0, "%s, which the newest meta needs, is absent", path);
	else if (os && os != ENOENT)
		err = error_os(error, os, "cannot open %s", path);
	if (!err && db->slot.pending_count)
		err = pending_redo(db, file, error);
	if (!err && file) {
		os = env->ops->file_identity(file, &identity);
		if (!os && identity.size)
			os = env->ops->file_truncate(file, 0);
		if (!os && identity.size)
			os = env->ops->file_sync(file);
		if (os)
			err = error_os(error, os, "cannot cut %s", path);
	}
	if (file)
		env->ops->file_close(file);
	env->ops->memory(env, path, 0);
	if (err)
		return err;
	shared_set_slot(db->shared, db->slot_index, db->slot.sequence);
	shared_publish(db->shared, &db->slot.record);
	shared_gate_open(db->shared);
	return BTS_OK;
}
