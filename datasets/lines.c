/* lines.c: a text file, plain or gzip, line by line. zlib reads both; this adds lines, their numbers, a limit and
 * clear errors for what is missing, cut off or damaged. It knows nothing of JSON. Tested by
 * tests/test_datasets_lines.c.
 */
#include "datasets/datasets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { CHUNK = 1 << 16, LINE_MAX_BYTES = 64 << 20 };

struct Lines {
    gzFile file;
    char *path;
    Buf line;
    long number;
    size_t at, end; /* what of the chunk is still to be read */
    char chunk[CHUNK];
};

static bool open_file(const char *path, int *fd, Err *err) {
    if (strcmp(path, "-") == 0) {
        *fd = dup(STDIN_FILENO);
        return *fd >= 0 || err_set(err, "cannot read standard input: %s", strerror(errno));
    }
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) return err_set(err, "cannot open %s: %s", path, strerror(errno));
    struct stat about;
    if (fstat(*fd, &about) == 0 && S_ISDIR(about.st_mode)) {
        close(*fd);
        return err_set(err, "cannot read %s: it is a folder, a file is needed", path);
    }
    return true;
}

Lines *lines_open(const char *path, Err *err) {
    int fd;
    if (!open_file(path, &fd, err)) return NULL;
    gzFile file = gzdopen(fd, "rb");
    if (!file) {
        close(fd);
        err_set(err, "cannot read %s: out of memory", path);
        return NULL;
    }
    gzbuffer(file, 2 * CHUNK);
    Lines *lines = MEM_NEW(Lines);
    lines->file = file;
    lines->path = mem_text(strcmp(path, "-") == 0 ? "standard input" : path);
    return lines;
}

/* Fills the chunk. False at the end of the file, and with err set when the file is damaged or can't be read. */
static bool chunk_read(Lines *lines, Err *err) {
    errno = 0;
    int got = gzread(lines->file, lines->chunk, CHUNK);
    if (got > 0) {
        lines->at = 0;
        lines->end = (size_t)got;
        return true;
    }
    int code;
    const char *why = gzerror(lines->file, &code);
    if (code == Z_BUF_ERROR)
        return err_set(err, "%s is cut off after line %ld: the gzip data ends too early; fetch the file again",
                       lines->path, lines->number);
    if (code == Z_ERRNO) why = strerror(errno);
    if (got < 0 || (code != Z_OK && code != Z_STREAM_END))
        return err_set(err, "cannot read %s after line %ld: %s", lines->path, lines->number, why);
    return false;
}

/* A byte order mark at the start of the file and a carriage return before the end of a line are no part of it. */
static const char *line_trimmed(Lines *lines, size_t *n) {
    const char *text = lines->line.p;
    *n = lines->line.n;
    if (*n && text[*n - 1] == '\r') lines->line.p[--*n] = 0;
    if (lines->number == 1 && *n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) text += 3, *n -= 3;
    return text;
}

const char *lines_next(Lines *lines, size_t *n, Err *err) {
    if (err) err->msg[0] = 0;
    buf_clear(&lines->line);
    buf_add(&lines->line, "", 0);
    for (bool begun = false;; begun = true) {
        if (lines->at == lines->end) {
            Err failed = {0};
            if (!chunk_read(lines, &failed)) {
                if (failed.msg[0]) err_set(err, "%s", failed.msg);
                if (failed.msg[0] || !begun || !lines->line.n) return NULL;
                lines->number++;
                return line_trimmed(lines, n);
            }
        }
        const char *from = lines->chunk + lines->at;
        const char *stop = memchr(from, '\n', lines->end - lines->at);
        size_t length = stop ? (size_t)(stop - from) : lines->end - lines->at;
        if (lines->line.n + length > LINE_MAX_BYTES) {
            err_set(err, "%s, line %ld is longer than 64 MiB", lines->path, lines->number + 1);
            return NULL;
        }
        buf_add(&lines->line, from, length);
        lines->at += length + (stop != NULL);
        if (stop) {
            lines->number++;
            return line_trimmed(lines, n);
        }
    }
}

long lines_number(const Lines *lines) { return lines->number; }

void lines_close(Lines *lines) {
    if (!lines) return;
    gzclose(lines->file);
    buf_free(&lines->line);
    free(lines->path);
    free(lines);
}
