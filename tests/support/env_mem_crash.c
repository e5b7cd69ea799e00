/*
 * What power loss leaves: listing the units whose fate is open, and making the environment that one decision
 * gives.
 *
 * The order of units is fixed: file by file (in order of creation) its size, then its sectors in order of
 * their first write; then the names.
 */
#include "env_mem_private.h"

#include <string.h>

/* A name the file has or may have after a crash, or NULL: then nobody can see it. */
static const char *env_mem_path_of(const struct env_mem *m, const struct env_mem_file *f)
{
	if (f->is_lock)
		return NULL;
	for (size_t i = 0; i < m->name_count; i++)
		for (size_t k = 0; k < m->names[i].count; k++)
			if (m->names[i].targets[k] == f)
				return m->names[i].path;
	return NULL;
}

static bool env_mem_tearable(uint64_t offset)
{
	return offset < 4096 || (offset >= 32768 && offset < 32768 + 4096);
}

static struct env_mem_unit env_mem_size_unit(const char *path)
{
	return (struct env_mem_unit){ENV_MEM_UNIT_SIZE, path, 0, 2, 0};
}

static struct env_mem_unit env_mem_sector_unit(const char *path, const struct env_mem_dirty *d)
{
	uint64_t offset = (uint64_t)d->sector * ENV_MEM_SECTOR;

	return (struct env_mem_unit){ENV_MEM_UNIT_SECTOR, path, offset, d->count, env_mem_tearable(offset)};
}

static struct env_mem_unit env_mem_name_unit(const struct env_mem_name *name)
{
	return (struct env_mem_unit){ENV_MEM_UNIT_NAME, name->path, 0, (unsigned)name->count, 0};
}

struct env_mem_list {
	struct env_mem_unit *units;
	size_t cap, count, unflushed;
};

static void env_mem_list_add(struct env_mem_list *list, struct env_mem_unit unit)
{
	if (list->count < list->cap)
		list->units[list->count] = unit;
	list->count++;
	list->unflushed += unit.versions - 1;
}

static void env_mem_list_all(const struct env_mem *m, struct env_mem_list *list)
{
	for (const struct env_mem_file *f = m->files; f; f = f->next) {
		const char *path = env_mem_path_of(m, f);

		if (!path)
			continue;
		if (f->size != f->durable_size)
			env_mem_list_add(list, env_mem_size_unit(path));
		for (size_t i = 0; i < f->dirty_count; i++)
			if (f->dirty[i].count > 1)
				env_mem_list_add(list, env_mem_sector_unit(path, &f->dirty[i]));
	}
	for (size_t i = 0; i < m->name_count; i++)
		if (m->names[i].count > 1)
			env_mem_list_add(list, env_mem_name_unit(&m->names[i]));
}

size_t env_mem_units(const struct env_mem *m, struct env_mem_unit *units, size_t cap)
{
	struct env_mem_list list = {.units = units, .cap = cap};

	env_mem_list_all(m, &list);
	return list.count;
}

size_t env_mem_unflushed(const struct env_mem *m)
{
	struct env_mem_list list = {0};

	env_mem_list_all(m, &list);
	return list.unflushed;
}

struct env_mem_choice env_mem_choose_durable(void *arg, size_t index, const struct env_mem_unit *unit)
{
	(void)arg;
	(void)index;
	(void)unit;
	return (struct env_mem_choice){0};
}

struct env_mem_choice env_mem_choose_newest(void *arg, size_t index, const struct env_mem_unit *unit)
{
	(void)arg;
	(void)index;
	return (struct env_mem_choice){.version = unit->versions - 1};
}

struct env_mem_choice env_mem_choose_bits(void *arg, size_t index, const struct env_mem_unit *unit)
{
	const uint64_t *bits = arg;

	return (struct env_mem_choice){
		.version = bits[index / 64] >> index % 64 & 1 ? unit->versions - 1 : 0};
}

/* The decision being carried out. */
struct env_mem_fate {
	env_mem_choose_fn *choose;
	void *arg;
	size_t index; /* of the next unit */
};

static struct env_mem_choice env_mem_decide(struct env_mem_fate *fate, struct env_mem_unit unit)
{
	struct env_mem_choice choice = fate->choose(fate->arg, fate->index++, &unit);

	ENSURE(choice.version < unit.versions);
	ENSURE(choice.words == 0 || (unit.tearable && choice.other < unit.versions));
	return choice;
}

static void env_mem_crash_sector(const struct env_mem_file *f, const struct env_mem_dirty *d,
	struct env_mem_choice choice, uint8_t *sector)
{
	const uint8_t *other;

	memcpy(sector, env_mem_file_version(f, d, choice.version)->data, ENV_MEM_SECTOR);
	if (choice.words == 0)
		return;
	other = env_mem_file_version(f, d, choice.other)->data;
	for (int i = 0; i < ENV_MEM_SECTOR / 8; i++)
		if (choice.words >> i & 1)
			memcpy(sector + 8 * i, other + 8 * i, 8);
}

static void env_mem_crash_file(
	struct env_mem *to, struct env_mem_file *f, const char *path, struct env_mem_fate *fate)
{
	struct env_mem_file *g = env_mem_file_copy(to, f);

