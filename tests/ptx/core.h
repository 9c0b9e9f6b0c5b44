/* core.h: what the files of the interpreter share. Rows: a register of 32 lanes lies as 32 values side by side, 2,
 * 4 or 8 bytes each; a predicate is one 32-bit mask. A function's registers have fixed rows in the frame of the
 * warp (there is no recursion), so lanes that are at different places can share a frame. */
#ifndef TESTS_PTX_CORE_H
#define TESTS_PTX_CORE_H

#include <setjmp.h>
#include <string.h>

#include "tests/ptx/ptx.h"

#define FULL 0xffffffffu
enum { MAX_WARPS = 32, MAX_DEPTH = 8, MAX_OPERANDS = 5 };

/* Generic addresses: these windows are shared and local memory, all else is global. */
#define SHARED_WINDOW (1ull << 56)
#define LOCAL_WINDOW (2ull << 56)
#define PARAM_WINDOW (3ull << 56)
#define WINDOW(a) ((a) & (0xffull << 56))
#define OFFSET(a) ((a) & ~(0xffull << 56))

typedef struct Warp Warp;
typedef struct Block Block;
typedef struct Ins Ins;
typedef void (*Exec)(Warp *w, const Ins *in, uint32_t m); /* does it for the lanes of m */

typedef enum { BASE_FRAME, BASE_CONST, BASE_SREG } Base;
typedef enum { OPD_NONE, OPD_ROW, OPD_PRED, OPD_ADDR, OPD_VEC, OPD_SINK, OPD_LABEL } OpdKind;
typedef struct Opd {
    uint8_t kind, base;
    uint8_t width; /* bytes of a lane: 2, 4, 8 */
    bool neg;      /* predicate: !p */
    bool fixed;    /* address: disp alone */
    uint8_t n;     /* vector: elements */
    uint32_t off;  /* of the row in its base */
    uint32_t pair; /* of q in p|q; 0: none (rows begin at 64) */
    int64_t disp;  /* address: what is added to the register; label: its instruction */
    struct Opd *vec;
} Opd;

typedef enum { SPACE_GENERIC, SPACE_GLOBAL, SPACE_SHARED, SPACE_LOCAL, SPACE_PARAM, SPACE_CONST } Space;
typedef enum { FLOW_NEXT, FLOW_BRA, FLOW_BRX, FLOW_CALL, FLOW_RET, FLOW_EXIT, FLOW_WARP, FLOW_BAR } Flow;
typedef enum { RND_NONE, RND_RN, RND_RZ, RND_RM, RND_RP, RND_RNI, RND_RZI, RND_RMI, RND_RPI } Rnd;

struct Ins {
    Exec fn;
    uint8_t flow, cls, space, n;
    uint8_t width, vec; /* memory: bytes of an element, elements */
    uint8_t rnd, sub, cmp, type, type2;
    bool ftz, sat, pneg;
    int member; /* FLOW_WARP: operand that is the mask of lanes; -1: all that live */
    uint32_t pred;
    int32_t target;
    const int32_t *targets; /* brx, call: {n, ...} */
    Opd o[MAX_OPERANDS];
    const char *text;
    int line, file, source; /* line of the PTX; file and line of the .cu */
};

typedef struct {
    const char *name;
    int off, size;
} Param;

typedef struct Func {
    const char *name;
    struct PtxModule *m;
    bool entry, defined;
    int first, end; /* instructions */
    Param *params, *rets;
    int n_params, n_rets;
    int param_bytes; /* entry: of the buffer; function: of the lane */
    int shared;      /* bytes of its own static shared memory, gaps included */
    int shared_used; /* without the gaps */
    struct {
        int off, size;
    } * vars; /* its shared variables */
    int n_vars;
    int max_threads, req[3];
    PtxCounts counts;
    struct PtxKernel *kernel;
} Func;

struct PtxKernel {
    Func *f;
};

