/* The command line of btsd. */
#include "config.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "btree_store.h"
#include "follow.h"
#include "quorum.h"
#include "text.h"

#define CONFIG_MAX_BODY_DEFAULT ((size_t)64 << 20)
#define CONFIG_THREADS_MAX 64

static const char config_help[] =
	"Usage: btsd primary  --data FILE --listen HOST:PORT [OPTION...]\n"
	"       btsd follower --data FILE --listen HOST:PORT --from URL [OPTION...]\n"
	"Serves a btree_store file over REST: a primary reads and writes, a follower serves what it "
	"receives.\n"
	"\n"
	"  --data FILE               the database file, created when absent\n"
	"  --listen HOST:PORT        where to serve; port 0 picks a free one; loopback only\n"
	"  --admin-listen HOST:PORT  health, status and metrics here too, also when the other is full\n"
	"  --from URL                follower: the node to follow, or several with commas\n"
	"  --rejoin                  follower: when its history parted from the source's, write what only this file has to\n"
	"                            FILE.orphans-EPOCH-TXID.ndjson, then take the source's (without it: stop)\n"
	"  --max-rate BYTES          follower: received a second at most, 65536 or more (default: no limit)\n"
	"  --zstd                    follower: have pages compressed on the way\n"
	"  --primary-url URL         follower: where writes are sent on to\n"
	"  --name NODE               name of this node (default: host name and port)\n"
	"  --members NODE,NODE       whose copies count for replicated:K (default: any named follower's)\n"
	"  --durability HOW          local (default) or replicated:K: of writes that do not say\n"
	"  --threads N               serving threads (default: one a core)\n"
	"  --max-body BYTES          largest request body (default 67108864)\n"
	"  --log-format text|json    one event a line on standard error\n"
	"  --help, --version\n"
	"\n"
	"SIGTERM and SIGINT finish what is under way and stop.  Exit status: 0, 1 failure, 2 usage.\n";

enum config_option {
	CONFIG_DATA = 1,
	CONFIG_LISTEN,
	CONFIG_ADMIN,
	CONFIG_FROM,
	CONFIG_REJOIN,
	CONFIG_MAX_RATE,
	CONFIG_ZSTD,
	CONFIG_PRIMARY,
	CONFIG_NAME,
	CONFIG_MEMBERS,
	CONFIG_DURABILITY,
	CONFIG_THREADS,
	CONFIG_MAX_BODY,
	CONFIG_LOG,
	CONFIG_HELP,
	CONFIG_VERSION
};

static const struct option config_options[] = {
	{"data", required_argument, NULL, CONFIG_DATA},
	{"listen", required_argument, NULL, CONFIG_LISTEN},
	{"admin-listen", required_argument, NULL, CONFIG_ADMIN},
	{"from", required_argument, NULL, CONFIG_FROM},
	{"rejoin", no_argument, NULL, CONFIG_REJOIN},
	{"max-rate", required_argument, NULL, CONFIG_MAX_RATE},
	{"zstd", no_argument, NULL, CONFIG_ZSTD},
	{"primary-url", required_argument, NULL, CONFIG_PRIMARY},
	{"name", required_argument, NULL, CONFIG_NAME},
	{"members", required_argument, NULL, CONFIG_MEMBERS},
	{"durability", required_argument, NULL, CONFIG_DURABILITY},
	{"threads", required_argument, NULL, CONFIG_THREADS},
	{"max-body", required_argument, NULL, CONFIG_MAX_BODY},
	{"log-format", required_argument, NULL, CONFIG_LOG},
	{"help", no_argument, NULL, CONFIG_HELP},
	{"version", no_argument, NULL, CONFIG_VERSION},
	{NULL, 0, NULL, 0},
};

static int config_usage(const char *format, const char *what)
{
	fputs("btsd: ", stderr);
	fprintf(stderr, format, what);
	fputs("\nTry 'btsd --help'.\n", stderr);
	return 2;
}

static int config_is_loopback(const struct sockaddr *sa)
{
	if (sa->sa_family == AF_INET)
		return ntohl(((const struct sockaddr_in *)(const void *)sa)->sin_addr.s_addr) >> 24 == 127;
	return sa->sa_family == AF_INET6 &&
	       IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr);
}

/* Names are not looked up, but for localhost: what is served to whom must not depend on a name server. */
static int config_address(const char *text, struct config_address *out)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM},
			*found;
	const char *colon = strrchr(text, ':');
	uint64_t port;
	char host[64];
	size_t n;

	if (!colon || text_u64(colon + 1, strlen(colon + 1), 65535, &port))
		return config_usage("'%s' is not HOST:PORT", text);
	n = (size_t)(colon - text);
	if (n > 2 && text[0] == '[' && text[n - 1] == ']') {
		text++;
		n -= 2;
	}
	if (!n || n >= sizeof(host))
		return config_usage("'%s' is not HOST:PORT", text);
	memcpy(host, text, n);
	host[n] = '\0';
	if (!strcmp(host, "localhost"))
		strcpy(host, "127.0.0.1");
	if (getaddrinfo(host, colon + 1, &hints, &found))
		return config_usage("'%s' is not a numeric address", host);
	memcpy(&out->addr, found->ai_addr, found->ai_addrlen);
	out->size = found->ai_addrlen;
	freeaddrinfo(found);
	if (!config_is_loopback((const struct sockaddr *)&out->addr))
		return config_usage(
			"'%s' is not a loopback address: without TLS and tokens only those are served", host);
	return -1;
}

