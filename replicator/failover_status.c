/* What automatic failover is doing, as JSON and as Prometheus text: see failover_run.h. */
#include "failover_run_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "jsontext.h"

static uint64_t status_left(const struct failover_run *run)
{
	uint64_t now = failover_run_clock_ms();

	return run->deadline_ms > now ? run->deadline_ms - now : 0;
}

static void status_write(FILE *out, const struct failover_run *run)
{
	const struct failover *f = &run->machine;

	fprintf(out, "{\"state\":\"%s\",\"key\":", failover_state_word(f->state));
	jsontext_string(out, run->place.key);
	fputs(",\"holder\":", out);
	jsontext_string(out, f->key.there ? f->key.name : "");
	fputs(",\"holder_url\":", out);
	jsontext_string(out, f->key.there ? f->key.url : "");
	fputs(",\"holder_source\":", out);
	jsontext_string(out, f->key.there ? f->key.source : "");
	fprintf(out, ",\"holder_elected\":%s,\"lease_ms\":%" PRIu64 ",\"ttl_ms\":%" PRIu64,
		f->key.there && f->key.elected ? "true" : "false", status_left(run), run->options.ttl_ms);
	fprintf(out,
		",\"elections\":%" PRIu64 ",\"won\":%" PRIu64 ",\"lost_leases\":%" PRIu64
		",\"etcd_answers\":%s,\"last_election\":",
		f->counts.elections, f->counts.won, f->counts.lost_leases, run->silent ? "false" : "true");
	jsontext_string(out, run->verdict);
	fputs(",\"last_error\":", out);
	jsontext_string(out, run->why);
	fputc('}', out);
}

static void status_metric(FILE *out, const char *name, const char *type, const char *help, uint64_t value)
{
	fprintf(out, "# HELP bts_failover_%s %s\n# TYPE bts_failover_%s %s\nbts_failover_%s %" PRIu64 "\n",
		name, help, name, type, name, value);
}

static void status_write_metrics(FILE *out, const struct failover_run *run)
{
	const struct failover *f = &run->machine;
	uint64_t left = status_left(run);

	fputs("# HELP bts_failover_state What this node does about the lease.\n# TYPE bts_failover_state "
	      "gauge\n",
		out);
	for (enum failover_state i = FAILOVER_WATCH; i <= FAILOVER_LEAVING; i++)
		fprintf(out, "bts_failover_state{state=\"%s\"} %d\n", failover_state_word(i), i == f->state);
	fprintf(out,
		"# HELP bts_failover_deadline_seconds How long this node may write yet, unless the lease is "
		"renewed.\n"
		"# TYPE bts_failover_deadline_seconds gauge\nbts_failover_deadline_seconds %" PRIu64
		".%03" PRIu64 "\n",
		left / 1000, left % 1000);
	status_metric(out, "elections_total", "counter", "Elections that this node has called.",
		f->counts.elections);
	status_metric(out, "won_total", "counter", "Of them, those that made it the primary.", f->counts.won);
	status_metric(out, "lost_leases_total", "counter", "Times the key was lost, not given up.",
		f->counts.lost_leases);
	status_metric(
		out, "etcd_failures_total", "counter", "Calls to etcd without an answer.", run->silences);
}

static char *status_text(struct failover_run *run, void (*write)(FILE *out, const struct failover_run *run))
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	pthread_mutex_lock(&run->lock);
	write(out, run);
	pthread_mutex_unlock(&run->lock);
	if (!fclose(out))
		return text;
	free(text);
	return NULL;
}

char *failover_run_status(struct failover_run *run)
{
	return status_text(run, status_write);
}

char *failover_run_metrics(struct failover_run *run)
{
	return status_text(run, status_write_metrics);
}
