/* cmd_score.c: `whet score`: judges JSON lines from stdin and writes the same lines with their rewards.
 *
 * One line out for each line in, in order, whatever the line holds: a line that can't be judged comes back
 * unjudged with a reason. Rows wait in a window until their scores are in, so that slow judges overlap; when no
 * input is ready, everything known is flushed, so that a program may ask row by row.
 * Tested by tests/score.sh.
 */
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "reward/reward.h"
#include "rl/cmd.h"

enum { WINDOW = 2048, PARTS_MAX = 8, VERDICTS_MAX = 64 };

typedef struct {
    RewardConf conf;
    RewardShape shape;
    const char *kinds[PARTS_MAX];
    int n;
    char *names[PARTS_MAX];
    double weights[PARTS_MAX];
} Options;

typedef struct {
    char *line; /* as it came, without the newline; ours */
    size_t n;
    json_t *object; /* NULL when the line is no usable row */
    char *fault;    /* what is wrong with it then */
    char *answer;   /* text made here of an answer that is a JSON number */
    RewardItem item;
    int n_scored;
    RewardScore scores[PARTS_MAX];
} Row;

typedef struct {
    const char *verdict;
    int64_t n;
} Count;

typedef struct {
    Options options;
    Reward *reward;
    Row *rows;           /* a ring */
    int64_t first, next; /* numbers of the oldest row held and of the row to come */
    int64_t classes[3];
    double total;
    Count verdicts[VERDICTS_MAX];
    int n_verdicts;
    Buf out, scratch;
} Scorer;

/* ---- options ---- */

static const char help[] =
    "usage: whet score --reward_funcs NAME[,NAME...] [--reward_weights W[,W...]] [--reward_kinds KIND[,KIND...]]\n"
    "                  [--strict] [--explain] [OPTIONS]  < rows.jsonl > scored.jsonl\n\n"
    "Each row is a JSON object with \"completion\" and what its judges need. The row comes back with reward, "
    "class,\n"
    "verdict, reason and what the judge found. Judges, and what they need:\n"
    "  math                answer: compared as numbers and expressions (reasoning_accuracy: after </think> only)\n"
    "  countdown, game24   numbers and target: an expression that uses each number once\n"
    "  choice              answer: a letter, or one of the row's choices\n"
    "  code, code_share    tests for a program\n"
    "  format, think_format, tag_count, reasoning_steps   nothing: R1's tags, TRL's, open-r1's; marks of steps\n"
    "  soft_overlong, cosine   n_tokens: DAPO's penalty; right answers are worth more the shorter they are\n"
    "  repetition          nothing: repeated groups of words\n"
    "  language            nothing (lang): share of the thought's words in a language, told by its script\n"
    "  exec:COMMAND        a program of your own that answers JSON lines (README.md has one)\n"
    "  --reward_kinds      for each judge, a pattern of the rows' \"kind\" that it judges; empty: all\n"
    "  --strict    math: only the last \\boxed{} of the completion counts\n"
    "  --explain   how the judges came to their verdicts\n"
    "  --max_completion_len N --soft_punish_cache N   soft_overlong (1280, 256)\n"
    "  --cosine_max_len N --cosine_{min,max}_value_{wrong,correct} X   cosine (1000; -1, -0.5, 0.5, 1)\n"
    "  --repetition_n_grams N --repetition_max_penalty X   repetition (3, -1)\n"
    "  --reward_language L   language (en)\n"
    "  --allow_weak_sandbox --workers N   code\n"
    "  --reward_exec_workers N --reward_exec_parallel N --reward_exec_deadline SECONDS   exec\n";

/* A plain decimal number, whatever the locale. */
static double number_read(const char *text, char **end) {
    double value = 0, unit = 1;
    bool negative = *text == '-';
    const char *p = text + negative, *start = p;
    for (; *p >= '0' && *p <= '9'; p++) value = 10 * value + (*p - '0');
    if (*p == '.')
        for (p++; *p >= '0' && *p <= '9'; p++) value += (unit /= 10) * (*p - '0');
    *end = (char *)(p - start > (*start == '.') ? p : text);
    return negative ? -value : value;
}

