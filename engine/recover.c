/*
 * From two meta slots to one believable state (I3 to I6, I10, M2).
 *
 * What a slot may be: never written whole (its crc is wrong), written by a library newer than this one
 * (refused, never passed over), or intact.  The intact one with the higher sequence is the newest.  It is
 * believed when its mode says that everything below it was flushed before, or when every page of its manifest
 * is there.  Otherwise its flush never ended, so nobody was told of it, and the state is D, which it names;
 * anything but D in the other slot means that an acknowledged commit is gone, and that is said, not repaired.
 */
#include "recover.h"

#include "base/crc32c.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "error.h"
#include "history.h"

#include <stdio.h>
#include <stdlib.h>

/* A slot as it was found. */
struct recover_found {
	bool intact;	  /* crc right */
	bool usable;	  /* and decoded */
	enum bts_err err; /* why not */
	char text[256];
	struct meta_slot slot;
};

struct recover_pair {
	struct recover_found side[2];
	uint64_t file_size;
	uint8_t run[META_MANIFEST_BYTES]; /* scratch for reading manifest runs */
};

static char recover_name(unsigned index)
{
	return index ? 'B' : 'A';
}

static uint64_t recover_offset(unsigned index)
{
	return index ? LAYOUT_META_B_OFFSET : 0;
}

static enum bts_err recover_fault(struct bts_env *env, const char *point, struct bts_error *error)
{
	int os = env->ops->fault(env, point);

	return os ? error_set(error, BTS_IO, os, "failed on purpose at %s", point) : BTS_OK;
}

static enum bts_err recover_sync(
	struct bts_env *env, struct bts_file *file, const char *what, struct bts_error *error)
{
	int os = env->ops->file_sync(file);

	return os ? error_os(error, os, "flushing %s", what) : BTS_OK;
}

static enum bts_err recover_read_slot(struct bts_env *env, struct bts_file *file, unsigned index,
	struct recover_found *found, struct bts_error *error)
{
	uint8_t bytes[LAYOUT_META_SIZE] = {0};
	struct bts_error why = {BTS_OK, 0, ""};
	size_t got;
	int os;

	os = env->ops->file_pread(file, bytes, sizeof(bytes), recover_offset(index), &got);
	if (os)
		return error_set(error, BTS_IO, os, "reading meta slot %c at offset %llu: errno %d",
			recover_name(index), (unsigned long long)recover_offset(index), os);
	found->intact = meta_slot_intact(bytes);
	found->err = meta_slot_decode(bytes, &found->slot, &why);
	found->usable = !found->err;
	memcpy(found->text, why.text, sizeof(found->text));
	return BTS_OK;
}

static enum bts_err recover_read_pair(
	struct bts_env *env, struct bts_file *file, struct recover_pair **out, struct bts_error *error)
{
	struct bts_file_identity identity;
	struct recover_pair *pair;
	enum bts_err err;
	int os;

	pair = env->ops->memory(env, NULL, sizeof(*pair));
	if (!pair)
		return error_set(error, BTS_MEMORY, 0, "no memory for recovery");
	*out = pair;
	os = env->ops->file_identity(file, &identity);
	if (os)
		return error_set(error, BTS_IO, os, "asking for the file's size: errno %d", os);
	pair->file_size = identity.size;
	err = recover_read_slot(env, file, 0, &pair->side[0], error);
	if (!err)
		err = recover_read_slot(env, file, 1, &pair->side[1], error);
	return err;
}

/* What no choice between the slots can mend. */
static enum bts_err recover_refuse(const struct recover_pair *pair, struct bts_error *error)
{
	const struct recover_found *a = &pair->side[0], *b = &pair->side[1];

	for (unsigned i = 0; i < 2; i++) {
		const struct recover_found *found = &pair->side[i];

		if (found->err == BTS_VERSION)
			return error_set(error, BTS_VERSION, 0, "meta %c: %s", recover_name(i), found->text);
		if (found->intact && !found->usable)
			return error_set(error, BTS_CORRUPT, 0, "meta %c is whole but wrong: %s",
				recover_name(i), found->text);
	}
	if (a->err == BTS_INVALID && b->err == BTS_INVALID)
		return error_set(error, BTS_INVALID, 0,
			"not a database: no magic at offsets 0 and %u (file of %llu bytes)",
			LAYOUT_META_B_OFFSET, (unsigned long long)pair->file_size);
	if (!a->usable && !b->usable)
		return error_set(
			error, BTS_CORRUPT, 0, "no valid meta slot: A: %.100s; B: %.100s", a->text, b->text);
	if (!a->usable || !b->usable)
		return BTS_OK;
	if (memcmp(a->slot.record.database, b->slot.record.database, 16) ||
		a->slot.record.page_size != b->slot.record.page_size)
		return error_set(error, BTS_CORRUPT, 0, "the meta slots are of two databases");
	if (a->slot.sequence == b->slot.sequence)
		return error_set(error, BTS_CORRUPT, 0, "the meta slots have one sequence number, %llu",
			(unsigned long long)a->slot.sequence);
	return BTS_OK;
}

