/* What S3 answers as XML, through libexpat. */
#include "store_xml.h"

#include <expat.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define STORE_XML_DEPTH 8
#define STORE_XML_TEXT STORE_XML_KEY_MAX

/* An element whose text is looked at: by its own name and those above it. */
struct store_xml_reader;
struct store_xml_element {
	const char *path;						 /* "ListBucketResult/Contents/Key" */
	const char *(*end)(struct store_xml_reader *, const char *text); /* NULL, or what is wrong */
};

struct store_xml_reader {
	XML_Parser parser;
	const struct store_xml_element *elements; /* the first is the root; path NULL behind the last */
	unsigned depth;
	char path[256]; /* of the element of the moment */
	char text[STORE_XML_TEXT + 1];
	size_t size;
	bool wanted; /* the text of this element is */
	const char *why;
	/* of a listing */
	store_xml_object_fn *visit;
	void *arg;
	struct store_xml_page *page;
	enum bts_err answer;
	char key[STORE_XML_KEY_MAX + 1];
	uint64_t bytes, modified_ms;
	/* of an error */
	struct store_xml_problem *problem;
};

static void store_xml_stop(struct store_xml_reader *reader, const char *why)
{
	if (!reader->why)
		reader->why = why;
	XML_StopParser(reader->parser, XML_FALSE);
}

static const struct store_xml_element *store_xml_find(const struct store_xml_reader *reader)
{
	const struct store_xml_element *element = reader->elements;

	while (element->path && strcmp(element->path, reader->path) != 0)
		element++;
	return element->path ? element : NULL;
}

static void store_xml_on_start(void *arg, const XML_Char *name, const XML_Char **attributes)
{
	struct store_xml_reader *reader = arg;
	size_t used = strlen(reader->path);

	(void)attributes;
	if (reader->why)
		return;
	if (++reader->depth > STORE_XML_DEPTH || used + 1 + strlen(name) >= sizeof(reader->path)) {
		store_xml_stop(reader, "elements are too deep in each other");
		return;
	}
	sprintf(reader->path + used, "%s%s", used > 0 ? "/" : "", name);
	if (reader->depth == 1 && strcmp(reader->path, reader->elements[0].path) != 0)
		store_xml_stop(reader, "another document than was asked for");
	reader->wanted = store_xml_find(reader) != NULL;
	reader->size = 0;
}

static void store_xml_on_text(void *arg, const XML_Char *text, int size)
{
	struct store_xml_reader *reader = arg;

	if (!reader->wanted || reader->why)
		return;
	if (reader->size + (size_t)size > STORE_XML_TEXT) {
		store_xml_stop(reader, "a text is too long");
		return;
	}
	memcpy(reader->text + reader->size, text, (size_t)size);
	reader->size += (size_t)size;
}

static void store_xml_on_end(void *arg, const XML_Char *name)
{
	struct store_xml_reader *reader = arg;
	const struct store_xml_element *element;
	const char *why = NULL;
	char *slash;

	(void)name;
	if (reader->why)
		return;
	element = store_xml_find(reader);
	reader->text[reader->size] = '\0';
	if (element && element->end)
		why = element->end(reader, reader->text);
	slash = strrchr(reader->path, '/');
	*(slash ? slash : reader->path) = '\0';
	reader->depth--;
	reader->size = 0;
	reader->wanted = false; /* what follows an inner element is no text of ours */
	if (why)
		store_xml_stop(reader, why);
}

/* Entities of a document's own could be expanded without end; there is no honest reason to have any. */
static void store_xml_on_doctype(
	void *arg, const XML_Char *name, const XML_Char *system, const XML_Char *public, int internal)
{
	(void)name;
	(void)system;
	(void)public;
	(void)internal;
	store_xml_stop(arg, "it has a document type");
}

/* BTS_CORRUPT with reader->why. */
static enum bts_err store_xml_read(struct store_xml_reader *reader, const char *data, size_t size)
{
	enum XML_Status status;

	reader->parser = XML_ParserCreate(NULL);
	if (!reader->parser)
		return BTS_MEMORY;
	XML_SetUserData(reader->parser, reader);
	XML_SetElementHandler(reader->parser, store_xml_on_start, store_xml_on_end);
	XML_SetCharacterDataHandler(reader->parser, store_xml_on_text);
	XML_SetStartDoctypeDeclHandler(reader->parser, store_xml_on_doctype);
	status = size > INT32_MAX ? XML_STATUS_ERROR : XML_Parse(reader->parser, data, (int)size, XML_TRUE);
	if (status != XML_STATUS_OK && !reader->why)
		reader->why = "it is no XML";
	XML_ParserFree(reader->parser);
	return reader->why ? BTS_CORRUPT : BTS_OK;
}

static int store_xml_nibble(char c)
{
	const char *digits = "0123456789abcdef",
		   *at = c ? strchr(digits, c | (c >= 'A' && c <= 'F' ? 0x20 : 0)) : NULL;

	return at ? (int)(at - digits) : -1;
}

/*
 * encoding-type=url was asked for.  A store that does not know it shows keys of ours the same way, as they have no
 * %.
 */
