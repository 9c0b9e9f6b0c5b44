/* recipe.c: reads recipes: finds keys, turns texts into values, from YAML (libyaml) and from flags. What the
 * values mean together is recipe_resolve.c's. Tested by tests/test_rl_recipe.c.
 */
#include "rl/recipe.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

enum { GIVEN_NOT, GIVEN_FILE, GIVEN_FLAG };
enum { NAME_MAX_BYTES = 80, FILE_MAX_BYTES = 1 << 20 };

/* A value as it is written, before its key says what it should be. */
typedef struct {
    TextList texts;
    bool list, map;
    bool plain; /* unquoted in YAML: may be null */
} Value;

/* Where a value stands: "demo.yaml, line 3" or "--seed". */
typedef struct {
    char text[160];
    int given;
    long line;
} Where;

/* ---- keys ---- */

int recipe_key_find(const char *name) {
    for (int i = 0; i < recipe_n_keys; i++)
        if (recipe_keys[i].fate != KEY_HEADING && strcmp(recipe_keys[i].name, name) == 0) return i;
    return -1;
}

/* Levenshtein's distance of two names, both shorter than NAME_MAX_BYTES. */
int name_distance(const char *a, const char *b) {
    int row[NAME_MAX_BYTES + 1];
    int n = (int)strlen(b);
    for (int j = 0; j <= n; j++) row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[n];
}

const char *recipe_key_near(const char *name) {
    size_t n = strlen(name);
    if (n >= NAME_MAX_BYTES) return NULL;
    int best = (int)n / 3 > 2 ? (int)n / 3 + 1 : 3; /* a name that shares less is no suggestion */
    const char *near = NULL;
    for (int i = 0; i < recipe_n_keys; i++) {
        if (recipe_keys[i].fate == KEY_HEADING) continue;
        int distance = name_distance(name, recipe_keys[i].name);
        if (distance < best) best = distance, near = recipe_keys[i].name;
    }
    return near;
}

static bool key_unknown(const char *name, const char *where, Err *err) {
    const char *near = recipe_key_near(name);
    if (near) return err_set(err, "%s: there is no key %.80s; did you mean %s?", where, name, near);
    return err_set(err, "%s: there is no key %.80s; `whet help train` lists them", where, name);
}

/* ---- values ---- */

static bool text_is_null(const Value *value) {
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    if (value->list || value->map) return value->texts.n == 0 && !value->map;
    for (size_t i = 0; value->plain && i < sizeof nulls / sizeof *nulls; i++)
        if (strcmp(value->texts.at[0], nulls[i]) == 0) return true;
    return false;
}

static bool number_read(const char *text, double *out) {
    char *end;
    if (!*text || strspn(text, "+-.0123456789eE") != strlen(text)) return false;
    *out = strtod(text, &end);
    return !*end && isfinite(*out);
}

static bool switch_read(const char *text, bool *out) {
    static const char *const words[] = {"true", "yes", "on", "1", "false", "no", "off", "0"};
    for (int i = 0; i < 8; i++)
        if (strcasecmp(text, words[i]) == 0) {
            *out = i < 4;
            return true;
        }
    return false;
}

/* 8G, 500M, 4GiB, 12345: powers of 1024. */
bool bytes_read(const char *text, int64_t *out) {
    static const char units[] = "KMGT";
    char *end;
    if (!(*text >= '0' && *text <= '9')) return false;
    double size = strtod(text, &end);
    const char *unit = *end ? strchr(units, *end & ~0x20) : NULL;
    if (unit) {
        size *= (double)((int64_t)1 << (10 * (unit - units + 1)));
        end++;
        if (*end == 'i') end++;
    }
    if (*end == 'B' || *end == 'b') end++;
    if (*end || size > 0x1p62) return false;
    *out = (int64_t)size;
    return true;
}

static bool same_value(const char *text, const char *word, size_t n) {
    if (strlen(text) == n && strncasecmp(text, word, n) == 0) return true;
    char copy[32];
    if (n >= sizeof copy) return false;
    memcpy(copy, word, n);
    copy[n] = 0;
    double a, b;
    return number_read(text, &a) && number_read(copy, &b) && a == b;
}

/* What `allowed` reads a text as (a=b reads a as b), in the arena; NULL when it is not among the values. */
static const char *value_allowed(Arena *arena, const char *allowed, const char *text) {
    for (const char *at = allowed; *at;) {
        size_t n = strcspn(at, "|"), name = strcspn(at, "|=");
        if (same_value(text, at, name)) {
            const char *as = name < n ? at + name + 1 : at;
            return arena_text(arena, as, n - (size_t)(as - at));
        }
        at += n + (at[n] == '|');
    }
    return NULL;
}

