/* store.c: opening the store, its runs, attempts, problems and evaluations, and the digest. Not here: steps
 * (store_write.c, store_read.c), SQL's ways (store_sql.c), the tables (schema.sql). Tested by
 * tests/test_rl_store.c. */
#include "rl/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>
#include <xxhash.h>

/* rl/schema.sql as one string (a rule of the Makefile). */
static const char schema[] =
#include "rl/schema.inc"
    ;

/* ---- opening ------------------------------------------------------------------------------------------------ */

/* Locks the folder that the store lies in, so that two trainings never write to one store. A file system without
 * locks is borne. */
static bool folder_lock(Store *store, Err *err) {
    const char *slash = strrchr(store->path, '/');
    char *folder = slash ? mem_text_n(store->path, (size_t)(slash - store->path) + 1) : mem_text(".");
    store->lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool good = true;
    if (store->lock < 0) {
        good = err_set(err, "%s: cannot be made: folder %s: %s", store->path, folder, strerror(errno));
    } else if (flock(store->lock, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        good = err_set(err, "%s: another whet is writing to %s: wait for it or choose another folder", store->path,
                       folder);
    }
    free(folder);
    return good;
}

/* Makes the tables in an empty database; refuses one that is not ours or is newer than we are. */
static bool schema_check(Store *store, Err *err) {
    int64_t application, version, tables;
    if (!store_ask_number(store, err, &tables, "SELECT count(*) FROM sqlite_schema", "")) return false;
    if (!store_ask_number(store, err, &application, "PRAGMA application_id", "")) return false;
    if (!store_ask_number(store, err, &version, "PRAGMA user_version", "")) return false;
    if (tables == 0 && application == 0 && store->lock >= 0) {
        return sqlite3_exec(store->db, schema, NULL, NULL, NULL) == SQLITE_OK || store_fail(store, err);
    }
    if (application != STORE_APPLICATION) {
        return err_set(err, "%s: is a database of another program: choose another folder", store->path);
    }
    if (version > STORE_VERSION) {
        return err_set(err, "%s: made by a newer whet (store version %lld, this one knows %d): use that one",
                       store->path, (long long)version, STORE_VERSION);
    }
    if (version < STORE_VERSION && version > 0) {
        return err_set(err, "%s: made by an older whet (store version %lld, this one knows %d): use that one",
                       store->path, (long long)version, STORE_VERSION);
    }
    if (version != STORE_VERSION) return store_damaged(store, err, "store version %lld", (long long)version);
    /* Stores that are older than this table have nothing to say in it. */
    if (!store_ask_number(store, err, &tables,
                          "SELECT count(*) FROM sqlite_schema WHERE name = 'learner_logprobs'", ""))
        return false;
    if (tables) return true;
    const char *make = store->lock >= 0
                           ? "CREATE TABLE learner_logprobs (sample_id INTEGER PRIMARY KEY REFERENCES "
                             "samples, logprobs BLOB NOT NULL)"
                           : "CREATE TEMP TABLE learner_logprobs (sample_id INTEGER PRIMARY KEY, "
                             "logprobs BLOB)";
    return sqlite3_exec(store->db, make, NULL, NULL, NULL) == SQLITE_OK || store_fail(store, err);
}

static bool database_open(Store *store, Err *err) {
    int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    int code = sqlite3_open_v2(store->path, &store->db, flags, NULL);
    if (!store->db) die("out of memory while %s", store->doing);
    sqlite3_extended_result_codes(store->db, 1);
    if (code != SQLITE_OK) return store_fail(store, err);
    if (sqlite3_db_readonly(store->db, "main")) {
        return err_set(err, "%s: cannot be written: the file or its folder is read-only", store->path);
    }
    /* Samples are some kilobytes: on larger pages less room is lost beside them. Decided when the file is made. */
    if (sqlite3_exec(store->db, "PRAGMA page_size = 16384", NULL, NULL, NULL) != SQLITE_OK)
        return store_fail(store, err);
    sqlite3_busy_timeout(store->db, (int)(store->wait_seconds * 1000));
    /* First looked at, then changed: what is refused stays as it was. */
    if (!store_begin(store, err)) return false;
    if (!store_finish(store, schema_check(store, err), err)) return false;
    static const char settings[] =
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON";
    return sqlite3_exec(store->db, settings, NULL, NULL, NULL) == SQLITE_OK || store_fail(store, err);
}

static Store *store_new(const char *path, double wait_seconds) {
    Store *store = MEM_NEW(Store);
    store->path = mem_text(path);
    store->lock = -1;
    store->wait_seconds = wait_seconds > 0 ? wait_seconds : 30;
    store_doing(store, "opening it");
    return store;
}

Store *store_open(const char *path, double wait_seconds, Err *err) {
    Store *store = store_new(path, wait_seconds);
    if (folder_lock(store, err) && database_open(store, err)) return store;
    store_close(store);
    return NULL;
}

bool store_idle(const char *path, Err *err) {
    Store *store = store_new(path, 0);
    bool idle = folder_lock(store, err);
    store_close(store);
    return idle;
}

/* Opens what is there. A folder that may not be written to has no room for the write-ahead log's index, which even
 * a reader wants: then the file is read as it lies. */
static bool database_read(Store *store, int flags, Err *err) {
    if (access(store->path, F_OK) != 0)
        return err_set(err, "%s: there is no such store: name the output_dir of a run", store->path);
    int code = sqlite3_open_v2(store->path, &store->db, flags, NULL);
    if (!store->db) die("out of memory while %s", store->doing);
    sqlite3_extended_result_codes(store->db, 1);
    sqlite3_busy_timeout(store->db, (int)(store->wait_seconds * 1000));
    if (code == SQLITE_OK) code = sqlite3_exec(store->db, "SELECT 1 FROM sqlite_schema", NULL, NULL, NULL);
    if ((code & 0xff) == SQLITE_CANTOPEN && flags == SQLITE_OPEN_READONLY) {
        char *name = sqlite3_mprintf("file:%s?immutable=1", store->path);
        sqlite3_close(store->db);
        code = sqlite3_open_v2(name, &store->db, flags | SQLITE_OPEN_URI, NULL);
        sqlite3_free(name);
        sqlite3_extended_result_codes(store->db, 1);
    }
    if (code != SQLITE_OK) return store_fail(store, err);
    return schema_check(store, err) &&
           (sqlite3_exec(store->db, "PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL", NULL, NULL, NULL) ==
                SQLITE_OK ||
            store_fail(store, err));
}

static Store *open_there(const char *path, int flags, Err *err) {
    Store *store = store_new(path, 0);
    if (database_read(store, flags, err)) return store;
    store_close(store);
    return NULL;
}

Store *store_open_read(const char *path, Err *err) { return open_there(path, SQLITE_OPEN_READONLY, err); }
Store *store_open_beside(const char *path, Err *err) { return open_there(path, SQLITE_OPEN_READWRITE, err); }

void store_close(Store *store) {
    if (!store) return;
    for (int i = 0; i < STORE_STATEMENTS; i++) sqlite3_finalize(store->statements[i].statement);
    sqlite3_close(store->db); /* folds the write-ahead log into run.db */
    if (store->lock >= 0) close(store->lock);
    free(store->path);
    free(store);
}

/* ---- runs and attempts -------------------------------------------------------------------------------------- */

bool store_run_begin(Store *store, StoreRun *run, Err *err) {
    store_doing(store, "storing the run");
    if (!store_put(store, err, "INSERT INTO runs (recipe, path, version, weight_hash) VALUES (?, ?, ?, ?)", "ttth",
                   run->recipe, run->path, run->version, run->weight_hash)) {
        return false;
    }
    run->id = sqlite3_last_insert_rowid(store->db);
    return true;
}

bool store_run_last(Store *store, Arena *arena, StoreRun *run, bool *found, Err *err) {
    store_doing(store, "reading the run");
    sqlite3_stmt *row = store_ask(store, err,
                                  "SELECT id, recipe, path, version, weight_hash FROM runs "
                                  "ORDER BY id DESC LIMIT 1",
                                  "");
    int got = row ? store_row(store, row, err) : -1;
    *found = got == 1;
    if (got != 1) return got == 0;
    run->id = sqlite3_column_int64(row, 0);
    run->recipe = store_text(row, 1, NULL, arena);
    run->path = store_text(row, 2, NULL, arena);
    run->version = store_text(row, 3, NULL, arena);
    run->weight_hash = store_hash(row, 4);
    store_end(row);
    return true;
}

bool store_attempt_begin(Store *store, int64_t run, long from_step, const char *path, const char *version,
                         int threads, int64_t *attempt, Err *err) {
    store_doing(store, "storing the start of the program");
    if (!store_put(store, err,
                   "INSERT INTO attempts (run, from_step, path, version, threads, started_at) "
                   "VALUES (?, ?, ?, ?, ?, strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))",
                   "lltti", run, (int64_t)from_step, path, version, threads)) {
        return false;
    }
    *attempt = sqlite3_last_insert_rowid(store->db);
    return true;
}

bool store_attempt_end(Store *store, int64_t attempt, const char *outcome, Err *err) {
    store_doing(store, "storing the end of the program");
    return store_put(
        store, err,
        "UPDATE attempts SET ended_at = strftime('%Y-%m-%dT%H:%M:%SZ', 'now'), outcome = ? WHERE id = ?", "tl",
        outcome, attempt);
}

/* ---- problems ----------------------------------------------------------------------------------------------- */

bool store_problem(Store *store, const char *source, const Problem *problem, int64_t *id, Err *err) {
    /* The whole row is compared: a data set that was changed between two attempts makes new problems. */
    if (!store_ask_number(store, err, id,
                          "SELECT id FROM problems WHERE source = ? AND name = ? AND kind = ? AND problem = ? "
                          "AND answer IS ? AND fields IS ? LIMIT 1",
                          "tttttt", source, problem->id, problem->kind, problem->problem, problem->answer,
                          problem->fields)) {
        return false;
    }
    if (*id != 0) return true;
    if (!store_put(store, err,
                   "INSERT INTO problems (source, name, kind, problem, answer, fields) VALUES (?, ?, ?, ?, ?, ?)",
                   "tttttt", source, problem->id, problem->kind, problem->problem, problem->answer,
                   problem->fields)) {
        return false;
    }
    *id = sqlite3_last_insert_rowid(store->db);
    return true;
}

/* ---- evaluations -------------------------------------------------------------------------------------------- */

static bool eval_put(Store *store, int64_t run, const StoreEval *eval, Err *err) {
    int64_t step = eval->step, id;
    bool good = store_put(store, err, "DELETE FROM evals WHERE run = ? AND step = ? AND name = ?", "llt", run,
                          step, eval->name);
    good = good &&
           store_put(store, err,
                     "INSERT INTO evals (run, step, name, n, accuracy, ci_low, ci_high, mean_length, seconds) "
                     "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                     "lltiddddd", run, step, eval->name, eval->n, eval->accuracy, eval->ci_low, eval->ci_high,
                     eval->mean_length, eval->seconds);
    for (int i = 0; good && i < eval->n_answers; i++) {
        const StoreAnswer *a = &eval->answers[i];
        good = store_problem(store, eval->name, &a->problem, &id, err);
        good =
            good && store_put(store, err,
                              "INSERT INTO eval_answers (run, step, name, position, problem_id, text, n_tokens, "
                              "finish, reward, class, verdict) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                              "lltilsitdtt", run, step, eval->name, i, id, a->text, a->text_n, a->n_tokens,
                              finish_name(a->finish), a->reward, score_class_name(a->class), a->verdict);
    }
    return good;
}

bool store_eval_write(Store *store, int64_t run, const StoreEval *eval, Err *err) {
    store_doing(store, "storing the evaluation after step %ld", eval->step);
    return store_begin(store, err) && store_finish(store, eval_put(store, run, eval, err), err);
}

static bool answers_read(Store *store, int64_t run, StoreEval *eval, Err *err) {
    int64_t n;
    if (!store_ask_number(store, err, &n,
                          "SELECT count(*) FROM eval_answers WHERE run = ? AND step = ? AND name = ?", "llt", run,
                          (int64_t)eval->step, eval->name)) {
        return false;
    }
    eval->answers = arena_alloc(&eval->arena, (size_t)n + 1, sizeof(StoreAnswer));
    sqlite3_stmt *row =
        store_ask(store, err,
                  "SELECT p.name, p.kind, p.problem, p.answer, p.fields, a.text, a.n_tokens, a.finish, "
                  "a.reward, a.class, a.verdict FROM eval_answers a JOIN problems p "
                  "ON p.id = a.problem_id WHERE a.run = ? AND a.step = ? AND a.name = ? "
                  "ORDER BY a.position",
                  "llt", run, (int64_t)eval->step, eval->name);
    int got = row ? 1 : -1;
    while (got == 1 && (got = store_row(store, row, err)) == 1) {
        StoreAnswer *a = &eval->answers[eval->n_answers++];
        a->problem = (Problem){.id = store_text(row, 0, NULL, &eval->arena),
                               .kind = store_text(row, 1, NULL, &eval->arena),
                               .problem = store_text(row, 2, NULL, &eval->arena),
                               .answer = store_text(row, 3, NULL, &eval->arena),
                               .fields = store_text(row, 4, NULL, &eval->arena)};
        a->text = store_text(row, 5, &a->text_n, &eval->arena);
        a->n_tokens = sqlite3_column_int(row, 6);
        a->reward = store_double(row, 8);
        a->verdict = store_text(row, 10, NULL, &eval->arena);
        if (store_finish_kind(store, row, 7, &a->finish, err) && store_class(store, row, 9, &a->class, err))
            continue;
        store_end(row);
        return false;
    }
    return got == 0;
}

bool store_eval_read(Store *store, int64_t run, long step, const char *name, StoreEval *eval, bool *found,
                     Err *err) {
    store_doing(store, "reading the evaluation after step %ld", step);
    *eval = (StoreEval){.step = step};
    sqlite3_stmt *row = store_ask(store, err,
                                  "SELECT n, accuracy, ci_low, ci_high, mean_length, seconds FROM evals "
                                  "WHERE run = ? AND step = ? AND name = ?",
                                  "llt", run, (int64_t)step, name);
    int got = row ? store_row(store, row, err) : -1;
    *found = got == 1;
    if (got != 1) return got == 0;
    eval->name = arena_text(&eval->arena, name, strlen(name));
    eval->n = sqlite3_column_int(row, 0);
    eval->accuracy = store_double(row, 1);
    eval->ci_low = store_double(row, 2);
    eval->ci_high = store_double(row, 3);
    eval->mean_length = store_double(row, 4);
    eval->seconds = store_double(row, 5);
    store_end(row);
    if (answers_read(store, run, eval, err)) return true;
    store_eval_free(eval);
    return false;
}

void store_eval_free(StoreEval *eval) {
    arena_free(&eval->arena);
    *eval = (StoreEval){0};
}

/* ---- the digest --------------------------------------------------------------------------------------------- */

/* One row into the hash: the type, the length and the bytes of each column. */
static void digest_row(XXH3_state_t *hash, sqlite3_stmt *row) {
    for (int c = 0; c < sqlite3_column_count(row); c++) {
        int type = sqlite3_column_type(row, c);
        int64_t integer = sqlite3_column_int64(row, c);
        double number = sqlite3_column_double(row, c);
        XXH3_64bits_update(hash, &type, sizeof type);
        if (type == SQLITE_INTEGER) XXH3_64bits_update(hash, &integer, sizeof integer);
        if (type == SQLITE_FLOAT) XXH3_64bits_update(hash, &number, sizeof number);
        if (type != SQLITE_TEXT && type != SQLITE_BLOB) continue;
        const void *bytes = sqlite3_column_blob(row, c);
        int n = sqlite3_column_bytes(row, c);
        XXH3_64bits_update(hash, &n, sizeof n);
        if (n > 0) XXH3_64bits_update(hash, bytes, (size_t)n);
    }
}

bool store_digest(Store *store, uint64_t *digest, Err *err) {
    static const char *const queries[] = {
        "SELECT * FROM steps ORDER BY run, step",
        "SELECT * FROM step_metrics ORDER BY run, step, name",
        "SELECT * FROM step_guards ORDER BY run, step, name",
        "SELECT * FROM problems ORDER BY id",
        "SELECT * FROM groups ORDER BY id",
        "SELECT * FROM samples ORDER BY id",
        "SELECT sample_id, part, name, value, class, verdict, reason, detail FROM scores ORDER BY sample_id, part",
        "SELECT * FROM advantages ORDER BY run, step, sample_id",
        "SELECT * FROM step_summary ORDER BY run, step",
        "SELECT * FROM problem_summary ORDER BY problem_id",
        "SELECT run, step, name, class, verdict, n, value FROM step_verdicts ORDER BY rowid",
        "SELECT run, step, name, n, accuracy, ci_low, ci_high, mean_length FROM evals ORDER BY run, step, name",
        "SELECT * FROM eval_answers ORDER BY run, step, name, position",
        "SELECT * FROM learner_logprobs ORDER BY sample_id",
    };
    XXH3_state_t *hash = XXH3_createState();
    if (!hash) die("out of memory while computing the store's digest");
    XXH3_64bits_reset(hash);
    store_doing(store, "computing its digest");
    bool good = true;
    for (int i = 0; good && i < (int)(sizeof queries / sizeof *queries); i++) {
        XXH3_64bits_update(hash, &i, sizeof i);
        sqlite3_stmt *row = store_ask(store, err, queries[i], "");
        int got = row ? 1 : -1;
        while (got == 1 && (got = store_row(store, row, err)) == 1) digest_row(hash, row);
        good = got == 0;
    }
    *digest = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    return good;
}
