/* batch.h: groups of samples cut into batches of rows for forward and backward.
 *
 * A group's rows are its samples in order, cut into chunks, then its prompt; each chunk and the prompt are padded
 * to 32 rows. Chunks follow from the lengths of the samples alone, so gradients, which are sums over rows in
 * order, do not depend on how chunks are dealt to batches. A batch holds whole groups, or, when one group alone is
 * too large, that group's prompt or some of its chunks.
 *
 * The prompt is in a batch once for all samples of its group: the samples' rows attend to its pages. Row j of a
 * sample (its j-th token as input) predicts its token j + 1; the last row of the prompt predicts every sample's
 * first token. Tested by tests/test_rl_learn.c.
 */
#ifndef WHET_RL_BATCH_H
#define WHET_RL_BATCH_H

#include "rollout/rollout.h"

/* One sample as the learner sees it. tok, old_logp, ref_logp are views; logp and coef are the learner's results.
 */
typedef struct {
    int n;                     /* tokens of the completion, at least 1 */
    const int *tok;            /* [n] */
    const unsigned char *kept; /* sets of kept ids (rollout.h); NULL: nothing was cut off */
    const size_t *kept_at;     /* [n] where each token's begins */
    size_t kept_n;
    real *logp;    /* [n] log-probabilities under the policy that learns */
    real *entropy; /* [n] */
    real *coef;    /* [n] dLoss/dlogp */
} BatchSample;

typedef struct {
    int n_prompt, n;
    const int *prompt;    /* [n_prompt] */
    BatchSample *samples; /* [n] */
} BatchGroup;

/* What one row of the head predicts. */
typedef struct {
    int group, sample, token; /* group -1: padding */
} HeadRow;

typedef enum { BATCH_GROUPS, BATCH_PROMPT, BATCH_CHUNKS } BatchKind;

typedef struct {
    BatchKind kind;
    int group0, groups; /* groups in it (BATCH_GROUPS), or the one group */
    bool last;          /* BATCH_CHUNKS: the group's last */
    Rows rows;          /* views of the arrays below */
    int *tok, *pos, *page, *table;
    KvSpan *spans;
    KvShare *shares;
    int n_table, table_room, span_room, share_room;
    int n_head, *head_index, *target;
    HeadRow *head;
    int *prompt_table; /* the pages of the group in work (BATCH_PROMPT, BATCH_CHUNKS) */
    int prompt_pages, prompt_room;
    int max_rows, max_head, max_pages, pages_used;
} Batch;

/* Rows and head rows that any batch may have. */
enum { CHUNK_ROWS = 512 };

typedef struct {
    int max_rows, max_head, max_pages;
} BatchLimits;

/* The least limits under which every group with prompts and completions up to these lengths can be cut, and the
 * most pages that `rows` rows may need with them. */
BatchLimits batch_limits(int rows, int max_prompt, int max_completion, int group);

void batch_open(Batch *batch, const BatchLimits *limits);
void batch_close(Batch *batch);

/* Walks the groups: each call fills the batch with the next piece of work and returns true, or false at the end.
 * `skip[g]` groups are passed over. Zero-initialise the cursor. Rows of a BATCH_CHUNKS batch stand after those of
 * the prompt in the tape: see row0. */
typedef struct {
    int group, sample; /* the next one */
    bool in_group;     /* the prompt of `group` has been given out alone */
} BatchCursor;
bool batch_next(Batch *batch, BatchCursor *cursor, const BatchGroup *groups, int n, const bool *skip);
/* A group's prompt alone, as batch_next gives it out. */
void batch_prompt(Batch *batch, const BatchGroup *groups, int group);

#endif