void recipe_key_words(const RecipeKey *key, char *out, size_t room) {
    size_t used = 0;
    *out = 0;
    for (const char *at = key->allowed; *at;) {
        size_t n = strcspn(at, "|");
        if (!memchr(at, '=', n) && used < room)
            used += (size_t)snprintf(out + used, room - used, "%s%.*s", used ? ", " : "", (int)n, at);
        at += n + (at[n] == '|');
    }
}

static bool number_check(const RecipeKey *key, double value, const char *text, const char *where, Err *err) {
    if (value >= key->low && value <= key->high) return true;
    if (value < key->low && key->low > 0 && key->low < 1e-300)
        return err_set(err, "%s: %s is %s and must be above 0", where, key->name, text);
    if (value < key->low)
        return err_set(err, "%s: %s is %s and must be at least %g", where, key->name, text, key->low);
    return err_set(err, "%s: %s is %s and must be at most %.10g", where, key->name, text, key->high);
}

static bool scalar_put(Recipe *recipe, const RecipeKey *key, void *field, const char *text, const char *where,
                       Err *err) {
    double number = 0;
    switch (key->type) {
    case KEY_TEXT: {
        const char *value = *text ? arena_text(&recipe->arena, text, strlen(text)) : NULL;
        if (key->allowed && !(value = value_allowed(&recipe->arena, key->allowed, text))) {
            char words[120];
            recipe_key_words(key, words, sizeof words);
            return err_set(err, "%s: %s is %.80s and must be one of %s", where, key->name, text, words);
        }
        *(const char **)field = value;
        return true;
    }
    case KEY_SWITCH:
        if (switch_read(text, field)) return true;
        return err_set(err, "%s: %s is %.80s and must be true or false", where, key->name, text);
    case KEY_BYTES:
        if (bytes_read(text, field)) return true;
        return err_set(err, "%s: %s is %.80s and must be a size such as 8G or 500M", where, key->name, text);
    case KEY_WHOLE:
        if (!number_read(text, &number) || number != floor(number) || fabs(number) > 0x1p62)
            return err_set(err, "%s: %s is %.80s and must be a whole number", where, key->name, text);
        if (!number_check(key, number, text, where, err)) return false;
        *(long *)field = strpbrk(text, ".eE") ? (long)number : strtol(text, NULL, 10);
        return true;
    case KEY_NUMBER:
        if (!number_read(text, &number))
            return err_set(err, "%s: %s is %.80s and must be a number", where, key->name, text);
        if (!number_check(key, number, text, where, err)) return false;
        *(double *)field = number;
        return true;
    default:
        CHECK(false, "%s has type %d", key->name, key->type);
    }
}

static bool list_put(Recipe *recipe, const RecipeKey *key, void *field, const TextList *texts, const char *where,
                     Err *err) {
    if (key->type == KEY_TEXTS) {
        const char **at = arena_alloc(&recipe->arena, (size_t)texts->n + 1, sizeof *at);
        for (int i = 0; i < texts->n; i++) at[i] = arena_text(&recipe->arena, texts->at[i], strlen(texts->at[i]));
        *(TextList *)field = (TextList){at, texts->n};
        return true;
    }
    double *at = arena_alloc(&recipe->arena, (size_t)texts->n, sizeof *at);
    for (int i = 0; i < texts->n; i++)
        if (!number_read(texts->at[i], &at[i]))
            return err_set(err, "%s: %s has %.80s and must have numbers", where, key->name, texts->at[i]);
    *(NumberList *)field = (NumberList){at, texts->n};
    return true;
}

/* a,b,c as three texts without the blanks around them. */
static TextList text_split(Arena *arena, const char *text) {
    TextList list = {arena_alloc(arena, strlen(text) + 1, sizeof *list.at), 0};
    for (const char *at = text; *text; at++) {
        at += strspn(at, " ");
        size_t n = strcspn(at, ","), end = n;
        while (end && at[end - 1] == ' ') end--;
        list.at[list.n++] = arena_text(arena, at, end);
        at += n;
        if (!*at) break;
    }
    return list;
}

static bool is_list(const RecipeKey *key) { return key->type == KEY_TEXTS || key->type == KEY_NUMBERS; }

