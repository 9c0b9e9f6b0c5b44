/* jinja_values.c: the values of templates, with Python's rules for texts, lists and dictionaries. */
#include "rl/jinja_parts.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CHARS = 16 << 20 };

bool run_fail(Run *run, const char *format, ...) {
    if (run->failed) return false;
    char what[300];
    va_list list;
    va_start(list, format);
    vsnprintf(what, sizeof what, format, list);
    va_end(list);
    for (char *c = what; *c; c++)
        if (*c == '\n' || *c == '\r') *c = ' ';
    err_set(run->err, "line %d: %s", run->line, what);
    run->failed = true;
    return false;
}

/* ---- texts ---- */

Char *chars_new(Run *run, size_t n) {
    if (n > MOST_CHARS || run->chars + n > MOST_CHARS) {
        run_fail(run, "it makes too much text");
        return NULL;
    }
    run->chars += n;
    return arena_alloc(&run->arena, n ? n : 1, sizeof(Char));
}

/* One code point of well-formed UTF-8 at p; its bytes. 0: it is none. */
static size_t code_point(const unsigned char *p, size_t n, Char *out) {
    size_t length = *p < 0x80                 ? 1
                    : *p >= 0xC2 && *p < 0xE0 ? 2
                    : *p >= 0xE0 && *p < 0xF0 ? 3
                    : *p >= 0xF0 && *p < 0xF5 ? 4
                                              : 0;
    if (!length || length > n) return 0;
    Char c = length == 1 ? *p : *p & (0x7Fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xC0) != 0x80) return 0;
        c = c << 6 | (p[i] & 0x3Fu);
    }
    static const Char LEAST[] = {0, 0, 0x80, 0x800, 0x10000};
    if (c < LEAST[length] || c >= RAW) return 0;
    *out = c;
    return length;
}

Text text_new(Run *run, const char *utf8, size_t n, Char mark) {
    const unsigned char *p = (const unsigned char *)utf8;
    Char *c = chars_new(run, n);
    size_t count = 0;
    for (size_t i = 0; c && i < n;) {
        Char code;
        size_t length = code_point(p + i, n - i, &code);
        if (!length) code = RAW + p[i], length = 1;
        c[count++] = code | mark;
        i += length;
    }
    return (Text){c, count};
}

void char_put(Buf *buf, Char c) {
    c &= ~SAID;
    if (c < 0x80 || c >= RAW) {
        buf_char(buf, (char)(c < 0x80 ? c : c - RAW));
        return;
    }
    int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3; /* bytes after the first */
    buf_char(buf, (char)((0xFF00u >> (more + 1) & 0xFF) | c >> 6 * more));
    while (more--) buf_char(buf, (char)(0x80 | (c >> 6 * more & 0x3F)));
}

void text_put(Buf *buf, Text text) {
    for (size_t i = 0; i < text.n; i++) char_put(buf, text.c[i]);
}

Text text_joined(Run *run, Text a, Text b) {
    Char *c = chars_new(run, a.n + b.n);
    if (!c) return (Text){0};
    if (a.n) memcpy(c, a.c, a.n * sizeof *c);
    if (b.n) memcpy(c + a.n, b.c, b.n * sizeof *c);
    return (Text){c, a.n + b.n};
}

static bool starts(Text text, Text with) {
    if (with.n > text.n) return false;
    for (size_t i = 0; i < with.n; i++)
        if ((text.c[i] ^ with.c[i]) & ~SAID) return false;
    return true;
}

static Text part(Text text, size_t from, size_t n) { return (Text){text.c + from, n}; }

bool texts_same(Text a, Text b) { return a.n == b.n && starts(a, b); }

bool text_is(Text text, const char *ascii) {
    size_t n = strlen(ascii);
    for (size_t i = 0; i < n && i < text.n; i++)
        if ((text.c[i] & ~SAID) != (unsigned char)ascii[i]) return false;
    return text.n == n;
}

