/* metrics.c: metrics.jsonl, one JSON object a step. Not here: the lines for a person (report.c).
 * Tested by tests/test_rl_report.c. */
#include "rl/report.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct MetricsFile {
    int file;
    off_t end; /* of the last whole line */
    char *path;
};

/* The step of a line that is whole; -1 when it is not. */
static long line_step(const char *line, size_t n) {
    json_t *object = json_loadb(line, n, 0, NULL), *step = json_object_get(object, "step");
    long number = json_is_integer(step) ? (long)json_integer_value(step) : -1;
    json_decref(object);
    return number;
}

/* How many bytes at the beginning of the text are whole lines of steps up to the last one. */
static size_t bytes_kept(const Buf *text, long last_step) {
    size_t at = 0;
    while (at < text->n) {
        const char *end = memchr(text->p + at, '\n', text->n - at);
        if (!end) break;
        long step = line_step(text->p + at, (size_t)(end - text->p) - at);
        if (step < 0 || step > last_step) break;
        at = (size_t)(end - text->p) + 1;
    }
    return at;
}

static bool file_read(int file, Buf *text) {
    char piece[65536];
    ssize_t n;
    while ((n = read(file, piece, sizeof piece)) > 0) buf_add(text, piece, (size_t)n);
    return n == 0;
}

MetricsFile *metrics_open(const char *path, long last_step, Err *err) {
    MetricsFile *file = MEM_NEW(MetricsFile);
    Buf text = {0};
    file->path = mem_text(path);
    file->file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    bool good = file->file >= 0 && file_read(file->file, &text);
    if (good) {
        file->end = (off_t)bytes_kept(&text, last_step);
        good = ftruncate(file->file, file->end) == 0;
    }
    buf_free(&text);
    if (good) return file;
    err_set(err, "%s: cannot be written: %s", path, strerror(errno));
    metrics_close(file);
    return NULL;
}

/* The shortest decimal that reads back as the same number. */
static void number_add(Buf *out, double value) {
    if (!isfinite(value)) {
        buf_text(out, "null");
        return;
    }
    char text[32];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    buf_text(out, text);
}

static void numbers_add(Buf *out, const StoreNumber *numbers, int n, const char *before_each) {
    for (int i = 0; i < n; i++) {
        json_t *name = json_string(numbers[i].name);
        CHECK(name, "a metric's name is no UTF-8");
        char *quoted = json_dumps(name, JSON_ENCODE_ANY);
        buf_format(out, "%s%s: ", i > 0 ? ", " : before_each, quoted);
        number_add(out, numbers[i].value);
        free(quoted);
        json_decref(name);
    }
}

/* All of it, or an error. */
static bool write_at(int file, const char *bytes, size_t n, off_t at) {
    while (n > 0) {
        ssize_t wrote = pwrite(file, bytes, n, at);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return false;
        bytes += wrote;
        n -= (size_t)wrote;
        at += wrote;
    }
    return true;
}

bool metrics_write(MetricsFile *file, long step, const StoreNumber *metrics, int n_metrics,
                   const StoreNumber *seconds, int n_seconds, Err *err) {
    Buf line = {0};
    buf_format(&line, "{\"step\": %ld", step);
    numbers_add(&line, metrics, n_metrics, ", ");
    buf_text(&line, ", \"seconds\": {");
    numbers_add(&line, seconds, n_seconds, "");
    buf_text(&line, "}}\n");
    bool good = write_at(file->file, line.p, line.n, file->end);
    if (good) file->end += (off_t)line.n;
    buf_free(&line);
    if (good) return true;
    int why = errno;
    /* A part of a line is worse than none; when even this fails, the next start cuts it off. */
    if (ftruncate(file->file, file->end) != 0) why = errno;
    return err_set(err, "%s: step %ld cannot be written: %s", file->path, step, strerror(why));
}

bool metrics_sync(MetricsFile *file, Err *err) {
    return fdatasync(file->file) == 0 || err_set(err, "%s: cannot be written: %s", file->path, strerror(errno));
}

void metrics_close(MetricsFile *file) {
    if (!file) return;
    if (file->file >= 0) close(file->file);
    free(file->path);
    free(file);
}
