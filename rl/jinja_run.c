/* jinja_run.c: evaluates a parsed template. Scopes are Jinja's: a loop's pass and a macro have one of their own,
 * an if has none; a namespace is how templates carry values out of a loop. */
#include "rl/jinja_parts.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_STEPS = 500000, MOST_DEPTH = 1000 };

typedef struct Scope Scope;
struct Scope {
    Scope *outer;
    Map map;
};
typedef struct {
    Run run;
    Scope *scope, *global;
    Text *pieces; /* what was put out */
    size_t n, room;
} Exec;
typedef enum { GO_ON, BREAK, CONTINUE } Flow;

static Value eval(Exec *x, const Node *node);
static Flow run_body(Exec *x, const Node *node);

static bool step(Exec *x, const Node *node) {
    Run *run = &x->run;
    run->line = node->line;
    if (++run->steps > MOST_STEPS) run_fail(run, "it does not come to an end");
    if (run->depth > MOST_DEPTH) run_fail(run, "it calls itself too deeply");
    return !run->failed;
}

static void put(Exec *x, Text text) {
    if (x->n == x->room) {
        x->room = 2 * x->room + 64;
        x->pieces = mem_grow(x->pieces, x->room, sizeof *x->pieces);
    }
    if (text.n) x->pieces[x->n++] = text;
}

/* What was put out since `from`, which is taken back. */
static Text taken_back(Exec *x, size_t from) {
    size_t all = 0, at = 0;
    for (size_t i = from; i < x->n; i++) all += x->pieces[i].n;
    Char *c = chars_new(&x->run, all);
    for (size_t i = from; c && i < x->n; at += x->pieces[i++].n)
        memcpy(c + at, x->pieces[i].c, x->pieces[i].n * sizeof *c);
    x->n = from;
    return (Text){c, c ? all : 0};
}

/* ---- names and calls ---- */

static Value name_value(Exec *x, const char *name) {
    for (const Scope *s = x->scope; s; s = s->outer) {
        Value found = map_named(&s->map, name);
        if (found.kind != V_UNDEFINED) return found;
    }
    return (Value){V_UNDEFINED, .text = text_new(&x->run, name, strlen(name), 0)};
}

static void args_eval(Exec *x, Args *args, const Node *items) {
    for (*args = (Args){0}; items; items = items->next) {
        if (args->n == 8) {
            run_fail(&x->run, "a call has more than 8 arguments");
            return;
        }
        args->names[args->n] = items->other;
        args->at[args->n++] = eval(x, items->a);
    }
}

static Value macro_call(Exec *x, const Node *macro, const Args *args) {
    Scope inner = {.outer = x->global}, *outer = x->scope;
    size_t from = x->n;
    int place = 0;
    for (const Node *p = macro->items; p; p = p->next, place++) {
        Value value = arg(args, place, p->name);
        if (value.kind == V_UNDEFINED && p->a) value = eval(x, p->a);
        map_put(&x->run, &inner.map, p->name, value);
    }
    x->scope = &inner;
    run_body(x, macro->b);
    x->scope = outer;
    return value_text(taken_back(x, from));
}

static Value range(Run *run, const Args *args) {
    int64_t from = args->n > 1 ? args->at[0].i : 0, to = args->at[args->n > 1].i,
            by = args->n > 2 ? args->at[2].i : 1;
    Value out = value_list(run);
    if (args->n < 1 || args->n > 3 || !by) run_fail(run, "range is called with odd numbers");
    for (int64_t i = from; !run->failed && (by > 0 ? i < to : i > to); i += by) {
        list_add(run, out.list, value_int(i));
        if (out.list->n > 100000) run_fail(run, "range has more than 100000 numbers");
    }
    return out;
}

/* The template's clock: a day that is always the same, so that a run's prompts are (Llama 3's own constant), or
 * that of SOURCE_DATE_EPOCH. */
