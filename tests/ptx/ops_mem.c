/* ops_mem.c: loads, stores, atomics, cp.async, ldmatrix: each access is looked up, checked and counted. */
#include <pthread.h>
#include <stdlib.h>

#include "tests/ptx/core.h"
#include "tests/ptx/half.h"

/* Where the bytes of each lane lie. state: a byte a byte, 0 unwritten, 1 written, 2 no memory. */
typedef struct {
    uint64_t address[32];
    char *data[32];
    uint8_t *state[32];
    Alloc *alloc[32];
    uint32_t m;
    Space space;
    int bytes;
} Access32;

static void addresses(const Warp *w, const Opd *o, uint64_t a[32]) {
    if (o->fixed) {
        LANES a[l] = (uint64_t)o->disp;
    } else if (o->width == 8) {
        const uint64_t *r = row(w, o);
        LANES a[l] = r[l] + (uint64_t)o->disp;
    } else {
        const uint32_t *r = row(w, o);
        LANES a[l] = (uint32_t)(r[l] + (uint32_t)o->disp);
    }
}

static void find_global(Warp *w, Access32 *x, int l, bool store) {
    uint64_t a = x->address[l];
    Alloc *al = l > 0 && x->alloc[l - 1] && a - x->alloc[l - 1]->address < x->alloc[l - 1]->bytes ? x->alloc[l - 1]
                                                                                                  : alloc_find(a);
    if (!al || a < al->address || a - al->address + (uint64_t)x->bytes > al->bytes)
        ptx_stop(w, 1u << l, "bounds-global", "%d bytes at %s", x->bytes, ptx_describe(a));
    if (al->freed) ptx_stop(w, 1u << l, "freed", "%d bytes at %s", x->bytes, ptx_describe(a));
    if (store && al->constant) ptx_stop(w, 1u << l, "read-only", "%d bytes at %s", x->bytes, ptx_describe(a));
    x->alloc[l] = al;
    x->data[l] = al->data + (a - al->address);
    x->state[l] = al->written + (a - al->address);
}

static void find_shared(Warp *w, Access32 *x, int l) {
    Block *b = w->b;
    uint64_t a = x->address[l];
    bool inside = a < b->n_shared && (uint64_t)x->bytes <= b->n_shared - a;
    for (int i = 0; inside && i < x->bytes; i++) inside = b->state[a + (uint64_t)i] != 2;
    if (!inside)
        ptx_stop(w, 1u << l, "bounds-shared",
                 "%d bytes at 0x%llx: static shared memory has %d bytes, dynamic %zu from 0x%x on", x->bytes,
                 (unsigned long long)a, b->l->f->shared_used + b->l->m->shared_used, b->l->dyn, b->l->m->dyn);
    x->data[l] = b->shared + a;
    x->state[l] = b->state + a;
}

