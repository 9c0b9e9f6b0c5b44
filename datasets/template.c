/* template.c: puts a problem into a plain-text prompt template. It is not Jinja: "{problem}" is all that it knows,
 * and chat templates of models are not its business. Tested by tests/test_datasets_template.c.
 */
#include "datasets/datasets.h"

#include <string.h>

static bool span_add(Span *spans, int *count, const char *text, size_t n, bool special) {
    if (!n) return true;
    if (*count == TEMPLATE_SPANS_MAX) return false;
    spans[(*count)++] = (Span){text, n, special};
    return true;
}

int template_render(Span spans[TEMPLATE_SPANS_MAX], const char *template_text, const char *problem, Err *err) {
    static const char mark[] = "{problem}";
    int count = 0;
    bool fits = true;
    const char *from = template_text, *at = strstr(from, mark);
    if (!at) {
        err_set(err, "the prompt template has no {problem}: %.60s%s", from, strlen(from) > 60 ? "..." : "");
        return -1;
    }
    for (; at && fits; from = at + strlen(mark), at = strstr(from, mark)) {
        fits = span_add(spans, &count, from, (size_t)(at - from), true) &&
               span_add(spans, &count, problem, strlen(problem), false);
    }
    if (!fits || !span_add(spans, &count, from, strlen(from), true)) {
        err_set(err, "the prompt template has {problem} too often: it has room for %d pieces", TEMPLATE_SPANS_MAX);
        return -1;
    }
    return count;
}