/* Patterns apart by commas, one for each judge; an empty one is for all problems. */
static void kinds_read(Options *options, const char *list) {
    const char *p = list;
    for (int i = 0; i < options->n; i++) {
        size_t n = strcspn(p, ",");
        options->kinds[i] = mem_text_n(p, n);
        p += n;
        if (*p != (i + 1 < options->n ? ',' : 0))
            die("--reward_kinds %s: asked are %d patterns, separated by commas", list, options->n);
        p++;
    }
    options->conf.kinds = options->kinds;
}

static void names_read(Options *options, const char *list) {
    for (const char *p = list;; p++) {
        size_t n = strcspn(p, ",");
        if (!n) die("--reward_funcs %s: an empty name", list);
        if (options->n == PARTS_MAX) die("--reward_funcs: at most %d", PARTS_MAX);
        options->names[options->n++] = mem_text_n(p, n);
        p += n;
        if (!*p) return;
    }
}

static void weights_read(Options *options, const char *list) {
    const char *p = list;
    for (int i = 0; i < options->n; i++) {
        char *end;
        options->weights[i] = number_read(p, &end);
        if (end == p || *end != (i + 1 < options->n ? ',' : 0))
            die("--reward_weights %s: asked are %d numbers, separated by commas", list, options->n);
        p = end + 1;
    }
}

/* Options are written --name value or --name=value, with - or _ between words. */
static const char *option_is(const char *arg, const char *name) {
    if (arg[0] != '-' || arg[1] != '-') return NULL;
    const char *p = arg + 2;
    for (; *name; p++, name++)
        if (*p != *name && !(*p == '-' && *name == '_')) return NULL;
    return *p == 0 || *p == '=' ? p : NULL;
}

static const char *option_value(int argc, char **argv, int *i, const char *after) {
    if (*after == '=') return after + 1;
    if (*i + 1 >= argc) die("%s needs a value", argv[*i]);
    return argv[++*i];
}

/* The options of judges of shape: names as in recipes. */
static bool shape_read(Options *options, int argc, char **argv, int *i) {
    RewardShape *s = &options->shape;
    struct {
        const char *name;
        long *whole;
        double *number;
    } all[] = {{"max_completion_len", &s->overlong_max, NULL},
               {"soft_punish_cache", &s->overlong_cache, NULL},
               {"cosine_max_len", &s->cosine_max, NULL},
               {"cosine_min_value_wrong", NULL, &s->cosine_min_wrong},
               {"cosine_max_value_wrong", NULL, &s->cosine_max_wrong},
               {"cosine_min_value_correct", NULL, &s->cosine_min_correct},
               {"cosine_max_value_correct", NULL, &s->cosine_max_correct},
               {"repetition_n_grams", &s->repetition_n, NULL},
               {"repetition_max_penalty", NULL, &s->repetition_penalty}};
    const char *after;
    if ((after = option_is(argv[*i], "reward_language"))) {
        s->language = option_value(argc, argv, i, after);
        return true;
    }
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        if (!(after = option_is(argv[*i], all[k].name))) continue;
        char *end;
        const char *text = option_value(argc, argv, i, after);
        double value = number_read(text, &end);
        if (end == text || *end || (all[k].whole && (value < 1 || value > 1e9)))
            die("--%s %s: it must be %s", all[k].name, text, all[k].whole ? "a whole number from 1" : "a number");
        if (all[k].whole)
            *all[k].whole = (long)value;
        else
            *all[k].number = value;
        return true;
    }
    return false;
}