static Value clock_text(Run *run, Value format) {
    const char *epoch = getenv("SOURCE_DATE_EPOCH");
    time_t now = epoch ? (time_t)strtoll(epoch, NULL, 10) : 1721952000; /* 26 July 2024 */
    struct tm tm;
    Buf asked = {0};
    char out[200] = "";
    text_put(&asked, value_str(run, format));
    buf_text(&asked, "");
    if (!gmtime_r(&now, &tm) || (asked.n && !strftime(out, sizeof out, asked.p, &tm)))
        run_fail(run, "strftime_now is called with an odd format");
    buf_free(&asked);
    return value_text(text_new(run, out, strlen(out), 0));
}

static const char *const FUNCTIONS[] = {"raise_exception", "namespace", "dict", "range", "strftime_now"};

static Value function_call(Exec *x, Text name, const Args *args) {
    Run *run = &x->run;
    Value out = value_map(run);
    if (text_is(name, "raise_exception")) {
        Buf why = {0};
        text_put(&why, value_str(run, arg(args, 0, "message")));
        buf_text(&why, "");
        run_fail(run, "the template refuses the conversation: %s", why.p);
        buf_free(&why);
    } else if (text_is(name, "range"))
        return range(run, args);
    else if (text_is(name, "strftime_now"))
        return clock_text(run, arg(args, 0, "format"));
    for (int i = 0; i < args->n; i++)
        if (args->names[i]) map_put(run, out.map, args->names[i], args->at[i]);
    return out;
}

static Value call(Exec *x, const Node *node) {
    const Node *of = node->a;
    Args args;
    args_eval(x, &args, node->items);
    if (of->kind == N_ATTR) {
        Value self = eval(x, of->a);
        Value found = self.kind == V_MAP ? map_named(self.map, of->name) : (Value){V_UNDEFINED};
        if (x->run.failed) return found;
        if (found.kind == V_MACRO && found.macro) return macro_call(x, found.macro, &args);
        return method_call(&x->run, self, of->name, &args);
    }
    Value found = of->kind == N_NAME ? name_value(x, of->name) : eval(x, of);
    if (found.kind == V_MACRO)
        return found.macro ? macro_call(x, found.macro, &args) : function_call(x, found.text, &args);
    run_fail(&x->run, of->kind == N_NAME ? "the function %s is not supported" : "%s is called",
             of->kind == N_NAME ? of->name : kind_name(found));
    return found;
}

/* ---- expressions ---- */

static bool less(Run *run, Value a, Value b) {
    bool numbers = (a.kind == V_INT || a.kind == V_BOOL) && (b.kind == V_INT || b.kind == V_BOOL);
    if (!numbers) return run_fail(run, "%s is compared with %s", kind_name(a), kind_name(b));
    return a.i < b.i;
}

static bool compare(Exec *x, const Node *node) {
    Value a = eval(x, node->a), b = eval(x, node->b);
    const char *op = node->op;
    if (x->run.failed) return false;
    if (op[0] == 'i') return value_in(&x->run, a, b) != node->negate;
    if (op[1] == '=' && (op[0] == '=' || op[0] == '!')) return values_same(a, b) == (op[0] == '=');
    bool smaller = op[0] == '<' ? less(&x->run, a, b) : less(&x->run, b, a);
    return smaller || (op[1] == '=' && values_same(a, b));
}

