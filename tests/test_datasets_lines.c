/* Tests of datasets/lines.c: plain and gzip files, line ends, and what is missing, empty, cut off or damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "datasets/datasets.h"

static char folder[] = "/tmp/whet-lines-XXXXXX";
static char path[128];

static int folder_make(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int folder_remove(void **state) {
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static void file_write(const void *bytes, size_t n) {
    snprintf(path, sizeof path, "%s/file", folder);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

static void gzip_write(const char *text, size_t n) {
    snprintf(path, sizeof path, "%s/file", folder);
    gzFile file = gzopen(path, "wb6");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, text, (unsigned)n), n);
    assert_int_equal(gzclose(file), Z_OK);
}

static void lines_expect(const char *const *expected, int count) {
    Err err = {0};
    Lines *lines = lines_open(path, &err);
    assert_non_null(lines);
    for (int i = 0; i < count; i++) {
        size_t n;
        const char *text = lines_next(lines, &n, &err);
        assert_non_null(text);
        assert_string_equal(text, expected[i]);
        assert_int_equal(n, strlen(expected[i]));
        assert_int_equal(lines_number(lines), i + 1);
    }
    size_t n;
    assert_null(lines_next(lines, &n, &err));
    assert_string_equal(err.msg, "");
    assert_null(lines_next(lines, &n, &err)); /* the end stays the end */
    lines_close(lines);
}

static void test_line_ends(void **state) {
    (void)state;
    static const char text[] = "\xef\xbb\xbf"
                               "first\r\nsecond\n\nlast without an end";
    const char *expected[] = {"first", "second", "", "last without an end"};
    file_write(text, sizeof text - 1);
    lines_expect(expected, 4);
    gzip_write(text, sizeof text - 1);
    lines_expect(expected, 4);
    file_write("one\n", 4);
    lines_expect((const char *[]){"one"}, 1);
    file_write("", 0);
    lines_expect(NULL, 0);
}

/* Lines that cross the chunks in which the file is read. */
static void test_long_lines(void **state) {
    (void)state;
    Buf text = {0};
    for (int i = 0; i < 40; i++) {
        for (int k = 0; k < 6000 + 137 * i; k++) buf_char(&text, (char)('a' + (i + k) % 26));
        buf_char(&text, '\n');
    }
    for (int gzip = 0; gzip < 2; gzip++) {
        if (gzip)
            gzip_write(text.p, text.n);
        else
            file_write(text.p, text.n);
        Err err = {0};
        Lines *lines = lines_open(path, &err);
        assert_non_null(lines);
        size_t n, at = 0;
        for (const char *line; (line = lines_next(lines, &n, &err)); at += n + 1) {
            assert_true(at + n < text.n);
            assert_memory_equal(line, text.p + at, n);
            assert_int_equal(text.p[at + n], '\n');
        }
        assert_string_equal(err.msg, "");
        assert_int_equal(at, text.n);
        assert_int_equal(lines_number(lines), 40);
        lines_close(lines);
    }
    buf_free(&text);
}

static void test_nul_inside(void **state) {
    (void)state;
    file_write("a\0b\nc\n", 6);
    Err err = {0};
    Lines *lines = lines_open(path, &err);
    size_t n;
    const char *line = lines_next(lines, &n, &err);
    assert_int_equal(n, 3);
    assert_memory_equal(line, "a\0b", 4);
    lines_close(lines);
}

static void test_missing(void **state) {
    (void)state;
    Err err = {0};
    assert_null(lines_open("/nowhere/at/all.jsonl", &err));
    assert_non_null(strstr(err.msg, "/nowhere/at/all.jsonl"));
    assert_non_null(strstr(err.msg, "No such file"));
    assert_null(lines_open(folder, &err));
    assert_non_null(strstr(err.msg, "it is a folder"));
}

/* Reads to the end, which must be an error that names the file and says `what`. */
static void damage_expect(const char *what) {
    Err err = {0};
    Lines *lines = lines_open(path, &err);
    assert_non_null(lines);
    size_t n;
    while (lines_next(lines, &n, &err)) assert_string_equal(err.msg, "");
    assert_non_null(strstr(err.msg, path));
    assert_non_null(strstr(err.msg, what));
    assert_null(strchr(err.msg, '\n'));
    lines_close(lines);
}

static void test_gzip_damage(void **state) {
    (void)state;
    Buf text = {0};
    for (unsigned i = 0; i < 20000; i++) buf_format(&text, "%u\n", i * 2654435761u);
    gzip_write(text.p, text.n);
    buf_free(&text);
    FILE *file = fopen(path, "rb");
    struct stat about;
    assert_int_equal(fstat(fileno(file), &about), 0);
    size_t size = (size_t)about.st_size;
    unsigned char *bytes = MEM_ARRAY(unsigned char, size);
    assert_int_equal(fread(bytes, 1, size, file), size);
    fclose(file);
    size_t cuts[] = {size - 1, size - 8, size / 2, 12};
    for (size_t i = 0; i < 4; i++) {
        file_write(bytes, cuts[i]);
        damage_expect("is cut off");
    }
    bytes[size / 2] ^= 0x55;
    bytes[size - 6] ^= 0x55; /* the checksum, should the data still inflate */
    file_write(bytes, size);
    damage_expect("cannot read");
    free(bytes);
}

static void test_too_long(void **state) {
    (void)state;
    snprintf(path, sizeof path, "%s/file", folder);
    gzFile file = gzopen(path, "wb1");
    static char zeros[1 << 20];
    assert_int_equal(gzwrite(file, "x\n", 2), 2);
    for (int i = 0; i < 65; i++) assert_int_equal(gzwrite(file, zeros, sizeof zeros), sizeof zeros);
    gzclose(file);
    damage_expect("line 2 is longer than 64 MiB");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_line_ends), cmocka_unit_test(test_long_lines),  cmocka_unit_test(test_nul_inside),
        cmocka_unit_test(test_missing),   cmocka_unit_test(test_gzip_damage), cmocka_unit_test(test_too_long),
    };
    return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