static void *key_field(Recipe *recipe, const RecipeKey *key) { return (char *)recipe + key->at; }

static void default_put(Recipe *recipe, const RecipeKey *key) {
    static const size_t sizes[] = {
        [KEY_TEXT] = sizeof(char *),        [KEY_WHOLE] = sizeof(long),    [KEY_NUMBER] = sizeof(double),
        [KEY_SWITCH] = sizeof(bool),        [KEY_BYTES] = sizeof(int64_t), [KEY_TEXTS] = sizeof(TextList),
        [KEY_NUMBERS] = sizeof(NumberList),
    };
    memset(key_field(recipe, key), 0, sizes[key->type]);
    if (!key->fallback) return;
    Err err = {0};
    TextList one = {(const char *[]){key->fallback}, 1};
    bool good = is_list(key) ? list_put(recipe, key, key_field(recipe, key), &one, "default", &err)
                             : scalar_put(recipe, key, key_field(recipe, key), key->fallback, "default", &err);
    CHECK(good, "%s", err.msg);
}

void recipe_default(Recipe *recipe) {
    *recipe = (Recipe){0};
    for (int i = 0; i < recipe_n_keys; i++)
        if (recipe_keys[i].fate == KEY_HONOURED) default_put(recipe, &recipe_keys[i]);
}

static bool honoured_put(Recipe *recipe, const RecipeKey *key, const Value *value, const Where *where, Err *err) {
    void *field = key_field(recipe, key);
    if (value->map) return err_set(err, "%s: %s wants a value, not keys of its own", where->text, key->name);
    if (is_list(key)) {
        TextList texts = value->texts;
        bool split = !value->list && (value->plain || where->given == GIVEN_FLAG);
        if (split) texts = text_split(&recipe->arena, value->texts.at[0]);
        return list_put(recipe, key, field, &texts, where->text, err);
    }
    if (value->list) return err_set(err, "%s: %s wants one value, not a list", where->text, key->name);
    return scalar_put(recipe, key, field, value->texts.at[0], where->text, err);
}

static bool refused_put(Recipe *recipe, const RecipeKey *key, const Value *value, const Where *where, Err *err) {
    const char *text = value->map ? "{...}" : value->list ? "[...]" : value->texts.at[0];
    if (key->allowed && !value->map && !value->list && value_allowed(&recipe->arena, key->allowed, text))
        return true;
    return err_set(err, "%s: %s: %.80s would change the result and is not to be had here; %s", where->text,
                   key->name, text, key->help);
}

/* Two names of one key in one file must say the same. */
static bool twice_check(Recipe *recipe, int row, const Where *where, Err *err) {
    if (where->given != GIVEN_FILE || recipe->given[row] != GIVEN_FILE) return true;
    return err_set(err, "%s: %s stands in line %ld already, with another value", where->text,
                   recipe_keys[row].name, recipe->line[row]);
}

static bool field_equal(const Recipe *a, const Recipe *b, const RecipeKey *key) {
    const void *x = (const char *)a + key->at, *y = (const char *)b + key->at;
    if (key->type == KEY_TEXT) {
        const char *s = *(char *const *)x, *t = *(char *const *)y;
        return s && t ? strcmp(s, t) == 0 : s == t;
    }
    if (key->type == KEY_SWITCH) return *(const bool *)x == *(const bool *)y;
    return !is_list(key) && memcmp(x, y, 8) == 0;
}

static bool key_put(Recipe *recipe, const char *name, const Value *given_value, const Where *where, Err *err) {
    int row = recipe_key_find(name);
    if (row < 0) return key_unknown(name, where->text, err);
    const RecipeKey *key = &recipe_keys[row];
    CHECK(key->fate != KEY_GROUP, "%s holds keys", name);
    Value value = *given_value;
    const char *as; /* outlives the block that fills it: value points to it */
    if (key->fate == KEY_ALIAS) {
        if (key->allowed && value.texts.n == 1 && !text_is_null(&value)) {
            if (!(as = value_allowed(&recipe->arena, key->allowed, value.texts.at[0])))
                return err_set(err, "%s: %s is %.80s and must be true or false", where->text, name,
                               value.texts.at[0]);
            value.texts = (TextList){&as, 1};
        }
        row = recipe_key_find(key->fallback);
        key = &recipe_keys[row];
    }
    if (text_is_null(&value)) {
        if (key->fate == KEY_HONOURED) {
            default_put(recipe, key);
            if (value.list) recipe->given[row] = (unsigned char)where->given;
        }
        return true;
    }
    if (key->fate == KEY_REFUSED && !refused_put(recipe, key, &value, where, err)) return false;
    if (key->fate == KEY_HONOURED) {
        Recipe before = *recipe;
        if (!honoured_put(recipe, key, &value, where, err)) return false;
        if (!field_equal(recipe, &before, key) && !twice_check(recipe, row, where, err)) return false;
    }
    recipe->given[row] = (unsigned char)where->given;
    recipe->line[row] = where->line;
    return true;
}

