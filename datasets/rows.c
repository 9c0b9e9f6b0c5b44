/* rows.c: the problems of a JSONL file. Finds the columns, turns rows into Problems, and bears broken rows up to a
 * limit, naming them by line. It does not judge answers and does not order them (source.c). Tested by
 * tests/test_datasets_source.c.
 */
#include "datasets/internal.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    const SourceConf *conf;
    const char *name;                     /* of the file that is read */
    const char *problem_key, *answer_key; /* NULL while no good row has shown them */
    long room;
    Rows *rows;
} Reader;

enum RowFate { ROW_GOOD, ROW_BROKEN };

/* The shortest decimal that reads back as the same double: 0.1 stays 0.1. */
static char *real_text(Arena *arena, double value) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    return arena_text(arena, text, strlen(text));
}

/* The text of a string, number or boolean; NULL for anything else. */
static char *scalar_text(Arena *arena, const json_t *value) {
    switch (json_typeof(value)) {
    case JSON_STRING:
        return arena_text(arena, json_string_value(value), json_string_length(value));
    case JSON_INTEGER:
        return arena_format(arena, "%lld", (long long)json_integer_value(value));
    case JSON_REAL:
        return real_text(arena, json_real_value(value));
    case JSON_TRUE:
        return arena_text(arena, "true", 4);
    case JSON_FALSE:
        return arena_text(arena, "false", 5);
    default:
        return NULL;
    }
}

/* GSM8K writes its working, then "####", then the answer: only the last part is the answer. */
static char *answer_cut(Arena *arena, char *text) {
    char *from = text;
    for (char *mark; (mark = strstr(from, "####"));) from = mark + 4;
    if (from == text) return text;
    from += strspn(from, " \t\r\n");
    size_t n = strlen(from);
    while (n && strchr(" \t\r\n", from[n - 1])) n--;
    return arena_text(arena, from, n);
}

static const char *first_key(const json_t *row, const char *const *keys) {
    for (; *keys; keys++) {
        const json_t *value = json_object_get(row, *keys);
        if (value && !json_is_null(value)) return *keys;
    }
    return NULL;
}

/* A message's content: a text, or a list of parts that are all text. NULL: something else. */
static json_t *content_of(const json_t *message) {
    const json_t *content = json_object_get(message, "content"), *part;
    if (json_is_string(content)) return json_copy((json_t *)content);
    if (!json_is_array(content)) return NULL;
    Buf text = {0};
    buf_text(&text, "");
    size_t i;
    bool good = true;
    json_array_foreach(content, i, part) {
        const json_t *piece = json_object_get(part, "text");
        good = good && json_is_string(piece);
        if (good) buf_text(&text, json_string_value(piece));
    }
    json_t *all = good ? json_string(text.p) : NULL;
    buf_free(&text);
    return all;
}

/* A list of chat messages as a problem: the lone user's text, or the messages themselves. NULL and err: no chat.
 */
static char *chat_text(Arena *arena, const json_t *messages, Err *err) {
    size_t n = json_array_size(messages);
    for (; n > 0; n--) {
        const char *role = json_string_value(json_object_get(json_array_get(messages, n - 1), "role"));
        if (!role || strcmp(role, "assistant") != 0) break;
    }
    json_t *list = json_array();
    char *text = NULL;
    bool good = n > 0 || err_set(err, "the list of messages has none that asks");
    for (size_t i = 0; good && i < n; i++) {
        const json_t *message = json_array_get(messages, i), *role = json_object_get(message, "role");
        json_t *content = content_of(message);
        if (json_is_string(role) && content)
            json_array_append_new(list,
                                  json_pack("{s:s, s:o}", "role", json_string_value(role), "content", content));
        else
            good = err_set(err, "message %zu has no role and content that are text", i + 1), json_decref(content);
    }
    const json_t *only = json_array_get(list, 0);
    if (good && n == 1 && strcmp(json_string_value(json_object_get(only, "role")), "user") == 0) {
        text = scalar_text(arena, json_object_get(only, "content"));
    } else if (good) {
        char *dump = json_dumps(list, JSON_COMPACT);
        text = arena_text(arena, dump, strlen(dump));
        free(dump);
    }
    json_decref(list);
    return text;
}

