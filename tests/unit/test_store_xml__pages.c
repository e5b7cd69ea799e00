/* Pages of a listing and errors as S3 writes them, cut at every byte, too deep, too long, with entities. */
#include "cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store_xml.h"

#define HEAD "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
#define LIST "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
#define OBJECT(key, size, when)                                                                              \
	"<Contents><Key>" key "</Key><LastModified>" when                                                    \
	"</LastModified><ETag>&quot;x&quot;</ETag><Size>" size "</Size><Owner><ID>1</ID></Owner></Contents>"
#define WHEN "2009-10-12T17:50:30.123Z"

struct listed {
	char text[1024];
	unsigned count, stop_at;
};

static enum bts_err on_object(void *arg, const char *key, uint64_t size, uint64_t modified_ms)
{
	struct listed *listed = arg;
	size_t used = strlen(listed->text);

	snprintf(listed->text + used, sizeof(listed->text) - used, "%s %llu %llu\n", key,
		(unsigned long long)size, (unsigned long long)modified_ms);
	return ++listed->count == listed->stop_at ? BTS_CONFLICT : BTS_OK;
}

static enum bts_err list(const char *data, size_t size, struct listed *listed, struct store_xml_page *page)
{
	const char *why = NULL;
	enum bts_err err;

	listed->text[0] = '\0';
	listed->count = 0;
	err = store_xml_list(data, size, on_object, listed, page, &why);
	assert_int_equal(err != BTS_OK, why != NULL);
	return err;
}

static void expect(const char *data, const char *objects)
{
	struct store_xml_page page;
	struct listed listed = {.stop_at = 0};

	assert_int_equal(list(data, strlen(data), &listed, &page), BTS_OK);
	assert_string_equal(listed.text, objects);
}

static void refused(const char *data)
{
	struct store_xml_page page;
	struct listed listed = {.stop_at = 0};

	assert_int_equal(list(data, strlen(data), &listed, &page), BTS_CORRUPT);
}

static void test_pages(void **state)
{
	const char *whole = HEAD LIST "<Name>b</Name><IsTruncated>true</IsTruncated>" OBJECT("a/b", "5", WHEN)
		OBJECT("a%2Fc%41", "18446744073",
			"x") "<NextContinuationToken>1ue/+=</NextContinuationToken></ListBucketResult>";
	struct listed listed = {.stop_at = 0};
	struct store_xml_page page;
	size_t size;

	(void)state;
	assert_int_equal(list(whole, strlen(whole), &listed, &page), BTS_OK);
	assert_string_equal(listed.text, "a/b 5 1255369830123\na/cA 18446744073 0\n");
	assert_true(page.truncated);
	assert_string_equal(page.token, "1ue/+=");
	assert_int_equal(page.objects, 2);
	for (size = 0; size < strlen(whole); size++)
		assert_int_equal(list(whole, size, &listed, &page), BTS_CORRUPT);
	listed.stop_at = 1;
	assert_int_equal(list(whole, strlen(whole), &listed, &page), BTS_CONFLICT);
	assert_int_equal(listed.count, 1);
}

static void test_odd_but_right(void **state)
{
	(void)state;
	expect(LIST "</ListBucketResult>", "");
	expect(LIST OBJECT("", "1", WHEN) "</ListBucketResult>", "");
	expect(LIST "<Contents></Contents></ListBucketResult>", "");
	expect(LIST OBJECT("a&amp;&#98;<!-- x -->c", "1", WHEN) "</ListBucketResult>",
		"a&bc 1 1255369830123\n");
	expect(LIST OBJECT("%", "1", WHEN) OBJECT("%2", "1", "") OBJECT("%zz%", "1", "")
			OBJECT("a%00b", "2", "2009-13-01T00:00:00Z") "</ListBucketResult>",
		"% 1 1255369830123\n%2 1 0\n%zz% 1 0\na%00b 2 0\n");
	expect(LIST "<Other><Contents><Key>no</Key></Contents></Other>" OBJECT(
		       "a", "0", "1969-01-01T00:00:00Z") "</ListBucketResult>",
		"a 0 0\n");
}

static void test_refused(void **state)
{
	(void)state;
	refused("");
	refused("not found");
	refused("<html><body>hello</body></html>");
	refused("<Error><Code>x</Code></Error>");
	refused(LIST "<IsTruncated>maybe</IsTruncated></ListBucketResult>");
	refused(LIST OBJECT("a", "", WHEN) "</ListBucketResult>");
	refused(LIST OBJECT("a", "-1", WHEN) "</ListBucketResult>");
	refused(LIST OBJECT("a", "1e9", WHEN) "</ListBucketResult>");
	refused(LIST OBJECT("a", "1234567890123456789", WHEN) "</ListBucketResult>");
	refused(LIST OBJECT("\xff", "1", WHEN) "</ListBucketResult>");
	refused(LIST OBJECT("&#1;", "1", WHEN) "</ListBucketResult>");
	refused(LIST OBJECT("&unknown;", "1", WHEN) "</ListBucketResult>");
	refused(LIST "</ListBucketResult><more/>");
	refused("<!DOCTYPE x><ListBucketResult></ListBucketResult>");
	refused("<!DOCTYPE ListBucketResult [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;\">]>" LIST
		"<Contents><Key>&b;</Key></Contents></ListBucketResult>");
	refused("<!DOCTYPE ListBucketResult SYSTEM \"file:///etc/passwd\">" LIST "</ListBucketResult>");
}

/* Something within a listing, many times or at length. */
static void large(const char *before, const char *piece, size_t times, const char *after)
{
	size_t size = strlen(before) + strlen(piece) * times + strlen(after), i;
	char *text = malloc(size + 1), *at;

	assert_non_null(text);
	at = stpcpy(text, before);
	for (i = 0; i < times; i++)
		at = stpcpy(at, piece);
	strcpy(at, after);
	refused(text);
	free(text);
}

static void test_too_large(void **state)
{
	(void)state;
	large(LIST, "<a>", 100000, "");
	large(LIST "<Contents><Key>", "k", STORE_XML_KEY_MAX + 1, "</Key></Contents></ListBucketResult>");
	large(LIST "<NextContinuationToken>", "k", STORE_XML_TOKEN_MAX + 1,
		"</NextContinuationToken></ListBucketResult>");
	large(LIST "<", "n", 300, "></ListBucketResult>");
	large(LIST "<Contents><Size>", "9", 100000, "</Size></Contents></ListBucketResult>");
}

static void expect_error(const char *data, const char *code, const char *region)
{
	struct store_xml_problem problem;

	store_xml_error(data, strlen(data), &problem);
	assert_string_equal(problem.code, code);
	assert_string_equal(problem.region, region);
}

static void test_errors(void **state)
{
	(void)state;
	expect_error(HEAD "<Error><Code>NoSuchKey</Code><Message>The specified key does not "
			  "exist.</Message><Key>k</Key></Error>",
		"NoSuchKey", "");
	expect_error(HEAD
		"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>",
		"AuthorizationHeaderMalformed", "eu-west-1");
	expect_error("<Error><Code>No Such\nKey</Code><Region>EU</Region></Error>", "", "");
	expect_error("<Error><Code>a123456789012345678901234567890123456789012345678901234567890123</Code></"
		     "Error>",
		"", "");
	expect_error("<!DOCTYPE x><Error><Code>SlowDown</Code></Error>", "", "");
	expect_error("<html><Code>SlowDown</Code></html>", "", "");
	expect_error("<Error><x><Code>SlowDown</Code></x></Error>", "", "");
	expect_error("", "", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_odd_but_right),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_too_large),
		cmocka_unit_test(test_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