/* ---- YAML ---- */

static bool node_value(Arena *arena, yaml_document_t *document, yaml_node_t *node, Value *value) {
    *value = (Value){.list = node->type == YAML_SEQUENCE_NODE, .map = node->type == YAML_MAPPING_NODE};
    if (node->type == YAML_SCALAR_NODE) {
        value->plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        const char *text = (const char *)node->data.scalar.value;
        value->texts = (TextList){arena_alloc(arena, 1, sizeof(char *)), 1};
        value->texts.at[0] = arena_text(arena, text, node->data.scalar.length);
        return strlen(text) == node->data.scalar.length;
    }
    if (node->type == YAML_MAPPING_NODE) {
        value->map = node->data.mapping.pairs.top != node->data.mapping.pairs.start;
        value->list = !value->map; /* {} says no more than [] */
        return true;
    }
    yaml_node_item_t *item = node->data.sequence.items.start, *end = node->data.sequence.items.top;
    value->texts.at = arena_alloc(arena, (size_t)(end - item), sizeof(char *));
    for (; item < end; item++) {
        yaml_node_t *inner = yaml_document_get_node(document, *item);
        if (inner->type != YAML_SCALAR_NODE) {
            value->map = true; /* a list of lists or maps: no key wants one */
            return true;
        }
        const char *text = (const char *)inner->data.scalar.value;
        value->texts.at[value->texts.n++] = arena_text(arena, text, inner->data.scalar.length);
    }
    return true;
}

static bool group_put(Recipe *recipe, yaml_document_t *document, yaml_node_t *node, const char *group,
                      const char *name, const Where *common, Err *err);

/* TRL's mixture: of each mapping of a list the path, or the file that it names for the path json. */
static bool mixture_value(Arena *arena, yaml_document_t *document, yaml_node_t *list, const char *where,
                          Value *value, Err *err) {
    static const char *const keys[] = {"path", "data_files", "name", "split",
                                       "columns"}; /* whet's files are whole */
    yaml_node_item_t *item = list->data.sequence.items.start, *end = list->data.sequence.items.top;
    *value = (Value){.list = true, .texts = {arena_alloc(arena, (size_t)(end - item), sizeof(char *)), 0}};
    for (; item < end; item++) {
        yaml_node_t *one = yaml_document_get_node(document, *item);
        const char *of[2] = {NULL, NULL}; /* path, data_files */
        yaml_node_pair_t *pair = one->type == YAML_MAPPING_NODE ? one->data.mapping.pairs.start : NULL;
        for (; pair && pair < one->data.mapping.pairs.top; pair++) {
            yaml_node_t *key = yaml_document_get_node(document, pair->key);
            Value inner;
            if (key->type != YAML_SCALAR_NODE ||
                !node_value(arena, document, yaml_document_get_node(document, pair->value), &inner))
                return err_set(err, "%s: datasets has a key or a value that is no text", where);
            int k = 0;
            while (k < 5 && strcmp((const char *)key->data.scalar.value, keys[k]) != 0) k++;
            if (text_is_null(&inner)) continue;
            if (k == 5 || (k < 2 && (inner.map || inner.texts.n != 1)))
                return err_set(err, "%s: %.40s of datasets would change the result and is not to be had here",
                               where, (const char *)key->data.scalar.value);
            if (k < 2) of[k] = inner.texts.at[0];
        }
        if (!of[0]) return err_set(err, "%s: each of datasets wants a path", where);
        value->texts.at[value->texts.n++] = of[1] && strcmp(of[0], "json") == 0 ? of[1] : of[0];
    }
    return true;
}

static bool is_mixture(yaml_document_t *document, yaml_node_t *node) {
    if (node->type != YAML_SEQUENCE_NODE) return false;
    yaml_node_item_t *item = node->data.sequence.items.start;
    return item < node->data.sequence.items.top &&
           yaml_document_get_node(document, *item)->type == YAML_MAPPING_NODE;
}

/* The keys of a mapping: of the whole file, or those of `group`. `where` is their common place, if they have one.
 */
