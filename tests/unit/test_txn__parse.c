/*
 * Bodies of transactions and multi-gets: what is taken, by what words the rest is refused, and that a corpus mutated and cut in
 * every way neither crashes nor passes anything that breaks the parser's promises.
 */
#include "cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"
#include "txn_parse.h"

#define OPS_MAX 12

static struct rng rng;

static const char *const corpus[] = {
	"{\"then\":[]}",
	"{\"if\":[{\"bucket\":\"b\",\"key\":\"k\",\"exists\":true}]}",
	"{\"if\":[{\"bucket\":\"b\",\"key\":\"k\",\"version\":0},{\"bucket_base64\":\"Yg==\",\"key_base64\":"
	"\"AP8=\",\"value_base64\":\"\"}],"
	"\"then\":[{\"op\":\"put\",\"bucket\":\"b\",\"key\":\"k\",\"value\":\"v\\n\\u00e9\",\"ttl\":\"30s\"}]"
	",\"else\":[]}",
	"{\"then\":[{\"op\":\"get\",\"bucket\":\"b\",\"key\":\"k\"},{\"op\":\"delete\",\"bucket\":\"b\","
	"\"key\":\"k\"}]}",
	"{\"then\":[{\"op\":\"delete_range\",\"bucket\":\"b\",\"prefix\":\"p\",\"from\":\"a\",\"to_base64\":"
	"\"/w==\"},"
	"{\"op\":\"delete_range\",\"bucket\":\"b\",\"all\":true}]}",
	" { \"then\" : [ { \"op\" : \"incr\" , \"bucket\" : \"b\" , \"key\" : \"k\" , \"by\" : "
	"-9223372036854775808 , \"create\" : false } ] } ",
	"{\"get\":[{\"bucket\":\"b\",\"key\":\"k\"},{\"bucket\":\"c\",\"key_base64\":\"/w==\"}]}",
};
#define CORPUS (sizeof(corpus) / sizeof(corpus[0]))

static struct bts_slice text(const char *s)
{
	return (struct bts_slice){s, strlen(s)};
}

static void sane_list(const struct txn_list *list)
{
	size_t i;

	for (i = 0; i < list->count; i++) {
		const struct txn_op *op = &list->ops[i];

		assert_in_range(op->bucket.size, 1, BTS_BUCKET_NAME_MAX);
		assert_int_not_equal(*(const char *)op->bucket.data, 0);
		assert_in_range(op->kind, TXN_GET, TXN_CONDITION);
		assert_in_range(op->key.size, op->kind != TXN_DELETE_RANGE, BTS_KEY_MAX);
		assert_true(op->kind != TXN_PUT || op->value.data);
		assert_true(op->prefix.size <= BTS_KEY_MAX && op->from.size <= BTS_KEY_MAX &&
			    op->to.size <= BTS_KEY_MAX);
	}
}

/* The code it is refused by, or NULL; the body is gone before what was made of it is looked at. */
static const char *parse(struct bts_slice body, int get, struct txn_problem *problem)
{
	char *copy = malloc(body.size + 1);
	struct bts_slice it = {copy, body.size};
	struct txn txn;
	int bad;

	memcpy(copy, body.data, body.size);
	copy[body.size] = 'x';
	if (!txn_weigh(it, OPS_MAX, problem)) {
		free(copy);
		return problem->code;
	}
	bad = get ? txn_parse_get(&txn, it, problem) : txn_parse(&txn, it, problem);
	memset(copy, 'x', body.size);
	free(copy);
	if (!bad) {
		assert_true(txn.conditions.count + txn.then.count + txn.otherwise.count <= OPS_MAX);
		sane_list(&txn.conditions);
		sane_list(&txn.then);
		sane_list(&txn.otherwise);
	} else {
		assert_true(problem->status >= 400 && problem->code && problem->why[0]);
	}
	txn_fini(&txn);
	return bad ? problem->code : NULL;
}

static void test_taken(void **state)
{
	struct txn_problem problem;
	struct txn txn;
	size_t i;

	(void)state;
	for (i = 0; i < CORPUS; i++)
		assert_null(parse(text(corpus[i]), i == CORPUS - 1, &problem));
	assert_int_equal(txn_parse(&txn, text(corpus[2]), &problem), 0);
	assert_int_equal(txn.conditions.count, 2);
	assert_int_equal(txn.conditions.ops[0].test, TXN_VERSION);
	assert_int_equal(txn.conditions.ops[1].test, TXN_VALUE);
	assert_int_equal(txn.conditions.ops[1].value.size, 0);
	assert_memory_equal(txn.conditions.ops[1].key.data, "\0\xff", 2);
	assert_memory_equal(txn.then.ops[0].value.data, "v\n\xc3\xa9", 4);
	assert_int_equal(txn.then.ops[0].ttl_ms, 30000);
	assert_true(txn.otherwise.given && txn.writes);
	txn_fini(&txn);
	assert_int_equal(txn_parse(&txn, text(corpus[5]), &problem), 0);
	assert_true(txn.then.ops[0].by == INT64_MIN && !txn.then.ops[0].create);
	txn_fini(&txn);
	assert_int_equal(txn_parse(&txn, text(corpus[1]), &problem), 0);
	assert_false(txn.writes);
	txn_fini(&txn);
}

