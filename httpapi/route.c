/* Finds the route of a request. */
#include "route.h"

#include <stdio.h>
#include <string.h>

/* The next part of a template after its slash. */
static size_t route_part(const char *at)
{
	return (size_t)(strchrnul(at, '/') - at);
}

static int route_path_matches(const char *template, const struct uri *u)
{
	const char *at = template;
	unsigned i;

	for (i = 0; i < u->segments; i++) {
		const char *part = u->segment[i].data, *end = part + u->segment[i].size;

		if (*at++ != '/')
			return 0;
		if (*at == '{') {
			at += route_part(at);
			continue;
		}
		/* not memcmp: most templates differ in their first bytes, and each request looks at all */
		while (part < end && *at == *part) {
			at++;
			part++;
		}
		if (part < end || (*at && *at != '/'))
			return 0;
	}
	return !*at;
}

struct route_match route_find(
	const struct route *table, size_t size, const struct uri *u, unsigned method, unsigned needed)
{
	struct route_match match = {NULL, 0};
	const struct route *first = NULL;
	size_t i;

	for (i = 0; i < size; i++) {
		if ((table[i].flags & needed) != needed || !route_path_matches(table[i].template, u))
			continue;
		/* What else matches is another resource: "named" is no id. */
		if (first && strcmp(first->template, table[i].template) != 0)
			continue;
		if (!first)
			first = &table[i];
		match.allowed |= table[i].method | ROUTE_OPTIONS;
		if (table[i].method == method) {
			match.route = &table[i];
			break;
		}
	}
	return match;
}

int route_segment(const struct route *route, const char *name)
{
	const char *at = route->template;
	int i;

	for (i = 0; *at; i++) {
		size_t n = route_part(++at);

		if (*at == '{' && n == strlen(name) + 2 && !memcmp(at + 1, name, n - 2))
			return i;
		at += n;
	}
	return -1;
}

static int route_knows(const struct route *route, const struct bts_slice *name)
{
	int i;

	for (i = 0; i < ROUTE_PARAMS_MAX && route->params[i]; i++)
		if (strlen(route->params[i]) == name->size &&
			!memcmp(route->params[i], name->data, name->size))
			return 1;
	return 0;
}

const struct bts_slice *route_bad_param(const struct route *route, const struct uri *u, int *twice)
{
	unsigned i, k;

	*twice = 0;
	for (i = 0; i < u->params; i++) {
		const struct bts_slice *name = &u->param[i].name;

		if (!route_knows(route, name))
			return name;
		for (k = 0; k < i; k++) {
			if (u->param[k].name.size == name->size &&
				!memcmp(u->param[k].name.data, name->data, name->size)) {
				*twice = 1;
				return name;
			}
		}
	}
	return NULL;
}

static const struct {
	unsigned method;
	const char *name;
} route_methods[] = {
	{ROUTE_GET, "GET"},
	{ROUTE_GET, "HEAD"},
	{ROUTE_PUT, "PUT"},
	{ROUTE_DELETE, "DELETE"},
	{ROUTE_POST, "POST"},
	{ROUTE_PATCH, "PATCH"},
	{ROUTE_OPTIONS, "OPTIONS"},
};

void route_allow(unsigned methods, char text[64])
{
	size_t i;

	text[0] = '\0';
	for (i = 0; i < sizeof(route_methods) / sizeof(route_methods[0]); i++) {
		if (methods & route_methods[i].method) {
			strcat(text, *text ? ", " : "");
			strcat(text, route_methods[i].name);
		}
	}
}

unsigned route_method(const char *name)
{
	size_t i;

	for (i = 0; i < sizeof(route_methods) / sizeof(route_methods[0]); i++)
		if (!strcmp(name, route_methods[i].name))
			return route_methods[i].method;
	return 0;
}

const char *route_method_name(unsigned method)
{
	size_t i;

	for (i = 0; i < sizeof(route_methods) / sizeof(route_methods[0]); i++)
		if (method == route_methods[i].method)
			return route_methods[i].name;
	return "other";
}
