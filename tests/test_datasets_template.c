/* Tests of datasets/template.c: what is the template's own and what is the problem's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

#include "datasets/datasets.h"

static void span_expect(Span span, const char *text, bool special) {
    assert_int_equal(span.n, strlen(text));
    assert_memory_equal(span.text, text, span.n);
    assert_int_equal(span.special, special);
}

static void test_pieces(void **state) {
    (void)state;
    Err err = {0};
    Span spans[TEMPLATE_SPANS_MAX];
    assert_int_equal(template_render(spans, "<|u|>\n{problem}<|end|>", "What is <|u|> {problem}?", &err), 3);
    span_expect(spans[0], "<|u|>\n", true);
    span_expect(spans[1], "What is <|u|> {problem}?", false); /* a problem's braces and marks are only text */
    span_expect(spans[2], "<|end|>", true);
    assert_int_equal(template_render(spans, "{problem}", "p", &err), 1);
    span_expect(spans[0], "p", false);
    assert_int_equal(template_render(spans, "{problem} or {problem}", "p", &err), 3);
    span_expect(spans[1], " or ", true);
    assert_int_equal(template_render(spans, "a{problem}b", "", &err), 2); /* empty pieces are left out */
    assert_string_equal(err.msg, "");
}

static void test_refused(void **state) {
    (void)state;
    Err err = {0};
    Span spans[TEMPLATE_SPANS_MAX];
    assert_int_equal(template_render(spans, "solve {Problem}", "p", &err), -1);
    assert_non_null(strstr(err.msg, "has no {problem}: solve {Problem}"));
    Buf text = {0};
    for (int i = 0; i < 8; i++) buf_text(&text, "-{problem}");
    assert_int_equal(template_render(spans, text.p, "p", &err), 16);
    buf_text(&text, "-");
    assert_int_equal(template_render(spans, text.p, "p", &err), -1);
    assert_non_null(strstr(err.msg, "too often"));
    buf_text(&text, "{problem}");
    assert_int_equal(template_render(spans, text.p, "p", &err), -1);
    buf_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pieces), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
