/* ops_warp.c: what the lanes of a warp do together: shuffles, votes, bar.warp.sync, mma.sync. run.c has seen to it
 * that m holds every lane of the instruction's mask that lives, and no other. */
#include "tests/ptx/core.h"
#include "tests/ptx/half.h"

#define HANDLER(name) static void name(Warp *w, const Ins *in, uint32_t m)

/* The source of each lane; PTX ISA 9.7.9.6. */
static void shuffle(Warp *w, const Ins *in, uint32_t m, int mode) {
    const uint32_t *a = row(w, &in->o[1]), *b = row(w, &in->o[2]), *c = row(w, &in->o[3]);
    uint32_t t[32] = {0}, inside = 0;
    LANES ON(m) {
        int segment = (int)(c[l] >> 8 & 31), clamp = (int)(c[l] & 31), by = (int)(b[l] & 31);
        int last = (l & segment) | (clamp & ~segment), first = l & segment;
        int from = mode == 0 ? l - by : mode == 1 ? l + by : mode == 2 ? l ^ by : (first | (by & ~segment));
        bool ok = mode == 0 ? from >= last : from <= last;
        if (!ok)
            from = l;
        else
            inside |= 1u << l;
        if (!(m >> from & 1)) ptx_stop(w, 1u << l, "divergent", "reads lane %d, which takes no part", from);
        t[l] = a[from];
    }
    PUT(uint32_t, row_out(w, &in->o[0]), t, m);
    if (in->o[0].pair) pred_put(w, in->o[0].pair, inside, m);
}
HANDLER(shfl_up) { shuffle(w, in, m, 0); }
HANDLER(shfl_down) { shuffle(w, in, m, 1); }
HANDLER(shfl_bfly) { shuffle(w, in, m, 2); }
HANDLER(shfl_idx) { shuffle(w, in, m, 3); }

HANDLER(vote_all) { pred_put(w, in->o[0].off, (pred_get(w, &in->o[1]) & m) == m ? FULL : 0, m); }
HANDLER(vote_any) { pred_put(w, in->o[0].off, pred_get(w, &in->o[1]) & m ? FULL : 0, m); }
HANDLER(vote_uni) {
    uint32_t p = pred_get(w, &in->o[1]) & m;
    pred_put(w, in->o[0].off, p == m || p == 0 ? FULL : 0, m);
}
HANDLER(vote_ballot) {
    uint32_t t[32], p = pred_get(w, &in->o[1]) & m;
    LANES t[l] = p;
    PUT(uint32_t, row_out(w, &in->o[0]), t, m);
}

static void match(Warp *w, const Ins *in, uint32_t m, bool all) {
    uint64_t a[32];
    uint32_t t[32] = {0}, same = 0;
    row_get(w, &in->o[1], a);
    LANES ON(m) for (int k = 0; k < 32; k++) if (m >> k & 1 && a[k] == a[l]) t[l] |= 1u << k;
    if (all) {
        same = m && t[__builtin_ctz(m)] == m ? m : 0;
        LANES t[l] = same;
        if (in->o[0].pair) pred_put(w, in->o[0].pair, same ? FULL : 0, m);
    }
    PUT(uint32_t, row_out(w, &in->o[0]), t, m);
}
HANDLER(match_any) { match(w, in, m, false); }
HANDLER(match_all) { match(w, in, m, true); }

#define REDUX(name, T, start, expr)                                                                               \
    HANDLER(redux_##name) {                                                                                       \
        const T *pa = row(w, &in->o[1]);                                                                          \
        T r = start, t[32];                                                                                       \
        LANES ON(m) {                                                                                             \
            T a = pa[l];                                                                                          \
            r = (expr);                                                                                           \
        }                                                                                                         \
        LANES t[l] = r;                                                                                           \
        PUT(T, row_out(w, &in->o[0]), t, m);                                                                      \
    }
REDUX(add, uint32_t, 0, r + a)
REDUX(and, uint32_t, FULL, r &a)
REDUX(or, uint32_t, 0, r | a)
REDUX(xor, uint32_t, 0, r ^ a)
REDUX(min_u, uint32_t, FULL, a < r ? a : r)
REDUX(max_u, uint32_t, 0, a > r ? a : r)
REDUX(min_s, int32_t, INT32_MAX, a < r ? a : r)
REDUX(max_s, int32_t, INT32_MIN, a > r ? a : r)

/* The one of these that orders memory among its lanes. */
HANDLER(bar_warp) {
    (void)in;
    w->b->clock++;
    if (m == w->alive)
        w->sync_full = w->b->clock;
    else
        LANES ON(m) for (int k = 0; k < 32; k++) if (m >> k & 1) w->sync[l][k] = w->b->clock;
}

HANDLER(trap) {
    (void)in;
    ptx_stop(w, m, "trap", "trap");
}

/* ---- mma.sync; fragments as in PTX ISA 9.7.14.5 ---- */

typedef enum { MMA_BF16, MMA_F16, MMA_TF32 } MmaType;

static float mma_element(const uint32_t *const reg[4], MmaType type, int i,
                         int lane) { /* element i of a fragment */
    if (type == MMA_TF32) return f32_of(reg[i][lane] & ~0x1fffu);
    uint16_t h = (uint16_t)(reg[i / 2][lane] >> (16 * (i & 1)));
    return (float)(type == MMA_BF16 ? bf16_value(h) : f16_value(h));
}

/* D[16, 8] = A[16, K] B[K, 8] + C. The order of the sum over k, and when C joins it, follow from the seed:
 * hardware does not say, so nothing may depend on it. */
