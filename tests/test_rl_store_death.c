/* test_rl_store_death.c: a step is whole in the store or not there, whatever kills the program, and a full or
 * read-only disk is one clear line. */
#include "tests/store_help.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- the program dies --------------------------------------------------------------------------------------- */

static void die_at(void *count, int what, const char *db, const char *table, sqlite3_int64 row) {
    (void)what, (void)db, (void)table, (void)row;
    if (--*(int *)count == 0) raise(SIGKILL);
}

static int die_now(void *unused) {
    (void)unused;
    return raise(SIGKILL);
}

/* Goes on from the last complete step up to `steps`; dies at the change number `deadly` (0: never), or as it is
 * about to commit (-1). */
static pid_t write_in_child(const char *path, long steps, int deadly) {
    pid_t child = fork();
    if (child != 0) return child;
    Err err = {0};
    Arena arena = {0};
    StoreRun run;
    bool found;
    long last = 0;
    Store *store = must_open(path);
    CHECK(store_run_last(store, &arena, &run, &found, &err) && found, "%s", err.msg);
    CHECK(store_step_last(store, run.id, &last, &err), "%s", err.msg);
    /* Few pages in memory: what is not yet committed is already in the log. */
    sqlite3_exec(store->db, "PRAGMA cache_size = 8", NULL, NULL, NULL);
    if (deadly > 0) sqlite3_update_hook(store->db, die_at, &deadly);
    if (deadly < 0) sqlite3_commit_hook(store->db, die_now, NULL);
    while (last < steps) CHECK(step_write(store, run.id, ++last, &err), "%s", err.msg);
    _exit(0);
}

static uint64_t digest_of(const char *path) {
    Err err = {0};
    uint64_t digest;
    Store *store = must_open(path);
    CHECK(store_digest(store, &digest, &err), "%s", err.msg);
    store_close(store);
    return digest;
}

/* All steps up to the last are whole and as written. Returns the last. */
static long check_whole(const char *path) {
    Err err = {0};
    long last;
    Store *store = must_open(path);
    assert_true(store_step_last(store, 1, &last, &err));
    for (long n = 1; n <= last; n++) {
        StoreStep made, read;
        step_make(&made, n);
        assert_true(store_step_read(store, 1, n, &read, &err));
        assert_true(read.n_groups == GROUPS && read.weight_hash == made.weight_hash);
        assert_memory_equal(read.groups[2].samples[3].sample.tok, made.groups[2].samples[3].sample.tok,
                            sizeof(int));
        store_step_free(&read);
        arena_free(&made.arena);
    }
    store_close(store);
    assert_true(ask(path, "SELECT count(*) FROM groups") == (double)last * GROUPS);
    assert_true(ask(path, "SELECT count(*) FROM scores") == (double)last * GROUPS * SAMPLES * PARTS);
    assert_true(ask(path, "SELECT count(*) FROM step_metrics") == (double)last * 3);
    return last;
}

static void killed_inside_a_transaction(void **state) {
    const Place *place = *state;
    const long steps = 3;
    int died = 0;
    Store *store = must_open(place->db);
    store_fill(store, 0);
    store_close(store);
    for (int deadly = -1;; deadly++) {
        if (deadly == 0) continue;
        int status;
        waitpid(write_in_child(place->db, steps, deadly), &status, 0);
        if (WIFEXITED(status)) {
            assert_int_equal(WEXITSTATUS(status), 0);
            break;
        }
        assert_int_equal(WTERMSIG(status), SIGKILL);
        check_whole(place->db);
        died++;
    }
    assert_true(died >= GROUPS * (1 + SAMPLES)); /* the hook sees a step's groups and samples */
    assert_int_equal(check_whole(place->db), steps);
    uint64_t digest = digest_of(place->db);
    unlink(place->db); /* the same steps, undisturbed */
    store = must_open(place->db);
    store_fill(store, steps);
    store_close(store);
    assert_true(digest_of(place->db) == digest);
}