static void test_refused(void **state)
{
	static const struct {
		const char *body, *code, *list, *why;
		size_t index;
	} cases[] = {
		{"", "malformed-json", NULL, "malformed JSON", 0},
		{"{\"then\":[{\"op\":{\"x\":1}}]}", "malformed-json", NULL, "nested deeper", 0},
		{"{\"then\":[],\"then\":[]}", "malformed-json", NULL, "duplicate", 0},
		{"{\"also\":[]}", "invalid-body", NULL, "unknown member \"also\"", 0},
		{"{\"else\":[]}", "invalid-body", NULL, "\"then\" is missing", 0},
		{"{\"then\":[{\"op\":\"get\",\"bucket\":\"b\",\"key\":\"k\"},{\"op\":\"get\",\"key\":\"k\"}]"
		 "}",
			"invalid-body", "then", "\"bucket\" is missing", 1},
		{"{\"if\":[{\"bucket\":\"b\",\"key\":\"k\"}]}", "invalid-body", "if", "one of", 0},
		{"{\"else\":[],\"then\":[],\"if\":[{\"bucket\":\"b\",\"key\":\"k\",\"version\":1,\"value\":"
		 "\"\"}]}",
			"invalid-body", "if", "one of", 0},
		{"{\"then\":[{\"op\":\"get\",\"bucket_base64\":\"AGI=\",\"key\":\"k\"}]}",
			"bucket-name-reserved", "then", "server's own", 0},
		{"{\"then\":[{\"op\":\"put\",\"bucket\":\"b\",\"key\":\"k\",\"value\":\"\",\"value_base64\":"
		 "\"\"}]}",
			"invalid-body", "then", "twice", 0},
		{"{\"then\":[{},{},{},{},{},{},{},{},{},{},{},{},{}]}", "too-many-operations", NULL, "12", 0},
		{"{\"then\":[{\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":"
		 "1,\"a\":1,\"a\":1,\"a\":1,"
		 "\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,"
		 "\"a\":1,\"a\":1,\"a\":1,\"a\":1,"
		 "\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1,\"a\":1}]}",
			"malformed-json", NULL, "more members", 0},
	};
	struct txn_problem problem;
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *code = parse(text(cases[i].body), 0, &problem);

		assert_non_null(code);
		assert_string_equal(code, cases[i].code);
		assert_non_null(strstr(problem.why, cases[i].why));
		if (cases[i].list)
			assert_string_equal(problem.list, cases[i].list);
		else
			assert_null(problem.list);
		assert_int_equal(problem.index, cases[i].index);
	}
}

/* Every beginning of every body is refused, and every byte changed into a few others is taken or refused, never worse. */
static void test_cut_and_changed(void **state)
{
	static const char others[] = "\"{}[],:\\0x\xff \x01";
	struct txn_problem problem;
	char body[1024];
	size_t i, at, k;

	(void)state;
	for (i = 0; i < CORPUS; i++) {
		size_t size = strlen(corpus[i]);

		for (at = 0; at < size; at++) {
			memcpy(body, corpus[i], size);
			if (body[at] != ' ')
				assert_non_null(
					parse((struct bts_slice){body, at}, i == CORPUS - 1, &problem));
			for (k = 0; k < sizeof(others); k++) {
				body[at] = others[k];
				(void)parse((struct bts_slice){body, size}, i == CORPUS - 1, &problem);
			}
		}
	}
}

/* Pieces of the corpus, joined and repeated at random. */
static void test_mixed(void **state)
{
	struct txn_problem problem;
	char body[2048];
	unsigned taken = 0;
	int round;

	(void)state;
	for (round = 0; round < 20000; round++) {
		const char *base = corpus[rng_next(&rng) % CORPUS];
		size_t size = strlen(base), edits = rng_next(&rng) % 5;

		memcpy(body, base, size);
		while (edits--) {
			const char *from = corpus[rng_next(&rng) % CORPUS];
			size_t n = rng_next(&rng) % 40, start = rng_next(&rng) % strlen(from),
			       at = rng_next(&rng) % (size + 1);

			n = n > strlen(from) - start ? strlen(from) - start : n;
			if (size + n > sizeof(body))
				break;
			memmove(body + at + n, body + at, size - at);
			memcpy(body + at, from + start, n);
			size += n;
		}
		taken += !parse((struct bts_slice){body, size}, (int)(rng_next(&rng) % 2), &problem);
	}
	assert_true(taken > 100);
}

static void test_numbers(void **state)
{
	static const struct {
		const char *text;
		int answer;
		int64_t number;
	} cases[] = {
		{"0", 0, 0},
		{"-0", 0, 0},
		{"+7", 0, 7},
		{"007", 0, 7},
		{"-12", 0, -12},
		{"9223372036854775807", 0, INT64_MAX},
		{"-9223372036854775808", 0, INT64_MIN},
		{"9223372036854775808", 1, 5},
		{"-9223372036854775809", 1, 5},
		{"99999999999999999999999999", 1, 5},
		{"", -1, 5},
		{"-", -1, 5},
		{"+", -1, 5},
		{" 1", -1, 5},
		{"1 ", -1, 5},
		{"1e3", -1, 5},
		{"0x10", -1, 5},
		{"--1", -1, 5},
		{"1\n", -1, 5},
		{"99999999999999999999999999x", -1, 5},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int64_t number = 5;

		assert_int_equal(txn_number(text(cases[i].text), &number), cases[i].answer);
		assert_true(number == cases[i].number);
	}
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_taken),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_cut_and_changed),
		cmocka_unit_test(test_mixed),
		cmocka_unit_test(test_numbers),
	};

	rng_init(&rng, rng_seed_from(argc, argv, 1));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
