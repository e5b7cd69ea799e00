"""Is what clients saw a history that one list-append store could have had?  Two judges that share nothing.

An append puts a number that was never used before at the end of a list; a read sees a whole list.

- `black_box` trusts no number that the store gives out: it looks at lists and at the times of questions and answers alone.
- `by_ids` trusts them: each acknowledged append has a transaction's number, each read the number of its snapshot, and
  replaying the appends in that order must give what every read saw.

Both return what is wrong, as texts; none: nothing.
"""
import collections

OK, FAILED, UNKNOWN = "ok", "failed", "unknown"  # done; certainly not done; no answer

Append = collections.namedtuple("Append", "list item outcome start end txid")
# place: where it was read; real_time: it is the one place where an acknowledged append must be seen by every later read
Read = collections.namedtuple("Read", "list items place real_time start end txid")


def black_box(appends, reads):
    wrong = []
    by_item = {}
    for a in appends:
        if a.item in by_item:
            wrong.append("item %d was asked for twice: the test is wrong" % a.item)
        by_item[a.item] = a
    for name in sorted({r.list for r in reads} | {a.list for a in appends}):
        wrong += _box_list(name, [a for a in appends if a.list == name],
                           [r for r in reads if r.list == name], by_item)
    return wrong


def _box_list(name, appends, reads, by_item):
    longest = max((r.items for r in reads), key=len, default=[])
    place_of = {item: i for i, item in enumerate(longest)}
    wrong = []
    if len(place_of) != len(longest):
        wrong.append("%s holds an item twice" % name)
    for item in longest:
        a = by_item.get(item)
        if a is None or a.list != name:
            wrong.append("%s holds %d, which nobody put there" % (name, item))
        elif a.outcome == FAILED:
            wrong.append("%s holds %d, whose append was refused" % (name, item))
    for r in reads:
        if r.items != longest[:len(r.items)]:
            wrong.append("%s: a read at %s saw %s, which is no beginning of %s"
                         % (name, r.place, _end(r.items), _end(longest)))
        if any(by_item[i].start > r.end for i in r.items if i in by_item):
            wrong.append("%s: a read at %s saw what was not asked for yet" % (name, r.place))
    return wrong + _box_order(name, longest, place_of, appends) + _box_times(name, place_of, appends, reads)


def _box_order(name, longest, place_of, appends):
    """An append that had ended before another began stands before it."""
    wrong = []
    starts = {a.item: a.start for a in appends}
    ends = {a.item: a.end for a in appends if a.outcome == OK}
    least_end = float("inf")
    for item in reversed(longest):  # what stands behind must not have ended before this one began
        if least_end < starts.get(item, 0):
            wrong.append("%s: %d stands before an append that had ended before it began" % (name, item))
        least_end = min(least_end, ends.get(item, float("inf")))
    return wrong


def _box_times(name, place_of, appends, reads):
    wrong = []
    acknowledged = sorted((a for a in appends if a.outcome == OK), key=lambda a: a.end)
    ordered = sorted((r for r in reads if r.real_time), key=lambda r: r.start)
    needed, at = 0, 0  # how long a read that begins now must be
    for r in ordered:
        while at < len(acknowledged) and acknowledged[at].end < r.start:
            place = place_of.get(acknowledged[at].item)
            if place is None:
                wrong.append("%s: acknowledged %d is lost" % (name, acknowledged[at].item))
            else:
                needed = max(needed, place + 1)
            at += 1
        if len(r.items) < needed:
            wrong.append("%s: a read at %s saw %d items, %d had been acknowledged or seen"
                         % (name, r.place, len(r.items), needed))
    for place in sorted({r.place for r in reads}):
        longest_ended = 0
        events = []
        for r in reads:
            if r.place == place:
                events += [(r.start, 1, r), (r.end, 0, r)]
        for _, begins, r in sorted(events, key=lambda e: e[:2]):
            if begins:
                wrong += _begin(name, place, r, longest_ended)
            else:
                longest_ended = max(longest_ended, len(r.items))
    return wrong


def _begin(name, place, read, longest_ended):
    if len(read.items) < longest_ended:
        return ["%s: a read at %s went back from %d items to %d" % (name, place, longest_ended, len(read.items))]
    return []


def _end(items):
    return "%d items ending in %s" % (len(items), items[-3:])


def by_ids(appends, reads):
    """Transactions have one order; an append without an answer may be anywhere, or nowhere."""
    wrong = []
    known = collections.defaultdict(list)
    free = collections.defaultdict(set)
    txids = {}
    for a in appends:
        if a.outcome == OK:
            known[a.list].append(a)
            if txids.setdefault(a.txid, a) is not a and txids[a.txid].list == a.list:
                wrong.append("%s: two appends are transaction %d" % (a.list, a.txid))
        elif a.outcome == UNKNOWN:
            free[a.list].add(a.item)
    for appended in known.values():
        appended.sort(key=lambda a: a.txid)
    seen = {}  # a list at a snapshot is one list, wherever it is read
    for r in reads:
        wrong += _ids_read(r, known[r.list], free[r.list])
        before = seen.setdefault((r.list, r.txid), r)
        if before.items != r.items:
            wrong.append("%s at %d: %s at %s and %s at %s"
                         % (r.list, r.txid, _end(before.items), before.place, _end(r.items), r.place))
    return wrong


def _ids_read(read, known, free):
    expected = [a.item for a in known if a.txid <= read.txid]
    there = [i for i in read.items if i not in free]
    if there == expected:
        return []
    lost = sorted(set(expected) - set(there))
    early = sorted(set(there) - set(expected))
    return ["%s: a read at %s of %d lacks %s, has %s in excess%s"
            % (read.list, read.place, read.txid, lost[:5], early[:5], "" if lost or early else ", in another order")]
