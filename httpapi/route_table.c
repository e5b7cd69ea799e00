/* The routes of the service. */
#include "handle.h"
#include "route.h"

#define KEYS "/v1/buckets/{bucket}/keys"
#define WRITE_PARAMS "durability", "timeout"

const struct route route_table[] = {
	{ROUTE_GET, "/", ROUTE_ADMIN, AUTH_READ, {NULL}, handle_index, NULL},
	{ROUTE_GET, "/livez", ROUTE_ADMIN, AUTH_NONE, {NULL}, handle_livez, NULL},
	{ROUTE_GET, "/healthz", ROUTE_ADMIN, AUTH_NONE, {NULL}, handle_livez, NULL},
	{ROUTE_GET, "/readyz", ROUTE_ADMIN, AUTH_NONE, {"role", "max_lag"}, handle_readyz, NULL},
	{ROUTE_GET, "/metrics", ROUTE_ADMIN, AUTH_READ, {NULL}, handle_metrics, NULL},
	{ROUTE_GET, "/v1/status", ROUTE_ADMIN, AUTH_READ, {NULL}, handle_status, NULL},
	{ROUTE_GET, "/v1/admin/promote", ROUTE_ADMIN, AUTH_ADMIN, {NULL}, handle_role, NULL},
	{ROUTE_POST, "/v1/admin/promote", ROUTE_ADMIN, AUTH_ADMIN,
		{"members", "survive", "expect", "digest", "force"}, handle_promote, NULL},
	{ROUTE_GET, "/v1/admin/demote", ROUTE_ADMIN, AUTH_ADMIN, {NULL}, handle_role, NULL},
	{ROUTE_POST, "/v1/admin/demote", ROUTE_ADMIN, AUTH_ADMIN, {"upstream", "primary_url"}, handle_demote,
		NULL},
	{ROUTE_GET, "/v1/admin/follow", ROUTE_ADMIN, AUTH_ADMIN, {NULL}, handle_role, NULL},
	{ROUTE_POST, "/v1/admin/follow", ROUTE_ADMIN, AUTH_ADMIN, {"url", "primary_url"}, handle_follow,
		NULL},
	{ROUTE_GET, "/v1/admin/scrub", ROUTE_ADMIN, AUTH_ADMIN, {NULL}, handle_scrub_get, NULL},
	{ROUTE_POST, "/v1/admin/scrub", ROUTE_ADMIN, AUTH_ADMIN, {"from", "rate"}, handle_scrub_post, NULL},
	{ROUTE_POST, "/v1/replication/promise", ROUTE_ADMIN, AUTH_REPLICATE, {"epoch", "database"},
		handle_promise, NULL},

	{ROUTE_GET, "/v1/buckets", ROUTE_READS, AUTH_READ, {"limit", "after", "wait"}, handle_buckets_get,
		NULL},
	{ROUTE_GET, "/v1/buckets/{bucket}", ROUTE_READS, AUTH_READ, {"enc", "wait"}, handle_bucket_get, NULL},
	{ROUTE_PUT, "/v1/buckets/{bucket}", ROUTE_WRITES | ROUTE_BODY, AUTH_WRITE, {"enc", WRITE_PARAMS},
		handle_bucket_put, NULL},
	{ROUTE_DELETE, "/v1/buckets/{bucket}", ROUTE_WRITES, AUTH_WRITE, {"enc", WRITE_PARAMS},
		handle_bucket_delete, NULL},

	{ROUTE_GET, KEYS "/{key}", ROUTE_READS, AUTH_READ, {"enc", "wait"}, handle_key_get, NULL},
	{ROUTE_PUT, KEYS "/{key}", ROUTE_WRITES | ROUTE_BODY, AUTH_WRITE, {"enc", WRITE_PARAMS},
		handle_key_put, NULL},
	{ROUTE_DELETE, KEYS "/{key}", ROUTE_WRITES, AUTH_WRITE, {"enc", WRITE_PARAMS}, handle_key_delete,
		NULL},
	{ROUTE_GET, KEYS, ROUTE_READS, AUTH_READ,
		{"prefix", "from", "to", "after", "limit", "reverse", "values", "enc", "wait"}, handle_scan,
		NULL},
	{ROUTE_POST, "/v1/buckets/{bucket}/load", ROUTE_WRITES, AUTH_WRITE, {"enc", WRITE_PARAMS},
		handle_load, handle_load_feed},
};

const size_t route_table_size = sizeof(route_table) / sizeof(route_table[0]);
