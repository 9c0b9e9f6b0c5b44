/* test_rl_chat.c: chat templates recognised and rendered as transformers' apply_chat_template does; unknown ones
 * refused.
 *
 * Golden: tests/goldens/make_chat_goldens.py. WHET_CHAT names another file like it, whose templates may be
 * refused. */
#include "rl/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static json_t *goldens_read(void) {
    const char *path = getenv("WHET_CHAT");
    gzFile file = gzopen(path ? path : "tests/goldens/chat-goldens.json.gz", "rb");
    assert_non_null(file);
    Buf all = {0};
    char part[4096];
    for (int k; (k = gzread(file, part, sizeof part)) > 0;) buf_add(&all, part, (size_t)k);
    gzclose(file);
    json_t *rows = json_loadb(all.p, all.n, 0, NULL);
    assert_non_null(rows);
    buf_free(&all);
    return rows;
}

static const char *text_of(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

static Chat *open_row(const json_t *row) {
    Err err = {0};
    Chat *chat = chat_open(text_of(row, "template"), text_of(row, "bos"), text_of(row, "eos"), &err);
    if (!chat && !getenv("WHET_CHAT")) fail_msg("%s: %s", text_of(row, "name"), err.msg);
    if (!chat) print_message("%s: refused: %s\n", text_of(row, "name"), err.msg);
    return chat;
}

/* Whether the plain ranges hold what the turns hold, in order, and lie inside the text. */
static void check_plain(const ChatText *text) {
    size_t at = 0;
    for (int i = 0; i < text->n; i++) {
        assert_true(text->plain[i].begin >= at && text->plain[i].end > text->plain[i].begin &&
                    text->plain[i].end <= text->text.n);
        at = text->plain[i].end;
    }
}

static bool check_case(const Chat *chat, const char *name, const json_t *one) {
    ChatTurn turns[16];
    int n = 0;
    size_t i;
    json_t *message;
    json_array_foreach(json_object_get(one, "messages"), i, message) turns[n++] =
        (ChatTurn){text_of(message, "role"), text_of(message, "content")};
    ChatText out = {0};
    Err err = {0};
    const char *wanted = text_of(one, "text");
    bool ok = chat_render(chat, turns, n, &out, &err);
    bool good = wanted ? ok && strcmp(out.text.p, wanted) == 0 : !ok && err.msg[0];
    if (!good)
        print_error("%s (%s):\nwanted: %s\ngot: %s\n", name, chat_name(chat), wanted ? wanted : "a refusal",
                    ok ? out.text.p : err.msg);
    if (ok) check_plain(&out);
    chat_text_free(&out);
    return good;
}

static void test_goldens(void **state) {
    (void)state;
    json_t *rows = goldens_read(), *row, *one;
    size_t r, c;
    int wrong = 0, all = 0;
    json_array_foreach(rows, r, row) {
        Chat *chat = open_row(row);
        if (!chat) continue;
        json_array_foreach(json_object_get(row, "cases"), c, one) {
            wrong += !check_case(chat, text_of(row, "name"), one);
            all++;
        }
        chat_close(chat);
    }
    print_message("%zu templates, %d conversations\n", json_array_size(rows), all);
    assert_true(all >= 140);
    assert_int_equal(wrong, 0);
    json_decref(rows);
}

/* Control tokens stand in the marks, never in what a turn says. */
static void test_plain(void **state) {
    (void)state;
    Err err = {0};
    Chat *chat = chat_open("{{'<|im_start|>' + role + '<|im_end|>'}}", "", "", &err);
    assert_non_null(chat);
    const ChatTurn turns[] = {{"system", "S"}, {"user", "<|im_end|>"}};
    ChatText out = {0};
    assert_true(chat_render(chat, turns, 2, &out, &err));
    assert_int_equal(out.n, 2);
    assert_true(out.plain[1].end - out.plain[1].begin == 10 &&
                memcmp(out.text.p + out.plain[1].begin, "<|im_end|>", 10) == 0);
    chat_text_free(&out);
    char *text = chat_prompt_template(chat, NULL, &err);
    assert_string_equal(text, "<|im_start|>user\n{problem}<|im_end|>\n<|im_start|>assistant\n");
    free(text);
    chat_close(chat);
}

static void test_refusals(void **state) {
    (void)state;
    static const char *const UNKNOWN[] = {
        "",
        "{% for m in messages %}{{ m['content'] }}{% endfor %}",
        "[INST]",
        "<|im_start|>",
        "{{ '<|im_start|>' }}{% if reasoning_mode %}<|im_end|>{% endif %}",
        "<|START_OF_TURN_TOKEN|>",
        "{{ bos_token }}{{ 'GPT4 Correct User' }}",
    };
    for (size_t i = 0; i < sizeof UNKNOWN / sizeof *UNKNOWN; i++) {
        Err err = {0};
        if (chat_open(UNKNOWN[i], "", "", &err)) fail_msg("%s is recognised", UNKNOWN[i]);
        assert_non_null(strstr(err.msg, "prompt_template"));
        assert_null(strchr(err.msg, '\n'));
    }
    Err err = {0};
    Chat *chat = chat_open("<|im_start|><|im_end|>", "", "", &err);
    ChatText out = {0};
    const ChatTurn none[] = {{"system", "S"}}, answer[] = {{"user", "U"}, {"assistant", "A"}},
                   tool[] = {{"tool", "T"}, {"user", "U"}};
    assert_false(chat_render(chat, none, 1, &out, &err) || chat_render(chat, none, 0, &out, &err) ||
                 chat_render(chat, answer, 2, &out, &err));
    assert_non_null(strstr(err.msg, "must be the user's"));
    assert_false(chat_render(chat, tool, 2, &out, &err));
    assert_non_null(strstr(err.msg, "\"tool\""));
    chat_text_free(&out);
    chat_close(chat);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goldens),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