static void options_read(Options *options, int argc, char **argv) {
    const char *weights = NULL, *asked = NULL, *after;
    options->shape = reward_shape_default;
    options->conf.shape = &options->shape;
    for (int i = 1; i < argc; i++) {
        if ((after = option_is(argv[i], "reward_funcs")))
            names_read(options, option_value(argc, argv, &i, after));
        else if ((after = option_is(argv[i], "reward_weights")))
            weights = option_value(argc, argv, &i, after);
        else if ((after = option_is(argv[i], "reward_kinds")))
            asked = option_value(argc, argv, &i, after);
        else if (shape_read(options, argc, argv, &i))
            continue;
        else if ((after = option_is(argv[i], "workers")))
            options->conf.workers = atoi(option_value(argc, argv, &i, after));
        else if ((after = option_is(argv[i], "reward_exec_workers")))
            options->conf.exec_workers = atoi(option_value(argc, argv, &i, after));
        else if ((after = option_is(argv[i], "reward_exec_parallel")))
            options->conf.exec_parallel = atoi(option_value(argc, argv, &i, after));
        else if ((after = option_is(argv[i], "reward_exec_deadline")))
            options->conf.exec_deadline = number_read(option_value(argc, argv, &i, after), &(char *){NULL});
        else if (option_is(argv[i], "strict"))
            options->conf.strict = true;
        else if (option_is(argv[i], "explain"))
            options->conf.explain = true;
        else if (option_is(argv[i], "allow_weak_sandbox"))
            options->conf.allow_weak_sandbox = true;
        else if (option_is(argv[i], "help")) {
            fputs(help, stdout);
            exit(0);
        } else
            die("score: unknown option \"%s\"; `whet score --help` lists them", argv[i]);
    }
    if (!options->n) die("score: --reward_funcs is needed, for example --reward_funcs math");
    for (int i = 0; i < options->n; i++) options->weights[i] = 1;
    if (weights) weights_read(options, weights);
    if (asked) kinds_read(options, asked);
}

/* ---- rows ---- */