static Value math(Exec *x, const Node *node) {
    Value a = eval(x, node->a), b = eval(x, node->b), out = {V_UNDEFINED};
    Run *run = &x->run;
    const char *op = node->op;
    if (run->failed) return out;
    if (op[0] == '~') return value_text(text_joined(run, value_str(run, a), value_str(run, b)));
    if (op[0] == '+' && a.kind == V_TEXT && b.kind == V_TEXT) return value_text(text_joined(run, a.text, b.text));
    if (op[0] == '+' && a.kind == V_LIST && b.kind == V_LIST) {
        out = value_list(run);
        for (size_t i = 0; i < a.list->n; i++) list_add(run, out.list, a.list->at[i]);
        for (size_t i = 0; i < b.list->n && !run->failed; i++) list_add(run, out.list, b.list->at[i]);
        return out;
    }
    bool numbers = (a.kind == V_INT || a.kind == V_BOOL) && (b.kind == V_INT || b.kind == V_BOOL);
    bool small = a.i < INT32_MAX && a.i > -INT32_MAX && b.i < INT32_MAX && b.i > -INT32_MAX;
    bool divides = op[0] == '/' || op[0] == '%';
    if (!numbers || !small || (divides && !b.i) || strcmp(op, "/") == 0) {
        run_fail(run, "%s %s %s is not supported", kind_name(a), op, kind_name(b));
        return out;
    }
    int64_t down = divides ? a.i / b.i - (a.i % b.i != 0 && (a.i < 0) != (b.i < 0)) : 0; /* Python rounds down */
    return value_int(op[0] == '+'   ? a.i + b.i
                     : op[0] == '-' ? a.i - b.i
                     : op[0] == '*' ? a.i * b.i
                     : op[0] == '/' ? down
                                    : a.i - down * b.i);
}

/* of.name: of a dictionary the entry; a text or list has none. */
static Value attribute(Exec *x, const Node *node) {
    Value of = eval(x, node->a);
    if (of.kind == V_MAP) {
        Value found = map_named(of.map, node->name);
        if (found.kind == V_UNDEFINED) found.text = text_new(&x->run, node->name, strlen(node->name), 0);
        return found;
    }
    if (of.kind == V_UNDEFINED) {
        Buf what = {0};
        text_put(&what, of.text);
        buf_text(&what, "");
        run_fail(&x->run, "%.80s is not defined, and asked for %.80s", what.p, node->name);
        buf_free(&what);
    }
    return (Value){V_UNDEFINED};
}

static Value collected(Exec *x, const Node *node) {
    Value out = node->kind == N_LIST ? value_list(&x->run) : value_map(&x->run);
    for (const Node *item = node->items; item && !x->run.failed; item = item->next) {
        Value value = eval(x, item->a);
        if (node->kind == N_LIST)
            list_add(&x->run, out.list, value);
        else if (value.kind == V_TEXT)
            map_set(&x->run, out.map, value.text, eval(x, item->b));
        else
            run_fail(&x->run, "a dictionary's key is %s", kind_name(value));
    }
    return out;
}

static Value optional(Exec *x, const Node *node) { return node ? eval(x, node) : (Value){V_UNDEFINED}; }

static Value eval_one(Exec *x, const Node *node) {
    Args args;
    Value a;
    switch (node->kind) {
    case N_CONST:
        return node->value;
    case N_NAME:
        return name_value(x, node->name);
    case N_LIST:
    case N_DICT:
        return collected(x, node);
    case N_ATTR:
        return attribute(x, node);
    case N_INDEX:
        a = eval(x, node->a);
        return value_index(&x->run, a, eval(x, node->b));
    case N_SLICE: {
        a = eval(x, node->a);
        Value from = optional(x, node->b), to = optional(x, node->c);
        return value_slice(&x->run, a, from, to, optional(x, node->items));
    }
    case N_CALL:
        return call(x, node);
    case N_FILTER:
        a = eval(x, node->a);
        args_eval(x, &args, node->items);
        return x->run.failed ? a : filter_call(&x->run, a, node->name, &args);
    case N_TEST:
        a = eval(x, node->a);
        args_eval(x, &args, node->items);
        return value_bool(!x->run.failed && test_call(&x->run, a, node->name, &args) != node->negate);
    case N_NOT:
        return value_bool(!value_true(eval(x, node->a)));
    case N_NEG:
        a = eval(x, node->a);
        if (a.kind != V_INT) run_fail(&x->run, "minus of %s", kind_name(a));
        return value_int(a.i == INT64_MIN ? 0 : -a.i);
    case N_AND:
        a = eval(x, node->a);
        return value_true(a) ? eval(x, node->b) : a;
    case N_OR:
        a = eval(x, node->a);
        return value_true(a) ? a : eval(x, node->b);
    case N_COMPARE:
        return value_bool(compare(x, node));
    case N_MATH:
        return math(x, node);
    case N_IF_ELSE:
        return value_true(eval(x, node->b)) ? eval(x, node->a) : optional(x, node->c);
    default:
        CHECK(false, "node %d is no expression", node->kind);
    }
}

