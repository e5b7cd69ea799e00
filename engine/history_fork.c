/*
 * Where two histories part (R3): what this file tells of its own, and the newest commit it has in common with another's.
 *
 * Histories are equal up to a point and have nothing in common behind it.  A history is a row of stretches, each of one epoch, with
 * gaps between: the segments.  Of the other one the commits before its gaps are known, where it stands, and a few more.  The newest
 * of these that is ours too is common, and the parting lies between it and the next of them: within one stretch of theirs.
 * There (epoch, number) names one state for ever, so the last commit of our own stretch of that epoch is common as well, when
 * theirs goes on beyond it.  That rests on numbers not being used twice, which a file that was set back behind the library's
 * back may have done: ship.h says what a caller looks at.
 */
#include "history.h"

struct fork_list {
	struct bts_segment *out;
	size_t cap, count;
	size_t skip; /* the oldest that find no room */
};

static void fork_count(void *arg, const struct history_segment *segment)
{
	struct fork_list *list = arg;

	(void)segment;
	list->count++;
}

static void fork_put(struct fork_list *list, const struct bts_segment *entry)
{
	if (list->count < list->cap)
		list->out[list->count] = *entry;
	list->count++;
}

static void fork_put_segment(void *arg, const struct history_segment *segment)
{
	struct fork_list *list = arg;
	struct bts_segment entry = {segment->epoch, segment->epoch_random, segment->last, segment->first, {0}};

	memcpy(entry.chain, segment->chain, 16);
	if (list->skip > 0)
		list->skip--;
	else
		fork_put(list, &entry);
}

/* The epoch of a commit is that of the first gap behind it. */
struct fork_stretch {
	bts_txid from;	   /* in: the first gap whose last commit is at or above this */
	bool found;
	struct history_segment end;
};

static void fork_stretch_end(void *arg, const struct history_segment *segment)
{
	struct fork_stretch *stretch = arg;

	if (segment->last < stretch->from || (stretch->found && segment->last >= stretch->end.last))
		return;
	stretch->found = true;
	stretch->end = *segment;
}

/* The stretch that begins at or before `from` and does not end before it: ours, up to the newest commit. */
static enum bts_err fork_stretch(
	struct tree_ctx *ctx, struct commit_record *record, bts_txid from, struct history_segment *end)
{
	struct fork_stretch stretch = {.from = from};
	enum bts_err err = history_each_segment(ctx, record, fork_stretch_end, &stretch);

	if (err)
		return err;
	*end = stretch.end;
	if (!stretch.found) {
		*end = (struct history_segment){.epoch = record->epoch,
			.epoch_random = record->epoch_random,
			.last = record->txid};
		memcpy(end->chain, record->chain, 16);
	}
	return BTS_OK;
}

static enum bts_err fork_sample(struct tree_ctx *ctx, struct commit_record *record, struct fork_list *list,
	bts_txid txid, const uint8_t chain[16])
{
	struct history_segment end;
	struct bts_segment entry;
	enum bts_err err = fork_stretch(ctx, record, txid, &end);

	if (err)
		return err;
	entry = (struct bts_segment){.epoch = end.epoch, .epoch_random = end.epoch_random, .last = txid};
	memcpy(entry.chain, chain, 16);
	fork_put(list, &entry);
	return BTS_OK;
}

static enum bts_err fork_samples(struct tree_ctx *ctx, struct commit_record *record, struct fork_list *list)
{
	bts_txid before = 0;
	enum bts_err err = BTS_OK;

	for (uint32_t i = 0; i < record->recent_count && !err; i++)
		err = fork_sample(ctx, record, list, record->recent[i].txid, record->recent[i].chain);
	for (unsigned shift = 0; shift < 48 && !err && record->txid >> shift; shift++) {
		bts_txid txid = record->txid - (UINT64_C(1) << shift);
		uint8_t chain[16];

		err = history_at_or_above(ctx, record, &txid, chain);
		if (err == BTS_NOT_FOUND) {
			err = BTS_OK;
		} else if (!err && txid != before) {
			before = txid;
			err = fork_sample(ctx, record, list, txid, chain);
		}
	}
	return err;
}

#define FORK_SAMPLES (META_RECENT_MAX + 48u) /* at most */

enum bts_err history_segments(
	struct tree_ctx *ctx, struct commit_record *record, struct bts_segment *out, size_t cap, size_t *count)
{
	struct fork_list all = {0}, list = {.out = out, .cap = cap};
	enum bts_err err = history_each_segment(ctx, record, fork_count, &all);

	if (!err && all.count + FORK_SAMPLES > cap)
		list.skip = cap > FORK_SAMPLES ? all.count + FORK_SAMPLES - cap : all.count;
	if (!err)
		err = history_each_segment(ctx, record, fork_put_segment, &list);
	if (!err)
		err = fork_samples(ctx, record, &list);
	if (!err)
		*count = list.count;
	return err;
}

static void fork_position(const struct commit_record *record, const struct bts_segment *entry, struct bts_position *out)
{
	memset(out, 0, sizeof(*out));
	memcpy(out->database, record->database, 16);
	out->epoch = entry->epoch;
	out->epoch_random = entry->epoch_random;
	out->txid = entry->last;
	memcpy(out->chain, entry->chain, 16);
}

struct fork_known {
	const struct bts_segment *entry;
	bool known;
};

static void fork_is_end(void *arg, const struct history_segment *segment)
{
	struct fork_known *known = arg;

	if (segment->last == known->entry->last && !memcmp(segment->chain, known->entry->chain, 16))
		known->known = true;
}

