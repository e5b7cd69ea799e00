/* Settings from a table of every kind: what each accepts, which origin counts, what is refused with which words, reload. */
#include "cmocka.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "settings.h"

struct values {
	const char *text, *path, *list, *token;
	struct settings_address address;
	uint64_t bytes, duration, number;
	unsigned word, role;
	int flag;
};

static const char *check_text(const char *text)
{
	return strchr(text, ' ') ? "without spaces" : NULL;
}

static const struct settings_row rows[] = {
	SETTINGS_GROUP("All"),
	{"text", SETTINGS_TEXT(struct values, text), .arg = "TEXT", .check = check_text, .help = "a text"},
	{"path", SETTINGS_PATH(struct values, path), .arg = "FILE", .help = "a path"},
	{"a-list", SETTINGS_LIST(struct values, list), .arg = "A,B", .help = "a list"},
	{"address", SETTINGS_ADDRESS(struct values, address), .arg = "HOST:PORT", .help = "an address"},
	{"max-bytes", SETTINGS_BYTES(struct values, bytes), .fallback = "64M", .least = 1024,
		.most = UINT64_C(1) << 40, .flags = SETTINGS_RELOAD, .help = "bytes"},
	{"duration", SETTINGS_DURATION(struct values, duration), .fallback = "1m", .least = 200,
		.most = 7200000, .help = "time"},
	{"number", SETTINGS_NUMBER(struct values, number), .least = 1, .most = 64, .help = "a number"},
	{"word", SETTINGS_ENUM(struct values, word), .words = "text|json", .fallback = "text",
		.flags = SETTINGS_RELOAD, .help = "a word"},
	{"role", SETTINGS_ENUM(struct values, role), .words = "primary|follower", .least = 1,
		.flags = SETTINGS_WORD, .help = "the plain word"},
	{"flag", SETTINGS_FLAG(struct values, flag), .help = "a flag"},
	{"token", SETTINGS_TEXT(struct values, token), .check = check_text,
		.flags = SETTINGS_SECRET | SETTINGS_RELOAD, .help = "a secret"},
};

static const struct settings fresh = {.program = "btsd",
	.version = "9",
	.usage = "",
	.trailer = "",
	.rows = rows,
	.count = sizeof(rows) / sizeof(rows[0])};
static char file_path[64];

