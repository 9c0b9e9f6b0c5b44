/* cmd_logprob.c: `whet logprob`: the log-probability of each token of the text on standard input, as JSON.
 *
 * The text is computed on in batches of rows, which changes no bit: a row's arithmetic is the same in every batch.
 * Tested by tests/test_rollout_forward.c (the numbers) and tests/cmd_run.sh. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rl/cmd.h"
#include "rl/open.h"

enum { BATCH_ROWS = 512 };

static const char usage[] =
    "usage: whet logprob --model MODEL [--dtype float32|bfloat16] < text\n\n"
    "Prints {\"dtype\", \"tokens\": [ids], \"logprobs\": [null, one for each further token]}: the\n"
    "text as it is, control tokens recognised, at temperature 1.\n";

static void input_read(Buf *text) {
    char chunk[1 << 16];
    size_t got;
    while ((got = fread(chunk, 1, sizeof chunk, stdin)) > 0) buf_add(text, chunk, got);
    if (ferror(stdin)) die("logprob: stdin: %s", strerror(errno));
    if (!text->n) buf_text(text, "");
}

typedef struct {
    int *ids, n, room;
} Ids;

static void ids_add(Ids *ids, const int *more, int n) {
    if (ids->n + n > ids->room) ids->ids = mem_grow(ids->ids, (size_t)(ids->room = 2 * (ids->n + n)), sizeof(int));
    if (n) memcpy(ids->ids + ids->n, more, (size_t)n * sizeof(int));
    ids->n += n;
}

static Ids text_encode(const Tokenizer *tok, const Buf *text) {
    Ids ids = {0};
    int before[4], after[4], n_before, n_after;
    tokenizer_frame(tok, before, &n_before, after, &n_after);
    ids_add(&ids, before, n_before);
    tokenizer_encode(tok, text->p, text->n, true, &ids.ids, &ids.n, &ids.room);
    ids_add(&ids, after, n_after);
    return ids;
}

/* What the computation of log-probs holds beside the weights. */
typedef struct {
    Work work;
    Kv kv;
    Ten normed, picked, logp, lse;
    int pos[BATCH_ROWS], page[BATCH_ROWS], index[BATCH_ROWS], target[BATCH_ROWS];
    int *table;
} Scorer;

static int pages_of(int n) { return (n + KV_PAGE - 1) / KV_PAGE; }

static size_t scorer_bytes(const Model *model, int n) {
    const Conf *conf = model_file_conf(model->file);
    size_t page =
        k_kv_page_bytes(model->dev, conf->n_layers, conf->n_kv_heads, conf->head_dim, model->type, false);
    size_t row = (size_t)conf->dim * (dtype_size(model->type) + sizeof(real)) + 2 * sizeof(real);
    return work_bytes(conf, model->type, BATCH_ROWS) + (size_t)pages_of(n) * page + BATCH_ROWS * row;
}

static bool scorer_open(Scorer *scorer, const Model *model, int n, Err *err) {
    Policy *policy = model->policy;
    const Conf *conf = &policy->conf;
    if (!work_open(&scorer->work, policy, BATCH_ROWS, err)) return false;
    scorer->kv = k_kv_new(model->dev, pages_of(n), conf->n_layers, conf->n_kv_heads, conf->head_dim, model->type,
                          false, err);
    if (!scorer->kv.data.p) return false;
    scorer->normed = k_new(model->dev, BATCH_ROWS, conf->dim, model->type, err);
    scorer->picked = k_new(model->dev, BATCH_ROWS, conf->dim, K_REAL, err);
    scorer->logp = k_new(model->dev, 1, BATCH_ROWS, K_REAL, err);
    scorer->lse = k_new(model->dev, 1, BATCH_ROWS, K_REAL, err);
    scorer->table = MEM_ARRAY(int, pages_of(n));
    for (int i = 0; i < pages_of(n); i++) scorer->table[i] = i;
    return scorer->normed.p && scorer->picked.p && scorer->logp.p && scorer->lse.p;
}

static void scorer_close(Scorer *scorer, const Model *model) {
    Ten *all[] = {&scorer->normed, &scorer->picked, &scorer->logp, &scorer->lse};
    for (int i = 0; i < 4; i++) k_free(model->dev, all[i]);
    k_kv_free(model->dev, &scorer->kv);
    work_close(&scorer->work, model->policy);
    free(scorer->table);
}

