/* test_ptx_checks.c: every check of the interpreter, provoked by a kernel that does wrong, and quiet on the same
 * kernel put right. */
#include "tests/ptx_help.h"

#include "tests/ptx/ptx.h"

/* Runs the body in several orders; in[i] = i, 256 words at k_1; 256 words at k_0 unwritten, thread t's word at
 * [%d1],
 * [%d2]; 4 t in %r1. The first message, or NULL. */
static const char *outcome(const char *body, unsigned blocks, unsigned threads, size_t shared) {
    static char text[8192], first[1024];
    snprintf(text, sizeof text,
             "mov.u32 %%r0, %%tid.x;\nshl.b32 %%r1, %%r0, 2;\nmov.u32 %%r2, tile;\nadd.s32 %%r2, %%r2, "
             "%%r1;\ncvt.u64.u32 %%d0, %%r1;\n"
             "ld.param.u64 %%d1, [k_0];\nadd.s64 %%d1, %%d1, %%d0;\nld.param.u64 %%d2, [k_1];\nadd.s64 %%d2, "
             "%%d2, %%d0;\n%s",
             body);
    static char whole[10000];
    snprintf(whole, sizeof whole, ".shared .align 4 .b8 tile[1024];\n%s", text);
    PtxModule *m = module_of(".param .u64 k_0, .param .u64 k_1", whole);
    uint32_t in[256];
    for (uint32_t i = 0; i < 256; i++) in[i] = i;
    first[0] = 0;
    for (uint64_t seed = 0; seed < 4 && !first[0]; seed++) {
        ptx_options.seed = seed;
        uint64_t params[] = {device_new(NULL, 1024), device_new(in, 1024)};
        const char *why = run(m, blocks, threads, shared, params);
        if (why) snprintf(first, sizeof first, "%s", why);
        ptx_free(params[0]), ptx_free(params[1]);
    }
    ptx_options.seed = 0;
    ptx_unload(m);
    return first[0] ? first : NULL;
}

typedef struct {
    const char *check, *says; /* what the message begins with and contains */
    unsigned blocks, threads;
    size_t shared;
    const char *wrong, *right;
} Wrong;

#define STORE "st.shared.u32 [%r2], %r1;\n"
#define NEIGHBOUR "ld.shared.u32 %r5, [%r3];\n"
#define XOR4 "xor.b32 %r3, %r1, 4;\nmov.u32 %r4, tile;\nadd.s32 %r3, %r3, %r4;\n"
#define XOR128 "xor.b32 %r3, %r1, 128;\nmov.u32 %r4, tile;\nadd.s32 %r3, %r3, %r4;\n"
#define FIRST "setp.eq.u32 %p0, %r0, 0;\n"
#define COPY16                                                                                                    \
    ".shared .align 16 .b8 big[1024];\nshl.b32 %r6, %r0, 4;\nmov.u32 %r7, big;\nadd.s32 %r6, %r6, "               \
    "%r7;\ncvt.u64.u32 %d5, %r0;\nand.b64 %d5, %d5, 15;\nshl.b64 %d5, %d5, 4;\nld.param.u64 %d6, "                \
    "[k_1];\nadd.s64 %d6, %d6, %d5;\n"

#define TURN16 "sub.u32 %r6, %r6, %r7;\nxor.b32 %r6, %r6, 16;\nadd.u32 %r6, %r6, %r7;\n"

