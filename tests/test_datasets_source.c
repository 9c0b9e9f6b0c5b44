/* Tests of datasets/rows.c and source.c: columns, answers, broken rows, order; and the shared data when it is
 * there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "datasets/datasets.h"

static char folder[] = "/tmp/whet-source-XXXXXX";
static char path[128];

static int folder_make(void **state) {
    (void)state;
    snprintf(path, sizeof path, "%s/rows.jsonl", mkdtemp(folder));
    return 0;
}

static int folder_remove(void **state) {
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static void rows_write(const char *text) {
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static Source *open_conf(SourceConf conf) {
    Err err = {0};
    if (!conf.name) conf.name = path;
    Source *source = source_open(&conf, &err);
    if (!source) print_error("%s\n", err.msg);
    assert_non_null(source);
    return source;
}

static void refused(SourceConf conf, const char *what) {
    Err err = {0};
    if (!conf.name) conf.name = path;
    assert_null(source_open(&conf, &err));
    if (!strstr(err.msg, what)) print_error("%s\n", err.msg);
    assert_non_null(strstr(err.msg, what));
    assert_null(strchr(err.msg, '\n'));
}

static void row_expect(const Problem *p, const char *id, const char *problem, const char *answer) {
    assert_string_equal(p->id, id);
    assert_string_equal(p->problem, problem);
    if (answer)
        assert_string_equal(p->answer, answer);
    else
        assert_null(p->answer);
}

static void test_columns(void **state) {
    (void)state;
    rows_write("{\"question\": \"2+2?\", \"prompt\": \"no\", \"answer\": \"Two and two.\\n#### 4 \\n\", \"kind\": "
               "\"add\"}\n"
               "\n"
               "{\"id\": \"b\", \"question\": \"pi\\u00e9?\", \"answer\": 3.1}\n"
               "{\"id\": 7, \"question\": \"n?\", \"answer\": -12345678901}\n"
               "{\"id\": \"d\", \"question\": \"none?\", \"answer\": null, \"solution\": \"9\"}\n"
               "{\"id\": \"e\", \"question\": \"bare?\"}");
    Source *source = open_conf((SourceConf){0});
    assert_int_equal(source_size(source), 5);
    row_expect(source_at(source, 0), "line-1", "2+2?", "4");
    assert_string_equal(source_at(source, 0)->kind, "add");
    row_expect(source_at(source, 1), "b", "pi\xc3\xa9?", "3.1");
    assert_string_equal(source_at(source, 1)->kind, "");
    assert_string_equal(source_at(source, 1)->fields,
                        "{\"id\": \"b\", \"question\": \"pi\\u00e9?\", \"answer\": 3.1}");
    row_expect(source_at(source, 2), "7", "n?", "-12345678901");
    row_expect(source_at(source, 3), "d", "none?", NULL);
    row_expect(source_at(source, 4), "e", "bare?", NULL);
    row_expect(source_at(source, 5), "line-1", "2+2?", "4"); /* the next epoch */
    assert_int_equal(source_skipped(source), 0);
    assert_null(source_skipped_note(source));
    source_close(source);
    source = open_conf((SourceConf){.problem_key = "prompt", .answer_key = "kind", .max_problems = 1});
    assert_int_equal(source_size(source), 1);
    row_expect(source_at(source, 0), "line-1", "no", "add");
    source_close(source);
}

static void test_repeated_ids(void **state) {
    (void)state;
    rows_write("{\"id\": \"a\", \"problem\": \"1\"}\n{\"id\": \"a\", \"problem\": \"2\"}\n"
               "{\"id\": \"a@2\", \"problem\": \"3\"}\n{\"id\": \"a\", \"problem\": \"4\"}\n");
    Source *source = open_conf((SourceConf){0});
    assert_string_equal(source_at(source, 0)->id, "a");
    for (uint64_t i = 0; i < 4; i++)
        for (uint64_t j = 0; j < i; j++)
            assert_string_not_equal(source_at(source, i)->id, source_at(source, j)->id);
    source_close(source);
}

