/* TLS by GnuTLS: the own certificate, handed to handshakes, and clients' certificates, judged. */
#include "tls.h"

#include <errno.h>
#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "keyring.h"

#define TLS_CHAIN_MAX 16
#define TLS_JUDGED 64 /* clients whose certificate need not be verified again for a while */
#define TLS_JUDGED_MS 30000
#define TLS_KEY_ID 64

struct tls_loaded {
	struct tls_loaded *before; /* kept for handshakes under way */
	gnutls_pcert_st chain[TLS_CHAIN_MAX];
	unsigned count;
	gnutls_privkey_t key;
	gnutls_x509_trust_list_t clients; /* NULL: none are asked */
	uint8_t sum[3][KEYRING_SUM];	  /* of the files */
};

static struct tls_files tls_files;
static _Atomic(struct tls_loaded *) tls_now;

static pthread_mutex_t tls_lock = PTHREAD_MUTEX_INITIALIZER; /* what follows */
static struct {
	uint8_t sum[KEYRING_SUM];
	const struct tls_loaded *by;
	uint64_t until_ms;
} tls_judged[TLS_JUDGED];
static unsigned tls_judged_next;

static uint64_t tls_clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static enum bts_err tls_read(
	const char *path, gnutls_datum_t *out, uint8_t sum[KEYRING_SUM], struct bts_error *error)
{
	int status = gnutls_load_file(path, out);

	if (status < 0)
		return fail_set(
			error, BTS_IO, "%.200s: %s", path, errno ? strerror(errno) : gnutls_strerror(status));
	keyring_sum(out->data, out->size, sum);
	return BTS_OK;
}

static enum bts_err tls_refuse(struct bts_error *error, const char *path, int status)
{
	return fail_set(error, BTS_INVALID, "%.200s: %s", path, gnutls_strerror(status));
}

static void tls_loaded_free(struct tls_loaded *loaded)
{
	for (unsigned i = 0; i < loaded->count; i++)
		gnutls_pcert_deinit(&loaded->chain[i]);
	if (loaded->key)
		gnutls_privkey_deinit(loaded->key);
	if (loaded->clients)
		gnutls_x509_trust_list_deinit(loaded->clients, 1);
	free(loaded);
}

/* Does the key belong to the first certificate? */
static bool tls_key_fits(struct tls_loaded *loaded)
{
	unsigned char ours[TLS_KEY_ID], its[TLS_KEY_ID];
	size_t our_size = sizeof(ours), its_size = sizeof(its);
	gnutls_pubkey_t public = NULL;
	bool fits;

	if (gnutls_pubkey_init(&public))
		return false;
	fits = !gnutls_pubkey_import_privkey(public, loaded->key, 0, 0) &&
	       !gnutls_pubkey_get_key_id(public, GNUTLS_KEYID_USE_SHA256, ours, &our_size) &&
	       !gnutls_pubkey_get_key_id(loaded->chain[0].pubkey, GNUTLS_KEYID_USE_SHA256, its, &its_size) &&
	       our_size == its_size && memcmp(ours, its, our_size) == 0;
	gnutls_pubkey_deinit(public);
	return fits;
}

static enum bts_err tls_load_key(struct tls_loaded *loaded, struct bts_error *error)
{
	gnutls_datum_t text = {NULL, 0};
	enum bts_err err;
	struct stat st;
	int status;

	if (stat(tls_files.key, &st))
		return fail_os(error, errno, "%.200s", tls_files.key);
	if (st.st_mode & S_IRWXO)
		return fail_set(error, BTS_INVALID, "%.200s has mode %03o: everybody gets at the key",
			tls_files.key, (unsigned)st.st_mode & 0777);
	err = tls_read(tls_files.key, &text, loaded->sum[1], error);
	if (err)
		return err;
	status = gnutls_privkey_init(&loaded->key);
	if (!status)
		status = gnutls_privkey_import_x509_raw(loaded->key, &text, GNUTLS_X509_FMT_PEM, NULL, 0);
	gnutls_memset(text.data, 0, text.size);
	gnutls_free(text.data);
	if (status)
		return tls_refuse(error, tls_files.key, status);
	if (!tls_key_fits(loaded))
		return fail_set(error, BTS_INVALID, "%.200s is not the key of the certificate in %.200s",
			tls_files.key, tls_files.cert);
	return BTS_OK;
}

