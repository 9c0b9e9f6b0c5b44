/* parse.c: from the text of a module, as nvcc prints it, to instructions. */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/ptx/parse.h"

enum { GAP = 16 }; /* nothing lies between two shared variables, so that an index that is off by one is seen */

void parse_stop(Parser *p, const char *format, ...) {
    va_list args;
    va_start(args, format);
    int n = snprintf(p->message, p->n_message, "%s:%d: ", p->m->name, p->line);
    vsnprintf(p->message + n, p->n_message - (size_t)n, format, args);
    va_end(args);
    longjmp(p->stop, 1);
}

void *module_keep(PtxModule *m, size_t bytes) {
    void **block = calloc(1, sizeof(void *) * 2 + bytes);
    if (!block) abort();
    block[0] = m->arena;
    m->arena = block;
    return block + 2;
}

const char *module_string(PtxModule *m, const char *s) { return strcpy(module_keep(m, strlen(s) + 1), s); }

uint32_t module_constant(PtxModule *m, uint64_t value, int width) {
    uint8_t lane[8];
    memcpy(lane, &value, 8); /* little endian: the low bytes */
    for (int i = 0; i < m->n_konsts; i++)
        if (m->konsts[i].value == value && m->konsts[i].width == width) return m->konsts[i].off;
    size_t at = m->n_konst;
    m->konst = realloc(m->konst, at + (size_t)width * 32);
    if (!m->konst) abort();
    for (int l = 0; l < 32; l++) memcpy(m->konst + at + l * width, lane, (size_t)width);
    m->n_konst += (size_t)width * 32;
    m->konsts = realloc(m->konsts, (size_t)(m->n_konsts + 1) * sizeof *m->konsts);
    if (!m->konsts) abort();
    m->konsts[m->n_konsts].value = value, m->konsts[m->n_konsts].width = width;
    m->konsts[m->n_konsts++].off = (uint32_t)at;
    return (uint32_t)at;
}

/* ---- tokens ---- */

static void skip_space(Parser *p) {
    for (;; p->at++) {
        if (p->at[0] == '/' && p->at[1] == '/') p->at += strcspn(p->at, "\n");
        if (p->at[0] == '/' && p->at[1] == '*') {
            const char *end = strstr(p->at, "*/");
            if (!end) parse_stop(p, "a comment has no end");
            for (; p->at < end; p->at++) p->line += *p->at == '\n';
            p->at++; /* the loop steps over the slash */
            continue;
        }
        if (*p->at == '\n') p->line++;
        if (!isspace((unsigned char)*p->at)) return;
    }
}

static bool word_char(const char *s) {
    return isalnum((unsigned char)*s) || strchr("_$%.", *s) != NULL || (s[0] == ':' && s[1] == ':') ||
           (s[0] == ':' && s[-1] == ':');
}

/* The next token: a word (with its dots), a string, or one character. "" at the end. */
static const char *next(Parser *p) {
    skip_space(p);
    size_t n = 0;
    if (*p->at == '"') {
        do {
            if (n < sizeof p->token - 2) p->token[n++] = *p->at;
            p->at++;
        } while (*p->at && *p->at != '"');
        if (*p->at) p->at++;
    } else if (*p->at && word_char(p->at)) {
        while (*p->at && word_char(p->at)) {
            if (n >= sizeof p->token - 1) parse_stop(p, "a word is too long");
            p->token[n++] = *p->at++;
        }
    } else if (*p->at) {
        p->token[n++] = *p->at++;
    }
    p->token[n] = 0;
    return p->token;
}

static bool peek(Parser *p, char c) {
    skip_space(p);
    return *p->at == c;
}
static bool take(Parser *p, char c) {
    if (!peek(p, c)) return false;
    p->at++;
    return true;
}
static void want(Parser *p, char c) {
    if (!take(p, c)) parse_stop(p, "expected '%c' at: %.40s", c, p->at);
}
static bool take_word(Parser *p, const char *word) {
    Parser saved = {.at = p->at, .line = p->line};
    if (strcmp(next(p), word) == 0) return true;
    p->at = saved.at, p->line = saved.line;
    return false;
}