static void test_broken_rows(void **state) {
    (void)state;
    rows_write("{\"problem\": \"good\", \"answer\": \"1\"}\n"
               "{\"problem\": \"cut\", \"ans\n"
               "[1, 2]\n"
               "{\"question\": \"another column\"}\n"
               "{\"problem\": 5}\n"
               "{\"problem\": \"\"}\n"
               "{\"problem\": \"list\", \"answer\": [\"1\"]}\n"
               "{\"problem\": \"nul \\u0000\"}\n"
               "{\"problem\": \"bytes \xff\xfe\"}\n"
               "{\"problem\": \"also good\", \"answer\": \"2\"}\n");
    Source *source = open_conf((SourceConf){0});
    assert_int_equal(source_size(source), 2);
    row_expect(source_at(source, 1), "line-10", "also good", "2");
    assert_int_equal(source_skipped(source), 8);
    const char *note = source_skipped_note(source);
    assert_non_null(strstr(note, "skipped 8 broken rows, the first in line 2: not JSON"));
    assert_null(strchr(note, '\n'));
    source_close(source);
    refused((SourceConf){.max_skipped = 7}, "more than 7 broken rows, the first in line 2");
    source = open_conf((SourceConf){.max_skipped = 8});
    source_close(source);
    refused((SourceConf){.problem_key = "text"}, "holds no problems; line 1: no column text");
    refused((SourceConf){.answer_key = "gold"}, "holds no problems; line 1: no column gold");
}

static void test_bad_files(void **state) {
    (void)state;
    refused((SourceConf){.name = ""}, "no data set is named");
    refused((SourceConf){.name = "/nowhere.jsonl"}, "cannot open /nowhere.jsonl: No such file");
    refused((SourceConf){.name = folder}, "it is a folder");
    rows_write("");
    refused((SourceConf){0}, "is empty");
    rows_write("\n \n");
    refused((SourceConf){0}, "holds no problems");
    gzFile gzip = gzopen(path, "wb");
    for (int i = 0; i < 1000; i++) gzprintf(gzip, "{\"problem\": \"%d\"}\n", i * 7919 % 1000);
    gzclose(gzip);
    assert_int_equal(truncate(path, 1500), 0);
    refused((SourceConf){0}, "is cut off after line");
    Buf text = {0};
    for (int i = 0; i < 200; i++) buf_text(&text, "not json\n");
    rows_write(text.p);
    buf_free(&text);
    refused((SourceConf){0}, "more than 100 broken rows, the first in line 1");
}

static void test_shuffle(void **state) {
    (void)state;
    enum { N = 50 };
    Buf text = {0};
    for (int i = 0; i < N; i++) buf_format(&text, "{\"id\": %d, \"problem\": \"p\"}\n", i);
    rows_write(text.p);
    buf_free(&text);
    Source *source = open_conf((SourceConf){.shuffle = true, .seed = 1});
    Source *same = open_conf((SourceConf){.shuffle = true, .seed = 1});
    Source *other = open_conf((SourceConf){.shuffle = true, .seed = 2});
    int differ_epoch = 0, differ_seed = 0, order[3 * N];
    for (int epoch = 0; epoch < 3; epoch++) {
        bool seen[N] = {0};
        for (int i = 0; i < N; i++) {
            int at = epoch * N + i;
            order[at] = atoi(source_at(source, (uint64_t)at)->id);
            assert_false(seen[order[at]]);
            seen[order[at]] = true;
            differ_seed += order[at] != atoi(source_at(other, (uint64_t)at)->id);
            if (epoch) differ_epoch += order[at] != order[at - N];
        }
    }
    assert_true(differ_epoch > 80 && differ_seed > 120);
    for (int at = 3 * N; at-- > 0;) /* the place alone decides */
        assert_int_equal(atoi(source_at(same, (uint64_t)at)->id), order[at]);
    source_close(source);
    source_close(same);
    source_close(other);
}

