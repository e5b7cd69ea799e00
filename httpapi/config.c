/* The settings of btsd: one row each. */
#include "config.h"

#include <arpa/inet.h>
#include <string.h>
#include <unistd.h>

#include "btree_store.h"
#include "follow.h"
#include "pace.h"
#include "quorum.h"
#include "sources.h"

#define CONFIG_THREADS_MAX 64
#define CONFIG_SNAPSHOTS_MOST 8192 /* half of what the engine has room for */
#define CONFIG_TTL_MOST_MS (UINT64_C(30) * 24 * 3600 * 1000)

static const char config_usage[] =
	"Usage: btsd primary  --data FILE --listen HOST:PORT [OPTION...]\n"
	"       btsd follower --data FILE --listen HOST:PORT --from URL [OPTION...]\n"
	"Serves a btree_store file over REST: a primary reads and writes, a follower serves what it receives.\n";

static const char config_trailer[] =
	"\nSIGTERM and SIGINT finish what is under way and stop.  Exit status: 0, 1 failure, 2 usage.\n";

static const char *config_check_url(const char *text)
{
	return sources_is_url(text) ? NULL : "http://HOST:PORT or https://HOST:PORT, without user and password";
}

static const char *config_check_from(const char *text)
{
	struct sources sources;

	return sources_parse(&sources, text, NULL) ? "http://HOST:PORT, or several with commas between" : NULL;
}