static uint64_t number(Parser *p) {
    bool minus = take(p, '-');
    const char *t = next(p);
    uint64_t v;
    if (t[0] == '0' && (t[1] == 'f' || t[1] == 'F' || t[1] == 'd' || t[1] == 'D')) {
        v = strtoull(t + 2, NULL, 16);
        if (minus) parse_stop(p, "a minus before a number in hexadecimal");
        return v;
    }
    if (!isdigit((unsigned char)t[0])) parse_stop(p, "expected a number, not '%s'", t);
    v = strtoull(t, NULL, 0);
    return minus ? -v : v;
}

/* ---- names ---- */

#define GROW(array, n, cap)                                                                                       \
    do {                                                                                                          \
        if ((n) == (cap)) {                                                                                       \
            (cap) = (cap) ? 2 * (cap) : 64;                                                                       \
            (array) = realloc((array), (size_t)(cap) * sizeof *(array));                                          \
            if (!(array)) abort();                                                                                \
        }                                                                                                         \
    } while (0)

static Sym *symbol_add(Parser *p, const char *name, SymKind kind) {
    GROW(p->syms, p->n_syms, p->cap_syms);
    Sym *s = &p->syms[p->n_syms++];
    *s = (Sym){.name = module_string(p->m, name), .kind = kind, .count = -1};
    return s;
}

/* Innermost first. A register %r12 is found by its prefix; *index is 12. */
static const Sym *symbol_find(Parser *p, const char *name, int *index) {
    size_t n = strlen(name), digits = n;
    while (digits > 0 && isdigit((unsigned char)name[digits - 1])) digits--;
    *index = 0;
    for (int i = p->n_syms; i-- > 0;) {
        const Sym *s = &p->syms[i];
        if (strcmp(s->name, name) == 0 && s->count < 0) return s;
        if (s->count >= 0 && digits < n && strlen(s->name) == digits && strncmp(s->name, name, digits) == 0) {
            *index = atoi(name + digits);
            if (*index < s->count) return s;
        }
    }
    return NULL;
}

static void scope_open(Parser *p) {
    if (p->n_scopes == 64) parse_stop(p, "too many scopes");
    p->scopes[p->n_scopes++] = p->n_syms;
}
static void scope_close(Parser *p) {
    if (!p->n_scopes) parse_stop(p, "'}' without '{'");
    p->n_syms = p->scopes[--p->n_scopes];
}

/* ---- variables ---- */

/* .align 16 .b8 name[64] : the type, the name in p->token, and what it takes. */
static Type declarator(Parser *p, int *align, int *size, bool *sized) {
    Type type = T_NONE;
    int vec = 1;
    *align = 0;
    for (;;) {
        const char *t = next(p);
        if (strcmp(t, ".align") == 0)
            *align = (int)number(p);
        else if (strcmp(t, ".v2") == 0)
            vec = 2;
        else if (strcmp(t, ".v4") == 0)
            vec = 4;
        else if (strcmp(t, ".ptr") == 0) { /* of a parameter: says where it points */
            while (take_word(p, ".global") || take_word(p, ".shared") || take_word(p, ".const") ||
                   take_word(p, ".local")) {
            }
            if (take_word(p, ".align")) number(p);
        } else if (t[0] == '.' && (type = type_named(t + 1)) != T_NONE) {
        } else if (t[0] != '.')
            break;
        else
            parse_stop(p, "'%s' in a declaration is not known", t);
    }
    if (type == T_NONE) parse_stop(p, "a declaration of '%s' without a type", p->token);
    char name[256];
    strcpy(name, p->token);
    long count = 1;
    *sized = true;
    while (take(p, '[')) {
        if (peek(p, ']'))
            *sized = false;
        else
            count *= (long)number(p);
        want(p, ']');
    }
    *size = type_bytes(type) * vec * (int)count;
    if (*align == 0) *align = type_bytes(type) * vec;
    strcpy(p->token, name);
    return type;
}

static int place(int end, int align, int gap) { /* aligned to this and to no more, so that luck is no help */
    int at = (end + gap + align - 1) / align * align;
    return at % (2 * align) == 0 ? at + align : at;
}