	if (f->size != f->durable_size && env_mem_decide(fate, env_mem_size_unit(path)).version == 0)
		g->size = f->durable_size;
	for (size_t i = 0; i < f->dirty_count; i++) {
		const struct env_mem_dirty *d = &f->dirty[i];
		struct env_mem_choice choice = {0};

		if (d->count > 1)
			choice = env_mem_decide(fate, env_mem_sector_unit(path, d));
		env_mem_crash_sector(f, d, choice, g->base + (uint64_t)d->sector * ENV_MEM_SECTOR);
	}
	/* The copy is of all that f ever was: bytes of a cut that was lost may lie beyond f's size. */
	if (g->size < g->used)
		memset(g->base + g->size, 0, g->used - g->size);
	g->durable_size = g->size;
}

static struct env_mem *env_mem_offspring(const struct env_mem *m)
{
	struct env_mem *to = env_mem_new(m->reserve);

	to->next_number = m->next_number;
	to->clock = m->clock;
	to->rng = m->rng;
	rng_next(&to->rng);
	return to;
}

struct env_mem *env_mem_crash(const struct env_mem *m, env_mem_choose_fn *choose, void *arg)
{
	struct env_mem *to = env_mem_offspring(m);
	struct env_mem_fate fate = {choose, arg, 0};

	for (struct env_mem_file *f = m->files; f; f = f->next) {
		const char *path = env_mem_path_of(m, f);

		f->twin = NULL;
		if (path)
			env_mem_crash_file(to, f, path, &fate);
	}
	for (size_t i = 0; i < m->name_count; i++) {
		const struct env_mem_name *name = &m->names[i];
		unsigned version = 0;

		if (name->count > 1)
			version = env_mem_decide(&fate, env_mem_name_unit(name)).version;
		if (!name->targets[version] || !name->targets[version]->twin)
			continue;
		env_mem_name_set(to, name->path, name->targets[version]->twin);
		env_mem_name_flush(&to->names[to->name_count - 1]);
	}
	return to;
}

static void env_mem_clone_dirty(struct env_mem_file *g, const struct env_mem_file *f)
{
	if (f->dirty_count == 0)
		return;
	g->dirty = malloc(f->dirty_count * sizeof(*f->dirty));
	g->versions = malloc(f->version_count * sizeof(*f->versions));
	ENSURE(g->dirty && g->versions);
	memcpy(g->dirty, f->dirty, f->dirty_count * sizeof(*f->dirty));
	memcpy(g->versions, f->versions, f->version_count * sizeof(*f->versions));
	g->dirty_count = g->dirty_cap = f->dirty_count;
	g->version_count = g->version_cap = f->version_count;
	for (size_t i = 0; i < g->dirty_count; i++)
		g->index[g->dirty[i].sector] = (uint32_t)i + 1;
}

struct env_mem *env_mem_clone(const struct env_mem *m)
{
	struct env_mem *to = env_mem_offspring(m);

	for (struct env_mem_file *f = m->files; f; f = f->next) {
		struct env_mem_file *g = f->is_temp ? NULL : env_mem_file_copy(to, f);

		if (!g)
			continue;
		g->durable_size = f->durable_size;
		env_mem_clone_dirty(g, f);
	}
	for (size_t i = 0; i < m->name_count; i++) {
		const struct env_mem_name *name = &m->names[i];
		struct env_mem_name *copy;

		for (size_t k = 0; k < name->count; k++) {
			env_mem_name_set(to, name->path, name->targets[k] ? name->targets[k]->twin : NULL);
			copy = env_mem_name_find(to, name->path);
			if (k == 0)
				env_mem_name_flush(copy);
		}
	}
	return to;
}

static uint64_t env_mem_mix(uint64_t h, uint64_t v)
{
	unsigned __int128 product = (unsigned __int128)(h ^ v) * UINT64_C(0x9e3779b97f4a7c15);

	return (uint64_t)product ^ (uint64_t)(product >> 64) ^ h << 1;
}

/* Four lanes, so that the multiplications overlap; base is zero from size to the end of its last 32 bytes. */
static uint64_t env_mem_hash_bytes(uint64_t seed, const uint8_t *base, uint64_t size)
{
	uint64_t lane[4] = {seed, seed + 1, seed + 2, seed + 3}, word[4];

	for (uint64_t at = 0; at < size; at += sizeof(word)) {
		memcpy(word, base + at, sizeof(word));
		for (int i = 0; i < 4; i++)
			lane[i] = env_mem_mix(lane[i], word[i]);
	}
	return env_mem_mix(env_mem_mix(env_mem_mix(env_mem_mix(size, lane[0]), lane[1]), lane[2]), lane[3]);
}

uint64_t env_mem_hash(const struct env_mem *m)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < m->name_count; i++) {
		const struct env_mem_file *f = m->names[i].targets[m->names[i].count - 1];
		uint8_t path[ENV_MEM_PATH_MAX + 32] = {0};

		if (!f || f->is_lock)
			continue;
		strcpy((char *)path, m->names[i].path);
		sum += env_mem_hash_bytes(
			env_mem_hash_bytes(1, path, strlen((char *)path)), f->base, f->size);
	}
	return sum;
}
