/* report.c: the lines of a run, for a person. Not here: metrics.jsonl (metrics.c), where the numbers come from.
 * Tested by tests/test_rl_report.c. */
#include "rl/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <utf8proc.h>

enum { RECENT = 8, ANSWERS = 3 };

/* ---- small helpers ------------------------------------------------------------------------------------------ */

void wilson_interval(double right, double n, double *low, double *high) {
    const double z = 1.959963984540054; /* the normal distribution's 97.5 % point */
    *low = 0;
    *high = 1;
    if (!(n > 0)) return;
    double p = right / n, z2 = z * z / n, middle = p + z2 / 2;
    double half = z * sqrt(p * (1 - p) / n + z2 / (4 * n));
    *low = fmax(0, (middle - half) / (1 + z2));
    *high = fmin(1, (middle + half) / (1 + z2));
}

/* Mean of what is a number in values[first .. end-1]; NaN when nothing is. */
static double mean_of(const double *values, long first, long end) {
    double sum = 0;
    long n = 0;
    for (long i = first; i < end; i++) {
        if (isnan(values[i])) continue;
        sum += values[i];
        n++;
    }
    return n > 0 ? sum / (double)n : NAN;
}

void sparkline_add(Buf *out, const double *values, long n, int width) {
    static const char *const bars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    long cells = n < width ? n : width;
    double least = INFINITY, most = -INFINITY;
    for (long pass = 0; pass < 2; pass++) {
        for (long c = 0; c < cells; c++) {
            double value = mean_of(values, c * n / cells, (c + 1) * n / cells);
            if (pass == 0) {
                least = fmin(least, value);
                most = fmax(most, value);
            } else if (isnan(value)) {
                buf_char(out, ' ');
            } else {
                double height = most > least ? (value - least) / (most - least) : 0;
                buf_text(out, bars[(int)lround(height * 7)]);
            }
        }
    }
}

void duration_add(Buf *out, double seconds) {
    if (!(seconds >= 0 && seconds < 1e9)) {
        buf_text(out, "?");
        return;
    }
    long s = lround(seconds);
    if (s < 60) {
        buf_format(out, "%lds", s);
    } else if (s < 3600) {
        buf_format(out, "%ld:%02ld", s / 60, s % 60);
    } else {
        buf_format(out, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    }
}

void text_line_add(Buf *out, const char *text, size_t n, int most) {
    size_t at = 0;
    while (at < n && (text[at] == ' ' || text[at] == '\n')) at++;
    for (int shown = 0; at < n; shown++) {
        if (shown == most) {
            buf_text(out, "...");
            return;
        }
        utf8proc_int32_t c;
        utf8proc_ssize_t took =
            utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(n - at), &c);
        utf8proc_category_t kind = took > 0 ? utf8proc_category(c) : UTF8PROC_CATEGORY_CN;
        if (took <= 0) {
            buf_text(out, "\xef\xbf\xbd"); /* U+FFFD */
            took = 1;
        } else if (c == '\n' || c == '\t' || c == '\r') {
            buf_char(out, ' ');
        } else if (kind != UTF8PROC_CATEGORY_CC && kind != UTF8PROC_CATEGORY_CF) {
            buf_add(out, text + at, (size_t)took);
        }
        at += (size_t)took;
    }
}

/* ---- the lines of a run ------------------------------------------------------------------------------------- */

struct Report {
    FILE *out;
    int columns;  /* of the terminal; 0: it is none */
    bool passing; /* a line that changes in place is on the screen */
    double passed_at;
    long steps;
    double *rewards; /* of all steps so far: the curve */
    long n, room;
    double seconds[RECENT]; /* of the last steps, for the time that is left */
    long timed;
    Buf line;
};