static void initial_values(Parser *p, Type type, char *to, int size) {
    int at = 0, width = type_bytes(type);
    bool list = take(p, '{');
    do {
        if (peek(p, '}')) break;
        skip_space(p);
        uint64_t v;
        if (isdigit((unsigned char)*p->at) || *p->at == '-')
            v = number(p);
        else {
            int index;
            bool generic = take_word(p, "generic");
            if (generic) want(p, '(');
            const Sym *s = symbol_find(p, next(p), &index);
            if (!s || s->kind != SYM_VAR) parse_stop(p, "'%s' as an initial value is not known", p->token);
            v = s->value;
            if (take(p, '+')) v += number(p);
            if (generic) want(p, ')');
        }
        if (at + width > size) parse_stop(p, "too many initial values");
        memcpy(to + at, &v, (size_t)width);
        at += width;
    } while (list && take(p, ','));
    if (list) want(p, '}');
}

static void variable_global(Parser *p, Space space) {
    int align, size;
    bool sized;
    Type type = declarator(p, &align, &size, &sized);
    PtxModule *m = p->m;
    Sym *s = symbol_add(p, p->token, SYM_VAR);
    s->space = space, s->size = size, s->type = type;
    if (!sized || size == 0) parse_stop(p, "variable '%s' has no size", s->name);
    m->globals = realloc(m->globals, (size_t)(m->n_globals + 1) * sizeof *m->globals);
    if (!m->globals) abort();
    const char *why;
    uint64_t address = ptx_alloc((size_t)size);
    s->value = address;
    char *data = ptx_memory(address, (size_t)size, &why);
    if (!data) parse_stop(p, "no memory for variable '%s'", s->name);
    memset(data, 0, (size_t)size);
    ptx_mark(address, (size_t)size, true);
    m->globals[m->n_globals].name = (char *)module_string(m, s->name);
    m->globals[m->n_globals].address = address;
    m->globals[m->n_globals++].size = (size_t)size;
    if (take(p, '=')) initial_values(p, type, data, size);
    if (space == SPACE_CONST) alloc_find(address)->constant = true;
    want(p, ';');
}

static void variable_shared(Parser *p, bool external) {
    int align, size;
    bool sized;
    Type type = declarator(p, &align, &size, &sized);
    Sym *s = symbol_add(p, p->token, SYM_VAR);
    s->space = SPACE_SHARED, s->size = size, s->type = type;
    want(p, ';');
    if (external && !sized) {
        s->value = (uint64_t)(p->m->dyn + align); /* no better aligned than was asked */
        return;
    }
    int *end = p->func ? &p->func->shared : &p->m->shared;
    int *used = p->func ? &p->func->shared_used : &p->m->shared_used;
    int at = place(*end > p->m->shared ? *end : p->m->shared, align, GAP);
    *end = at + size;
    *used = (*used + align - 1) / align * align + size;
    s->value = (uint64_t)at;
    if (*end + GAP > p->m->dyn) parse_stop(p, "too much static shared memory");
    if (p->func) {
        p->func->vars = realloc(p->func->vars, (size_t)(p->func->n_vars + 1) * sizeof *p->func->vars);
        p->func->vars[p->func->n_vars].off = at, p->func->vars[p->func->n_vars++].size = size;
    } else {
        p->m->vars = realloc(p->m->vars, (size_t)(p->m->n_vars + 1) * sizeof *p->m->vars);
        p->m->vars[p->m->n_vars].off = at, p->m->vars[p->m->n_vars++].size = size;
    }
}

/* .local and .param of a body lie in every lane's own memory. */
static void variable_lane(Parser *p, Space space) {
    int align, size;
    bool sized;
    Type type = declarator(p, &align, &size, &sized);
    Sym *s = symbol_add(p, p->token, SYM_VAR);
    int *end = space == SPACE_LOCAL ? &p->m->local : &p->m->lane_param;
    int at = place(*end, align, 0);
    *end = at + size;
    s->space = space, s->size = size, s->type = type, s->value = (uint64_t)at;
    if (space == SPACE_PARAM) s->value |= PARAM_WINDOW; /* a mark: of the lane, not of the launch */
    want(p, ';');
}