static uint64_t recover_needed(const struct meta_slot *slot)
{
	return slot->record.high_water * slot->record.page_size;
}

/* One run into bytes; *matches says whether it is there as the manifest says.  Past the end is a mismatch. */
static enum bts_err recover_read_run(struct bts_env *env, struct bts_file *file, const struct meta_slot *slot,
	const struct meta_run *run, uint8_t *bytes, bool *matches, struct bts_error *error)
{
	size_t size = (size_t)run->count * slot->record.page_size, got;
	int os;

	ENSURE(size <= META_MANIFEST_BYTES);
	os = env->ops->file_pread(file, bytes, size, run->pgno * slot->record.page_size, &got);
	if (os)
		return error_set(error, BTS_IO, os,
			"reading %u pages from page %llu for the manifest: errno %d", run->count,
			(unsigned long long)run->pgno, os);
	*matches = got == size && crc32c(0, bytes, size) == run->crc;
	return BTS_OK;
}

/*
 * Is everything that this slot needs in the file?  *missing (when false) is the first run that is not, or
 * NULL when the file is too short.  mode: the slot's own (I9).
 */
static enum bts_err recover_verify(struct bts_env *env, struct bts_file *file, struct recover_pair *pair,
	const struct meta_slot *slot, enum meta_mode mode, const struct meta_run **missing, bool *whole,
	struct bts_error *error)
{
	enum bts_err err;

	*missing = NULL;
	*whole = pair->file_size >= recover_needed(slot) || SABOTAGE(FAULT_I3_NO_VERIFY);
	if (mode != META_ONE_FLUSH || SABOTAGE(FAULT_I3_NO_VERIFY))
		return BTS_OK;
	for (uint32_t i = 0; *whole && i < slot->manifest_count; i++) {
		err = recover_read_run(env, file, slot, &slot->manifest[i], pair->run, whole, error);
		if (err)
			return err;
		if (!*whole)
			*missing = &slot->manifest[i];
	}
	return BTS_OK;
}

static enum bts_err recover_incomplete(const struct recover_pair *pair, unsigned index,
	const struct meta_run *missing, struct bts_error *error)
{
	const struct meta_slot *slot = &pair->side[index].slot;

	if (missing)
		return error_set(error, BTS_CORRUPT, 0,
			"meta %c (transaction %llu): pages %llu to %llu are not what was written",
			recover_name(index), (unsigned long long)slot->record.txid,
			(unsigned long long)missing->pgno,
			(unsigned long long)(missing->pgno + missing->count - 1));
	return error_set(error, BTS_CORRUPT, 0,
		"meta %c (transaction %llu): the file has %llu bytes and needs %llu", recover_name(index),
		(unsigned long long)slot->record.txid, (unsigned long long)pair->file_size,
		(unsigned long long)recover_needed(slot));
}

/* Both slots are one state, sealed by the newer: then the last process closed in order (I10). */
static bool recover_sealed(const struct meta_slot *newest, const struct meta_slot *other)
{
	uint8_t bytes[2][BTS_RECORD_MAX];
	size_t size[2];

	if (newest->mode != META_SEAL || newest->durable_sequence != other->sequence)
		return false;
	size[0] = meta_record_encode(&newest->record, bytes[0]);
	size[1] = meta_record_encode(&other->record, bytes[1]);
	return size[0] == size[1] && !memcmp(bytes[0], bytes[1], size[0]);
}

static void recover_accept(struct recover_state *state, const struct recover_pair *pair, unsigned index)
{
	memset(state, 0, sizeof(*state));
	state->slot = pair->side[index].slot;
	state->index = index;
	for (unsigned i = 0; i < 2; i++) {
		const struct meta_slot *slot = &pair->side[i].slot;

		if (!pair->side[i].usable)
			continue;
		if (slot->record.txid > state->highest)
			state->highest = slot->record.txid;
		if (slot->sequence > state->sequence)
			state->sequence = slot->sequence;
	}
}