static const Wrong wrongs[] = {
    /* bounds and alignment */
    {"bounds-global", "byte 1024 of the 1024", 1, 64, 0, "ld.global.u32 %r5, [%d2+772];",
     "ld.global.u32 %r5, [%d2+768];"},
    {"bounds-global", "outside|near", 1, 1, 0, "mov.u64 %d5, 64;\nst.global.u32 [%d5], %r0;",
     "st.global.u32 [%d1], %r0;"},
    {"bounds-global", "byte -4", 1, 32, 0, "ld.global.u32 %r5, [%d2+-4];", "ld.global.u32 %r5, [%d2+4];"},
    {"bounds-global", "wild", 1, 32, 0, "mov.u64 %d5, 0x7700000000000000;\nld.u32 %r5, [%d5];",
     "ld.u32 %r5, [%d2];"},
    {"bounds-shared", "4 bytes at", 1, 256, 0, "st.shared.u32 [%r2+4], %r0;", "st.shared.u32 [%r2], %r0;"},
    {"bounds-shared", "4 bytes at", 1, 32, 64,
     "mov.u32 %r5, more;\nadd.s32 %r5, %r5, %r1;\nst.shared.u32 [%r5], %r0;",
     "mov.u32 %r5, more;\nand.b32 %r6, %r1, 60;\nadd.s32 %r5, %r5, %r6;\nsetp.lt.u32 %p0, %r0, 16;\n@%p0 "
     "st.shared.u32 [%r5], %r0;"},
    {"bounds-local", "of", 1, 32, 0,
     ".local .align 4 .b8 own[16];\nmov.u64 %d5, own;\nst.local.u32 [%d5+4096], %r0;",
     ".local .align 4 .b8 own[16];\nmov.u64 %d5, own;\nst.local.u32 [%d5+12], %r0;"},
    {"bounds-param", "of 16", 1, 32, 0, "ld.param.u32 %r5, [k_1+8];", "ld.param.u32 %r5, [k_1+4];"},
    {"misaligned", "8 bytes at", 1, 32, 0, "ld.global.v2.u32 {%r5, %r6}, [%d2];", "ld.global.u32 %r5, [%d2];"},
    {"misaligned", "4 bytes at", 1, 32, 0,
     "add.s32 %r2, %r2, 2;\nsetp.lt.u32 %p0, %r0, 31;\n@%p0 st.shared.u32 [%r2], %r0;",
     "st.shared.u32 [%r2], %r0;"},
    {"misaligned", "16 bytes at", 1, 16, 0, COPY16 "cp.async.cg.shared.global [%r6], [%d6+8], 16;",
     COPY16 "cp.async.cg.shared.global [%r6], [%d6], 16;"},
    {"misaligned", "16 bytes at", 1, 32, 64, "mov.u32 %r5, more;\nst.shared.v4.u32 [%r5+8], {%r0, %r0, %r0, %r0};",
     "st.shared.u32 [%r2], %r0;"},
    /* memory that nobody wrote */
    {"uninit-global", "nobody wrote", 1, 32, 0, "ld.global.u32 %r5, [%d1];",
     "st.global.u32 [%d1], %r0;\nld.global.u32 %r5, [%d1];"},
    {"uninit-shared", "nobody wrote", 1, 32, 0, "ld.shared.u32 %r5, [%r2];", STORE "ld.shared.u32 %r5, [%r2];"},
    {"uninit-local", "nobody wrote", 1, 32, 0, ".local .align 4 .b8 own[16];\nld.local.u32 %r5, [own+4];",
     ".local .align 4 .b8 own[16];\nst.local.u32 [own+4], %r0;\nld.local.u32 %r5, [own+4];"},
    {"uninit-global", "nobody wrote", 1, 32, 0, "red.global.add.u32 [%d1], 1;", "red.global.add.u32 [%d2], 1;"},
    /* shared memory without a barrier; the two warps of XOR128, the lanes of XOR4 */
    {"race-shared", "another thread", 1, 64, 0, STORE XOR128 "st.shared.u32 [%r3], %r1;\n",
     STORE XOR128 "bar.sync 0;\nst.shared.u32 [%r3], %r1;\n"},
    {"race-shared", "another thread", 1, 64, 0, STORE "bar.sync 0;\n" XOR128 NEIGHBOUR STORE,
     STORE "bar.sync 0;\n" XOR128 NEIGHBOUR "bar.sync 0;\n" STORE},
    {"race-shared|uninit-shared", "", 1, 64, 0, STORE XOR128 NEIGHBOUR, STORE "bar.sync 0;\n" XOR128 NEIGHBOUR},
    {"race-shared", "another thread", 1, 32, 0, STORE XOR4 NEIGHBOUR, STORE "bar.warp.sync -1;\n" XOR4 NEIGHBOUR},
    {"race-shared", "another thread", 1, 32, 0, STORE "shfl.sync.bfly.b32 %r5, %r1, 1, 31, -1;\n" XOR4 NEIGHBOUR,
     STORE "bar.warp.sync -1;\n" XOR4 NEIGHBOUR},
    {"race-shared", "another thread", 1, 32, 0, STORE "bar.warp.sync -1;\n" XOR4 NEIGHBOUR STORE,
     STORE "bar.warp.sync -1;\n" XOR4 NEIGHBOUR "bar.warp.sync -1;\n" STORE},
    {"race-shared|uninit-shared", "", 1, 64, 0, STORE "bar.warp.sync -1;\n" XOR128 NEIGHBOUR,
     STORE "bar.sync 0;\n" XOR128 NEIGHBOUR},
    {"race-shared", "another thread", 1, 32, 0, "st.shared.u32 [tile], %r0;\n",
     FIRST "@%p0 st.shared.u32 [tile], %r0;\n"},
    {"race-shared|uninit-shared", "atomically changes|nobody wrote", 1, 64, 0,
     FIRST "@%p0 st.shared.u32 [tile], %r0;\nred.shared.add.u32 [tile], 1;",
     FIRST "@%p0 st.shared.u32 [tile], %r0;\nbar.sync 0;\nred.shared.add.u32 [tile], 1;"},
    /* a bar.warp.sync of half the lanes orders these and no others */
    {"race-shared", "another thread", 1, 32, 0,
     STORE "setp.lt.u32 %p0, %r0, 16;\nselp.b32 %r8, 0xffff, 0xffff0000, %p0;\nbar.warp.sync %r8;\nxor.b32 %r3, "
           "%r1, 64;\nmov.u32 %r4, tile;\nadd.s32 %r3, %r3, %r4;\n" NEIGHBOUR,
     STORE
     "setp.lt.u32 %p0, %r0, 16;\nselp.b32 %r8, 0xffff, 0xffff0000, %p0;\nbar.warp.sync %r8;\n" XOR4 NEIGHBOUR},
    /* global memory: within a block and between blocks */
    {"race-global", "another block", 2, 32, 0, "st.global.u32 [%d1], %r0;", "red.global.add.u32 [%d2], %r0;"},
    {"race-global", "another block", 2, 32, 0, "ld.global.u32 %r5, [%d2];\nst.global.u32 [%d2], %r0;",
     "ld.global.u32 %r5, [%d2];"},
    {"race-global", "another block", 3, 32, 0,
     "mov.u32 %r5, %ctaid.x;\nsetp.eq.u32 %p0, %r5, 1;\n@%p0 red.global.add.u32 [%d2], %r0;\n@!%p0 ld.global.u32 "
     "%r6, [%d2];",
     "red.global.add.u32 [%d2], %r0;"},
    {"race-global", "another thread", 1, 32, 0,
     "st.global.u32 [%d1], %r0;\nxor.b32 %r5, %r1, 4;\ncvt.u64.u32 %d5, %r5;\nld.param.u64 %d6, [k_0];\nadd.s64 "
     "%d5, %d5, %d6;\nbar.warp.sync -1;\nld.global.u32 %r6, [%d5];\nst.global.u32 [%d1], %r0;",
     "st.global.u32 [%d1], %r0;\nxor.b32 %r5, %r1, 4;\ncvt.u64.u32 %d5, %r5;\nld.param.u64 %d6, [k_0];\nadd.s64 "
     "%d5, %d5, %d6;\nbar.warp.sync -1;\nld.global.u32 %r6, [%d5];\nbar.sync 0;\nst.global.u32 [%d1], %r0;"},
    /* cp.async */
    {"cp-async", "still fills", 1, 16, 0,
     COPY16 "cp.async.cg.shared.global [%r6], [%d6], 16;\ncp.async.commit_group;\nld.shared.u32 %r8, [%r6];",
     COPY16 "cp.async.cg.shared.global [%r6], [%d6], 16;\ncp.async.commit_group;\ncp.async.wait_group "
            "0;\nld.shared.u32 %r8, [%r6];"},
    {"cp-async", "still fills", 1, 16, 0,
     COPY16 "cp.async.cg.shared.global [%r6], [%d6], 16;\ncp.async.commit_group;\ncp.async.wait_group "
            "1;\nld.shared.u32 %r8, [%r6];",
     COPY16
     "cp.async.cg.shared.global [%r6], [%d6], "
     "16;\ncp.async.commit_group;\ncp.async.commit_group;\ncp.async.wait_group 1;\nld.shared.u32 %r8, [%r6];"},
    {"cp-async", "still fills", 1, 16, 0,
     COPY16 "cp.async.cg.shared.global [%r6], [%d6], 16;\ncp.async.wait_group 0;\nld.shared.u32 %r8, [%r6];",
     COPY16 "cp.async.cg.shared.global [%r6], [%d6], 16;\ncp.async.wait_all;\nld.shared.u32 %r8, [%r6];"},
    {"race-shared", "another thread wrote", 1, 16, 0,
     COPY16 "cp.async.cg.shared.global [%r6], [%d6], 16;\ncp.async.commit_group;\ncp.async.wait_group 0;\n" TURN16
            "ld.shared.u32 %r8, [%r6];",
     COPY16 "cp.async.cg.shared.global [%r6], [%d6], 16;\ncp.async.commit_group;\ncp.async.wait_group "
            "0;\nbar.sync 0;\n" TURN16 "ld.shared.u32 %r8, [%r6];"},
    {"race-shared", "a cp.async writes", 1, 16, 0,
     COPY16 "st.shared.u32 [%r6], %r0;\nbar.warp.sync 0xffff;\nsub.u32 %r6, %r6, %r7;\nxor.b32 %r8, %r6, "
            "16;\nadd.u32 %r8, %r8, %r7;\nadd.u32 %r6, %r6, %r7;\nld.shared.u32 %r9, "
            "[%r8];\ncp.async.cg.shared.global [%r6], [%d6], 16;",
     COPY16 "st.shared.u32 [%r6], %r0;\nbar.warp.sync 0xffff;\nsub.u32 %r6, %r6, %r7;\nxor.b32 %r8, %r6, "
            "16;\nadd.u32 %r8, %r8, %r7;\nadd.u32 %r6, %r6, %r7;\nld.shared.u32 %r9, [%r8];\nbar.sync "
            "0;\ncp.async.cg.shared.global [%r6], [%d6], 16;"},
    /* lanes that do not come */
    {"divergent", "never come|takes no part", 1, 32, 0,
     "setp.lt.u32 %p0, %r0, 7;\n@%p0 bra OUT;\nshfl.sync.bfly.b32 %r5, %r1, 1, 31, -1;\nOUT:\n",
     "shfl.sync.bfly.b32 %r5, %r1, 1, 31, -1;\n"},
    {"divergent", "take no part|never come", 1, 32, 0,
     "setp.lt.u32 %p0, %r0, 7;\n@%p0 shfl.sync.bfly.b32 %r5, %r1, 1, 31, -1;\n",
     "setp.lt.u32 %p0, %r0, 8;\n@%p0 shfl.sync.bfly.b32 %r5, %r1, 1, 31, 255;\n"},
    {"divergent", "its own mask", 1, 32, 0, "shfl.sync.bfly.b32 %r5, %r1, 1, 31, 0xffff;\n",
     "setp.lt.u32 %p0, %r0, 16;\n@%p0 shfl.sync.bfly.b32 %r5, %r1, 1, 31, 0xffff;\n"},
    {"divergent", "takes no part", 1, 32, 0,
     "setp.lt.u32 %p0, %r0, 16;\n@%p0 shfl.sync.bfly.b32 %r5, %r1, 16, 31, 0xffff;\n",
     "setp.lt.u32 %p0, %r0, 16;\n@%p0 shfl.sync.bfly.b32 %r5, %r1, 8, 31, 0xffff;\n"},
    {"divergent", "takes no part", 1, 24, 0, "shfl.sync.down.b32 %r5, %r1, 8, 31, -1;\n",
     "shfl.sync.down.b32 %r5, %r1, 8, 23, 0xffffff;\n"},
    {"divergent", "lanes missing", 1, 24, 0, "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r5}, [tile];\n",
     "bar.warp.sync -1;\n"},
    {"divergent", "wait here", 1, 32, 0,
     "setp.lt.u32 %p0, %r0, 16;\n@%p0 bra OUT;\nbar.warp.sync -1;\nOUT:\nbar.sync 0;\n",
     "setp.lt.u32 %p0, %r0, 16;\n@%p0 bra OUT;\nbar.warp.sync 0xffff0000;\nOUT:\n"},
    /* barriers */
    {"barrier", "have returned before", 1, 64, 0, "setp.lt.u32 %p0, %r0, 7;\n@%p0 ret;\nbar.sync 0;\n",
     "bar.sync 0;\nsetp.lt.u32 %p0, %r0, 7;\n@%p0 ret;\n"},
    {"barrier", "have returned before", 1, 64, 0, "setp.lt.u32 %p0, %r0, 32;\n@%p0 ret;\nbar.sync 0;\n",
     "bar.sync 0;\n"},
    {"barrier", "never come|reach", 1, 32, 0,
     "setp.lt.u32 %p0, %r0, 7;\n@%p0 bra OUT;\nbar.sync 0;\nbra END;\nOUT:\nbar.sync 0;\nEND:\n", "bar.sync 0;\n"},
    {"barrier", "reach it", 1, 32, 0, "setp.lt.u32 %p0, %r0, 7;\n@%p0 bar.sync 0;\n",
     "setp.lt.u32 %p0, %r0, 77;\n@%p0 bar.sync 0;\n"},
    {"barrier", "another one", 1, 64, 0,
     "setp.lt.u32 %p0, %r0, 32;\n@%p0 bra OUT;\nbar.sync 0;\nbra END;\nOUT:\nbar.sync 0;\nEND:\n",
     "bar.sync 0;\n"},
    /* others */
    {"trap", "trap", 1, 32, 0, FIRST "@%p0 trap;\n", FIRST "@!%p0 bra END;\nEND:\n"},
    {"endless", "still running", 1, 32, 0, "LOOP:\nbra LOOP;\n",
     "LOOP:\nsetp.lt.u32 %p0, %r0, 0;\n@%p0 bra LOOP;\n"},
    {"limit", "__launch_bounds__|too large", 1, 1056, 0, "", NULL},
    {"limit", "99 KiB", 1, 32, 99 * 1024, "", NULL},
};