enum bts_err tls_check_signers(const char *path, struct bts_error *error)
{
	gnutls_x509_crt_t *list = NULL;
	gnutls_datum_t text = {NULL, 0};
	uint8_t sum[KEYRING_SUM];
	unsigned count = 0;
	enum bts_err err = tls_read(path, &text, sum, error);
	int status;

	if (err)
		return err;
	status = gnutls_x509_crt_list_import2(&list, &count, &text, GNUTLS_X509_FMT_PEM, 0);
	gnutls_free(text.data);
	if (status < 0)
		return tls_refuse(error, path, status);
	for (unsigned i = 0; i < count; i++)
		gnutls_x509_crt_deinit(list[i]);
	gnutls_free(list);
	return BTS_OK;
}

static enum bts_err tls_load_clients(struct tls_loaded *loaded, struct bts_error *error)
{
	gnutls_datum_t text = {NULL, 0};
	enum bts_err err;
	int status;

	if (!tls_files.client_ca)
		return BTS_OK;
	err = tls_read(tls_files.client_ca, &text, loaded->sum[2], error);
	if (err)
		return err;
	status = gnutls_x509_trust_list_init(&loaded->clients, 0);
	if (!status)
		status = gnutls_x509_trust_list_add_trust_mem(
			loaded->clients, &text, NULL, GNUTLS_X509_FMT_PEM, 0, 0);
	gnutls_free(text.data);
	if (status < 0)
		return tls_refuse(error, tls_files.client_ca, status);
	return status ? BTS_OK
		      : fail_set(error, BTS_INVALID, "%.200s holds no certificate", tls_files.client_ca);
}

static enum bts_err tls_load_all(struct tls_loaded **out, struct bts_error *error)
{
	struct tls_loaded *loaded = calloc(1, sizeof(*loaded));
	unsigned count = TLS_CHAIN_MAX;
	gnutls_datum_t text;
	enum bts_err err;
	int status;

	if (!loaded)
		return fail_set(error, BTS_MEMORY, "no memory for a certificate");
	err = tls_read(tls_files.cert, &text, loaded->sum[0], error);
	if (err)
		goto fail;
	status = gnutls_pcert_list_import_x509_raw(
		loaded->chain, &count, &text, GNUTLS_X509_FMT_PEM, GNUTLS_X509_CRT_LIST_FAIL_IF_UNSORTED);
	gnutls_free(text.data);
	if (status < 0 || !count) {
		err = tls_refuse(error, tls_files.cert, status < 0 ? status : GNUTLS_E_NO_CERTIFICATE_FOUND);
		goto fail;
	}
	loaded->count = count;
	err = tls_load_key(loaded, error);
	if (!err)
		err = tls_load_clients(loaded, error);
	if (err)
		goto fail;
	*out = loaded;
	return BTS_OK;
fail:
	tls_loaded_free(loaded);
	return err;
}

enum bts_err tls_load(const struct tls_files *files, struct bts_error *error)
{
	tls_files = *files;
	return tls_reload(error);
}

enum bts_err tls_reload(struct bts_error *error)
{
	struct tls_loaded *before = atomic_load(&tls_now), *loaded = NULL;
	enum bts_err err;

	if (!tls_files.cert)
		return BTS_OK;
	err = tls_load_all(&loaded, error);
	if (err)
		return err;
	if (before && memcmp(before->sum, loaded->sum, sizeof(loaded->sum)) == 0) {
		tls_loaded_free(loaded);
		return BTS_OK;
	}
	loaded->before = before;
	atomic_store(&tls_now, loaded);
	return BTS_OK;
}

