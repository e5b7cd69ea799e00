/* The rules of an election by hand: who is asked, how many are enough, who may not begin the epoch. */
#include "cmocka.h"

#include <string.h>

#include "elect.h"

static struct bts_position at(uint32_t epoch, bts_txid txid)
{
	struct bts_position position = {.epoch = epoch, .epoch_random = epoch * 7, .txid = txid};

	memset(position.database, 9, sizeof(position.database));
	memset(position.chain, (int)(txid % 251), sizeof(position.chain));
	return position;
}

static void promised(struct elect *elect, unsigned i, struct bts_position position)
{
	elect->members[i].answer = ELECT_PROMISED;
	elect->members[i].position = position;
}

static void test_members(void **state)
{
	struct bts_error error;
	struct elect elect;

	(void)state;
	assert_int_equal(elect_init(&elect, "", 0, &error), BTS_OK);
	assert_int_equal(elect.count, 0);
	assert_int_equal(elect_needed(&elect), 1);
	assert_int_equal(elect_init(&elect, "http://a:1/,https://b", 1, &error), BTS_OK);
	assert_int_equal(elect.count, 2);
	assert_string_equal(elect.members[0].url, "http://a:1");
	assert_string_equal(elect.members[1].url, "https://b");
	assert_int_equal(elect_init(&elect, "http://a,http://a/", 1, &error), BTS_INVALID);
	assert_int_equal(elect_init(&elect, "ftp://a", 0, &error), BTS_INVALID);
	assert_int_equal(elect_init(&elect, "http://", 0, &error), BTS_INVALID);
	assert_int_equal(elect_init(&elect, "http://a?x", 0, &error), BTS_INVALID);
	assert_int_equal(elect_init(&elect, "http://a,,http://b", 0, &error), BTS_INVALID);
	assert_int_equal(elect_init(&elect, "http://a", 2, &error), BTS_INVALID);
	assert_int_equal(elect_init(&elect, "h://1,h://2", 0, &error), BTS_INVALID);
	assert_int_equal(elect_init(&elect, "http://1,http://2,http://3,http://4,http://5,http://6,http://7,http://8,http://9,"
					    "http://10,http://11,http://12,http://13,http://14,http://15,http://16", 0, &error),
		BTS_INVALID);
}

static void test_number(void **state)
{
	struct bts_role own = {.position = at(3, 10), .promised = 5};
	struct bts_error error;
	struct elect elect;

	(void)state;
	assert_int_equal(elect_init(&elect, "http://a,http://b", 1, &error), BTS_OK);
	assert_int_equal(elect_number(&elect, &own), 6);
	elect.members[0].promised = 9;
	assert_int_equal(elect_number(&elect, &own), 10);
	elect.members[1].position = at(12, 1);
	assert_int_equal(elect_number(&elect, &own), 13);
	own.promised = UINT32_MAX - 1;
	assert_int_equal(elect_number(&elect, &own), UINT32_MAX);
	elect.members[0].promised = UINT32_MAX;
	assert_int_equal(elect_number(&elect, &own), 0);
}

/* Every N, K and set of those who promised: promoted exactly when any K + 1 holders of a write include one of them. */
static void test_quorum(void **state)
{
	char why[ELECT_WHY_SIZE];
	struct bts_error error;
	struct elect elect;

	(void)state;
	for (unsigned k = 0; k <= 3; k++) {
		for (unsigned set = 0; set < 8; set++) {
			unsigned out = 3;

			assert_int_equal(elect_init(&elect, "http://a,http://b,http://c", k, &error), BTS_OK);
			elect.own = at(1, 100);
			for (unsigned i = 0; i < 3; i++) {
				if (set & 1u << i) {
					promised(&elect, i, at(1, 90 + i));
					out--;
				}
			}
			/* A write is on K + 1 of the four; it may be on none who promised when that many are out. */
			assert_int_equal(elect_judge(&elect, why), out >= k + 1 ? ELECT_NO_QUORUM : ELECT_PROMOTE);
		}
	}
}

static void test_greatest(void **state)
{
	char why[ELECT_WHY_SIZE];
	struct bts_error error;
	struct elect elect;

	(void)state;
	assert_int_equal(elect_init(&elect, "http://a,http://b", 1, &error), BTS_OK);
	elect.own = at(2, 100);
	promised(&elect, 0, at(2, 101));
	assert_int_equal(elect_judge(&elect, why), ELECT_AHEAD);
	assert_non_null(strstr(why, "http://a"));
	promised(&elect, 1, at(3, 50));
	assert_int_equal(elect_judge(&elect, why), ELECT_AHEAD);
	assert_non_null(strstr(why, "http://b"));
	promised(&elect, 0, at(1, 5000)); /* an earlier epoch's numbers do not count */
	promised(&elect, 1, at(2, 100));
	assert_int_equal(elect_judge(&elect, why), ELECT_PROMOTE);
	elect.members[1].position.chain[3] ^= 1;
	assert_int_equal(elect_judge(&elect, why), ELECT_DIVERGED);
	promised(&elect, 1, at(2, 90));
	elect.members[1].position.epoch_random++;
	assert_int_equal(elect_judge(&elect, why), ELECT_DIVERGED);
	promised(&elect, 1, at(2, 90));
	elect.members[1].position.database[0]++;
	assert_int_equal(elect_judge(&elect, why), ELECT_DIVERGED);
	promised(&elect, 1, at(0, 0)); /* an empty follower */
	assert_int_equal(elect_judge(&elect, why), ELECT_PROMOTE);
}

static void test_outbid(void **state)
{
	char why[ELECT_WHY_SIZE];
	struct bts_error error;
	struct elect elect;

	(void)state;
	assert_int_equal(elect_init(&elect, "http://a,http://b", 0, &error), BTS_OK);
	elect.own = at(2, 100);
	elect.epoch = 5;
	elect.members[0].answer = ELECT_REFUSED;
	elect.members[0].promised = 7;
	promised(&elect, 1, at(2, 100));
	assert_int_equal(elect_judge(&elect, why), ELECT_OUTBID);
	assert_string_equal(elect_code(ELECT_OUTBID), "outbid");
	elect.survive = 1; /* enough without it */
	assert_int_equal(elect_judge(&elect, why), ELECT_PROMOTE);
	assert_string_equal(elect_code(ELECT_PROMOTE), "");
	assert_true(elect_is_outbid(&elect));
	assert_false(elect_is_tied(&elect));
	elect.epoch = 7;
	assert_true(elect_is_outbid(&elect));
	assert_true(elect_is_tied(&elect));
	elect.epoch = 8;
	assert_false(elect_is_outbid(&elect));
	assert_false(elect_is_tied(&elect));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_number),
		cmocka_unit_test(test_quorum),
		cmocka_unit_test(test_greatest),
		cmocka_unit_test(test_outbid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
