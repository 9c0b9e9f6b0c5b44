/* test_cuda_ops.c: every op of the CUDA back, on the stand-in for a GPU, against the CPU's plain path: k_compare.
 * With an argument (elements, rows, products, attention, head, again) that part alone; WHET_ALL: more sizes
 * (long_cuda.sh). (run.sh: long) */
#include "tests/cuda_help.h"

static void say(void *self, const CompareResult *r) {
    (*(int *)self)++;
    if (!r->good || getenv("VERBOSE"))
        print_message("%s: %s, %s: %.3g, at most %.3g\n", r->good ? "good" : "WRONG", r->op, r->shape, r->error,
                      r->bound);
}

static void compare(const char *part) {
    int checks = 0;
    assert_int_equal(k_compare(cuda, cpu, part, getenv("WHET_ALL") != NULL, say, &checks), 0);
    assert_true(checks > 20);
}

static void elements(void **state) { (void)state, compare("elements"); }
static void rows(void **state) { (void)state, compare("rows"); }
static void products(void **state) { (void)state, compare("products"); }
static void attention(void **state) { (void)state, compare("attention"); }
static void head(void **state) { (void)state, compare("head"); }

/* What is recorded is launched, and forgotten in the end. */
static void again(void **state) {
    (void)state;
    int checks = 0;
    long before = standin_graph_launches();
    assert_int_equal(k_compare(cuda, cpu, "again", true, say, &checks), 0);
    assert_int_equal(checks, 4);
    assert_true(standin_graph_launches() - before >= 8);
    assert_int_equal(standin_graphs(), 0);
    setenv("WHET_CUDA_GRAPHS", "0", 1);
    Err err = {0};
    Dev *plain = dev_open(&(DevConf){.device = "cuda"}, &err);
    unsetenv("WHET_CUDA_GRAPHS");
    assert_non_null(plain);
    before = standin_graph_launches();
    bool called = false;
    for (int i = 0; i < 3; i++) {
        Rows rows = {.m = 0};
        called = k_again(plain, &rows, &called, sizeof called);
        k_again_end(plain);
    }
    assert_true(called && standin_graph_launches() == before);
    dev_close(plain);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(elements), cmocka_unit_test(rows),
                                       cmocka_unit_test(products), cmocka_unit_test(attention),
                                       cmocka_unit_test(head), cmocka_unit_test(again)};
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, open_both, close_both);
}
