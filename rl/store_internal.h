/* store_internal.h: what the store's files know of each other: one way to run SQL, one way to report that it
 * failed. The commands that read a store (show.c, rescore.c, diff.c) use it for queries of their own. */
#ifndef WHET_RL_STORE_INTERNAL_H
#define WHET_RL_STORE_INTERNAL_H

#include <sqlite3.h>

#include "rl/store.h"

enum { STORE_VERSION = 2, STORE_APPLICATION = 2003330420, STORE_STATEMENTS = 48, STORE_BYTES_MAX = 1 << 30 };

struct Store {
    sqlite3 *db;
    char *path;
    int lock; /* the folder, locked against other writers */
    double wait_seconds;
    char doing[96]; /* what the call now running is for: the middle of an error's line */
    struct {
        const char *sql; /* a literal: found again by its address */
        sqlite3_stmt *statement;
    } statements[STORE_STATEMENTS];
};

/* Says what the following calls are for, e.g. "storing step 12". */
void store_doing(Store *store, const char *format, ...) FORMAT_LIKE(2, 3);
/* Turns SQLite's last error into one line; returns false. */
bool store_fail(Store *store, Err *err);
/* The rows contradict themselves; returns false. */
bool store_damaged(Store *store, Err *err, const char *format, ...) FORMAT_LIKE(3, 4);

/* Runs one statement without rows. `sql` must be a literal. One letter of `kinds` for each parameter:
 *   i int   l int64_t   d double (NaN: NULL)   t text or NULL   s text or NULL and its size_t length, made UTF-8
 *   h uint64_t as 16 hexadecimal digits   b bytes (NULL: NULL) and their size_t count, compressed
 *   w array of int or real (NULL: NULL) and its size_t count, compressed as schema.sql says */
bool store_put(Store *store, Err *err, const char *sql, const char *kinds, ...);

/* A statement with rows: store_ask binds, store_row moves to the next row (1, or 0 at the end, -1 and err),
 * store_end must follow unless store_row returned 0 or -1. */
sqlite3_stmt *store_ask(Store *store, Err *err, const char *sql, const char *kinds, ...);
int store_row(Store *store, sqlite3_stmt *statement, Err *err);
void store_end(sqlite3_stmt *statement);

/* One row of one integer; 0 when it is NULL or there is no row. */
bool store_ask_number(Store *store, Err *err, int64_t *number, const char *sql, const char *kinds, ...);

bool store_begin(Store *store, Err *err);
/* Commits when `good`, else rolls back; returns whether all is on disk. */
bool store_finish(Store *store, bool good, Err *err);

/* Columns of a row. Text lies in the arena; NULL stays NULL. */
const char *store_text(sqlite3_stmt *row, int column, size_t *n, Arena *arena);
double store_double(sqlite3_stmt *row, int column); /* NULL: NaN */
uint64_t store_hash(sqlite3_stmt *row, int column);
/* Unpacks an array of exactly n ints or reals. */
bool store_words(Store *store, sqlite3_stmt *row, int column, void *out, size_t n, Err *err);
/* Unpacks bytes, however many; NULL stays NULL. */
bool store_bytes(Store *store, sqlite3_stmt *row, int column, unsigned char **out, size_t *n, Arena *arena,
                 Err *err);
bool store_class(Store *store, sqlite3_stmt *row, int column, ScoreClass *class, Err *err);
bool store_finish_kind(Store *store, sqlite3_stmt *row, int column, Finish *finish, Err *err);

/* The id of a problem, which is stored when it is new. */
bool store_problem(Store *store, const char *source, const Problem *problem, int64_t *id, Err *err);

#endif
