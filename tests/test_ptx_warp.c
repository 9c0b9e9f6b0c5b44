/* test_ptx_warp.c: what the lanes of a warp do together, memory of all kinds, calls and branches. The fragments of
 * mma.sync and ldmatrix are written here a second time, from the figures of the manual (PTX ISA 9.0, 9.7.14.5.8
 * and 9.7.14.5.15) and not from its formulas. */
#include "tests/ptx_help.h"

#include <math.h>

/* A kernel whose thread t has its number in %r0 and in[t], in2[t] in %r1, %r2, and stores %r10, %r11 in out[2t
 * ..]. */
static void run_words(const char *body, unsigned blocks, unsigned threads, size_t shared, const uint32_t *in,
                      const uint32_t *in2, uint32_t *out) {
    static char text[1 << 15];
    snprintf(text, sizeof text,
             "mov.u32 %%r0, %%tid.x;\nmov.u32 %%r3, %%ctaid.x;\nmov.u32 %%r4, %%ntid.x;\nmad.lo.s32 %%r3, %%r3, "
             "%%r4, %%r0;\n"
             "mul.wide.u32 %%d0, %%r3, 4;\nmul.wide.u32 %%d1, %%r3, 8;\nld.param.u64 %%d2, [k_1];\nadd.s64 %%d2, "
             "%%d2, %%d0;\n"
             "ld.global.u32 %%r1, [%%d2];\nld.param.u64 %%d2, [k_2];\nadd.s64 %%d2, %%d2, %%d0;\nld.global.u32 "
             "%%r2, [%%d2];\n"
             "mov.u32 %%r10, 0;\nmov.u32 %%r11, 0;\n%s\nld.param.u64 %%d2, [k_0];\nadd.s64 %%d2, %%d2, %%d1;\n"
             "st.global.v2.u32 [%%d2], {%%r10, %%r11};\n",
             body);
    PtxModule *m = module_of(".param .u64 k_0, .param .u64 k_1, .param .u64 k_2", text);
    size_t n = (size_t)blocks * threads;
    uint64_t params[] = {device_new(NULL, 8 * n), device_new(in, 4 * n), device_new(in2, 4 * n)};
    const char *why = run(m, blocks, threads, shared, params);
    if (why) fail_msg("%s", why);
    device_get(params[0], out, 8 * n);
    for (int i = 0; i < 3; i++) ptx_free(params[i]);
    ptx_unload(m);
}

static void words(uint32_t *v, int n, uint64_t seed) {
    Rng rng = {seed, 0};
    for (int i = 0; i < n; i++) v[i] = (uint32_t)rng_next(&rng);
}

/* shfl.sync as the CUDA manual describes __shfl_*_sync with a width. */
static void test_shuffles(void **state) {
    (void)state;
    static const char *const modes[] = {"up", "down", "bfly", "idx"};
    uint32_t in[32], by[32], out[64];
    for (int k = 0; k < 4 * 6 * 8; k++) {
        int mode = k % 4, width = 1 << (k / 4 % 6);
        unsigned delta = (unsigned)(k * 7 % 37);
        char body[256];
        uint32_t c = (uint32_t)(32 - width) << 8 | (mode == 0 ? 0 : 31);
        words(in, 32, (uint64_t)k);
        for (int l = 0; l < 32; l++) by[l] = mode == 3 ? (in[l] >> 7) % 40 : delta;
        snprintf(body, sizeof body,
                 "shfl.sync.%s.b32 %%r10|%%p1, %%r1, %%r2, %u, -1;\nselp.u32 %%r11, 1, 0, %%p1;", modes[mode], c);
        run_words(body, 1, 32, 0, in, by, out);
        for (int l = 0; l < 32; l++) {
            int base = l / width * width, b = (int)(by[l] & 31), from;
            from = mode == 0 ? l - b : mode == 1 ? l + b : mode == 2 ? l ^ b : base + b % width;
            bool ok = mode == 0 ? from >= base : from < base + width; /* xor may reach a lower segment */
            assert_int_equal(out[2 * l], in[ok ? from : l]);
            assert_int_equal(out[2 * l + 1], ok);
        }
    }
}

