/* test_reward_sandbox.c: the sandbox itself: which layers hold, as root and as an ordinary user, with and without
 * user namespaces; nothing is left or leaks; kill -9 of any of its processes; a hanging program delays no other.
 * (run.sh: alone) */
#include "tests/code_help.h"

#include <errno.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "reward/sandbox.h"

enum { USER_ID = 12345 };

/* Runs `work` in a child of its own, as an ordinary user where we are root; the exit status must be 0. */
static void in_child(bool as_user, uint64_t refused_clone_flags, int (*work)(void)) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (as_user && geteuid() == 0 && (setgid(USER_ID) || setuid(USER_ID))) _exit(90);
        prctl(PR_SET_DUMPABLE, 1); /* as after the exec of a login */
        if (refused_clone_flags) { /* what a machine without user namespaces answers */
            scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
            for (int bit = 0; bit < 32; bit++) {
                uint64_t flag = 1ull << bit;
                if (refused_clone_flags & flag)
                    seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                                     SCMP_CMP64(0, SCMP_CMP_MASKED_EQ, flag, flag));
            }
            if (seccomp_load(ctx) != 0) _exit(91);
            seccomp_release(ctx);
        }
        fflush(NULL);
        _exit(work());
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("the child ended with status %#x", (unsigned)status);
}

static unsigned all_but_landlock(void) { return ((1u << LAYER_COUNT) - 1) & ~(1u << LAYER_LANDLOCK); }

static int measure_all(void) {
    Err err = {{0}};
    BoxConf conf = {.role = BOX_CANDIDATE};
    Box box;
    unsigned layers = 0;
    if (!box_find_python(conf.python, sizeof conf.python, &err) || !box_open(&box, &conf, &err) ||
        !layers_measure(&box, &layers, &err)) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    box_close(&box);
    return (layers & all_but_landlock()) == all_but_landlock() ? 0 : 2;
}

static void test_all_layers_hold(void **state) {
    (void)state;
    in_child(false, 0, measure_all);
    in_child(true, 0, measure_all);
}

static int refuses(void) {
    Err err = {{0}};
    Reward *reward = code_open(false, 1, &err);
    return !reward && strstr(err.msg, "namespaces") && strstr(err.msg, "--allow_weak_sandbox") ? 0 : 1;
}

/* Works, says in each score what is missing, and still refuses what system calls and limits refuse. */
static int works_weakly(void) {
    Err err = {{0}};
    Reward *reward = code_open(true, 1, &err);
    if (!reward) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    RewardScore score = code_judge(reward, row_asserts("def f(x): return x + 1", "assert f(1) == 2"));
    bool ok = score.class == SCORE_RIGHT && strstr(score.detail, "weak_sandbox_without\":\"user");
    reward_score_free(&score);
    static const char *const codes[] = {
        "import socket\ntry:\n    socket.socket()\nexcept OSError:\n    print(1)",
        "import os\ntry:\n    os.listdir('/root')\nexcept OSError:\n    print(1)",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(1000)\n    "
        "os._exit(0)\nprint(1)",
    };
    for (int i = 0; i < 3 && ok; i++) {
        score = code_judge(reward, row_io("python", codes[i], "", "1"));
        ok = score.class == SCORE_RIGHT;
        if (!ok) fprintf(stderr, "program %d: %s %s\n", i, score.verdict, score.reason);
        reward_score_free(&score);
    }
    score = code_judge(reward, row_io("c", "#include <stdio.h>\nint main() { puts(\"1\"); }", "", "1"));
    ok = ok && score.class == SCORE_RIGHT;
    reward_score_free(&score);
    reward_close(reward);
    return ok ? 0 : 2;
}

static void test_without_user_namespaces(void **state) {
    (void)state;
    uint64_t user = CLONE_NEWUSER,
             all = user | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
    for (int as_user = 0; as_user < 2; as_user++) {
        in_child(as_user, user, refuses);
        in_child(as_user, user, works_weakly);
        in_child(as_user, all, refuses);
        in_child(as_user, all, works_weakly);
    }
}

static void settle(int wanted, pid_t *pids, int most) {
    int n = 0;
    for (int i = 0; i < 100; i++) {
        n = sandbox_processes(pids, most);
        if (n <= wanted) return;
        usleep(20000);
    }
    fail_msg("%d processes of sandboxes are left, %d were there before", n, wanted);
}

