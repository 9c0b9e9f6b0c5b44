/* test_rl_chat.c: chat templates run as transformers' apply_chat_template runs them; what they ask for and is not
 * known is refused by name.
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
        print_error("%s:\nwanted: %s\ngot: %s\n", name, wanted ? wanted : "a refusal", ok ? out.text.p : err.msg);
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
    assert_true(all >= (getenv("WHET_CHAT") ? 1 : 400));
    assert_int_equal(wrong, 0);
    json_decref(rows);
}

#define CHATML                                                                                                    \
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"        \
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

/* Control tokens stand in the marks, never in what a turn says, whatever the template does with it. */
static void test_plain(void **state) {
    (void)state;
    Err err = {0};
    Chat *chat = chat_open(CHATML, "", "", &err);
    if (!chat) fail_msg("%s", err.msg);
    const ChatTurn turns[] = {{"system", "S"}, {"user", "<|im_end|>"}};
    ChatText out = {0};
    assert_true(chat_render(chat, turns, 2, &out, &err));
    assert_int_equal(out.n, 2);
    assert_true(out.plain[1].end - out.plain[1].begin == 10 &&
                memcmp(out.text.p + out.plain[1].begin, "<|im_end|>", 10) == 0);
    char *text = chat_prompt_template(chat, NULL, &err);
    assert_string_equal(text, "<|im_start|>user\n{problem}<|im_end|>\n<|im_start|>assistant\n");
    free(text);
    chat_close(chat);
    chat = chat_open(
        "{% set t = messages[-1].content.split('a')[-1] | trim ~ '<x>' %}<x>{{ (t + '<x>').replace('x>', 'y>') }}"
        "{{ messages[0].content[1:3] }}What is 7 + 8?",
        "", "", &err);
    if (!chat) fail_msg("%s", err.msg);
    const ChatTurn one = {"user", "<x>a <x>\xc3\xa9\xff "};
    assert_true(chat_render(chat, &one, 1, &out, &err));
    assert_string_equal(out.text.p, "<x><y>\xc3\xa9\xff<y><y>x>What is 7 + 8?");
    assert_true(out.n == 3 && out.plain[0].begin == 3 && out.plain[0].end == 4 && out.plain[1].begin == 6);
    chat_text_free(&out);
    chat_close(chat);
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *template, *says;
    } BAD[] = {
        {"", "leaves out what the user says"},
        {"[INST]", "leaves out what the user says"},
        {"{{ messages[0].content ", "a tag does not end"},
        {"{{ messages[0].content | flatten }}", "line 1: the filter flatten is not supported"},
        {"\n\n{{ messages[0].content.zfill() }}", "line 3: the method zfill of texts is not supported"},
        {"{{ cycler(1) }}", "the function cycler is not supported"},
        {"{% include 'x' %}", "the statement is not supported: include"},
        {"{% if messages %}", "the end is missing"},
        {"{% for m in messages %}{{ m.content }}{% endif %}{% endfor %}", "the statement is not supported: endif"},
        {"{{ raise_exception('no\n' ~ 'way') }}", "refuses the conversation: no way"},
        {"{{ messages.x.y }}", "is not defined, and asked for y"},
        {"{{ 1 / 2 }}", "a number / a number is not supported"},
        {"{{ messages }}", "a list as text"},
        {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "too deeply"},
        {"{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
         "does not come to an end"},
        {"{% set n = namespace(x='abcdefgh') %}{% for a in range(90) %}{% set n.x = n.x + n.x %}{% endfor %}",
         "too much text"},
    };
    Err err = {0};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        if (chat_open(BAD[i].template, "", "", &err)) fail_msg("%s is taken", BAD[i].template);
        if (!strstr(err.msg, BAD[i].says) || !strstr(err.msg, "prompt_template") || strchr(err.msg, '\n'))
            fail_msg("expected \"%s\", got \"%s\"", BAD[i].says, err.msg);
    }
    Buf deep = {0};
    buf_text(&deep, "{{ ");
    for (int i = 0; i < 100000; i++) buf_char(&deep, '(');
    assert_null(chat_open(deep.p, "", "", &err));
    buf_clear(&deep);
    buf_text(&deep, "{{ messages[0].content");
    for (int i = 0; i < 100000; i++) buf_text(&deep, "+1");
    buf_text(&deep, "}}");
    assert_null(chat_open(deep.p, "", "", &err));
    assert_non_null(strstr(err.msg, "nested too deeply"));
    buf_free(&deep);
    Chat *chat = chat_open(CHATML, "", "", &err);
    ChatText out = {0};
    const ChatTurn none[] = {{"system", "S"}}, answer[] = {{"user", "U"}, {"assistant", "A"}};
    assert_false(chat_render(chat, none, 1, &out, &err) || chat_render(chat, none, 0, &out, &err) ||
                 chat_render(chat, answer, 2, &out, &err));
    assert_non_null(strstr(err.msg, "must be the user's"));
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
