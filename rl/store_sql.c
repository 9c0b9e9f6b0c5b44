/* store_sql.c: how the store speaks to SQLite: statements, parameters, columns, transactions, errors. Not here:
 * any table. Tested by tests/test_rl_store.c. */
#include "rl/store_internal.h"
#include "rl/text.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

/* ---- errors ------------------------------------------------------------------------------------------------- */

void store_doing(Store *store, const char *format, ...) {
    va_list args;
    va_start(args, format);
    vsnprintf(store->doing, sizeof store->doing, format, args);
    va_end(args);
}

/* SQLite tells a full disk by code; over a quota or a limit on the size of files a write just fails. */
static bool no_room(int code, int os_error) {
    if ((code & 0xff) == SQLITE_FULL || code == SQLITE_IOERR_WRITE || code == SQLITE_IOERR_SHMSIZE) return true;
    return (code & 0xff) == SQLITE_IOERR && (os_error == ENOSPC || os_error == EFBIG || os_error == EDQUOT);
}

bool store_fail(Store *store, Err *err) {
    int code = sqlite3_extended_errcode(store->db), os_error = sqlite3_system_errno(store->db);
    const char *said = sqlite3_errmsg(store->db), *os = os_error ? strerror(os_error) : said;
    if ((code & 0xff) == SQLITE_NOMEM) die("out of memory while %s", store->doing);
    if (no_room(code, os_error)) {
        return err_set(err,
                       "%s: no space left on the disk (or under a limit) while %s; all that was committed is "
                       "kept: make room and go on",
                       store->path, store->doing);
    }
    switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return err_set(err, "%s: locked by another program for %g s while %s: close what holds it open and go on",
                       store->path, store->wait_seconds, store->doing);
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
        return err_set(err, "%s: cannot be written while %s (%s): choose a folder that can", store->path,
                       store->doing, os);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return err_set(err,
                       "%s: damaged, found while %s (%s): move it away, or save what can be read with sqlite3's "
                       ".recover",
                       store->path, store->doing, said);
    default:
        return err_set(err, "%s: SQLite failed while %s: %s (code %d)", store->path, store->doing, os, code);
    }
}

bool store_damaged(Store *store, Err *err, const char *format, ...) {
    char what[160];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return err_set(err, "%s: damaged, found while %s: %s", store->path, store->doing, what);
}

/* ---- statements --------------------------------------------------------------------------------------------- */

/* Each statement is prepared once. */
static sqlite3_stmt *prepare(Store *store, const char *sql, Err *err) {
    int i = 0;
    while (i < STORE_STATEMENTS && store->statements[i].sql && store->statements[i].sql != sql) i++;
    CHECK(i < STORE_STATEMENTS, "more than %d statements", STORE_STATEMENTS);
    if (!store->statements[i].sql) {
        sqlite3_stmt *statement;
        if (sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL) != SQLITE_OK) {
            store_fail(store, err);
            return NULL;
        }
        store->statements[i].sql = sql;
        store->statements[i].statement = statement;
    }
    return store->statements[i].statement;
}

/* Bytes are zlib streams. */
static int bind_packed(sqlite3_stmt *statement, int at, const void *bytes, size_t n) {
    if (!bytes) return sqlite3_bind_null(statement, at);
    uLongf packed_n = compressBound((uLong)n);
    unsigned char *packed = MEM_ARRAY(unsigned char, packed_n);
    int code = compress2(packed, &packed_n, bytes, (uLong)n, 6);
    CHECK(code == Z_OK, "zlib's compress2 returned %d", code);
    return sqlite3_bind_blob64(statement, at, packed, packed_n, free);
}

/* Arrays are cut into planes first, the lowest bytes, then the second ones, ...: the high bytes of token ids and
 * of log-probabilities are alike, the low ones are not. */
static int bind_words(sqlite3_stmt *statement, int at, const void *words, size_t n) {
    enum { SIZE = sizeof(int) };
    if (!words) return sqlite3_bind_null(statement, at);
    unsigned char *planes = MEM_ARRAY(unsigned char, n *SIZE + 1);
    for (size_t i = 0; i < n * SIZE; i++) planes[i % SIZE * n + i / SIZE] = ((const unsigned char *)words)[i];
    int code = bind_packed(statement, at, planes, n * SIZE);
    free(planes);
    return code;
}

