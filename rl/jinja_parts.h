/* jinja_parts.h: what the parser, the values and the run of templates share (jinja_parse.c, jinja_values.c,
 * jinja_run.c). Everything lies in arenas: the template's for nodes, the run's for values. */
#ifndef WHET_RL_JINJA_PARTS_H
#define WHET_RL_JINJA_PARTS_H

#include "rl/jinja.h"

/* ---- values (jinja_values.c) ---- */

typedef uint32_t Char; /* a code point, or RAW + a byte that is no UTF-8; with SAID where it comes out of a turn */
#define SAID 0x80000000u
#define RAW 0x110000u
typedef struct {
    const Char *c;
    size_t n;
} Text;

typedef struct Value Value;
typedef struct Node Node;
typedef struct {
    Value *at;
    size_t n, room;
} List;
typedef struct {
    Text *keys;
    Value *at;
    size_t n, room;
} Map;
typedef enum { V_UNDEFINED, V_NONE, V_BOOL, V_INT, V_TEXT, V_LIST, V_MAP, V_MACRO } ValueKind;
struct Value {
    ValueKind kind;
    int64_t i; /* also of a bool */
    Text text; /* of what is undefined and of functions: the name */
    List *list;
    Map *map;
    const Node *macro; /* NULL: a function */
};

/* One rendering. `failed` is set with the first error; what is computed after it is of no matter. */
typedef struct {
    Arena arena;
    Err *err;
    bool failed;
    int line, depth;
    size_t steps, chars;
} Run;

bool run_fail(Run *run, const char *format, ...) FORMAT_LIKE(2, 3); /* false */
Char *chars_new(Run *run, size_t n);
Text text_new(Run *run, const char *utf8, size_t n, Char mark);
Text text_joined(Run *run, Text a, Text b);
void char_put(Buf *buf, Char c); /* as UTF-8 */
void text_put(Buf *buf, Text text);
bool text_is(Text text, const char *ascii);
bool texts_same(Text a, Text b);
Text text_strip(Text text, const Text *set, bool front, bool back); /* set NULL: Unicode's blanks */

Value value_bool(bool b);
Value value_int(int64_t i);
Value value_text(Text text);
Value value_list(Run *run);
Value value_map(Run *run);
void list_add(Run *run, List *list, Value value);
void map_set(Run *run, Map *map, Text key, Value value);
Value map_get(const Map *map, Text key); /* undefined when it is not there */
Value map_named(const Map *map, const char *key);
void map_put(Run *run, Map *map, const char *key, Value value);
bool value_true(Value value);
bool values_same(Value a, Value b);
const char *kind_name(Value value);
Text value_str(Run *run, Value value);    /* as Python's str() */
Value value_items(Run *run, Value value); /* a list of what a loop goes over */
Value value_index(Run *run, Value of, Value index);
Value value_slice(Run *run, Value of, Value from, Value to, Value step);
bool value_in(Run *run, Value what, Value in);

/* What a filter, a test, a method or a function is given. */
typedef struct {
    Value at[8];
    const char *names[8]; /* of keyword arguments; NULL: by place */
    int n;
} Args;
/* The argument by name, or the n-th by place; undefined: not given. */
Value arg(const Args *args, int place, const char *name);
Value method_call(Run *run, Value self, const char *name, const Args *args);
Value filter_call(Run *run, Value self, const char *name, const Args *args);
bool test_call(Run *run, Value self, const char *name, const Args *args);

/* ---- the parsed template (jinja_parse.c) ---- */

typedef enum {
    /* expressions */
    N_CONST,  /* value */
    N_NAME,   /* name */
    N_LIST,   /* items: a and what follows it */
    N_DICT,   /* items: key, value, key, value */
    N_ATTR,   /* a.name */
    N_INDEX,  /* a[b] */
    N_SLICE,  /* a[b:c:items] */
    N_CALL,   /* a(items) */
    N_FILTER, /* a | name(items) */
    N_TEST,   /* a is name(items) */
    N_NOT,
    N_NEG,
    N_AND,
    N_OR,
    N_COMPARE, /* a op b */
    N_MATH,    /* a op b */
    N_IF_ELSE, /* a if b else c */
    /* statements; bodies are chains by `next` */
    N_DATA,   /* value */
    N_OUTPUT, /* a */
    N_IF,     /* a: condition; b: body; c: the next branch or the else's body (is_else) */
    N_FOR,    /* names; a: of what; items: condition or NULL; b: body; c: else's body */
    N_SET,    /* name[.attr] = a, or the block b */
    N_MACRO,  /* name(items: parameters with defaults a): b */
    N_BLOCK,  /* b: a body that stands in its place (generation) */
    N_BREAK,
    N_CONTINUE
} NodeKind;

struct Node {
    NodeKind kind;
    int line, depth;
    char op[8]; /* + - * / // % ~ == != < <= > >= in not in (as "in" with negate) */
    bool negate;
    const char *name, *other; /* a second name: of a for, an attribute of a set, a keyword argument */
    Value value;
    Node *a, *b, *c, *items, *next;
};

struct Jinja {
    Arena constants;
    Arena arena;
    Node *body;
};

#endif
