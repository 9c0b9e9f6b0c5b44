/* test_rl_train.c: whole training runs of a tiny model: the same store and the same checkpoint, byte for byte,
 * whatever the threads, slots and micro-batches, and however often the run was stopped or killed and gone on with.
 * (run.sh: long)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <limits.h>
#include <math.h>
#include <sqlite3.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rl/train.h"

#define MODEL "tests/goldens/tiny-llama"
static char root[] = "/tmp/whet-train-XXXXXX";

/* ---- runs ---- */

static const char *const common[] = {
    "--model_name_or_path",
    MODEL,
    "--dataset_name",
    "generate:sums:min=1:max=3:held=1,1,3",
    "--prompt_template",
    "Q: {problem}\nA:",
    "--reward_funcs",
    "math,format",
    "--reward_weights",
    "1.0,0.1",
    "--num_generations",
    "8",
    "--per_device_train_batch_size",
    "32",
    "--max_prompt_length",
    "48",
    "--max_completion_length",
    "20",
    "--temperature",
    "1.1",
    "--learning_rate",
    "1e-3",
    "--lr_scheduler_type",
    "cosine",
    "--warmup_steps",
    "2",
    "--beta",
    "0.02",
    "--seed",
    "3",
    "--max_steps",
    "6",
    "--save_steps",
    "2",
    "--eval_steps",
    "3",
    "--save_total_limit",
    "0",
};
enum { N_COMMON = sizeof common / sizeof common[0], FLAGS_MAX = 80 };

typedef struct {
    const char *name;
    const char *flags[24]; /* NULL-terminated */
} Run;

static volatile int no_stop;

/* Goes through a run (or what is left of it) in this process. */
static bool run_train(const Run *run, bool resume, const volatile int *stop, bool *finished, Err *err) {
    char folder[256];
    char *flags[FLAGS_MAX];
    int n = 0;
    snprintf(folder, sizeof folder, "%s/%s", root, run->name);
    for (int i = 0; i < N_COMMON; i++) flags[n++] = (char *)(uintptr_t)common[i];
    flags[n++] = (char *)(uintptr_t) "--output_dir", flags[n++] = folder;
    if (resume)
        flags[n++] = (char *)(uintptr_t) "--resume_from_checkpoint", flags[n++] = (char *)(uintptr_t) "last";
    for (int i = 0; run->flags[i]; i++) flags[n++] = (char *)(uintptr_t)run->flags[i];
    Recipe recipe = {0};
    FILE *quiet = fopen("/dev/null", "w");
    bool good = recipe_load(&recipe, NULL, n, flags, err);
    Trainer *trainer = good ? train_open(&recipe, quiet, stop, err) : NULL;
    good = trainer && train_run(trainer, finished, err);
    if (trainer) train_end(trainer, good && *finished ? "finished" : "interrupted");
    train_close(trainer);
    recipe_free(&recipe);
    fclose(quiet);
    return good;
}

static void run_whole(const Run *run) {
    Err err = {0};
    bool finished = false;
    bool good = run_train(run, false, &no_stop, &finished, &err);
    assert_string_equal(err.msg, "");
    assert_true(good && finished);
}

/* ---- what a run leaves ---- */

static char *read_file(const char *path, size_t *n) {
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("%s is missing", path);
    fseek(file, 0, SEEK_END);
    *n = (size_t)ftell(file);
    rewind(file);
    char *text = malloc(*n + 1);
    assert_int_equal(fread(text, 1, *n, file), *n);
    fclose(file);
    return text;
}

static void same_file(const char *a, const char *b, const char *name) {
    char pa[512], pb[512];
    size_t na, nb;
    snprintf(pa, sizeof pa, "%s/%s/%s", root, a, name);
    snprintf(pb, sizeof pb, "%s/%s/%s", root, b, name);
    char *ta = read_file(pa, &na), *tb = read_file(pb, &nb);
    if (na != nb || memcmp(ta, tb, na) != 0) fail_msg("%s and %s differ", pa, pb);
    free(ta);
    free(tb);
}

