/* Paths of what lies beside the data file: see beside.h. */
#include "beside.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

static char *beside_copy(struct bts_env *env, const char *text)
{
	size_t size = strlen(text) + 1;
	char *copy = env->ops->memory(env, NULL, size);

	if (copy != NULL)
		memcpy(copy, text, size);
	return copy;
}

bool beside_init(struct beside *beside, struct bts_env *env, const char *path)
{
	char whole[PATH_MAX];
	/* Where the working directory has no name, the path has to do as it is. */
	bool found = env->ops->path_whole != NULL && env->ops->path_whole(env, path, whole, sizeof(whole)) == 0;

	beside->env = env;
	beside->given = beside_copy(env, path);
	beside->whole = beside_copy(env, found ? whole : path);
	return beside->given != NULL && beside->whole != NULL;
}

void beside_fini(struct beside *beside)
{
	struct bts_env *env = beside->env;

	env->ops->memory(env, beside->given, 0);
	env->ops->memory(env, beside->whole, 0);
}

int beside_names(struct bts_env *env, const char *path, struct bts_file *file, bool *same)
{
	struct bts_file_identity mine, there;
	struct bts_file *again;
	int os;

	*same = false;
	os = env->ops->file_open(env, path, BTS_FILE_READ, &again);
	if (os)
		return os == ENOENT ? 0 : os;
	os = env->ops->file_identity(again, &there);
	env->ops->file_close(again);
	if (!os)
		os = env->ops->file_identity(file, &mine);
	*same = !os && mine.device == there.device && mine.inode == there.inode;
	return os;
}

const char *beside_path(const struct beside *beside)
{
	bool named;

	if (strcmp(beside->given, beside->whole) == 0)
		return beside->given;
	(void)beside_names(beside->env, beside->whole, beside->file, &named);
	if (named)
		return beside->whole;
	(void)beside_names(beside->env, beside->given, beside->file, &named);
	return named ? beside->given : beside->whole;
}
