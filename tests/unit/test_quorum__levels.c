/* Copies of a write: what counts as one, and how many can be asked for. */
#include "cmocka.h"

#include <stdio.h>
#include <string.h>

#include "quorum.h"

static const struct bts_position epoch = {.epoch = 3, .epoch_random = 33};

static struct bts_ack ack(const char *node, bts_txid txid)
{
	struct bts_ack it = {.txid = txid, .epoch = 3, .epoch_random = 33};

	snprintf(it.node, sizeof(it.node), "%s", node);
	return it;
}

static void test_any_named_node(void **state)
{
	struct bts_ack acks[] = {ack("a", 5), ack("self", 99), ack("b", 9), ack("c", 7)};
	bts_txid levels[QUORUM_LEVELS];
	struct quorum q;

	(void)state;
	assert_int_equal(quorum_init(&q, "self", NULL), 0);
	assert_int_equal(quorum_most(&q), QUORUM_MAX);
	quorum_levels(&q, acks, 4, &epoch, levels);
	assert_int_equal(levels[0], 9);
	assert_int_equal(levels[1], 7);
	assert_int_equal(levels[2], 5);
	assert_int_equal(levels[3], 0); /* its own copy is none */
	quorum_levels(&q, acks, 0, &epoch, levels);
	assert_int_equal(levels[0], 0);
}

static void test_members_alone(void **state)
{
	struct bts_ack acks[] = {ack("a", 5), ack("stranger", 99), ack("b", 9)};
	bts_txid levels[QUORUM_LEVELS];
	struct quorum q;

	(void)state;
	assert_int_equal(quorum_init(&q, "self", "self,b,a,z"), 0);
	assert_int_equal(quorum_most(&q), 3);
	quorum_levels(&q, acks, 3, &epoch, levels);
	assert_int_equal(levels[0], 9);
	assert_int_equal(levels[1], 5);
	assert_int_equal(levels[2], 0);
}

/* The archive has it: that is what its own level says, and no other. */
static void test_archive_is_no_node(void **state)
{
	struct bts_ack acks[] = {ack("a", 5), ack(":archive", 9), ack("b:c", 8)};
	bts_txid levels[QUORUM_LEVELS];
	struct quorum q;

	(void)state;
	assert_int_equal(quorum_init(&q, "self", NULL), 0);
	quorum_levels(&q, acks, 3, &epoch, levels);
	assert_int_equal(levels[0], 5);
	assert_int_equal(levels[1], 0);
	assert_int_equal(levels[QUORUM_ARCHIVE - 1], 9);
	acks[1].epoch = 2;
	quorum_levels(&q, acks, 3, &epoch, levels);
	assert_int_equal(levels[QUORUM_ARCHIVE - 1], 0); /* of a history that is no longer this one */
	assert_int_equal(quorum_init(&q, "self", "a,:archive"), -1);
}

static void test_other_histories(void **state)
{
	struct bts_ack acks[] = {ack("a", 100), ack("b", 100), ack("c", 100)};
	bts_txid levels[QUORUM_LEVELS];
	struct quorum q;

	(void)state;
	acks[0].epoch = 2;
	acks[1].epoch = 4;
	acks[2].epoch_random = 34;
	assert_int_equal(quorum_init(&q, "self", NULL), 0);
	quorum_levels(&q, acks, 3, &epoch, levels);
	assert_int_equal(levels[0], 0);
}

static void test_member_lists(void **state)
{
	static const char *const bad[] = {"", ",", "a,", ",a", "a,,b", "a,b,a", "a b", "a/b"};
	char longest[BTS_ACK_NAME_MAX + 2], many[QUORUM_MAX * 4 + 8];
	struct quorum q;
	size_t i, at = 0;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(quorum_init(&q, "self", bad[i]), -1);
	memset(longest, 'x', sizeof(longest));
	longest[BTS_ACK_NAME_MAX] = '\0';
	assert_int_equal(quorum_init(&q, "self", longest), 0);
	longest[BTS_ACK_NAME_MAX] = 'x';
	longest[BTS_ACK_NAME_MAX + 1] = '\0';
	assert_int_equal(quorum_init(&q, "self", longest), -1);
	for (i = 0; i <= QUORUM_MAX; i++)
		at += (size_t)snprintf(many + at, sizeof(many) - at, "%s%zu", i ? "," : "", i);
	assert_int_equal(quorum_init(&q, "self", many), -1);
	*strrchr(many, ',') = '\0';
	assert_int_equal(quorum_init(&q, "self", many), 0);
	assert_int_equal(quorum_most(&q), QUORUM_MAX);
}

static void parses(const char *text, int want, unsigned want_copies)
{
	unsigned copies = 77;

	assert_int_equal(quorum_parse(text, strlen(text), &copies), want);
	assert_int_equal(copies, want_copies);
}

static void test_durability(void **state)
{
	(void)state;
	parses("local", 0, 0);
	parses("replicated:1", 0, 1);
	parses("replicated:64", 0, 64);
	parses("archived", 0, QUORUM_ARCHIVE);
	parses("archived:1", -1, 0);
	parses("", -1, 0);
	parses("Local", -1, 0);
	parses("replicated", -1, 0);
	parses("replicated:", -1, 0);
	parses("replicated:0", -1, 0);
	parses("replicated:65", -1, 0);
	parses("replicated:1x", -1, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_any_named_node),
		cmocka_unit_test(test_members_alone),
		cmocka_unit_test(test_archive_is_no_node),
		cmocka_unit_test(test_other_histories),
		cmocka_unit_test(test_member_lists),
		cmocka_unit_test(test_durability),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
