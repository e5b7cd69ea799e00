/* The books of the torture: what was acknowledged, what was in flight, and whether the file agrees. */
#include "torture.h"

#include "cmocka.h"
#include <inttypes.h>
#include <stdio.h>

static void books_apply(uint64_t own[TORTURE_OWN], const struct torture_intent *intent)
{
	for (unsigned i = 0; i < intent->count; i++)
		if (intent->changes[i].kind == TORTURE_SET_OWN)
			own[intent->changes[i].index] = (uint64_t)intent->changes[i].value;
}

/* The first `count` intents of the place happened; the rest stays. */
static void books_happened(struct torture_books *books, unsigned place, unsigned count)
{
	for (unsigned n = 0; n < count; n++) {
		const struct torture_intent *intent = &books->places[place].intents[n];

		books_apply(books->places[place].own, intent);
		for (unsigned i = 0; i < intent->count; i++) {
			const struct torture_change *change = &intent->changes[i];

			if (change->kind == TORTURE_ADD_COUNTER)
				books->counters[change->index] += change->value;
			if (change->kind == TORTURE_ADD_ACCOUNT)
				books->accounts[change->index] += change->value;
		}
	}
	books->places[place].count -= count;
	memmove(books->places[place].intents, books->places[place].intents + count,
		books->places[place].count * sizeof(books->places[place].intents[0]));
}

/* The newest intent, which has this stamp. */
static struct torture_intent *books_newest(struct torture_books *books, unsigned place, uint64_t stamp)
{
	unsigned count = books->places[place].count;

	assert_true(count > 0);
	assert_int_equal(books->places[place].intents[count - 1].stamp, stamp);
	return &books->places[place].intents[count - 1];
}

void torture_books_intent(struct torture_books *books, unsigned place, const struct torture_message *message)
{
	unsigned count = books->places[place].count;
	struct torture_intent *intent = &books->places[place].intents[count];

	if (count > 0 && intent[-1].stamp == message->stamp) {
		intent--;
	} else {
		assert_in_range(count, 0, sizeof(books->places[place].intents) / sizeof(*intent) - 1);
		books->places[place].count++;
	}
	intent->stamp = message->stamp;
	intent->async = false;
	intent->count = (unsigned)((message->size - offsetof(struct torture_message, u)) /
				   sizeof(struct torture_change));
	memcpy(intent->changes, message->u.changes, intent->count * sizeof(struct torture_change));
}

void torture_books_ack(struct torture_books *books, unsigned place, uint64_t stamp)
{
	books_newest(books, place, stamp);
	books->acknowledged += books->places[place].count;
	books_happened(books, place, books->places[place].count);
}

void torture_books_async(struct torture_books *books, unsigned place, uint64_t stamp)
{
	books_newest(books, place, stamp)->async = true;
}

void torture_books_abandon(struct torture_books *books, unsigned place, uint64_t stamp)
{
	books_newest(books, place, stamp);
	books->places[place].count--;
}

static void books_complain(const struct torture_books *books, unsigned place, const uint64_t own[TORTURE_OWN])
{
	fprintf(stderr, "place %u is not what was acknowledged (%u intents open):\n", place,
		books->places[place].count);
	for (unsigned i = 0; i < TORTURE_OWN; i++)
		if (own[i] != books->places[place].own[i])
			fprintf(stderr, "  key %u: stamp %" PRIx64 ", acknowledged %" PRIx64 "\n", i, own[i],
				books->places[place].own[i]);
	for (unsigned n = 0; n < books->places[place].count; n++) {
		const struct torture_intent *intent = &books->places[place].intents[n];

		fprintf(stderr, "  intent %" PRIx64 "%s:", intent->stamp, intent->async ? " (async)" : "");
		for (unsigned i = 0; i < intent->count; i++)
			fprintf(stderr, " %u.%u=%" PRIx64, intent->changes[i].kind, intent->changes[i].index,
				(uint64_t)intent->changes[i].value);
		fputc('\n', stderr);
	}
}

bool torture_books_settle(struct torture_books *books, unsigned place, const uint64_t own[TORTURE_OWN])
{
	unsigned count = books->places[place].count;

	for (unsigned kept = count + 1; kept-- > 0;) {
		uint64_t expected[TORTURE_OWN];

		memcpy(expected, books->places[place].own, sizeof(expected));
		for (unsigned n = 0; n < kept; n++)
			books_apply(expected, &books->places[place].intents[n]);
		if (memcmp(expected, own, sizeof(expected)) != 0)
			continue;
		for (unsigned n = kept; n < count; n++)
			books->async_lost += books->places[place].intents[n].async;
		books->in_flight_kept += kept;
		books->in_flight_lost += count - kept;
		books_happened(books, place, kept);
		books->places[place].count = 0;
		return true;
	}
	books_complain(books, place, own);
	return false;
}

bool torture_books_shared(const struct torture_books *books, const struct torture_shared *shared)
{
	bool right = true;

	for (unsigned i = 0; i < TORTURE_COUNTERS; i++) {
		if (shared->counters[i] == books->counters[i])
			continue;
		fprintf(stderr, "counter %u is %" PRId64 ", acknowledged %" PRId64 "\n", i,
			shared->counters[i], books->counters[i]);
		right = false;
	}
	for (unsigned i = 0; i < TORTURE_ACCOUNTS; i++) {
		if (shared->accounts[i] == books->accounts[i])
			continue;
		fprintf(stderr, "account %u holds %" PRId64 ", acknowledged %" PRId64 "\n", i,
			shared->accounts[i], books->accounts[i]);
		right = false;
	}
	return right;
}
