/* What this process shows to the nodes it asks. */
#include "identity.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static struct identity identity_now;
static pthread_mutex_t identity_lock = PTHREAD_MUTEX_INITIALIZER;
static char identity_token[KEYRING_TOKEN_SIZE]; /* under the lock; "" = none */

enum bts_err identity_set(const struct identity *identity, struct bts_error *error)
{
	identity_now = *identity;
	return identity_reload(error);
}

enum bts_err identity_reload(struct bts_error *error)
{
	const char *path = identity_now.token_file;
	char text[KEYRING_TOKEN_SIZE + 1];
	uint8_t sum[KEYRING_SUM];
	enum bts_err err;
	ssize_t got;
	int fd;

	if (!path)
		return BTS_OK;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return fail_os(error, errno, "%.200s", path);
	err = keyring_check_private(fd, path, error);
	got = err ? 0 : read(fd, text, sizeof(text) - 1);
	close(fd);
	if (err)
		return err;
	text[got > 0 ? got : 0] = '\0';
	text[strcspn(text, "\r\n")] = '\0';
	if (!keyring_token_sum(text, sum))
		return fail_set(error, BTS_INVALID, "%.200s: its first line is no token", path);
	pthread_mutex_lock(&identity_lock);
	strcpy(identity_token, text);
	pthread_mutex_unlock(&identity_lock);
	return BTS_OK;
}

const struct identity *identity_get(void)
{
	return &identity_now;
}

/* To a node beside us the token may go in the clear.  "127.0.0.1" may be the beginning of a name, or of a user's. */
static bool identity_is_near(const char *url)
{
	static const char *const hosts[] = {"127.0.0.1", "localhost", "[::1]"};
	size_t i, size;

	for (i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
		size = strlen(hosts[i]);
		if (strncasecmp(url, hosts[i], size) == 0 && (!url[size] || strchr(":/?", url[size])))
			return !strchr(url, '@');
	}
	return false;
}

bool identity_header(const char *url, char header[IDENTITY_HEADER_SIZE])
{
	bool there, safe;

	safe = strncasecmp(url, "https://", 8) == 0 ||
	       (strncasecmp(url, "http://", 7) == 0 && identity_is_near(url + 7));
	pthread_mutex_lock(&identity_lock);
	there = identity_token[0] != '\0';
	snprintf(header, IDENTITY_HEADER_SIZE, "Authorization: Bearer %s", identity_token);
	pthread_mutex_unlock(&identity_lock);
	return there && safe;
}