static Value eval(Exec *x, const Node *node) {
    if (!step(x, node)) return (Value){V_UNDEFINED};
    x->run.depth++;
    Value value = eval_one(x, node);
    x->run.depth--;
    return x->run.failed ? (Value){V_UNDEFINED} : value;
}

/* ---- statements ---- */

/* Binds a loop's names to an item; false: it has other parts than the names. */
static bool bind(Exec *x, Scope *scope, const Node *node, Value item) {
    if (!node->other) {
        map_put(&x->run, &scope->map, node->name, item);
        return true;
    }
    if (item.kind != V_LIST || item.list->n != 2)
        return run_fail(&x->run, "a loop over pairs meets %s", kind_name(item));
    map_put(&x->run, &scope->map, node->name, item.list->at[0]);
    map_put(&x->run, &scope->map, node->other, item.list->at[1]);
    return true;
}

static Value loop_value(Exec *x, const List *list, size_t i) {
    Run *run = &x->run;
    Value loop = value_map(run);
    int64_t at = (int64_t)i, n = (int64_t)list->n;
    map_put(run, loop.map, "index0", value_int(at));
    map_put(run, loop.map, "index", value_int(at + 1));
    map_put(run, loop.map, "first", value_bool(i == 0));
    map_put(run, loop.map, "last", value_bool(i + 1 == list->n));
    map_put(run, loop.map, "length", value_int(n));
    map_put(run, loop.map, "revindex", value_int(n - at));
    map_put(run, loop.map, "revindex0", value_int(n - at - 1));
    if (i) map_put(run, loop.map, "previtem", list->at[i - 1]);
    if (i + 1 < list->n) map_put(run, loop.map, "nextitem", list->at[i + 1]);
    return loop;
}

/* A break or continue inside belongs to this loop. */
static void run_for(Exec *x, const Node *node) {
    Scope *outer = x->scope;
    Value over = value_items(&x->run, eval(x, node->a)), kept = over;
    if (node->items) { /* only the items for which the condition holds */
        kept = value_list(&x->run);
        for (size_t i = 0; i < over.list->n && !x->run.failed; i++) {
            Scope inner = {.outer = outer};
            if (!bind(x, &inner, node, over.list->at[i])) break;
            x->scope = &inner;
            if (value_true(eval(x, node->items))) list_add(&x->run, kept.list, over.list->at[i]);
            x->scope = outer;
        }
    }
    for (size_t i = 0; i < kept.list->n && !x->run.failed; i++) {
        Scope inner = {.outer = outer};
        if (!bind(x, &inner, node, kept.list->at[i])) break;
        map_put(&x->run, &inner.map, "loop", loop_value(x, kept.list, i));
        x->scope = &inner;
        Flow flow = run_body(x, node->b);
        x->scope = outer;
        if (flow == BREAK) break;
    }
    if (!kept.list->n) run_body(x, node->c);
}

static void run_set(Exec *x, const Node *node) {
    Value value;
    if (node->a)
        value = eval(x, node->a);
    else {
        size_t from = x->n;
        run_body(x, node->b);
        value = value_text(taken_back(x, from));
    }
    if (!node->other) {
        map_put(&x->run, &x->scope->map, node->name, value);
        return;
    }
    Value space = name_value(x, node->name);
    if (space.kind == V_MAP)
        map_put(&x->run, space.map, node->other, value);
    else
        run_fail(&x->run, "%s is no namespace", node->name);
}