static bool says(const char *message, const char *alternatives, bool begins) {
    char one[64];
    for (const char *a = alternatives;; a++) {
        size_t n = strcspn(a, "|");
        snprintf(one, sizeof one, "%.*s", (int)n, a);
        const char *at = strstr(message, one);
        if (begins ? at == message && message[n] == ':' : at != NULL) return true;
        a += n;
        if (!*a) return false;
    }
}

static void test_checks(void **state) {
    (void)state;
    ptx_options.budget = 100000;
    for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
        const Wrong *w = &wrongs[i];
        const char *why = outcome(w->wrong, w->blocks, w->threads, w->shared);
        if (!why || !says(why, w->check, true) || !says(why, w->says, false))
            fail_msg("%zu: not %s, but %s: %s", i, w->check, why ? why : "nothing", w->wrong);
        why = w->right ? outcome(w->right, w->blocks, w->threads, w->shared) : NULL;
        if (why) fail_msg("%zu: not wrong, yet: %s", i, why);
    }
}

/* With two OS threads that share the blocks, races between blocks and the rest are found as well. */
static void test_threads(void **state) {
    (void)state;
    ptx_options.threads = 2;
    const char *why = outcome("st.global.u32 [%d1], %r0;", 64, 32, 0);
    assert_true(why && strstr(why, "race-global"));
    why = outcome("red.global.add.u32 [%d2], 1;\n" STORE "bar.sync 0;\n" XOR128 NEIGHBOUR, 64, 64, 0);
    if (why) fail_msg("%s", why);
    ptx_options.threads = 1;
}