static const char *store_xml_on_key(struct store_xml_reader *reader, const char *text)
{
	char *to = reader->key;

	for (; *text; text++) {
		int high = text[0] == '%' ? store_xml_nibble(text[1]) : -1;
		int low = high >= 0 ? store_xml_nibble(text[2]) : -1;

		if (high + low == 0)
			low = -1; /* a NUL would end the key */
		*to++ = low >= 0 ? (char)(high * 16 + low) : *text;
		text += low >= 0 ? 2 : 0;
	}
	*to = '\0';
	return NULL;
}

static const char *store_xml_on_size(struct store_xml_reader *reader, const char *text)
{
	size_t digits = strspn(text, "0123456789");
	uint64_t value = 0;

	if (digits == 0 || digits > 18 || text[digits])
		return "a size is no number";
	for (; *text; text++)
		value = value * 10 + (uint64_t)(*text - '0');
	reader->bytes = value;
	return NULL;
}

/* "2009-10-12T17:50:30.000Z"; another form is a time that is not known. */
static const char *store_xml_on_modified(struct store_xml_reader *reader, const char *text)
{
	unsigned year, month, day, hour, minute, second, ms = 0;
	struct tm tm = {.tm_isdst = 0};
	time_t seconds;
	int used = 0;

	reader->modified_ms = 0;
	if (sscanf(text, "%4u-%2u-%2uT%2u:%2u:%2u%n", &year, &month, &day, &hour, &minute, &second, &used) !=
		6)
		return NULL;
	if (text[used] == '.' && sscanf(text + used + 1, "%3u", &ms) != 1)
		return NULL;
	if (text[strlen(text) - 1] != 'Z' || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 ||
		minute > 59 || second > 60 || ms > 999)
		return NULL;
	tm.tm_year = (int)year - 1900;
	tm.tm_mon = (int)month - 1;
	tm.tm_mday = (int)day;
	tm.tm_hour = (int)hour;
	tm.tm_min = (int)minute;
	tm.tm_sec = (int)second;
	seconds = timegm(&tm);
	reader->modified_ms = seconds > 0 ? (uint64_t)seconds * 1000 + ms : 0;
	return NULL;
}

static const char *store_xml_on_object(struct store_xml_reader *reader, const char *text)
{
	(void)text;
	reader->page->objects++;
	if (reader->key[0])
		reader->answer = reader->visit(reader->arg, reader->key, reader->bytes, reader->modified_ms);
	reader->key[0] = '\0';
	reader->bytes = reader->modified_ms = 0;
	return reader->answer ? "" : NULL;
}

static const char *store_xml_on_truncated(struct store_xml_reader *reader, const char *text)
{
	reader->page->truncated = strcmp(text, "true") == 0;
	return reader->page->truncated || strcmp(text, "false") == 0
		       ? NULL
		       : "IsTruncated is neither true nor false";
}

static const char *store_xml_on_token(struct store_xml_reader *reader, const char *text)
{
	if (strlen(text) > STORE_XML_TOKEN_MAX)
		return "the continuation token is too long";
	strcpy(reader->page->token, text);
	return NULL;
}

enum bts_err store_xml_list(const char *data, size_t size, store_xml_object_fn *visit, void *arg,
	struct store_xml_page *page, const char **why)
{
	static const struct store_xml_element elements[] = {
		{"ListBucketResult", NULL},
		{"ListBucketResult/IsTruncated", store_xml_on_truncated},
		{"ListBucketResult/NextContinuationToken", store_xml_on_token},
		{"ListBucketResult/Contents", store_xml_on_object},
		{"ListBucketResult/Contents/Key", store_xml_on_key},
		{"ListBucketResult/Contents/Size", store_xml_on_size},
		{"ListBucketResult/Contents/LastModified", store_xml_on_modified},
		{NULL, NULL},
	};
	struct store_xml_reader reader = {.elements = elements, .visit = visit, .arg = arg, .page = page};
	enum bts_err err;

	memset(page, 0, sizeof(*page));
	err = store_xml_read(&reader, data, size);
	*why = reader.why;
	return reader.answer ? reader.answer : err;
}

static void store_xml_take(char *to, size_t room, const char *text, const char *letters)
{
	if (strlen(text) < room && strspn(text, letters) == strlen(text))
		strcpy(to, text);
}

static const char *store_xml_on_code(struct store_xml_reader *reader, const char *text)
{
	store_xml_take(reader->problem->code, sizeof(reader->problem->code), text,
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.");
	return NULL;
}

static const char *store_xml_on_region(struct store_xml_reader *reader, const char *text)
{
	store_xml_take(reader->problem->region, sizeof(reader->problem->region), text,
		"abcdefghijklmnopqrstuvwxyz0123456789-");
	return NULL;
}

void store_xml_error(const char *data, size_t size, struct store_xml_problem *problem)
{
	static const struct store_xml_element elements[] = {
		{"Error", NULL},
		{"Error/Code", store_xml_on_code},
		{"Error/Region", store_xml_on_region},
		{NULL, NULL},
	};
	struct store_xml_reader reader = {.elements = elements, .problem = problem};

	memset(problem, 0, sizeof(*problem));
	(void)store_xml_read(&reader, data, size);
}
