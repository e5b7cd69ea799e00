/* A listening socket. */
#include "serve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "position.h"

#define SERVE_BACKLOG 128

union serve_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* Split at the last colon; brackets around a v6 host go away. */
static bool serve_split(const char *address, char *host, size_t size, unsigned *port)
{
	const char *colon = strrchr(address, ':');
	size_t length = colon ? (size_t)(colon - address) : 0;
	uint64_t number;

	if (length == 0 || length >= size || !position_number_parse(colon + 1, 65535, &number))
		return false;
	if (address[0] == '[' && length > 2 && address[length - 1] == ']') {
		address++;
		length -= 2;
	}
	memcpy(host, address, length);
	host[length] = '\0';
	*port = (unsigned)number;
	return true;
}

static enum bts_err serve_parse_address(
	const char *text, bool open_to_all, union serve_address *address, socklen_t *size, struct bts_error *error)
{
	unsigned port;
	char host[64];

	memset(address, 0, sizeof(*address));
	if (!serve_split(text, host, sizeof(host), &port))
		return fail_set(error, BTS_INVALID, "address '%.80s': must be HOST:PORT", text);
	if (strcmp(host, "localhost") == 0)
		strcpy(host, "127.0.0.1");
	if (inet_pton(AF_INET, host, &address->v4.sin_addr) == 1) {
		address->v4.sin_family = AF_INET;
		address->v4.sin_port = htons((uint16_t)port);
		*size = sizeof(address->v4);
		if (open_to_all || ntohl(address->v4.sin_addr.s_addr) >> 24 == 127)
			return BTS_OK;
	} else if (inet_pton(AF_INET6, host, &address->v6.sin6_addr) == 1) {
		address->v6.sin6_family = AF_INET6;
		address->v6.sin6_port = htons((uint16_t)port);
		*size = sizeof(address->v6);
		if (open_to_all || IN6_IS_ADDR_LOOPBACK(&address->v6.sin6_addr))
			return BTS_OK;
	} else {
		return fail_set(error, BTS_INVALID,
			"address '%.80s': the host must be a numeric address or localhost", text);
	}
	return fail_set(error, BTS_INVALID,
		"address '%.80s': beyond the loopback only with TLS (--tls-cert, --tls-key) and credentials (--token-file, --client-ca)",
		text);
}

static unsigned serve_bound_port(int fd)
{
	union serve_address address;
	socklen_t size = sizeof(address);

	memset(&address, 0, sizeof(address));
	if (getsockname(fd, &address.any, &size))
		return 0;
	return ntohs(address.any.sa_family == AF_INET6 ? address.v6.sin6_port : address.v4.sin_port);
}

enum bts_err serve_listen(const char *text, bool open_to_all, int *out, unsigned *port, struct bts_error *error)
{
	union serve_address address;
	enum bts_err err;
	socklen_t size = 0;
	int fd, one = 1;

	err = serve_parse_address(text, open_to_all, &address, &size, error);
	if (err)
		return err;
	fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fail_os(error, errno, "socket for '%.80s'", text);
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) || bind(fd, &address.any, size) ||
		listen(fd, SERVE_BACKLOG)) {
		err = fail_os(error, errno, "listening on '%.80s'", text);
		close(fd);
		return err;
	}
	*out = fd;
	*port = serve_bound_port(fd);
	return BTS_OK;
}