static void test_votes(void **state) {
    (void)state;
    uint32_t in[32], zero[32] = {0}, out[64];
    for (int k = 0; k < 40; k++) {
        words(in, 32, (uint64_t)k);
        uint32_t ballot = 0, sum = 0, least = ~0u, most = 0, all = ~0u, any = 0, odd = 0;
        int32_t least_s = INT32_MAX, most_s = INT32_MIN;
        for (int l = 0; l < 32; l++) {
            if (k < 8)
                in[l] = k % 2; /* all alike */
            else if (k % 3 == 0)
                in[l] &= 3;
            ballot |= (in[l] & 1) << l, sum += in[l], all &= in[l], any |= in[l], odd ^= in[l];
            least = in[l] < least ? in[l] : least, most = in[l] > most ? in[l] : most;
            least_s = (int32_t)in[l] < least_s ? (int32_t)in[l] : least_s,
            most_s = (int32_t)in[l] > most_s ? (int32_t)in[l] : most_s;
        }
        run_words("and.b32 %r5, %r1, 1;\nsetp.ne.u32 %p0, %r5, 0;\nvote.sync.ballot.b32 %r10, %p0, "
                  "-1;\nvote.sync.all.pred %p1, %p0, -1;\n"
                  "vote.sync.any.pred %p2, %p0, -1;\nvote.sync.uni.pred %p3, %p0, -1;\nvote.sync.any.pred %p4, "
                  "!%p0, -1;\n@%p1 add.s32 %r11, %r11, 1;\n@%p2 add.s32 %r11, %r11, 2;\n"
                  "@%p3 add.s32 %r11, %r11, 4;\n@%p4 add.s32 %r11, %r11, 8;",
                  1, 32, 0, in, zero, out);
        uint32_t flags =
            (ballot == ~0u) + 2u * (ballot != 0) + 4u * (ballot == 0 || ballot == ~0u) + 8u * (ballot != ~0u);
        for (int l = 0; l < 32; l++) assert_int_equal(out[2 * l], ballot), assert_int_equal(out[2 * l + 1], flags);
        run_words("redux.sync.add.s32 %r10, %r1, -1;\nredux.sync.min.u32 %r11, %r1, -1;", 1, 32, 0, in, zero, out);
        assert_int_equal(out[10], sum), assert_int_equal(out[11], least);
        run_words("redux.sync.max.u32 %r10, %r1, -1;\nredux.sync.min.s32 %r11, %r1, -1;", 1, 32, 0, in, zero, out);
        assert_int_equal(out[10], most), assert_int_equal((int32_t)out[11], least_s);
        run_words("redux.sync.max.s32 %r10, %r1, -1;\nredux.sync.xor.b32 %r11, %r1, -1;", 1, 32, 0, in, zero, out);
        assert_int_equal((int32_t)out[10], most_s), assert_int_equal(out[11], odd);
        run_words("redux.sync.and.b32 %r10, %r1, -1;\nredux.sync.or.b32 %r11, %r1, -1;", 1, 32, 0, in, zero, out);
        assert_int_equal(out[10], all), assert_int_equal(out[11], any);
        run_words("match.any.sync.b32 %r10, %r1, -1;\nmatch.all.sync.b32 %r11|%p1, %r1, -1;\n@%p1 xor.b32 %r11, "
                  "%r11, 1;",
                  1, 32, 0, in, zero, out);
        for (int l = 0; l < 32; l++) {
            uint32_t same = 0;
            for (int j = 0; j < 32; j++) same |= (uint32_t)(in[j] == in[l]) << j;
            assert_int_equal(out[2 * l], same);
            assert_int_equal(out[2 * l + 1], same == ~0u ? ~1u : 0);
        }
    }
    words(in, 32, 9); /* two halves with masks of their own, in one instruction */
    run_words(
        "setp.lt.u32 %p0, %r0, 16;\nselp.b32 %r5, 0xffff, 0xffff0000, %p0;\nredux.sync.add.u32 %r10, %r1, %r5;", 1,
        32, 0, in, zero, out);
    uint32_t low = 0, high = 0;
    for (int l = 0; l < 16; l++) low += in[l], high += in[16 + l];
    assert_int_equal(out[0], low), assert_int_equal(out[62], high);
}

