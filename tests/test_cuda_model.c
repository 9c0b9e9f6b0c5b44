/* test_cuda_model.c: a whole model on the stand-in for a GPU against the CPU: rl/selftest.h. Sampling token for token,
 * with decoding steps launched as graphs; log-probabilities, loss, every gradient, a step; sampled = trained, bit for bit.
 * The other models: whet gpu-selftest, in long_cuda.sh. (run.sh: long) */
#include "tests/cuda_help.h"

#include "rl/selftest.h"

static void say(void *self, const CompareResult *r) {
    (void)self;
    print_message("%s: %s, %s: %.3g, at most %.3g\n", r->good ? "good" : "WRONG", r->shape, r->op, r->error,
                  r->bound);
}

static void test_model(void **state) {
    (void)state;
    const char *name;
    Conf conf = selftest_conf(0, &name);
    long before = standin_graph_launches();
    assert_int_equal(selftest_model(cuda, cpu, &conf, name, K_BF16, 1, say, NULL), 0);
    assert_true(standin_graph_launches() - before > 20); /* of about 40 steps */
    assert_int_equal(standin_graphs(), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_model)};
    return cmocka_run_group_tests(tests, open_both, close_both);
}
