/*
 * Streams take turns under the rate of all of them.
 *
 * A stream that may not send now is a suspended connection in a queue; the loop wakes the first when the bucket has something again
 * (pace.h).  While others wait, who was not woken waits behind them: so a stream that comes often gets no more than one that comes seldom.
 */
#include "serve_private.h"

size_t serve_pace_take(struct serve_turn *turn, struct serve *serve, size_t wanted)
{
	bool first = turn->woken || !serve->turns;
	size_t granted;

	turn->woken = false;
	if (!serve->pace.rate || atomic_load(&serve->stopping))
		return wanted;
	granted = first ? pace_take(&serve->pace, wanted, serve_now_ms()) : 0;
	if (granted)
		return granted;
	serve->paused++;
	turn->serve = serve;
	turn->waiting = true;
	turn->next = NULL;
	turn->link = serve->turns ? serve->turns_last : &serve->turns;
	*turn->link = turn;
	serve->turns_last = &turn->next;
	MHD_suspend_connection(turn->connection);
	return 0;
}

void serve_pace_leave(struct serve_turn *turn)
{
	if (!turn->waiting)
		return;
	*turn->link = turn->next;
	if (turn->next)
		turn->next->link = turn->link;
	else
		turn->serve->turns_last = turn->link;
	turn->waiting = false;
}

void serve_pace_wake(struct serve_turn *turn)
{
	if (!turn->waiting)
		return;
	serve_pace_leave(turn);
	turn->woken = true;
	MHD_resume_connection(turn->connection);
}

void serve_pace_resume(struct serve *serve)
{
	bool stopping = atomic_load(&serve->stopping);

	while (stopping && serve->turns)
		serve_pace_wake(serve->turns);
	/* One at a time: what it leaves is for the next, in the next turn of the loop. */
	if (serve->turns && serve_now_ms() >= pace_due(&serve->pace))
		serve_pace_wake(serve->turns);
}