static uint64_t digest_of(const char *name) {
    char path[512];
    uint64_t digest = 0;
    Err err = {0};
    snprintf(path, sizeof path, "%s/%s/run.db", root, name);
    Store *store = store_open(path, 0, &err);
    assert_string_equal(err.msg, "");
    assert_true(store_digest(store, &digest, &err));
    store_close(store);
    return digest;
}

/* The lines of metrics.jsonl without their seconds. */
static char *metrics_of(const char *name) {
    char path[512];
    size_t n;
    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", root, name);
    char *text = read_file(path, &n), *out = text;
    text[n] = 0;
    for (char *p = text; *p;) {
        if (strncmp(p, ", \"seconds\":", 12) == 0) p = strchr(p, '\n');
        *out++ = *p++;
    }
    *out = 0;
    return text;
}

static bool has_file(const char *name, const char *file) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s/%s", root, name, file);
    return access(path, F_OK) == 0;
}

static void same_run(const char *a, const char *b) {
    static const char *const files[] = {"optimizer.safetensors",     "trainer_state.json", "tokenizer.json",
                                        "whet_template.txt",         "model.safetensors",  "config.json",
                                        "adapter_model.safetensors", "adapter_config.json"};
    int count = 0;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char name[64];
        snprintf(name, sizeof name, "checkpoint-6/%s", files[i]);
        if (!has_file(a, name) && !has_file(b, name)) continue;
        same_file(a, b, name);
        count++;
    }
    assert_int_equal(count, 6); /* a model or adapters */
    assert_int_equal(digest_of(a), digest_of(b));
    char *x = metrics_of(a), *y = metrics_of(b);
    assert_string_equal(x, y);
    free(x);
    free(y);
}

static void folder_clear(const char *path) {
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

static void drop_checkpoints(const char *name, int from) {
    char path[512];
    for (int step = from; step <= 6; step++) {
        snprintf(path, sizeof path, "%s/%s/checkpoint-%d", root, name, step);
        folder_clear(path);
    }
}

/* ---- tests ---- */

static void test_same_whatever_the_machine(void **state) {
    (void)state;
    run_whole(&(Run){"plain", {NULL}});
    static const Run runs[] = {
        {"one-thread", {"--threads", "1", "--slots", "7", NULL}},
        {"cut", {"--threads", "2", "--slots", "1", "--micro_batch_tokens", "64", NULL}},
        {"three", {"--threads", "3", "--slots", "100", "--micro_batch_tokens", "700", NULL}}};
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        run_whole(&runs[i]);
        same_run("plain", runs[i].name);
    }
}

/* Stopped after each step in turn (as by Ctrl-C), the run goes on to the same end. */
static void test_stop_and_resume(void **state) {
    (void)state;
    Run run = {"stopped", {NULL}};
    volatile int stop = 1;
    bool finished = false;
    Err err = {0};
    assert_true(run_train(&run, false, &stop, &finished, &err)); /* before the first step: nothing to save */
    assert_false(finished);
    assert_true(run_train(&run, true, &stop, &finished, &err)); /* goes on from the beginning */
    assert_false(finished);
    assert_false(run_train(&run, false, &stop, &finished, &err));
    assert_non_null(strstr(err.msg, "holds a run already"));
    Run anew = {"stopped", {"--overwrite_output_dir", NULL}};
    assert_true(run_train(&anew, false, &stop, &finished, &err));
    run_whole(&anew);
    same_run("plain", "stopped");
}

static int metrics_lines(const char *name) {
    char path[512], line[8192];
    int n = 0;
    snprintf(path, sizeof path, "%s/%s/metrics.jsonl", root, name);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file)) n++;
    if (file) fclose(file);
    return n;
}

/* Goes on with the run in a process of its own, and kills that some moments after it has written `steps` steps. */
static int run_and_kill(const Run *run, bool resume, int steps, useconds_t moments) {
    pid_t child = fork();
    if (child == 0) {
        bool finished = false;
        Err err = {0};
        bool good = run_train(run, resume, &no_stop, &finished, &err);
        if (!good) fprintf(stderr, "%s\n", err.msg);
        _exit(good && finished ? 0 : 3);
    }
    int status = 0;
    while (metrics_lines(run->name) < steps)
        if (waitpid(child, &status, WNOHANG) == child)
            return status;
        else
            usleep(1000);
    usleep(moments);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return status;
}