struct PtxModule {
    char *name;
    Ins *code;
    int n_code;
    Func **funcs;
    int n_funcs;
    char **files; /* of .loc */
    int n_files;
    char *konst; /* rows of constants */
    size_t n_konst;
    struct {
        uint64_t value;
        uint32_t off;
        int width;
    } * konsts;
    int n_konsts;
    uint32_t frame;          /* bytes of a warp's registers */
    int local, lane_param;   /* bytes of a lane */
    int shared, shared_used; /* of the module's static variables: below those of any kernel */
    struct {
        int off, size;
    } * vars;
    int n_vars;
    int dyn; /* where extern .shared begins, in each kernel */
    struct {
        char *name;
        uint64_t address;
        size_t size;
    } * globals;
    int n_globals;
    void *arena;
};

/* ---- running ---- */

typedef struct {
    uint32_t pc, mask;
    int depth;
    bool waits; /* at a collective, for other lanes */
} Frag;

typedef struct {
    uint32_t dst; /* in shared memory */
    uint64_t src;
    uint8_t bytes, take; /* take of bytes come from src, the rest is zero */
    uint8_t lane;
    int group; /* of the lane; -1 until committed */
} Copy;

struct Warp {
    char *base[3];
    Block *b;
    int index;
    uint32_t alive, ran;
    Frag frag[32];
    int n_frag;
    bool at_bar;
    uint32_t bar_pc;
    uint32_t sync_full, sync[32][32]; /* clock of the last bar.warp.sync of all, of two lanes */
    int32_t ret[MAX_DEPTH][32];
    Copy *copies;
    int n_copies, cap_copies;
    int groups[32]; /* committed so far */
    char *local;    /* [32][m->local] */
    uint8_t *local_state;
    char *param; /* [32][m->lane_param] */
    long long executed;
    const Ins *in;
    PtxCounts c;
};

/* Shadow of a granule of memory: who touched it last. serial: number of the block since the process began. */
typedef struct {
    uint32_t wserial, wtime, rserial, rtime, rmask;
    uint32_t r2time, r3serial; /* the last read by another warp of rserial, by another block */
    uint16_t wtid;
    uint8_t rwarp, r2warp;
    uint8_t watomic, async; /* async: 1 + the warp whose cp.async is under way */
    uint8_t unused[2];
} Cell;

typedef struct {
    PtxModule *m;
    Func *f;
    unsigned grid[3], block[3];
    size_t dyn;
    int n_threads, n_warps;
    const char *params;
    uint32_t serial0; /* of block 0 */
    uint32_t n_blocks;
    uint32_t *order;
} Launch;

struct Block {
    const Launch *l;
    unsigned id[3];
    uint32_t serial;
    uint32_t clock, last_bar; /* the clock goes up at each synchronisation */
    char *shared;
    uint8_t *state; /* of each byte of shared memory: 0 none, 1 unwritten, 2 written */
    Cell *cells;
    size_t n_shared;
    Warp warp[MAX_WARPS];
    int n_exited;
    uint64_t rng;
    jmp_buf stop;
    char message[1024];
};

