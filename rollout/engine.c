/* engine.c: continuous batching: a queue of groups in, finished samples out.
 *
 * A group's prompt is computed once; its full pages of keys and values are shared by all of the group's samples,
 * and the page that it fills only in part is copied for each (the last sample to start takes the group's own). The
 * prompt's last hidden state is kept until every sample of the group has drawn its first token from it. A slot
 * that ends takes the next sample of the queue before the next token is computed, so slots stand empty only when
 * the queue is empty or pages are short.
 *
 * Pages: what a running sample may still ask for is set aside when it starts (`owed`, `reserved`), so a running
 * sample never waits; a prompt is computed only while that leaves room for one whole sequence, so the queue's
 * first sample can always start once the others have ended.
 *
 * What is drawn, and its log-probs, depend on the weights, the prompt and the counted random numbers only: not on
 * slots, threads or neighbours. Tested by tests/test_rollout_engine.c. */
#include "rollout/rollout.h"

#include <stdlib.h>
#include <string.h>

enum { PROMPT_ROWS = 512, SEGMENTS_MAX = sizeof((Sample){0}.segments) / sizeof(Segment) };

/* A request on its way: queued, then its prompt is computed, then its samples start one by one. */
typedef struct Job Job;
struct Job {
    Request request; /* its prompt is a copy */
    char **stop;     /* n_stop copies */
    size_t *stop_n;
    int n_stop;
    size_t stop_longest;
    int computed; /* tokens of the prompt whose keys and values lie in pages */
    int ready;    /* row of Engine.ready for the prompt's last hidden state; -1: no row yet */
    int started;  /* samples */
    int running;  /* of these */
    int fresh;    /* of these, those that have drawn nothing yet */
    int *pages;   /* of the prompt; the job holds each until its last sample has started */
    int n_pages;  /* 0: none taken yet */
    int64_t version;
    Job *next;
};

typedef struct {
    Job *job; /* NULL: the slot is free */
    int index;
    int n, limit; /* tokens now, and at most */
    int n_pages;  /* in its table */
    int owed;     /* pages that it may still take */
    bool fresh;   /* its first token comes from the prompt's last hidden state */
    int *tok;     /* [max_tokens] */
    real *logp, *draw_logp;
    Segment segments[SEGMENTS_MAX];
    int n_segments;
    Buf tail; /* the last bytes of the completion, when there are stop strings */
    Buf kept; /* the sets of its tokens, when they are asked for and something is cut off */
} Slot;

struct Engine {
    Policy *policy;
    Dev *dev;
    const Tokenizer *tok;
    int n_slots, prompt_rows, max_tokens, seq_pages, vocab_used;
    bool keep_sets;
    Work work;
    Kv kv;
    Pages pages;
    int reserved;       /* pages set aside for running samples */
    Ten hidden, picked; /* [wide, dim] the head's inputs, compute type; before the norm */
    Ten ready;          /* [slots, dim] last hidden states of computed prompts */
    Ten logits;         /* [wide, vocab]; wide: slots in whole units of the device's rows */
    Ten kept;           /* [slots, KEPT_WORDS(vocab)], where sets are asked for */
    int32_t *kept_host; /* the same */
    int *ready_free, n_ready_free;
    Job *first, *last; /* the queue: jobs with samples that have not started */
    Slot *slots;
    int n_busy;
    Sample *done; /* finished and not yet taken: done_first .. n_done - 1 */
    int done_first, n_done, done_room;
    /* one batch */
    int *row_tok, *row_pos, *row_page, *row_slot, *index;
    KvSpan *spans;
    int *table; /* [slots x seq_pages] of the slots */
    int *prompt_table;
    KvShare *shares;
    Draw *draws;
    Drawn *drawn;
    EngineStats stats;
};

/* ---- sizes ---- */

typedef struct {
    int slots, prompt_rows, max_tokens, seq_pages, pages, rows;
    int wide; /* slots, filled up to whole units of the device's rows */
} Sizes;