/* ---- mma.sync ---- */

static uint16_t bf16_of(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    return (uint16_t)(b >> 16);
}
static uint16_t f16_of(float x) { /* small integers */
    if (x == 0) return 0;
    int e;
    float m = frexpf(fabsf(x), &e);
    return (uint16_t)((x < 0 ? 0x8000 : 0) | (e + 14) << 10 | ((int)ldexpf(m, 11) & 1023));
}

/* The figures: which (row, column) the lane's element i is. A: four quarters of 8 rows and 8 columns, registers 0
 * the upper left, 1 the lower left, 2 the upper right, 3 the lower right; in a quarter the lanes go along the
 * rows, four to a row, two neighbours each. B: the same of its transpose, upper (small k) and lower half. C: upper
 * and lower half. */
static void quarter(int lane, int element, int *row, int *col) { *row = lane / 4, *col = lane % 4 * 2 + element; }

static void check_mma(const char *kind, bool half, int K, uint64_t seed) {
    Rng rng = {seed, 0};
    int A[16][16], B[16][8], C[16][8];
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < K; k++) A[i][k] = (int)rng_below(&rng, 31) - 15;
    for (int k = 0; k < K; k++)
        for (int j = 0; j < 8; j++) B[k][j] = (int)rng_below(&rng, 31) - 15;
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++) C[i][j] = (int)rng_below(&rng, 2001) - 1000;
    uint32_t in[32 * 16] = {0};
    int na = K / 4, nb = K / 8;
    for (int lane = 0; lane < 32; lane++) {
        uint32_t *r = in + lane * 16;
        int row, col;
        for (int q = 0; q < na; q++)
            for (int e = 0; e < 2; e++) {
                quarter(lane, e, &row, &col);
                float v = (float)A[row + (q & 1 ? 8 : 0)][col + (q & 2 ? 8 : 0)];
                r[q] |= (uint32_t)(half ? f16_of(v) : bf16_of(v)) << (16 * e);
            }
        for (int q = 0; q < nb; q++)
            for (int e = 0; e < 2; e++) {
                quarter(lane, e, &row, &col);
                float v = (float)B[col + 8 * q][row];
                r[4 + q] |= (uint32_t)(half ? f16_of(v) : bf16_of(v)) << (16 * e);
            }
        for (int q = 0; q < 4; q++) {
            quarter(lane, q & 1, &row, &col);
            float v = (float)C[row + (q & 2 ? 8 : 0)][col];
            memcpy(&r[8 + q], &v, 4);
        }
    }
    static const char *const registers[] = {"", "%r20", "{%r20, %r21}", "", "{%r20, %r21, %r22, %r23}"};
    char text[2048];
    snprintf(
        text, sizeof text,
        "mov.u32 %%r0, %%tid.x;\nmul.wide.u32 %%d0, %%r0, 64;\nld.param.u64 %%d1, [k_1];\nadd.s64 %%d1, %%d1, "
        "%%d0;\n"
        "ld.global.v4.u32 {%%r20, %%r21, %%r22, %%r23}, [%%d1];\nld.global.v2.u32 {%%r24, %%r25}, [%%d1+16];\n"
        "ld.global.v4.f32 {%%f0, %%f1, %%f2, %%f3}, [%%d1+32];\n"
        "mma.sync.aligned.m16n8k%d.row.col.f32.%s.%s.f32 {%%f4, %%f5, %%f6, %%f7}, %s, %s, {%%f0, %%f1, %%f2, "
        "%%f3};\n"
        "ld.param.u64 %%d1, [k_0];\nshl.b32 %%r0, %%r0, 4;\ncvt.u64.u32 %%d0, %%r0;\nadd.s64 %%d1, %%d1, %%d0;\n"
        "st.global.v4.f32 [%%d1], {%%f4, %%f5, %%f6, %%f7};\n",
        K, kind, kind, registers[na], nb == 2 ? "{%r24, %r25}" : "{%r24}");
    PtxModule *m = module_of(".param .u64 k_0, .param .u64 k_1", text);
    uint64_t params[] = {device_new(NULL, 32 * 16), device_new(in, sizeof in)};
    const char *why = run(m, 1, 32, 0, params);
    if (why) fail_msg("%s", why);
    float out[32][4];
    device_get(params[0], out, sizeof out);
    for (int lane = 0; lane < 32; lane++)
        for (int q = 0; q < 4; q++) {
            int row, col, want;
            quarter(lane, q & 1, &row, &col);
            row += q & 2 ? 8 : 0;
            want = C[row][col];
            for (int k = 0; k < K; k++) want += A[row][k] * B[k][col];
            assert_true(out[lane][q] == (float)want);
        }
    ptx_free(params[0]), ptx_free(params[1]);
    ptx_unload(m);
}

