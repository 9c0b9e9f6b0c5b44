/* decode.c: from an opcode's text and operands to a handler. What is not in a table here stops the loading. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/ptx/parse.h"

static const struct {
    const char *name;
    int bytes;
} types[T_COUNT] = {
    {"", 0},     {"pred", 1}, {"b8", 1},  {"u8", 1},  {"s8", 1},  {"b16", 2},   {"u16", 2},   {"s16", 2},
    {"f16", 2},  {"bf16", 2}, {"b32", 4}, {"u32", 4}, {"s32", 4}, {"f32", 4},   {"f16x2", 4}, {"bf16x2", 4},
    {"tf32", 4}, {"b64", 8},  {"u64", 8}, {"s64", 8}, {"f64", 8}, {"b128", 16},
};
int type_bytes(Type t) { return types[t].bytes; }
Type type_named(const char *s) {
    for (int i = 1; i < T_COUNT; i++)
        if (strcmp(s, types[i].name) == 0) return (Type)i;
    return T_NONE;
}

/* The rows of special registers; run.c fills them in this order. */
static const char *const specials[] = {
    "%tid.x",           "%tid.y",       "%tid.z",
    "%ntid.x",          "%ntid.y",      "%ntid.z",
    "%ctaid.x",         "%ctaid.y",     "%ctaid.z",
    "%nctaid.x",        "%nctaid.y",    "%nctaid.z",
    "%laneid",          "%warpid",      "%nwarpid",
    "%lanemask_eq",     "%lanemask_le", "%lanemask_lt",
    "%lanemask_ge",     "%lanemask_gt", "%dynamic_smem_size",
    "%total_smem_size",
};
int special_register(const char *name) {
    if (name[0] != '%') return -1;
    for (int i = 0; i < (int)(sizeof specials / sizeof *specials); i++)
        if (strcmp(name, specials[i]) == 0) return i;
    return -1;
}

/* ---- the tables, hashed by key ---- */