static int filled_up(const Dev *dev, int rows) {
    int unit = dev_row_unit(dev);
    return (rows + unit - 1) / unit * unit;
}

/* Beside the running sequences there is room for one more, and for the partly filled prompt pages of groups. */
static Sizes sizes_of(const Dev *dev, const EngineConf *conf) {
    CHECK(conf->slots > 0 && conf->max_tokens > 1, "%d slots of %d tokens", conf->slots, conf->max_tokens);
    Sizes s = {.slots = conf->slots, .max_tokens = conf->max_tokens};
    s.prompt_rows = conf->prompt_rows > 0 ? conf->prompt_rows : PROMPT_ROWS;
    s.seq_pages = (s.max_tokens + KV_PAGE - 1) / KV_PAGE;
    s.pages = (s.slots + 1) * s.seq_pages + s.slots / 4;
    s.wide = filled_up(dev, s.slots);
    s.rows = s.prompt_rows > s.wide ? s.prompt_rows : s.wide;
    return s;
}

size_t engine_bytes(const Dev *dev, const Conf *conf, DType type, const EngineConf *engine_conf) {
    Sizes s = sizes_of(dev, engine_conf);
    size_t page = k_kv_page_bytes(dev, conf->n_layers, conf->n_kv_heads, conf->head_dim, type, false);
    size_t wide = (size_t)(conf->dim + conf->vocab) * dtype_size(K_REAL) + (size_t)conf->dim * dtype_size(type);
    size_t row = (size_t)conf->dim * dtype_size(type);
    if (engine_conf->keep_sets) row += (size_t)KEPT_WORDS(conf->vocab) * dtype_size(K_I32);
    return work_bytes(conf, type, s.rows) + (size_t)s.pages * page + (size_t)s.wide * wide + (size_t)s.slots * row;
}

size_t workspace_bytes(const Dev *dev, const Conf *conf, int rows) {
    return k_workspace_bytes(dev, rows, conf->dim, conf->hidden, conf->vocab, conf->n_heads * conf->head_dim,
                             conf->n_kv_heads * conf->head_dim);
}

int engine_rows(const Dev *dev, const EngineConf *conf) { return sizes_of(dev, conf).rows; }

/* ---- jobs ---- */

static Job *job_new(const Request *request) {
    Job *job = MEM_NEW(Job);
    job->request = *request;
    int *prompt = MEM_ARRAY(int, request->n_prompt);
    memcpy(prompt, request->prompt, (size_t)request->n_prompt * sizeof *prompt);
    job->request.prompt = prompt;
    job->request.stop = NULL;
    job->ready = -1;
    job->pages = MEM_ARRAY(int, (request->n_prompt + KV_PAGE - 1) / KV_PAGE);
    while (request->stop && request->stop[job->n_stop]) job->n_stop++;
    job->stop = MEM_ARRAY(char *, job->n_stop + 1);
    job->stop_n = MEM_ARRAY(size_t, job->n_stop + 1);
    for (int i = 0; i < job->n_stop; i++) {
        job->stop[i] = mem_text(request->stop[i]);
        job->stop_n[i] = strlen(request->stop[i]);
        if (job->stop_n[i] > job->stop_longest) job->stop_longest = job->stop_n[i];
    }
    return job;
}

static void job_free(Job *job) {
    for (int i = 0; i < job->n_stop; i++) free(job->stop[i]);
    free(job->stop);
    free(job->stop_n);
    free(job->pages);
    free((int *)job->request.prompt);
    free(job);
}

static bool job_computed(const Job *job) { return job->ready >= 0 && job->computed == job->request.n_prompt; }

