/* stored.c: files mapped or written as a whole, and the tables of tensors that containers hold.
 *
 * It knows no container: offsets and names come from gguf.c and safetensors.c; number formats are formats.c's.
 * Tested by tests/test_rollout_files.c.
 */
#include "rollout/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- files ---- */

bool file_map(Mapped *map, const char *path, Err *err) {
    *map = (Mapped){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_set(err, "%s: can't be opened (%s): check the path", path, strerror(errno));
    struct stat st;
    bool ok = fstat(fd, &st) == 0;
    if (!ok)
        err_set(err, "%s: can't be read (%s)", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        ok = err_set(err, "%s: not a regular file", path);
    else if (st.st_size == 0)
        ok = err_set(err, "%s: the file is empty: fetch it again", path);
    if (ok) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            ok = err_set(err, "%s: can't be mapped (%s)", path, strerror(errno));
        else
            *map = (Mapped){.p = p, .n = (size_t)st.st_size};
    }
    close(fd);
    return ok;
}

void file_unmap(Mapped *map) {
    if (map->p) munmap((void *)map->p, map->n);
    *map = (Mapped){0};
}

bool file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

/* Turns whole real numbers back into integers, all the way down. */
static void reals_to_ints(json_t *value) {
    const char *key;
    json_t *item;
    size_t i;
    void *safe;
    json_object_foreach_safe(value, safe, key, item) {
        double number = json_real_value(item);
        if (json_is_real(item) && fabs(number) < 0x1p53 && number == floor(number))
            json_object_set_new(value, key, json_integer((json_int_t)number));
        else
            reals_to_ints(item);
    }
    json_array_foreach(value, i, item) {
        double number = json_real_value(item);
        if (json_is_real(item) && fabs(number) < 0x1p53 && number == floor(number))
            json_array_set_new(value, i, json_integer((json_int_t)number));
        else
            reals_to_ints(item);
    }
}

json_t *json_file(const char *path, Err *err) {
    Mapped map;
    if (!file_map(&map, path, err)) return NULL;
    json_error_t at;
    json_t *value = json_loadb((const char *)map.p, map.n, JSON_REJECT_DUPLICATES, &at);
    if (!value && json_error_code(&at) == json_error_numeric_overflow) { /* "model_max_length": 10^30 is usual */
        value = json_loadb((const char *)map.p, map.n, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &at);
        if (value) reals_to_ints(value);
    }
    file_unmap(&map);
    if (!value)
        err_set(err, "%s: not valid JSON (line %d: %s): fetch it again", path, at.line, at.text);
    else if (!json_is_object(value)) {
        err_set(err, "%s: not a JSON object: fetch it again", path);
        json_decref(value);
        value = NULL;
    }
    return value;
}

bool sink_open(Sink *sink, const char *path, Err *err) {
    struct stat info;
    *sink = (Sink){.path = path, .err = err, .final = realpath(path, NULL)}; /* behind its links */
    if (!sink->final || stat(sink->final, &info) != 0 || S_ISREG(info.st_mode)) {
        if (!sink->final) sink->final = mem_text(path);
        if (asprintf(&sink->part, "%s.part", sink->final) < 0) die("out of memory");
    }
    sink->fd = open(sink->part ? sink->part : path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (sink->fd >= 0) return true;
    err_set(err, "%s: can't be written (%s)", path, strerror(errno));
    free(sink->final), free(sink->part);
    return false;
}

bool sink_add(Sink *sink, const void *bytes, size_t n) {
    size_t done = 0;
    while (done < n) {
        ssize_t k = write(sink->fd, (const char *)bytes + done, n - done);
        if (k > 0)
            done += (size_t)k;
        else if (k < 0 && errno != EINTR)
            return err_set(sink->err, "%s: writing failed (%s): make room and run again", sink->path,
                           strerror(errno));
    }
    sink->n += n;
    return true;
}

bool sink_close(Sink *sink, bool ok) {
    if (ok && sink->part && fsync(sink->fd) != 0)
        ok = err_set(sink->err, "%s: syncing failed (%s): make room and run again", sink->path, strerror(errno));
    if (close(sink->fd) != 0 && ok)
        ok = err_set(sink->err, "%s: closing failed (%s): make room and run again", sink->path, strerror(errno));
    if (sink->part && ok && rename(sink->part, sink->final) != 0)
        ok = err_set(sink->err, "%s: can't be put in its place (%s)", sink->path, strerror(errno));
    if (sink->part && !ok) unlink(sink->part);
    free(sink->final), free(sink->part);
    return ok;
}

bool file_write(const char *path, const void *bytes, size_t n, Err *err) {
    Sink sink;
    return sink_open(&sink, path, err) && sink_close(&sink, sink_add(&sink, bytes, n));
}

bool json_write(const char *path, const json_t *value, Err *err) {
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    if (!text) return err_set(err, "%s: the text to write is not valid UTF-8", path);
    Buf buf = {0};
    buf_text(&buf, text);
    buf_char(&buf, '\n');
    free(text);
    bool ok = file_write(path, buf.p, buf.n, err);
    buf_free(&buf);
    return ok;
}

/* ---- tables of tensors ---- */

static int by_name(const void *a, const void *b) {
    return strcmp(((const StoredTensor *)a)->name, ((const StoredTensor *)b)->name);
}

bool stored_sort(StoredTensor *tensors, int n, const char *where, Err *err) {
    if (n) qsort(tensors, (size_t)n, sizeof *tensors, by_name);
    for (int i = 1; i < n; i++)
        if (by_name(&tensors[i - 1], &tensors[i]) == 0)
            return err_set(err, "%s: the tensor %.100s is there twice: fetch the file again", where,
                           tensors[i].name);
    return true;
}

const StoredTensor *stored_find(const StoredTensor *tensors, int n, const char *name) {
    StoredTensor key = {.name = name};
    return n ? bsearch(&key, tensors, (size_t)n, sizeof *tensors, by_name) : NULL;
}

static int by_begin(const void *a, const void *b) {
    const Span *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

bool spans_check(Span *spans, int n, const char *where, Err *err) {
    if (n) qsort(spans, (size_t)n, sizeof *spans, by_begin);
    for (int i = 1; i < n; i++)
        if (spans[i].begin < spans[i - 1].end)
            return err_set(err, "%s: the tensors %.100s and %.100s overlap: fetch the file again", where,
                           spans[i - 1].name, spans[i].name);
    return true;
}