static enum RowFate problem_take(Reader *reader, const json_t *row, Problem *out, Err *err) {
    static const char *const keys[] = {"problem", "question", "prompt", "messages", NULL};
    const char *key = reader->problem_key ? reader->problem_key : first_key(row, keys);
    if (!key) return err_set(err, "no column problem, question, prompt or messages"), ROW_BROKEN;
    const json_t *value = json_object_get(row, key);
    if (!value) return err_set(err, "no column %s", key), ROW_BROKEN;
    if (json_is_array(value)) {
        Err why = {0};
        out->problem = chat_text(&reader->rows->arena, value, &why);
        if (!out->problem) return err_set(err, "column %s: %s", key, why.msg), ROW_BROKEN;
    } else if (!json_is_string(value)) {
        return err_set(err, "column %s is not text", key), ROW_BROKEN;
    } else {
        out->problem = scalar_text(&reader->rows->arena, value);
    }
    if (!*out->problem) return err_set(err, "column %s is empty", key), ROW_BROKEN;
    reader->problem_key = key;
    return ROW_GOOD;
}

static enum RowFate answer_take(Reader *reader, const json_t *row, Problem *out, Err *err) {
    static const char *const keys[] = {"answer", "solution", NULL};
    if (!reader->answer_key) reader->answer_key = first_key(row, keys);
    if (!reader->answer_key) return ROW_GOOD;
    const json_t *value = json_object_get(row, reader->answer_key);
    if (!value && reader->conf->answer_key) return err_set(err, "no column %s", reader->answer_key), ROW_BROKEN;
    if (!value || json_is_null(value)) return ROW_GOOD;
    char *text = scalar_text(&reader->rows->arena, value);
    if (!text) return err_set(err, "column %s is neither text nor a number", reader->answer_key), ROW_BROKEN;
    out->answer = answer_cut(&reader->rows->arena, text);
    return ROW_GOOD;
}

static enum RowFate row_take(Reader *reader, const json_t *row, long line, Problem *out, Err *err) {
    if (!json_is_object(row)) return err_set(err, "not a JSON object"), ROW_BROKEN;
    Arena *arena = &reader->rows->arena;
    enum RowFate fate = problem_take(reader, row, out, err);
    if (fate == ROW_GOOD) fate = answer_take(reader, row, out, err);
    if (fate != ROW_GOOD) return fate;
    const json_t *id = json_object_get(row, "id");
    out->id = id ? scalar_text(arena, id) : NULL;
    if (!out->id || !*out->id) out->id = arena_format(arena, "line-%ld", line);
    const json_t *kind = json_object_get(row, "kind");
    out->kind = json_is_string(kind) ? scalar_text(arena, kind) : "";
    return ROW_GOOD;
}

static void row_keep(Reader *reader, Problem problem) {
    Rows *rows = reader->rows;
    if (rows->n == reader->room) {
        reader->room = reader->room ? 2 * reader->room : 256;
        rows->rows = mem_grow(rows->rows, (size_t)reader->room, sizeof *rows->rows);
    }
    rows->rows[rows->n++] = problem;
}

static bool row_skip(Reader *reader, long line, const char *why, Err *err) {
    Rows *rows = reader->rows;
    long limit = reader->conf->max_skipped ? reader->conf->max_skipped : 100;
    if (!rows->skipped++ && reader->conf->n_files)
        rows->note = arena_format(&rows->arena, "%s, line %ld: %s", reader->name, line, why);
    else if (rows->skipped == 1)
        rows->note = arena_format(&rows->arena, "line %ld: %s", line, why);
    if (rows->skipped <= limit) return true;
    return err_set(err, "%s: more than %ld broken rows, the first in %s", reader->name, limit, rows->note);
}