/* Segments stay when positions are thinned. */
static enum bts_err fork_known(
	struct tree_ctx *ctx, struct commit_record *record, const struct bts_segment *entry, bool *known)
{
	struct fork_known search = {.entry = entry};
	enum bts_standing standing;
	struct bts_position position;
	enum bts_err err;

	fork_position(record, entry, &position);
	*known = false;
	if (!entry->last || entry->last > record->txid)
		return BTS_OK;
	err = history_standing(ctx, record, &position, &standing);
	if (!err && standing == BTS_STANDING_BASE_UNKNOWN) {
		err = history_each_segment(ctx, record, fork_is_end, &search);
		*known = search.known;
	} else if (!err) {
		*known = standing == BTS_STANDING_KNOWN;
	}
	return err;
}

/* What is known of the other history, the newest common commit of it (best), and the next of it above that. */
struct fork_pair {
	struct bts_segment best, next;
	bts_txid resumes; /* where they went on after best */
};

static void fork_next(struct fork_pair *pair, const struct bts_segment *entry)
{
	if (entry->last > pair->best.last && (!pair->next.last || entry->last < pair->next.last))
		pair->next = *entry;
	if (entry->last == pair->best.last && entry->first > pair->resumes)
		pair->resumes = entry->first;
}

static enum bts_err fork_pair(struct tree_ctx *ctx, struct commit_record *record, const struct bts_segment *own,
	const struct bts_segment *entries, size_t count, struct fork_pair *pair)
{
	memset(pair, 0, sizeof(*pair));
	for (size_t i = 0; i <= count; i++) {
		const struct bts_segment *entry = i < count ? &entries[i] : own;
		bool known = false;
		enum bts_err err = entry->last > pair->best.last ? fork_known(ctx, record, entry, &known) : BTS_OK;

		if (err)
			return err;
		if (known)
			pair->best = *entry;
	}
	for (size_t i = 0; i <= count; i++)
		fork_next(pair, i < count ? &entries[i] : own);
	return BTS_OK;
}

/* Nothing is known but where it stands: the end of our newest stretch of that epoch below. */
struct fork_epoch {
	const struct bts_position *claimed;
	struct bts_segment best;
};

static void fork_epoch_end(void *arg, const struct history_segment *segment)
{
	struct fork_epoch *search = arg;

	if (segment->epoch != search->claimed->epoch || segment->epoch_random != search->claimed->epoch_random ||
		segment->last > search->claimed->txid || segment->last < search->best.last)
		return;
	search->best = (struct bts_segment){.epoch = segment->epoch,
		.epoch_random = segment->epoch_random,
		.last = segment->last};
	memcpy(search->best.chain, segment->chain, 16);
}

static enum bts_err fork_by_epoch(struct tree_ctx *ctx, struct commit_record *record,
	const struct bts_position *claimed, struct bts_segment *best)
{
	struct fork_epoch search = {.claimed = claimed};
	struct history_segment now = {.epoch = record->epoch, .epoch_random = record->epoch_random, .last = record->txid};
	enum bts_err err = history_each_segment(ctx, record, fork_epoch_end, &search);

	memcpy(now.chain, record->chain, 16);
	fork_epoch_end(&search, &now);
	/* At the claimed number itself with another chain: numbers were used twice, and nothing can be said. */
	if (!err && search.best.last == claimed->txid && memcmp(search.best.chain, claimed->chain, 16))
		memset(&search.best, 0, sizeof(search.best));
	*best = search.best;
	return err;
}

/* Beyond the newest known common commit: the end of our stretch, when it is one of theirs and they went on. */
static enum bts_err fork_advance(struct tree_ctx *ctx, struct commit_record *record, struct fork_pair *pair)
{
	bts_txid from = pair->resumes ? pair->resumes : pair->best.last + 1;
	struct history_segment gap, end;
	enum bts_err err;

	if (!pair->next.last)
		return BTS_OK;
	/* Our own gap behind the common commit, if there is one, must be theirs. */
	err = fork_stretch(ctx, record, pair->best.last, &gap);
	if (err)
		return err;
	if (pair->best.last && gap.last == pair->best.last && gap.first ? gap.first != pair->resumes : pair->resumes != 0)
		return BTS_OK;
	err = fork_stretch(ctx, record, from, &end);
	if (err || end.last < from || end.last >= pair->next.last || end.epoch != pair->next.epoch ||
		end.epoch_random != pair->next.epoch_random)
		return err;
	pair->best = (struct bts_segment){.epoch = end.epoch, .epoch_random = end.epoch_random, .last = end.last};
	memcpy(pair->best.chain, end.chain, 16);
	return BTS_OK;
}

enum bts_err history_fork(struct tree_ctx *ctx, struct commit_record *record, const struct bts_position *claimed,
	const struct bts_segment *segments, size_t count, struct bts_position *fork)
{
	struct bts_segment own = {
		.epoch = claimed->epoch, .epoch_random = claimed->epoch_random, .last = claimed->txid};
	struct fork_pair pair;
	bool known;
	enum bts_err err;

	memcpy(own.chain, claimed->chain, 16);
	if (memcmp(claimed->database, record->database, 16))
		return BTS_NOT_FOUND;
	err = fork_known(ctx, record, &own, &known);
	if (err)
		return err;
	memset(&pair, 0, sizeof(pair));
	if (known) {
		pair.best = own;
	} else if (segments == NULL) {
		err = fork_by_epoch(ctx, record, claimed, &pair.best);
	} else {
		err = fork_pair(ctx, record, &own, segments, count, &pair);
		if (!err)
			err = fork_advance(ctx, record, &pair);
	}
	if (err)
		return err;
	if (!pair.best.last)
		return BTS_NOT_FOUND;
	fork_position(record, &pair.best, fork);
	return BTS_OK;
}