static enum bts_err recover_judge(struct bts_env *env, struct bts_file *file, struct recover_pair *pair,
	struct recover_state *state, struct bts_error *error)
{
	const struct meta_run *missing;
	const struct meta_slot *newest, *other;
	unsigned n = pair->side[0].usable ? 0 : 1;
	bool both = pair->side[0].usable && pair->side[1].usable, whole;
	enum meta_mode mode;
	enum bts_err err;

	if (both && pair->side[1].slot.sequence > pair->side[0].slot.sequence)
		n = 1;
	newest = &pair->side[n].slot;
	other = &pair->side[!n].slot;
	mode = SABOTAGE(FAULT_I9_FOREIGN_MODE) && both ? other->mode : newest->mode;
	err = recover_verify(env, file, pair, newest, mode, &missing, &whole, error);
	if (err)
		return err;
	if (whole) {
		recover_accept(state, pair, n);
		state->clean = both && recover_sealed(newest, other);
		state->fell_back = !both;
		return BTS_OK;
	}
	if (!both || newest->mode != META_ONE_FLUSH)
		return recover_incomplete(pair, n, missing, error);
	if (other->record.txid != newest->durable || other->sequence != newest->durable_sequence)
		return error_set(error, BTS_CORRUPT, 0,
			"meta %c (transaction %llu) is incomplete and names transaction %llu as the one "
			"before, but meta %c holds %llu",
			recover_name(n), (unsigned long long)newest->record.txid,
			(unsigned long long)newest->durable, recover_name(!n),
			(unsigned long long)other->record.txid);
	err = recover_verify(env, file, pair, other, other->mode, &missing, &whole, error);
	if (err)
		return err;
	if (!whole)
		return recover_incomplete(pair, !n, missing, error);
	recover_accept(state, pair, !n);
	state->fell_back = true;
	return BTS_OK;
}

enum bts_err recover_choose(
	struct bts_env *env, struct bts_file *file, struct recover_state *state, struct bts_error *error)
{
	struct recover_pair *pair = NULL;
	enum bts_err err;

	err = recover_fault(env, "recover.choose", error);
	if (!err)
		err = recover_read_pair(env, file, &pair, error);
	if (!err)
		err = recover_refuse(pair, error);
	if (!err)
		err = recover_judge(env, file, pair, state, error);
	env->ops->memory(env, pair, 0);
	return err;
}

static enum bts_err recover_judge_heir(struct bts_env *env, struct bts_file *file, struct recover_pair *pair,
	unsigned d, bts_txid durable, struct recover_state *state, struct bts_error *error)
{
	const struct meta_slot *held = &pair->side[d].slot, *other = &pair->side[!d].slot;
	const struct meta_run *missing;
	bool whole = false;
	enum bts_err err;

	if (!pair->side[d].usable || held->record.txid != durable)
		return error_set(error, BTS_CORRUPT, 0,
			"meta %c does not hold transaction %llu, which was durable: %s", recover_name(d),
			(unsigned long long)durable, pair->side[d].text);
	if (pair->side[!d].usable && other->sequence > held->sequence) {
		if (other->durable != durable || other->durable_sequence != held->sequence)
			return error_set(error, BTS_CORRUPT, 0,
				"meta %c does not name transaction %llu, which was durable", recover_name(!d),
				(unsigned long long)durable);
		err = recover_verify(env, file, pair, other, other->mode, &missing, &whole, error);
		if (err)
			return err;
	}
	recover_accept(state, pair, whole ? !d : d);
	state->fell_back = !whole && (!pair->side[!d].usable || other->sequence > held->sequence);
	return BTS_OK;
}

enum bts_err recover_inherit(struct bts_env *env, struct bts_file *file, unsigned durable_index,
	bts_txid durable, struct recover_state *state, struct bts_error *error)
{
	struct recover_pair *pair = NULL;
	enum bts_err err;

	ENSURE(durable_index < 2);
	err = recover_fault(env, "recover.inherit", error);
	if (!err)
		err = recover_read_pair(env, file, &pair, error);
	if (!err)
		err = recover_refuse(pair, error);
	if (!err)
		err = recover_judge_heir(env, file, pair, durable_index, durable, state, error);
	env->ops->memory(env, pair, 0);
	return err;
}

