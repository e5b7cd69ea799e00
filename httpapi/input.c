/* JSON that clients send, checked and taken apart. */
#include "input.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

void input_seed(unsigned seed)
{
	json_object_seed(seed);
}

#define INPUT_TOKENS_MAX 64 /* of structure, in an object */

/* Before the library builds a tree that takes many times the text's memory. */
static int input_is_bushy(struct bts_slice text)
{
	const char *at = text.data;
	int quoted = 0, tokens = 0;
	size_t i;

	for (i = 0; i < text.size && tokens <= INPUT_TOKENS_MAX; i++) {
		if (at[i] == '"')
			quoted = !quoted;
		else if (quoted)
			i += at[i] == '\\';
		else
			tokens += at[i] == ',' || at[i] == '[' || at[i] == '{';
	}
	return tokens > INPUT_TOKENS_MAX;
}

/* A JSON object of at most max members, or NULL and why. */
static json_t *input_object(struct bts_slice text, size_t max, char why[160])
{
	json_error_t error;
	json_t *tree;

	if (input_is_bushy(text)) {
		snprintf(why, 160, "malformed JSON: more than %d members or brackets", INPUT_TOKENS_MAX);
		return NULL;
	}
	tree = json_loadb(text.size ? text.data : "", text.size, JSON_REJECT_DUPLICATES, &error);
	if (!tree) {
		snprintf(why, 160, "malformed JSON at byte %d: %.110s", error.position, error.text);
		return NULL;
	}
	if (!json_is_object(tree)) {
		snprintf(why, 160, "a JSON object is expected");
	} else if (json_object_size(tree) > max) {
		snprintf(why, 160, "more than %zu members in an object", max);
	} else {
		return tree;
	}
	json_decref(tree);
	return NULL;
}

/* The bytes of a string member; *made is what was allocated for them. */
static int input_bytes(const char *name, const json_t *member, int base64, struct bts_slice *bytes,
	void **made, char why[160])
{
	long n;

	if (bytes->data) {
		snprintf(why, 160, "\"%.40s\" is given twice, plain and as base64", name);
		return -1;
	}
	if (!json_is_string(member)) {
		snprintf(why, 160, "\"%.40s\" must be a string", name);
		return -1;
	}
	bytes->data = json_string_value(member);
	bytes->size = json_string_length(member);
	if (!base64)
		return 0;
	*made = malloc(bytes->size / 4 * 3 + 3);
	if (!*made) {
		snprintf(why, 160, "out of memory");
		return -1;
	}
	n = text_base64_decode(bytes->data, bytes->size, *made);
	if (n < 0) {
		snprintf(why, 160, "\"%.40s\" is not base64", name);
		return -1;
	}
	bytes->data = *made;
	bytes->size = (size_t)n;
	return 0;
}

static int input_record_member(struct input_record *r, const char *name, const json_t *member, char why[160])
{
	if (!strcmp(name, "key"))
		return input_bytes(name, member, 0, &r->key, &r->key_bytes, why);
	if (!strcmp(name, "key_base64"))
		return input_bytes(name, member, 1, &r->key, &r->key_bytes, why);
	if (!strcmp(name, "value"))
		return input_bytes(name, member, 0, &r->value, &r->value_bytes, why);
	if (!strcmp(name, "value_base64"))
		return input_bytes(name, member, 1, &r->value, &r->value_bytes, why);
	snprintf(why, 160, "unknown member \"%.60s\"", name);
	return -1;
}

const char *input_record_parse(struct input_record *r, struct bts_slice line, char why[160])
{
	const char *name, *code = "invalid-record";
	json_t *member;

	memset(r, 0, sizeof(*r));
	r->tree = input_object(line, 8, why);
	if (!r->tree)
		return "malformed-json";
	json_object_foreach(r->tree, name, member)
	{
		if (input_record_member(r, name, member, why))
			goto fail;
	}
	if (!r->key.data) {
		snprintf(why, 160, "\"key\" or \"key_base64\" is missing");
	} else if (!r->key.size) {
		code = "key-empty";
		snprintf(why, 160, "the key is empty");
	} else if (r->key.size > BTS_KEY_MAX) {
		code = "key-too-long";
		snprintf(why, 160, "the key has %zu bytes, at most %d are allowed", r->key.size, BTS_KEY_MAX);
	} else if (!r->value.data) {
		snprintf(why, 160, "\"value\" or \"value_base64\" is missing");
	} else {
		return NULL;
	}
fail:
	input_record_fini(r);
	return code;
}

void input_record_fini(struct input_record *r)
{
	json_decref(r->tree);
	free(r->key_bytes);
	free(r->value_bytes);
	memset(r, 0, sizeof(*r));
}

static int input_content_type(const char *type, size_t size, char why[160])
{
	size_t i;

	if (size > INPUT_CONTENT_TYPE_MAX) {
		snprintf(why, 160, "\"content_type\" has %zu bytes, at most %d are allowed", size,
			INPUT_CONTENT_TYPE_MAX);
		return -1;
	}
	for (i = 0; i < size; i++)
		if (type[i] < ' ' || type[i] > '~')
			break;
	if (i < size || !strchr(type, '/') || type[0] == '/') {
		snprintf(why, 160, "\"content_type\" is not a media type");
		return -1;
	}
	return 0;
}

/*
 * An object with this member or none.  NULL, with *value its value (NULL when it is not there) that lives as long as *tree (to be
 * given back; NULL for no body at all), or what is wrong.
 */
static const char *input_only_member(struct bts_slice body, const char *only, json_t **tree, json_t **value, char why[160])
{
	const char *name;
	json_t *member;

	*tree = *value = NULL;
	if (!body.size)
		return NULL;
	*tree = input_object(body, 8, why);
	if (!*tree)
		return "malformed-json";
	json_object_foreach(*tree, name, member)
	{
		if (strcmp(name, only)) {
			snprintf(why, 160, "unknown member \"%.60s\"", name);
			return "invalid-body";
		}
		*value = member;
	}
	return NULL;
}

const char *input_bucket_parse(
	struct bts_slice body, char content_type[INPUT_CONTENT_TYPE_MAX + 1], char why[160])
{
	json_t *tree, *value;
	const char *code = input_only_member(body, "content_type", &tree, &value, why);

	content_type[0] = '\0';
	if (!code && value && !json_is_string(value)) {
		snprintf(why, 160, "\"content_type\" must be a string");
		code = "invalid-body";
	} else if (!code && value) {
		if (input_content_type(json_string_value(value), json_string_length(value), why))
			code = "invalid-body";
		else
			memcpy(content_type, json_string_value(value), json_string_length(value) + 1);
	}
	json_decref(tree);
	return code;
}

const char *input_ttl_parse(struct bts_slice body, uint64_t *ms, char why[160])
{
	json_t *tree, *value;
	const char *code = input_only_member(body, "ttl", &tree, &value, why);

	if (!code && value &&
		(!json_is_string(value) || text_duration_ms(json_string_value(value), json_string_length(value), ms))) {
		snprintf(why, 160, "\"ttl\" is a duration as a string: \"30s\", \"500ms\", \"2m\"");
		code = "invalid-body";
	}
	json_decref(tree);
	return code;
}