static void find_lane(Warp *w, Access32 *x, int l, bool store) {
    const PtxModule *m = w->b->l->m;
    uint64_t a = x->address[l];
    static uint8_t always[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    if (x->space == SPACE_LOCAL) {
        if (a >= (uint64_t)m->local || (uint64_t)x->bytes > (uint64_t)m->local - a)
            ptx_stop(w, 1u << l, "bounds-local", "%d bytes at %llu of %d", x->bytes, (unsigned long long)a,
                     m->local);
        x->data[l] = w->local + (size_t)l * (size_t)m->local + a;
        x->state[l] = w->local_state + (size_t)l * (size_t)m->local + a;
        return;
    }
    bool lane = WINDOW(a) == PARAM_WINDOW; /* of a function, else of the kernel */
    uint64_t off = OFFSET(a), size = lane ? (uint64_t)m->lane_param : (uint64_t)w->b->l->f->param_bytes;
    if (off >= size || (uint64_t)x->bytes > size - off || (store && !lane))
        ptx_stop(w, 1u << l, "bounds-param", "%d bytes at %llu of %llu", x->bytes, (unsigned long long)off,
                 (unsigned long long)size);
    x->data[l] = lane ? w->param + (size_t)l * size + off : (char *)(uintptr_t)(w->b->l->params + off);
    x->state[l] = always;
}

/* ---- counters ---- */

static void count_global(Warp *w, const Access32 *x) {
    uint64_t seen[64];
    int n = 0;
    LANES ON(x->m) {
        for (uint64_t s = x->address[l] >> 5; s <= (x->address[l] + (uint64_t)x->bytes - 1) >> 5; s++) {
            int k = n;
            while (k > 0 && seen[k - 1] != s) k--;
            if (k == 0) seen[n++] = s;
        }
    }
    w->c.requests++;
    w->c.sectors += n;
    w->c.bytes += (long long)x->bytes * __builtin_popcount(x->m);
}

/* Lanes go in groups of 32, 16 or 8, as 4, 8 or 16 bytes each; in a group, a bank gives one word a pass. */
static void count_shared(Warp *w, const Access32 *x) {
    int group = x->bytes <= 4 ? 32 : x->bytes <= 8 ? 16 : 8, passes = 0;
    for (int first = 0; first < 32; first += group) {
        uint32_t word[32][32];
        int n[32] = {0}, most = 0;
        for (int l = first; l < first + group; l++) {
            if (!(x->m >> l & 1)) continue;
            for (uint32_t a = (uint32_t)x->address[l] >> 2;
                 a <= ((uint32_t)x->address[l] + (uint32_t)x->bytes - 1) >> 2; a++) {
                int bank = a & 31, k = 0;
                while (k < n[bank] && word[bank][k] != a) k++;
                if (k < n[bank]) continue;
                word[bank][n[bank]++] = a;
                if (n[bank] > most) most = n[bank];
            }
        }
        passes += most;
    }
    w->c.shared_requests++;
    w->c.wavefronts += passes;
}

/* ---- an access of the lanes of m, all in one space ---- */

static bool written(const uint8_t *state, int bytes) {
    for (int i = 0; i < bytes; i++)
        if (state[i] != 1) return false;
    return true;
}

/* Whole warp, one allocation, one address after the other: found at once. */
static bool find_row(Access32 *x, bool store) {
    if (x->m != FULL || x->space != SPACE_GLOBAL) return false;
    uint64_t a = x->address[0], step = (uint64_t)x->bytes, wrong = 0;
    LANES wrong |= x->address[l] ^ (a + step * (uint64_t)l);
    if (wrong) return false;
    Alloc *al = alloc_find(a);
    if (!al || al->freed || (store && al->constant) || a < al->address || a - al->address + 32 * step > al->bytes)
        return false;
    LANES {
        x->alloc[l] = al;
        x->data[l] = al->data + (x->address[l] - al->address);
        x->state[l] = al->written + (x->address[l] - al->address);
    }
    return true;
}

static void check(Warp *w, Access32 *x, Access a) {
    bool store = a != ACCESS_READ;
    uint64_t odd = 0;
    LANES ON(x->m) odd |= x->address[l] & (uint64_t)(x->bytes - 1);
    if (odd)
        LANES ON(x->m) if (x->address[l] & (uint64_t)(x->bytes - 1)) ptx_stop(
            w, 1u << l, "misaligned", "%d bytes at address 0x%llx", x->bytes, (unsigned long long)x->address[l]);
    if (!find_row(x, store)) {
        LANES {
            x->alloc[l] = NULL;
            ON(x->m) {
                if (x->space == SPACE_GLOBAL)
                    find_global(w, x, l, store);
                else if (x->space == SPACE_SHARED)
                    find_shared(w, x, l);
                else
                    find_lane(w, x, l, store);
            }
        }
    }
    if (ptx_options.races && x->space == SPACE_SHARED)
        LANES ON(x->m) shadow_shared(w, l, (uint32_t)x->address[l], x->bytes, a);
    if (ptx_options.races && x->space == SPACE_GLOBAL)
        LANES ON(x->m) shadow_global(w, l, x->alloc[l], x->address[l] - x->alloc[l]->address, x->bytes, a);
    static const char *const names[] = {"", "uninit-global", "uninit-shared", "uninit-local", "", ""};
    if (a != ACCESS_WRITE && ptx_options.uninit)
        LANES ON(x->m) if (!written(x->state[l], x->bytes)) ptx_stop(
            w, 1u << l, names[x->space], "reads %d bytes that nobody wrote, at %s0x%llx%s%s", x->bytes,
            x->space == SPACE_GLOBAL ? "" : "offset ", (unsigned long long)x->address[l],
            x->space == SPACE_GLOBAL ? ": " : "", x->space == SPACE_GLOBAL ? ptx_describe(x->address[l]) : "");
    if (store && x->space != SPACE_PARAM) LANES ON(x->m) memset(x->state[l], 1, (size_t)x->bytes);
    if (!ptx_options.counters) return;
    if (x->space == SPACE_GLOBAL) count_global(w, x);
    if (x->space == SPACE_SHARED) count_shared(w, x);
}

static uint64_t element(const char *p, int type, int width) {
    uint64_t v = 0;
    memcpy(&v, p, (size_t)width);
    if (type == T_S8) return (uint64_t)(int64_t)(int8_t)v;
    if (type == T_S16) return (uint64_t)(int64_t)(int16_t)v;
    if (type == T_S32) return (uint64_t)(int64_t)(int32_t)v;
    return v;
}

static void move_load(Warp *w, const Ins *in, const Access32 *x) {
    const Opd *v = &in->o[0];
    for (int i = 0; i < v->n; i++) {
        if (v->vec[i].kind == OPD_SINK) continue;
        if (in->width == 4 && v->vec[i].width == 4) {
            uint32_t *d = row_out(w, &v->vec[i]);
            LANES ON(x->m) memcpy(&d[l], x->data[l] + 4 * i, 4);
        } else if (in->width == 2 && v->vec[i].width == 2) {
            uint16_t *d = row_out(w, &v->vec[i]);
            LANES ON(x->m) memcpy(&d[l], x->data[l] + 2 * i, 2);
        } else {
            uint64_t t[32];
            LANES ON(x->m) t[l] = element(x->data[l] + in->width * i, in->type, in->width);
            row_put(w, &v->vec[i], t, x->m);
        }
    }
}

static void move_store(Warp *w, const Ins *in, const Access32 *x) {
    const Opd *v = &in->o[0];
    for (int i = 0; i < v->n; i++) {
        const char *r = row(w, &v->vec[i]);
        int step = v->vec[i].width;
        if (in->width == 4) LANES {
                ON(x->m) memcpy(x->data[l] + 4 * i, r + l * step, 4);
            }
        else if (in->width == 2)
            LANES { ON(x->m) memcpy(x->data[l] + 2 * i, r + l * step, 2); }
        else
            LANES ON(x->m) memcpy(x->data[l] + in->width * i, r + l * step, in->width);
    }
}

/* A generic address is sorted into the spaces. run is called for each that occurs. */
static void by_space(Warp *w, const Ins *in, Access32 *x, uint32_t m,
                     void (*run)(Warp *, const Ins *, Access32 *)) {
    x->m = m;
    x->space = in->space == SPACE_CONST ? SPACE_GLOBAL : (Space)in->space;
    if (in->space != SPACE_GENERIC) {
        run(w, in, x);
        return;
    }
    static const struct {
        uint64_t window;
        Space space;
    } windows[] = {{0, SPACE_GLOBAL}, {SHARED_WINDOW, SPACE_SHARED}, {LOCAL_WINDOW, SPACE_LOCAL}};
    uint64_t generic[32];
    memcpy(generic, x->address, sizeof generic);
    uint32_t rest = m;
    for (int i = 0; i < 3; i++) {
        x->m = 0;
        LANES ON(rest) if (WINDOW(generic[l]) == windows[i].window) x->m |= 1u << l;
        if (!x->m) continue;
        rest &= ~x->m;
        LANES x->address[l] = i ? OFFSET(generic[l]) : generic[l];
        x->space = windows[i].space;
        run(w, in, x);
    }
    if (rest)
        ptx_stop(w, rest, "bounds-global", "a wild address: 0x%llx",
                 (unsigned long long)generic[__builtin_ctz(rest)]);
}

static void run_load(Warp *w, const Ins *in, Access32 *x) {
    check(w, x, ACCESS_READ);
    move_load(w, in, x);
}
static void run_store(Warp *w, const Ins *in, Access32 *x) {
    check(w, x, ACCESS_WRITE);
    move_store(w, in, x);
}

void exec_ld(Warp *w, const Ins *in, uint32_t m) {
    Access32 x = {.bytes = in->width * in->vec};
    addresses(w, &in->o[1], x.address);
    if (in->space == SPACE_PARAM && in->o[1].fixed && WINDOW(x.address[0]) == 0 &&
        in->vec == 1) { /* of the kernel */
        x.m = m, x.space = SPACE_PARAM;
        find_lane(w, &x, 0, false);
        uint64_t t[32], v = element(x.data[0], in->type, in->width);
        LANES t[l] = v;
        row_put(w, &in->o[0].vec[0], t, m);
        return;
    }
    by_space(w, in, &x, m, run_load);
}
void exec_st(Warp *w, const Ins *in, uint32_t m) {
    Access32 x = {.bytes = in->width * in->vec};
    addresses(w, &in->o[1], x.address);
    by_space(w, in, &x, m, run_store);
}

/* ---- atomics ---- */

static pthread_mutex_t atomics = PTHREAD_MUTEX_INITIALIZER;

static uint64_t atom_integer(const Ins *in, uint64_t old, uint64_t b, uint64_t c) {
    bool sign = in->type == T_S32 || in->type == T_S64;
    bool less = sign ? (int64_t)b < (int64_t)old : b < old;
    switch (in->sub) {
    case 0:
        return old + b;
    case 1:
        return less ? b : old;
    case 2:
        return less ? old : b;
    case 3:
        return old >= b ? 0 : old + 1;
    case 4:
        return old == 0 || old > b ? b : old - 1;
    case 5:
        return old & b;
    case 6:
        return old | b;
    case 7:
        return old ^ b;
    case 8:
        return b;
    default:
        return old == b ? c : old; /* cas */
    }
}

static uint64_t atom_value(Warp *w, const Ins *in, uint64_t old, uint64_t b, uint64_t c) {
    uint64_t r = 0;
    if (in->type == T_F32 || in->type == T_F64) {
        if (in->sub != 0) ptx_stop(w, w->ran, "trap", "unknown instruction");
        if (in->type == T_F32) return f32_bits(f32_of((uint32_t)old) + f32_of((uint32_t)b));
        double x, y;
        memcpy(&x, &old, 8), memcpy(&y, &b, 8);
        x += y;
        memcpy(&r, &x, 8);
        return r;
    }
    if (in->type == T_BF16X2 || in->type == T_F16X2 || in->type == T_F16 || in->type == T_BF16)
        ptx_stop(w, w->ran, "trap", "unknown instruction");
    return atom_integer(in, old, b, c);
}

static void run_atom(Warp *w, const Ins *in, Access32 *x) {
    check(w, x, ACCESS_ATOMIC);
    uint64_t b[32], c[32] = {0}, old[32] = {0};
    row_get(w, &in->o[2], b);
    if (in->n > 3) row_get(w, &in->o[3], c);
    int turn = ptx_options.seed ? (int)(rng_next(&w->b->rng) & 31) : 0; /* any order is legal */
    bool locked = ptx_options.threads > 1 && x->space == SPACE_GLOBAL;
    for (int k = 0; k < 32; k++) {
        int l = k ^ turn;
        if (!(x->m >> l & 1)) continue;
        if (locked) pthread_mutex_lock(&atomics);
        old[l] = element(x->data[l], in->type, in->width);
        if (in->type == T_S32) b[l] = (uint64_t)(int64_t)(int32_t)b[l];
        uint64_t v = atom_value(w, in, old[l], b[l], c[l]);
        memcpy(x->data[l], &v, in->width);
        if (locked) pthread_mutex_unlock(&atomics);
    }
    row_put(w, &in->o[0], old, x->m);
}
void exec_atom(Warp *w, const Ins *in, uint32_t m) {
    Access32 x = {.bytes = in->width};
    addresses(w, &in->o[1], x.address);
    by_space(w, in, &x, m, run_atom);
}

/* ---- cp.async ----
 * The bytes arrive at the wait, or, for about half of them by the seed, at once; until the wait nobody may look.
 */

static void land(Warp *w, const Copy *c) {
    char *to = w->b->shared + c->dst;
    const char *why;
    const void *from = c->take ? ptx_memory(c->src, c->take, &why) : NULL;
    if (from) memcpy(to, from, c->take);
    memset(to + c->take, 0, (size_t)(c->bytes - c->take));
}

void exec_cp_async(Warp *w, const Ins *in, uint32_t m) {
    Access32 to = {.bytes = in->width, .m = m, .space = SPACE_SHARED},
             from = {.bytes = in->width, .m = m, .space = SPACE_GLOBAL};
    addresses(w, &in->o[0], to.address);
    addresses(w, &in->o[1], from.address);
    uint32_t take[32], ignore = 0;
    LANES take[l] = in->width;
    if (in->n == 3 && in->o[2].kind == OPD_PRED)
        ignore = pred_get(w, &in->o[2]);
    else if (in->n == 3)
        memcpy(take, row(w, &in->o[2]), sizeof take);
    LANES ON(ignore) take[l] = 0;
    LANES ON(m) {
        if (take[l] > in->width) ptx_stop(w, 1u << l, "cp-async", "takes %u bytes of %d", take[l], in->width);
        if (take[l] == 0) from.m &= ~(1u << l); /* the address is not looked at */
        if (to.address[l] % in->width)
            ptx_stop(w, 1u << l, "misaligned", "%d bytes at shared address 0x%llx", in->width,
                     (unsigned long long)to.address[l]);
        find_shared(w, &to, l);
    }
    LANES ON(from.m) if (take[l] < in->width) { /* zero-filled tail: only the head is read */
        if (from.address[l] % in->width)
            ptx_stop(w, 1u << l, "misaligned", "cp.async from 0x%llx", (unsigned long long)from.address[l]);
        Access32 part = {.bytes = (int)take[l], .m = 1u << l, .space = SPACE_GLOBAL};
        part.address[l] = from.address[l];
        find_global(w, &part, l, false);
        from.m &= ~(1u << l);
    }
    if (from.m) check(w, &from, ACCESS_READ);
    if (ptx_options.counters) count_shared(w, &to);
    LANES ON(m) {
        if (ptx_options.races) shadow_async(w, l, (uint32_t)to.address[l], in->width, true);
        if (w->n_copies == w->cap_copies) {
            w->cap_copies = w->cap_copies ? 2 * w->cap_copies : 256;
            w->copies = realloc(w->copies, sizeof *w->copies * (size_t)w->cap_copies);
            if (!w->copies) abort();
        }
        Copy c = {.dst = (uint32_t)to.address[l],
                  .src = from.address[l],
                  .bytes = in->width,
                  .take = (uint8_t)take[l],
                  .lane = (uint8_t)l,
                  .group = -1};
        memset(to.state[l], 0, in->width);
        if (ptx_options.seed && rng_next(&w->b->rng) & 1) land(w, &c);
        w->copies[w->n_copies++] = c;
    }
}

void exec_cp_commit(Warp *w, const Ins *in, uint32_t m) {
    (void)in;
    for (int i = 0; i < w->n_copies; i++)
        if (w->copies[i].group < 0 && m >> w->copies[i].lane & 1)
            w->copies[i].group = w->groups[w->copies[i].lane];
    LANES ON(m) w->groups[l]++;
}

/* All groups but the last keep of each lane are complete; keep -1: also what was not committed. */
void copies_land(Warp *w, uint32_t lanes, int keep) {
    int left = 0;
    for (int i = 0; i < w->n_copies; i++) {
        Copy c = w->copies[i];
        bool done = keep < 0 || (c.group >= 0 && c.group < w->groups[c.lane] - keep);
        if (!(lanes >> c.lane & 1) || !done) {
            w->copies[left++] = c;
            continue;
        }
        land(w, &c);
        memset(w->b->state + c.dst, 1, c.bytes);
        if (ptx_options.races) shadow_async(w, c.lane, c.dst, c.bytes, false);
    }
    w->n_copies = left;
}
void exec_cp_wait(Warp *w, const Ins *in, uint32_t m) { copies_land(w, m, in->type ? -1 : in->sub); }

/* ---- ldmatrix ----
 * Lanes 8i .. 8i+7 give the addresses of the rows (8 elements, 16 bytes) of matrix i; lane l gets of it elements
 * 2 (l % 4) and the next of row l / 4; transposed: of column l / 4, rows 2 (l % 4) and the next. */
void exec_ldmatrix(Warp *w, const Ins *in, uint32_t m) {
    if (m != FULL) ptx_stop(w, m, "divergent", "ldmatrix with some lanes missing");
    Access32 x = {.bytes = 16, .space = SPACE_SHARED};
    x.m = in->vec == 4 ? FULL : (1u << (8 * in->vec)) - 1;
    addresses(w, &in->o[1], x.address);
    check(w, &x, ACCESS_READ);
    for (int i = 0; i < in->vec; i++) {
        uint32_t *d = row_out(w, &in->o[0].vec[i]);
        LANES {
            uint16_t two[2];
            for (int k = 0; k < 2; k++) {
                int r = in->sub ? 2 * (l & 3) + k : l >> 2, c = in->sub ? l >> 2 : 2 * (l & 3) + k;
                memcpy(&two[k], x.data[8 * i + r] + 2 * c, 2);
            }
            d[l] = (uint32_t)two[1] << 16 | two[0];
        }
    }
}
