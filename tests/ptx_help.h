/* ptx_help.h: runs one instruction of PTX on rows of operands, for the tests of the interpreter. */
#ifndef TESTS_PTX_HELP_H
#define TESTS_PTX_HELP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/base.h"
#include "tests/ptx/ptx.h"

/* A kernel of a module that holds nothing else; the text may use %p %r %f %h %d registers 0 .. 63 of it. */
static inline PtxModule *module_of(const char *params, const char *body) {
    static char text[1 << 16];
    snprintf(text, sizeof text,
             ".version 9.0\n.target sm_80\n.address_size 64\n"
             ".extern .shared .align 16 .b8 more[];\n.visible .entry k(%s)\n{\n.reg .pred %%p<64>;\n.reg .b16 "
             "%%h<64>;\n.reg .b32 %%r<64>;\n.reg .f32 %%f<64>;\n"
             ".reg .b64 %%d<64>;\n%s\nret;\n}\n",
             params, body);
    PtxModule *m;
    const char *why = ptx_load_text(&m, "test", text);
    if (why) fail_msg("%s", why);
    return m;
}

static inline uint64_t device_new(const void *data, size_t bytes) { /* data NULL: unwritten */
    uint64_t a = ptx_alloc(bytes);
    assert_true(a != 0);
    const char *why;
    if (data) memcpy(ptx_memory(a, bytes, &why), data, bytes), ptx_mark(a, bytes, true);
    return a;
}
static inline void device_get(uint64_t a, void *to, size_t bytes) {
    const char *why = "";
    const void *p = ptx_memory(a, bytes, &why);
    if (!p) fail_msg("%s", why);
    memcpy(to, p, bytes);
}

static inline const char *run(PtxModule *m, unsigned blocks, unsigned threads, size_t shared,
                              const uint64_t *params) {
    return ptx_launch(ptx_kernel(m, "k"), (unsigned[3]){blocks, 1, 1}, (unsigned[3]){threads, 1, 1}, shared,
                      params);
}

/* ---- one instruction ----
 * sig "w:wh": the result D is 32 bits wide, A 32, B 16. Letters: h 16, w 32, d 64 bits, p predicate (0 or 1), q
 * two predicates P|Q (bits 0 and 1). Operands are A B C E. in[i] are values of operand i. */
enum { CASES = 4096 };

static inline void operand_load(char *s, size_t n, char type, char name, int i) {
    const char *decl = type == 'h' ? ".b16" : type == 'w' ? ".b32" : type == 'd' ? ".b64" : ".pred";
    size_t at = strlen(s);
    at += (size_t)snprintf(
        s + at, n - at,
        ".reg %s %c;\nld.param.u64 %%d2, [k_%d];\nadd.s64 %%d2, %%d2, %%d0;\nld.global.u64 %%d3, [%%d2];\n", decl,
        name, i + 1);
    if (type == 'd')
        snprintf(s + at, n - at, "mov.u64 %c, %%d3;\n", name);
    else if (type == 'w')
        snprintf(s + at, n - at, "mov.b64 {%c, _}, %%d3;\n", name);
    else if (type == 'h')
        snprintf(s + at, n - at, "mov.b64 {%%r4, _}, %%d3;\nmov.b32 {%c, _}, %%r4;\n", name);
    else
        snprintf(s + at, n - at, "setp.ne.u64 %c, %%d3, 0;\n", name);
}

static inline void run_instruction(const char *ins, const char *sig, const uint64_t *const in[4],
                                   uint64_t out[CASES]) {
    static char body[8192];
    int n = (int)strlen(sig) - 2;
    snprintf(body, sizeof body,
             "mov.u32 %%r0, %%tid.x;\nmov.u32 %%r1, %%ctaid.x;\nmad.lo.s32 %%r0, %%r1, 256, %%r0;\nmul.wide.u32 "
             "%%d0, %%r0, 8;\n");
    for (int i = 0; i < n; i++) operand_load(body, sizeof body, sig[2 + i], "ABCE"[i], i);
    size_t at = strlen(body);
    const char *decl = sig[0] == 'h'   ? ".b16 D"
                       : sig[0] == 'w' ? ".b32 D"
                       : sig[0] == 'd' ? ".b64 D"
                                       : ".pred D, Q";
    at += (size_t)snprintf(body + at, sizeof body - at, ".reg %s;\n%s\n", decl, ins);
    static const char *const ends[] = {"mov.b32 %r5, {D, 0};\nmov.b64 %d4, {%r5, 0};", "mov.b64 %d4, {D, 0};",
                                       "mov.u64 %d4, D;", "selp.u64 %d4, 1, 0, D;",
                                       "selp.u64 %d4, 1, 0, D;\nselp.u64 %d5, 2, 0, Q;\nor.b64 %d4, %d4, %d5;"};
    snprintf(body + at, sizeof body - at,
             "%s\nld.param.u64 %%d1, [k_0];\nadd.s64 %%d1, %%d1, %%d0;\nst.global.u64 [%%d1], %%d4;\n",
             ends[strchr("hwdpq", sig[0]) - "hwdpq"]);
    PtxModule *m =
        module_of(".param .u64 k_0, .param .u64 k_1, .param .u64 k_2, .param .u64 k_3, .param .u64 k_4", body);
    uint64_t params[5] = {device_new(NULL, sizeof(uint64_t) * CASES)};
    for (int i = 0; i < n; i++) params[1 + i] = device_new(in[i], sizeof(uint64_t) * CASES);
    const char *why = run(m, CASES / 256, 256, 0, params);
    if (why) fail_msg("%s: %s", ins, why);
    device_get(params[0], out, sizeof(uint64_t) * CASES);
    for (int i = 0; i <= n; i++) ptx_free(params[i]);
    ptx_unload(m);
}

/* A loading that must fail: the message. */
static inline const char *load_error(const char *body) {
    static char text[8192];
    snprintf(text, sizeof text,
             ".version 9.0\n.target sm_80\n.address_size 64\n.visible .entry k()\n{\n.reg .b32 %%r<8>;\n.reg .b64 "
             "%%d<8>;\n%s\nret;\n}\n",
             body);
    PtxModule *m;
    const char *why = ptx_load_text(&m, "test", text);
    ptx_unload(m);
    return why;
}

#endif
