/* text.c: bytes as UTF-8 and as JSON texts. Tested by tests/test_rl_eval.c. */
#include "rl/text.h"

#include <utf8proc.h>

void text_utf8(Buf *out, const char *bytes, size_t n) {
    for (size_t at = 0; at < n;) {
        utf8proc_int32_t code;
        utf8proc_ssize_t took =
            utf8proc_iterate((const utf8proc_uint8_t *)bytes + at, (utf8proc_ssize_t)(n - at), &code);
        if (took > 0)
            buf_add(out, bytes + at, (size_t)took);
        else
            buf_text(out, "\xEF\xBF\xBD");
        at += took > 0 ? (size_t)took : 1;
    }
}

json_t *text_json(const char *bytes, size_t n) {
    json_t *text = json_stringn(bytes, n);
    if (text) return text;
    Buf good = {0};
    text_utf8(&good, bytes, n);
    text = json_stringn(good.p, good.n);
    CHECK(text, "%zu bytes are no text", good.n);
    buf_free(&good);
    return text;
}
