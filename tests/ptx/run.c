/* run.c: launches: blocks, warps, the lanes that part and meet again, barriers.
 *
 * The lanes of a warp that are at one place are a fragment. Of the fragments that can go on, the deepest call goes
 * first, then the lowest instruction; fragments that meet are joined. At an instruction that lanes do together, a
 * fragment waits until every living lane of the mask is there; when nothing else can go on, that is an error. */
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/ptx/core.h"
#include "tests/ptx/parse.h"

PtxOptions ptx_options = {.races = true, .uninit = true, .counters = true, .threads = 1, .budget = 200000000};
static uint32_t serials = 0;
static long long launches = 0;
long long ptx_launches(void) { return launches; }

uint64_t ptx_hash(uint64_t x) { /* splitmix64 */
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

void ptx_stop(Warp *w, uint32_t lanes, const char *check, const char *format, ...) {
    Block *b = w->b;
    const Launch *l = b->l;
    va_list args;
    int n = snprintf(b->message, sizeof b->message, "%s: %s, block (%u,%u,%u), thread %d: ", check, l->f->name,
                     b->id[0], b->id[1], b->id[2], 32 * w->index + (lanes ? __builtin_ctz(lanes) : 0));
    va_start(args, format);
    n += vsnprintf(b->message + n, sizeof b->message - (size_t)n, format, args);
    va_end(args);
    if (w->in && n < (int)sizeof b->message) {
        const char *file =
            w->in->file < l->m->n_files && l->m->files[w->in->file] ? l->m->files[w->in->file] : l->m->name;
        bool source = file != l->m->name && w->in->source;
        snprintf(b->message + n, sizeof b->message - (size_t)n, ", at %s:%d: %s", file,
                 source ? w->in->source : w->in->line, w->in->text);
    }
    longjmp(b->stop, 1);
}

/* ---- a warp ---- */

static Frag *choose(Warp *w) {
    Frag *best = NULL;
    for (int i = 0; i < w->n_frag; i++) {
        Frag *f = &w->frag[i];
        if (f->waits) continue;
        if (!best || f->depth > best->depth || (f->depth == best->depth && f->pc < best->pc)) best = f;
    }
    return best;
}

/* Joins to f those that are where it is; f may move. */
static Frag *join(Warp *w, Frag *f) {
    for (int i = 0; i < w->n_frag; i++) {
        Frag *o = &w->frag[i];
        if (o == f || o->pc != f->pc || o->depth != f->depth) continue;
        f->mask |= o->mask;
        f->waits = false;
        *o = w->frag[--w->n_frag];
        if (f == &w->frag[w->n_frag]) f = o;
        i = -1;
    }
    return f;
}

static void part(Warp *w, Frag *f, uint32_t mask, uint32_t pc) { /* lanes of f go elsewhere */
    f->mask &= ~mask;
    w->frag[w->n_frag++] = (Frag){.pc = pc, .mask = mask, .depth = f->depth};
}

static void forget(Warp *w, Frag *f) { *f = w->frag[--w->n_frag]; }

static void branch_table(Warp *w, Frag *f, const Ins *in, uint32_t m) {
    const uint32_t *index = row(w, &in->o[0]);
    uint32_t rest = f->mask & ~m;
    while (m) {
        uint32_t i = index[__builtin_ctz(m)], same = 0;
        if (i >= (uint32_t)in->targets[0]) ptx_stop(w, m, "trap", "branch %u of a table of %d", i, in->targets[0]);
        LANES ON(m) if (index[l] == i) same |= 1u << l;
        m &= ~same;
        if (m || rest)
            part(w, f, same, (uint32_t)in->targets[1 + i]);
        else
            f->pc = (uint32_t)in->targets[1 + i];
    }
    if (rest) f->pc++;
    if (!f->mask) forget(w, f);
}

static void lane_copy(Warp *w, uint32_t m, const int32_t *list, int n, bool back) {
    size_t each = (size_t)w->b->l->m->lane_param;
    for (int i = 0; i < n; i++, list += 3) LANES ON(m) {
            char *p = w->param + (size_t)l * each;
            memmove(p + list[back ? 0 : 1], p + list[back ? 1 : 0], (size_t)list[2]);
        }
}

/* printf prints its format alone; a failed assert stops the run. Others are not known. */
static void call_outside(Warp *w, const Func *f, const Ins *in, uint32_t m) {
    const char *text = "", *why;
    if (in->targets[0] > 0) {
        uint64_t address;
        memcpy(&address, w->param + (size_t)__builtin_ctz(m) * (size_t)w->b->l->m->lane_param + in->targets[2], 8);
        text = ptx_memory(address, 1, &why);
        if (!text) text = "";
    }
    if (strcmp(f->name, "vprintf") == 0)
        fputs(text, stderr);
    else if (strcmp(f->name, "__assertfail") == 0)
        ptx_stop(w, m, "trap", "assertion failed: %s", text);
    else
        ptx_stop(w, m, "trap", "call of '%s', which is not known", f->name);
}

static void call(Warp *w, Frag *f, const Ins *in, uint32_t m) {
    const Func *g = (const Func *)(intptr_t)in->o[0].disp;
    if (!g->defined) {
        call_outside(w, g, in, m);
        f->pc++;
        return;
    }
    if (f->depth + 1 >= MAX_DEPTH) ptx_stop(w, m, "trap", "calls too deep");
    if (m != f->mask) { /* the others go on; these become a fragment of their own */
        uint32_t pc = f->pc;
        f->pc++;
        part(w, f, m, pc);
        f = &w->frag[w->n_frag - 1];
    }
    lane_copy(w, m, in->targets + 2, in->targets[0], false);
    LANES ON(m) w->ret[f->depth][l] = (int32_t)f->pc;
    f->pc = (uint32_t)g->first;
    f->depth++;
}

static void leave(Warp *w, Frag *f, uint32_t m) { /* back from a function: maybe to different callers */
    if (m != f->mask) {
        uint32_t pc = f->pc;
        f->pc++;
        part(w, f, m, pc);
        f = &w->frag[w->n_frag - 1];
    }
    int depth = f->depth - 1;
    while (m) {
        int32_t to = w->ret[depth][__builtin_ctz(m)];
        uint32_t same = 0;
        LANES ON(m) if (w->ret[depth][l] == to) same |= 1u << l;
        const Ins *in = &w->b->l->m->code[to];
        lane_copy(w, same, in->targets + 2 + 3 * in->targets[0], in->targets[1], true);
        m &= ~same;
        if (m)
            part(w, f, same, (uint32_t)to + 1), w->frag[w->n_frag - 1].depth = depth;
        else
            f->pc = (uint32_t)to + 1, f->depth = depth;
    }
}

static void leave_kernel(Warp *w, Frag *f, uint32_t m) {
    w->alive &= ~m;
    f->mask &= ~m;
    f->pc++;
    if (!f->mask) forget(w, f);
    for (int i = 0; i < w->n_frag; i++) w->frag[i].waits = false; /* there are fewer to wait for */
}

/* An instruction that lanes do together. False: f has to wait. */
static bool together(Warp *w, Frag *f, const Ins *in, uint32_t m) {
    if (in->member < 0) {
        if (f->mask != w->alive) return false;
        if (m != f->mask)
            ptx_stop(w, m, "divergent", "only lanes %08x of %08x do what all have to do", m, f->mask);
        in->fn(w, in, m);
        return true;
    }
    const uint32_t *member = row(w, &in->o[in->member]);
    for (uint32_t rest = m; rest;) {
        uint32_t mask = member[__builtin_ctz(rest)], same = 0;
        LANES ON(rest) if (member[l] == mask) same |= 1u << l;
        rest &= ~same;
        if (same & ~mask) ptx_stop(w, same & ~mask, "divergent", "its lane is not in its own mask %08x", mask);
        uint32_t missing = mask & w->alive & ~same;
        if (missing & f->mask)
            ptx_stop(w, same, "divergent", "mask %08x names lanes %08x, which take no part", mask,
                     missing & f->mask);
        if (missing) return false;
    }
    for (uint32_t rest = m; rest;) {
        uint32_t mask = member[__builtin_ctz(rest)], same = 0;
        LANES ON(rest) if (member[l] == mask) same |= 1u << l;
        rest &= ~same;
        in->fn(w, in, same);
    }
    return true;
}

static void deadlock(Warp *w) {
    Frag *f = &w->frag[0];
    for (int i = 1; i < w->n_frag; i++)
        if (w->frag[i].pc < f->pc) f = &w->frag[i];
    w->in = &w->b->l->m->code[f->pc];
    const char *check = w->in->flow == FLOW_BAR ? "barrier" : "divergent";
    ptx_stop(w, f->mask, check, "lanes %08x wait here for others of %08x, which never come", f->mask, w->alive);
}

/* Runs until a barrier, the end, or so many instructions. */
static void warp_run(Warp *w, long slice) {
    const Ins *code = w->b->l->m->code;
    long long *counts = w->c.warp;
    while (w->n_frag && slice-- > 0) {
        Frag *f = w->n_frag == 1 && !w->frag[0].waits ? &w->frag[0] : choose(w);
        if (!f) deadlock(w);
        if (w->n_frag > 1) f = join(w, f);
        const Ins *in = w->in = &code[f->pc];
        uint32_t m = f->mask;
        if (in->pred) {
            uint32_t p = *(const uint32_t *)(w->base[BASE_FRAME] + in->pred);
            m &= in->pneg ? ~p : p;
        }
        w->ran = m;
        counts[in->cls]++;
        w->c.lanes += __builtin_popcount(m);
        if (in->flow == FLOW_NEXT) {
            if (m) in->fn(w, in, m);
            f->pc++;
            continue;
        }
        if (++w->executed > ptx_options.budget) ptx_stop(w, m, "endless", "still running");
        switch (in->flow) {
        case FLOW_BRA:
            if (m == f->mask)
                f->pc = (uint32_t)in->target;
            else {
                if (m) part(w, f, m, (uint32_t)in->target);
                w->frag[f - w->frag].pc++;
            }
            break;
        case FLOW_BRX:
            branch_table(w, f, in, m);
            break;
        case FLOW_CALL:
            if (m)
                call(w, f, in, m);
            else
                f->pc++;
            break;
        case FLOW_RET:
            if (m)
                leave(w, f, m);
            else
                f->pc++;
            break;
        case FLOW_EXIT:
            leave_kernel(w, f, m);
            break;
        case FLOW_WARP:
            if (m && !together(w, f, in, m))
                f->waits = true;
            else
                f->pc++;
            break;
        case FLOW_BAR:
            if (m == 0) {
                f->pc++;
                break;
            }
            if (m != w->alive) {
                if (m != f->mask) ptx_stop(w, m, "barrier", "only lanes %08x of %08x reach it", m, f->mask);
                f->waits = true;
                break;
            }
            w->at_bar = true;
            w->bar_pc = f->pc;
            f->pc++;
            return;
        }
    }
}

/* ---- a block ---- */

static void specials_fill(Block *b, Warp *w) {
    const Launch *l = b->l;
    uint32_t(*s)[32] = (uint32_t(*)[32])w->base[BASE_SREG];
    for (int k = 0; k < 32; k++) {
        unsigned t = (unsigned)(32 * w->index + k);
        uint32_t one = 1u << k;
        uint32_t v[] = {t % l->block[0],
                        t / l->block[0] % l->block[1],
                        t / l->block[0] / l->block[1],
                        l->block[0],
                        l->block[1],
                        l->block[2],
                        b->id[0],
                        b->id[1],
                        b->id[2],
                        l->grid[0],
                        l->grid[1],
                        l->grid[2],
                        (uint32_t)k,
                        (uint32_t)w->index,
                        (uint32_t)l->n_warps,
                        one,
                        one | (one - 1),
                        one - 1,
                        ~(one - 1),
                        ~(one | (one - 1)),
                        (uint32_t)l->dyn,
                        (uint32_t)(l->dyn + (size_t)l->f->shared_used + (size_t)l->m->shared_used)};
        for (size_t i = 0; i < sizeof v / sizeof *v; i++) s[i][k] = v[i];
    }
}

static void shared_fill(Block *b) {
    const Launch *l = b->l;
    const PtxModule *m = l->m;
    int end = l->f->shared > m->shared ? l->f->shared : m->shared;
    memset(b->state, 2, (size_t)end + 16);
    memset(b->shared, 0xff, (size_t)end);
    for (int i = 0; i < m->n_vars; i++) memset(b->state + m->vars[i].off, 0, (size_t)m->vars[i].size);
    for (int i = 0; i < l->f->n_vars; i++) memset(b->state + l->f->vars[i].off, 0, (size_t)l->f->vars[i].size);
    memset(b->state + m->dyn, 2, 256);
    memset(b->state + m->dyn + 16, 0,
           l->dyn); /* see variable_shared: extern memory is aligned to 16 and no more */
    memset(b->shared + m->dyn, 0xff, 256 + l->dyn);
    b->n_shared = (size_t)m->dyn + 16 + l->dyn;
}

static void block_begin(Block *b, uint32_t index) {
    const Launch *l = b->l;
    const PtxModule *m = l->m;
    b->id[0] = index % l->grid[0];
    b->id[1] = index / l->grid[0] % l->grid[1];
    b->id[2] = index / l->grid[0] / l->grid[1];
    b->serial = l->serial0 + 1 + index;
    b->clock = 1, b->last_bar = 0;
    b->rng = ptx_hash(ptx_options.seed ^ (uint64_t)b->serial << 20);
    shared_fill(b);
    for (int i = 0; i < l->n_warps; i++) {
        Warp *w = &b->warp[i];
        int n = l->n_threads - 32 * i;
        w->b = b, w->index = i;
        w->alive = n >= 32 ? FULL : (1u << n) - 1;
        w->frag[0] = (Frag){.pc = (uint32_t)l->f->first, .mask = w->alive};
        w->n_frag = 1;
        w->at_bar = false;
        w->sync_full = 0;
        memset(w->sync, 0, sizeof w->sync);
        w->n_copies = 0;
        memset(w->groups, 0, sizeof w->groups);
        w->executed = 0;
        memset(w->local_state, 0, (size_t)m->local * 32);
        specials_fill(b, w);
    }
}

static void barrier(Block *b) {
    const Launch *l = b->l;
    Warp *first = &b->warp[0];
    int alive = 0;
    for (int i = 0; i < l->n_warps; i++) {
        Warp *w = &b->warp[i];
        alive += __builtin_popcount(w->alive);
        if (w->at_bar) first = w;
    }
    first->in = &l->m->code[first->bar_pc];
    if (alive != l->n_threads)
        ptx_stop(first, first->alive, "barrier", "%d of the %d threads have returned before it",
                 l->n_threads - alive, l->n_threads);
    for (int i = 0; i < l->n_warps; i++)
        if (b->warp[i].bar_pc != first->bar_pc)
            ptx_stop(first, first->alive, "barrier", "warp %d waits at another one, line %d of the PTX", i,
                     l->m->code[b->warp[i].bar_pc].line);
    b->clock++;
    b->last_bar = b->clock;
    for (int i = 0; i < l->n_warps; i++) b->warp[i].at_bar = false;
}

static void block_run(Block *b) {
    int n = b->l->n_warps;
    bool random = ptx_options.seed != 0;
    for (;;) {
        int ready[MAX_WARPS], n_ready = 0, waiting = 0;
        for (int i = 0; i < n; i++) {
            if (b->warp[i].at_bar)
                waiting++;
            else if (b->warp[i].n_frag)
                ready[n_ready++] = i;
        }
        if (n_ready == 0) {
            if (!waiting) return;
            barrier(b);
            continue;
        }
        int i = random ? ready[rng_next(&b->rng) % (uint32_t)n_ready] : ready[0];
        warp_run(&b->warp[i], random ? 1 + (long)(rng_next(&b->rng) % 1000) : 1l << 40);
    }
}

/* ---- a launch ---- */

/* What a worker keeps from launch to launch. */
typedef struct {
    Block b;
    size_t frame, local, param, shared;
    int warps;
} Worker;
enum { MAX_WORKERS = 8 };
static Worker *workers[MAX_WORKERS];

static void *again(void *p, size_t *have, size_t bytes) {
    (void)have;
    p = realloc(p, bytes ? bytes : 1);
    if (!p) abort();
    return p;
}

static Worker *worker(int i, const Launch *l) {
    if (!workers[i]) workers[i] = calloc(1, sizeof **workers);
    Worker *k = workers[i];
    if (!k) abort();
    Block *b = &k->b;
    const PtxModule *m = l->m;
    size_t shared = (size_t)m->dyn + l->dyn + 512;
    if (shared > k->shared) {
        b->shared = again(b->shared, NULL, shared);
        b->state = again(b->state, NULL, shared);
        free(b->cells);
        b->cells = calloc(shared / 2 + 16, sizeof *b->cells);
        if (!b->cells) abort();
        k->shared = shared;
    }
    bool larger = m->frame > k->frame || (size_t)m->local > k->local || (size_t)m->lane_param > k->param;
    if (larger) {
        k->frame = m->frame > k->frame ? m->frame : k->frame;
        k->local = (size_t)m->local > k->local ? (size_t)m->local : k->local;
        k->param = (size_t)m->lane_param > k->param ? (size_t)m->lane_param : k->param;
    }
    for (int j = larger ? 0 : k->warps; j < (l->n_warps > k->warps ? l->n_warps : k->warps); j++) {
        Warp *w = &b->warp[j];
        w->base[BASE_FRAME] = again(w->base[BASE_FRAME], NULL, k->frame + 256);
        memset(w->base[BASE_FRAME], 0xcb, k->frame + 256);
        if (!w->base[BASE_SREG]) w->base[BASE_SREG] = calloc(N_SPECIAL, 128);
        w->local = again(w->local, NULL, 32 * k->local);
        w->local_state = again(w->local_state, NULL, 32 * k->local);
        w->param = again(w->param, NULL, 32 * k->param);
        memset(w->param, 0xcb, 32 * k->param);
        if (!w->base[BASE_SREG]) abort();
    }
    if (l->n_warps > k->warps) k->warps = l->n_warps;
    b->l = l;
    for (int j = 0; j < l->n_warps; j++) {
        b->warp[j].base[BASE_CONST] = m->konst;
        memset(&b->warp[j].c, 0, sizeof b->warp[j].c);
        b->warp[j].in = NULL;
        b->warp[j].b = b;
    }
    b->message[0] = 0;
    return k;
}

static __attribute__((destructor)) void workers_free(void) {
    for (int i = 0; i < MAX_WORKERS && workers[i]; i++) {
        Block *b = &workers[i]->b;
        for (int j = 0; j < workers[i]->warps; j++) {
            Warp *w = &b->warp[j];
            free(w->base[BASE_FRAME]), free(w->base[BASE_SREG]), free(w->local), free(w->local_state),
                free(w->param);
            free(w->copies);
        }
        free(b->shared), free(b->state), free(b->cells), free(workers[i]);
        workers[i] = NULL;
    }
}

typedef struct {
    Worker *k;
    const Launch *l;
    int first, step;
    uint32_t *next; /* block to take, shared by the workers */
    pthread_mutex_t *lock;
    bool *stop;
} Job;

static void *job_run(void *arg) {
    Job *j = arg;
    Block *b = &j->k->b;
    if (setjmp(b->stop)) {
        pthread_mutex_lock(j->lock);
        *j->stop = true;
        pthread_mutex_unlock(j->lock);
        return NULL;
    }
    for (;;) {
        pthread_mutex_lock(j->lock);
        bool done = *j->stop || *j->next >= j->l->n_blocks;
        uint32_t i = *j->next;
        if (!done) ++*j->next;
        pthread_mutex_unlock(j->lock);
        if (done) return NULL;
        block_begin(b, j->l->order ? j->l->order[i] : i);
        block_run(b);
    }
}

static void counts_add(Func *f, const Block *b, const Launch *l) {
    for (int i = 0; i < l->n_warps; i++) {
        const PtxCounts *c = &b->warp[i].c;
        for (int k = 0; k < PTX_CLASSES; k++) f->counts.warp[k] += c->warp[k];
        f->counts.lanes += c->lanes;
        f->counts.requests += c->requests, f->counts.sectors += c->sectors, f->counts.bytes += c->bytes;
        f->counts.shared_requests += c->shared_requests, f->counts.wavefronts += c->wavefronts;
        f->counts.flops += c->flops;
    }
}

static const char *limits(const Launch *l, size_t shared) {
    static _Thread_local char message[256];
    unsigned long long threads = (unsigned long long)l->block[0] * l->block[1] * l->block[2];
    const char *what = NULL;
    for (int i = 0; i < 3; i++)
        if (l->grid[i] == 0 || l->block[i] == 0) what = "an empty grid or block";
    if (l->grid[0] > 0x7fffffffu || l->grid[1] > 65535 || l->grid[2] > 65535) what = "the grid is too large";
    if (l->block[2] > 64 || threads > 1024)
        what = "the block is too large";
    else if (threads > (unsigned)l->f->max_threads)
        what = "more threads than __launch_bounds__ allows";
    for (int i = 0; i < 3; i++)
        if (l->f->req[0] && l->block[i] != (unsigned)l->f->req[i]) what = "not the block that .reqntid asks for";
    if (shared > 99 * 1024) what = "more shared memory than 99 KiB, which sm_86, 89 and 120 have";
    if (!what) return NULL;
    snprintf(message, sizeof message, "limit: %s: %s (grid %u,%u,%u, block %u,%u,%u, shared memory %zu)",
             l->f->name, what, l->grid[0], l->grid[1], l->grid[2], l->block[0], l->block[1], l->block[2], shared);
    return message;
}

const char *ptx_launch(PtxKernel *kernel, const unsigned grid[3], const unsigned block[3], size_t shared,
                       const void *params) {
    Func *f = kernel->f;
    Launch l = {.m = f->m, .f = f, .dyn = shared, .params = params};
    for (int i = 0; i < 3; i++) l.grid[i] = grid[i], l.block[i] = block[i];
    const char *why = limits(&l, shared + ptx_static_shared(kernel));
    if (why) return why;
    l.n_threads = (int)(block[0] * block[1] * block[2]);
    l.n_warps = (l.n_threads + 31) / 32;
    l.n_blocks = grid[0] * grid[1] * grid[2];
    l.serial0 = serials;
    serials += l.n_blocks;
    launches++;
    if (ptx_options.seed) {
        uint64_t rng = ptx_hash(ptx_options.seed + l.serial0);
        l.order = malloc(sizeof *l.order * l.n_blocks);
        if (!l.order) abort();
        for (uint32_t i = 0; i < l.n_blocks; i++) {
            uint32_t j = rng_next(&rng) % (i + 1);
            l.order[i] = l.order[j];
            l.order[j] = i;
        }
    }
    int n = ptx_options.threads < 1 ? 1 : ptx_options.threads > MAX_WORKERS ? MAX_WORKERS : ptx_options.threads;
    if ((uint32_t)n > l.n_blocks) n = (int)l.n_blocks;
    Job jobs[MAX_WORKERS];
    pthread_t threads[MAX_WORKERS];
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    uint32_t next = 0;
    bool stop = false;
    for (int i = 0; i < n; i++)
        jobs[i] = (Job){.k = worker(i, &l), .l = &l, .next = &next, .lock = &lock, .stop = &stop};
    for (int i = 1; i < n; i++)
        if (pthread_create(&threads[i], NULL, job_run, &jobs[i])) abort();
    job_run(&jobs[0]);
    for (int i = 1; i < n; i++) pthread_join(threads[i], NULL);
    f->counts.launches++;
    f->counts.blocks += l.n_blocks;
    f->counts.threads = l.n_threads;
    f->counts.shared = shared + ptx_static_shared(kernel);
    for (int i = 0; i < n; i++) {
        counts_add(f, &jobs[i].k->b, &l);
        if (jobs[i].k->b.message[0]) why = jobs[i].k->b.message;
    }
    free(l.order);
    return why;
}

/* ---- looking at modules ---- */

static bool is_kernel(const Func *f) { return f->entry && f->defined; }

PtxKernel *ptx_kernel(PtxModule *m, const char *name) {
    PtxKernel *found = NULL;
    for (int i = 0; i < m->n_funcs; i++) {
        Func *f = m->funcs[i];
        if (!is_kernel(f)) continue;
        if (strcmp(f->name, name) == 0) return f->kernel;
        if (!strstr(f->name, name)) continue;
        if (found) return NULL;
        found = f->kernel;
    }
    return found;
}
const char *ptx_kernel_name(const PtxKernel *k) { return k->f->name; }
int ptx_kernel_count(const PtxModule *m) {
    int n = 0;
    for (int i = 0; i < m->n_funcs; i++) n += is_kernel(m->funcs[i]);
    return n;
}
PtxKernel *ptx_kernel_at(PtxModule *m, int i) {
    for (int j = 0; j < m->n_funcs; j++)
        if (is_kernel(m->funcs[j]) && i-- == 0) return m->funcs[j]->kernel;
    return NULL;
}
int ptx_params(const PtxKernel *k) { return k->f->n_params; }
void ptx_param(const PtxKernel *k, int i, int *offset, int *size) {
    *offset = k->f->params[i].off;
    *size = k->f->params[i].size;
}
size_t ptx_static_shared(const PtxKernel *k) { return (size_t)k->f->shared_used + (size_t)k->f->m->shared_used; }
int ptx_max_threads(const PtxKernel *k) { return k->f->max_threads; }
uint64_t ptx_symbol(const PtxModule *m, const char *name, size_t *size) {
    for (int i = 0; i < m->n_globals; i++)
        if (strcmp(m->globals[i].name, name) == 0) {
            *size = m->globals[i].size;
            return m->globals[i].address;
        }
    return 0;
}
const PtxCounts *ptx_counts(const PtxKernel *k) { return &k->f->counts; }
void ptx_counts_reset(PtxModule *m) {
    for (int i = 0; i < m->n_funcs; i++) m->funcs[i]->counts = (PtxCounts){0};
}
const char *ptx_class_name(PtxClass c) {
    static const char *const names[] = {"int",    "fp",    "sfu",   "mma",  "global",
                                        "shared", "local", "param", "sync", "flow"};
    return names[c];
}