bool engine_submit(Engine *engine, const Request *request, Err *err) {
    CHECK(request->group > 0 && request->max_new > 0, "a group of %d, %d tokens", request->group,
          request->max_new);
    CHECK(request->temperature >= 0 && request->n_prompt >= 0, "temperature %g, %d tokens",
          (double)request->temperature, request->n_prompt);
    if (!request->n_prompt) return err_set(err, "an empty prompt cannot be continued: give it a token");
    if (request->n_prompt >= engine->max_tokens)
        return err_set(err, "a prompt of %d tokens leaves no room for an answer in sequences of %d tokens",
                       request->n_prompt, engine->max_tokens);
    for (int i = 0; i < request->n_prompt; i++)
        if (request->prompt[i] < 0 || request->prompt[i] >= engine->policy->conf.vocab)
            return err_set(err, "token %d of the prompt has the id %d; the model has %d", i, request->prompt[i],
                           engine->policy->conf.vocab);
    CHECK(engine->tok || !request->stop || !*request->stop, "stop string %s, no tokenizer", *request->stop);
    Job *job = job_new(request);
    if (engine->last)
        engine->last->next = job;
    else
        engine->first = job;
    engine->last = job;
    return true;
}

/* ---- prompts ---- */

/* Takes pages for a prompt and a row for its last hidden state, when both are to be had. */
static bool prompt_admit(Engine *engine, Job *job) {
    int need = (job->request.n_prompt + KV_PAGE - 1) / KV_PAGE;
    if (job->n_pages) return true;
    if (!engine->n_ready_free || engine->pages.n_free - engine->reserved - need < engine->seq_pages) return false;
    for (; job->n_pages < need; job->n_pages++) job->pages[job->n_pages] = pages_take(&engine->pages);
    job->ready = engine->ready_free[--engine->n_ready_free];
    return true;
}

/* Puts up to `room` further tokens of a prompt into the batch; returns how many. */
static int prompt_rows_add(Engine *engine, Rows *rows, Job *job, int room, int *n_table) {
    int pos0 = job->computed, n = job->request.n_prompt - pos0 < room ? job->request.n_prompt - pos0 : room;
    engine->spans[rows->n_spans] = (KvSpan){rows->m, n, pos0, *n_table, rows->n_spans, 0};
    rows->n_spans++;
    for (int i = 0; i < n; i++) {
        int pos = pos0 + i, row = rows->m + i;
        engine->row_tok[row] = job->request.prompt[pos];
        engine->row_pos[row] = pos;
        engine->row_page[row] = job->pages[pos / KV_PAGE];
    }
    int pages = (pos0 + n + KV_PAGE - 1) / KV_PAGE;
    memcpy(engine->prompt_table + *n_table, job->pages, (size_t)pages * sizeof(int));
    *n_table += pages;
    job->computed += n;
    rows->m += n;
    return n;
}

/* Computes one batch of prompts, in the order of the queue, as many as it takes. False when pages are short. */
static bool prompts_compute(Engine *engine) {
    double began = clock_seconds();
    Rows rows = {.tok = engine->row_tok,
                 .pos = engine->row_pos,
                 .page = engine->row_page,
                 .spans = engine->spans,
                 .table = engine->prompt_table};
    Job *from = NULL;
    int n_table = 0, whole = 0;
    for (Job *job = engine->first; job && rows.m < engine->prompt_rows; job = job->next) {
        if (job_computed(job)) continue;
        if (!prompt_admit(engine, job)) break;
        if (!from) from = job;
        prompt_rows_add(engine, &rows, job, engine->prompt_rows - rows.m, &n_table);
        if (job_computed(job)) engine->index[whole++] = rows.m - 1;
    }
    if (!rows.m) return false;
    Ten stream = forward(engine->policy, &rows, &engine->kv, NULL, &engine->work);
    Ten hidden = ten_rows(engine->hidden, 0, whole);
    if (whole)
        forward_final(engine->policy, hidden, TEN_NONE, ten_rows(engine->picked, 0, whole), stream, engine->index);
    for (Job *job = from; whole > 0 && job; job = job->next) {
        int i = hidden.rows - whole;
        k_copy(engine->dev, ten_rows(engine->ready, job->ready, 1), ten_rows(hidden, i, 1));
        job->version = engine->policy->version;
        whole--;
    }
    engine->stats.prompt_tokens += rows.m;
    engine->stats.prompt_seconds += clock_seconds() - began;
    return true;
}

/* ---- samples ---- */