static enum bts_err recover_write(struct bts_env *env, struct bts_file *file, void *data, size_t size,
	uint64_t offset, const char *what, struct bts_error *error)
{
	struct iovec iov = {data, size};
	int os = env->ops->file_pwritev(file, &iov, 1, offset);

	return os ? error_os(error, os, "writing %s at offset %llu", what, (unsigned long long)offset)
		  : BTS_OK;
}

enum bts_err recover_write_slot(struct bts_env *env, struct bts_file *file, unsigned index,
	const struct meta_slot *slot, struct bts_error *error)
{
	uint8_t bytes[LAYOUT_META_SIZE];

	ENSURE(index < 2);
	meta_slot_encode(slot, bytes);
	return recover_write(
		env, file, bytes, sizeof(bytes), recover_offset(index), index ? "meta B" : "meta A", error);
}

/*
 * The slot's bytes are taken from the file again, not encoded anew: options that this library does not know
 * must survive being rewritten (I5: unchanged).
 */
static enum bts_err recover_rewrite_slot(struct bts_env *env, struct bts_file *file,
	const struct recover_state *state, struct bts_error *error)
{
	uint8_t bytes[LAYOUT_META_SIZE];
	struct meta_slot *slot;
	size_t got;
	enum bts_err err;
	int os;

	slot = env->ops->memory(env, NULL, sizeof(*slot));
	if (!slot)
		return error_set(error, BTS_MEMORY, 0, "no memory for recovery");
	os = env->ops->file_pread(file, bytes, sizeof(bytes), recover_offset(state->index), &got);
	if (os)
		err = error_set(
			error, BTS_IO, os, "reading meta slot %c: errno %d", recover_name(state->index), os);
	else if (got < sizeof(bytes))
		err = error_set(error, BTS_CORRUPT, 0,
			"meta slot %c: the file was cut short while it was being opened",
			recover_name(state->index));
	else
		err = meta_slot_decode(bytes, slot, error);
	if (!err && (slot->sequence != state->slot.sequence || slot->record.txid != state->slot.record.txid))
		err = error_set(error, BTS_CORRUPT, 0, "meta slot %c changed while it was being opened",
			recover_name(state->index));
	if (!err && SABOTAGE(FAULT_I5_RELABEL)) {
		slot->mode = META_TWO_FLUSH;
		slot->manifest_count = 0;
		meta_slot_encode(slot, bytes);
	}
	if (!err)
		err = recover_write(env, file, bytes, sizeof(bytes), recover_offset(state->index),
			"the accepted meta", error);
	env->ops->memory(env, slot, 0);
	return err;
}

static enum bts_err recover_rewrite_runs(struct bts_env *env, struct bts_file *file,
	const struct meta_slot *slot, uint8_t *bytes, struct bts_error *error)
{
	for (uint32_t i = 0; i < slot->manifest_count; i++) {
		const struct meta_run *run = &slot->manifest[i];
		enum bts_err err;
		bool matches = false;

		err = recover_read_run(env, file, slot, run, bytes, &matches, error);
		if (err)
			return err;
		if (!matches)
			return error_set(error, BTS_CORRUPT, 0, "page %llu changed while it was being opened",
				(unsigned long long)run->pgno);
		err = recover_write(env, file, bytes, (size_t)run->count * slot->record.page_size,
			run->pgno * slot->record.page_size, "a page of the accepted commit", error);
		if (err)
			return err;
	}
	return BTS_OK;
}

enum bts_err recover_rewrite(struct bts_env *env, struct bts_file *file, const struct recover_state *state,
	struct bts_error *error)
{
	uint8_t *bytes = NULL;
	enum bts_err err;

	if (SABOTAGE(FAULT_I6_NO_REWRITE))
		return BTS_OK;
	err = recover_fault(env, "recover.rewrite", error);
	if (err)
		return err;
	if (state->slot.mode == META_ONE_FLUSH && state->slot.manifest_count) {
		bytes = env->ops->memory(env, NULL, META_MANIFEST_BYTES);
		if (!bytes)
			return error_set(error, BTS_MEMORY, 0, "no memory for recovery");
		err = recover_rewrite_runs(env, file, &state->slot, bytes, error);
	}
	if (!err)
		err = recover_rewrite_slot(env, file, state, error);
	if (!err)
		err = recover_fault(env, "recover.rewritten", error);
	if (!err)
		err = recover_sync(env, file, "the rewritten commit", error);
	if (bytes)
		env->ops->memory(env, bytes, 0);
	return err;
}

