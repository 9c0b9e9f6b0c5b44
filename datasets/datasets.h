/* datasets.h: the room of problems and text records.
 *
 * Knows: JSON lines (plain or gzip), the columns in which data sets keep problems and answers, seeded generators,
 * prompt templates. Must never know: tokens, models, rewards, the store.
 * Structs: Problem (one problem), Source (an open supply of problems in a fixed order), Span (a piece of a
 * prompt). Ownership: problems and their strings belong to the Source; spans are views into their template and
 * problem.
 * Tested by tests/test_datasets_*.c.
 *
 * JSON itself is jansson's; this room adds lines, limits and the order of problems.
 */
#ifndef WHET_DATASETS_H
#define WHET_DATASETS_H

#include "kernels/base.h"

/* ---- lines: a text file, plain or gzip, line by line -------------------------------------------------------- */

typedef struct Lines Lines;
Lines *lines_open(const char *path, Err *err); /* "-" is standard input */
/* The next line without its end, valid until the next call; NULL at the end of the file, or with err->msg set. A
 * line longer than 64 MiB is an error; NUL bytes inside a line are kept (*n counts them). */
const char *lines_next(Lines *lines, size_t *n, Err *err);
long lines_number(const Lines *lines); /* 1 for the first line */
void lines_close(Lines *lines);

/* ---- problems ----------------------------------------------------------------------------------------------- */

typedef struct {
    const char *id;   /* the row's "id" or the place in the file; unique inside its source */
    const char *kind; /* the row's "kind" or the generator's name; "" when there is none */
    const char
        *problem; /* a text; or a conversation: the JSON list of its messages, [{"role":"system","content":...} */
    const char *answer; /* the expected answer (for GSM8K the text after ####); NULL when the row has none */
    const char *fields; /* the whole row as the text of a JSON object; NULL for generated problems */
} Problem;

/* Where problems come from. Zero-initialise; empty fields take the defaults. */
typedef struct {
    const char *name; /* a file (.jsonl, .jsonl.gz), or "generate:SPEC", see below */
    const char *const
        *files; /* or several files, as one after the other; `name` is then only what they are called */
    int n_files;
    const char *problem_key; /* default: the first of problem, question, prompt, messages that the first good row
                                has; its value is a text or a list of chat messages: answers after the last user's
                                message are left out, and a user's message alone is a text */
    const char *answer_key;  /* default: the first of answer, solution; a row's "####" is cut at */
    uint64_t seed;           /* of the order, and of what a generator draws */
    bool shuffle;            /* files: a new order each epoch, a function of seed and epoch */
    bool held_out;           /* generators: the held-out part instead of the training part */
    long max_problems;       /* 0: all; else the first so many (what a generator draws from stays whole) */
    long max_skipped;        /* broken rows borne before the file is refused; 0 means 100 */
} SourceConf;

/* SPEC is KIND[:key=value]... joined by "+", each kind drawn equally often:
 *   sums:min=2:max=20            "What is 7 + 8?"
 *   differences:min=2:max=20     "What is 8 - 7?"           (never below zero)
 *   products:min=2:max=12        "What is 3 times 11?"
 *   chains:terms=3:min=2:max=20  "What is 7 + 8 - 3?"       (no step below zero)
 * and, for every kind, held=A,B,M: a problem whose numbers a, b satisfy (A min(a,b) + B max(a,b)) mod M = 0 is
 * held out, in both orders, for every seed alike (chains: a hash of the numbers takes the place of the sum).
 * Training draws never contain a held-out problem, by construction. A kind with more than a million combinations
 * is not listed: its training part counts as all of them, its held-out part is one sample of 1,000. */
typedef struct Source Source;
Source *source_open(const SourceConf *conf, Err *err);
/* Problems in one epoch: the rows of a file, the distinct problems of a generator's part (or max_problems). */
long source_size(const Source *source);
/* The problem at a place of the endless order (place / size is the epoch; generators draw by place). The same
 * place gives the same problem for the same conf, whatever was asked before. The held-out part of a generator and
 * a file that is not shuffled are walked in one fixed order. */
const Problem *source_at(Source *source, uint64_t place);
long source_skipped(const Source *source);             /* broken rows that were skipped */
const char *source_skipped_note(const Source *source); /* one line that names the first of them, or NULL */
void source_close(Source *source);

/* ---- templates ---------------------------------------------------------------------------------------------- */

typedef struct {
    const char *text;
    size_t n;
    bool special; /* control tokens may be recognised in it: true for the template's text, not for a problem's */
} Span;

enum { TEMPLATE_SPANS_MAX = 16 };
/* Cuts a plain-text template at each "{problem}" and puts the problem there. Returns the number of spans, or -1
 * and err when the template lacks {problem} or has too many. */
int template_render(Span spans[TEMPLATE_SPANS_MAX], const char *template_text, const char *problem, Err *err);

#endif