static void killed_at_any_time(void **state) {
    const Place *place = *state;
    Store *store = must_open(place->db);
    store_fill(store, 0);
    store_close(store);
    Rng rng = {.key = 5};
    long last = 0,
         longest = 30000; /* longer where the machine is so busy that no step was stored before the kill */
    for (int i = 0; i < 12; i++) {
        pid_t child = write_in_child(place->db, 1000000, 0);
        usleep((useconds_t)(3000 + rng_below(&rng, (uint64_t)longest)));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        long now = check_whole(place->db);
        assert_true(now >= last);
        if (now == last) longest *= 2;
        last = now;
    }
    assert_true(last > 0);
}

/* ---- trouble with the disk ---------------------------------------------------------------------------------- */

/* Runs body in a child; returns its exit status (0: good, 77: not possible here). */
static int in_child(int (*body)(const Place *), const Place *place) {
    int status;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) _exit(body(place));
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Writes steps until the disk is full: one clear line, and all that was stored is there. Then `relieve` makes
 * room, and the same step is written with the same open store. */
static int fill_disk(const char *path, void (*relieve)(const char *path)) {
    Err err = {0};
    Store *store = must_open(path);
    int64_t run = store_fill(store, 2);
    long n = 3, last;
    while (n < 5000 && step_write(store, run, n, &err)) n++;
    CHECK(n < 5000, "the disk never filled");
    CHECK(strstr(err.msg, "no space left on the disk (or under a limit) while storing step"), "%s", err.msg);
    CHECK(store_step_last(store, run, &last, &err) && last == n - 1, "last is %ld", last);
    relieve(path);
    CHECK(step_write(store, run, n, &err), "%s", err.msg);
    store_close(store);
    CHECK(check_whole(path) == n, "not %ld steps", n);
    return 0;
}

static void raise_limit(const char *path) {
    (void)path;
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
}

static int limited_file(const Place *place) {
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){2 << 20, RLIM_INFINITY});
    return fill_disk(place->db, raise_limit);
}

/* A folder of its own that nobody else sees; false where this is not allowed. */
static bool mount_private(const char *folder, unsigned long flags, const char *options) {
    return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", folder, "tmpfs", flags, options) == 0;
}

static void grow_disk(const char *path) {
    char folder[80];
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(path, '/') - path), path);
    CHECK(mount(NULL, folder, NULL, MS_REMOUNT, "size=16m") == 0, "%s", folder);
}

static int small_disk(const Place *place) {
    if (!mount_private(place->folder, 0, "size=3m")) return 77;
    return fill_disk(place->db, grow_disk);
}

static void full_disk_loses_nothing(void **state) {
    assert_int_equal(in_child(limited_file, *state), 0);
    place_close(state);
    assert_int_equal(place_open(state), 0);
    int result = in_child(small_disk, *state);
    if (result == 77)
        print_message("LEFT OUT: a small tmpfs (needs the right to mount)\n");
    else
        assert_int_equal(result, 0);
}

static int read_only(const Place *place) {
    Err err = {0};
    if (geteuid() == 0) {
        if (!mount_private(place->folder, 0, "size=4m")) return 77;
        store_close(must_open(place->db)); /* also with a store that was made before */
        if (mount(NULL, place->folder, NULL, MS_REMOUNT | MS_RDONLY, NULL) != 0) return 77;
    } else {
        chmod(place->folder, 0500);
    }
    CHECK(!store_open(place->db, 0, &err), "opened in a read-only folder");
    CHECK(strstr(err.msg, place->db) && strstr(err.msg, "cannot be written"), "%s", err.msg);
    char other[96];
    snprintf(other, sizeof other, "%s/new.db", place->folder);
    CHECK(!store_open(other, 0, &err), "made in a read-only folder");
    CHECK(strstr(err.msg, "cannot be written"), "%s", err.msg);
    chmod(place->folder, 0700);
    return 0;
}

static void read_only_folder_is_one_line(void **state) {
    const Place *place = *state;
    int result = in_child(read_only, place);
    if (result == 77)
        print_message("LEFT OUT: a read-only folder (needs the right to mount)\n");
    else
        assert_int_equal(result, 0);
    Err err = {0};
    assert_null(store_open("/nowhere/at/all/run.db", 0, &err));
    assert_non_null(strstr(err.msg, "No such file or directory"));
    assert_null(strchr(err.msg, '\n'));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        STORE_TEST(killed_inside_a_transaction),
        STORE_TEST(killed_at_any_time),
        STORE_TEST(full_disk_loses_nothing),
        STORE_TEST(read_only_folder_is_one_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