static void test_mma(void **state) {
    (void)state;
    for (uint64_t s = 0; s < 4; s++) {
        ptx_options.seed = s; /* other orders of the sum; with whole numbers none changes it */
        check_mma("bf16", false, 16, s), check_mma("f16", true, 16, s), check_mma("bf16", false, 8, s),
            check_mma("f16", true, 8, s);
    }
    ptx_options.seed = 0;
}

/* ldmatrix: the figure: lane l holds of each matrix the elements 2 (l % 4), 2 (l % 4) + 1 of row l / 4. */
static void test_ldmatrix(void **state) {
    (void)state;
    uint32_t in[32], zero[32] = {0}, out[64];
    for (int k = 0; k < 6; k++) {
        int n = 1 << (k / 2);
        bool trans = k % 2;
        char body[1024], list[64] = "";
        for (int i = 0; i < n; i++) sprintf(list + strlen(list), "%s%%r%d", i ? ", " : "", 20 + i);
        /* element (row r, column c) of matrix i is 100 r + 10 c + i; rows of the matrices lie mixed, 16 bytes each
         */
        snprintf(body, sizeof body,
                 ".shared .align 16 .b8 tile[512];\nmov.u32 %%r5, tile;\nand.b32 %%r6, %%r0, 7;\nshr.u32 %%r7, "
                 "%%r0, 3;\n"
                 "xor.b32 %%r8, %%r6, %%r7;\nshl.b32 %%r9, %%r7, 3;\nadd.s32 %%r8, %%r8, %%r9;\nshl.b32 %%r8, "
                 "%%r8, 4;\nadd.s32 %%r5, %%r5, %%r8;\n"
                 "mad.lo.s32 %%r6, %%r6, 100, %%r7;\nmov.u32 %%r9, 0;\nLOOP:\nmad.lo.s32 %%r7, %%r9, 10, "
                 "%%r6;\nshl.b32 %%r8, %%r9, 1;\nadd.s32 %%r8, %%r5, %%r8;\n"
                 "st.shared.u16 [%%r8], %%r7;\nadd.s32 %%r9, %%r9, 1;\nsetp.lt.s32 %%p0, %%r9, 8;\n@%%p0 bra "
                 "LOOP;\nbar.warp.sync -1;\n"
                 "ldmatrix.sync.aligned.m8n8.x%d%s.shared.b16 {%s}, [%%r5];\nmov.u32 %%r10, %%r20;\nmov.u32 "
                 "%%r11, %%r%d;",
                 n, trans ? ".trans" : "", list, 19 + n);
        run_words(body, 1, 32, 0, in, zero, out);
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < 2; i++)
                for (int e = 0; e < 2; e++) {
                    int r = l / 4, c = l % 4 * 2 + e, matrix = i ? n - 1 : 0;
                    int want = trans ? 100 * c + 10 * r + matrix : 100 * r + 10 * c + matrix;
                    assert_int_equal(out[2 * l + i] >> (16 * e) & 0xffff, want);
                }
    }
}

/* ---- memory ---- */

