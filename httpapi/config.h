/* The command line of btsd. */
#ifndef HTTPAPI_CONFIG_H
#define HTTPAPI_CONFIG_H

#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

struct config_address {
	struct sockaddr_storage addr;
	socklen_t size;
};

struct config {
	int follower, rejoin;
	const char *data, *from, *primary_url, *name; /* NULL: not given */
	uint64_t max_rate; /* of a follower, bytes a second; 0: no limit */
	int zstd;
	const char *listen_text, *admin_text;
	struct config_address listen, admin; /* admin.size 0: none */
	unsigned threads;
	size_t max_body; /* bytes */
	const char *members; /* names of nodes whose copies count; NULL: any named one's */
	unsigned copies;     /* --durability: of a write that does not say */
	int log_json;
};

/* -1: go on; else the program's exit status, the reason or the help printed. */
int config_parse(struct config *, int argc, char **argv);

/* "127.0.0.1:8080" or "[::1]:8080" of a bound address. */
void config_address_text(const struct sockaddr_storage *, char text[64]);
#endif