static bool mapping_put(Recipe *recipe, yaml_document_t *document, yaml_node_t *mapping, const char *group,
                        const char *name, const Where *common, Err *err) {
    yaml_node_pair_t *pair = mapping->data.mapping.pairs.start, *end = mapping->data.mapping.pairs.top;
    for (; pair < end; pair++) {
        yaml_node_t *key = yaml_document_get_node(document, pair->key);
        yaml_node_t *node = yaml_document_get_node(document, pair->value);
        Where where = {.given = GIVEN_FILE, .line = (long)key->start_mark.line + 1};
        snprintf(where.text, sizeof where.text, "%.120s, line %ld", name, where.line);
        if (common) where = *common;
        if (key->type != YAML_SCALAR_NODE) return err_set(err, "%s: a key must be a name", where.text);
        const char *text = (const char *)key->data.scalar.value;
        int row = recipe_key_find(text);
        if (group && (row < 0 || !recipe_keys[row].trl || strcmp(recipe_keys[row].trl, group) != 0))
            return err_set(err, "%s: %s has no key %.80s here; `whet help train` lists them", where.text, group,
                           text);
        if (row >= 0 && recipe_keys[row].fate == KEY_GROUP) {
            if (!group_put(recipe, document, node, text, name, common, err)) return false;
            continue;
        }
        Value value;
        if (strcmp(text, "datasets") == 0 && is_mixture(document, node)) {
            if (!mixture_value(&recipe->arena, document, node, where.text, &value, err)) return false;
        } else if (!node_value(&recipe->arena, document, node, &value))
            return err_set(err, "%s: the value holds a NUL byte", where.text);
        if (!key_put(recipe, text, &value, &where, err)) return false;
    }
    return true;
}

static bool group_put(Recipe *recipe, yaml_document_t *document, yaml_node_t *node, const char *group,
                      const char *name, const Where *common, Err *err) {
    Value value;
    if (node && node->type == YAML_MAPPING_NODE)
        return mapping_put(recipe, document, node, group, name, common, err);
    bool none = !node || (node_value(&recipe->arena, document, node, &value) && text_is_null(&value));
    return none ||
           err_set(err, "%s: %s wants keys of its own: {key: value, ...}", common ? common->text : name, group);
}

static bool document_put(Recipe *recipe, yaml_document_t *document, const char *name, Err *err) {
    yaml_node_t *root = yaml_document_get_root_node(document);
    if (!root || (root->type == YAML_SCALAR_NODE && !root->data.scalar.length))
        return true; /* nothing but comments */
    if (root->type != YAML_MAPPING_NODE) return err_set(err, "%s: a recipe is lines of `key: value`", name);
    return mapping_put(recipe, document, root, NULL, name, NULL, err);
}

/* YAML text: a whole recipe, or (with a place) the value of a group's flag. */
static bool yaml_read(Recipe *recipe, const char *text, size_t n, const char *name, const char *group,
                      const Where *where, Err *err) {
    yaml_parser_t parser;
    yaml_document_t document;
    CHECK(yaml_parser_initialize(&parser), "no memory for %s", name);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
    bool good = yaml_parser_load(&parser, &document);
    if (good) {
        good = group
                   ? group_put(recipe, &document, yaml_document_get_root_node(&document), group, name, where, err)
                   : document_put(recipe, &document, name, err);
        yaml_document_delete(&document);
    } else {
        size_t line = parser.problem_mark.line > parser.context_mark.line ? parser.problem_mark.line
                                                                          : parser.context_mark.line;
        err_set(err, "%s, line %zu: not YAML: %s", name, line + 1, parser.problem ? parser.problem : "unreadable");
    }
    yaml_parser_delete(&parser);
    return good;
}

bool recipe_read_yaml(Recipe *recipe, const char *text, size_t n, const char *name, Err *err) {
    return yaml_read(recipe, text, n, name, NULL, NULL, err);
}

bool recipe_read_file(Recipe *recipe, const char *path, Err *err) {
    FILE *file = fopen(path, "rb");
    if (!file) return err_set(err, "cannot open the recipe %s: %s", path, strerror(errno));
    Buf text = {0};
    char chunk[4096];
    size_t got;
    while (text.n <= FILE_MAX_BYTES && (got = fread(chunk, 1, sizeof chunk, file)) > 0) buf_add(&text, chunk, got);
    bool good;
    if (ferror(file))
        good = err_set(err, "cannot read the recipe %s: %s", path, strerror(errno));
    else if (text.n > FILE_MAX_BYTES)
        good = err_set(err, "%s is larger than 1 MiB: is it a recipe?", path);
    else
        good = recipe_read_yaml(recipe, text.n ? text.p : "", text.n, path, err);
    fclose(file);
    buf_free(&text);
    return good;
}