static void test_loads(void **state) {
    (void)state;
    uint32_t in[32], zero[32] = {0}, out[64];
    words(in, 32, 1);
    /* bytes and halves, with and without sign; vectors; local memory; generic addresses of each space */
    run_words(".local .align 16 .b8 own[32];\nmov.u64 %d5, own;\ncvta.local.u64 %d6, %d5;\n"
              "st.local.u32 [%d5], %r1;\nld.u8 %r20, [%d6+1];\nld.local.s8 %r21, [own+1];\nld.local.u16 %r22, "
              "[%d5+2];\nld.s16 %r23, [%d6+2];\n"
              "mul.lo.u32 %r20, %r20, 3;\nmad.lo.u32 %r10, %r21, 5, %r20;\nmad.lo.u32 %r11, %r23, 7, %r22;",
              1, 32, 0, in, zero, out);
    for (int l = 0; l < 32; l++) {
        uint32_t byte = in[l] >> 8 & 255, half = in[l] >> 16;
        assert_int_equal(out[2 * l], 3 * byte + 5 * (uint32_t)(int8_t)byte);
        assert_int_equal(out[2 * l + 1], half + 7 * (uint32_t)(int16_t)half);
    }
    run_words(".shared .align 8 .b8 all[512];\nmov.u32 %r5, all;\nshl.b32 %r6, %r0, 3;\nadd.s32 %r5, %r5, "
              "%r6;\ncvt.u64.u32 %d5, %r5;\n"
              "cvta.shared.u64 %d6, %d5;\nst.v2.u32 [%d6], {%r0, %r1};\nbar.sync 0;\nxor.b32 %r6, %r6, "
              "24;\nmov.u32 %r7, all;\nadd.s32 %r6, %r6, %r7;\n"
              "ld.shared.v2.u32 {%r10, %r11}, [%r6];",
              1, 32, 0, in, zero, out);
    for (int l = 0; l < 32; l++) assert_int_equal(out[2 * l], l ^ 3), assert_int_equal(out[2 * l + 1], in[l ^ 3]);
}

static void test_atomics(void **state) {
    (void)state;
    uint32_t in[256], two[256], out[512];
    words(in, 256, 2);
    for (int s = 0; s < 3; s++) {
        ptx_options.seed = (uint64_t)s;
        words(two, 256, 3);
        for (int i = 0; i < 256; i++) two[i] &= 15;
        /* all threads of a block into one word of shared memory: the order is anyone's, the sum is not */
        run_words(".shared .align 8 .b8 sums[24];\nsetp.ne.u32 %p0, %r0, 0;\nmov.u32 %r5, 0;\nmov.u32 %r6, "
                  "-1;\n@!%p0 st.shared.u32 [sums], %r5;\n@!%p0 st.shared.u32 [sums+4], %r6;\n"
                  "mov.u64 %d5, 0;\n@!%p0 st.shared.u64 [sums+8], %d5;\nbar.sync 0;\natom.shared.add.u32 %r20, "
                  "[sums], %r2;\nred.shared.min.u32 [sums+4], %r1;\ncvt.u64.u32 %d6, %r1;\n"
                  "atom.shared.add.u64 %d7, [sums+8], %d6;\nbar.sync 0;\nld.shared.u32 %r10, "
                  "[sums];\nld.shared.u64 %d6, [sums+8];\nshr.u64 %d6, %d6, 4;\ncvt.u32.u64 %r11, %d6;\n"
                  "ld.shared.u32 %r21, [sums+4];\nxor.b32 %r11, %r11, %r21;",
                  2, 128, 0, in, two, out);
        for (int b = 0; b < 2; b++) {
            uint32_t sum = 0, least = ~0u;
            uint64_t wide = 0;
            for (int i = 128 * b; i < 128 * b + 128; i++)
                sum += two[i], wide += in[i], least = in[i] < least ? in[i] : least;
            assert_int_equal(out[256 * b], sum), assert_int_equal(out[256 * b + 1], (uint32_t)(wide >> 4) ^ least);
        }
    }
    ptx_options.seed = 0;
    static const struct {
        const char *op;
        uint32_t start, want;
    } ops[] = {{"add.u32 %r20, [%d5], 5", 3, 8},
               {"exch.b32 %r20, [%d5], 9", 3, 9},
               {"inc.u32 %r20, [%d5], 3", 3, 0},
               {"inc.u32 %r20, [%d5], 7", 3, 4},
               {"dec.u32 %r20, [%d5], 7", 0, 7},
               {"dec.u32 %r20, [%d5], 7", 4, 3},
               {"min.s32 %r20, [%d5], -2", 3, -2u},
               {"max.s32 %r20, [%d5], -2", 3, 3},
               {"max.u32 %r20, [%d5], -2", 3, -2u},
               {"and.b32 %r20, [%d5], 6", 3, 2},
               {"or.b32 %r20, [%d5], 6", 3, 7},
               {"xor.b32 %r20, [%d5], 6", 3, 5},
               {"cas.b32 %r20, [%d5], 3, 17", 3, 17},
               {"cas.b32 %r20, [%d5], 4, 17", 3, 3},
               {"add.f32 %f0, [%d5], 0f3fc00000", 0x40000000, 0x40600000}};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        char body[256];
        snprintf(body, sizeof body, "ld.param.u64 %%d5, [k_0];\natom.relaxed.gpu.global.%s;\n", ops[i].op);
        PtxModule *m = module_of(".param .u64 k_0", body);
        uint64_t a = device_new(&ops[i].start, 4);
        uint32_t got;
        const char *why = run(m, 1, 1, 0, &a);
        if (why) fail_msg("%s", why);
        device_get(a, &got, 4);
        assert_int_equal(got, ops[i].want);
        ptx_free(a), ptx_unload(m);
    }
}