static int config_url(const char *name, const char *url)
{
	if (!strncmp(url, "http://", 7) && url[7] && !strpbrk(url, " \r\n\t\"<>") && strlen(url) < 1024)
		return -1;
	return config_usage("%s wants a URL that begins with http://", name);
}

static int config_number(const char *name, const char *text, uint64_t low, uint64_t high, uint64_t *value)
{
	if (!text_u64(text, strlen(text), high, value) && *value >= low)
		return -1;
	return config_usage("%s: not a number in its range", name);
}

static int config_name(const char *name)
{
	if (!*name || strlen(name) > 63 ||
		name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_")])
		return config_usage("'%s' is no node name: 1 to 63 of letters, digits, '.', '-', '_'", name);
	return -1;
}

static int config_apply(struct config *c, int option, char *value)
{
	struct quorum quorum;
	uint64_t n = 0;
	int status = -1;

	switch (option) {
	case CONFIG_DATA:
		c->data = value;
		return *value ? -1 : config_usage("--data is %s", "empty");
	case CONFIG_LISTEN:
		c->listen_text = value;
		return config_address(value, &c->listen);
	case CONFIG_ADMIN:
		c->admin_text = value;
		return config_address(value, &c->admin);
	case CONFIG_REJOIN:
		c->rejoin = 1;
		return -1;
	case CONFIG_FROM:
		c->from = value;
		return config_url("--from", value);
	case CONFIG_MAX_RATE:
		return config_number("--max-rate", value, FOLLOW_RATE_LEAST, UINT64_C(1) << 40, &c->max_rate);
	case CONFIG_ZSTD:
		c->zstd = 1;
		return -1;
	case CONFIG_PRIMARY:
		c->primary_url = value;
		value[strlen(value) - (strlen(value) && value[strlen(value) - 1] == '/')] = '\0';
		return config_url("--primary-url", value);
	case CONFIG_NAME:
		c->name = value;
		return config_name(value);
	case CONFIG_MEMBERS:
		c->members = value;
		return quorum_init(&quorum, "", value) ? config_usage("--members: '%s' is no list of node names", value)
						       : -1;
	case CONFIG_DURABILITY:
		return quorum_parse(value, strlen(value), &c->copies)
			       ? config_usage("--durability is local or replicated:K, not '%s'", value)
			       : -1;
	case CONFIG_THREADS:
		status = config_number("--threads", value, 1, CONFIG_THREADS_MAX, &n);
		c->threads = (unsigned)n;
		return status;
	case CONFIG_MAX_BODY:
		status = config_number("--max-body", value, 1024, (uint64_t)1 << 30, &n);
		c->max_body = (size_t)n;
		return status;
	case CONFIG_LOG:
		c->log_json = !strcmp(value, "json");
		if (!c->log_json && strcmp(value, "text"))
			status = config_usage("--log-format is text or json, not '%s'", value);
		return status;
	case CONFIG_HELP:
		fputs(config_help, stdout);
		return 0;
	case CONFIG_VERSION:
		printf("btsd %s\n", bts_version());
		return 0;
	default:
		fputs("Try 'btsd --help'.\n", stderr); /* getopt has said what it is */
		return 2;
	}
}

static int config_complete(struct config *c)
{
	if (!c->data)
		return config_usage("%s is missing", "--data FILE");
	if (!c->listen_text)
		return config_usage("%s is missing", "--listen HOST:PORT");
	if (c->follower && !c->from)
		return config_usage("a follower needs %s", "--from URL");
	if (!c->follower && (c->from || c->primary_url))
		return config_usage("%s is for a follower", c->from ? "--from" : "--primary-url");
	if (!c->follower && (c->max_rate || c->zstd))
		return config_usage("%s is for a follower", c->zstd ? "--zstd" : "--max-rate");
	if (!c->threads) {
		long cores = sysconf(_SC_NPROCESSORS_ONLN);

		c->threads = cores < 1			  ? 1
			     : cores > CONFIG_THREADS_MAX ? CONFIG_THREADS_MAX
							  : (unsigned)cores;
	}
	return -1;
}

int config_parse(struct config *c, int argc, char **argv)
{
	int option, status;

	memset(c, 0, sizeof(*c));
	c->max_body = CONFIG_MAX_BODY_DEFAULT;
	while ((option = getopt_long(argc, argv, "", config_options, NULL)) != -1) {
		status = config_apply(c, option, optarg);
		if (status != -1)
			return status;
	}
	if (optind == argc)
		return config_usage("say %s", "'primary' or 'follower'");
	c->follower = !strcmp(argv[optind], "follower");
	if (!c->follower && strcmp(argv[optind], "primary"))
		return config_usage("'%s' is no command", argv[optind]);
	if (optind + 1 < argc)
		return config_usage("unexpected argument '%s'", argv[optind + 1]);
	return config_complete(c);
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