/* Killed at many moments (while it opens, samples, learns, stores, saves), the run ends with the same store and
 * checkpoint. */
static void test_kill_and_resume(void **state) {
    (void)state;
    Run run = {"killed", {NULL}};
    Rng rng = {99, 0};
    char path[512];
    int kills = 0, status = 0;
    for (int tries = 0; tries < 16; tries++) {
        snprintf(path, sizeof path, "%s/killed/checkpoint-2", root);
        bool resume = access(path, F_OK) == 0;
        if (!resume) {
            snprintf(path, sizeof path, "%s/killed", root);
            folder_clear(path);
        }
        int steps = tries == 15 ? INT_MAX : tries % 8 < 6 ? tries % 8 : 0; /* the last time it runs to its end */
        status = run_and_kill(&run, resume, steps, (useconds_t)rng_below(&rng, 60000));
        kills += WIFSIGNALED(status) != 0;
        if (WIFEXITED(status)) break;
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    print_message("killed %d times\n", kills);
    assert_true(kills > 0); /* the first kill comes long before the first step ends */
    same_run("plain", "killed");
}

/* Several updates from one batch of samples, stopped in the middle of a round. */
static void test_rounds(void **state) {
    (void)state;
    Run whole = {"rounds", {"--num_iterations", "2", "--generation_batch_size", "64", "--beta", "0", NULL}},
        part = whole;
    run_whole(&whole);
    part.name = "rounds-resumed";
    part.flags[6] = "--save_steps", part.flags[7] = "3", part.flags[8] = NULL;
    pid_t child = fork();
    if (child == 0) {
        bool finished;
        Err err = {0};
        Run half = part;
        run_train(&half, false, &no_stop, &finished, &err);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    drop_checkpoints("rounds-resumed", 4);
    bool finished = false;
    Err err = {0};
    assert_true(
        run_train(&part, true, &no_stop, &finished, &err)); /* from checkpoint 3, in the middle of a round */
    assert_true(finished);
    same_run("rounds", "rounds-resumed");
}

/* The answers of the evaluation before the first step; a new text. */
static char *eval_texts(const char *name) {
    char path[512];
    sqlite3 *db;
    sqlite3_stmt *row;
    snprintf(path, sizeof path, "%s/%s/run.db", root, name);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    const char *sql =
        "SELECT group_concat(text) FROM (SELECT text FROM eval_answers WHERE step = 0 ORDER BY position)";
    assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &row, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(row), SQLITE_ROW);
    char *text = mem_text((const char *)sqlite3_column_text(row, 0));
    sqlite3_finalize(row);
    sqlite3_close(db);
    return text;
}

/* One number of the store. */
static double ask(const char *name, const char *sql) {
    char path[512];
    sqlite3 *db;
    sqlite3_stmt *row;
    snprintf(path, sizeof path, "%s/%s/run.db", root, name);
    assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READONLY, NULL), SQLITE_OK);
    if (sqlite3_prepare_v2(db, sql, -1, &row, NULL) != SQLITE_OK) fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    assert_int_equal(sqlite3_step(row), SQLITE_ROW);
    double number = sqlite3_column_double(row, 0);
    sqlite3_finalize(row);
    sqlite3_close(db);
    return number;
}

#define DIFFERENCE "SELECT max(value) FROM step_metrics WHERE name = 'sampling/sampling_logp_difference/max'"
#define DIFFERENCES "SELECT count(value) FROM step_metrics WHERE name = 'sampling/sampling_logp_difference/max'"

/* Sampler and learner agree bit for bit on every path of this machine, in both compute types, and where something
 * is cut off: the kept ids are stored and replayed, so the first update of a batch has a ratio of exactly 1. Then
 * the run is the same whatever the slots, threads and micro-batches, and when its steps are learnt again from the
 * store. */