/* ---- flags ---- */

static bool is_flag(const char *text) { return text[0] == '-' && text[1] == '-'; }

/* How many of the arguments after a flag are its values. */
static int values_taken(const RecipeKey *key, int n, char *const *rest) {
    bool word, one = key && key->fate == KEY_HONOURED && !is_list(key);
    if (one && key->type == KEY_SWITCH) return n > 0 && switch_read(rest[0], &word);
    int taken = 0;
    while (taken < n && !is_flag(rest[taken]) && !(one && taken == 1)) taken++;
    return taken;
}

static const RecipeKey *key_behind(const char *name) {
    int row = recipe_key_find(name);
    if (row >= 0 && recipe_keys[row].fate == KEY_ALIAS) row = recipe_key_find(recipe_keys[row].fallback);
    return row < 0 ? NULL : &recipe_keys[row];
}

/* One flag with its values; returns how many arguments it took, or -1 and err. */
static int flag_put(Recipe *recipe, int n, char *const *flags, Err *err) {
    char name[NAME_MAX_BYTES];
    size_t length = strcspn(flags[0] + 2, "=");
    if (!length || length >= sizeof name) return err_set(err, "%.80s: there is no such key", flags[0]), -1;
    memcpy(name, flags[0] + 2, length);
    name[length] = 0;
    for (char *c = name; *c; c++)
        if (*c == '-') *c = '_';
    Where where = {.given = GIVEN_FLAG};
    snprintf(where.text, sizeof where.text, "--%s", name);
    const char *inside = flags[0][2 + length] ? flags[0] + 2 + length + 1 : NULL;
    const RecipeKey *key = key_behind(name);
    Value value = {.texts = {&inside, 1}};
    if (key && key->fate == KEY_GROUP) { /* JSON, which is YAML */
        const char *text = inside ? inside : n > 1 ? flags[1] : "";
        return yaml_read(recipe, text, strlen(text), where.text, name, &where, err) ? (inside ? 1 : 2) : -1;
    }
    if (inside) return key_put(recipe, name, &value, &where, err) ? 1 : -1;
    int taken = values_taken(key, n - 1, flags + 1);
    const char *word = "true";
    if (!key && strncmp(name, "no_", 3) == 0 && !taken && key_behind(name + 3)) {
        memmove(name, name + 3, length - 2);
        word = "false";
        key = key_behind(name);
    }
    if (key && key->fate == KEY_HONOURED && key->type != KEY_SWITCH && !taken)
        return err_set(err, "%s: wants a value", where.text), -1;
    if (key && key->fate == KEY_HONOURED && key->type == KEY_SWITCH && taken) word = flags[1];
    value.texts = taken > 1 ? (TextList){(const char **)(flags + 1), taken}
                            : (TextList){taken == 1 ? (const char **)(flags + 1) : &word, 1};
    value.list = taken > 1;
    return key_put(recipe, name, &value, &where, err) ? 1 + taken : -1;
}

static bool is_utf8(const char *text) {
    json_t *string = json_string(text); /* jansson takes nothing else, and recipes are stored as JSON */
    json_decref(string);
    return string != NULL;
}

bool recipe_read_flags(Recipe *recipe, int n, char *const *flags, Err *err) {
    for (int i = 0; i < n; i++)
        if (!is_utf8(flags[i])) return err_set(err, "flag %d is not valid UTF-8", i + 1);
    for (int at = 0; at < n;) {
        if (!is_flag(flags[at]))
            return err_set(err, "%.80s: a flag was expected here, such as --seed 1", flags[at]);
        int took = flag_put(recipe, n - at, flags + at, err);
        if (took < 0) return false;
        at += took;
    }
    return true;
}

/* ---- the whole way ---- */

bool recipe_load(Recipe *recipe, const char *path, int n_flags, char *const *flags, Err *err) {
    recipe_default(recipe);
    return (!path || recipe_read_file(recipe, path, err)) && recipe_read_flags(recipe, n_flags, flags, err) &&
           recipe_resolve(recipe, err);
}

void recipe_free(Recipe *recipe) {
    arena_free(&recipe->arena);
    *recipe = (Recipe){0};
}
