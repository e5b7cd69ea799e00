/* The routes as JSON, for tests and documents that are made from them. */
#include <stdio.h>

#include "route.h"
#include "serve.h"

static void route_print_flags(unsigned flags)
{
	static const struct {
		unsigned flag;
		const char *word;
	} words[] = {{ROUTE_ADMIN, "admin"}, {ROUTE_WRITES, "writes"}, {ROUTE_BODY, "body"},
		{ROUTE_READS, "reads"}, {ROUTE_EACH, "each"}};
	const char *comma = "";

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (flags & words[i].flag) {
			printf("%s\"%s\"", comma, words[i].word);
			comma = ",";
		}
}

/* "admin": on the admin listener too; "feed": a body of any size, taken as it comes. */
void route_print(void)
{
	const char *method, *path, *scope;

	puts("[");
	for (size_t i = 0; i < route_table_size; i++) {
		const struct route *r = &route_table[i];

		printf("{\"method\":\"%s\",\"template\":\"%s\",\"scope\":\"%s\",\"server\":\"api\",\"flags\":"
		       "[",
			route_method_name(r->method), r->template, auth_scope_word(r->scope));
		route_print_flags(r->flags);
		printf("%s],\"params\":[", r->feed ? r->flags ? ",\"feed\"" : "\"feed\"" : "");
		for (size_t k = 0; k < ROUTE_PARAMS_MAX && r->params[k]; k++)
			printf("%s\"%s\"", k ? "," : "", r->params[k]);
		puts("]},");
	}
	for (size_t i = 0; serve_route_row(i, &method, &path, &scope); i++)
		printf("%s{\"method\":\"%s\",\"template\":\"%s\",\"scope\":\"%s\",\"server\":\"replication\","
		       "\"flags\":[],\"params\":[]}\n",
			i ? "," : "", method, path, scope);
	puts("]");
}