/* durable: the transaction in the slot at state->index as the file has it. */
static enum bts_err recover_envelope_over(struct bts_env *env, struct bts_file *file,
	struct recover_state *state, enum meta_mode mode, bts_txid durable, struct bts_error *error)
{
	struct meta_slot *slot = &state->slot;
	uint64_t sequence = (state->sequence > slot->sequence ? state->sequence : slot->sequence) + 1;
	enum bts_err err;

	ENSURE(mode == META_TWO_FLUSH || mode == META_SEAL);
	err = recover_fault(env, mode == META_SEAL ? "recover.seal" : "recover.envelope", error);
	if (!err)
		err = recover_sync(env, file, "before an envelope write", error);
	if (err)
		return err;
	slot->durable = durable;
	slot->durable_sequence = slot->sequence;
	slot->sequence = sequence;
	slot->mode = mode;
	slot->manifest_count = 0;
	err = recover_write_slot(env, file, !state->index, slot, error);
	if (!err)
		err = recover_fault(env, "recover.envelope.written", error);
	if (!err)
		err = recover_sync(env, file, "an envelope write", error);
	if (err)
		return err;
	state->index = !state->index;
	state->sequence = sequence;
	if (slot->record.txid > state->highest)
		state->highest = slot->record.txid;
	return recover_fault(env, "recover.envelope.done", error);
}

enum bts_err recover_envelope(struct bts_env *env, struct bts_file *file, struct recover_state *state,
	enum meta_mode mode, struct bts_error *error)
{
	return recover_envelope_over(env, file, state, mode, state->slot.record.txid, error);
}

/* A commit without pages, numbered first: the numbers between are noted as a gap of the epoch so far. */
static enum bts_err recover_jump(struct bts_env *env, struct bts_file *file, struct recover_state *state,
	const struct recover_epoch *epoch, bts_txid first, struct bts_error *error)
{
	struct commit_record *record = &state->slot.record;
	bts_txid last = record->txid;
	enum bts_err err;

	ENSURE(state->slot.role == META_PRIMARY);
	err = recover_fault(env, "recover.opening", error);
	if (err)
		return err;
	if (first >= LAYOUT_TXID_LIMIT)
		return error_set(error, BTS_FULL, 0, "no transaction numbers left after %llu",
			(unsigned long long)last);
	history_segment_add(record, last, record->chain, first);
	if (epoch) {
		record->epoch = epoch->number ? epoch->number : record->epoch + 1;
		record->epoch_random = epoch->random;
		state->slot.inode = epoch->inode;
		state->slot.birth_ns = epoch->birth_ns;
	}
	record->txid = first;
	record->time_ms = env->ops->realtime_ms(env);
	history_chain(record, NULL, 0);
	history_append(record);
	return recover_envelope_over(env, file, state, META_TWO_FLUSH, last, error);
}

static bts_txid recover_top(const struct recover_state *state)
{
	bts_txid last = state->slot.record.txid;

	return state->highest > last ? state->highest : last;
}

enum bts_err recover_opening_commit(
	struct bts_env *env, struct bts_file *file, struct recover_state *state, struct bts_error *error)
{
	bts_txid jump = SABOTAGE(FAULT_I4_NO_JUMP) ? 1 : META_JUMP;

	return recover_jump(env, file, state, NULL, recover_top(state) + jump, error);
}

enum bts_err recover_new_epoch(struct bts_env *env, struct bts_file *file, struct recover_state *state,
	const struct recover_epoch *epoch, struct bts_error *error)
{
	/*
	 * By the epochs passed, not by one: a branch on which several epochs began, and which nobody replicated, must not
	 * have numbers above those of the epoch that is later than all of them, or it could never be rewound to that.
	 */
	bts_txid epochs = epoch->number > state->slot.record.epoch ? epoch->number - state->slot.record.epoch : 1;
	bts_txid jump = epochs * META_EPOCH_JUMP + (epoch->random & 0xffff) + !(epoch->random & 1);

	if (state->slot.record.epoch == UINT32_MAX || (epoch->number && epoch->number <= state->slot.record.epoch))
		return error_set(error, BTS_FULL, 0, "no epoch above %u can begin", state->slot.record.epoch);
	return recover_jump(env, file, state, epoch, recover_top(state) + jump, error);
}
