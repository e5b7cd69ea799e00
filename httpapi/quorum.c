/* What a write asks for, and how far the copies are. */
#include "quorum.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

static int quorum_name_valid(const char *name, size_t size)
{
	static const char known[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_";
	size_t i;

	if (!size || size > BTS_ACK_NAME_MAX)
		return 0;
	for (i = 0; i < size; i++)
		if (!name[i] || !strchr(known, name[i]))
			return 0;
	return 1;
}

static int quorum_compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

int quorum_init(struct quorum *q, const char *self, const char *members)
{
	size_t size, i;

	memset(q, 0, sizeof(*q));
	size = strlen(self);
	if (size > BTS_ACK_NAME_MAX)
		return -1;
	memcpy(q->self, self, size);
	for (; members; members = members[size] ? members + size + 1 : NULL) {
		size = strcspn(members, ",");
		if (!quorum_name_valid(members, size))
			return -1;
		if (size == strlen(self) && !memcmp(members, self, size))
			continue;
		if (q->count == QUORUM_MAX)
			return -1;
		memcpy(q->members[q->count++], members, size);
	}
	qsort(q->members, q->count, sizeof(q->members[0]), quorum_compare);
	for (i = 1; i < q->count; i++)
		if (!strcmp(q->members[i - 1], q->members[i]))
			return -1;
	return 0;
}

unsigned quorum_most(const struct quorum *q)
{
	return q->count ? (unsigned)q->count : QUORUM_MAX;
}

static int quorum_counts(const struct quorum *q, const char *node)
{
	if (!strcmp(node, q->self) || strchr(node, ':'))
		return 0;
	return !q->count || bsearch(node, q->members, q->count, sizeof(q->members[0]), quorum_compare);
}

void quorum_levels(const struct quorum *q, const struct bts_ack *acks, size_t count,
	const struct bts_position *epoch, bts_txid levels[QUORUM_LEVELS])
{
	size_t i, k, have = 0;

	memset(levels, 0, QUORUM_LEVELS * sizeof(levels[0]));
	for (i = 0; i < count; i++) {
		/* A number of another epoch may name a commit of another history (R3). */
		if (acks[i].epoch != epoch->epoch || acks[i].epoch_random != epoch->epoch_random)
			continue;
		if (!strcmp(acks[i].node, BTS_ACK_ARCHIVE))
			levels[QUORUM_ARCHIVE - 1] = acks[i].txid;
		if (!quorum_counts(q, acks[i].node) || have == QUORUM_MAX)
			continue;
		/* Sorted in, the greatest first. */
		for (k = have++; k > 0 && levels[k - 1] < acks[i].txid; k--)
			levels[k] = levels[k - 1];
		levels[k] = acks[i].txid;
	}
}

int quorum_parse(const char *text, size_t size, unsigned *copies)
{
	static const char prefix[] = "replicated:";
	size_t skip = sizeof(prefix) - 1;
	uint64_t k;

	*copies = 0;
	if (size == 5 && !memcmp(text, "local", 5))
		return 0;
	if (size == 8 && !memcmp(text, "archived", 8)) {
		*copies = QUORUM_ARCHIVE;
		return 0;
	}
	if (size <= skip || memcmp(text, prefix, skip) ||
		text_u64(text + skip, size - skip, QUORUM_MAX, &k) || !k)
		return -1;
	*copies = (unsigned)k;
	return 0;
}

void quorum_text(unsigned copies, char out[QUORUM_TEXT_SIZE])
{
	if (!copies || copies == QUORUM_ARCHIVE)
		strcpy(out, copies ? "archived" : "local");
	else
		snprintf(out, QUORUM_TEXT_SIZE, "replicated:%u", copies);
}