static void test_cp_async(void **state) {
    (void)state;
    uint32_t in[32 * 4], zero[32] = {0}, out[64];
    words(in, 128, 4);
    for (int s = 0; s < 4; s++) {
        ptx_options.seed = (uint64_t)s;
        /* 16 bytes a thread from in[4 (t / 4)], 4 of them taken by odd threads; the second copy of two groups */
        uint32_t every[32];
        for (int l = 0; l < 32; l++) every[l] = in[l];
        run_words(
            ".shared .align 16 .b8 t[1024];\nmov.u32 %r5, t;\nshl.b32 %r6, %r0, 4;\nadd.s32 %r5, %r5, "
            "%r6;\nld.param.u64 %d5, [k_1];\nand.b32 %r6, %r0, 28;\n"
            "mul.wide.u32 %d6, %r6, 4;\nadd.s64 %d5, %d5, %d6;\nand.b32 %r7, %r0, 1;\nsetp.eq.u32 %p0, %r7, "
            "1;\nselp.u32 %r8, 4, 16, %p0;\n"
            "cp.async.cg.shared.global [%r5], [%d5], 16, %r8;\ncp.async.commit_group;\ncp.async.ca.shared.global "
            "[%r5+512], [%d5], 8;\ncp.async.commit_group;\n"
            "cp.async.wait_group 1;\nld.shared.v4.u32 {%r20, %r21, %r22, %r23}, "
            "[%r5];\ncp.async.wait_all;\nld.shared.v2.u32 {%r24, %r25}, [%r5+512];\n"
            "xor.b32 %r10, %r20, %r25;\nadd.u32 %r11, %r21, %r22;\nadd.u32 %r11, %r11, %r23;",
            1, 32, 0, every, zero, out);
        for (int l = 0; l < 32; l++) {
            const uint32_t *v = every + (l & 28);
            assert_int_equal(out[2 * l], v[0] ^ v[1]);
            assert_int_equal(out[2 * l + 1], l & 1 ? 0 : v[1] + v[2] + v[3]);
        }
    }
    ptx_options.seed = 0;
}

/* ---- flow ---- */

static void test_flow(void **state) {
    (void)state;
    uint32_t in[64], two[64], out[128];
    words(in, 64, 5), words(two, 64, 6);
    for (int i = 0; i < 64; i++) in[i] &= 3, two[i] &= 31;
    /* a table of branches, and a loop that each lane leaves at its own time; then they meet for a shuffle */
    run_words("{\nTABLE: .branchtargets T0, T1, T2, T3;\nbrx.idx %r1, TABLE;\n}\nT0:\nmov.u32 %r10, 10;\nbra "
              "DONE;\nT1:\nmov.u32 %r10, 21;\nbra DONE;\nT2:\nmov.u32 %r10, 32;\n"
              "bra DONE;\nT3:\nmov.u32 %r10, 43;\nDONE:\nmov.u32 %r5, %r2;\nLOOP:\nsetp.eq.u32 %p0, %r5, 0;\n@%p0 "
              "bra OUT;\nadd.u32 %r11, %r11, %r5;\nsub.u32 %r5, %r5, 1;\nbra.uni LOOP;\nOUT:\n"
              "shfl.sync.bfly.b32 %r6, %r10, 1, 31, -1;\nadd.u32 %r10, %r10, %r6;",
              1, 64, 0, in, two, out);
    for (int i = 0; i < 64; i++) {
        assert_int_equal(out[2 * i], 11 * (in[i] + in[i ^ 1]) + 20);
        assert_int_equal(out[2 * i + 1], two[i] * (two[i] + 1) / 2);
    }
}

