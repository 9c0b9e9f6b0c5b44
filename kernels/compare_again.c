/* compare_again.c: steps that come again (k_again): with what the device kept of them, and with every op called.
 */
#include "kernels/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Decoding of a few sequences: embedding, rotary and pages, attention, a product that is added to what was there,
 * and, in some of the steps, one op more. Sequences begin at different positions, pass the ends of pages, stop and
 * go on. */
enum {
    SLOTS = 4,
    STEPS = 14,
    HEADS = 6,
    GROUPS = 2,
    DIM = 10,
    WIDE = (HEADS + 2 * GROUPS) * DIM,
    OUT = 21,
    VOCAB = 40
};
enum { SEQ_PAGES = 2, PAGES = SLOTS * SEQ_PAGES };

typedef struct {
    Dev *dev;
    Mat embed, w;
    Ten x, q, o, y, cos, sin;
    Kv kv;
} Layer;

static Layer layer_open(Dev *dev, DType type, const real *numbers) {
    Err err = {0};
    Layer l = {.dev = dev};
    Ten wide = k_new(dev, VOCAB, WIDE, K_REAL, &err), w = k_new(dev, OUT, HEADS * DIM, K_REAL, &err);
    l.embed = k_mat_new(dev, VOCAB, WIDE, K_REAL, false, &err),
    l.w = k_mat_new(dev, OUT, HEADS * DIM, type, false, &err);
    l.x = k_new(dev, SLOTS, WIDE, K_REAL, &err), l.y = k_new(dev, SLOTS, OUT, K_REAL, &err);
    l.q = k_new(dev, SLOTS, HEADS * DIM, type, &err), l.o = k_new(dev, SLOTS, HEADS * DIM, type, &err);
    l.cos = k_new(dev, SEQ_PAGES * KV_PAGE, DIM / 2, K_REAL, &err);
    l.sin = k_new(dev, SEQ_PAGES * KV_PAGE, DIM / 2, K_REAL, &err);
    l.kv = k_kv_new(dev, PAGES, 2, GROUPS, DIM, type, false, &err);
    if (*err.msg) die("%s", err.msg);
    host_put(dev, wide, numbers), host_put(dev, w, numbers);
    host_put(dev, l.cos, numbers), host_put(dev, l.sin, numbers + 7);
    k_mat_pack(dev, &l.embed, wide, 0), k_mat_pack(dev, &l.w, w, 0);
    k_free(dev, &wide), k_free(dev, &w);
    return l;
}

static void layer_close(Layer *l) {
    Ten *all[] = {&l->x, &l->q, &l->o, &l->y, &l->cos, &l->sin};
    for (int i = 0; i < 6; i++) k_free(l->dev, all[i]);
    k_mat_free(l->dev, &l->embed), k_mat_free(l->dev, &l->w), k_kv_free(l->dev, &l->kv);
}

typedef struct {
    int tok[SLOTS], pos[SLOTS], page[SLOTS], table[SLOTS * SEQ_PAGES];
    KvSpan spans[SLOTS];
    Rows rows;
} Batch;

/* Step t: sequences 0 .. busy-1 are `t` tokens on, what is left is padding. */
static void batch_of(Batch *b, int t) {
    static const int begin[SLOTS] = {29, 0, 23, 40}, busy[STEPS] = {4, 4, 4, 3, 3, 3, 2, 2, 2, 4, 3, 3, 1, 3};
    for (int i = 0; i < SLOTS * SEQ_PAGES; i++) b->table[i] = (i * 3 + 1) % PAGES;
    for (int s = 0; s < SLOTS; s++) {
        bool on = s < busy[t];
        b->tok[s] = on ? (11 * t + 5 * s) % VOCAB : 0, b->pos[s] = on ? begin[s] + t : 0;
        b->page[s] = on ? b->table[s * SEQ_PAGES + b->pos[s] / KV_PAGE] : -1;
        b->spans[s] = (KvSpan){.row0 = s, .n = on, .pos0 = b->pos[s], .table = on ? s * SEQ_PAGES : 0, .group = s};
    }
    b->rows = (Rows){.m = SLOTS, .tok = b->tok, .pos = b->pos, .page = b->page, .n_spans = SLOTS};
    b->rows.spans = b->spans, b->rows.table = b->table;
}

/* The numbers of every step: o of all rows, y of those that are no padding. */
static size_t run(Layer *l, real *out) {
    Dev *dev = l->dev;
    size_t n = 0;
    for (int t = 0; t < STEPS; t++) {
        Batch b;
        size_t more = t % 5 == 4; /* the key: whether there is one op more */
        batch_of(&b, t);
        if (t == STEPS - 3) { /* a tensor moves: another takes its place in memory */
            Err err = {0};
            Ten y = k_new(dev, SLOTS, OUT, K_REAL, &err);
            if (!y.p) die("%s", err.msg);
            k_copy(dev, y, l->y);
            k_free(dev, &l->y);
            l->y = y;
        }
        if (k_again(dev, &b.rows, &more, sizeof more)) {
            k_embed(dev, l->x, &l->embed, &b.rows);
            k_qkv(dev, l->q, &l->kv, 1, l->x, &b.rows, l->cos, l->sin);
            k_attend(dev, l->o, TEN_NONE, l->q, &l->kv, 1, &b.rows, (real)0.3, 0, 0);
            k_matmul(dev, l->y, l->o, &l->w, TEN_NONE, l->y);
            if (more) k_scale(dev, l->y, l->y, (real)0.5);
            k_again_end(dev);
        }
        Ten read[] = {l->o, l->y};
        for (int i = 0; i < 2; i++) {
            real *host = host_of(dev, read[i]);
            memcpy(out + n, host, (size_t)SLOTS * (size_t)read[i].cols * sizeof *host);
            n += (size_t)SLOTS * (size_t)read[i].cols;
            free(host);
        }
    }
    return n;
}

void compare_again(Compare *c) {
    for (int type = K_REAL; type <= K_BF16; type++) {
        const char *shape = type == K_BF16 ? "decoding, bf16" : "decoding, fp32";
        real *numbers = host_random(c, VOCAB * WIDE, 1, (DType)type), *out[3];
        size_t n = 0;
        for (int i = 0; i < 3; i++) { /* kept, called one by one, the CPU's */
            Layer l = layer_open(c->dev[i == 2], (DType)type, numbers);
            out[i] = MEM_ARRAY(real, STEPS * SLOTS * (HEADS * DIM + OUT));
            if (i == 1) dev_again(l.dev, false);
            n = run(&l, out[i]);
            dev_again(l.dev, true);
            layer_close(&l);
        }
        compare_true(c, "again, as one call", shape, memcmp(out[0], out[1], n * sizeof *out[0]) == 0);
        compare_numbers(c, "again", shape, out[0], out[2], n, type == K_BF16 ? 0x1p-6 : 0x1p-16);
        for (int i = 0; i < 3; i++) free(out[i]);
        free(numbers);
    }
}
