/* Tests of datasets/generate.c: the demo's two kinds, what is held out, repetition, and specs that are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "datasets/datasets.h"

#define DEMO "generate:sums:min=2:max=20:held=7,3,4+products:min=2:max=12:held=7,3,4"

static Source *open_good(const char *name, uint64_t seed, bool held_out, long max_problems) {
    Err err = {0};
    SourceConf conf = {.name = name, .seed = seed, .held_out = held_out, .max_problems = max_problems};
    Source *source = source_open(&conf, &err);
    if (!source) print_error("%s\n", err.msg);
    assert_non_null(source);
    return source;
}

static void open_refused(const char *name, bool held_out, const char *what) {
    Err err = {0};
    SourceConf conf = {.name = name, .held_out = held_out};
    assert_null(source_open(&conf, &err));
    if (!strstr(err.msg, what)) print_error("%s\n", err.msg);
    assert_non_null(strstr(err.msg, what));
    assert_null(strchr(err.msg, '\n'));
}

/* Takes a problem of the demo apart; returns whether it is held out. */
static bool demo_held(const Problem *p, bool *product) {
    int a, b, end = 0;
    *product = strcmp(p->kind, "products") == 0;
    if (*product)
        assert_int_equal(sscanf(p->problem, "What is %d times %d?%n", &a, &b, &end), 2);
    else
        assert_int_equal(sscanf(p->problem, "What is %d + %d?%n", &a, &b, &end), 2);
    assert_int_equal(end, strlen(p->problem));
    assert_in_range(a, 2, *product ? 12 : 20);
    assert_in_range(b, 2, *product ? 12 : 20);
    assert_int_equal(atoi(p->answer), *product ? a * b : a + b);
    assert_null(p->fields);
    int low = a < b ? a : b, high = a < b ? b : a;
    return (7 * low + 3 * high) % 4 == 0;
}

static void test_demo_held_out(void **state) {
    (void)state;
    Source *source = open_good(DEMO, 1, true, 0), *other = open_good(DEMO, 2, true, 0);
    assert_int_equal(source_size(source), 120);
    int sums = 0, products = 0;
    for (uint64_t i = 0; i < 120; i++) {
        const Problem *p = source_at(source, i);
        bool product;
        assert_true(demo_held(p, &product));
        product ? products++ : sums++;
        for (uint64_t j = 0; j < i; j++) {
            assert_string_not_equal(p->problem, source_at(source, j)->problem);
            assert_string_not_equal(p->id, source_at(source, j)->id);
        }
        assert_string_equal(p->problem, source_at(other, i)->problem); /* one for every seed */
    }
    assert_int_equal(sums, 90);
    assert_int_equal(products, 30);
    assert_ptr_equal(source_at(source, 5), source_at(source, 125));
    source_close(source);
    source_close(other);
    source = open_good(DEMO, 1, true, 40); /* a short evaluation sees both kinds */
    assert_int_equal(source_size(source), 40);
    int seen[2] = {0};
    for (uint64_t i = 0; i < 40; i++) seen[strcmp(source_at(source, i)->kind, "products") == 0]++;
    assert_true(seen[0] > 0 && seen[1] > 0);
    source_close(source);
}

static void test_demo_training(void **state) {
    (void)state;
    Source *source = open_good(DEMO, 1, false, 0), *again = open_good(DEMO, 1, false, 0);
    Source *other = open_good(DEMO, 2, false, 0);
    assert_int_equal(source_size(source), 19 * 19 - 90 + 11 * 11 - 30);
    int kinds[2] = {0}, same = 0;
    for (uint64_t i = 0; i < 4000; i++) {
        bool product;
        assert_false(demo_held(source_at(source, i), &product));
        kinds[product]++;
        same += strcmp(source_at(source, i)->problem, source_at(other, i)->problem) == 0;
    }
    assert_int_equal(kinds[0], kinds[1]);
    assert_true(same < 100);
    for (uint64_t i = 4000; i-- > 3900;) /* the place alone decides, not what was asked before */
        assert_string_equal(source_at(again, i)->id, source_at(source, i)->id);
    source_close(source);
    source_close(again);
    source_close(other);
}