static void registers(Parser *p) {
    Type type = type_named(next(p) + 1);
    if (type == T_NONE) parse_stop(p, "a register of type '%s' is not known", p->token);
    do {
        Sym *s = symbol_add(p, next(p), SYM_REG);
        int width = type == T_PRED ? 4 : type_bytes(type) < 2 ? 64 : type_bytes(type) * 32;
        s->type = type;
        s->off = p->m->frame;
        if (take(p, '<')) {
            s->count = (int)number(p);
            want(p, '>');
        }
        p->m->frame += (uint32_t)(width * (s->count < 0 ? 1 : s->count));
        p->m->frame = (p->m->frame + 63) / 64 * 64;
    } while (take(p, ','));
    want(p, ';');
}

/* ---- operands ---- */

static void operand(Parser *p, Raw *r);

static void operand_name(Parser *p, Raw *r, const char *name) {
    int index, special = special_register(name);
    if (special >= 0) {
        *r = (Raw){.kind = RAW_REG, .base = BASE_SREG, .off = (uint32_t)special * 128, .width = 4};
        return;
    }
    const Sym *s = symbol_find(p, name, &index);
    if (s && s->kind == SYM_REG && s->type == T_PRED) {
        *r = (Raw){.kind = RAW_PRED, .off = s->off + 4u * (uint32_t)index};
    } else if (s && s->kind == SYM_REG) {
        int width = type_bytes(s->type) < 2 ? 2 : type_bytes(s->type);
        if (width > 8) parse_stop(p, "registers of 128 bits are not known: %s", name);
        *r = (Raw){.kind = RAW_REG, .base = BASE_FRAME, .width = (uint8_t)width};
        r->off = s->off + (uint32_t)(width * 32 * index);
    } else if (s && s->kind == SYM_VAR) {
        *r = (Raw){.kind = RAW_IMM, .imm = s->value, .sym = s};
    } else if (strcmp(name, "WARP_SZ") == 0) {
        *r = (Raw){.kind = RAW_IMM, .imm = 32};
    } else {
        if (name[0] == '%') parse_stop(p, "register '%s' is not known", name);
        *r = (Raw){.kind = RAW_NAME, .name = module_string(p->m, name), .sym = s};
    }
}

static void operand_list(Parser *p, Raw *r, RawKind kind, char end) {
    Raw items[32];
    int n = 0;
    while (!take(p, end)) {
        if (n == 32) parse_stop(p, "a list is too long");
        operand(p, &items[n++]);
        if (!peek(p, end)) want(p, ',');
    }
    *r = (Raw){.kind = kind, .n = (uint8_t)n, .vec = module_keep(p->m, sizeof(Raw) * (size_t)(n ? n : 1))};
    memcpy(r->vec, items, sizeof(Raw) * (size_t)n);
}

static void operand(Parser *p, Raw *r) {
    if (take(p, '{')) {
        operand_list(p, r, RAW_VEC, '}');
    } else if (take(p, '(')) {
        operand_list(p, r, RAW_LIST, ')');
    } else if (take(p, '[')) {
        operand(p, r);
        if (r->kind != RAW_REG && r->kind != RAW_IMM) parse_stop(p, "an address of this kind is not known");
        if (r->kind == RAW_IMM) r->fixed = true;
        r->kind = RAW_ADDR;
        if (!r->fixed) r->imm = 0;
        if (take(p, '+'))
            r->imm += number(p);
        else if (peek(p, '-'))
            r->imm += number(p);
        want(p, ']');
    } else if (take(p, '!')) {
        operand(p, r);
        if (r->kind != RAW_PRED) parse_stop(p, "'!' before what is no predicate");
        r->neg = true;
    } else if (skip_space(p), isdigit((unsigned char)*p->at) || *p->at == '-') {
        *r = (Raw){.kind = RAW_IMM, .imm = number(p)};
    } else {
        char name[256];
        strcpy(name, next(p));
        if (strcmp(name, "_") == 0)
            *r = (Raw){.kind = RAW_SINK};
        else
            operand_name(p, r, name);
        if (take(p, '|')) {
            Raw q;
            operand(p, &q);
            if (q.kind != RAW_PRED && q.kind != RAW_SINK) parse_stop(p, "after '|' comes no predicate");
            r->pair = q.off;
        }
    }
}

/* ---- bodies ---- */