static const char *text_of(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

/* A text that a C string can hold: NUL characters become spaces. */
static const char *text_whole(json_t *object, const char *key) {
    json_t *value = json_object_get(object, key);
    size_t n = json_string_length(value);
    const char *text = json_string_value(value);
    if (!text || strlen(text) == n) return text;
    char *copy = mem_text_n(text, n);
    for (size_t i = 0; i < n; i++)
        if (!copy[i]) copy[i] = ' ';
    json_object_set_new(object, key, json_string(copy));
    free(copy);
    return text_of(object, key);
}

/* The length of the UTF-8 sequence at p, or 0 when it is none. */
static size_t utf8_length(const unsigned char *p, size_t left) {
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if (n > left) return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    bool odd = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
               (p[0] == 0xf4 && p[1] > 0x8f);
    return odd ? 0 : n;
}

/* The code unit of "\uXXXX" at p, or -1. */
static int escape_unit(const char *p, size_t left) {
    if (left < 6 || p[0] != '\\' || p[1] != 'u') return -1;
    int unit = 0;
    for (int i = 2; i < 6; i++) {
        if (!p[i] || !strchr("0123456789abcdefABCDEF", p[i])) return -1;
        unit = 16 * unit + (p[i] <= '9' ? p[i] - '0' : (p[i] | 32) - 'a' + 10);
    }
    return unit;
}

/* A line with bytes that are no UTF-8, and with halves of surrogate pairs, as models write them: each becomes the
 * replacement character, so that the row can still be judged. */
static void line_mend(Row *row) {
    Buf buf = {0};
    for (size_t i = 0, n; i < row->n; i += n) {
        const char *p = row->line + i;
        int unit = escape_unit(p, row->n - i);
        n = utf8_length((const unsigned char *)p, row->n - i);
        if (n == 0) {
            n = 1;
            buf_text(&buf, "\xef\xbf\xbd");
        } else if (unit >= 0xd800 && unit <= 0xdfff) {
            int next = escape_unit(p + 6, row->n - i - 6);
            bool pair = unit < 0xdc00 && next >= 0xdc00 && next <= 0xdfff;
            n = pair ? 12 : 6;
            buf_add(&buf, pair ? p : "\\ufffd", n);
        } else {
            if (*p == '\\' && i + 1 < row->n && (unsigned char)p[1] < 0x80) n = 2;
            buf_add(&buf, p, n);
        }
    }
    free(row->line);
    row->line = buf.p ? buf.p : mem_text("");
    row->n = buf.n;
}

static void row_parse(Row *row, int64_t number) {
    json_error_t error;
    row->object = json_loadb(row->line, row->n, JSON_ALLOW_NUL, &error);
    if (!row->object) {
        line_mend(row);
        row->object = json_loadb(row->line, row->n, JSON_ALLOW_NUL, NULL);
    }
    if (row->object && !json_is_object(row->object)) {
        json_decref(row->object);
        row->object = NULL;
        strcpy(error.text, "not a JSON object");
    }
    Buf fault = {0};
    if (!row->object) {
        buf_format(&fault, "line %lld: %s", (long long)number + 1, error.text);
    } else if (!json_is_string(json_object_get(row->object, "completion"))) {
        buf_format(&fault, "line %lld: no text \"completion\"", (long long)number + 1);
    }
    row->fault = fault.p;
    if (row->fault) return;
    json_t *answer = json_object_get(row->object, "answer");
    if (json_is_number(answer)) row->answer = json_dumps(answer, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    row->item = (RewardItem){
        .problem = text_whole(row->object, "problem"),
        .kind = text_whole(row->object, "kind"),
        .prompt = text_whole(row->object, "prompt"),
        .completion = text_whole(row->object, "completion"),
        .answer = row->answer ? row->answer : text_whole(row->object, "answer"),
        .fields = row->line,
        .group = number,
        .n_tokens = (int)json_integer_value(json_object_get(row->object, "n_tokens")),
        .finish = text_whole(row->object, "finish"),
    };
}

static void row_free(Row *row, int parts) {
    for (int p = 0; p < parts; p++) reward_score_free(&row->scores[p]);
    json_decref(row->object);
    free(row->line);
    free(row->fault);
    free(row->answer);
}

/* ---- output ---- */

static void field_text(Buf *buf, const char *key, const char *text) {
    json_t *value = json_string(text ? text : "");
    char *quoted = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    buf_format(buf, ",\"%s\":", key);
    buf_text(buf, quoted ? quoted : "\"\"");
    free(quoted);
    json_decref(value);
}

static void field_number(Buf *buf, const char *key, double value) {
    json_t *number = value == (double)(int64_t)value ? json_integer((json_int_t)value) : json_real(value);
    char *text = json_dumps(number, JSON_ENCODE_ANY | JSON_REAL_PRECISION(12));
    buf_format(buf, ",\"%s\":", key);
    buf_text(buf, text);
    free(text);
    json_decref(number);
}

/* The fields of one score, each with a comma before it. */
static void score_fields(Buf *buf, const RewardScore *score) {
    buf_format(buf, ",\"class\":\"%s\",\"verdict\":\"%s\"", score_class_name(score->class), score->verdict);
    field_text(buf, "reason", score->reason);
    size_t n = score->detail ? strlen(score->detail) : 0;
    if (n > 2) {
        buf_char(buf, ',');
        buf_add(buf, score->detail + 1, n - 2);
    }
}

static void reward_field(Buf *buf, double value) {
    if (value != value)
        buf_text(buf, ",\"reward\":null");
    else
        field_number(buf, "reward", value);
}

/* The weighted sum of the parts; unjudged where a part that counts is unjudged. Its class is the worst one. */
static double row_reward(const Scorer *scorer, const Row *row, ScoreClass *class) {
    double sum = 0;
    bool asked = false;
    *class = SCORE_RIGHT;
    for (int p = 0; p < scorer->options.n; p++) {
        const RewardScore *score = &row->scores[p];
        if (!reward_asked(score)) continue;
        asked = true;
        if (score->class > *class) *class = score->class;
        if (score->class == SCORE_UNJUDGED && scorer->options.weights[p] != 0)
            sum = (double)__builtin_nanf("");
        else if (score->class != SCORE_UNJUDGED)
            sum += scorer->options.weights[p] * score->value;
    }
    if (!asked) *class = SCORE_UNJUDGED, sum = (double)__builtin_nanf("");
    return sum;
}

/* The part whose verdict is the row's. */
static const RewardScore *first_asked(const Scorer *scorer, const Row *row) {
    for (int p = 0; p < scorer->options.n; p++)
        if (reward_asked(&row->scores[p])) return &row->scores[p];
    return &row->scores[0];
}

static void row_fields(Scorer *scorer, Row *row, Buf *buf) {
    const Options *options = &scorer->options;
    if (row->fault) {
        buf_text(buf, ",\"reward\":null,\"class\":\"unjudged\",\"verdict\":\"bad-row\"");
        field_text(buf, "reason", row->fault);
        return;
    }
    ScoreClass class;
    double value = row_reward(scorer, row, &class);
    reward_field(buf, value);
    RewardScore first = *first_asked(scorer, row);
    first.class = class;
    score_fields(buf, &first);
    if (options->n == 1) return;
    buf_text(buf, ",\"parts\":{");
    for (int p = 0; p < options->n; p++) {
        const RewardScore *score = &row->scores[p];
        buf_format(buf, "%s\"%s\":{", p ? "," : "", options->names[p]);
        size_t at = buf->n;
        reward_field(buf, score->class == SCORE_UNJUDGED ? (double)__builtin_nanf("") : score->value);
        score_fields(buf, score);
        memmove(buf->p + at, buf->p + at + 1, buf->n - at); /* the first comma */
        buf->n--;
        buf_char(buf, '}');
    }
    buf_char(buf, '}');
}

/* A row that already has a field which we write loses it: then the line is made anew, else it stays as it came. */
static void row_clash(Row *row, const char *fields) {
    json_t *ours = json_loads(fields, JSON_ALLOW_NUL, NULL), *value;
    const char *key;
    bool clash = false;
    json_object_foreach(ours, key, value) clash |= json_object_del(row->object, key) == 0;
    json_decref(ours);
    if (!clash) return;
    free(row->line);
    row->line = json_dumps(row->object, JSON_COMPACT);
    row->n = strlen(row->line);
}

static bool field_maybe(const Row *row) {
    static const char *const common[] = {"reward", "class",       "verdict",   "reason",    "extracted",
                                         "found",  "answer_form", "gold_form", "parts",     "results",
                                         "passed", "seconds",     "bytes",     "peak_bytes"};
    for (size_t i = 0; i < sizeof common / sizeof common[0]; i++)
        if (json_object_get(row->object, common[i])) return true;
    return false;
}

static void verdict_count(Scorer *scorer, const char *verdict) {
    int i = 0;
    while (i < scorer->n_verdicts && strcmp(scorer->verdicts[i].verdict, verdict)) i++;
    if (i == VERDICTS_MAX) return;
    if (i == scorer->n_verdicts) scorer->verdicts[scorer->n_verdicts++].verdict = verdict;
    scorer->verdicts[i].n++;
}

static void row_count(Scorer *scorer, const Row *row) {
    ScoreClass class = SCORE_UNJUDGED;
    double value = row->fault ? (double)__builtin_nanf("") : row_reward(scorer, row, &class);
    scorer->classes[class]++;
    if (value == value) scorer->total += value;
    verdict_count(scorer, row->fault ? "bad-row" : first_asked(scorer, row)->verdict);
}

static void row_write(Scorer *scorer, Row *row) {
    Buf *buf = &scorer->scratch;
    buf_clear(buf);
    buf_char(buf, '{');
    row_fields(scorer, row, buf);
    if (row->object && !row->fault && field_maybe(row)) {
        buf->p[1] = ' '; /* the fields' first comma */
        buf_char(buf, '}');
        row_clash(row, buf->p);
        buf->p[--buf->n] = 0;
        buf->p[1] = ',';
    }
    if (row->object) {
        while (row->n && row->line[row->n - 1] != '}') row->n--;
        row->n--;
        while (row->n && strchr(" \t\r", row->line[row->n - 1])) row->n--;
        buf_add(&scorer->out, row->line, row->n);
        bool empty = row->n && row->line[row->n - 1] == '{';
        buf_add(&scorer->out, buf->p + 1 + empty, buf->n - 1 - empty);
    } else {
        buf_char(&scorer->out, '{');
        buf_add(&scorer->out, buf->p + 2, buf->n - 2);
    }
    buf_text(&scorer->out, "}\n");
    row_count(scorer, row);
}

static void out_flush(Scorer *scorer) {
    if (scorer->out.n && fwrite(scorer->out.p, 1, scorer->out.n, stdout) != scorer->out.n)
        die("score: stdout: %s", strerror(errno));
    if (fflush(stdout)) die("score: stdout: %s", strerror(errno));
    buf_clear(&scorer->out);
}

/* ---- the window ---- */

static bool row_done(const Scorer *scorer, const Row *row) {
    return row->fault || row->n_scored == scorer->options.n;
}

static void window_write(Scorer *scorer) {
    while (scorer->first < scorer->next) {
        Row *row = &scorer->rows[scorer->first % WINDOW];
        if (!row_done(scorer, row)) break;
        row_write(scorer, row);
        row_free(row, scorer->options.n);
        scorer->first++;
    }
    if (scorer->out.n > 1 << 16) out_flush(scorer);
}

/* Takes the scores that are ready; waits up to `seconds` for the first. False when none came. */
static bool scores_take(Scorer *scorer, double seconds) {
    Err err;
    int64_t ticket;
    int part, got;
    RewardScore score;
    bool any = false;
    while ((got = reward_poll(scorer->reward, any ? 0 : seconds, &ticket, &part, &score, &err)) > 0) {
        Row *row = &scorer->rows[ticket % WINDOW];
        row->scores[part] = score;
        row->n_scored++;
        any = true;
    }
    if (got < 0) die("%s", err.msg);
    window_write(scorer);
    return any;
}

static void window_drain(Scorer *scorer, int64_t until) {
    while (scorer->first < until) {
        scores_take(scorer, 1.0);
        window_write(scorer);
    }
}

static void line_submit(Scorer *scorer, const char *line, size_t n) {
    if (scorer->next - scorer->first == WINDOW) window_drain(scorer, scorer->first + 1);
    Row *row = &scorer->rows[scorer->next % WINDOW];
    *row = (Row){.line = mem_text_n(line, n), .n = n};
    row_parse(row, scorer->next);
    Err err;
    if (!row->fault && !reward_submit(scorer->reward, &row->item, 1, scorer->next, &err)) die("%s", err.msg);
    scorer->next++;
    scores_take(scorer, 0);
}

static bool input_ready(void) {
    struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&fd, 1, 0) > 0;
}

static void input_read(Scorer *scorer) {
    size_t room = 1 << 20, n = 0;
    char *bytes = mem_alloc(room, 1);
    for (;;) {
        if (!input_ready()) {
            window_drain(scorer, scorer->next);
            out_flush(scorer);
        }
        if (n == room) bytes = mem_grow(bytes, room *= 2, 1);
        ssize_t got = read(STDIN_FILENO, bytes + n, room - n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) die("score: stdin: %s", strerror(errno));
        if (got == 0) break;
        n += (size_t)got;
        size_t at = 0;
        for (char *end; (end = memchr(bytes + at, '\n', n - at)); at = (size_t)(end - bytes) + 1)
            line_submit(scorer, bytes + at, (size_t)(end - bytes) - at);
        memmove(bytes, bytes + at, n -= at);
    }
    if (n) line_submit(scorer, bytes, n);
    free(bytes);
    window_drain(scorer, scorer->next);
    out_flush(scorer);
}

static void summary_print(const Scorer *scorer, double seconds) {
    const int64_t *c = scorer->classes;
    int64_t judged = c[SCORE_RIGHT] + c[SCORE_WRONG];
    fprintf(stderr,
            "score: %lld rows: %lld right, %lld wrong, %lld unjudged; mean reward %.4f; %.2f s, %.0f rows/s\n",
            (long long)scorer->next, (long long)c[SCORE_RIGHT], (long long)c[SCORE_WRONG],
            (long long)c[SCORE_UNJUDGED], judged ? scorer->total / (double)judged : 0.0, seconds,
            (double)scorer->next / (seconds > 0 ? seconds : 1e-9));
    for (int i = 0; i < scorer->n_verdicts; i++)
        fprintf(stderr, "  %-20s %lld\n", scorer->verdicts[i].verdict, (long long)scorer->verdicts[i].n);
}

int cmd_score(int argc, char **argv) {
    Scorer scorer = {0};
    options_read(&scorer.options, argc, argv);
    Err err;
    scorer.reward =
        reward_open((const char *const *)scorer.options.names, scorer.options.n, &scorer.options.conf, &err);
    if (!scorer.reward) die("%s", err.msg);
    scorer.rows = MEM_ARRAY(Row, WINDOW);
    double start = clock_seconds();
    input_read(&scorer);
    summary_print(&scorer, clock_seconds() - start);
    reward_close(scorer.reward);
    for (int i = 0; i < scorer.options.n; i++) free(scorer.options.names[i]);
    free(scorer.rows);
    buf_free(&scorer.out);
    buf_free(&scorer.scratch);
    return 0;
}
