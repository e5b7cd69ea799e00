/* The protocol of sd_notify: lines NAME=value in one datagram to the socket that NOTIFY_SOCKET names. */
#include "notify.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

void notify_state(enum notify_state state)
{
	static const char *const lines[] = {"READY=1", "RELOADING=1", "STOPPING=1"};
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	size_t size = path ? strlen(path) : 0;
	struct timespec now;
	char text[80];
	int fd, n;

	if (!size || size >= sizeof(addr.sun_path) || (*path != '/' && *path != '@'))
		return;
	memcpy(addr.sun_path, path, size);
	if (*path == '@') /* the abstract namespace */
		addr.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	/* The time is what a manager tells a late answer to an earlier reload by; it counts with RELOADING only. */
	n = snprintf(text, sizeof(text), "%s\nMONOTONIC_USEC=%" PRIu64 "\n", lines[state],
		(uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
	(void)!sendto(fd, text, (size_t)n, MSG_NOSIGNAL, (const struct sockaddr *)&addr,
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + size));
	close(fd);
}
