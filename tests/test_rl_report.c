/* test_rl_report.c: what a run prints (lines, curve, summary), metrics.jsonl across crashes and resumptions, and
 * the small helpers, against numbers worked out elsewhere. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "rl/report.h"

/* ---- helpers ------------------------------------------------------------------------------------------------ */

/* The bounds are the roots x of (right/n - x)^2 = z^2 x (1 - x) / n, as numpy.roots finds them. */
static void wilson_has_check_values(void **state) {
    (void)state;
    static const double cases[][4] = {{0, 10, 0, 0.27753279986288},
                                      {10, 10, 0.72246720013711, 1},
                                      {24, 120, 0.13824476478840, 0.28036673506282},
                                      {84, 120, 0.61284857567526, 0.77474375775725},
                                      {1, 2, 0.09453120573423, 0.90546879426577}};
    for (int i = 0; i < 5; i++) {
        double low, high;
        wilson_interval(cases[i][0], cases[i][1], &low, &high);
        assert_true(fabs(low - cases[i][2]) < 1e-10 && fabs(high - cases[i][3]) < 1e-10);
    }
    double low, high;
    wilson_interval(0, 0, &low, &high);
    assert_true(low == 0 && high == 1);
}

static void spark_is(const double *values, long n, int width, const char *wanted) {
    Buf out = {0};
    sparkline_add(&out, values, n, width);
    assert_string_equal(out.p ? out.p : "", wanted);
    buf_free(&out);
}

static void sparklines_are_scaled_and_binned(void **state) {
    (void)state;
    spark_is((double[]){0, 1, 2, 3, 4, 5, 6, 7}, 8, 16, "▁▂▃▄▅▆▇█");
    spark_is((double[]){0, 0, 7, 7, 3.5, NAN}, 6, 3, "▁█▅");
    spark_is((double[]){2, NAN, 1}, 3, 8, "█ ▁");
    spark_is((double[]){.5, .5}, 2, 8, "▁▁");
    spark_is((double[]){NAN}, 1, 8, " ");
    spark_is(NULL, 0, 8, "");
}

static void durations_are_short(void **state) {
    (void)state;
    static const struct {
        double seconds;
        const char *text;
    } cases[] = {{0, "0s"},         {59.4, "59s"}, {59.6, "1:00"}, {187, "3:07"},
                 {7387, "2:03:07"}, {NAN, "?"},    {-1, "?"}};
    for (int i = 0; i < 7; i++) {
        Buf out = {0};
        duration_add(&out, cases[i].seconds);
        assert_string_equal(out.p, cases[i].text);
        buf_free(&out);
    }
}

static void text_is(const char *text, size_t n, int most, const char *wanted) {
    Buf out = {0};
    text_line_add(&out, text, n, most);
    assert_string_equal(out.p ? out.p : "", wanted);
    buf_free(&out);
}

static void texts_are_tame(void **state) {
    (void)state;
    text_is("\n 7 + 8\nis\t15", 13, 80, "7 + 8 is 15");
    text_is("\x1b[2Jgone\x07", 9, 80, "[2Jgone"); /* no escape sequence of a model reaches the terminal */
    text_is("caf\xc3\xa9s", 6, 4, "caf\xc3\xa9...");
    text_is("caf\xc3\xa9", 5, 4, "caf\xc3\xa9");
    text_is("a\xff\xc3", 3, 80, "a\xef\xbf\xbd\xef\xbf\xbd");
    text_is("", 0, 80, "");
    text_is("\xe2\x80\xaeltr", 6, 80, "ltr"); /* nor does a change of direction */
}

/* ---- lines -------------------------------------------------------------------------------------------------- */

typedef struct {
    char *text;
    size_t n;
    FILE *file;
    Report *report;
} Screen;

static void screen_open(Screen *screen, long steps, int columns) {
    screen->file = open_memstream(&screen->text, &screen->n);
    screen->report = report_open_as(screen->file, steps, columns);
}

static void screen_close(Screen *screen) {
    report_close(screen->report);
    fclose(screen->file);
    free(screen->text);
}

static void shows(const Screen *screen, const char *wanted) {
    if (!strstr(screen->text, wanted)) fail_msg("\"%s\" is not in:\n%s", wanted, screen->text);
}