/* Bytes of a model may stop inside a character; what reads the database may insist on UTF-8. */
static int bind_text(sqlite3_stmt *statement, int at, const char *text, size_t n) {
    Buf good = {0};
    if (!text) return sqlite3_bind_null(statement, at);
    buf_text(&good, "");
    text_utf8(&good, text, n);
    return sqlite3_bind_text64(statement, at, good.p, good.n, free, SQLITE_UTF8);
}

static int bind_one(sqlite3_stmt *statement, int at, char kind, va_list *args) {
    const char *text;
    const void *bytes;
    char hash[17];
    switch (kind) {
    case 'i':
        return sqlite3_bind_int(statement, at, va_arg(*args, int));
    case 'l':
        return sqlite3_bind_int64(statement, at, va_arg(*args, int64_t));
    case 'd':
        return sqlite3_bind_double(statement, at, va_arg(*args, double));
    case 't':
        return sqlite3_bind_text(statement, at, va_arg(*args, const char *), -1, SQLITE_STATIC);
    case 's':
        text = va_arg(*args, const char *);
        return bind_text(statement, at, text, va_arg(*args, size_t));
    case 'b':
        bytes = va_arg(*args, const void *);
        return bind_packed(statement, at, bytes, va_arg(*args, size_t));
    case 'w':
        bytes = va_arg(*args, const void *);
        return bind_words(statement, at, bytes, va_arg(*args, size_t));
    case 'h':
        snprintf(hash, sizeof hash, "%016llx", (unsigned long long)va_arg(*args, uint64_t));
        return sqlite3_bind_text(statement, at, hash, 16, SQLITE_TRANSIENT);
    default:
        CHECK(false, "kind of parameter '%c'", kind);
    }
}

static sqlite3_stmt *ask_list(Store *store, Err *err, const char *sql, const char *kinds, va_list *args) {
    sqlite3_stmt *statement = prepare(store, sql, err);
    if (!statement) return NULL;
    int wanted = sqlite3_bind_parameter_count(statement);
    CHECK(wanted == (int)strlen(kinds), "%d parameters for \"%s\" in %s", wanted, kinds, sql);
    for (int i = 0; kinds[i]; i++) {
        if (bind_one(statement, i + 1, kinds[i], args) != SQLITE_OK) {
            store_fail(store, err);
            store_end(statement);
            return NULL;
        }
    }
    return statement;
}

sqlite3_stmt *store_ask(Store *store, Err *err, const char *sql, const char *kinds, ...) {
    va_list args;
    va_start(args, kinds);
    sqlite3_stmt *statement = ask_list(store, err, sql, kinds, &args);
    va_end(args);
    return statement;
}

int store_row(Store *store, sqlite3_stmt *statement, Err *err) {
    int code = sqlite3_step(statement);
    if (code == SQLITE_ROW) return 1;
    if (code != SQLITE_DONE) store_fail(store, err);
    store_end(statement);
    return code == SQLITE_DONE ? 0 : -1;
}

void store_end(sqlite3_stmt *statement) {
    sqlite3_reset(statement);
    sqlite3_clear_bindings(statement);
}

bool store_put(Store *store, Err *err, const char *sql, const char *kinds, ...) {
    va_list args;
    va_start(args, kinds);
    sqlite3_stmt *statement = ask_list(store, err, sql, kinds, &args);
    va_end(args);
    return statement && store_row(store, statement, err) == 0;
}

bool store_ask_number(Store *store, Err *err, int64_t *number, const char *sql, const char *kinds, ...) {
    va_list args;
    va_start(args, kinds);
    sqlite3_stmt *statement = ask_list(store, err, sql, kinds, &args);
    va_end(args);
    int row = statement ? store_row(store, statement, err) : -1;
    *number = row == 1 ? sqlite3_column_int64(statement, 0) : 0;
    if (row == 1) store_end(statement);
    return row >= 0;
}

/* ---- transactions ------------------------------------------------------------------------------------------- */

bool store_begin(Store *store, Err *err) { return store_put(store, err, "BEGIN IMMEDIATE", ""); }