/* Starts the next sample of the queue's first group in a free slot; false when its pages are not to be had. */
static bool sample_start(Engine *engine, int s, int *n_shares) {
    Job *job = engine->first;
    const Request *request = &job->request;
    int n = request->n_prompt, full = n / KV_PAGE, part = n % KV_PAGE;
    bool last = job->started + 1 == request->group;
    int limit = request->max_new < engine->max_tokens - n ? n + request->max_new : engine->max_tokens;
    int owed = (limit - 1 + KV_PAGE - 1) / KV_PAGE - full; /* the last token is never computed on */
    if (engine->pages.n_free - engine->reserved < owed - (last && part)) return false;
    Slot *slot = &engine->slots[s];
    int *table = engine->table + (size_t)s * (size_t)engine->seq_pages;
    slot->job = job, slot->index = request->index0 + job->started;
    slot->n = n, slot->limit = limit, slot->n_pages = full, slot->owed = owed, slot->fresh = true;
    memcpy(slot->tok, request->prompt, (size_t)n * sizeof(int));
    slot->segments[0] = (Segment){0, n, ROLE_PROMPT, false, job->version};
    slot->n_segments = 1;
    buf_clear(&slot->tail);
    buf_clear(&slot->kept);
    for (int i = 0; i < full; i++) {
        table[i] = job->pages[i];
        if (!last) pages_hold(&engine->pages, table[i]);
    }
    if (part) {
        table[full] = last ? job->pages[full] : pages_take(&engine->pages);
        if (!last) engine->shares[(*n_shares)++] = (KvShare){job->pages[full], table[full], part};
        slot->n_pages++, slot->owed--;
    }
    engine->reserved += slot->owed;
    job->started++, job->running++, job->fresh++;
    engine->n_busy++;
    if (last) engine->first = job->next;
    if (!engine->first) engine->last = NULL;
    return true;
}

/* Gives every free slot the next sample of the queue, computing prompts on the way. */
static void slots_fill(Engine *engine) {
    int n_shares = 0;
    for (int s = 0; s < engine->n_slots && engine->first; s++) {
        if (engine->slots[s].job) continue;
        bool more = true;
        while (more && !job_computed(engine->first)) more = prompts_compute(engine);
        if (!more || !sample_start(engine, s, &n_shares)) break;
    }
    CHECK(engine->n_busy || !engine->first, "%d of %d pages are free, %d reserved, and nothing runs",
          engine->pages.n_free, engine->pages.n_pages, engine->reserved);
    if (n_shares) k_kv_copy(engine->dev, &engine->kv, engine->shares, n_shares);
}

static void slot_release(Engine *engine, int s) {
    Slot *slot = &engine->slots[s];
    Job *job = slot->job;
    const int *table = engine->table + (size_t)s * (size_t)engine->seq_pages;
    for (int i = 0; i < slot->n_pages; i++) pages_drop(&engine->pages, table[i]);
    engine->reserved -= slot->owed;
    slot->job = NULL;
    engine->n_busy--;
    if (--job->running == 0 && job->started == job->request.group) job_free(job);
}

/* The sample's arrays are made here, in its final length: the slot's own serve the next one. */
static void sample_finish(Engine *engine, int s, Finish finish) {
    Slot *slot = &engine->slots[s];
    if (engine->done_first == engine->n_done) engine->done_first = engine->n_done = 0;
    if (engine->n_done == engine->done_room) {
        engine->done_room = engine->done_room ? 2 * engine->done_room : 64;
        engine->done = mem_grow(engine->done, (size_t)engine->done_room, sizeof *engine->done);
    }
    int n = slot->n, n_prompt = slot->job->request.n_prompt;
    Sample *sample = &engine->done[engine->n_done++];
    *sample = (Sample){.ticket = slot->job->request.ticket,
                       .index = slot->index,
                       .n_prompt = n_prompt,
                       .n = n,
                       .n_segments = slot->n_segments,
                       .finish = finish};
    memcpy(sample->segments, slot->segments, sizeof slot->segments);
    sample->tok = MEM_ARRAY(int, n);
    sample->logp = MEM_ARRAY(real, n);
    sample->draw_logp = MEM_ARRAY(real, n);
    size_t from = (size_t)n_prompt, more = (size_t)(n - n_prompt);
    memcpy(sample->tok, slot->tok, (size_t)n * sizeof(int));
    memcpy(sample->logp + from, slot->logp + from, more * sizeof(real));
    memcpy(sample->draw_logp + from, slot->draw_logp + from, more * sizeof(real));
    if (slot->kept.n) {
        sample->kept = MEM_ARRAY(unsigned char, slot->kept.n), sample->kept_n = slot->kept.n;
        memcpy(sample->kept, slot->kept.p, slot->kept.n);
    }
    slot_release(engine, s);
}