static void write_file(const char *text)
{
	FILE *file = fopen(file_path, "w");

	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

/* With words and variables separated by newlines. */
static int read_them(struct settings *s, struct values *v, const char *words, const char *variables)
{
	/* Settings borrow their texts; no test has so many at a time. */
	static char kept[64][512];
	static unsigned used;
	char *argv[16] = {(char *)"btsd"}, *environment[16] = {NULL}, *copy;
	int argc = 1, n = 0;

	*s = fresh;
	memset(v, 0, sizeof(*v));
	copy = strncpy(kept[used++ % 64], words, sizeof(kept[0]) - 1);
	for (; (argv[argc] = strsep(&copy, "\n")) && *argv[argc]; argc++)
		;
	argv[argc] = NULL;
	copy = strncpy(kept[used++ % 64], variables, sizeof(kept[0]) - 1);
	for (; (environment[n] = strsep(&copy, "\n")) && *environment[n]; n++)
		;
	environment[n] = NULL;
	return settings_read(s, v, argc, argv, environment);
}

static void expect_refused(const char *words, const char *variables, const char *why)
{
	struct settings s;
	struct values v;

	assert_int_equal(read_them(&s, &v, words, variables), -1);
	if (!strstr(s.why, why))
		fail_msg("'%s' does not tell '%s'", s.why, why);
	settings_fini(&s);
}

static void test_defaults(void **state)
{
	struct settings s;
	struct values v;

	(void)state;
	assert_int_equal(read_them(&s, &v, "", "HOME=/\nBTS_BIN=/bin\nBTS_TEST_X=1"), 0);
	assert_null(v.text);
	assert_int_equal(v.bytes, 64 << 20);
	assert_int_equal(v.duration, 60000);
	assert_int_equal(v.number, 0);
	assert_int_equal(v.word, 0);
	assert_int_equal(v.role, 0);
	assert_int_equal(v.address.size, 0);
	assert_int_equal(settings_asked(&s), -1);
	assert_int_equal(settings_checked(&s), -1);
	settings_fini(&s);
}

/* Every kind from every origin; the command line beats the environment, that the file. */
static void test_precedence(void **state)
{
	static const struct {
		const char *name, *variable, *file, *environment, *command;
	} kinds[] = {
		{"text", "BTS_TEXT", "f", "e", "c"},
		{"path", "BTS_PATH", "/f", "/e", "/c"},
		{"a-list", "BTS_A_LIST", "f,g", "e,g", "c,g"},
		{"address", "BTS_ADDRESS", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"},
		{"max-bytes", "BTS_MAX_BYTES", "1K", "2K", "3K"},
		{"duration", "BTS_DURATION", "1s", "2s", "3s"},
		{"number", "BTS_NUMBER", "1", "2", "3"},
		{"word", "BTS_WORD", "json", "text", "json"},
		{"role", "BTS_ROLE", "primary", "follower", "primary"},
		{"flag", "BTS_FLAG", "no", "yes", "false"},
		{"token", "BTS_TOKEN", "f", "e", "c"},
	};
	char words[256], variables[128], text[128];
	struct values want[3], got;
	struct settings s;
	size_t i;
	int level;

	(void)state;
	assert_int_equal(sizeof(kinds) / sizeof(kinds[0]), fresh.count - 1);
	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const char *const values[] = {kinds[i].file, kinds[i].environment, kinds[i].command};

		snprintf(text, sizeof(text), "%s = %s\n", kinds[i].name, kinds[i].file);
		write_file(text);
		for (level = 0; level < 3; level++) {
			size_t n = (size_t)snprintf(words, sizeof(words), "--config\n%s\n", file_path);

			if (level == 2)
				snprintf(words + n, sizeof(words) - n, "--%s=%s\n", kinds[i].name,
					kinds[i].command);
			snprintf(variables, sizeof(variables), "%s=%s\n", kinds[i].variable,
				level ? kinds[i].environment : "");
			assert_int_equal(read_them(&s, &got, words, variables), 0);
			settings_fini(&s);
			snprintf(words, sizeof(words), "--%s=%s\n", kinds[i].name, values[level]);
			assert_int_equal(read_them(&s, &want[level], words, ""), 0);
			settings_fini(&s);
			assert_int_equal(got.bytes, want[level].bytes);
			assert_int_equal(got.duration, want[level].duration);
			assert_int_equal(got.number, want[level].number);
			assert_int_equal(got.word, want[level].word);
			assert_int_equal(got.role, want[level].role);
			assert_int_equal(got.flag, want[level].flag);
			assert_memory_equal(
				&got.address.addr, &want[level].address.addr, sizeof(got.address.addr));
		}
	}
}

static void test_texts_by_origin(void **state)
{
	struct settings s;
	struct values v;
	char words[128];

	(void)state;
	write_file("; a comment\ntext = file ; why\npath=/f\n# another\n[btsd]\na-list = a,\n  b\n   "
		   "c\n[bts-replicator]\nnothing = 1\n");
	snprintf(words, sizeof(words), "--config=%s\nfollower\n--flag\n--token\n-\n", file_path);
	assert_int_equal(read_them(&s, &v, words, "BTS_PATH=/e\nBTS_TEXT="), 0);
	assert_string_equal(v.text, "file");
	assert_string_equal(v.path, "/e");
	assert_string_equal(v.list, "a,b,c");
	assert_string_equal(v.token, "-");
	assert_int_equal(v.role, 2);
	assert_int_equal(v.flag, 1);
	settings_fini(&s);
	assert_int_equal(
		read_them(&s, &v, "", (snprintf(words, sizeof(words), "BTS_CONFIG=%s", file_path), words)),
		0);
	assert_string_equal(v.path, "/f");
	settings_fini(&s);
}

static void test_refused(void **state)
{
	static const struct {
		const char *words, *why;
	} bad[] = {
		{"--text\na b", "--text 'a b': must be without spaces"},
		{"--path=", "--path '': must be a path"},
		{"--address\nx", "HOST:PORT"},
		{"--address\n1.2.3.4:70000", "HOST:PORT"},
		{"--address\nexample.org:1", "numeric"},
		{"--max-bytes\n1023", "a number of bytes from 1K to 1T"},
		{"--max-bytes\n2T", "from 1K to 1T"},
		{"--max-bytes\n99999999999999999999", "from 1K to 1T"},
		{"--max-bytes\n18014398509481985K", "from 1K to 1T"},
		{"--max-bytes\n5X", "from 1K to 1T"},
		{"--max-bytes\n-1", "from 1K to 1T"},
		{"--duration\n5", "a duration from 200ms to 2h"},
		{"--duration\n199ms", "a duration from 200ms to 2h"},
		{"--duration\n3h", "a duration from 200ms to 2h"},
		{"--number\n0", "a number from 1 to 64"},
		{"--number\n65", "a number from 1 to 64"},
		{"--number\n1x", "a number from 1 to 64"},
		{"--word\nxml", "one of text|json"},
		{"--flag=maybe", "true or false"},
		{"--number", "--number wants a value"},
		{"--numbe\n1", "unknown option '--numbe'"},
		{"-n\n1", "unknown option '-n'"},
		{"king", "--role 'king': must be one of primary|follower"},
		{"primary\nmore", "unexpected argument 'more'"},
		{"--help=1", "unknown option"},
		{"--config\n/nonexistent/file", "cannot read /nonexistent/file: No such file"},
		{"--config\n/", "cannot read /: Is a directory"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect_refused(bad[i].words, "", bad[i].why);
	expect_refused("", "BTS_MAX_BITES=1", "environment variable BTS_MAX_BITES is no setting of btsd");
	expect_refused("", "BTS_NUMBER=x", "BTS_NUMBER 'x': must be a number from 1 to 64");
	/* also what another origin overrides */
	expect_refused("--number=5", "BTS_NUMBER=x", "BTS_NUMBER 'x'");
}

static void test_refused_in_files(void **state)
{
	static const struct {
		const char *text, *why;
	} bad[] = {
		{"text = a\nmax-bites = 1\n", ":2: unknown setting 'max-bites'"},
		{"\n\nnumber = 0\n", ":3: number '0': must be a number from 1 to 64"},
		{"[other]\nnumber = 1\n", ":2: unknown section [other]"},
		{"number = 1\nnumber = 2\n", ":2: number is given a second time, first in line 1"},
		{"number\n", ":1: neither 'name = value' nor '[section]'"},
		{"number = 1\n[btsd\n", ":2: neither"},
		{"config = x\n", ":1: unknown setting 'config'"},
	};
	char words[80], text[400];
	size_t i;

	(void)state;
	snprintf(words, sizeof(words), "--config\n%s", file_path);
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		write_file(bad[i].text);
		expect_refused(words, "", bad[i].why);
	}
	memset(text, 'x', sizeof(text));
	memcpy(text, "number = 1\ntext = ", 18);
	strcpy(text + sizeof(text) - 2, "\n");
	write_file(text);
	expect_refused(words, "", ":2: the line has more than");
}

static void test_secret_is_not_told(void **state)
{
	struct settings s;
	struct values v;

	(void)state;
	assert_int_equal(read_them(&s, &v, "--token\nhush hush", ""), -1);
	assert_null(strstr(s.why, "hush"));
	assert_non_null(strstr(s.why, "--token"));
	settings_fini(&s);
}

static void test_adopt(void **state)
{
	struct settings live, news;
	struct values v, w;
	char words[128], restart[64];

	(void)state;
	snprintf(words, sizeof(words), "--config\n%s", file_path);
	write_file("max-bytes = 1M\nnumber = 3\ntext = old\ntoken = one\n");
	assert_int_equal(read_them(&live, &v, words, ""), 0);
	write_file("max-bytes = 2M\nnumber = 4\ntext = new\ntoken = two\nword = json\n");
	assert_int_equal(read_them(&news, &w, words, ""), 0);
	assert_int_equal(settings_adopt(&live, &v, &news, &w, restart, sizeof(restart)), 3);
	settings_fini(&news);
	assert_string_equal(restart, "text,number");
	assert_int_equal(v.bytes, 2 << 20);
	assert_int_equal(v.number, 3);
	assert_int_equal(v.word, 1);
	assert_string_equal(v.text, "old");
	assert_string_equal(v.token, "two");
	/* and again, with nothing new */
	assert_int_equal(read_them(&news, &w, words, ""), 0);
	assert_int_equal(settings_adopt(&live, &v, &news, &w, restart, sizeof(restart)), 0);
	settings_fini(&news);
	assert_string_equal(v.token, "two");
	settings_fini(&live);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_precedence),
		cmocka_unit_test(test_texts_by_origin),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_refused_in_files),
		cmocka_unit_test(test_secret_is_not_told),
		cmocka_unit_test(test_adopt),
	};
	const char *folder = getenv("TMPDIR");
	int failed;

	snprintf(file_path, sizeof(file_path), "%.30s/bts-settings-%d", folder ? folder : "/tmp",
		(int)getpid());
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(file_path);
	return failed;
}