/* Every problem that training may draw is drawn, and about equally often. */
static void test_training_is_uniform(void **state) {
    (void)state;
    Source *source = open_good("generate:sums:min=1:max=6:held=1,1,3", 3, false, 0);
    assert_int_equal(source_size(source), 24);
    int counts[7][7] = {{0}};
    for (uint64_t i = 0; i < 24000; i++) {
        int a, b;
        assert_int_equal(sscanf(source_at(source, i)->problem, "What is %d + %d?", &a, &b), 2);
        counts[a][b]++;
    }
    for (int a = 1; a <= 6; a++)
        for (int b = 1; b <= 6; b++)
            if ((a + b) % 3 == 0)
                assert_int_equal(counts[a][b], 0);
            else
                assert_in_range(counts[a][b], 850, 1150);
    source_close(source);
}

static long evaluate(const char *problem, int *terms) {
    assert_memory_equal(problem, "What is ", 8);
    char *at;
    long total = strtol(problem + 8, &at, 10);
    for (*terms = 1; *at == ' '; ++*terms) {
        long sign = at[1] == '-' ? -1 : 1;
        total += sign * strtol(at + 2, &at, 10);
        assert_true(total >= 0);
    }
    assert_string_equal(at, "?");
    return total;
}

static void sides_check(const char *name, int terms, bool listed) {
    Source *train = open_good(name, 5, false, 0), *held = open_good(name, 6, true, 0);
    long n = source_size(held);
    if (!listed) assert_int_equal(n, 1000);
    for (uint64_t i = 0; i < 2000; i++) {
        const Problem *p = source_at(train, i);
        int count;
        assert_int_equal(evaluate(p->problem, &count), atol(p->answer));
        assert_int_equal(count, terms);
        for (long j = 0; j < n && i < 500; j++)
            assert_string_not_equal(p->problem, source_at(held, (uint64_t)j)->problem);
    }
    for (long j = 0; j < n; j++) {
        int count;
        const Problem *p = source_at(held, (uint64_t)j);
        assert_int_equal(evaluate(p->problem, &count), atol(p->answer));
    }
    source_close(train);
    source_close(held);
}

static void test_other_kinds(void **state) {
    (void)state;
    sides_check("generate:differences:min=0:max=30:held=7,3,4", 2, true);
    sides_check("generate:chains:min=2:max=9:held=7,3,5", 3, true);
    sides_check("generate:chains:terms=6:min=2:max=50:held=7,3,5", 6, false);
    sides_check("generate:sums:min=1000:max=9999:held=7,3,40", 2, false);
    Source *source = open_good("generate:sums", 0, false, 0); /* without held= all are for training */
    assert_int_equal(source_size(source), 361);
    source_close(source);
    source = open_good("generate:products:min=999999999:max=1000000000", 0, false, 0);
    assert_int_equal(strlen(source_at(source, 0)->answer) > 17, 1);
    source_close(source);
    source = open_good("generate:sums:min=2:max=5+sums:min=4:max=8", 0, false, 0); /* overlaps count once */
    assert_int_equal(source_size(source), 16 + 25 - 4);
    source_close(source);
}

static void test_refused(void **state) {
    (void)state;
    open_refused("generate:", false, "no kind is named");
    open_refused("generate:sum", false, "no kind sum; there are sums");
    open_refused("generate:sums:low=3", false, "bad setting low=3");
    open_refused("generate:sums:min", false, "min lacks its value");
    open_refused("generate:sums:min=-3", false, "bad setting min=-3");
    open_refused("generate:sums:min=9999999999999999999999", false, "bad setting");
    open_refused("generate:sums:min=20:max=2", false, "min=20 is above max=2");
    open_refused("generate:sums:terms=3", false, "bad setting terms=3");
    open_refused("generate:chains:terms=2", false, "bad setting terms=2");
    open_refused("generate:chains:terms=8:min=0:max=1000000000", false, "more problems than can be counted");
    open_refused("generate:sums:held=7,3", false, "bad setting held=7,3");
    open_refused("generate:sums:held=7,3,1", false, "bad setting");
    open_refused("generate:sums", true, "holds nothing out");
    open_refused("generate:sums:held=0,0,2", false, "training part has no problems");
    open_refused("generate:sums:min=1:max=90000:held=0,0,2", false, "training part has no problems");
    open_refused("generate:sums:min=3:max=3:held=7,3,4", true, "held-out part has no problems");
    open_refused("generate:sums:held=7,3,4+sums:min=50:max=60:held=7,3,5", false, "different held=");
    open_refused("generate:sums+sums+sums+sums+sums+sums+sums+sums+sums", false, "more than 8 kinds");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_demo_held_out),
        cmocka_unit_test(test_demo_training),
        cmocka_unit_test(test_training_is_uniform),
        cmocka_unit_test(test_other_kinds),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