static void test_no_difference(void **state) {
    (void)state;
    const char *paths[8];
    int n = dev_paths(paths), moved = 0;
    for (int i = 0; i < n; i++) {
#ifdef __SANITIZE_ADDRESS__ /* in plain C it takes minutes there */
        if (i < n - 1 && strstr(paths[i], "plain")) continue;
#endif
        for (int cut = 0; cut < 2; cut++) {
            char name[64];
            snprintf(name, sizeof name, "exact-%s-%d", paths[i], cut);
            Run run = {name,
                       {"--cpu_path", paths[i], "--eval_steps", "0", "--num_iterations", "2", "--dtype",
                        i % 2 ? "float32" : "bfloat16", cut ? "--top_k" : NULL, "30", "--top_p", "0.9", "--min_p",
                        "0.01", NULL}};
            run_whole(&run);
            assert_true(ask(name, DIFFERENCES) == 3);
            assert_true(ask(name, DIFFERENCE) == 0);
            assert_true(ask(name, "SELECT count(*) FROM samples WHERE kept IS NULL") == (cut ? 0 : 96));
            /* The second update of a batch has moved: its ratios differ from 1, and by little. */
            double by = ask(name, "SELECT max(abs(a.value - b.value)) FROM step_metrics a JOIN step_metrics b "
                                  "ON b.step = a.step + 1 AND b.name = a.name "
                                  "WHERE a.name = 'policy_loss' AND a.step % 2 = 1");
            assert_true(by < 0.1);
            moved += by > 0;
        }
    }
    assert_true(moved > 0);
    Run cut = {"cut-one", {"--top_p", "0.8", "--top_k", "40", "--threads", "1", "--slots", "5", NULL}},
        other = cut;
    run_whole(&cut);
    other.name = "cut-two", other.flags[5] = "2", other.flags[7] = "64";
    other.flags[8] = "--micro_batch_tokens", other.flags[9] = "64", other.flags[10] = NULL;
    run_whole(&other);
    same_run("cut-one", "cut-two");
    drop_checkpoints("cut-two", 4);
    bool finished = false;
    Err err = {0};
    assert_true(run_train(&other, true, &no_stop, &finished, &err) && finished);
    same_run("cut-one", "cut-two");
}

/* With weights of int8 the sampler's log-probabilities are others: measured, corrected, and with the learner's in
 * the store. The run is the same whatever the machine, and gone on with in the middle of a round or from before
 * it. */
static void test_int8(void **state) {
    (void)state;
    bool finished = false;
    Err err = {0};
    Run one = {"int8-one",
               {"--sampling_weights", "int8", "--num_iterations", "2", "--generation_batch_size", "64",
                "--save_steps", "3", "--threads", "1", "--slots", "5", NULL}},
        two = one;
    run_whole(&one);
    two.name = "int8-two", two.flags[9] = "2", two.flags[11] = "64";
    two.flags[12] = "--micro_batch_tokens", two.flags[13] = "64", two.flags[14] = NULL;
    run_whole(&two);
    same_run("int8-one", "int8-two");
    assert_true(ask("int8-one", DIFFERENCES) == 2);
    assert_true(ask("int8-one", DIFFERENCE) > 1e-5 && ask("int8-one", DIFFERENCE) < 0.5);
    assert_true(ask("int8-one", "SELECT count(*) FROM step_metrics WHERE value <> 1 AND name LIKE "
                                "'sampling/importance_sampling_ratio/%'") == 6);
    assert_true(ask("int8-one", "SELECT count(*) FROM samples JOIN learner_logprobs ON sample_id = id "
                                "WHERE learner_logprobs.logprobs <> samples.logprobs") == 128);
    /* The first update's ratios are of the learner to itself: nothing is clipped. */
    assert_true(ask("int8-one", "SELECT sum(value) FROM step_metrics WHERE step IN (1, 5) AND name LIKE "
                                "'clip_ratio/%'") == 0);
    for (int from = 4; from > 0; from -= 3) { /* in the middle of a round; before all of it */
        drop_checkpoints("int8-two", from);
        if (!run_train(&two, true, &no_stop, &finished, &err)) fail_msg("%s", err.msg);
        assert_true(finished);
        same_run("int8-one", "int8-two");
    }
    /* An answer that is measured comes from the weights that are saved. */
    assert_true(ask("plain", "SELECT count(*) FROM learner_logprobs") == 0);
    run_whole(&(Run){"int8-eval", {"--sampling_weights", "int8", "--max_steps", "1", NULL}});
    char *exact = eval_texts("plain"), *measured = eval_texts("int8-eval");
    assert_string_equal(measured, exact);
    free(exact), free(measured);
}

