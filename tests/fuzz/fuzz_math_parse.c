/* fuzz_math_parse.c: libFuzzer target of the math parser: any text is parsed under every reading, and what comes
 * out can be printed. Run by tests/fuzz.sh and `make fuzz`. */
#include <string.h>

#include "reward/math_parts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    Arena arena = {0};
    char *text = text_plain(&arena, (const char *)data, size, TEXT_MAX + 1);
    for (unsigned reading = 0; reading < 16; reading = reading ? 2 * reading : 1) {
        Parse parse = {.arena = &arena, .reading = reading};
        Node *node = math_parse(&parse, text, strlen(text));
        if (!node) {
            CHECK(parse.fault, "no tree and no fault for \"%s\"", text);
            continue;
        }
        Budget budget = {.work = WORK_MAX};
        Buf form = {0};
        node_print(&form, math_fold(&arena, &budget, node));
        CHECK(node_same(node, node), "a tree differs from itself: %s", form.p);
        buf_free(&form);
    }
    arena_free(&arena);
    return 0;
}