static void plain_lines_are_plain(void **state) {
    (void)state;
    Screen screen;
    screen_open(&screen, 40, 0);
    report_note(screen.report, "%s", "hello");
    report_progress(screen.report, "sampling", 3, 64);
    report_step(screen.report, &(ReportStep){1, .25, .125, 18.25, 431.4, 5});
    report_step(screen.report, &(ReportStep){2, NAN, NAN, 17, 400, 7});
    assert_string_equal(screen.text,
                        "hello\n"
                        "step  1/40 reward  0.250 right  12.5 % length  18.2   431 tokens/s 5s left 3:15\n"
                        "step  2/40 reward      - right     - % length  17.0   400 tokens/s 7s left 3:48\n");
    screen_close(&screen);
}

/* Characters before the line's end. */
static size_t utf8_length(const char *text) {
    size_t n = 0;
    for (; *text && *text != '\n'; text++) n += (*text & 0xc0) != 0x80;
    return n;
}

static void terminals_show_curve_and_progress(void **state) {
    (void)state;
    Screen screen;
    screen_open(&screen, 3, 80);
    report_past(screen.report, 0);
    report_progress(screen.report, "sampling", 3, 64);
    report_progress(screen.report, "sampling", 4, 64); /* too soon after the other */
    report_progress(screen.report, "sampling", 64, 64);
    report_step(screen.report, &(ReportStep){2, .5, .5, 18, 431, 5});
    report_step(screen.report, &(ReportStep){3, 1, 1, 18, 431, 5});
    fflush(screen.file);
    assert_string_equal(screen.text,
                        "\r\033[Ksampling 3 of 64\r\033[Ksampling 64 of 64\r\033[K"
                        "2/3 reward  0.500 ▁█       right  50.0 % length  18.0   431 tok/s left 5s\n"
                        "3/3 reward  1.000 ▁▅█      right 100.0 % length  18.0   431 tok/s left 0s\n");
    screen_close(&screen);
    screen_open(&screen, 40, 80); /* a line of a usual run fits */
    for (long n = 1; n < 20; n++) report_past(screen.report, (double)n);
    report_step(screen.report, &(ReportStep){20, 19, .5, 318, 1431, 50});
    assert_true(utf8_length(screen.text) <= 80);
    screen_close(&screen);
}

static StoreAnswer answer(const char *problem, const char *text, ScoreClass class) {
    return (StoreAnswer){.problem.problem = problem, .text = text, .text_n = strlen(text), .class = class};
}

static void the_summary_shows_what_was_learnt(void **state) {
    (void)state;
    StoreAnswer before[] = {answer("one", "1", SCORE_RIGHT), answer("two", "3", SCORE_WRONG),
                            answer("three", "x\ny", SCORE_WRONG), answer("four", "5", SCORE_UNJUDGED)},
                after[] = {answer("one", "1", SCORE_RIGHT), answer("two", "4", SCORE_WRONG),
                           answer("three", "3", SCORE_RIGHT), answer("four", "4", SCORE_RIGHT)};
    StoreEval first =
                  {.n = 3, .accuracy = 1 / 3., .ci_low = .06, .ci_high = .79, .answers = before, .n_answers = 4},
              last = {.n = 4, .accuracy = .75, .ci_low = .30, .ci_high = .954, .answers = after, .n_answers = 4};
    Screen screen;
    screen_open(&screen, 3, 0);
    report_summary(screen.report, &first, &last, "demo-run", "demo-run/checkpoint-40");
    shows(&screen, "  before   33.3 %  (95 % interval 6.0 to 79.0, 3 answers)\n");
    shows(&screen, "  after    75.0 %  (95 % interval 30.0 to 95.4, 4 answers)\n");
    shows(&screen, "  three\n    before: x y  [wrong]\n    after:  3  [right]\n"
                   "  four\n    before: 5  [unjudged]\n    after:  4  [right]\n"
                   "  two\n    before: 3  [wrong]\n    after:  4  [wrong]\n\n");
    shows(&screen, "  model     demo-run/checkpoint-40\n");
    shows(&screen, "demo-run/run.db");
    assert_null(strstr(screen.text, "  one\n"));
    screen_close(&screen);
    screen_open(&screen, 3, 0);
    report_summary(screen.report, NULL, NULL, "out", NULL);
    assert_null(strstr(screen.text, "Accuracy"));
    screen_close(&screen);
}

/* ---- metrics.jsonl ------------------------------------------------------------------------------------------ */

static char metrics_path[64];

static int metrics_gone(void **state) {
    (void)state;
    snprintf(metrics_path, sizeof metrics_path, "/tmp/whet-metrics-%d.jsonl", (int)getpid());
    unlink(metrics_path);
    return 0;
}

