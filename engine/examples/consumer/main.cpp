// A btree_store from C++: handles that close themselves, errors as exceptions, std::string_view for keys and values.
#include <btree_store.h>
#include <btree_store/env.h>
#include <btree_store/ship.h>

#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

namespace {

struct Close {
	void operator()(struct bts *db) const { bts_close(db); }
	void operator()(struct bts_txn *txn) const { bts_abort(txn); }
	void operator()(struct bts_cursor *cursor) const { bts_cursor_close(cursor); }
};
template <class T> using Owned = std::unique_ptr<T, Close>;

void check(enum bts_err err, const struct bts_error *error)
{
	if (err != BTS_OK)
		throw std::runtime_error(std::string(bts_err_name(err)) + ": " + (error ? error->text : ""));
}

struct bts_slice slice(std::string_view text)
{
	return {text.data(), text.size()};
}

std::string_view view(const struct bts_slice &bytes)
{
	return {static_cast<const char *>(bytes.data), bytes.size};
}

Owned<struct bts> open(const char *path)
{
	struct bts_options options;
	struct bts_error error = {};
	struct bts *db = nullptr;

	bts_options_init(&options);
	check(bts_open(path, &options, &db, &error), &error);
	return Owned<struct bts>(db);
}

// Nothing may be thrown through the library: an exception is kept and thrown again on this side.
template <class Work> void update(struct bts *db, Work work)
{
	struct State {
		Work *work;
		std::exception_ptr thrown;
	} state{&work, nullptr};
	struct bts_error error = {};
	enum bts_err err = bts_update(
		db,
		[](struct bts_txn *txn, void *arg) -> enum bts_err {
			State *self = static_cast<State *>(arg);
			try {
				return (*self->work)(txn);
			} catch (...) {
				self->thrown = std::current_exception();
				return BTS_INVALID;
			}
		},
		&state, &error);

	if (state.thrown)
		std::rethrow_exception(state.thrown);
	check(err, &error);
}

void run(const char *path)
{
	Owned<struct bts> db = open(path);

	update(db.get(), [](struct bts_txn *txn) -> enum bts_err {
		struct bts_bucket *bucket;
		enum bts_err err = bts_bucket(txn, slice("cities"), BTS_CREATE, &bucket, nullptr);

		for (std::string_view name : {"Zagreb", "Aarhus", "Lyon"})
			if (err == BTS_OK)
				err = bts_put(txn, bucket, slice(name), slice(std::to_string(name.size())), 0);
		return err;
	});

	struct bts_error error = {};
	struct bts_txn *begun;
	check(bts_begin(db.get(), BTS_READ, &begun, &error), &error);
	Owned<struct bts_txn> txn(begun);
	struct bts_bucket *bucket;
	check(bts_bucket(txn.get(), slice("cities"), 0, &bucket, &error), &error);
	struct bts_cursor *opened;
	check(bts_cursor_open(txn.get(), bucket, &opened, &error), &error);
	Owned<struct bts_cursor> cursor(opened);
	struct bts_slice key, value;
	for (enum bts_err err = bts_cursor_first(opened, &key, &value); err != BTS_NOT_FOUND;
		err = bts_cursor_next(opened, &key, &value)) {
		check(err, bts_txn_error(txn.get()));
		std::cout << view(key) << ": " << view(value) << "\n";
	}
}

} // namespace

int main(int argc, char **argv)
{
	if (argc != 2) {
		std::cerr << "usage: " << argv[0] << " FILE\n";
		return 2;
	}
	try {
		run(argv[1]);
	} catch (const std::exception &e) {
		std::cerr << argv[0] << ": " << e.what() << "\n";
		return 1;
	}
	return 0;
}