static int terminal_columns(FILE *out) {
    const char *term = getenv("TERM");
    struct winsize size = {0};
    if (!isatty(fileno(out)) || (term && strcmp(term, "dumb") == 0)) return 0;
    return ioctl(fileno(out), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

Report *report_open(FILE *out, long steps) { return report_open_as(out, steps, terminal_columns(out)); }

Report *report_open_as(FILE *out, long steps, int columns) {
    Report *report = MEM_NEW(Report);
    report->out = out;
    report->steps = steps;
    report->columns = columns;
    return report;
}

void report_past(Report *report, double reward) {
    if (report->n == report->room) {
        report->room = report->room > 0 ? 2 * report->room : 64;
        report->rewards = mem_grow(report->rewards, (size_t)report->room, sizeof(double));
    }
    report->rewards[report->n++] = reward;
}

/* Takes the passing line away, so that a lasting one can stand in its place. */
static void passing_clear(Report *report) {
    if (report->passing) fputs("\r\033[K", report->out);
    report->passing = false;
}

static void line_print(Report *report) {
    passing_clear(report);
    fprintf(report->out, "%s\n", report->line.p ? report->line.p : "");
    fflush(report->out);
}

static double seconds_left(Report *report, const ReportStep *step) {
    report->seconds[report->timed++ % RECENT] = step->seconds;
    long n = report->timed < RECENT ? report->timed : RECENT;
    return mean_of(report->seconds, 0, n) * (double)(report->steps - step->step);
}

/* A number in a column; "-" when there is none. */
static void cell_add(Buf *line, const char *before, double value, int width, int decimals, const char *after) {
    if (isnan(value)) {
        buf_format(line, "%s%*s%s", before, width, "-", after);
    } else {
        buf_format(line, "%s%*.*f%s", before, width, decimals, value, after);
    }
}

static int digits(long n) { return snprintf(NULL, 0, "%ld", n); }

/* The curve takes what the rest of the line leaves of the terminal. */
static void curve_add(Report *report) {
    int width = report->columns - 72;
    width = width < 8 ? 8 : width > 24 ? 24 : width;
    sparkline_add(&report->line, report->rewards, report->n, width);
    for (long i = report->n; i < width; i++) buf_char(&report->line, ' ');
}

void report_step(Report *report, const ReportStep *step) {
    Buf *line = &report->line;
    bool terminal = report->columns > 0;
    buf_clear(line);
    report_past(report, step->reward);
    buf_format(line, "%s%*ld/%ld", terminal ? "" : "step ", digits(report->steps), step->step, report->steps);
    cell_add(line, " reward ", step->reward, 6, 3, terminal ? " " : "");
    if (terminal) curve_add(report);
    cell_add(line, " right ", 100 * step->accuracy, 5, 1, " %");
    cell_add(line, " length ", step->length, 5, 1, "");
    cell_add(line, " ", step->tokens_per_second, 5, 0, terminal ? " tok/s" : " tokens/s ");
    if (!terminal) duration_add(line, step->seconds);
    buf_text(line, " left ");
    duration_add(line, seconds_left(report, step));
    line_print(report);
}

void report_progress(Report *report, const char *phase, long done, long total) {
    double now = clock_seconds();
    if (report->columns == 0 || (report->passing && done < total && now - report->passed_at < 0.1)) return;
    fprintf(report->out, "\r\033[K%s %ld of %ld", phase, done, total);
    fflush(report->out);
    report->passing = true;
    report->passed_at = now;
}

void report_note(Report *report, const char *format, ...) {
    va_list args;
    passing_clear(report);
    va_start(args, format);
    vfprintf(report->out, format, args);
    va_end(args);
    fputc('\n', report->out);
    fflush(report->out);
}

void report_close(Report *report) {
    if (!report) return;
    passing_clear(report);
    buf_free(&report->line);
    free(report->rewards);
    free(report);
}

/* ---- the end of a run --------------------------------------------------------------------------------------- */

static void accuracy_print(Report *report, const char *when, const StoreEval *eval) {
    report_note(report, "  %-7s %5.1f %%  (95 %% interval %.1f to %.1f, %d answers)", when, 100 * eval->accuracy,
                100 * eval->ci_low, 100 * eval->ci_high, eval->n);
}

static void answer_print(Report *report, const char *when, const StoreAnswer *answer) {
    Buf text = {0};
    text_line_add(&text, answer->text, answer->text_n, 80);
    report_note(report, "    %-7s %s  [%s]", when, text.p ? text.p : "", score_class_name(answer->class));
    buf_free(&text);
}

/* How telling a pair of answers is: learnt, changed, anything else. */
static int pair_rank(const StoreAnswer *before, const StoreAnswer *after) {
    if (before->class != SCORE_RIGHT && after->class == SCORE_RIGHT) return 0;
    bool same = before->text_n == after->text_n && memcmp(before->text, after->text, before->text_n) == 0;
    return same ? 2 : 1;
}

/* Three problems of both evaluations: those that were learnt first, in the order of the data. */
static void answers_print(Report *report, const StoreEval *before, const StoreEval *after) {
    int n = before->n_answers < after->n_answers ? before->n_answers : after->n_answers, shown = 0;
    for (int rank = 0; rank < 3; rank++) {
        for (int i = 0; i < n && shown < ANSWERS; i++) {
            const StoreAnswer *b = &before->answers[i], *a = &after->answers[i];
            if (pair_rank(b, a) != rank || strcmp(b->problem.problem, a->problem.problem) != 0) continue;
            Buf problem = {0};
            text_line_add(&problem, b->problem.problem, strlen(b->problem.problem), 100);
            report_note(report, "  %s", problem.p ? problem.p : "");
            answer_print(report, "before:", b);
            answer_print(report, "after:", a);
            buf_free(&problem);
            shown++;
        }
    }
}

void report_summary(Report *report, const StoreEval *before, const StoreEval *after, const char *output_dir,
                    const char *checkpoint) {
    if (before || after) report_note(report, "\nAccuracy on unseen problems:");
    if (before) accuracy_print(report, "before", before);
    if (after) accuracy_print(report, "after", after);
    if (before && after) {
        report_note(report, "\nThree of the answers:");
        answers_print(report, before, after);
    }
    report_note(report, "\nWhere everything lies:");
    if (checkpoint) report_note(report, "  model     %s", checkpoint);
    report_note(report, "  store     %s/run.db", output_dir);
    report_note(report, "  metrics   %s/metrics.jsonl", output_dir);
    report_note(report, "\nA question to the store (rl/schema.sql has more):");
    report_note(report,
                "  sqlite3 -box %s/run.db \"SELECT problem, asked, right_share FROM hardest_problems LIMIT 5\"",
                output_dir);
}
