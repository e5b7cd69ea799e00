/* The routes of the service. */
#include "handle.h"
#include "route.h"

#define KEYS "/v1/buckets/{bucket}/keys"
#define WRITE_PARAMS "durability", "timeout"

const struct route route_table[] = {
	{ROUTE_GET, "/", ROUTE_ADMIN, {NULL}, handle_index, NULL},
	{ROUTE_GET, "/livez", ROUTE_ADMIN, {NULL}, handle_livez, NULL},
	{ROUTE_GET, "/healthz", ROUTE_ADMIN, {NULL}, handle_livez, NULL},
	{ROUTE_GET, "/readyz", ROUTE_ADMIN, {"role", "max_lag"}, handle_readyz, NULL},
	{ROUTE_GET, "/metrics", ROUTE_ADMIN, {NULL}, handle_metrics, NULL},
	{ROUTE_GET, "/v1/status", ROUTE_ADMIN, {NULL}, handle_status, NULL},
	{ROUTE_GET, "/v1/admin/promote", ROUTE_ADMIN, {NULL}, handle_role, NULL},
	{ROUTE_POST, "/v1/admin/promote", ROUTE_ADMIN, {"members", "survive", "expect", "digest", "force"},
		handle_promote, NULL},
	{ROUTE_GET, "/v1/admin/demote", ROUTE_ADMIN, {NULL}, handle_role, NULL},
	{ROUTE_POST, "/v1/admin/demote", ROUTE_ADMIN, {"upstream", "primary_url"}, handle_demote, NULL},
	{ROUTE_GET, "/v1/admin/follow", ROUTE_ADMIN, {NULL}, handle_role, NULL},
	{ROUTE_POST, "/v1/admin/follow", ROUTE_ADMIN, {"url", "primary_url"}, handle_follow, NULL},
	{ROUTE_GET, "/v1/admin/scrub", ROUTE_ADMIN, {NULL}, handle_scrub_get, NULL},
	{ROUTE_POST, "/v1/admin/scrub", ROUTE_ADMIN, {"from", "rate"}, handle_scrub_post, NULL},
	{ROUTE_POST, "/v1/replication/promise", ROUTE_ADMIN, {"epoch", "database"}, handle_promise, NULL},

	{ROUTE_GET, "/v1/buckets", ROUTE_READS, {"limit", "after", "wait"}, handle_buckets_get, NULL},
	{ROUTE_GET, "/v1/buckets/{bucket}", ROUTE_READS, {"enc", "wait"}, handle_bucket_get, NULL},
	{ROUTE_PUT, "/v1/buckets/{bucket}", ROUTE_WRITES | ROUTE_BODY, {"enc", WRITE_PARAMS}, handle_bucket_put, NULL},
	{ROUTE_DELETE, "/v1/buckets/{bucket}", ROUTE_WRITES, {"enc", WRITE_PARAMS}, handle_bucket_delete, NULL},

	{ROUTE_GET, KEYS "/{key}", ROUTE_READS, {"enc", "wait"}, handle_key_get, NULL},
	{ROUTE_PUT, KEYS "/{key}", ROUTE_WRITES | ROUTE_BODY, {"enc", WRITE_PARAMS}, handle_key_put, NULL},
	{ROUTE_DELETE, KEYS "/{key}", ROUTE_WRITES, {"enc", WRITE_PARAMS}, handle_key_delete, NULL},
	{ROUTE_GET, KEYS, ROUTE_READS,
		{"prefix", "from", "to", "after", "limit", "reverse", "values", "enc", "wait"}, handle_scan,
		NULL},
	{ROUTE_POST, "/v1/buckets/{bucket}/load", ROUTE_WRITES, {"enc", WRITE_PARAMS}, handle_load, handle_load_feed},
};

const size_t route_table_size = sizeof(route_table) / sizeof(route_table[0]);