_Noreturn void ptx_stop(Warp *w, uint32_t lanes, const char *check, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
uint64_t ptx_hash(uint64_t x);
static inline uint32_t rng_next(uint64_t *s) {
    *s += 0x9e3779b97f4a7c15ull;
    return (uint32_t)(ptx_hash(*s) >> 32);
}

static inline const void *row(const Warp *w, const Opd *o) { return w->base[o->base] + o->off; }
static inline void *row_out(Warp *w, const Opd *o) { return w->base[BASE_FRAME] + o->off; }
static inline uint32_t pred_get(const Warp *w, const Opd *o) {
    uint32_t v = *(const uint32_t *)row(w, o);
    return o->neg ? ~v : v;
}
static inline void pred_put(Warp *w, uint32_t off, uint32_t v, uint32_t m) {
    uint32_t *d = (uint32_t *)(w->base[BASE_FRAME] + off);
    *d = (*d & ~m) | (v & m);
}
/* Writes the lanes of m of a row of T from t. */
#define PUT(T, d, t, m)                                                                                           \
    do {                                                                                                          \
        T *d_ = (T *)(d);                                                                                         \
        if ((m) == FULL)                                                                                          \
            memcpy(d_, (t), 32 * sizeof(T));                                                                      \
        else                                                                                                      \
            for (int l_ = 0; l_ < 32; l_++) d_[l_] = ((m) >> l_ & 1) ? (t)[l_] : d_[l_];                          \
    } while (0)
#define LANES for (int l = 0; l < 32; l++)
#define ON(m) if ((m) >> l & 1)

/* A row of any width as 64-bit values, and back (cut off). */
void row_get(const Warp *w, const Opd *o, uint64_t v[32]);
void row_put(Warp *w, const Opd *o, const uint64_t v[32], uint32_t m);

/* ---- memory (memory.c, shadow.c) ---- */
typedef struct {
    uint64_t address, bytes;
    char *data;
    uint8_t *written; /* a byte a byte */
    Cell **cells;     /* pages of the shadow, made when touched */
    bool freed, constant;
    int number;
} Alloc;
Alloc *alloc_find(uint64_t address); /* live or freed; NULL: none */
uint64_t alloc_constant(uint64_t address);

typedef enum { ACCESS_READ, ACCESS_WRITE, ACCESS_ATOMIC } Access;
void shadow_shared(Warp *w, int lane, uint32_t off, int bytes, Access a);
void shadow_global(Warp *w, int lane, Alloc *al, uint64_t off, int bytes, Access a);
void shadow_async(Warp *w, int lane, uint32_t off, int bytes, bool begins);
void copies_land(Warp *w, uint32_t lanes, int keep);

/* ---- decoding ---- */
typedef struct {
    const char *key;
    Exec fn;
    const char *shape; /* a letter an operand: 2 4 8 row; p predicate; P predicate or pair; * any row */
    uint8_t cls;
    uint8_t allow; /* of the modifiers */
    uint8_t sub;
} OpEntry;
enum { ALLOW_RND = 1, ALLOW_FTZ = 2, ALLOW_SAT = 4 };
extern const OpEntry ops_int[], ops_float[], ops_half[], ops_cvt[], ops_set[], ops_warp[];

void exec_mov_pred(Warp *w, const Ins *in, uint32_t m);
void exec_ld(Warp *w, const Ins *in, uint32_t m);
void exec_st(Warp *w, const Ins *in, uint32_t m);
void exec_atom(Warp *w, const Ins *in, uint32_t m);
void exec_cp_async(Warp *w, const Ins *in, uint32_t m);
void exec_cp_commit(Warp *w, const Ins *in, uint32_t m);
void exec_cp_wait(Warp *w, const Ins *in, uint32_t m);
void exec_ldmatrix(Warp *w, const Ins *in, uint32_t m);
void exec_pack(Warp *w, const Ins *in, uint32_t m);
void exec_unpack(Warp *w, const Ins *in, uint32_t m);
bool cvt_known(int to, int from, int rnd);
Exec cvt_handler(const Ins *in);
void exec_nothing(Warp *w, const Ins *in, uint32_t m);

/* Types, in this order in the table of names (decode.c). */
typedef enum {
    T_NONE,
    T_PRED,
    T_B8,
    T_U8,
    T_S8,
    T_B16,
    T_U16,
    T_S16,
    T_F16,
    T_BF16,
    T_B32,
    T_U32,
    T_S32,
    T_F32,
    T_F16X2,
    T_BF16X2,
    T_TF32,
    T_B64,
    T_U64,
    T_S64,
    T_F64,
    T_B128,
    T_COUNT
} Type;
int type_bytes(Type t);
Type type_named(const char *s);

#endif