void sample_free(Sample *sample) {
    free(sample->tok);
    free(sample->logp);
    free(sample->draw_logp);
    free(sample->kept);
    *sample = (Sample){0};
}

/* ---- tokens ---- */

/* A function of key, index and position and of nothing else. */
static double token_uniform(uint64_t key, int index, int position) {
    uint32_t counter[4] = {(uint32_t)index, (uint32_t)position, 0, 0}, out[4];
    philox(out, key, counter);
    return (double)(((uint64_t)out[1] << 32 | out[0]) >> 11) * 0x1p-53;
}

static Draw draw_of(const Slot *slot) {
    const Request *request = &slot->job->request;
    return (Draw){.inv_temp = request->temperature > 0 ? 1 / request->temperature : 0,
                  .top_k = request->top_k,
                  .top_p = request->top_p,
                  .min_p = request->min_p,
                  .u = token_uniform(request->key, slot->index, slot->n)};
}

static bool is_eos(const Conf *conf, int id) {
    for (int i = 0; i < conf->n_eos; i++)
        if (conf->eos[i] == id) return true;
    return false;
}

/* Adds a token's bytes to the tail; true when a stop string is now complete. */
static bool stop_reached(Slot *slot, const Tokenizer *tok, int id) {
    const Job *job = slot->job;
    size_t n;
    const char *piece = tokenizer_piece(tok, id, &n);
    Buf *tail = &slot->tail;
    buf_add(tail, piece, n);
    for (int i = 0; i < job->n_stop; i++)
        if (job->stop_n[i] && memmem(tail->p, tail->n, job->stop[i], job->stop_n[i])) return true;
    size_t keep = job->stop_longest ? job->stop_longest - 1 : 0;
    if (tail->n > keep) {
        memmove(tail->p, tail->p + (tail->n - keep), keep);
        tail->n = keep;
    }
    return false;
}

/* The segment of the tokens that the policy makes now: a new one when its weights have changed. */
static Segment *segment_now(Slot *slot, int64_t version) {
    Segment *segment = &slot->segments[slot->n_segments - 1];
    if (segment->role == ROLE_MODEL && segment->version == version) return segment;
    CHECK(slot->n_segments < SEGMENTS_MAX, "%d versions of the policy in one sample", slot->n_segments);
    segment = &slot->segments[slot->n_segments++];
    *segment = (Segment){slot->n, 0, ROLE_MODEL, true, version};
    return segment;
}

static void token_take(Engine *engine, int s, const Drawn *drawn) {
    Slot *slot = &engine->slots[s];
    Job *job = slot->job;
    if (slot->fresh) {
        slot->fresh = false;
        if (--job->fresh == 0 && job->started == job->request.group)
            engine->ready_free[engine->n_ready_free++] = job->ready;
    }
    segment_now(slot, engine->policy->version)->n++;
    slot->tok[slot->n] = drawn->tok;
    slot->logp[slot->n] = drawn->logp;
    slot->draw_logp[slot->n] = drawn->draw_logp;
    slot->n++;
    bool stop = is_eos(&engine->policy->conf, drawn->tok);
    if (job->n_stop && stop_reached(slot, engine->tok, drawn->tok)) stop = true;
    if (stop)
        sample_finish(engine, s, FINISH_STOP);
    else if (slot->n == slot->limit)
        sample_finish(engine, s, FINISH_LENGTH);
}