/* Not corrected, with adapters, in float32, and where something is cut off. */
static void test_int8_elsewhere(void **state) {
    (void)state;
    static const Run runs[] = {
        {"int8-raw", {"--no_vllm_importance_sampling_correction", NULL}},
        {"int8-vespo", {"--loss_type", "vespo", NULL}},
        {"int8-adapters", {"--use_peft", "--lora_target_modules", "all-linear", NULL}},
        {"int8-cut",
         {"--dtype", "float32", "--top_k", "30", "--vllm_importance_sampling_mode", "token_truncate", NULL}}};
    for (int i = 0; i < 4; i++) {
        Run run = runs[i];
        int n = 0;
        while (run.flags[n]) n++;
        run.flags[n++] = "--sampling_weights", run.flags[n++] = "int8";
        run.flags[n++] = "--max_steps", run.flags[n++] = "2", run.flags[n] = NULL;
        run_whole(&run);
        assert_true(ask(run.name, DIFFERENCES) == 2 && ask(run.name, DIFFERENCE) > 1e-5);
        assert_true(ask(run.name, "SELECT count(*) FROM learner_logprobs") == (i < 2 ? 0 : 64));
    }
    Run store = {"int8-store", {"--sampling_weights", "int8", "--from_store", "/tmp", NULL}};
    bool finished;
    Err err = {0};
    assert_false(run_train(&store, false, &no_stop, &finished, &err));
    assert_non_null(strstr(err.msg, "sampling_weights int8: with from_store"));
}

/* A run that goes on elsewhere learns again from answers that another path drew: their log-probabilities are not
 * this path's, so the loss weighs them (here: with 1, but for the rounding), and the stored weights do not bind.
 * Stopped there again, it goes on to the same end, and back on the first path, too. */
static void test_other_path(void **state) {
    (void)state;
    const char *names[8], *other = names[dev_paths(names) - 1];
    if (dev_same_bits("plain", other, K_BF16)) other = "amx_plain"; /* elsewhere: many times as slow */
    Run first = {"moved", {"--cpu_path", "plain", NULL}}, second = {"moved", {"--cpu_path", other, NULL}};
    run_whole(&first);
    drop_checkpoints("moved", 3);
    bool finished = false;
    Err err = {0};
    if (!run_train(&second, true, &no_stop, &finished, &err)) fail_msg("%s", err.msg);
    char *metrics = metrics_of("moved"), *line = strstr(metrics, "{\"step\": 3"), *ratio;
    ratio = line ? strstr(line, "\"sampling/importance_sampling_ratio/max\": ") : NULL;
    assert_non_null(ratio);
    assert_true(fabs(atof(strchr(ratio, ':') + 1) - 1) < 0.2);
    assert_true(strstr(metrics, "importance_sampling") > line); /* not in the steps before */
    free(metrics);
    size_t before_n, after_n;
    char path[512];
    snprintf(path, sizeof path, "%s/moved/checkpoint-6/model.safetensors", root);
    char *before = read_file(path, &before_n);
    drop_checkpoints("moved", 5);
    if (!run_train(&second, true, &no_stop, &finished, &err)) fail_msg("%s", err.msg);
    char *after = read_file(path, &after_n);
    assert_true(before_n == after_n && memcmp(before, after, after_n) == 0);
    free(before), free(after);
    drop_checkpoints("moved", 5);
    if (!run_train(&first, true, &no_stop, &finished, &err)) fail_msg("%s", err.msg);
}

/* With adapters, the same: whatever the machine, and stopped and gone on with; with a KL term, whose reference is
 * the policy without them. The first update is from new adapters, which change nothing. */