bool store_finish(Store *store, bool good, Err *err) {
    if (good && store_put(store, err, "COMMIT", "")) return true;
    /* Some errors have rolled back already; what went wrong stands in err. */
    if (!sqlite3_get_autocommit(store->db)) sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
    return false;
}

/* ---- columns ------------------------------------------------------------------------------------------------ */

const char *store_text(sqlite3_stmt *row, int column, size_t *n, Arena *arena) {
    const unsigned char *text = sqlite3_column_text(row, column);
    size_t bytes = (size_t)sqlite3_column_bytes(row, column);
    if (n) *n = bytes;
    return text ? arena_text(arena, (const char *)text, bytes) : NULL;
}

double store_double(sqlite3_stmt *row, int column) {
    return sqlite3_column_type(row, column) == SQLITE_NULL ? NAN : sqlite3_column_double(row, column);
}

uint64_t store_hash(sqlite3_stmt *row, int column) {
    const unsigned char *text = sqlite3_column_text(row, column);
    return text ? strtoull((const char *)text, NULL, 16) : 0;
}

bool store_words(Store *store, sqlite3_stmt *row, int column, void *out, size_t n, Err *err) {
    enum { SIZE = sizeof(int) };
    uLongf bytes = (uLongf)(n * SIZE);
    const void *packed = sqlite3_column_blob(row, column);
    uLong packed_n = (uLong)sqlite3_column_bytes(row, column);
    unsigned char *planes = MEM_ARRAY(unsigned char, bytes + 1);
    int code = packed ? uncompress(planes, &bytes, packed, packed_n) : Z_DATA_ERROR;
    bool good = code == Z_OK && bytes == n * SIZE;
    for (size_t i = 0; good && i < n * SIZE; i++) ((unsigned char *)out)[i] = planes[i % SIZE * n + i / SIZE];
    free(planes);
    return good ||
           store_damaged(store, err, "%s does not unpack to %zu numbers", sqlite3_column_name(row, column), n);
}

bool store_bytes(Store *store, sqlite3_stmt *row, int column, unsigned char **out, size_t *n, Arena *arena,
                 Err *err) {
    const void *packed = sqlite3_column_blob(row, column);
    uLong packed_n = (uLong)sqlite3_column_bytes(row, column);
    *out = NULL, *n = 0;
    if (!packed) return true;
    unsigned char *bytes = NULL;
    int code = Z_BUF_ERROR;
    uLongf got = 0;
    for (size_t room = 4 * packed_n + 64; code == Z_BUF_ERROR && room <= STORE_BYTES_MAX; room *= 4) {
        bytes = mem_grow(bytes, got = room, 1);
        code = uncompress(bytes, &got, packed, packed_n);
    }
    if (code == Z_OK) *out = memcpy(arena_alloc(arena, got + 1, 1), bytes, *n = got);
    free(bytes);
    return code == Z_OK || store_damaged(store, err, "%s does not unpack", sqlite3_column_name(row, column));
}

bool store_class(Store *store, sqlite3_stmt *row, int column, ScoreClass *class, Err *err) {
    const char *name = (const char *)sqlite3_column_text(row, column);
    for (ScoreClass c = SCORE_RIGHT; c <= SCORE_UNJUDGED; c++) {
        *class = c;
        if (name && strcmp(name, score_class_name(c)) == 0) return true;
    }
    return store_damaged(store, err, "a class of \"%s\"", name ? name : "");
}

const char *finish_name(Finish finish) {
    switch (finish) {
    case FINISH_STOP:
        return "stop";
    case FINISH_LENGTH:
        return "length";
    case FINISH_CANCELLED:
        return "cancelled";
    }
    CHECK(false, "finish %d", (int)finish);
}

bool store_finish_kind(Store *store, sqlite3_stmt *row, int column, Finish *finish, Err *err) {
    const char *name = (const char *)sqlite3_column_text(row, column);
    for (Finish f = FINISH_STOP; f <= FINISH_CANCELLED; f++) {
        *finish = f;
        if (name && strcmp(name, finish_name(f)) == 0) return true;
    }
    return store_damaged(store, err, "a finish of \"%s\"", name ? name : "");
}