/* The row of the batch that computes on a slot's newest token. */
static void decode_row_add(Engine *engine, Rows *rows, int s) {
    Slot *slot = &engine->slots[s];
    int pos = slot->n - 1, row = rows->m++, at = s * engine->seq_pages;
    if (pos / KV_PAGE == slot->n_pages) {
        CHECK(slot->owed > 0, "position %d of %d has no page", pos, slot->limit);
        int page = pages_take(&engine->pages);
        CHECK(page >= 0, "%d pages reserved, none free", engine->reserved);
        engine->table[at + slot->n_pages++] = page;
        slot->owed--, engine->reserved--;
    }
    engine->row_tok[row] = slot->tok[pos];
    engine->row_pos[row] = pos;
    engine->row_page[row] = engine->table[at + pos / KV_PAGE];
    engine->row_slot[row] = s;
    engine->index[row] = row;
    engine->spans[rows->n_spans++] = (KvSpan){row, 1, pos, at, row, 0};
}

/* Fills the batch up to whole units of the device's rows. */
static void padding_add(Engine *engine, Rows *rows) {
    for (int end = filled_up(engine->dev, rows->m); rows->m < end; rows->m++) {
        int row = rows->m;
        engine->row_tok[row] = engine->row_pos[row] = 0, engine->row_page[row] = -1;
        engine->spans[rows->n_spans++] = (KvSpan){.row0 = row, .group = row};
    }
}

/* The head's inputs, one row for each busy slot: first those that compute on, then the fresh ones. */
static int hidden_compute(Engine *engine) {
    Rows rows = {.tok = engine->row_tok,
                 .pos = engine->row_pos,
                 .page = engine->row_page,
                 .spans = engine->spans,
                 .table = engine->table};
    for (int s = 0; s < engine->n_slots; s++)
        if (engine->slots[s].job && !engine->slots[s].fresh) decode_row_add(engine, &rows, s);
    int n = rows.m;
    if (n) {
        padding_add(engine, &rows);
        Ten stream = forward(engine->policy, &rows, &engine->kv, NULL, &engine->work);
        forward_final(engine->policy, ten_rows(engine->hidden, 0, n), TEN_NONE, ten_rows(engine->picked, 0, n),
                      stream, engine->index);
    }
    for (int s = 0; s < engine->n_slots; s++) {
        const Slot *slot = &engine->slots[s];
        if (!slot->job || !slot->fresh) continue;
        k_copy(engine->dev, ten_rows(engine->hidden, n, 1), ten_rows(engine->ready, slot->job->ready, 1));
        engine->row_slot[n++] = s;
    }
    return n;
}

/* Whether something of the vocabulary is cut off before a token of this job is drawn. */
static bool job_cuts(const Engine *engine, const Job *job) {
    const Request *r = &job->request;
    return r->temperature > 0 && ((r->top_k > 0 && r->top_k < engine->vocab_used) || r->top_p < 1 || r->min_p > 0);
}

/* Draws a token for each of the n rows; what was cut off is noted with the slots that ask for it. */
static void draw(Engine *engine, Ten logits) {
    int n = logits.rows, vocab = logits.cols;
    bool cut = false;
    for (int r = 0; r < n; r++) {
        const Slot *slot = &engine->slots[engine->row_slot[r]];
        engine->draws[r] = draw_of(slot);
        cut = cut || job_cuts(engine, slot->job);
    }
    Ten kept = cut && engine->keep_sets ? ten_rows(engine->kept, 0, n) : TEN_NONE;
    k_sample(engine->dev, engine->drawn, kept, logits, engine->draws, engine->vocab_used);
    if (!ten_is(kept)) return;
    k_get(engine->dev, engine->kept_host, kept);
    for (int r = 0; r < n; r++) {
        Slot *slot = &engine->slots[engine->row_slot[r]];
        const int32_t *bits = engine->kept_host + (size_t)r * (size_t)KEPT_WORDS(vocab);
        if (job_cuts(engine, slot->job)) kept_write(&slot->kept, bits, vocab);
    }
}