static void instruction(Parser *p, const char *start) {
    PtxModule *m = p->m;
    GROW(m->code, m->n_code, p->cap_code);
    Ins *in = &m->code[m->n_code];
    *in = (Ins){.line = p->line, .file = p->file, .source = p->source, .member = -1, .target = -1};
    if (strcmp(p->token, "@") == 0) {
        Raw r;
        operand(p, &r);
        if (r.kind != RAW_PRED) parse_stop(p, "after '@' comes no predicate");
        in->pred = r.off;
        in->pneg = r.neg;
        next(p);
    }
    char opcode[256];
    strcpy(opcode, p->token);
    Raw raw[10];
    int n = 0;
    while (!take(p, ';')) {
        if (n == 10) parse_stop(p, "too many operands: %s", opcode);
        operand(p, &raw[n++]);
        if (!peek(p, ';')) want(p, ',');
    }
    int length = (int)(p->at - start);
    char *text = module_keep(m, (size_t)length + 1);
    for (int i = 0; i < length; i++) text[i] = start[i] == '\n' || start[i] == '\t' ? ' ' : start[i];
    in->text = text;
    decode(p, in, opcode, raw, n);
    m->n_code++;
    for (int i = 0; i < in->n; i++) {
        if (in->o[i].kind != OPD_LABEL) continue;
        GROW(p->fixes, p->n_fixes, p->cap_fixes);
        p->fixes[p->n_fixes].ins = m->n_code - 1;
        p->fixes[p->n_fixes].opd = in->flow == FLOW_BRX ? -2 : -1;
        p->fixes[p->n_fixes++].name = raw[in->flow == FLOW_BRX ? 1 : 0].name;
    }
}

static void branch_targets(Parser *p, const char *label) {
    const char *names[256];
    int n = 0;
    do {
        if (n == 256 || p->n_lists == 64) parse_stop(p, "too many branch targets");
        names[n++] = module_string(p->m, next(p));
    } while (take(p, ','));
    want(p, ';');
    p->lists[p->n_lists].label = label;
    p->lists[p->n_lists].n = n;
    p->lists[p->n_lists].names = module_keep(p->m, sizeof names[0] * (size_t)n);
    memcpy(p->lists[p->n_lists++].names, names, sizeof names[0] * (size_t)n);
}

static int label_find(Parser *p, const char *name) {
    for (int i = 0; i < p->n_labels; i++)
        if (strcmp(p->labels[i].name, name) == 0) return p->labels[i].at;
    parse_stop(p, "label '%s' is not known", name);
}

static void fix_labels(Parser *p) {
    for (int i = 0; i < p->n_fixes; i++) {
        Ins *in = &p->m->code[p->fixes[i].ins];
        if (p->fixes[i].opd == -1) {
            in->target = label_find(p, p->fixes[i].name);
            continue;
        }
        int k = 0;
        while (k < p->n_lists && strcmp(p->lists[k].label, p->fixes[i].name) != 0) k++;
        if (k == p->n_lists) parse_stop(p, "branch targets '%s' are not known", p->fixes[i].name);
        int32_t *targets = module_keep(p->m, sizeof *targets * (size_t)(p->lists[k].n + 1));
        targets[0] = p->lists[k].n;
        for (int j = 0; j < p->lists[k].n; j++) targets[j + 1] = label_find(p, p->lists[k].names[j]);
        in->targets = targets;
    }
    p->n_fixes = p->n_labels = p->n_lists = 0;
}

static void skip_line(Parser *p) { p->at += strcspn(p->at, "\n"); }

static void body_directive(Parser *p) {
    const char *t = p->token;
    if (strcmp(t, ".reg") == 0)
        registers(p);
    else if (strcmp(t, ".local") == 0)
        variable_lane(p, SPACE_LOCAL);
    else if (strcmp(t, ".param") == 0)
        variable_lane(p, SPACE_PARAM);
    else if (strcmp(t, ".shared") == 0)
        variable_shared(p, false);
    else if (strcmp(t, ".loc") == 0) {
        p->file = (int)number(p);
        p->source = (int)number(p);
        skip_line(p);
    } else if (strcmp(t, ".pragma") == 0)
        skip_line(p);
    else
        parse_stop(p, "directive '%s' is not known", t);
}