static void mma(Warp *w, const Ins *in, uint32_t m, MmaType type, int K) {
    if (m != FULL) ptx_stop(w, m, "divergent", "mma.sync with some lanes missing");
    const uint32_t *ra[4] = {0}, *rb[4] = {0};
    for (int i = 0; i < in->o[1].n; i++) ra[i] = row(w, &in->o[1].vec[i]);
    for (int i = 0; i < in->o[2].n; i++) rb[i] = row(w, &in->o[2].vec[i]);
    int pack = type == MMA_TF32 ? 1 : 2; /* neighbours in k that share a register */
    float A[16][16], B[16][8], D[16][8], C[16][8];
    LANES {
        int group = l >> 2, t = l & 3;
        for (int i = 0; i < 4 * pack * in->o[1].n / 4; i++) {
            int high = i / pack & 1, right = i / (2 * pack); /* row + 8; columns + 4 pack */
            A[group + 8 * high][t * pack + i % pack + 4 * pack * right] = mma_element(ra, type, i, l);
        }
        for (int i = 0; i < pack * in->o[2].n; i++)
            B[t * pack + i % pack + 4 * pack * (i / pack)][group] = mma_element(rb, type, i, l);
        for (int i = 0; i < 4; i++)
            C[group + 8 * (i >> 1)][t * 2 + (i & 1)] = ((const float *)row(w, &in->o[3].vec[i]))[l];
    }
    uint64_t seed = ptx_options.seed;
    int order[16];
    for (int k = 0; k < K; k++) order[k] = k;
    for (int k = K - 1; seed && k > 0; k--) {
        int j = (int)(ptx_hash(seed + (uint64_t)k) % (uint64_t)(k + 1)), swap = order[k];
        order[k] = order[j], order[j] = swap;
    }
    bool last = seed & 1; /* C joins at the end */
    if (last)
        memset(D, 0, sizeof D);
    else
        memcpy(D, C, sizeof D);
    for (int k = 0; k < K; k++)
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) D[i][j] += A[i][order[k]] * B[order[k]][j];
    if (last)
        for (int i = 0; i < 16; i++)
            for (int j = 0; j < 8; j++) D[i][j] += C[i][j];
    for (int i = 0; i < 4; i++) {
        float *d = row_out(w, &in->o[0].vec[i]);
        LANES d[l] = D[(l >> 2) + 8 * (i >> 1)][(l & 3) * 2 + (i & 1)];
    }
    w->c.flops += 2 * 16 * 8 * K;
}
HANDLER(mma_bf16_16) { mma(w, in, m, MMA_BF16, 16); }
HANDLER(mma_f16_16) { mma(w, in, m, MMA_F16, 16); }
HANDLER(mma_bf16_8) { mma(w, in, m, MMA_BF16, 8); }
HANDLER(mma_f16_8) { mma(w, in, m, MMA_F16, 8); }
HANDLER(mma_tf32_8) { mma(w, in, m, MMA_TF32, 8); }

/* The last number is 1 + the operand that holds the mask of lanes. */
#define E(key, fn, shape, member)                                                                                 \
    { key, fn, shape, PTX_SYNC, 0, member }
#define M(key, fn, shape)                                                                                         \
    { "mma.sync.aligned." key, fn, shape, PTX_MMA, 0, 0 }

const OpEntry ops_warp[] = {
    E("shfl.sync.up.b32", shfl_up, "44444", 5),
    E("shfl.sync.down.b32", shfl_down, "44444", 5),
    E("shfl.sync.bfly.b32", shfl_bfly, "44444", 5),
    E("shfl.sync.idx.b32", shfl_idx, "44444", 5),
    E("vote.sync.all.pred", vote_all, "pp4", 3),
    E("vote.sync.any.pred", vote_any, "pp4", 3),
    E("vote.sync.uni.pred", vote_uni, "pp4", 3),
    E("vote.sync.ballot.b32", vote_ballot, "4p4", 3),
    E("match.any.sync.b32", match_any, "444", 3),
    E("match.any.sync.b64", match_any, "484", 3),
    E("match.all.sync.b32", match_all, "444", 3),
    E("match.all.sync.b64", match_all, "484", 3),
    E("redux.sync.add.u32", redux_add, "444", 3),
    E("redux.sync.add.s32", redux_add, "444", 3),
    E("redux.sync.and.b32", redux_and, "444", 3),
    E("redux.sync.or.b32", redux_or, "444", 3),
    E("redux.sync.xor.b32", redux_xor, "444", 3),
    E("redux.sync.min.u32", redux_min_u, "444", 3),
    E("redux.sync.max.u32", redux_max_u, "444", 3),
    E("redux.sync.min.s32", redux_min_s, "444", 3),
    E("redux.sync.max.s32", redux_max_s, "444", 3),
    E("bar.warp.sync", bar_warp, "4", 1),
    {"trap", trap, "", PTX_FLOW, 0, 0},
    M("m16n8k16.row.col.f32.bf16.bf16.f32", mma_bf16_16, "v4v4v2v4"),
    M("m16n8k16.row.col.f32.f16.f16.f32", mma_f16_16, "v4v4v2v4"),
    M("m16n8k8.row.col.f32.bf16.bf16.f32", mma_bf16_8, "v4v2v1v4"),
    M("m16n8k8.row.col.f32.f16.f16.f32", mma_f16_8, "v4v2v1v4"),
    M("m16n8k8.row.col.f32.tf32.tf32.f32", mma_tf32_8, "v4v4v2v4"),
    {NULL, NULL, NULL, 0, 0, 0},
};