/* One token for every busy slot. */
static void decode(Engine *engine) {
    double began = clock_seconds();
    EngineStats *stats = &engine->stats;
    stats->steps++;
    if (engine->first) stats->slot_steps += engine->n_slots, stats->busy_slot_steps += engine->n_busy;
    int n = hidden_compute(engine), wide = filled_up(engine->dev, n);
    Ten logits = ten_rows(engine->logits, 0, wide);
    k_matmul(engine->dev, logits, ten_rows(engine->hidden, 0, wide), &engine->policy->head, TEN_NONE, TEN_NONE);
    if (engine->policy->conf.final_cap > 0) k_softcap(engine->dev, logits, (real)engine->policy->conf.final_cap);
    draw(engine, ten_rows(logits, 0, n));
    for (int r = 0; r < n; r++) token_take(engine, engine->row_slot[r], &engine->drawn[r]);
    stats->new_tokens += n;
    stats->decode_seconds += clock_seconds() - began;
}

int engine_step(Engine *engine) {
    slots_fill(engine);
    if (engine->n_busy) decode(engine);
    return engine->n_done - engine->done_first;
}

bool engine_take(Engine *engine, Sample *sample) {
    if (engine->done_first == engine->n_done) return false;
    *sample = engine->done[engine->done_first++];
    return true;
}

bool engine_idle(const Engine *engine) { return !engine->first && !engine->n_busy; }

void engine_cancel(Engine *engine) {
    for (Job *job = engine->first, *next; job; job = next) {
        next = job->next;
        for (int i = 0; i < job->n_pages; i++) pages_drop(&engine->pages, job->pages[i]);
        if (job->running)
            job->request.group = job->started; /* its last sample frees it */
        else
            job_free(job);
    }
    engine->first = engine->last = NULL;
    for (int s = 0; s < engine->n_slots; s++)
        if (engine->slots[s].job) slot_release(engine, s);
    for (engine->n_ready_free = 0; engine->n_ready_free < engine->n_slots; engine->n_ready_free++)
        engine->ready_free[engine->n_ready_free] = engine->n_ready_free;
    CHECK(engine->pages.n_free == engine->pages.n_pages && !engine->reserved,
          "%d of %d pages are free, %d reserved", engine->pages.n_free, engine->pages.n_pages, engine->reserved);
}

void engine_exact(Engine *engine, bool on) {
    CHECK(engine_idle(engine), "%d samples are running", engine->n_busy);
    engine->work.int8 = ten_is(engine->policy->int8s.fwd) && !on;
}

const EngineStats *engine_stats(const Engine *engine) { return &engine->stats; }
void engine_stats_reset(Engine *engine) { engine->stats = (EngineStats){0}; }

/* ---- open and close ---- */

static bool tensors_open(Engine *engine, const Sizes *s, Err *err) {
    const Policy *policy = engine->policy;
    const Conf *conf = &policy->conf;
    Dev *dev = engine->dev;
    engine->kv =
        k_kv_new(dev, s->pages, conf->n_layers, conf->n_kv_heads, conf->head_dim, policy->type, false, err);
    if (!engine->kv.data.p) return false;
    engine->hidden = k_new(dev, s->wide, conf->dim, policy->type, err);
    if (engine->hidden.p) engine->picked = k_new(dev, s->wide, conf->dim, K_REAL, err);
    if (engine->picked.p) engine->ready = k_new(dev, s->slots, conf->dim, policy->type, err);
    if (engine->ready.p) engine->logits = k_new(dev, s->wide, conf->vocab, K_REAL, err);
    if (engine->logits.p && engine->keep_sets) {
        engine->kept = k_new(dev, s->slots, KEPT_WORDS(conf->vocab), K_I32, err);
        engine->kept_host = MEM_ARRAY(int32_t, (size_t)s->slots * (size_t)KEPT_WORDS(conf->vocab));
        if (!engine->kept.p) return false;
    }
    if (!engine->logits.p || !work_open(&engine->work, engine->policy, s->rows, err)) return false;
    engine_exact(engine, false);
    return true;
}