static void put(MetricsFile *file, long step) {
    Err err = {0};
    StoreNumber metrics[] = {{"reward", 0.1 * (double)step}, {"kl", NAN}, {"completions/mean_length", 1e-9 / 3}};
    StoreNumber seconds[] = {{"sample", 1.5}, {"learn", 2}};
    if (!metrics_write(file, step, metrics, 3, seconds, 2, &err)) fail_msg("%s", err.msg);
}

static MetricsFile *must_open(long last) {
    Err err = {0};
    MetricsFile *file = metrics_open(metrics_path, last, &err);
    if (!file) fail_msg("%s", err.msg);
    return file;
}

/* The file is exactly the lines of these steps. */
static void has_steps(long first, long last) {
    char line[512];
    FILE *in = fopen(metrics_path, "r");
    assert_non_null(in);
    for (long step = first; step <= last; step++) {
        assert_non_null(fgets(line, sizeof line, in));
        json_t *object = json_loads(line, 0, NULL);
        assert_non_null(object);
        assert_int_equal(json_integer_value(json_object_get(object, "step")), step);
        double reward = json_real_value(json_object_get(object, "reward")), wanted = 0.1 * (double)step;
        assert_memory_equal(&reward, &wanted, sizeof wanted);
        assert_true(json_real_value(json_object_get(object, "completions/mean_length")) == 1e-9 / 3);
        assert_true(json_is_null(json_object_get(object, "kl")));
        assert_true(json_number_value(json_object_get(json_object_get(object, "seconds"), "learn")) == 2);
        json_decref(object);
    }
    assert_null(fgets(line, sizeof line, in));
    fclose(in);
}

static void lines_after_the_checkpoint_are_cut(void **state) {
    (void)state;
    MetricsFile *file = must_open(0);
    for (long step = 1; step <= 7; step++) put(file, step);
    metrics_close(file);
    has_steps(1, 7);
    metrics_close(must_open(7));
    has_steps(1, 7);
    file = must_open(4);
    has_steps(1, 4);
    put(file, 5);
    metrics_close(file);
    has_steps(1, 5);
    FILE *torn = fopen(metrics_path, "a");
    fputs("{\"step\": 6, \"rew", torn);
    fclose(torn);
    file = must_open(9);
    put(file, 6);
    metrics_close(file);
    has_steps(1, 6);
    metrics_close(must_open(0));
    struct stat now;
    assert_true(stat(metrics_path, &now) == 0 && now.st_size == 0);
}

static void a_full_disk_leaves_no_part_of_a_line(void **state) {
    (void)state;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        Err err = {0};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){400, RLIM_INFINITY});
        MetricsFile *file = must_open(0);
        StoreNumber metrics[] = {{"reward", 0.1}};
        long step = 1;
        while (step < 100 && metrics_write(file, step, metrics, 1, NULL, 0, &err)) step++;
        CHECK(step > 2 && step < 100, "wrote %ld lines", step - 1);
        CHECK(strstr(err.msg, metrics_path) && strstr(err.msg, "cannot be written: File too large"), "%s",
              err.msg);
        struct stat now;
        CHECK(stat(metrics_path, &now) == 0 && now.st_size <= 400, "%ld bytes", (long)now.st_size);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
        CHECK(metrics_write(file, step, metrics, 1, NULL, 0, &err), "%s", err.msg);
        metrics_close(file);
        long end = (long)step, lines = 0;
        FILE *in = fopen(metrics_path, "r");
        for (char line[200]; fgets(line, sizeof line, in); lines++) CHECK(strchr(line, '}'), "%s", line);
        CHECK(lines == end, "%ld lines, wanted %ld", lines, end);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    Err err = {0};
    assert_null(metrics_open("/nowhere/metrics.jsonl", 0, &err));
    assert_string_equal(err.msg, "/nowhere/metrics.jsonl: cannot be written: No such file or directory");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wilson_has_check_values),
        cmocka_unit_test(sparklines_are_scaled_and_binned),
        cmocka_unit_test(durations_are_short),
        cmocka_unit_test(texts_are_tame),
        cmocka_unit_test(plain_lines_are_plain),
        cmocka_unit_test(terminals_show_curve_and_progress),
        cmocka_unit_test(the_summary_shows_what_was_learnt),
        cmocka_unit_test_setup_teardown(lines_after_the_checkpoint_are_cut, metrics_gone, metrics_gone),
        cmocka_unit_test_setup_teardown(a_full_disk_leaves_no_part_of_a_line, metrics_gone, metrics_gone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
