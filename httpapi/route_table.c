/* The routes of the service. */
#include "handle.h"
#include "metrics.h"
#include "route.h"

#define KEYS "/v1/buckets/{bucket}/keys"
#define NAMED "/v1/snapshots/named"
#define WRITE_PARAMS "durability", "timeout"

const struct route route_table[] = {
	{ROUTE_GET, KEYS "/{key}", ROUTE_READS, AUTH_READ, {"enc", "snapshot", "wait"}, handle_key_get, NULL},
	{ROUTE_PUT, KEYS "/{key}", ROUTE_WRITES | ROUTE_ANNOUNCED, AUTH_WRITE, {"ttl", "enc", WRITE_PARAMS},
		handle_key_put, handle_key_feed},
	{ROUTE_DELETE, KEYS "/{key}", ROUTE_WRITES, AUTH_WRITE, {"enc", WRITE_PARAMS}, handle_key_delete,
		NULL},

	{ROUTE_GET, "/", ROUTE_ADMIN, AUTH_READ, {NULL}, handle_index, NULL},
	{ROUTE_GET, "/livez", ROUTE_ADMIN, AUTH_NONE, {NULL}, handle_livez, NULL},
	{ROUTE_GET, "/healthz", ROUTE_ADMIN, AUTH_NONE, {NULL}, handle_livez, NULL},
	{ROUTE_GET, "/readyz", ROUTE_ADMIN, AUTH_NONE, {"role", "max_lag"}, handle_readyz, NULL},
	{ROUTE_GET, "/metrics", ROUTE_ADMIN, AUTH_READ, {NULL}, handle_metrics, NULL},
	{ROUTE_GET, "/v1/status", ROUTE_ADMIN, AUTH_READ, {NULL}, handle_status, NULL},
	{ROUTE_GET, "/v1/openapi.yaml", ROUTE_ADMIN, AUTH_NONE, {NULL}, handle_openapi, NULL},
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
	{ROUTE_GET, "/v1/admin/tokens", ROUTE_ADMIN, AUTH_ADMIN, {NULL}, handle_tokens_get, NULL},
	{ROUTE_POST, "/v1/admin/tokens", ROUTE_ADMIN, AUTH_ADMIN, {"scope", "bucket", "expires", "name"}, handle_tokens_post, NULL},
	{ROUTE_DELETE, "/v1/admin/tokens", ROUTE_ADMIN, AUTH_ADMIN, {"id"}, handle_tokens_delete, NULL},
	{ROUTE_GET, "/v1/admin/compact", ROUTE_ADMIN, AUTH_ADMIN, {NULL}, handle_compact_get, NULL},
	{ROUTE_POST, "/v1/admin/compact", ROUTE_ADMIN, AUTH_ADMIN, {"rate"}, handle_compact_post, NULL},
	{ROUTE_DELETE, "/v1/admin/compact", ROUTE_ADMIN, AUTH_ADMIN, {NULL}, handle_compact_delete, NULL},
	{ROUTE_POST, "/v1/replication/promise", ROUTE_ADMIN, AUTH_ELECT, {"epoch", "database"},
		handle_promise, NULL},

	{ROUTE_GET, "/v1/buckets", ROUTE_READS | ROUTE_EACH, AUTH_READ, {"limit", "after", "snapshot", "wait"},
		handle_buckets_get, NULL},
	{ROUTE_GET, "/v1/buckets/{bucket}", ROUTE_READS, AUTH_READ, {"enc", "snapshot", "wait"},
		handle_bucket_get, NULL},
	{ROUTE_PUT, "/v1/buckets/{bucket}", ROUTE_WRITES | ROUTE_BODY, AUTH_WRITE, {"enc", WRITE_PARAMS},
		handle_bucket_put, NULL},
	{ROUTE_DELETE, "/v1/buckets/{bucket}", ROUTE_WRITES, AUTH_WRITE, {"enc", WRITE_PARAMS},
		handle_bucket_delete, NULL},

	{ROUTE_GET, KEYS, ROUTE_READS, AUTH_READ,
		{"prefix", "from", "to", "after", "limit", "reverse", "values", "delimiter", "enc", "snapshot", "wait"},
		handle_scan, NULL},
	{ROUTE_DELETE, KEYS, ROUTE_WRITES, AUTH_WRITE, {"prefix", "from", "to", "all", "enc", WRITE_PARAMS},
		handle_range_delete, NULL},
	{ROUTE_GET, "/v1/changes", ROUTE_EACH, AUTH_READ, {"since", "bucket", "prefix", "wait", "values"}, handle_changes, NULL},
	{ROUTE_POST, "/v1/buckets/{bucket}/load", ROUTE_WRITES, AUTH_WRITE, {"ttl", "enc", WRITE_PARAMS},
		handle_load, handle_load_feed},
	{ROUTE_POST, "/v1/get", ROUTE_READS | ROUTE_EACH, AUTH_READ, {"snapshot", "wait"}, handle_get, handle_txn_feed},
	{ROUTE_POST, "/v1/txn", ROUTE_READS | ROUTE_MAY_WRITE | ROUTE_EACH, AUTH_DATA, {"wait", WRITE_PARAMS}, handle_txn,
		handle_txn_feed},

	{ROUTE_GET, "/v1/backup", ROUTE_READS, AUTH_ADMIN, {"image", "since", "ttl", "wait"}, handle_backup_get, NULL},
	{ROUTE_DELETE, "/v1/backup", 0, AUTH_ADMIN, {"image"}, handle_backup_delete, NULL},
	{ROUTE_GET, "/v1/snapshots", 0, AUTH_ADMIN, {NULL}, handle_snapshots_get, NULL},
	{ROUTE_POST, "/v1/snapshots", ROUTE_READS | ROUTE_BODY | ROUTE_EACH, AUTH_READ, {"wait"}, handle_snapshots_post, NULL},
	{ROUTE_GET, NAMED, ROUTE_READS, AUTH_READ, {"limit", "after", "wait"}, handle_named_list, NULL},
	{ROUTE_PATCH, "/v1/snapshots/{id}", ROUTE_BODY | ROUTE_EACH, AUTH_READ, {NULL}, handle_snapshot_patch, NULL},
	{ROUTE_DELETE, "/v1/snapshots/{id}", ROUTE_EACH, AUTH_READ, {NULL}, handle_snapshot_delete, NULL},
	{ROUTE_GET, NAMED "/{name}", ROUTE_READS, AUTH_READ, {"enc", "wait"}, handle_named_get, NULL},
	{ROUTE_PUT, NAMED "/{name}", ROUTE_WRITES, AUTH_WRITE, {"enc", WRITE_PARAMS}, handle_named_put, NULL},
	{ROUTE_DELETE, NAMED "/{name}", ROUTE_WRITES, AUTH_WRITE, {"enc", WRITE_PARAMS}, handle_named_delete,
		NULL},
};

_Static_assert(sizeof(route_table) / sizeof(route_table[0]) < METRICS_ROUTES, "each has its counts, and one more has");
const size_t route_table_size = sizeof(route_table) / sizeof(route_table[0]);