static void body(Parser *p) {
    int depth = 1;
    scope_open(p);
    while (depth) {
        skip_space(p);
        const char *start = p->at;
        const char *t = next(p);
        if (!*t) parse_stop(p, "the end of the file in a function");
        if (strcmp(t, "{") == 0) {
            scope_open(p);
            depth++;
        } else if (strcmp(t, "}") == 0) {
            scope_close(p);
            depth--;
        } else if (t[0] == '.') {
            body_directive(p);
        } else if (t[0] != '@' && peek(p, ':')) {
            const char *name = module_string(p->m, t);
            want(p, ':');
            if (take_word(p, ".branchtargets")) {
                branch_targets(p, name);
                continue;
            }
            if (take_word(p, ".callprototype")) parse_stop(p, "calls through pointers are not known");
            for (int i = 0; i < p->n_labels; i++)
                if (strcmp(p->labels[i].name, name) == 0) parse_stop(p, "label '%s' is there twice", name);
            GROW(p->labels, p->n_labels, p->cap_labels);
            p->labels[p->n_labels].name = name;
            p->labels[p->n_labels++].at = p->m->n_code;
        } else if (strcmp(t, ";") != 0) {
            instruction(p, start);
        }
    }
    fix_labels(p);
}

/* ---- functions and modules ---- */

/* The list of parameters after '('. Those of an entry lie in one buffer, those of a function in the lane's memory.
 */
static Param *parameters(Parser *p, bool entry, int *n, int *bytes) {
    Param params[256];
    *n = 0;
    while (!take(p, ')')) {
        int align, size;
        bool sized;
        if (!take_word(p, ".param") && !take_word(p, ".reg")) parse_stop(p, "expected .param");
        if (*n == 256) parse_stop(p, "too many parameters");
        Type type = declarator(p, &align, &size, &sized);
        int *end = entry ? bytes : &p->m->lane_param;
        int at = entry ? (*end + align - 1) / align * align : place(*end, align, 0);
        *end = at + size;
        Sym *s = symbol_add(p, p->token, SYM_VAR);
        s->space = SPACE_PARAM, s->size = size, s->type = type, s->value = (uint64_t)at;
        if (!entry) s->value |= PARAM_WINDOW;
        params[(*n)++] = (Param){s->name, at, size};
        if (!peek(p, ')')) want(p, ',');
    }
    Param *kept = module_keep(p->m, sizeof *kept * (size_t)(*n + 1));
    memcpy(kept, params, sizeof *kept * (size_t)*n);
    return kept;
}

static Func *function_named(Parser *p, const char *name) {
    PtxModule *m = p->m;
    for (int i = 0; i < m->n_funcs; i++)
        if (strcmp(m->funcs[i]->name, name) == 0) return m->funcs[i];
    Func *f = module_keep(m, sizeof *f);
    f->name = module_string(m, name);
    f->m = m;
    f->max_threads = 1024;
    f->kernel = module_keep(m, sizeof *f->kernel);
    f->kernel->f = f;
    m->funcs = realloc(m->funcs, (size_t)(m->n_funcs + 1) * sizeof *m->funcs);
    if (!m->funcs) abort();
    m->funcs[m->n_funcs++] = f;
    return f;
}

static int product3(Parser *p, int each[3]) {
    for (int i = 0; i < 3; i++) each[i] = 1;
    int i = 0;
    do each[i++] = (int)number(p);
    while (i < 3 && take(p, ','));
    return each[0] * each[1] * each[2];
}

static void function(Parser *p, bool entry) {
    PtxModule *m = p->m;
    Param *rets = NULL;
    int n_rets = 0, bytes = 0, three[3];
    int outer = p->n_syms;
    if (!entry && take(p, '(')) rets = parameters(p, false, &n_rets, &bytes);
    Func *f = function_named(p, next(p));
    f->entry = entry;
    if (take(p, '(')) f->params = parameters(p, entry, &f->n_params, &bytes);
    f->rets = rets, f->n_rets = n_rets;
    f->param_bytes = bytes;
    for (;;) {
        if (take_word(p, ".maxntid"))
            f->max_threads = product3(p, three);
        else if (take_word(p, ".reqntid"))
            f->max_threads = product3(p, f->req);
        else if (take_word(p, ".minnctapersm") || take_word(p, ".maxnreg"))
            number(p);
        else if (take_word(p, ".noreturn")) {
        } else
            break;
    }
    if (take(p, '{')) {
        f->first = m->n_code;
        f->defined = true;
        p->func = f;
        body(p);
        f->end = m->n_code;
        p->func = NULL;
    } else {
        want(p, ';');
    }
    p->n_syms = outer;
    Sym *s = symbol_add(p, f->name, SYM_FUNC);
    s->func = f;
}

