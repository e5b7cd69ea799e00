/* What a follower asks is what a source understands; anything else is named. */
#include "cmocka.h"

#include <stdio.h>
#include <stdlib.h>

#include "position.h"
#include "query.h"

/* As a server takes the target apart: at '&' and the first '=', nothing decoded. */
static enum bts_err decode(const char *target, struct query *query, struct bts_error *error)
{
	struct query_decoder decoder;
	char *copy = strdup(strchr(target, '?') + 1), *save = NULL, *part, *value;
	enum bts_err err = BTS_OK;

	query_decode_start(&decoder);
	for (part = strtok_r(copy, "&", &save); part && !err; part = strtok_r(NULL, "&", &save)) {
		value = strchr(part, '=');
		if (value)
			*value++ = '\0';
		err = query_decode(&decoder, part, value, error);
	}
	if (!err)
		err = query_decode_finish(&decoder, error);
	*query = decoder.query;
	free(copy);
	return err;
}

static void round_trip(void **state)
{
	struct query query, back;
	struct bts_error error;
	char target[QUERY_TARGET_SIZE];

	(void)state;
	memset(&query, 0, sizeof(query));
	memset(query.after.database, 0x5a, 16);
	memset(query.after.chain, 0xc3, 16);
	query.has_database = true;
	query.after.epoch = UINT32_MAX;
	query.after.epoch_random = UINT64_C(0xfedcba9876543210);
	query.after.txid = POSITION_TXID_MAX;
	memset(query.follower, 'n', BTS_ACK_NAME_MAX);
	/* The longest and most escaped fields still fit. */
	memset(query.url, '&', sizeof(query.url) - 1);
	query.session = 1;
	query.wait_ms = 1500;
	query.zstd = query.lean = true;
	query_encode(&query, target);
	assert_true(strlen(target) < QUERY_TARGET_SIZE - 1);
	assert_int_equal(decode(target, &back, &error), BTS_OK);
	assert_true(position_equal(&query.after, &back.after));
	assert_string_equal(query.follower, back.follower);
	assert_string_equal(query.url, back.url);
	assert_true(query.session == back.session);
	assert_int_equal(query.wait_ms, back.wait_ms);
	assert_true(back.zstd && back.lean);

	memset(&query, 0, sizeof(query));
	query_encode(&query, target);
	assert_string_equal(target, QUERY_PATH "?after=0&wait=0ms");
	assert_int_equal(decode(target, &back, &error), BTS_OK);
	assert_false(back.has_database || back.zstd || back.lean);
}

static void refused(const char *arguments, const char *text)
{
	struct query query;
	struct bts_error error;
	char target[512];

	snprintf(target, sizeof(target), "/x?%s", arguments);
	if (decode(target, &query, &error) != BTS_INVALID)
		fail_msg("'%s' was taken", arguments);
	if (!strstr(error.text, text))
		fail_msg("'%s': '%s' does not say '%s'", arguments, error.text, text);
}

static void malformed(void **state)
{
	(void)state;
	refused("wait=1s", "'after' is missing");
	refused("after=1", "needs 'epoch' and 'chain'");
	refused("after=0&epoch=1-0000000000000001", "neither");
	refused("after=0&after=0", "twice");
	refused("after=0&lean=1", "no 'lean'");
	refused("after=0&zstd=2", "'zstd' is malformed");
	refused("after=5&epoch=1-0000000000000001&chain=00000000000000000000000000000000&lean=0", "'lean' is malformed");
	refused("after=0&colour=red", "unknown parameter 'colour'");
	refused("after", "'after' is malformed");
	refused("after=", "'after' is malformed");
	refused("after=-1", "'after' is malformed");
	refused("after=+1", "'after' is malformed");
	refused("after=281474976710656", "'after' is malformed");
	refused("after=99999999999999999999999", "'after' is malformed");
	refused("after=%3", "'after' is malformed");
	refused("after=%zz", "'after' is malformed");
	refused("after=0&follower=a%00b", "'follower' is malformed");
	refused("after=0&follower=a%20b", "'follower' is malformed");
	refused("after=0&follower=", "'follower' is malformed");
	refused("after=0&follower=:archive", "'follower' is malformed"); /* no node can be taken for the archive */
	refused("after=0&follower=%3Aarchive", "'follower' is malformed");
	refused("after=0&url=http://x/%22", "'url' is malformed");
	refused("after=0&url=http://me:secret%40x/", "'url' is malformed");
	refused("after=0&database=00", "'database' is malformed");
	refused("after=0&wait=61s", "'wait' is malformed");
	refused("after=0&wait=10", "'wait' is malformed");
	refused("after=0&wait=1m", "'wait' is malformed");
	refused("after=0&session=xyz", "'session' is malformed");
	refused("after=5&epoch=1&chain=00", "'epoch' is malformed");
	refused("after=5&epoch=4294967296-0000000000000001&chain=00", "'epoch' is malformed");
}

static void positions_compare(void **state)
{
	struct bts_position a, b;

	(void)state;
	memset(&a, 0, sizeof(a));
	a.txid = 7;
	b = a;
	assert_true(position_equal(&a, &b));
	b.chain[15] = 1;
	assert_false(position_equal(&a, &b));
	b = a;
	b.epoch_random = 1;
	assert_false(position_equal(&a, &b));
	a.txid = b.txid = 0;
	assert_true(position_equal(&a, &b));
	b.database[0] = 1;
	assert_false(position_equal(&a, &b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(malformed),
		cmocka_unit_test(positions_compare),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
