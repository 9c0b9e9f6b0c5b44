/* loss_help.h: what test_rl_loss.c and test_rl_zoo.c share: numbers of goldens, as the losses take them. */
#ifndef WHET_TESTS_LOSS_HELP_H
#define WHET_TESTS_LOSS_HELP_H

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "rl/advantage.h"
#include "rl/loss.h"

#define NEAR(got, want, tolerance)                                                                                \
    do {                                                                                                          \
        double got_ = (got), want_ = (want);                                                                      \
        if (!(fabs(got_ - want_) <= (tolerance))) {                                                               \
            fail_msg("%s: %.17g, wanted %.17g", #got, got_, want_);                                               \
        }                                                                                                         \
    } while (0)

enum { MOST = 16 };

typedef struct {
    int n, n_runs;
    LossSeq seqs[MOST];
    bool mask[MOST][MOST];
    unsigned char marks[MOST][MOST];
    real logp[MOST][MOST], old[MOST][MOST], ref[MOST][MOST], entropy[MOST][MOST];
    json_t *root;
} Golden; /* what a file does not have is 0 */

static inline json_t *member(const json_t *object, const char *name) { return json_object_get(object, name); }
static inline double number(const json_t *object, const char *name) {
    return json_number_value(member(object, name));
}
static inline const char *word(const json_t *object, const char *name) {
    return json_string_value(member(object, name));
}
static inline json_t *run_of(const Golden *golden, int k) {
    return json_array_get(member(golden->root, "runs"), (size_t)k);
}

static void golden_rows(const json_t *rows, int n, real out[MOST][MOST]) {
    for (int i = 0; i < n; i++) {
        json_t *row = json_array_get(rows, (size_t)i);
        for (size_t t = 0; t < json_array_size(row); t++)
            out[i][t] = (real)json_number_value(json_array_get(row, t));
    }
}

static int golden_load(void **state, const char *path) {
    Golden *golden = MEM_NEW(Golden);
    golden->root = json_load_file(path, 0, NULL);
    if (!golden->root) return -1;
    golden->n = (int)json_array_size(member(golden->root, "advantages"));
    golden_rows(member(golden->root, "logp"), golden->n, golden->logp);
    golden_rows(member(golden->root, "old"), golden->n, golden->old);
    golden_rows(member(golden->root, "ref"), golden->n, golden->ref);
    golden_rows(member(golden->root, "entropy"), golden->n, golden->entropy);
    for (int i = 0; i < golden->n; i++) {
        json_t *holes = json_array_get(member(golden->root, "holes"), (size_t)i);
        golden->seqs[i] = (LossSeq){
            .n = (int)json_array_size(holes),
            .advantage = json_number_value(json_array_get(member(golden->root, "advantages"), (size_t)i)),
            .truncated = json_is_true(json_array_get(member(golden->root, "truncated"), (size_t)i))};
        for (int t = 0; t < golden->seqs[i].n; t++)
            golden->mask[i][t] = json_is_true(json_array_get(holes, (size_t)t));
    }
    golden->n_runs = (int)json_array_size(member(golden->root, "runs"));
    *state = golden;
    return 0;
}

static int golden_close(void **state) {
    Golden *golden = *state;
    json_decref(golden->root);
    free(golden);
    return 0;
}

#endif