enum { SLOTS = 4096 };
static const OpEntry *slots[SLOTS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static unsigned key_hash(const char *s) {
    unsigned h = 2166136261u;
    for (; *s; s++) h = (h ^ (uint8_t)*s) * 16777619u;
    return h % SLOTS;
}
static void slots_fill(void) {
    const OpEntry *const tables[] = {ops_int, ops_float, ops_half, ops_cvt, ops_set, ops_warp};
    for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
        for (const OpEntry *e = tables[t]; e->key; e++) {
            unsigned h = key_hash(e->key);
            while (slots[h]) {
                if (strcmp(slots[h]->key, e->key) == 0) abort(); /* an instruction is in the tables twice */
                h = (h + 1) % SLOTS;
            }
            slots[h] = e;
        }
}
static const OpEntry *entry_find(const char *key) {
    pthread_once(&once, slots_fill);
    for (unsigned h = key_hash(key); slots[h]; h = (h + 1) % SLOTS)
        if (strcmp(slots[h]->key, key) == 0) return slots[h];
    return NULL;
}

/* ---- operands ---- */

typedef struct {
    Parser *p;
    Ins *in;
    const char *opcode;
    char buffer[256];
    char *part[24];
    int n_part;
    char key[256]; /* the parts that are no modifiers */
    int seen;      /* modifiers */
    Raw *raw;
    int n;
} Decoder;

static _Noreturn void unknown(Decoder *d) { parse_stop(d->p, "unknown instruction: %s", d->in->text); }

static void bind_row(Decoder *d, Opd *o, const Raw *r, int width) {
    if (r->kind == RAW_SINK && o == d->in->o) {
        *o = (Opd){.kind = OPD_SINK, .width = (uint8_t)width};
    } else if (r->kind == RAW_IMM) {
        uint64_t v = r->imm;
        if (width == 0) width = 8;
        *o = (Opd){.kind = OPD_ROW, .base = BASE_CONST, .width = (uint8_t)width};
        if (width < 8) v &= (1ull << 8 * width) - 1;
        o->off = module_constant(d->p->m, v, width);
    } else if (r->kind == RAW_REG) {
        if (width && r->width != width)
            parse_stop(d->p, "an operand has %d bits, not %d: %s", 8 * r->width, 8 * width, d->in->text);
        *o = (Opd){.kind = OPD_ROW, .base = r->base, .width = r->width, .off = r->off};
    } else {
        unknown(d);
    }
}

static void bind_pred(Decoder *d, Opd *o, const Raw *r) {
    if (r->kind == RAW_IMM) {
        *o = (Opd){.kind = OPD_PRED, .base = BASE_CONST, .width = 4};
        o->off = module_constant(d->p->m, r->imm ? FULL : 0, 4);
    } else if (r->kind == RAW_PRED) {
        *o = (Opd){.kind = OPD_PRED, .base = BASE_FRAME, .neg = r->neg, .off = r->off, .pair = r->pair};
    } else if (r->kind == RAW_SINK && r->pair) { /* _|q */
        *o = (Opd){.kind = OPD_SINK, .pair = r->pair};
    } else {
        unknown(d);
    }
}

static void bind_vec(Decoder *d, Opd *o, const Raw *r, int n, int width) {
    if (r->kind != RAW_VEC || r->n != n) unknown(d);
    *o = (Opd){.kind = OPD_VEC, .n = (uint8_t)n, .width = (uint8_t)width};
    o->vec = module_keep(d->p->m, sizeof *o->vec * (size_t)n);
    for (int i = 0; i < n; i++) {
        if (r->vec[i].kind == RAW_SINK)
            o->vec[i] = (Opd){.kind = OPD_SINK, .width = (uint8_t)width};
        else
            bind_row(d, &o->vec[i], &r->vec[i], width);
    }
}

static void bind_address(Decoder *d, Opd *o, const Raw *r) {
    if (r->kind != RAW_ADDR) unknown(d);
    *o = (Opd){.kind = OPD_ADDR, .base = r->base, .width = r->width, .off = r->off, .fixed = r->fixed};
    o->disp = (int64_t)r->imm;
}

/* By the table's letters: 2 4 8 a row of so many bytes, * any row, p a predicate, P with a second one, digit after
 * v: a vector of 4-byte rows. */
static void bind_shape(Decoder *d, const char *shape) {
    Ins *in = d->in;
    int i = 0;
    for (; *shape; shape++, i++) {
        if (i >= d->n || i >= MAX_OPERANDS) unknown(d);
        Raw *r = &d->raw[i];
        Opd *o = &in->o[i];
        if (*shape == 'v')
            bind_vec(d, o, r, *++shape - '0', 4);
        else if (*shape == 'p' || *shape == 'P') {
            bind_pred(d, o, r);
            if (*shape == 'p' && o->pair) unknown(d);
        } else {
            if (r->kind == RAW_REG && r->pair && i > 0) unknown(d);
            bind_row(d, o, r, *shape == '*' ? 0 : *shape - '0');
            o->pair = r->pair;
        }
    }
    if (i != d->n) unknown(d);
    in->n = (uint8_t)i;
}

/* ---- instructions that are more than a row of the table ---- */

static bool has(const Decoder *d, const char *part) {
    for (int i = 1; i < d->n_part; i++)
        if (strcmp(d->part[i], part) == 0) return true;
    return false;
}

static bool starts(const char *s, const char *with) { return strncmp(s, with, strlen(with)) == 0; }

/* What ld, st, atom and red say beside space, vector and type, and that changes nothing here: caching, and the
 * order between blocks, which the rules for kernels exclude. */
static bool memory_hint(const char *s) {
    static const char *const hints[] = {"ca",      "cg",      "cs",   "lu",       "cv",      "wb",
                                        "wt",      "nc",      "weak", "volatile", "relaxed", "acquire",
                                        "release", "acq_rel", "gpu",  "cta",      "sys",     "noftz"};
    for (size_t i = 0; i < sizeof hints / sizeof *hints; i++)
        if (strcmp(s, hints[i]) == 0) return true;
    return starts(s, "L1::") || starts(s, "L2::");
}

static int space_named(const char *s) {
    static const char *const names[] = {"generic", "global", "shared", "local", "param", "const"};
    for (int i = 1; i < 6; i++)
        if (strcmp(s, names[i]) == 0) return i;
    if (strcmp(s, "shared::cta") == 0) return SPACE_SHARED;
    if (strcmp(s, "param::entry") == 0 || strcmp(s, "param::func") == 0) return SPACE_PARAM;
    return -1;
}

static void memory_class(Ins *in) {
    static const uint8_t classes[] = {PTX_GLOBAL, PTX_GLOBAL, PTX_SHARED, PTX_LOCAL, PTX_PARAM, PTX_PARAM};
    in->cls = classes[in->space];
}

static const char *const atom_ops[] = {"add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas"};

/* ld, ldu, st, atom, red */
static void decode_memory(Decoder *d) {
    Ins *in = d->in;
    const char *op = d->part[0];
    bool atomic = strcmp(op, "atom") == 0 || strcmp(op, "red") == 0;
    in->vec = 1;
    in->sub = 255;
    for (int i = 1; i < d->n_part; i++) {
        const char *s = d->part[i];
        Type t = type_named(s);
        int space = space_named(s);
        if (t != T_NONE)
            in->type = (uint8_t)t;
        else if (space >= 0)
            in->space = (uint8_t)space;
        else if (!atomic && strcmp(s, "v2") == 0)
            in->vec = 2;
        else if (!atomic && strcmp(s, "v4") == 0)
            in->vec = 4;
        else if (memory_hint(s))
            continue;
        else {
            for (int k = 0; atomic && k < 10; k++)
                if (strcmp(s, atom_ops[k]) == 0) in->sub = (uint8_t)k;
            if (in->sub == 255) unknown(d);
        }
    }
    in->width = (uint8_t)type_bytes(in->type);
    if (in->type == T_NONE || in->type == T_PRED || in->width > 8 || in->width * in->vec > 16) unknown(d);
    memory_class(in);
    bool load = op[0] == 'l';
    int width = in->width < 2 ? 2 : in->width;
    if (atomic) {
        bool red = op[0] == 'r';
        int sources = in->sub == 9 ? 2 : 1;
        if (in->sub == 255 || d->n != (red ? 1 : 2) + sources || in->width < 2 || in->space > SPACE_SHARED)
            unknown(d);
        if (red)
            in->o[0] = (Opd){.kind = OPD_SINK, .width = (uint8_t)width};
        else
            bind_row(d, &in->o[0], &d->raw[0], width);
        bind_address(d, &in->o[1], &d->raw[red ? 0 : 1]);
        for (int i = 0; i < sources; i++) bind_row(d, &in->o[2 + i], &d->raw[(red ? 1 : 2) + i], width);
        in->n = (uint8_t)(2 + sources);
        in->fn = exec_atom;
        return;
    }
    if (d->n != 2) unknown(d);
    const Raw *value = &d->raw[load ? 0 : 1];
    bind_address(d, &in->o[1], &d->raw[load ? 1 : 0]);
    in->o[0] = (Opd){.kind = OPD_VEC, .n = in->vec, .width = in->width};
    in->o[0].vec = module_keep(d->p->m, sizeof(Opd) * in->vec);
    if (in->vec > 1 && (value->kind != RAW_VEC || value->n != in->vec)) unknown(d);
    for (int i = 0; i < in->vec; i++) {
        const Raw *r = in->vec == 1 ? value : &value->vec[i];
        Opd *o = &in->o[0].vec[i];
        if (r->kind == RAW_SINK && load)
            *o = (Opd){.kind = OPD_SINK};
        else
            bind_row(d, o, r, r->kind == RAW_IMM ? width : 0);
        if (o->kind == OPD_ROW && o->width < in->width) unknown(d); /* wider registers are allowed, narrower not */
    }
    in->n = 2;
    in->fn = load ? exec_ld : exec_st;
}

static void decode_cp_async(Decoder *d) {
    Ins *in = d->in;
    in->cls = PTX_GLOBAL;
    if (has(d, "commit_group") && d->n_part == 3 && d->n == 0) {
        in->fn = exec_cp_commit, in->cls = PTX_SYNC;
    } else if (has(d, "wait_all") && d->n_part == 3 && d->n == 0) {
        in->fn = exec_cp_wait, in->sub = 0, in->cls = PTX_SYNC;
        in->type = 1; /* all, committed or not */
    } else if (has(d, "wait_group") && d->n_part == 3 && d->n == 1 && d->raw[0].kind == RAW_IMM &&
               d->raw[0].imm < 255) {
        in->fn = exec_cp_wait, in->sub = (uint8_t)d->raw[0].imm, in->cls = PTX_SYNC;
    } else if ((has(d, "ca") || has(d, "cg")) && has(d, "global") && (has(d, "shared") || has(d, "shared::cta")) &&
               (d->n == 3 || d->n == 4) && d->raw[2].kind == RAW_IMM) {
        for (int i = 2; i < d->n_part; i++)
            if (space_named(d->part[i]) < 0 && !memory_hint(d->part[i])) unknown(d);
        bind_address(d, &in->o[0], &d->raw[0]);
        bind_address(d, &in->o[1], &d->raw[1]);
        in->width = (uint8_t)d->raw[2].imm;
        if (in->width != 16 && (has(d, "cg") || (in->width != 4 && in->width != 8))) unknown(d);
        in->n = 2;
        if (d->n == 4 && d->raw[3].kind == RAW_PRED)
            bind_pred(d, &in->o[2], &d->raw[3]), in->n = 3;
        else if (d->n == 4)
            bind_row(d, &in->o[2], &d->raw[3], 4), in->n = 3;
        in->fn = exec_cp_async;
    } else {
        unknown(d);
    }
}

static void decode_ldmatrix(Decoder *d) {
    Ins *in = d->in;
    for (int i = 1; i < d->n_part; i++) {
        const char *s = d->part[i];
        if (strcmp(s, "x1") == 0)
            in->vec = 1;
        else if (strcmp(s, "x2") == 0)
            in->vec = 2;
        else if (strcmp(s, "x4") == 0)
            in->vec = 4;
        else if (strcmp(s, "trans") == 0)
            in->sub = 1;
        else if (space_named(s) == SPACE_SHARED)
            in->space = SPACE_SHARED;
        else if (strcmp(s, "sync") && strcmp(s, "aligned") && strcmp(s, "m8n8") && strcmp(s, "b16"))
            unknown(d);
    }
    if (!in->vec || in->space != SPACE_SHARED || d->n != 2 || !has(d, "sync") || !has(d, "b16")) unknown(d);
    if (in->vec == 1 && d->raw[0].kind == RAW_REG) { /* both {r} and r are printed */
        Raw one = d->raw[0];
        d->raw[0] = (Raw){.kind = RAW_VEC, .n = 1, .vec = module_keep(d->p->m, sizeof one)};
        d->raw[0].vec[0] = one;
    }
    bind_vec(d, &in->o[0], &d->raw[0], in->vec, 4);
    bind_address(d, &in->o[1], &d->raw[1]);
    in->n = 2;
    in->cls = PTX_SHARED;
    in->flow = FLOW_WARP;
    in->fn = exec_ldmatrix;
}

/* mov between rows is in the table; here are predicates, and vectors to and from one wider row. */
static bool decode_mov(Decoder *d) {
    Ins *in = d->in;
    if (d->n != 2) unknown(d);
    if (strcmp(d->key, "mov.pred") == 0) {
        bind_pred(d, &in->o[0], &d->raw[0]);
        bind_pred(d, &in->o[1], &d->raw[1]);
        in->fn = exec_mov_pred;
    } else if (d->raw[1].kind == RAW_VEC || d->raw[0].kind == RAW_VEC) {
        int whole = d->raw[1].kind == RAW_VEC ? 0 : 1;
        int width = type_bytes(type_named(d->part[1])), n = d->raw[1 - whole].n;
        if (width > 8 || n < 2 || width / n < 2) unknown(d);
        bind_row(d, &in->o[whole], &d->raw[whole], width);
        bind_vec(d, &in->o[1 - whole], &d->raw[1 - whole], n, width / n);
        in->fn = whole == 0 ? exec_pack : exec_unpack;
    } else {
        return false;
    }
    in->n = 2;
    in->cls = PTX_INT;
    return true;
}

/* cvt between two single values; the packed forms are in the table. */
static bool decode_cvt(Decoder *d) {
    Ins *in = d->in;
    char key[64];
    if (d->n_part < 3 || d->n != 2) return false;
    Type to = type_named(d->part[d->n_part - 2]), from = type_named(d->part[d->n_part - 1]);
    snprintf(key, sizeof key, "cvt.%s.%s", d->part[d->n_part - 2], d->part[d->n_part - 1]);
    if (strcmp(key, d->key) != 0 || !cvt_known(to, from, in->rnd)) return false;
    in->type = (uint8_t)to, in->type2 = (uint8_t)from;
    bind_row(d, &in->o[0], &d->raw[0], 0);
    bind_row(d, &in->o[1], &d->raw[1],
             d->raw[1].kind == RAW_IMM ? type_bytes(from) < 2 ? 2 : type_bytes(from) : 0);
    if (in->o[0].width < type_bytes(to) || in->o[1].width < type_bytes(from)) unknown(d);
    in->n = 2;
    in->cls = PTX_INT;
    in->fn = cvt_handler(in);
    return true;
}

static void decode_call(Decoder *d) {
    Ins *in = d->in;
    int i = 0;
    const Raw *rets = NULL, *args = NULL;
    if (i < d->n && d->raw[i].kind == RAW_LIST) rets = &d->raw[i++];
    if (i >= d->n || d->raw[i].kind != RAW_NAME || !d->raw[i].sym || d->raw[i].sym->kind != SYM_FUNC) unknown(d);
    Func *f = d->raw[i++].sym->func;
    if (i < d->n && d->raw[i].kind == RAW_LIST) args = &d->raw[i++];
    if (i != d->n) unknown(d);
    int n_args = args ? args->n : 0, n_rets = rets ? rets->n : 0;
    if (f->defined && f->first == d->p->m->n_code) unknown(d);
    if (f == d->p->func) parse_stop(d->p, "recursion is not known: %s", in->text);
    if (n_args != f->n_params || n_rets != f->n_rets) parse_stop(d->p, "wrong number of arguments: %s", in->text);
    /* {n_args, n_rets, then source, destination and size of each}, all in the lane's parameter memory */
    int32_t *list = module_keep(d->p->m, sizeof *list * (size_t)(2 + 3 * (n_args + n_rets)));
    int32_t *to = list + 2;
    list[0] = n_args, list[1] = n_rets;
    for (int k = 0; k < n_args + n_rets; k++, to += 3) {
        const Raw *r = k < n_args ? &args->vec[k] : &rets->vec[k - n_args];
        const Param *q = k < n_args ? &f->params[k] : &f->rets[k - n_args];
        if (r->kind != RAW_IMM || !r->sym || r->sym->space != SPACE_PARAM) unknown(d);
        to[0] = (int32_t)OFFSET(r->imm), to[1] = q->off, to[2] = q->size;
    }
    in->targets = list;
    in->flow = FLOW_CALL;
    in->cls = PTX_FLOW;
    in->o[0] = (Opd){.disp = (int64_t)(intptr_t)f};
}

static bool decode_flow(Decoder *d) {
    Ins *in = d->in;
    const char *op = d->part[0];
    in->cls = PTX_FLOW;
    if (strcmp(op, "bra") == 0 && d->n == 1 && d->raw[0].kind == RAW_NAME) {
        in->flow = FLOW_BRA;
        in->o[0].kind = OPD_LABEL, in->n = 1;
    } else if (strcmp(op, "brx") == 0 && has(d, "idx") && d->n == 2 && d->raw[1].kind == RAW_NAME) {
        in->flow = FLOW_BRX;
        bind_row(d, &in->o[0], &d->raw[0], 4);
        in->o[1].kind = OPD_LABEL, in->n = 2;
    } else if (strcmp(op, "call") == 0) {
        decode_call(d);
    } else if ((strcmp(op, "ret") == 0 || strcmp(op, "exit") == 0) && d->n == 0) {
        in->flow = op[0] == 'e' || d->p->func->entry ? FLOW_EXIT : FLOW_RET;
    } else if ((strcmp(d->key, "bar.sync") == 0 || strcmp(d->key, "barrier.sync.aligned") == 0 ||
                strcmp(d->key, "barrier.cta.sync.aligned") == 0) &&
               d->n == 1 && d->raw[0].kind == RAW_IMM && d->raw[0].imm == 0) {
        in->flow = FLOW_BAR;
        in->cls = PTX_SYNC;
    } else if (strcmp(op, "membar") == 0 || strcmp(op, "fence") == 0) {
        in->fn = exec_nothing, in->cls = PTX_SYNC;
    } else if (starts(op, "prefetch") || strcmp(op, "pmevent") == 0 || strcmp(op, "nanosleep") == 0) {
        in->fn = exec_nothing;
    } else {
        return false;
    }
    return true;
}

static void split(Decoder *d) {
    static const char *const rounds[] = {"rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi"};
    snprintf(d->buffer, sizeof d->buffer, "%s", d->opcode);
    for (char *s = strtok(d->buffer, "."); s; s = strtok(NULL, ".")) {
        if (d->n_part == 24) unknown(d);
        d->part[d->n_part++] = s;
        bool modifier = false;
        for (int i = 0; i < 8; i++)
            if (strcmp(s, rounds[i]) == 0) d->in->rnd = (uint8_t)(i + 1), d->seen |= ALLOW_RND, modifier = true;
        if (strcmp(s, "ftz") == 0) d->in->ftz = true, d->seen |= ALLOW_FTZ, modifier = true;
        if (strcmp(s, "sat") == 0) d->in->sat = true, d->seen |= ALLOW_SAT, modifier = true;
        if (strcmp(s, "uni") == 0 && (strcmp(d->part[0], "bra") == 0 || strcmp(d->part[0], "call") == 0))
            modifier = true;
        if (strcmp(d->part[0], "setp") == 0) { /* and, or, xor with a further predicate */
            int boolean = strcmp(s, "and") == 0 ? 1 : strcmp(s, "or") == 0 ? 2 : strcmp(s, "xor") == 0 ? 3 : 0;
            if (boolean) d->in->cmp = (uint8_t)boolean, modifier = true;
        }
        if (modifier) continue;
        if (*d->key) strcat(d->key, ".");
        strcat(d->key, s);
    }
}

void decode(Parser *p, Ins *in, const char *opcode, Raw *raw, int n) {
    Decoder d = {.p = p, .in = in, .opcode = opcode, .raw = raw, .n = n};
    split(&d);
    if (d.n_part == 0 || !p->func) unknown(&d);
    const char *op = d.part[0];
    if (strcmp(op, "ld") == 0 || strcmp(op, "ldu") == 0 || strcmp(op, "st") == 0 || strcmp(op, "atom") == 0 ||
        strcmp(op, "red") == 0) {
        decode_memory(&d);
        return;
    }
    if (strcmp(op, "cp") == 0 && d.n_part > 2 && strcmp(d.part[1], "async") == 0) {
        decode_cp_async(&d);
        return;
    }
    if (strcmp(op, "ldmatrix") == 0) {
        decode_ldmatrix(&d);
        return;
    }
    if (decode_flow(&d)) return;
    if (strcmp(op, "mov") == 0 && decode_mov(&d)) return;
    if (strcmp(op, "cvt") == 0 && decode_cvt(&d)) return;
    const OpEntry *e = entry_find(d.key);
    if (e && (d.seen & ~e->allow) == ALLOW_SAT) { /* a handler of its own */
        char key[260];
        snprintf(key, sizeof key, "sat %s", d.key);
        d.seen = 0;
        e = entry_find(key);
    }
    if (!e || (d.seen & ~e->allow)) unknown(&d);
    in->fn = e->fn;
    in->cls = e->cls;
    in->sub = e->sub;
    char shape[16];
    snprintf(shape, sizeof shape, "%s%s", e->shape, in->cmp ? "p" : "");
    bind_shape(&d, shape);
    if (e->cls == PTX_SYNC || e->cls == PTX_MMA) { /* ops_warp: sub is 1 + the operand that holds the mask, or 0 */
        in->flow = FLOW_WARP;
        in->member = e->sub ? e->sub - 1 : -1;
    }
}