static void skip_braces(Parser *p) {
    while (*next(p) && strcmp(p->token, "{") != 0) {
    }
    while (*next(p) && strcmp(p->token, "}") != 0) {
    }
}

static void module(Parser *p) {
    bool external = false;
    while (*next(p)) {
        const char *t = p->token;
        if (strcmp(t, ".version") == 0 || strcmp(t, ".target") == 0 || strcmp(t, ".address_size") == 0)
            skip_line(p);
        else if (strcmp(t, ".visible") == 0 || strcmp(t, ".weak") == 0 || strcmp(t, ".common") == 0) {
        } else if (strcmp(t, ".extern") == 0)
            external = true;
        else if (strcmp(t, ".entry") == 0 || strcmp(t, ".func") == 0) {
            function(p, t[1] == 'e');
            external = false;
        } else if (strcmp(t, ".global") == 0)
            variable_global(p, SPACE_GLOBAL);
        else if (strcmp(t, ".const") == 0)
            variable_global(p, SPACE_CONST);
        else if (strcmp(t, ".shared") == 0) {
            variable_shared(p, external);
            external = false;
        } else if (strcmp(t, ".file") == 0) {
            int i = (int)number(p);
            next(p);
            if (i >= p->m->n_files) {
                p->m->files = realloc(p->m->files, (size_t)(i + 1) * sizeof *p->m->files);
                while (p->m->n_files <= i) p->m->files[p->m->n_files++] = NULL;
            }
            p->m->files[i] = (char *)module_string(p->m, p->token + 1);
            skip_line(p);
        } else if (strcmp(t, ".section") == 0)
            skip_braces(p);
        else
            parse_stop(p, "directive '%s' is not known", t);
    }
}

const char *ptx_load_text(PtxModule **out, const char *name, const char *text) {
    static _Thread_local char message[1024];
    PtxModule *m = calloc(1, sizeof *m);
    Parser *p = calloc(1, sizeof *p);
    if (!m || !p) abort();
    *out = NULL;
    m->name = strdup(name);
    m->frame = 256; /* the first row takes what is written to _ */
    m->dyn = 1 << 16;
    p->m = m, p->at = text, p->line = 1, p->message = message, p->n_message = sizeof message;
    bool failed = setjmp(p->stop) != 0;
    if (!failed) module(p);
    free(p->syms), free(p->labels), free(p->fixes), free(p);
    if (failed) {
        ptx_unload(m);
        return message;
    }
    *out = m;
    return NULL;
}

const char *ptx_load(PtxModule **out, const char *path) {
    static _Thread_local char message[1024];
    *out = NULL;
    FILE *f = fopen(path, "r");
    if (!f) {
        snprintf(message, sizeof message, "%s: cannot be opened", path);
        return message;
    }
    fseek(f, 0, SEEK_END);
    size_t n = (size_t)ftell(f);
    rewind(f);
    char *text = malloc(n + 1);
    if (!text || fread(text, 1, n, f) != n) abort();
    text[n] = 0;
    fclose(f);
    const char *why = ptx_load_text(out, path, text);
    free(text);
    return why;
}

void ptx_unload(PtxModule *m) {
    if (!m) return;
    for (int i = 0; i < m->n_globals; i++) ptx_free(m->globals[i].address);
    for (int i = 0; i < m->n_funcs; i++) free(m->funcs[i]->vars);
    while (m->arena) {
        void **block = m->arena;
        m->arena = block[0];
        free(block);
    }
    free(m->code), free(m->funcs), free(m->files), free(m->konst), free(m->vars), free(m->globals), free(m->name),
        free(m->konsts);
    free(m);
}