static void arrays_open(Engine *engine, const Sizes *s) {
    engine->row_tok = MEM_ARRAY(int, s->rows);
    engine->row_pos = MEM_ARRAY(int, s->rows);
    engine->row_page = MEM_ARRAY(int, s->rows);
    engine->row_slot = MEM_ARRAY(int, s->rows);
    engine->index = MEM_ARRAY(int, s->rows);
    engine->spans = MEM_ARRAY(KvSpan, s->rows);
    engine->table = MEM_ARRAY(int, s->slots * s->seq_pages);
    engine->prompt_table = MEM_ARRAY(int, s->seq_pages + s->rows);
    engine->shares = MEM_ARRAY(KvShare, s->slots);
    engine->draws = MEM_ARRAY(Draw, s->slots);
    engine->drawn = MEM_ARRAY(Drawn, s->slots);
    engine->ready_free = MEM_ARRAY(int, s->slots);
    for (; engine->n_ready_free < s->slots; engine->n_ready_free++)
        engine->ready_free[engine->n_ready_free] = engine->n_ready_free;
    engine->slots = MEM_ARRAY(Slot, s->slots);
    for (int i = 0; i < s->slots; i++) {
        engine->slots[i].tok = MEM_ARRAY(int, s->max_tokens);
        engine->slots[i].logp = MEM_ARRAY(real, s->max_tokens);
        engine->slots[i].draw_logp = MEM_ARRAY(real, s->max_tokens);
    }
}

Engine *engine_open(Policy *policy, const Tokenizer *tok, const EngineConf *conf, Err *err) {
    Sizes sizes = sizes_of(policy->dev, conf);
    if (sizes.max_tokens > policy->max_positions) {
        err_set(err, "sequences of %d tokens: the model was loaded for %d", sizes.max_tokens, policy->max_positions);
        return NULL;
    }
    Engine *engine = MEM_NEW(Engine);
    *engine = (Engine){.policy = policy,
                       .dev = policy->dev,
                       .tok = tok,
                       .n_slots = sizes.slots,
                       .prompt_rows = sizes.prompt_rows,
                       .max_tokens = sizes.max_tokens,
                       .seq_pages = sizes.seq_pages,
                       .keep_sets = conf->keep_sets,
                       .vocab_used = policy->conf.vocab};
    if (tok && tokenizer_vocab(tok) < policy->conf.vocab) engine->vocab_used = tokenizer_vocab(tok);
    arrays_open(engine, &sizes);
    pages_open(&engine->pages, sizes.pages);
    if (!tensors_open(engine, &sizes, err)) {
        engine_close(engine);
        return NULL;
    }
    return engine;
}

void engine_close(Engine *engine) {
    if (!engine) return;
    engine_cancel(engine);
    for (Sample sample; engine_take(engine, &sample);) sample_free(&sample);
    for (int s = 0; s < engine->n_slots; s++) {
        Slot *slot = &engine->slots[s];
        free(slot->tok);
        free(slot->logp);
        free(slot->draw_logp);
        buf_free(&slot->tail);
        buf_free(&slot->kept);
    }
    work_close(&engine->work, engine->policy);
    k_kv_free(engine->dev, &engine->kv);
    Ten *tensors[] = {&engine->hidden, &engine->picked, &engine->ready, &engine->logits, &engine->kept};
    for (int i = 0; i < 5; i++) k_free(engine->dev, tensors[i]);
    pages_close(&engine->pages);
    void *arrays[] = {engine->row_tok,    engine->row_pos, engine->row_page,  engine->row_slot,
                      engine->index,      engine->spans,   engine->table,     engine->prompt_table,
                      engine->shares,     engine->draws,   engine->drawn,     engine->slots,
                      engine->ready_free, engine->done,    engine->kept_host, engine};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(arrays[i]);
}
