/* test_cuda_model.c: whole models on the stand-in for a GPU against the CPU: rl/selftest.h. Sampling token for
 * token, log-probabilities, loss, every gradient, some steps; sampled = trained, bit for bit. One of them; with
 * WHET_ALL all (long_cuda.sh). */
#include "tests/cuda_help.h"

#include "rl/selftest.h"

static void say(void *self, const CompareResult *r) {
    (void)self;
    print_message("%s: %s, %s: %.3g, at most %.3g\n", r->good ? "good" : "WRONG", r->shape, r->op, r->error,
                  r->bound);
}

static void check(int which, DType type) {
    const char *name;
    Conf conf = selftest_conf(which, &name);
    long before = standin_graph_launches();
    assert_int_equal(selftest_model(cuda, cpu, &conf, name, type, getenv("WHET_ALL") ? 3 : 1, say, NULL), 0);
    assert_true(standin_graph_launches() - before > 20); /* of about 40 steps */
    assert_int_equal(standin_graphs(), 0);
}

static void plain(void **state) { (void)state, check(0, K_BF16); }
static void plain_float32(void **state) { (void)state, check(0, K_REAL); }
static void biased(void **state) { (void)state, check(1, K_BF16); }
static void biased_float32(void **state) { (void)state, check(1, K_REAL); }
static void rich(void **state) { (void)state, check(2, K_BF16); }
static void rich_float32(void **state) { (void)state, check(2, K_REAL); }

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain)};
    const struct CMUnitTest all[] = {cmocka_unit_test(plain),  cmocka_unit_test(plain_float32),
                                     cmocka_unit_test(biased), cmocka_unit_test(biased_float32),
                                     cmocka_unit_test(rich),   cmocka_unit_test(rich_float32)};
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    if (getenv("WHET_ALL")) return cmocka_run_group_tests(all, open_both, close_both);
    return cmocka_run_group_tests(tests, open_both, close_both);
}