/* Folders that boxes without mount namespaces make. */
static int count_boxes(void) {
    DIR *dir = opendir("/tmp");
    int n = 0;
    for (struct dirent *d; dir && (d = readdir(dir));) n += !strncmp(d->d_name, "whet-box", 8);
    if (dir) closedir(dir);
    return n;
}

/* Many in a row: descriptors of ours and of the worker, processes, mounts and files are afterwards what they were.
 */
static void test_no_leaks(void **state) {
    (void)state;
    enum { ROWS = 400, WARM = 40 };
    pid_t pids[64];
    int before = sandbox_processes(pids, 64), fds[2] = {0}, worker_fds[2] = {0};
    int tmp = count_boxes();
    Err err = {{0}};
    Reward *reward = code_open(false, 2, &err);
    assert_non_null(reward);
    for (int i = 0; i < ROWS; i++) {
        if (i == WARM || i == ROWS - 1) {
            char path[64] = "";
            int n = sandbox_processes(pids, 64);
            for (int k = 0; k < n && k < 64; k++) {
                char name[64] = "";
                snprintf(path, sizeof path, "/proc/%d/comm", (int)pids[k]);
                FILE *file = fopen(path, "re");
                if (file && fgets(name, sizeof name, file) && !strncmp(name, "whet-code", 9)) {
                    snprintf(path, sizeof path, "/proc/%d/fd", (int)pids[k]);
                    worker_fds[i > WARM] += count_entries(path);
                }
                if (file) fclose(file);
            }
            fds[i > WARM] = count_entries("/proc/self/fd");
        }
        const char *leave =
            "import os, time\nif os.fork() == 0: time.sleep(100)\nopen('x', 'w').write('y')\nprint(1)";
        json_t *row = i % 4 == 0   ? row_io("python", leave, "", "1")
                      : i % 4 == 1 ? row_io("c", "int main() { return 0; }", "", "")
                                   : row_asserts("def f(x): return x", "assert f(1) == 1");
        expect_verdict(reward, row, "pass");
    }
    assert_int_equal(fds[0], fds[1]);
    assert_int_equal(worker_fds[0], worker_fds[1]);
    reward_close(reward);
    settle(before, pids, 64);
    assert_int_equal(count_boxes(), tmp);
}

/* More programs hang than there are cores; the others do not wait for them. */
static void test_hanging_delays_no_other(void **state) {
    (void)state;
    Err err = {{0}};
    Reward *reward = code_open(false, 0, &err);
    assert_non_null(reward);
    enum { ROWS = 40 };
    int hang = (int)sysconf(_SC_NPROCESSORS_ONLN) + 1 < 10 ? (int)sysconf(_SC_NPROCESSORS_ONLN) + 1 : 10;
    char *fields[ROWS];
    json_t *rows[ROWS];
    double start = clock_seconds();
    for (int i = 0; i < ROWS; i++) {
        rows[i] =
            row_asserts(i >= hang ? "def f(x): return x" : "import time\ntime.sleep(1000)", "assert f(1) == 1");
        json_object_set_new(rows[i], "limits", json_pack("{s:f}", "wall_s", 8.0));
        code_submit(reward, rows[i], &fields[i], i);
    }
    for (int i = 0; i < ROWS; i++) {
        int64_t ticket;
        RewardScore score;
        code_take(reward, 60, &ticket, &score);
        assert_int_equal(ticket < hang, i >= ROWS - hang); /* the hanging ones come last */
        assert_string_equal(score.verdict, ticket < hang ? "time-limit" : "pass");
        reward_score_free(&score);
    }
    assert_true(clock_seconds() - start < 8 + 6); /* not one after the other */
    for (int i = 0; i < ROWS; i++) free(fields[i]), json_decref(rows[i]);
    reward_close(reward);
}

/* ---- kill -9 ---- */

static pid_t start_killer(double every) {
    pid_t parent = getpid(), pid = fork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (unsigned seed = 7; getppid() == parent;) {
        pid_t pids[64];
        usleep((useconds_t)(1e6 * every));
        int n = sandbox_processes(pids, 64);
        if (n > 0) kill(pids[(unsigned)rand_r(&seed) % (unsigned)(n < 64 ? n : 64)], SIGKILL);
    }
    _exit(0);
}