static Flow run_one(Exec *x, const Node *node) {
    Value value;
    switch (node->kind) {
    case N_DATA:
        put(x, node->value.text);
        return GO_ON;
    case N_OUTPUT:
        value = eval(x, node->a);
        put(x, value_str(&x->run, value));
        return GO_ON;
    case N_IF:
        for (; node; node = node->c)
            if (!node->a || value_true(eval(x, node->a))) return x->run.failed ? GO_ON : run_body(x, node->b);
        return GO_ON;
    case N_FOR:
        run_for(x, node);
        return GO_ON;
    case N_SET:
        run_set(x, node);
        return GO_ON;
    case N_MACRO:
        map_put(&x->run, &x->scope->map, node->name, (Value){V_MACRO, .macro = node});
        return GO_ON;
    case N_BLOCK:
        return run_body(x, node->b);
    case N_BREAK:
        return BREAK;
    case N_CONTINUE:
        return CONTINUE;
    default:
        CHECK(false, "node %d is no statement", node->kind);
    }
}

static Flow run_body(Exec *x, const Node *node) {
    Flow flow = GO_ON;
    x->run.depth++;
    for (; node && flow == GO_ON && step(x, node); node = node->next) flow = run_one(x, node);
    x->run.depth--;
    return flow;
}

/* ---- rendering ---- */

static void globals_set(Exec *x, const ChatTurn *turns, int n, const char *bos, const char *eos) {
    Run *run = &x->run;
    Map *map = &x->global->map;
    Value messages = value_list(run);
    for (int i = 0; i < n; i++) {
        Value message = value_map(run);
        map_put(run, message.map, "role", value_text(text_new(run, turns[i].role, strlen(turns[i].role), 0)));
        map_put(run, message.map, "content",
                value_text(text_new(run, turns[i].text, strlen(turns[i].text), SAID)));
        list_add(run, messages.list, message);
    }
    map_put(run, map, "messages", messages);
    map_put(run, map, "add_generation_prompt", value_bool(true));
    map_put(run, map, "bos_token", value_text(text_new(run, bos, strlen(bos), 0)));
    map_put(run, map, "eos_token", value_text(text_new(run, eos, strlen(eos), 0)));
    map_put(run, map, "tools", (Value){.kind = V_NONE});
    map_put(run, map, "documents", (Value){.kind = V_NONE});
    for (size_t i = 0; i < sizeof FUNCTIONS / sizeof *FUNCTIONS; i++) {
        Text name = text_new(run, FUNCTIONS[i], strlen(FUNCTIONS[i]), 0);
        map_set(run, map, name, (Value){.kind = V_MACRO, .text = name});
    }
}

/* The pieces as UTF-8, and the ranges of what was said. */
static void text_out(ChatText *out, Text text) {
    buf_clear(&out->text);
    buf_text(&out->text, "");
    out->n = 0;
    for (size_t i = 0, k; i < text.n; i = k) {
        Char said = text.c[i] & SAID;
        for (k = i; k < text.n && (text.c[k] & SAID) == said;) k++;
        size_t begin = out->text.n;
        text_put(&out->text, (Text){text.c + i, k - i});
        if (!said) continue;
        if (out->n == out->room) {
            out->room = 2 * out->room + 8;
            out->plain = mem_grow(out->plain, (size_t)out->room, sizeof *out->plain);
        }
        out->plain[out->n++] = (ChatRange){begin, out->text.n};
    }
}

bool jinja_render(const Jinja *jinja, const ChatTurn *turns, int n, const char *bos, const char *eos,
                  ChatText *out, Err *err) {
    Scope global = {0};
    Exec x = {.run = {.err = err}, .scope = &global, .global = &global};
    globals_set(&x, turns, n, bos, eos);
    run_body(&x, jinja->body);
    Text all = taken_back(&x, 0);
    bool good = !x.run.failed;
    if (good) text_out(out, all);
    free(x.pieces);
    arena_free(&x.run.arena);
    return good;
}