/* What Python's str.isspace takes for a blank. */
static bool is_blank(Char c) {
    c &= ~SAID;
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static bool in_set(Char c, const Text *set) {
    if (!set) return is_blank(c);
    for (size_t i = 0; i < set->n; i++)
        if (!((set->c[i] ^ c) & ~SAID)) return true;
    return false;
}

Text text_strip(Text text, const Text *set, bool front, bool back) {
    while (front && text.n && in_set(text.c[0], set)) text.c++, text.n--;
    while (back && text.n && in_set(text.c[text.n - 1], set)) text.n--;
    return text;
}

/* Where `what` lies in the text from `from` on; text.n + 1: nowhere. */
static size_t find(Text text, Text what, size_t from) {
    for (size_t i = from; i + what.n <= text.n; i++)
        if (starts(part(text, i, text.n - i), what)) return i;
    return text.n + 1;
}

static Text replaced(Run *run, Text text, Text from, Text to) {
    Text out = {0};
    if (!from.n) {
        run_fail(run, "replace of an empty text is not supported");
        return out;
    }
    size_t at = 0, next;
    while ((next = find(text, from, at)) <= text.n && !run->failed) {
        out = text_joined(run, text_joined(run, out, part(text, at, next - at)), to);
        at = next + from.n;
    }
    return at ? text_joined(run, out, part(text, at, text.n - at)) : text;
}

static Value split(Run *run, Text text, const Text *by, int64_t most) {
    Value out = value_list(run);
    size_t at = 0, next;
    if (by && !by->n) run_fail(run, "split by an empty text");
    while (by && !run->failed && most != 0 && (next = find(text, *by, at)) <= text.n) {
        list_add(run, out.list, value_text(part(text, at, next - at)));
        at = next + by->n, most--;
    }
    if (by) list_add(run, out.list, value_text(part(text, at, text.n - at)));
    for (text = by ? (Text){0} : text_strip(text, NULL, true, false); text.n;
         text = text_strip(text, NULL, true, false)) {
        size_t n = 0;
        while (n < text.n && (most == 0 || !is_blank(text.c[n]))) n++;
        list_add(run, out.list, value_text(part(text, 0, n)));
        text = part(text, n, text.n - n), most--;
    }
    return out;
}

/* ---- values ---- */

Value value_bool(bool b) { return (Value){V_BOOL, .i = b}; }
Value value_int(int64_t i) { return (Value){V_INT, .i = i}; }
Value value_text(Text text) { return (Value){V_TEXT, .text = text}; }
Value value_list(Run *run) { return (Value){V_LIST, .list = arena_alloc(&run->arena, 1, sizeof(List))}; }
Value value_map(Run *run) { return (Value){V_MAP, .map = arena_alloc(&run->arena, 1, sizeof(Map))}; }

static Value ascii(Run *run, const char *text) { return value_text(text_new(run, text, strlen(text), 0)); }

void list_add(Run *run, List *list, Value value) {
    if (list->n == list->room) {
        if (!chars_new(run, 16 * (list->room + 4))) return; /* bounds the memory */
        size_t room = 2 * list->room + 4;
        Value *at = arena_alloc(&run->arena, room, sizeof *at);
        if (list->n) memcpy(at, list->at, list->n * sizeof *at);
        list->at = at, list->room = room;
    }
    list->at[list->n++] = value;
}

void map_set(Run *run, Map *map, Text key, Value value) {
    for (size_t i = 0; i < map->n; i++)
        if (texts_same(map->keys[i], key)) {
            map->at[i] = value;
            return;
        }
    if (map->n == map->room) {
        if (!chars_new(run, 16 * (map->room + 4))) return;
        size_t room = 2 * map->room + 8;
        Value *at = arena_alloc(&run->arena, room, sizeof *at);
        Text *keys = arena_alloc(&run->arena, room, sizeof *keys);
        if (map->n) memcpy(at, map->at, map->n * sizeof *at), memcpy(keys, map->keys, map->n * sizeof *keys);
        map->at = at, map->keys = keys, map->room = room;
    }
    map->keys[map->n] = key;
    map->at[map->n++] = value;
}

void map_put(Run *run, Map *map, const char *key, Value value) {
    map_set(run, map, text_new(run, key, strlen(key), 0), value);
}

Value map_get(const Map *map, Text key) {
    for (size_t i = 0; i < map->n; i++)
        if (texts_same(map->keys[i], key)) return map->at[i];
    return (Value){V_UNDEFINED, .text = key};
}

Value map_named(const Map *map, const char *key) {
    for (size_t i = 0; i < map->n; i++)
        if (text_is(map->keys[i], key)) return map->at[i];
    return (Value){V_UNDEFINED};
}

bool value_true(Value v) {
    switch (v.kind) {
    case V_BOOL:
    case V_INT:
        return v.i != 0;
    case V_TEXT:
        return v.text.n > 0;
    case V_LIST:
        return v.list->n > 0;
    case V_MAP:
        return v.map->n > 0;
    case V_MACRO:
        return true;
    default:
        return false;
    }
}

static bool is_number(Value v) { return v.kind == V_INT || v.kind == V_BOOL; }

bool values_same(Value a, Value b) {
    if (is_number(a) && is_number(b)) return a.i == b.i;
    if (a.kind != b.kind) return false;
    if (a.kind == V_TEXT) return texts_same(a.text, b.text);
    if (a.kind == V_LIST) {
        bool same = a.list->n == b.list->n;
        for (size_t i = 0; same && a.list != b.list && i < a.list->n; i++)
            same = values_same(a.list->at[i], b.list->at[i]);
        return same;
    }
    if (a.kind == V_MAP) {
        bool same = a.map->n == b.map->n;
        for (size_t i = 0; same && a.map != b.map && i < a.map->n; i++)
            same = values_same(a.map->at[i], map_get(b.map, a.map->keys[i]));
        return same;
    }
    return a.kind != V_MACRO || a.macro == b.macro;
}

const char *kind_name(Value v) {
    static const char *const NAMES[] = {"something undefined", "none",   "a bool", "a number", "a text", "a list",
                                        "a dictionary",        "a macro"};
    return NAMES[v.kind];
}

Text value_str(Run *run, Value v) {
    char digits[24];
    switch (v.kind) {
    case V_TEXT:
        return v.text;
    case V_UNDEFINED:
        return (Text){0};
    case V_NONE:
        return ascii(run, "None").text;
    case V_BOOL:
        return ascii(run, v.i ? "True" : "False").text;
    case V_INT:
        snprintf(digits, sizeof digits, "%lld", (long long)v.i);
        return ascii(run, digits).text;
    default:
        run_fail(run, "%s as text is not supported", kind_name(v));
        return (Text){0};
    }
}

Value value_items(Run *run, Value v) {
    if (v.kind == V_LIST) return v;
    Value out = value_list(run);
    if (v.kind == V_TEXT)
        for (size_t i = 0; i < v.text.n && !run->failed; i++)
            list_add(run, out.list, value_text(part(v.text, i, 1)));
    else if (v.kind == V_MAP)
        for (size_t i = 0; i < v.map->n && !run->failed; i++) list_add(run, out.list, value_text(v.map->keys[i]));
    else if (v.kind != V_UNDEFINED)
        run_fail(run, "a loop goes over %s", kind_name(v));
    return out;
}

Value value_index(Run *run, Value of, Value index) {
    if (of.kind == V_MAP && index.kind == V_TEXT) return map_get(of.map, index.text);
    bool list = of.kind == V_LIST, number = is_number(index);
    if ((list || of.kind == V_TEXT) && number) {
        int64_t n = (int64_t)(list ? of.list->n : of.text.n), i = index.i < 0 ? index.i + n : index.i;
        if (i >= 0 && i < n) return list ? of.list->at[i] : value_text(part(of.text, (size_t)i, 1));
        return (Value){V_UNDEFINED};
    }
    if (of.kind == V_UNDEFINED || of.kind == V_MACRO) run_fail(run, "something is asked of %s", kind_name(of));
    return (Value){V_UNDEFINED};
}

static int64_t bound(Run *run, Value v, int64_t otherwise, int64_t n, int64_t least) {
    if (v.kind == V_UNDEFINED || v.kind == V_NONE) return otherwise;
    if (!is_number(v)) run_fail(run, "a slice has %s", kind_name(v));
    int64_t i = v.i < -n ? least : v.i < 0 ? v.i + n : v.i;
    return i > n + least ? n + least : i;
}

Value value_slice(Run *run, Value of, Value from, Value to, Value step) {
    if (of.kind != V_LIST && of.kind != V_TEXT) {
        run_fail(run, "a slice of %s", kind_name(of));
        return of;
    }
    int64_t n = (int64_t)(of.kind == V_LIST ? of.list->n : of.text.n), by = is_number(step) ? step.i : 1;
    if (by != 1 && by != -1) run_fail(run, "a slice with steps of %lld is not supported", (long long)by);
    int64_t least = by < 0 ? -1 : 0; /* what a bound before the first is */
    int64_t begin = bound(run, from, by < 0 ? n - 1 : 0, n, least),
            end = bound(run, to, by < 0 ? -1 : n, n, least);
    Value out = value_list(run);
    Char *chars = of.kind == V_TEXT ? chars_new(run, (size_t)n) : NULL;
    size_t count = 0;
    for (int64_t i = begin; !run->failed && (by > 0 ? i < end : i > end); i += by) {
        if (chars)
            chars[count++] = of.text.c[i];
        else
            list_add(run, out.list, of.list->at[i]);
    }
    return chars ? value_text((Text){chars, count}) : out;
}

bool value_in(Run *run, Value what, Value in) {
    if (in.kind == V_TEXT) {
        if (what.kind == V_TEXT) return find(in.text, what.text, 0) <= in.text.n;
        return run_fail(run, "%s can't lie in a text", kind_name(what));
    }
    if (in.kind == V_MAP) return what.kind == V_TEXT && map_get(in.map, what.text).kind != V_UNDEFINED;
    if (in.kind == V_UNDEFINED) return false;
    if (in.kind != V_LIST) return run_fail(run, "nothing lies in %s", kind_name(in));
    for (size_t i = 0; i < in.list->n; i++)
        if (values_same(in.list->at[i], what)) return true;
    return false;
}

/* ---- methods ---- */

Value arg(const Args *args, int place, const char *name) {
    for (int i = 0; i < args->n; i++)
        if (name && args->names[i] && strcmp(args->names[i], name) == 0) return args->at[i];
    return place < args->n && !args->names[place] ? args->at[place] : (Value){V_UNDEFINED};
}

/* Letters of ASCII only: whose case else would templates change? */
static Value cased(Run *run, Text text, bool upper, bool first_alone, bool title) {
    Char *c = chars_new(run, text.n);
    bool first = true;
    for (size_t i = 0; c && i < text.n; i++) {
        Char code = text.c[i] & ~SAID, mark = text.c[i] & SAID;
        bool small = code >= 'a' && code <= 'z', big = code >= 'A' && code <= 'Z';
        if (code >= 0x80) run_fail(run, "upper and lower case are supported for ASCII alone");
        bool up = title || first_alone ? first : upper;
        c[i] = (small && up ? code - 32 : big && !up ? code + 32 : code) | mark;
        first = title && !small && !big; /* of each word */
    }
    return value_text((Text){c, c ? text.n : 0});
}

static Value text_method(Run *run, Text self, const char *name, const Args *args) {
    Value first = arg(args, 0, NULL), second = arg(args, 1, NULL);
    const Text *set = first.kind == V_TEXT ? &first.text : NULL;
    if (first.kind != V_TEXT && first.kind != V_UNDEFINED && first.kind != V_NONE && strcmp(name, "join") != 0 &&
        strcmp(name, "startswith") != 0 && strcmp(name, "endswith") != 0)
        run_fail(run, "%s is called with %s", name, kind_name(first));
    if (strcmp(name, "strip") == 0) return value_text(text_strip(self, set, true, true));
    if (strcmp(name, "lstrip") == 0) return value_text(text_strip(self, set, true, false));
    if (strcmp(name, "rstrip") == 0) return value_text(text_strip(self, set, false, true));
    if (strcmp(name, "split") == 0) return split(run, self, set, is_number(second) ? second.i : -1);
    if (strcmp(name, "upper") == 0) return cased(run, self, true, false, false);
    if (strcmp(name, "lower") == 0) return cased(run, self, false, false, false);
    if (strcmp(name, "title") == 0) return cased(run, self, false, false, true);
    if (strcmp(name, "capitalize") == 0) return cased(run, self, false, true, false);
    if (strcmp(name, "replace") == 0 && set && second.kind == V_TEXT && args->n == 2)
        return value_text(replaced(run, self, first.text, second.text));
    if (set && strcmp(name, "startswith") == 0) return value_bool(starts(self, first.text));
    if (set && strcmp(name, "endswith") == 0)
        return value_bool(self.n >= set->n && starts(part(self, self.n - set->n, set->n), *set));
    if (set && strcmp(name, "find") == 0) {
        size_t at = find(self, *set, 0);
        return value_int(at <= self.n ? (int64_t)at : -1);
    }
    if (strcmp(name, "join") == 0) {
        Args other = {{value_text(self)}, {NULL}, 1};
        return filter_call(run, first, "join", &other);
    }
    run_fail(run, "the method %s of texts is not supported", name);
    return (Value){V_UNDEFINED};
}

Value method_call(Run *run, Value self, const char *name, const Args *args) {
    if (self.kind == V_TEXT) return text_method(run, self.text, name, args);
    if (self.kind == V_MAP && strcmp(name, "get") == 0) {
        Value key = arg(args, 0, NULL), found = value_index(run, self, key), other = arg(args, 1, NULL);
        return found.kind != V_UNDEFINED ? found : other.kind != V_UNDEFINED ? other : (Value){.kind = V_NONE};
    }
    Value out = value_list(run);
    bool keys = strcmp(name, "keys") == 0, items = strcmp(name, "items") == 0;
    if (self.kind == V_MAP && (keys || items || strcmp(name, "values") == 0)) {
        for (size_t i = 0; i < self.map->n && !run->failed; i++) {
            Value pair = value_list(run);
            if (!keys && !items) pair = self.map->at[i];
            if (keys) pair = value_text(self.map->keys[i]);
            if (items)
                list_add(run, pair.list, value_text(self.map->keys[i])), list_add(run, pair.list, self.map->at[i]);
            list_add(run, out.list, pair);
        }
        return out;
    }
    run_fail(run, "the method %s of %s is not supported", name, kind_name(self));
    return out;
}

/* ---- filters and tests ---- */

static void put_ascii(Run *run, Text *out, const char *text) {
    *out = text_joined(run, *out, text_new(run, text, strlen(text), 0));
}

/* As json.dumps(ensure_ascii=False) writes it. */
static void put_json(Run *run, Text *out, Value v, int depth) {
    char escape[8];
    if (depth > 20) run_fail(run, "tojson of something nested too deeply");
    if (run->failed) return;
    if (v.kind == V_TEXT) {
        put_ascii(run, out, "\"");
        for (size_t i = 0; i < v.text.n && !run->failed; i++) {
            static const char FROM[] = "\"\\\n\t\r\b\f", TO[] = "\"\\ntrbf";
            Char c = v.text.c[i] & ~SAID;
            const char *known = c && c < 0x80 ? strchr(FROM, (int)c) : NULL;
            snprintf(escape, sizeof escape, known ? "\\%c" : "\\u%04x",
                     known ? (unsigned)TO[known - FROM] : (unsigned)c & 0xFF);
            if (known || c < 0x20)
                put_ascii(run, out, escape);
            else
                *out = text_joined(run, *out, part(v.text, i, 1));
        }
        put_ascii(run, out, "\"");
    } else if (v.kind == V_LIST) {
        put_ascii(run, out, "[");
        for (size_t i = 0; i < v.list->n; i++)
            put_ascii(run, out, i ? ", " : ""), put_json(run, out, v.list->at[i], depth + 1);
        put_ascii(run, out, "]");
    } else if (v.kind == V_MAP) {
        put_ascii(run, out, "{");
        for (size_t i = 0; i < v.map->n; i++) {
            put_ascii(run, out, i ? ", " : "");
            put_json(run, out, value_text(v.map->keys[i]), depth + 1);
            put_ascii(run, out, ": ");
            put_json(run, out, v.map->at[i], depth + 1);
        }
        put_ascii(run, out, "}");
    } else if (v.kind == V_INT)
        *out = text_joined(run, *out, value_str(run, v));
    else if (v.kind == V_BOOL || v.kind == V_NONE)
        put_ascii(run, out, v.kind == V_NONE ? "null" : v.i ? "true" : "false");
    else
        run_fail(run, "tojson of %s", kind_name(v));
}

static Value length_of(Run *run, Value v) {
    if (v.kind == V_TEXT || v.kind == V_UNDEFINED) return value_int((int64_t)(v.kind == V_TEXT ? v.text.n : 0));
    if (v.kind == V_LIST || v.kind == V_MAP) return value_int((int64_t)(v.kind == V_LIST ? v.list->n : v.map->n));
    run_fail(run, "the length of %s", kind_name(v));
    return v;
}

static Value joined(Run *run, Value self, const Args *args) {
    Text out = {0}, between = value_str(run, arg(args, 0, "d"));
    Value list = value_items(run, self), attribute = arg(args, 1, "attribute");
    for (size_t i = 0; i < list.list->n && !run->failed; i++) {
        Value item = list.list->at[i];
        if (attribute.kind == V_TEXT) item = value_index(run, item, attribute);
        if (i) out = text_joined(run, out, between);
        out = text_joined(run, out, value_str(run, item));
    }
    return value_text(out);
}

/* selectattr, rejectattr, select, reject, map(attribute=...). */
static Value chosen(Run *run, Value self, const char *name, const Args *args) {
    Value list = value_items(run, self), out = value_list(run);
    bool by = strstr(name, "attr") != NULL, reject = name[0] == 'r', map = name[0] == 'm';
    Value attribute = map ? arg(args, 8, "attribute") : arg(args, 0, NULL), test = arg(args, by ? 1 : 0, NULL);
    char wanted[24] = "";
    for (size_t i = 0; test.kind == V_TEXT && i < test.text.n && i < sizeof wanted - 1; i++)
        wanted[i] = (char)(test.text.c[i] & 0x7F);
    if ((map || by) && attribute.kind != V_TEXT)
        run_fail(run, "the filter %s is supported with an attribute alone", name);
    Args rest = {{arg(args, by ? 2 : 1, NULL)}, {NULL}, args->n > (by ? 2 : 1)};
    for (size_t i = 0; i < list.list->n && !run->failed; i++) {
        Value item = list.list->at[i], value = by || map ? value_index(run, item, attribute) : item;
        bool good = map || (wanted[0] ? test_call(run, value, wanted, &rest) : value_true(value));
        if (good != reject) list_add(run, out.list, map ? value : item);
    }
    return out;
}

Value filter_call(Run *run, Value self, const char *name, const Args *args) {
    static const char *const METHODS[] = {"upper", "lower", "title", "capitalize", "replace"};
    if (strcmp(name, "trim") == 0) {
        Value set = arg(args, 0, "chars");
        return value_text(text_strip(value_str(run, self), set.kind == V_TEXT ? &set.text : NULL, true, true));
    }
    if (strcmp(name, "length") == 0 || strcmp(name, "count") == 0) return length_of(run, self);
    if (strcmp(name, "string") == 0) return value_text(value_str(run, self));
    if (strcmp(name, "safe") == 0) return self;
    if (strcmp(name, "default") == 0 || strcmp(name, "d") == 0)
        return self.kind == V_UNDEFINED || (value_true(arg(args, 1, "boolean")) && !value_true(self))
                   ? arg(args, 0, "default_value")
                   : self;
    for (size_t i = 0; i < sizeof METHODS / sizeof *METHODS; i++)
        if (strcmp(name, METHODS[i]) == 0) return text_method(run, value_str(run, self), name, args);
    if (strcmp(name, "list") == 0)
        return value_slice(run, value_items(run, self), (Value){0}, (Value){0}, (Value){0});
    if (strcmp(name, "items") == 0)
        return self.kind == V_UNDEFINED ? value_list(run) : method_call(run, self, name, args);
    if (strcmp(name, "join") == 0) return joined(run, self, args);
    if (strcmp(name, "first") == 0) return value_index(run, value_items(run, self), value_int(0));
    if (strcmp(name, "last") == 0) return value_index(run, value_items(run, self), value_int(-1));
    if (strcmp(name, "reverse") == 0)
        return value_slice(run, self.kind == V_TEXT ? self : value_items(run, self), (Value){0}, (Value){0},
                           value_int(-1));
    if (strcmp(name, "int") == 0 && is_number(self)) return value_int(self.i);
    if (strcmp(name, "tojson") == 0 && !args->n) {
        Text out = {0};
        put_json(run, &out, self, 0);
        return value_text(out);
    }
    if (strcmp(name, "selectattr") == 0 || strcmp(name, "rejectattr") == 0 || strcmp(name, "select") == 0 ||
        strcmp(name, "reject") == 0 || strcmp(name, "map") == 0)
        return chosen(run, self, name, args);
    run_fail(run, "the filter %s is not supported", name);
    return (Value){V_UNDEFINED};
}

bool test_call(Run *run, Value v, const char *name, const Args *args) {
    static const struct {
        const char *name;
        unsigned kinds;
    } KINDS[] = {{"undefined", 1 << V_UNDEFINED},
                 {"none", 1 << V_NONE},
                 {"boolean", 1 << V_BOOL},
                 {"integer", 1 << V_INT},
                 {"string", 1 << V_TEXT},
                 {"mapping", 1 << V_MAP},
                 {"number", 1 << V_INT | 1 << V_BOOL},
                 {"defined", ~(1u << V_UNDEFINED)},
                 {"callable", 1 << V_MACRO},
                 {"float", 0},
                 {"sequence", 1 << V_TEXT | 1 << V_LIST | 1 << V_MAP | 1 << V_UNDEFINED},
                 {"iterable", 1 << V_TEXT | 1 << V_LIST | 1 << V_MAP | 1 << V_UNDEFINED}};
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++)
        if (strcmp(name, KINDS[i].name) == 0) return KINDS[i].kinds >> v.kind & 1;
    if (strcmp(name, "true") == 0 || strcmp(name, "false") == 0)
        return v.kind == V_BOOL && v.i == (name[0] == 't');
    Value other = arg(args, 0, NULL);
    if (strcmp(name, "equalto") == 0 || strcmp(name, "eq") == 0 || strcmp(name, "==") == 0)
        return values_same(v, other);
    if (strcmp(name, "ne") == 0 || strcmp(name, "!=") == 0) return !values_same(v, other);
    if (strcmp(name, "in") == 0) return value_in(run, v, other);
    if (is_number(v) && (strcmp(name, "odd") == 0 || strcmp(name, "even") == 0))
        return (v.i & 1) == (name[0] == 'o');
    if (is_number(v) && is_number(other) && other.i && strcmp(name, "divisibleby") == 0) return v.i % other.i == 0;
    return run_fail(run, "the test %s is not supported", name);
}