/* logp[i] of ids[at + i + 1] for rows at .. at+m-1; a last token predicts nothing. */
static void batch_score(Scorer *scorer, const Model *model, const Ids *ids, int at, int m, real *logp) {
    for (int i = 0; i < m; i++) {
        scorer->pos[i] = at + i;
        scorer->page[i] = (at + i) / KV_PAGE;
        scorer->index[i] = i;
        scorer->target[i] = at + i + 1 < ids->n ? ids->ids[at + i + 1] : -1;
    }
    KvSpan span = {.n = m, .pos0 = at};
    Rows rows = {.m = m,
                 .tok = ids->ids + at,
                 .pos = scorer->pos,
                 .page = scorer->page,
                 .n_spans = 1,
                 .spans = &span,
                 .table = scorer->table};
    Ten stream = forward(model->policy, &rows, &scorer->kv, NULL, &scorer->work);
    Ten normed = ten_rows(scorer->normed, 0, m), out = ten_cols(scorer->logp, 0, m);
    forward_final(model->policy, normed, TEN_NONE, ten_rows(scorer->picked, 0, m), stream, scorer->index);
    k_logprob(model->dev, out, ten_cols(scorer->lse, 0, m), TEN_NONE, normed, &model->policy->head, scorer->target,
              TEN_NONE, 1, (real)model->policy->conf.final_cap);
    k_get(model->dev, logp, out);
}

static void print(const Model *model, const Ids *ids, const real *logp) {
    Buf out = {0};
    buf_format(&out, "{\"dtype\": \"%s\", \"tokens\": [", model->type == K_BF16 ? "bfloat16" : "float32");
    for (int i = 0; i < ids->n; i++) buf_format(&out, "%s%d", i ? ", " : "", ids->ids[i]);
    buf_text(&out, "], \"logprobs\": [");
    for (int i = 0; i < ids->n; i++)
        if (i)
            buf_format(&out, ", %.9g", (double)logp[i - 1]);
        else
            buf_text(&out, "null");
    buf_text(&out, "]}\n");
    if (fwrite(out.p, 1, out.n, stdout) != out.n || fflush(stdout)) die("logprob: stdout: %s", strerror(errno));
    buf_free(&out);
}

int cmd_logprob(int argc, char **argv) {
    OpenConf conf = {.dtype = "float32", .device = "auto", .cpu_path = "auto"};
    Option options[OPEN_OPTIONS];
    Arena arena = {0};
    open_options(&conf, options);
    options_read(usage, options, OPEN_OPTIONS, argc, argv, &arena);
    Err err = {0};
    Model model;
    if (!model_open(&model, &conf, &err)) die("logprob: %s", err.msg);
    Buf text = {0};
    input_read(&text);
    Ids ids = text_encode(model.tok, &text);
    int most = model_file_conf(model.file)->max_positions, vocab = model_file_conf(model.file)->vocab;
    if (most > 0 && ids.n > most) die("logprob: the text has %d tokens; the model takes %d", ids.n, most);
    for (int i = 0; i < ids.n; i++)
        if (ids.ids[i] >= vocab) die("logprob: token %d has the id %d; the model has %d", i, ids.ids[i], vocab);
    int n = ids.n ? ids.n : 1;
    PolicyConf policy = {.max_positions = n};
    if (!model_load(&model, &policy, scorer_bytes(&model, n), &err)) die("logprob: %s", err.msg);
    Scorer *scorer = MEM_NEW(Scorer);
    if (!scorer_open(scorer, &model, n, &err)) die("logprob: %s", err.msg);
    real *logp = MEM_ARRAY(real, n);
    for (int at = 0; at < ids.n; at += BATCH_ROWS)
        batch_score(scorer, &model, &ids, at, ids.n - at < BATCH_ROWS ? ids.n - at : BATCH_ROWS, logp + at);
    print(&model, &ids, logp);
    free(logp);
    scorer_close(scorer, &model);
    free(scorer);
    free(ids.ids);
    buf_free(&text);
    model_close(&model);
    arena_free(&arena);
    return 0;
}
