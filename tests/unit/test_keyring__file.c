/* Tokens: what they may do and on which buckets, their file whole or refused; and heads of requests that hide something. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmocka.h"
#include "keyring.h"
#include "rawhead.h"

static char folder[] = "/tmp/bts-keyring-XXXXXX", path[64];

static int matches(const char *buckets, const char *name)
{
	return keyring_bucket_matches(buckets, (struct bts_slice){name, strlen(name)});
}

static void test_patterns(void **state)
{
	static const char *const right[] = {"*", "a", "a*", "a,b", "a*,b*,c", "%00x", "a%2Cb", "a%2fb*"};
	static const char *const wrong[] = {
		"", ",", "a,", ",a", "a,,b", "*a", "a**", "a b", "a%", "a%2", "a%2x", "a/b", "a\n"};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(right) / sizeof(right[0]); i++)
		assert_true(keyring_buckets_valid(right[i]));
	for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_false(keyring_buckets_valid(wrong[i]));
	assert_true(matches("*", "anything"));
	assert_true(matches("a", "a"));
	assert_false(matches("a", "ab"));
	assert_false(matches("ab", "a"));
	assert_true(matches("a*", "a"));
	assert_true(matches("a*", "abc"));
	assert_false(matches("a*", "ba"));
	assert_true(matches("x,b*", "bc"));
	assert_false(matches("x,b*", "xb"));
	assert_true(matches("a%2Cb", "a,b"));
	assert_false(matches("a%2Cb", "a"));
	assert_true(keyring_bucket_matches("%00x", (struct bts_slice){"\0x", 2}));
	assert_false(keyring_bucket_matches("a", (struct bts_slice){"a\0", 2}));
}

static void test_words(void **state)
{
	char text[KEYRING_SCOPES_SIZE];
	uint64_t when;
	unsigned scopes;

	(void)state;
	assert_true(keyring_scopes_parse("read,replicate,write,elect,admin,read", &scopes));
	assert_int_equal(scopes, KEYRING_ALL);
	keyring_scopes_text(scopes, text);
	assert_string_equal(text, "read,write,admin,replicate,elect");
	keyring_scopes_text(0, text);
	assert_string_equal(text, "none");
	assert_false(keyring_scopes_parse("none", &scopes));
	assert_false(keyring_scopes_parse("certificate", &scopes));
	assert_false(keyring_scopes_parse("", &scopes));
	assert_false(keyring_scopes_parse("read,", &scopes));
	assert_false(keyring_scopes_parse("readx", &scopes));
	assert_false(keyring_scopes_parse("rea", &scopes));
	assert_true(keyring_expiry_parse("0", &when) && when == 0);
	assert_true(keyring_expiry_parse("90d", &when) && when > 90 * 86400);
	assert_false(keyring_expiry_parse("90", &when));
	assert_false(keyring_expiry_parse("d", &when));
	assert_false(keyring_expiry_parse("-1d", &when));
	assert_false(keyring_expiry_parse("99999999999d", &when));
}

static void test_tokens(void **state)
{
	struct keyring_entry entry = {.scopes = KEYRING_READ, .buckets = "*"}, found;
	char token[KEYRING_TOKEN_SIZE], other[KEYRING_TOKEN_SIZE], id[KEYRING_ID_SIZE];
	const struct repl_events silent = {NULL, NULL};
	uint8_t sum[KEYRING_SUM];
	struct keyring *keyring;
	struct bts_error error;
	struct stat st;

	(void)state;
	assert_int_equal(keyring_create(path, &entry, token, &error), BTS_OK);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(keyring_create(path, &entry, other, &error), BTS_OK);
	assert_string_not_equal(token, other);
	assert_int_equal(keyring_open(path, &silent, &keyring, &error), BTS_OK);
	assert_true(keyring_token_sum(token, sum));
	assert_true(keyring_find(keyring, sum, &found));
	keyring_id(sum, id);
	assert_int_equal(keyring_revoke(path, id, &error), BTS_OK);
	assert_int_equal(keyring_revoke(path, id, &error), BTS_NOT_FOUND);
	assert_int_equal(keyring_reload(keyring, &error), BTS_OK);
	assert_false(keyring_find(keyring, sum, &found));
	assert_true(keyring_token_sum(other, sum));
	assert_true(keyring_find(keyring, sum, &found));
	sum[0] ^= 1;
	assert_false(keyring_find(keyring, sum, &found));
	other[47] = 'x'; /* no end */
	assert_false(keyring_token_sum("bts_", sum));
	token[0] = 'B';
	assert_false(keyring_token_sum(token, sum));
	keyring_free(keyring);
}