static void shared_check(const char *data, const char *name, long rows, const char *problem, const char *answer) {
    char file[512];
    snprintf(file, sizeof file, "%s/%s", data, name);
    Source *source = open_conf((SourceConf){.name = file});
    assert_int_equal(source_size(source), rows);
    assert_int_equal(source_skipped(source), 0);
    const Problem *p = source_at(source, 0);
    assert_memory_equal(p->problem, problem, strlen(problem));
    if (answer)
        assert_string_equal(p->answer, answer);
    else
        assert_null(p->answer);
    for (long i = 0; answer && i < rows; i++) assert_non_null(source_at(source, (uint64_t)i)->answer);
    source_close(source);
}

static void test_shared_data(void **state) {
    (void)state;
    const char *data = getenv("WHET_DATA");
    if (!data) data = "../shared/data";
    if (access(data, R_OK) != 0) {
        print_message("SKIPPED: no data at %s (set WHET_DATA)\n", data);
        skip();
    }
    shared_check(data, "gsm8k_train.jsonl.gz", 7473, "Natalia sold clips", "72");
    shared_check(data, "gsm8k_test_dev.jsonl.gz", 675, "Janet\xe2\x80\x99s ducks", "18");
    shared_check(data, "math500_dev.jsonl.gz", 249, "Convert the point", "\\left( 3, \\frac{\\pi}{2} \\right)");
    shared_check(data, "amc23.jsonl.gz", 40, "Cities $A$", "27");
    shared_check(data, "humaneval_dev.jsonl.gz", 87, "from typing import List", NULL);
    char file[512];
    snprintf(file, sizeof file, "%s/gsm8k_train.jsonl.gz", data);
    Source *raw = open_conf((SourceConf){.name = file, .answer_key = "answer_raw"}); /* with its #### */
    Source *source = open_conf((SourceConf){.name = file});
    for (uint64_t i = 0; i < 7473; i++) {
        const char *cut = source_at(raw, i)->answer, *given = source_at(source, i)->answer;
        size_t n = strlen(cut), k = 0; /* the file's own `answer` has no thousands commas */
        for (size_t j = 0; j < n; j++)
            if (cut[j] != ',') assert_int_equal(cut[j], given[k++]);
        assert_int_equal(given[k], 0);
    }
    source_close(raw);
    source_close(source);
}

/* Chat layout: one user's message, with or without the answer after it. */
static void test_chats(void **state) {
    (void)state;
    rows_write(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"2+2?\"}, {\"role\": \"assistant\", \"content\": "
        "\"4\"}], \"answer\": 4}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"3+3?\"}], \"answer\": 6}\n"
        "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"}, {\"role\": \"user\", \"content\": "
        "\"a\"}, {\"content\": \"b\", \"role\": \"assistant\"}, {\"role\": \"user\", \"content\": [{\"type\": "
        "\"text\", "
        "\"text\": \"\\\"c\\\"\"}], \"name\": \"x\"}, {\"role\": \"assistant\", \"content\": \"d\"}]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": 7}], \"answer\": 6}\n"
        "{\"messages\": [{\"role\": \"assistant\", \"content\": \"a\"}]}\n");
    Source *source = open_conf((SourceConf){0});
    assert_int_equal(source_size(source), 3);
    assert_int_equal(source_skipped(source), 2);
    row_expect(source_at(source, 2), "line-3",
               "[{\"role\":\"system\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":\"a\"},"
               "{\"role\":\"assistant\",\"content\":\"b\"},{\"role\":\"user\",\"content\":\"\\\"c\\\"\"}]",
               NULL);
    row_expect(source_at(source, 0), "line-1", "2+2?", "4");
    row_expect(source_at(source, 1), "line-2", "3+3?", "6");
    source_close(source);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chats),       cmocka_unit_test(test_columns),   cmocka_unit_test(test_repeated_ids),
        cmocka_unit_test(test_broken_rows), cmocka_unit_test(test_bad_files), cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_shared_data),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
