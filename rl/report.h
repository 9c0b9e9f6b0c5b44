/* report.h: what a person sees of a run: a line per step, the summary at its end, and metrics.jsonl for programs.
 *
 * Knows: numbers of a step, answers before and after. Must never know: how they came about.
 * Structs: Report (the lines on a terminal or in a log), MetricsFile (metrics.jsonl).
 * Ownership: each _open has its _close. Tested by tests/test_rl_report.c.
 */
#ifndef WHET_RL_REPORT_H
#define WHET_RL_REPORT_H

#include <stdio.h>

#include "kernels/base.h"
#include "rl/store.h"

/* ---- small helpers ------------------------------------------------------------------------------------------ */

/* Wilson's 95 % interval of a share of `right` among n; 0 and 1 when n is 0. (E. B. Wilson, JASA 22, 1927.) */
void wilson_interval(double right, double n, double *low, double *high);

/* At most `width` bars of one character each, scaled from the least to the greatest value; more values than bars
 * are averaged. NaN gives a blank. */
void sparkline_add(Buf *out, const double *values, long n, int width);

void duration_add(Buf *out, double seconds); /* 42s, 3:07, 2:03:07 */

/* Text of a model on one line, fit for a terminal: blanks for line ends, no control characters, broken UTF-8
 * replaced, cut after `most` characters with "...". */
void text_line_add(Buf *out, const char *text, size_t n, int most);

/* ---- the lines of a run ------------------------------------------------------------------------------------- */

typedef struct {
    long step;
    double reward, accuracy; /* NaN when nothing could be judged */
    double length;           /* mean, tokens */
    double tokens_per_second;
    double seconds; /* of the whole step */
} ReportStep;

typedef struct Report Report;

/* `steps`: of the whole run. On a terminal, lines carry the curve of the reward, and a line that changes in place
 * says what is going on; elsewhere lines are plain and there is nothing else. */
Report *report_open(FILE *out, long steps);
Report *report_open_as(FILE *out, long steps, int columns); /* columns of the terminal; 0: it is none */
/* A step that was already there when the run was resumed: it counts for the curve and is not printed. */
void report_past(Report *report, double reward);
void report_step(Report *report, const ReportStep *step);
/* Terminals only: "sampling 37 of 64", at most ten times a second. */
void report_progress(Report *report, const char *phase, long done, long total);
void report_note(Report *report, const char *format, ...) FORMAT_LIKE(2, 3); /* any other line */
void report_close(Report *report);

/* The end of a run: accuracy before and after on unseen problems, three answers before and after, where everything
 * lies, a query to try. before and after may be NULL, when nothing was evaluated. */
void report_summary(Report *report, const StoreEval *before, const StoreEval *after, const char *output_dir,
                    const char *checkpoint);

/* ---- metrics.jsonl ------------------------------------------------------------------------------------------ */

typedef struct MetricsFile MetricsFile;

/* Opens or makes the file. Lines of steps after `last_step`, and a line that was cut off by a crash, are removed,
 * since these steps are gone through again. */
MetricsFile *metrics_open(const char *path, long last_step, Err *err);
/* Adds {"step": n, name: value, ..., "seconds": {phase: value, ...}}; a value that is not a number is null. A line
 * is whole or not there. */
bool metrics_write(MetricsFile *file, long step, const StoreNumber *metrics, int n_metrics,
                   const StoreNumber *seconds, int n_seconds, Err *err);
bool metrics_sync(MetricsFile *file, Err *err); /* what was written is on the disk */
void metrics_close(MetricsFile *file); /* NULL is fine */

#endif