/* A function called by some lanes and then by all, with a struct, and one that returns early. */
static void test_calls(void **state) {
    (void)state;
    static const char text[] =
        ".version 9.0\n.target sm_80\n.address_size 64\n"
        ".const .align 4 .b8 table[16] = {1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0};\n.global .align 4 .u32 "
        "base = 1000;\n"
        ".func (.param .b32 ret) twice(.param .align 8 .b8 pair[8])\n{\n.reg .b32 %r<4>;\n.reg .pred "
        "%p<2>;\nld.param.u32 %r0, [pair];\nld.param.u32 %r1, [pair+4];\n"
        "setp.gt.u32 %p0, %r0, 20;\nmov.u32 %r2, 7;\n@%p0 bra END;\nmad.lo.u32 %r2, %r0, 2, "
        "%r1;\nEND:\nst.param.b32 [ret], %r2;\nret;\n}\n"
        ".visible .entry k(.param .u64 k_0, .param .align 4 .b8 s[12])\n{\n.reg .b32 %r<10>;\n.reg .b64 "
        "%d<8>;\n.reg .pred %p<4>;\n"
        "mov.u32 %r0, %tid.x;\nld.param.u32 %r5, [s+8];\nld.global.u32 %r6, [base];\nand.b32 %r7, %r0, "
        "3;\nmul.wide.u32 %d3, %r7, 4;\nmov.u64 %d4, table;\nadd.s64 %d4, %d4, %d3;\nld.const.u32 %r7, [%d4];\n"
        "mov.u32 %r3, 0;\nsetp.lt.u32 %p0, %r0, 9;\n@!%p0 bra SKIP;\n{\n.param .align 8 .b8 p[8];\nst.param.b32 "
        "[p], %r0;\nst.param.b32 [p+4], %r5;\n.param .b32 r;\n"
        "call.uni (r), twice, (p);\nld.param.b32 %r3, [r];\n}\nSKIP:\n{\n.param .align 8 .b8 "
        "q[8];\nst.param.v2.b32 [q], {%r0, %r6};\n.param .b32 r;\ncall (r), twice, (q);\nld.param.b32 %r4, "
        "[r];\n}\n"
        "add.u32 %r4, %r4, %r3;\nadd.u32 %r4, %r4, %r7;\nld.param.u64 %d1, [k_0];\nmul.wide.u32 %d2, %r0, "
        "4;\nadd.s64 %d1, %d1, %d2;\nst.global.u32 [%d1], %r4;\nret;\n}\n";
    PtxModule *m;
    const char *why = ptx_load_text(&m, "calls", text);
    if (why) fail_msg("%s", why);
    struct {
        uint64_t out;
        uint32_t s[3];
    } params = {device_new(NULL, 4 * 64), {1, 2, 500}};
    why = ptx_launch(ptx_kernel(m, "k"), (unsigned[3]){1, 1, 1}, (unsigned[3]){64, 1, 1}, 0, &params);
    if (why) fail_msg("%s", why);
    uint32_t out[64];
    device_get(params.out, out, sizeof out);
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(out[i], (i > 20 ? 7 : 2 * i + 1000) + (i < 9 ? 2 * i + 500 : 0) + i % 4 + 1);
    ptx_free(params.out);
    ptx_unload(m);
}

