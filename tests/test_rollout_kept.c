/* test_rollout_kept.c: sets of kept ids as bytes: what is written is read back, from no id to all of them; bytes
 * that are no sets are refused, wherever they are cut or changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "rollout/rollout.h"

enum { SETS = 40 };

/* Sets of every kind: none, all, one id, every other, few, many, runs. */
static void set_make(int32_t *bits, int vocab, int kind, Rng *rng) {
    memset(bits, 0, (size_t)KEPT_WORDS(vocab) * sizeof *bits);
    int first = (int)rng_below(rng, (uint64_t)vocab),
        end = first + (int)rng_below(rng, (uint64_t)(vocab - first) + 1);
    for (int i = 0; i < vocab; i++) {
        bool in[] = {false,
                     true,
                     i == first,
                     i % 2 == 0,
                     rng_uniform(rng) < 0.01,
                     rng_uniform(rng) < 0.99,
                     i >= first && i < end,
                     i == vocab - 1};
        if (in[kind % 8]) bits[i / 32] |= (int32_t)(1u << i % 32);
    }
}

static void sets_come_back(void **state) {
    (void)state;
    const int vocabs[] = {1, 31, 32, 33, 1000, 49152};
    Rng rng = {5, 0};
    for (int v = 0; v < 6; v++) {
        int vocab = vocabs[v];
        size_t words = (size_t)KEPT_WORDS(vocab), at[SETS];
        int32_t *sets = MEM_ARRAY(int32_t, SETS * words), *got = MEM_ARRAY(int32_t, words);
        Buf bytes = {0};
        for (int i = 0; i < SETS; i++) {
            set_make(sets + (size_t)i * words, vocab, i, &rng);
            kept_write(&bytes, sets + (size_t)i * words, vocab);
        }
        const unsigned char *p = (const unsigned char *)bytes.p, *end = p + bytes.n;
        assert_true(kept_index(at, p, bytes.n, SETS, vocab));
        for (int i = SETS - 1; i >= 0; i--) {
            assert_non_null(kept_read(p + at[i], end, got, vocab));
            assert_memory_equal(got, sets + (size_t)i * words, words * sizeof *got);
        }
        assert_false(kept_index(at, p, bytes.n, SETS - 1, vocab));
        assert_false(kept_index(at, p, bytes.n - 1, SETS, vocab));
        assert_true(vocab == 1 || !kept_index(at, p, bytes.n, SETS, vocab - 1)); /* an id too large */
        buf_free(&bytes);
        free(sets), free(got);
    }
}

/* Any bytes at all: refused or read, never beyond their end nor beyond the vocabulary (the sanitizers watch). */
static void rubbish_is_borne(void **state) {
    (void)state;
    Rng rng = {6, 0};
    int refused = 0;
    for (int round = 0; round < 3000; round++) {
        int vocab = 1 + (int)rng_below(&rng, 70), n = (int)rng_below(&rng, 12);
        unsigned char *bytes = malloc((size_t)n + 1);
        int32_t *bits = MEM_ARRAY(int32_t, KEPT_WORDS(vocab));
        size_t at[3];
        for (int i = 0; i < n; i++) bytes[i] = (unsigned char)rng_below(&rng, round % 2 ? 8 : 256);
        const unsigned char *end = kept_read(bytes, bytes + n, bits, vocab);
        assert_true(!end || (end > bytes && end <= bytes + n));
        refused += !kept_index(at, bytes, (size_t)n, 3, vocab);
        free(bytes), free(bits);
    }
    assert_true(refused > 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sets_come_back), cmocka_unit_test(rubbish_is_borne)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