static void test_adapters(void **state) {
    (void)state;
#define ADAPTERS "--use_peft", "--lora_r", "3", "--lora_target_modules", "all-linear"
    run_whole(&(Run){"adapters", {ADAPTERS, NULL}});
    assert_true(has_file("adapters", "checkpoint-6/adapter_model.safetensors"));
    assert_false(has_file("adapters", "checkpoint-6/model.safetensors"));
    assert_true(ask("adapters", "SELECT value FROM step_metrics WHERE name = 'kl' AND step = 1") == 0);
    assert_true(ask("adapters", "SELECT value FROM step_metrics WHERE name = 'kl' AND step = 6") > 0);
    assert_true(ask("adapters", DIFFERENCE) == 0);
    static const Run runs[] = {
        {"adapters-one", {ADAPTERS, "--threads", "1", "--slots", "3", "--micro_batch_tokens", "64", NULL}},
        {"adapters-three", {ADAPTERS, "--threads", "3", "--slots", "100", "--micro_batch_tokens", "700", NULL}}};
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        run_whole(&runs[i]);
        same_run("adapters", runs[i].name);
    }
    Run stopped = {"adapters-stopped", {ADAPTERS, "--max_steps", "6", NULL}};
    bool finished = true;
    Err err = {0};
    run_whole(&(Run){"adapters-stopped", {ADAPTERS, NULL}});
    for (int step = 4; step <= 6; step++) {
        char path[512];
        snprintf(path, sizeof path, "%s/adapters-stopped/checkpoint-%d", root, step);
        folder_clear(path);
    }
    assert_true(run_train(&stopped, true, &no_stop, &finished, &err)); /* learns steps 3 to 6 again */
    assert_true(finished);
    same_run("adapters", "adapters-stopped");
    /* Not without them, nor with others. */
    assert_false(run_train(&(Run){"adapters-stopped", {NULL}}, true, &no_stop, &finished, &err));
    assert_non_null(strstr(err.msg, "holds adapters and the recipe says use_peft: false"));
    assert_false(run_train(&(Run){"plain", {ADAPTERS, NULL}}, true, &no_stop, &finished, &err));
    assert_non_null(strstr(err.msg, "holds no adapters and the recipe says use_peft: true"));
    assert_false(run_train(&(Run){"adapters-stopped", {ADAPTERS, "--lora_alpha", "7", NULL}}, true, &no_stop,
                           &finished, &err));
    assert_non_null(strstr(err.msg, "the run was begun with another lora_alpha"));
    assert_false(run_train(&(Run){"none", {"--use_peft", "--lora_target_modules", "lm_head", NULL}}, false,
                           &no_stop, &finished, &err));
    assert_non_null(strstr(err.msg, "lora_target_modules: lm_head is no linear of this model's layers"));
}

static void test_refusals(void **state) {
    (void)state;
    bool finished;
    Err err = {0};
    Run other = {"plain", {"--learning_rate", "2e-3", NULL}};
    assert_false(run_train(&other, true, &no_stop, &finished, &err));
    assert_non_null(strstr(err.msg, "learning_rate"));
    Run small = {"small", {"--max_memory", "100K", NULL}};
    assert_false(run_train(&small, false, &no_stop, &finished, &err));
    assert_non_null(strstr(err.msg, "memory"));
    Run frozen = {"frozen", {"--frozen", "*", NULL}};
    assert_false(run_train(&frozen, false, &no_stop, &finished, &err));
    assert_non_null(strstr(err.msg, "frozen"));
    Run length = {"length", {"--max_completion_length", "100000", NULL}};
    assert_false(run_train(&length, false, &no_stop, &finished, &err));
    assert_non_null(strstr(err.msg, "positions"));
}

static int make_root(void **state) {
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}
static int clear_root(void **state) {
    (void)state;
    folder_clear(root);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_whatever_the_machine),
        cmocka_unit_test(test_stop_and_resume),
        cmocka_unit_test(test_kill_and_resume),
        cmocka_unit_test(test_rounds),
        cmocka_unit_test(test_adapters),
        cmocka_unit_test(test_no_difference),
        cmocka_unit_test(test_other_path),
        cmocka_unit_test(test_int8),
        cmocka_unit_test(test_int8_elsewhere),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, make_root, clear_root);
}
