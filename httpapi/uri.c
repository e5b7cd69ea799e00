/* A request target: path segments and query parameters. */
#include "uri.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

/* RFC 3986, and those below that clients send all the same. */
static const bool uri_characters[256] = {
	['!'] = true, ['"'] = true, ['$' ... ';'] = true, ['<' ... '~'] = true
};

static enum uri_err uri_percent(const struct uri *u, struct bts_slice *part, char problem[128])
{
	char *at = (char *)part->data;
	size_t bad = 0;
	long n = text_percent_decode(at, part->size, at, &bad);

	if (n < 0) {
		snprintf(problem, 128, "malformed percent-encoding at byte %zu of the target",
			(size_t)(at - u->text) + bad);
		return URI_MALFORMED;
	}
	part->size = (size_t)n;
	return URI_OK;
}

static void uri_split_path(struct uri *u, char *path)
{
	char *at = path + 1;

	for (;;) {
		size_t n = (size_t)(strchrnul(at, '/') - at);

		if (u->segments == URI_SEGMENTS_MAX) { /* more than any route has */
			u->segments = 0;
			return;
		}
		u->segment[u->segments++] = (struct bts_slice){at, n};
		if (!at[n])
			return;
		at += n + 1;
	}
}

static enum uri_err uri_split_query(struct uri *u, char *query, char problem[128])
{
	char *at = query;

	for (;;) {
		size_t n = strcspn(at, "&");
		size_t name = strcspn(at, "=&");
		int last = !at[n];
		struct uri_param *p = &u->param[u->params];
		enum uri_err err;

		if (n) {
			if (u->params == URI_PARAMS_MAX) {
				snprintf(problem, 128, "more than %d query parameters", URI_PARAMS_MAX);
				return URI_PARAMS;
			}
			p->name = (struct bts_slice){at, name};
			p->value = (struct bts_slice){
				name < n ? at + name + 1 : at + n, name < n ? n - name - 1 : 0};
			err = uri_percent(u, &p->name, problem);
			if (!err)
				err = uri_percent(u, &p->value, problem);
			if (err)
				return err;
			u->params++;
		}
		if (last)
			return URI_OK;
		at += n + 1;
	}
}

enum uri_err uri_parse(struct uri *u, const char *target, char problem[128])
{
	size_t size = strlen(target) + 1, good = 0;
	char *query;

	u->segments = u->params = 0;
	u->target = 2 * size <= sizeof(u->near) ? u->near : malloc(2 * size);
	if (!u->target)
		return URI_MEMORY;
	u->text = u->target + size;
	memcpy(u->target, target, size);
	memcpy(u->text, target, size);
	while (uri_characters[(unsigned char)target[good]])
		good++;
	if (target[good]) {
		snprintf(problem, 128, "a character that a target may not have at byte %zu", good);
		return URI_MALFORMED;
	}
	if (u->text[0] != '/') {
		snprintf(problem, 128, "the request target must begin with a slash");
		return URI_NOT_ORIGIN_FORM;
	}
	query = strchr(u->text, '?');
	if (query)
		*query++ = '\0';
	uri_split_path(u, u->text);
	return query ? uri_split_query(u, query, problem) : URI_OK;
}

void uri_fini(struct uri *u)
{
	if (u->target != u->near)
		free(u->target);
	u->target = u->text = NULL;
	u->segments = u->params = 0;
}

enum uri_err uri_decode(struct uri *u, unsigned i, int b64u, char problem[128])
{
	struct bts_slice *part = &u->segment[i];
	enum uri_err err = uri_percent(u, part, problem);

	if (!err && b64u) {
		long n = text_base64url_decode(part->data, part->size, (void *)part->data);

		if (n < 0) {
			snprintf(problem, 128, "path segment %u is not base64url", i + 1);
			return URI_MALFORMED;
		}
		part->size = (size_t)n;
	}
	return err;
}

const struct bts_slice *uri_param(const struct uri *u, const char *name)
{
	unsigned i;

	for (i = 0; i < u->params; i++)
		if (u->param[i].name.size == strlen(name) &&
			!memcmp(u->param[i].name.data, name, strlen(name)))
			return &u->param[i].value;
	return NULL;
}