static const char *config_check_name(const char *text)
{
	size_t size = strlen(text);

	if (size && size <= 63 &&
		strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_") == size)
		return NULL;
	return "a node name: 1 to 63 of letters, digits, '.', '-', '_'";
}

static const char *config_check_members(const char *text)
{
	struct quorum quorum;

	return quorum_init(&quorum, "", text) ? "a list of node names" : NULL;
}

static const char *config_check_durability(const char *text)
{
	unsigned copies;

	return quorum_parse(text, strlen(text), &copies) ? "local, replicated:K or archived" : NULL;
}

static const struct settings_row config_rows[] = {
	SETTINGS_GROUP("The node"),
	{"role", SETTINGS_ENUM(struct config, role), .words = "primary|follower", .least = CONFIG_PRIMARY, .arg = "ROLE", .flags = SETTINGS_WORD,
		.help = "primary or follower; usually the plain word"},
	{"data", SETTINGS_PATH(struct config, data), .arg = "FILE", .help = "the database file, created when absent"},
	{"name", SETTINGS_TEXT(struct config, name), .arg = "NODE", .check = config_check_name,
		.help = "name of this node (default: host name and port)"},
	{"threads", SETTINGS_NUMBER(struct config, threads), .arg = "N", .least = 1, .most = CONFIG_THREADS_MAX,
		.help = "serving threads (default: one a core)"},

	SETTINGS_GROUP("Serving"),
	{"listen", SETTINGS_ADDRESS(struct config, listen), .arg = "HOST:PORT",
		.help = "where to serve; port 0 picks a free one; beyond the loopback only with TLS and credentials"},
	{"admin-listen", SETTINGS_ADDRESS(struct config, admin), .arg = "HOST:PORT",
		.help = "health, status and metrics here too, also when the other is full"},
	{"admin-plain", SETTINGS_FLAG(struct config, admin_plain), .help = "no TLS on --admin-listen, which must then be of the loopback"},
	{"replication-listen", SETTINGS_ADDRESS(struct config, replication), .arg = "HOST:PORT",
		.help = "replication here; with TLS it is served nowhere else"},
	{"url", SETTINGS_TEXT(struct config, url), .arg = "URL", .check = config_check_url,
		.help = "where this node serves, as told to others (default: http or https, and --listen)"},
	{"max-connections-per-address", SETTINGS_NUMBER(struct config, per_address), .arg = "N", .least = 1, .most = 100000,
		.help = "(default: 256, and any number from this machine)"},
	{"max-body", SETTINGS_BYTES(struct config, max_body), .arg = "BYTES", .fallback = "64M", .least = 1024,
		.most = UINT64_C(1) << 30, .flags = SETTINGS_RELOAD, .help = "largest request body, values and loads apart"},
	{"max-value", SETTINGS_BYTES(struct config, max_value), .arg = "BYTES", .fallback = "64G", .least = 1024, .most = BTS_VALUE_MAX,
		.flags = SETTINGS_RELOAD, .help = "largest value of a key"},
	{"txn-max-ops", SETTINGS_NUMBER(struct config, txn_max_ops), .arg = "N", .fallback = "10000", .least = 1,
		.most = 1000000, .flags = SETTINGS_RELOAD, .help = "conditions and operations of a transaction, keys of a multi-get"},
	{"txn-max-bytes", SETTINGS_BYTES(struct config, txn_max_bytes), .arg = "BYTES", .fallback = "16M", .least = 1024,
		.most = UINT64_C(1) << 30, .flags = SETTINGS_RELOAD, .help = "body of a transaction or a multi-get, and a transaction's results"},
	{"idempotency-ttl", SETTINGS_DURATION(struct config, idempotency_ttl_ms), .arg = "TIME", .fallback = "24h", .least = 1000,
		.most = UINT64_C(366) * 24 * 3600 * 1000, .flags = SETTINGS_RELOAD, .help = "how long an Idempotency-Key is remembered"},
	{"idempotency-max", SETTINGS_NUMBER(struct config, idempotency_max), .arg = "N", .fallback = "10000000", .least = 1,
		.most = UINT64_C(1) << 40, .flags = SETTINGS_RELOAD, .help = "how many Idempotency-Keys are remembered"},

	SETTINGS_GROUP("Replication"),
	{"from", SETTINGS_LIST(struct config, from), .arg = "URL", .check = config_check_from,
		.help = "follower: the node to follow, or several with commas"},
	{"rejoin", SETTINGS_FLAG(struct config, rejoin),
		.help = "follower: when its history parted from the source's, write what only this file has to "
			"FILE.orphans-EPOCH-TXID.ndjson, then take the source's (without it: stop)"},
	{"max-rate", SETTINGS_BYTES(struct config, max_rate), .arg = "BYTES", .least = FOLLOW_RATE_LEAST,
		.most = UINT64_C(1) << 40, .help = "follower: received a second at most (default: no limit)"},
	{"serve-rate", SETTINGS_BYTES(struct config, serve_rate), .arg = "BYTES", .least = PACE_RATE_LEAST,
		.most = UINT64_C(1) << 40, .help = "sent a second to all followers together (default: no limit)"},
	{"zstd", SETTINGS_FLAG(struct config, zstd), .help = "follower: have pages compressed on the way"},
	{"primary-url", SETTINGS_TEXT(struct config, primary_url), .arg = "URL", .check = config_check_url,
		.help = "follower: where writes are sent on to"},
	{"members", SETTINGS_LIST(struct config, members), .arg = "NODE,NODE", .check = config_check_members,
		.help = "whose copies count for replicated:K (default: any named follower's)"},
	{"durability", SETTINGS_TEXT(struct config, durability), .arg = "HOW", .fallback = "local",
		.check = config_check_durability, .help = "local, replicated:K or archived: of writes that do not say"},

	ARCHIVE_ROWS(struct config, archive),

	FAILOVER_ROWS(struct config, failover),

	SECURE_ROWS(struct config, secure),

	SETTINGS_GROUP("Snapshots"),
	{"snapshots-max", SETTINGS_NUMBER(struct config, snapshots_max), .arg = "N", .fallback = "1000",
		.most = CONFIG_SNAPSHOTS_MOST, .help = "leased snapshots at a time"},
	{"snapshot-ttl-max", SETTINGS_DURATION(struct config, snapshot_ttl_max_ms), .arg = "TIME", .fallback = "1h",
		.least = 1, .most = CONFIG_TTL_MOST_MS, .help = "longest a lease may be"},
	{"snapshot-bytes-max", SETTINGS_BYTES(struct config, snapshot_bytes_max), .arg = "BYTES", .fallback = "16G",
		.most = UINT64_C(1) << 50, .help = "of the file that a lease may keep from being used again; 0: no limit"},
	{"backups-max", SETTINGS_NUMBER(struct config, backups_max), .arg = "N", .fallback = "4", .most = 256,
		.help = "images for /v1/backup at a time, those of downloads that broke off included"},

	SETTINGS_GROUP("Change feeds"),
	{"watchers-max", SETTINGS_NUMBER(struct config, watchers_max), .arg = "N", .fallback = "4096", .most = 100000,
		.help = "who may follow the change feed at a time"},
	{"changes-retain", SETTINGS_DURATION(struct config, changes_retain_ms), .arg = "TIME", .fallback = "5m", .least = 1000,
		.most = 86400000, .help = "how long a bookmark is good"},
	{"changes-pages", SETTINGS_NUMBER(struct config, changes_pages), .arg = "N", .fallback = "262144", .least = 1,
		.most = UINT64_C(1) << 40, .help = "of the file that a bookmark may keep from being used again"},
	{"changes-heartbeat", SETTINGS_DURATION(struct config, changes_heartbeat_ms), .arg = "TIME", .fallback = "15s", .least = 100,
		.most = 600000, .help = "how often an idle feed says something"},

	SETTINGS_GROUP("Logs"),
	{"log-format", SETTINGS_ENUM(struct config, log_format), .words = "text|json", .fallback = "text",
		.flags = SETTINGS_RELOAD, .help = "one event a line on standard error"},
	{"log-level", SETTINGS_ENUM(struct config, log_level), .words = "info|warn|error", .fallback = "info",
		.flags = SETTINGS_RELOAD, .help = "the least that is logged"},
	{"access-log", SETTINGS_PATH(struct config, access_log), .arg = "PATH", .fallback = "off", .flags = SETTINGS_RELOAD,
		.help = "a line a request, in the combined form or as JSON, into this file, - for standard output, or off"},
	{"slow-log", SETTINGS_DURATION(struct config, slow_ms), .arg = "DURATION", .fallback = "0s", .most = 3600000,
		.flags = SETTINGS_RELOAD, .help = "requests that take longer are logged with where their time went; 0s: none are"},
};

static int config_addresses(struct settings *s, const struct config *c)
{
	char why[SECURE_WHY_SIZE];

	if (secure_may_serve(&c->secure, &c->listen, 0, why) && secure_may_serve(&c->secure, &c->admin, c->admin_plain, why) &&
		secure_may_serve(&c->secure, &c->replication, 0, why) && secure_fits(&c->secure, why))
		return 0;
	return settings_refuse(s, "%s", why);
}

/* A name by default has the port in it that was taken, and is not known yet: then no member is taken for this node. */
static int config_copies(struct settings *s, const struct config *c)
{
	struct quorum quorum;

	if (!c->members || !c->copies || c->copies == QUORUM_ARCHIVE || quorum_init(&quorum, c->name ? c->name : "", c->members) ||
		!quorum.count || c->copies <= quorum.count)
		return 0;
	return settings_refuse(s, "--durability %s asks for more copies than --members names other nodes: %zu", c->durability, quorum.count);
}

/* What clashes with another setting, or depends on one. */
static int config_complete(struct settings *s, struct config *c)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	const char *why;
	char *url;

	c->follower = c->role == CONFIG_FOLLOWER;
	if (c->role == CONFIG_ROLE_NONE)
		return settings_refuse(s, "say 'primary' or 'follower'");
	if (!c->data)
		return settings_refuse(s, "--data FILE is missing");
	if (!c->listen.size)
		return settings_refuse(s, "--listen HOST:PORT is missing");
	why = failover_fits(&c->failover);
	if (why)
		return settings_refuse(s, "%s", why);
	if (c->failover.place && !c->members)
		return settings_refuse(s, "--failover needs --members: the names of its nodes, as only their copies survive an election");
	if (c->follower && !c->from && !c->failover.place)
		return settings_refuse(s, "a follower needs --from URL, or --failover");
	if (!c->follower && (c->primary_url || (c->from && !c->failover.place)))
		return settings_refuse(s, "%s is for a follower", c->primary_url ? "--primary-url" : "--from");
	if (!c->follower && !c->failover.place && (c->max_rate || c->zstd))
		return settings_refuse(s, "%s is for a follower", c->zstd ? "--zstd" : "--max-rate");
	if (config_addresses(s, c))
		return -1;
	if (!c->threads)
		c->threads = cores < 1 ? 1 : cores > CONFIG_THREADS_MAX ? CONFIG_THREADS_MAX : (uint64_t)cores;
	(void)quorum_parse(c->durability, strlen(c->durability), &c->copies);
	if (config_copies(s, c))
		return -1;
	if (c->primary_url && c->primary_url[strlen(c->primary_url) - 1] == '/') {
		url = settings_keep(s, c->primary_url);
		if (!url)
			return settings_refuse(s, "no memory");
		url[strlen(url) - 1] = '\0';
		c->primary_url = url;
	}
	return 0;
}

int config_again(struct settings *s, struct config *c, int argc, char **argv)
{
	*s = (struct settings){.program = "btsd", .version = bts_version(), .usage = config_usage, .trailer = config_trailer,
		.rows = config_rows, .count = sizeof(config_rows) / sizeof(config_rows[0])};
	memset(c, 0, sizeof(*c));
	if (settings_read(s, c, argc, argv, environ))
		return -1;
	return s->help || s->tell_version ? 0 : config_complete(s, c);
}

int config_start(struct settings *s, struct config *c, int argc, char **argv)
{
	int status;

	if (config_again(s, c, argc, argv))
		return settings_complain(s);
	status = settings_asked(s);
	return status < 0 ? settings_checked(s) : status;
}

void config_address_text(const struct sockaddr_storage *addr, char text[64])
{
	char host[48];

	if (addr->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in = (const void *)addr;

		inet_ntop(AF_INET6, &in->sin6_addr, host, sizeof(host));
		snprintf(text, 64, "[%s]:%u", host, ntohs(in->sin6_port));
	} else {
		const struct sockaddr_in *in = (const void *)addr;

		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(text, 64, "%s:%u", host, ntohs(in->sin_port));
	}
}