/* Workers, boxes and runs are killed at random: a right answer is never called wrong, a wrong one never right, and
 * the caller always gets every score. */
static void test_kills_at_random(void **state) {
    (void)state;
    enum { ROWS = 120 };
    char *fields[ROWS];
    json_t *rows[ROWS];
    pid_t pids[64];
    int before = sandbox_processes(pids, 64), unjudged = 0;
    Err err = {{0}};
    Reward *reward = code_open(false, 2, &err);
    assert_non_null(reward);
    pid_t killer = start_killer(0.2);
    for (int i = 0; i < ROWS; i++) {
        const char *code =
            i % 3 == 2 ? "def f(x): return 0" : "import time\ndef f(x):\n    time.sleep(0.02)\n    return x";
        rows[i] = row_asserts(code, "assert f(1) == 1");
        code_submit(reward, rows[i], &fields[i], i);
    }
    for (int i = 0; i < ROWS; i++) {
        int64_t ticket;
        RewardScore score;
        code_take(reward, 120, &ticket, &score);
        if (score.class == SCORE_UNJUDGED)
            unjudged++;
        else if ((score.class == SCORE_RIGHT) != (ticket % 3 != 2))
            fail_msg("row %d: %s: %s", (int)ticket, score.verdict, score.reason ? score.reason : "");
        reward_score_free(&score);
    }
    kill(killer, SIGKILL);
    waitpid(killer, NULL, 0);
    print_message("%d of %d rows could not be judged\n", unjudged, ROWS);
    assert_true(unjudged < ROWS / 2);
    for (int i = 0; i < ROWS; i++) free(fields[i]), json_decref(rows[i]);
    reward_close(reward);
    settle(before, pids, 64);
}

/* The caller is killed while programs run: all of the sandbox ends by itself. */
static void test_caller_killed(void **state) {
    (void)state;
    pid_t pids[64];
    int before = sandbox_processes(pids, 64), ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t caller = fork();
    if (caller == 0) {
        Err err = {{0}};
        Reward *reward = code_open(false, 2, &err);
        const char *code = "import os, time\nfor _ in range(5):\n    os.fork()\ntime.sleep(1000)";
        for (int i = 0; reward && i < 4; i++) {
            char *fields;
            code_submit(reward, row_io("python", code, "", ""), &fields, i);
        }
        int64_t ticket;
        int part;
        RewardScore score;
        reward_poll(reward, 0.5, &ticket, &part, &score, &err);
        _exit(write(ready[1], "x", 1) == 1 ? (pause(), 0) : 1);
    }
    char byte;
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    assert_true(sandbox_processes(pids, 64) > before + 4);
    kill(caller, SIGKILL);
    waitpid(caller, NULL, 0);
    settle(before, pids, 64);
}

/* A run that is killed each time it is tried is never wrong: it is unjudged after the second time. */
static void test_killed_twice(void **state) {
    (void)state;
    Err err = {{0}};
    Reward *reward = code_open(false, 1, &err);
    assert_non_null(reward);
    pid_t killer = start_killer(0.3);
    RewardScore score = code_judge(reward, row_io("python", "import time\ntime.sleep(60)", "", ""));
    kill(killer, SIGKILL);
    waitpid(killer, NULL, 0);
    assert_string_equal(score.verdict, "sandbox-error");
    assert_int_equal(score.class, SCORE_UNJUDGED);
    reward_score_free(&score);
    reward_close(reward);
}

static void test_report(void **state) {
    (void)state;
    Err err = {{0}};
    char *text;
    assert_true(reward_sandbox_report(&text, &err));
    assert_non_null(strstr(text, "seccomp   yes"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_layers_hold), cmocka_unit_test(test_without_user_namespaces),
        cmocka_unit_test(test_no_leaks),        cmocka_unit_test(test_hanging_delays_no_other),
        cmocka_unit_test(test_kills_at_random), cmocka_unit_test(test_caller_killed),
        cmocka_unit_test(test_killed_twice),    cmocka_unit_test(test_report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