static bool line_read(Reader *reader, const char *text, size_t n, long line, Err *err) {
    if (strspn(text, " \t\r") == n) return true; /* blank lines are no rows */
    Err why = {0};
    json_error_t bad;
    enum RowFate fate = ROW_BROKEN;
    Problem problem = {0};
    json_t *row = json_loadb(text, n, 0, &bad);
    if (row)
        fate = row_take(reader, row, line, &problem, &why);
    else
        err_set(&why, "not JSON (column %d: %s)", bad.column, bad.text);
    json_decref(row);
    if (fate == ROW_BROKEN) return row_skip(reader, line, why.msg, err);
    problem.fields = arena_text(&reader->rows->arena, text, n);
    row_keep(reader, problem);
    return true;
}

typedef struct {
    const char *id;
    long row;
} IdPlace;

static int id_order(const void *a, const void *b) {
    const IdPlace *x = a, *y = b;
    int order = strcmp(x->id, y->id);
    return order ? order : (x->row > y->row) - (x->row < y->row);
}

/* Ids are unique inside a source: rows that repeat one get their place added. */
static void ids_part(Rows *rows) {
    IdPlace *places = MEM_ARRAY(IdPlace, rows->n);
    for (bool again = true; again;) {
        again = false;
        for (long i = 0; i < rows->n; i++) places[i] = (IdPlace){rows->rows[i].id, i};
        qsort(places, (size_t)rows->n, sizeof *places, id_order);
        for (long i = 1; i < rows->n; i++) {
            if (strcmp(places[i].id, places[i - 1].id) != 0) continue;
            Problem *row = &rows->rows[places[i].row];
            row->id = arena_format(&rows->arena, "%s@%ld", row->id, places[i].row + 1);
            again = true;
        }
    }
    free(places);
}

/* Adds the rows of a file, whose columns are its own. */
static bool file_read(Reader *reader, const char *name, Err *err) {
    const SourceConf *conf = reader->conf;
    Lines *lines = lines_open(name, err);
    const char *slash = strchr(name, '/'), *text;
    if (!lines && access(name, F_OK) != 0 && slash > name && !strchr(slash + 1, '/') && !strstr(slash, ".json"))
        return err_set(err,
                       "%s: there is no such file; a data set on a hub must lie here as JSON lines: save it with "
                       "datasets' load_dataset(...).to_json(\"FILE.jsonl\") and name that",
                       name);
    if (!lines) return false;
    reader->name = name, reader->problem_key = conf->problem_key, reader->answer_key = conf->answer_key;
    long before = reader->rows->n;
    size_t n;
    Err failed = {0};
    while ((!conf->max_problems || reader->rows->n < conf->max_problems) &&
           (text = lines_next(lines, &n, &failed)))
        if (!line_read(reader, text, n, lines_number(lines), &failed)) break;
    bool empty = !lines_number(lines), full = conf->max_problems && reader->rows->n >= conf->max_problems;
    lines_close(lines);
    if (failed.msg[0]) return err_set(err, "%s", failed.msg);
    if (reader->rows->n > before || full) return true;
    const char *note = reader->rows->note;
    return empty ? err_set(err, "%s is empty", name)
                 : err_set(err, "%s holds no problems%s%s", name, note ? "; " : "", note ? note : "");
}

bool rows_read(Rows *rows, const SourceConf *conf, Err *err) {
    *rows = (Rows){0};
    Reader reader = {.conf = conf, .rows = rows};
    bool good = true;
    for (int i = 0; good && i < (conf->n_files ? conf->n_files : 1); i++)
        good = file_read(&reader, conf->n_files ? conf->files[i] : conf->name, err);
    if (!good) {
        rows_free(rows);
        return false;
    }
    if (rows->skipped)
        rows->note = arena_format(&rows->arena, "%s: skipped %ld broken row%s, the first in %s", conf->name,
                                  rows->skipped, rows->skipped > 1 ? "s" : "", rows->note);
    ids_part(rows);
    return true;
}

void rows_free(Rows *rows) {
    arena_free(&rows->arena);
    free(rows->rows);
    *rows = (Rows){0};
}