static void test_freed(void **state) {
    (void)state;
    PtxModule *m = module_of(".param .u64 k_0", "ld.param.u64 %d0, [k_0];\nld.global.u32 %r0, [%d0];");
    uint32_t one = 1;
    uint64_t a = device_new(&one, 4);
    assert_null(run(m, 1, 1, 0, &a));
    assert_null(ptx_free(a));
    const char *why = run(m, 1, 1, 0, &a);
    assert_true(why && says(why, "freed", true));
    assert_non_null(ptx_free(a));      /* twice */
    assert_non_null(ptx_free(a + 16)); /* not the beginning */
    uint64_t b = ptx_alloc(4);
    assert_true(b != a && b % 256 == 0 && b % 512 != 0);
    ptx_free(b);
    ptx_unload(m);
}

static void test_constant(void **state) {
    (void)state;
    static const char text[] = ".version 9.0\n.target sm_80\n.address_size 64\n.const .align 4 .u32 c = "
                               "5;\n.visible .entry k()\n{\n.reg .b32 %r<2>;\n.reg .b64 %d<2>;\n"
                               "mov.u64 %d0, c;\ncvta.const.u64 %d0, %d0;\nst.global.u32 [%d0], 7;\nret;\n}\n";
    PtxModule *m;
    assert_null(ptx_load_text(&m, "constant", text));
    const char *why = run(m, 1, 1, 0, NULL);
    assert_true(why && says(why, "read-only", true));
    ptx_unload(m);
}

/* A message says where: kernel, block, thread, and the line of the .cu where the PTX has it. */
static void test_message(void **state) {
    (void)state;
    static const char text[] =
        ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\n.reg .b32 %r<2>;\n.reg .pred "
        "%p<2>;\n.loc 1 42 3\nmov.u32 %r0, %tid.x;\nsetp.eq.u32 %p0, %r0, 37;\n"
        "mov.u32 %r0, %ctaid.y;\nsetp.eq.and.u32 %p0, %r0, 1, %p0;\n.loc 1 43 3, function_name $L__info, "
        "inlined_at 1 50 2\n@%p0 trap;\nret;\n}\n.file 1 \"some/kernel.cu\"\n";
    PtxModule *m;
    assert_null(ptx_load_text(&m, "text", text));
    const char *why = ptx_launch(ptx_kernel(m, "k"), (unsigned[3]){2, 3, 1}, (unsigned[3]){64, 1, 1}, 0, NULL);
    assert_string_equal(why, "trap: k, block (0,1,0), thread 37: trap, at some/kernel.cu:43: @%p0 trap;");
    ptx_unload(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checks),   cmocka_unit_test(test_threads), cmocka_unit_test(test_freed),
        cmocka_unit_test(test_constant), cmocka_unit_test(test_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