static void test_special_registers(void **state) {
    (void)state;
    PtxModule *m = module_of(
        ".param .u64 k_0",
        "mov.u32 %r0, %tid.x;\nmov.u32 %r1, %tid.y;\nmov.u32 %r2, %tid.z;\nmov.u32 %r3, %ntid.x;\nmov.u32 %r4, "
        "%ntid.y;\nmad.lo.u32 %r5, %r2, %r4, %r1;\nmad.lo.u32 %r5, %r5, %r3, %r0;\n"
        "mov.u32 %r6, %ctaid.x;\nmov.u32 %r7, %ctaid.y;\nmov.u32 %r8, %ctaid.z;\nmov.u32 %r9, %nctaid.x;\nmov.u32 "
        "%r10, %nctaid.y;\nmad.lo.u32 %r11, %r8, %r10, %r7;\nmad.lo.u32 %r11, %r11, %r9, %r6;\n"
        "mov.u32 %r12, %laneid;\nmov.u32 %r13, %warpid;\nmad.lo.u32 %r14, %r13, 32, %r12;\nmov.u32 %r15, "
        "%lanemask_lt;\npopc.b32 %r15, %r15;\nsub.u32 %r16, %r14, %r5;\nsub.u32 %r15, %r15, %r12;\nadd.u32 %r16, "
        "%r16, %r15;\n"
        "mad.lo.u32 %r17, %r11, 48, %r5;\nld.param.u64 %d0, [k_0];\nmul.wide.u32 %d1, %r17, 4;\nadd.s64 %d0, %d0, "
        "%d1;\nadd.u32 %r17, %r17, %r16;\nst.global.u32 [%d0], %r17;");
    uint64_t a = device_new(NULL, 4 * 24 * 48);
    for (uint64_t s = 0; s < 3; s++) {
        ptx_options.seed = s, ptx_options.threads = s == 2 ? 2 : 1;
        const char *why = ptx_launch(ptx_kernel(m, "k"), (unsigned[3]){2, 3, 4}, (unsigned[3]){4, 3, 4}, 0, &a);
        if (why) fail_msg("%s", why);
    }
    ptx_options.seed = 0, ptx_options.threads = 1;
    uint32_t out[24 * 48];
    device_get(a, out, sizeof out);
    for (uint32_t i = 0; i < 24 * 48; i++) assert_int_equal(out[i], i);
    ptx_free(a), ptx_unload(m);
}

/* What the model of speed is made of. */
static void test_counters(void **state) {
    (void)state;
    for (int stride = 1; stride <= 33; stride += stride == 1 ? 1 : 31) {
        char body[512];
        snprintf(body, sizeof body,
                 "mov.u32 %%r0, %%tid.x;\nmul.lo.u32 %%r1, %%r0, %d;\nmul.wide.u32 %%d0, %%r1, 4;\nld.param.u64 "
                 "%%d1, [k_0];\nadd.s64 %%d1, %%d1, %%d0;\nld.global.u32 %%r2, [%%d1];\n"
                 ".shared .align 4 .b8 t[4400];\nmov.u32 %%r3, t;\nshl.b32 %%r1, %%r1, 2;\nadd.s32 %%r3, %%r3, "
                 "%%r1;\nst.shared.u32 [%%r3], %%r2;\n",
                 stride);
        PtxModule *m = module_of(".param .u64 k_0", body);
        static uint32_t data[1100];
        uint64_t a = device_new(data, sizeof data);
        const char *why = run(m, 1, 32, 0, &a);
        if (why) fail_msg("%s", why);
        const PtxCounts *c = ptx_counts(ptx_kernel(m, "k"));
        assert_int_equal(c->requests, 1);
        assert_int_equal(c->bytes, 128);
        assert_int_equal(c->sectors, stride == 1 ? 4 : stride == 2 ? 8 : 32);
        assert_int_equal(c->shared_requests, 1);
        assert_int_equal(c->wavefronts, stride == 1 || stride == 33 ? 1 : stride == 2 ? 2 : 32);
        assert_int_equal(c->warp[PTX_GLOBAL], 1), assert_int_equal(c->warp[PTX_SHARED], 1);
        ptx_free(a), ptx_unload(m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shuffles),          cmocka_unit_test(test_votes),    cmocka_unit_test(test_mma),
        cmocka_unit_test(test_ldmatrix),          cmocka_unit_test(test_loads),    cmocka_unit_test(test_atomics),
        cmocka_unit_test(test_cp_async),          cmocka_unit_test(test_flow),     cmocka_unit_test(test_calls),
        cmocka_unit_test(test_special_registers), cmocka_unit_test(test_counters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