bool tls_on(void)
{
	return tls_files.cert != NULL;
}

bool tls_asks_clients(void)
{
	return tls_files.client_ca != NULL;
}

/* In the middle of a handshake: what to show, and whether to ask for as much. */
static int tls_retrieve(gnutls_session_t session, const struct gnutls_cert_retr_st *info,
	gnutls_pcert_st **chain, unsigned *count, gnutls_ocsp_data_st **ocsp, unsigned *ocsp_count,
	gnutls_privkey_t *key, unsigned *flags)
{
	struct tls_loaded *loaded = atomic_load(&tls_now);

	(void)info;
	if (!loaded)
		return -1;
	if (loaded->clients)
		gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUEST);
	*chain = loaded->chain;
	*count = loaded->count;
	*ocsp = NULL;
	*ocsp_count = 0;
	*key = loaded->key;
	*flags = 0;
	return 0;
}

void *tls_callback(void)
{
	return (void *)tls_retrieve;
}

/* ---- clients ---- */

static bool tls_verify(const struct tls_loaded *loaded, const gnutls_datum_t *given, unsigned count)
{
	gnutls_typed_vdata_st purpose = {
		GNUTLS_DT_KEY_PURPOSE_OID, (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT, 0};
	gnutls_x509_crt_t chain[TLS_CHAIN_MAX];
	unsigned verdict = GNUTLS_CERT_INVALID, made = 0;
	bool good = count <= TLS_CHAIN_MAX;

	while (good && made < count) {
		good = !gnutls_x509_crt_init(&chain[made]);
		made += good;
		good = good &&
		       !gnutls_x509_crt_import(chain[made - 1], &given[made - 1], GNUTLS_X509_FMT_DER);
	}
	if (good)
		good = !gnutls_x509_trust_list_verify_crt2(
			loaded->clients, chain, count, &purpose, 1, 0, &verdict, NULL);
	while (made > 0)
		gnutls_x509_crt_deinit(chain[--made]);
	return good && verdict == 0;
}

/* Judged lately by the same authority? */
static bool tls_was_judged(const struct tls_loaded *loaded, const uint8_t sum[KEYRING_SUM])
{
	uint64_t now = tls_clock_ms();

	for (size_t i = 0; i < TLS_JUDGED; i++)
		if (tls_judged[i].by == loaded && tls_judged[i].until_ms > now &&
			memcmp(tls_judged[i].sum, sum, KEYRING_SUM) == 0)
			return true;
	return false;
}

bool tls_client(void *session, uint8_t sum[KEYRING_SUM])
{
	const struct tls_loaded *loaded = atomic_load(&tls_now);
	const gnutls_datum_t *chain;
	unsigned count = 0;
	bool good;

	chain = session && loaded && loaded->clients ? gnutls_certificate_get_peers(session, &count) : NULL;
	if (!chain || !count)
		return false;
	keyring_sum(chain[0].data, chain[0].size, sum);
	pthread_mutex_lock(&tls_lock);
	good = tls_was_judged(loaded, sum);
	pthread_mutex_unlock(&tls_lock);
	if (good)
		return true;
	/* A stranger's chain is long, and asked for again with each request: nobody else waits for that. */
	if (!tls_verify(loaded, chain, count))
		return false;
	pthread_mutex_lock(&tls_lock);
	memcpy(tls_judged[tls_judged_next].sum, sum, KEYRING_SUM);
	tls_judged[tls_judged_next].by = loaded;
	tls_judged[tls_judged_next].until_ms = tls_clock_ms() + TLS_JUDGED_MS;
	tls_judged_next = (tls_judged_next + 1) % TLS_JUDGED;
	pthread_mutex_unlock(&tls_lock);
	return true;
}