/* A certificate that was revoked is known as that, until it is given scopes again. */
static void test_certificates(void **state)
{
	struct keyring_entry entry = {.certificate = true, .scopes = KEYRING_READ, .buckets = "*", .created_s = 1}, found;
	const struct repl_events silent = {NULL, NULL};
	char id[KEYRING_ID_SIZE];
	struct keyring *keyring;
	struct keyring_list list;
	struct bts_error error;
	int round;

	(void)state;
	unlink(path);
	keyring_sum("a certificate", 13, entry.sum);
	keyring_id(entry.sum, id);
	for (round = 0; round < 2; round++) {
		assert_int_equal(keyring_add(path, &entry, &error), BTS_OK);
		assert_int_equal(keyring_open(path, &silent, &keyring, &error), BTS_OK);
		assert_true(keyring_find(keyring, entry.sum, &found));
		assert_true(found.certificate);
		assert_int_equal(keyring_revoke(path, id, &error), BTS_OK);
		assert_int_equal(keyring_revoke(path, id, &error), BTS_NOT_FOUND);
		assert_int_equal(keyring_reload(keyring, &error), BTS_OK);
		assert_false(keyring_find(keyring, entry.sum, &found));
		assert_string_equal(found.buckets, "*"); /* known, and not good */
		keyring_free(keyring);
	}
	assert_int_equal(keyring_load(path, &list, &error), BTS_OK);
	assert_int_equal(list.count, 1);
	keyring_list_free(&list);
}

static void test_broken_files(void **state)
{
	static const char line[] =
		"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff read 1 0 * -\n";
	struct keyring_list list;
	struct bts_error error;
	char text[4096];
	size_t cut, head;
	FILE *file;

	(void)state;
	head = (size_t)snprintf(text, sizeof(text), "btree_store tokens 1\n");
	snprintf(text + head, sizeof(text) - head, "%s", line);
	/* Cut anywhere but at the end of a line it is refused, and so is a changed byte of the sum's form. */
	for (cut = 0; cut <= strlen(text); cut++) {
		file = fopen(path, "w");
		assert_non_null(file);
		assert_int_equal(fwrite(text, 1, cut, file), cut);
		assert_int_equal(fchmod(fileno(file), 0600), 0);
		fclose(file);
		if (cut == 0 || cut == head || cut == strlen(text)) {
			assert_int_equal(keyring_load(path, &list, &error), BTS_OK);
			assert_int_equal(list.count, cut == strlen(text));
			keyring_list_free(&list);
		} else {
			assert_int_equal(keyring_load(path, &list, &error), BTS_INVALID);
		}
	}
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(keyring_load(path, &list, &error), BTS_INVALID);
}

/* The next line of a head, its end made zero bytes as libmicrohttpd does; *at goes on. */
static char *next_line(char **at)
{
	char *line = *at, *end = strpbrk(line, "\r\n");

	*at = end + 1 + (*end == '\r');
	memset(end, 0, (size_t)(*at - end));
	return line;
}

static int odd(char *head, size_t size)
{
	char *at = head, *line = next_line(&at), *url = line + 4, *version = strchr(url, ' ');
	struct rawhead raw;

	*version++ = '\0';
	rawhead_begin(&raw, url, strlen(url), version);
	while (*(line = next_line(&at))) {
		char *value = strchr(line, ':');

		*value++ = '\0';
		value += strspn(value, " ");
		rawhead_field(&raw, line, value, strlen(value));
	}
	return rawhead_is_odd(&raw, head, size);
}

static void test_heads(void **state)
{
	char good[] = "GET /a?b=c HTTP/1.1\r\nHost:x\r\nA:   b \r\nC:\r\n\r\n";
	char feed[] = "GET /a HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
	     first[] = "GET /a HTTP/1.1\nHost: x\r\n\r\n";
	char last[] = "GET /a HTTP/1.1\r\nHost: x\n\r\n",
	     zero[] = "GET /a HTTP/1.1\r\nHost: x@\r\nA: b\r\n\r\n";
	struct rawhead raw;

	(void)state;
	assert_false(odd(good, sizeof(good) - 1));
	assert_true(odd(feed, sizeof(feed) - 1));
	assert_true(odd(first, sizeof(first) - 1));
	assert_true(odd(last, sizeof(last) - 1));
	*strchr(zero, '@') = '\0';
	memset(zero + 15, 0, 2);
	rawhead_begin(&raw, zero + 4, 2, zero + 7);
	rawhead_field(&raw, zero + 17, zero + 23, 1); /* "x", cut at the zero byte */
	rawhead_field(&raw, zero + 27, zero + 30, 1);
	assert_true(rawhead_is_odd(&raw, zero, sizeof(zero) - 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_patterns),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_tokens),
		cmocka_unit_test(test_certificates),
		cmocka_unit_test(test_broken_files),
		cmocka_unit_test(test_heads),
	};
	int failed;

	if (!mkdtemp(folder))
		return 1;
	snprintf(path, sizeof(path), "%s/tokens", folder);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(path);
	rmdir(folder);
	return failed;
}
