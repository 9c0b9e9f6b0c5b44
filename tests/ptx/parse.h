/* parse.h: between the parser (parse.c) and the decoder of instructions (decode.c). */
#ifndef TESTS_PTX_PARSE_H
#define TESTS_PTX_PARSE_H

#include "tests/ptx/core.h"

typedef enum { SYM_REG, SYM_VAR, SYM_FUNC } SymKind;
typedef struct {
    const char *name;
    SymKind kind;
    int count; /* registers %name0 .. %name<count - 1>; -1: one, of this very name */
    Type type;
    uint32_t off;   /* first register's row */
    uint64_t value; /* variable: its address in its space */
    Space space;
    int size;
    Func *func;
} Sym;

typedef enum { RAW_REG, RAW_PRED, RAW_IMM, RAW_ADDR, RAW_VEC, RAW_SINK, RAW_NAME, RAW_LIST } RawKind;
typedef struct Raw {
    RawKind kind;
    uint32_t off, pair;
    uint8_t base, width, n;
    bool neg;
    const Sym *sym; /* the variable behind an immediate or an address */
    uint64_t imm;   /* value; displacement of an address */
    bool fixed;     /* address without a register */
    const char *name;
    struct Raw *vec;
} Raw;

typedef struct {
    PtxModule *m;
    const char *at;
    int line, file, source;
    char token[256];
    Func *func;
    Sym *syms;
    int n_syms, cap_syms, n_scopes, scopes[64];
    struct {
        const char *name;
        int at;
    } * labels;
    int n_labels, cap_labels;
    struct {
        int ins, opd;
        const char *name;
    } * fixes; /* opd -1: target; -2: the list of brx */
    int n_fixes, cap_fixes;
    struct {
        const char *label;
        const char **names;
        int n;
    } lists[64]; /* .branchtargets */
    int n_lists, cap_code;
    jmp_buf stop;
    char *message;
    size_t n_message;
} Parser;

_Noreturn void parse_stop(Parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *module_keep(PtxModule *m, size_t bytes); /* zeroed, freed with the module */
const char *module_string(PtxModule *m, const char *s);
uint32_t module_constant(PtxModule *m, uint64_t value, int width); /* offset of a row of it */

/* Fills in->fn, operands and the rest from the opcode's text and its operands; stops on what is not known. */
void decode(Parser *p, Ins *in, const char *opcode, Raw *raw, int n);
/* Whether the opcode is in the tables, without operands: for the test of coverage. */
int special_register(const char *name); /* row number, or -1 */
enum { N_SPECIAL = 24 };

#endif
