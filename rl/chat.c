/* chat.c: recognises chat templates by what stands in them, and writes conversations as they would.
 *
 * A template is a program in Jinja; whet does not run it. Models share a few formats, whose texts are tables here;
 * what differs inside a format (default system message, blanks around the marks, how the answer begins) is read
 * out of the template's text. Tested by tests/test_rl_chat.c.
 */
#include "rl/chat.h"

#include <stdlib.h>
#include <string.h>

/* In the tables: the texts of the BOS and the EOS token. */
#define BOS "\1"
#define EOS "\2"

typedef enum {
    SYSTEM_TURN,       /* a turn of its own */
    SYSTEM_FIRST_USER, /* inside the first user's turn */
    SYSTEM_LAST_USER,  /* inside the last one's */
    SYSTEM_LEFT_OUT,   /* the template passes over it */
    SYSTEM_REFUSED
} SystemPlace;

typedef struct {
    const char *name;
    const char *start;                           /* before everything */
    const char *system[2], *user[2], *answer[2]; /* before and after the text */
    const char *generation;                      /* begins the answer that is asked for */
    SystemPlace place;
    bool trim_system, trim_user, trim_answer;
    bool any_order; /* roles need not alternate */
    bool joined;    /* a system message inside a user's turn is trimmed with it as one text */
} Format;

struct Chat {
    Format f;
    const char *bos, *eos, *default_system; /* NULL: none */
    const char *system_always;              /* stands before every system text, there or not; NULL: none */
    bool drop_thoughts;                     /* of earlier answers: all up to </think> */
    bool strip_after_thoughts;
    Arena arena;
};

static const Format CHATML = {"ChatML",
                              "",
                              {"<|im_start|>system\n", "<|im_end|>\n"},
                              {"<|im_start|>user\n", "<|im_end|>\n"},
                              {"<|im_start|>assistant\n", "<|im_end|>\n"},
                              "<|im_start|>assistant\n",
                              .any_order = true};
static const Format PHI4 = {"Phi-4",
                            "",
                            {"<|im_start|>system<|im_sep|>", "<|im_end|>"},
                            {"<|im_start|>user<|im_sep|>", "<|im_end|>"},
                            {"<|im_start|>assistant<|im_sep|>", "<|im_end|>"},
                            "<|im_start|>assistant<|im_sep|>",
                            .any_order = true};
static const Format PHI3 = {"Phi-3",
                            "",
                            {"<|system|>\n", "<|end|>\n"},
                            {"<|user|>\n", "<|end|>\n"},
                            {"<|assistant|>\n", "<|end|>\n"},
                            "<|assistant|>\n",
                            .any_order = true};
static const Format PHI4_MINI = {"Phi-4-mini",
                                 "",
                                 {"<|system|>", "<|end|>"},
                                 {"<|user|>", "<|end|>"},
                                 {"<|assistant|>", "<|end|>"},
                                 "<|assistant|>",
                                 .any_order = true};
#define HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
static const Format LLAMA3 = {"Llama 3",
                              BOS,
                              {HEADER("system"), "<|eot_id|>"},
                              {HEADER("user"), "<|eot_id|>"},
                              {HEADER("assistant"), "<|eot_id|>"},
                              HEADER("assistant"),
                              .trim_system = true,
                              .trim_user = true,
                              .trim_answer = true,
                              .any_order = true};
static const Format LLAMA2 = {"Llama 2",
                              "",
                              {"<<SYS>>\n", "\n<</SYS>>\n\n"},
                              {BOS "[INST] ", " [/INST]"},
                              {" ", " " EOS},
                              "",
                              .place = SYSTEM_FIRST_USER,
                              .trim_user = true,
                              .trim_answer = true,
                              .joined = true};
static const Format MISTRAL = {"Mistral", BOS, {"", "\n\n"},           {"[INST] ", " [/INST]"},
                               {"", EOS}, "",  .place = SYSTEM_REFUSED};
static const Format GEMMA = {"Gemma",
                             BOS,
                             {"", "\n\n"},
                             {"<start_of_turn>user\n", "<end_of_turn>\n"},
                             {"<start_of_turn>model\n", "<end_of_turn>\n"},
                             "<start_of_turn>model\n",
                             .place = SYSTEM_REFUSED,
                             .trim_user = true,
                             .trim_answer = true};
static const Format DEEPSEEK = {"DeepSeek",
                                BOS,
                                {"", ""},
                                {"<｜User｜>", ""},
                                {"<｜Assistant｜>", "<｜end▁of▁sentence｜>"},
                                "<｜Assistant｜>",
                                .any_order = true};
static const Format DEEPSEEK_LLM = {"DeepSeek LLM",       BOS,          {"", "\n\n"},     {"User: ", "\n\n"},
                                    {"Assistant: ", EOS}, "Assistant:", .any_order = true};

/* ---- reading a template's text ---- */

static bool has(const char *jinja, const char *what) { return strstr(jinja, what) != NULL; }

/* Whether a Jinja string with just this text stands in the template. */
static bool quotes(const char *jinja, const char *text) {
    Buf one = {0};
    buf_format(&one, "'%s'", text);
    bool found = has(jinja, one.p);
    buf_clear(&one);
    buf_format(&one, "\"%s\"", text);
    found |= has(jinja, one.p);
    buf_free(&one);
    return found;
}

/* Copies a piece of a Jinja string, with \n and \' and the like resolved. */
static char *unescape(Arena *arena, const char *p, size_t n) {
    char *out = arena_text(arena, p, n);
    size_t length = 0;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        if (c == '\\' && i + 1 < n) {
            c = p[++i];
            c = c == 'n' ? '\n' : c == 't' ? '\t' : c;
        }
        out[length++] = c;
    }
    out[length] = 0;
    return out;
}

/* The length of a line end at p, as a character or as Jinja's \n; 0: there is none. */
static size_t line_end(const char *p) { return *p == '\n' ? 1 : p[0] == '\\' && p[1] == 'n' ? 2 : 0; }

/* The system message of ChatML that stands in the template as a constant: after the mark comes plain text up to
 * the end of the turn. */
static const char *constant_system(Arena *arena, const char *jinja) {
    static const char MARK[] = "<|im_start|>system";
    static const char *const CODE[] = {"{{", "}}", "{%", "' +", "\" +", "'+", "\"+"};
    for (const char *at = jinja; (at = strstr(at, MARK));) {
        at += sizeof MARK - 1;
        size_t skip = line_end(at);
        const char *end = strstr(at, "<|im_end|>");
        if (!skip || !end || at + skip == end) continue;
        char *text = arena_text(arena, at + skip, (size_t)(end - at) - skip);
        bool plain = true;
        for (size_t i = 0; i < sizeof CODE / sizeof *CODE; i++) plain &= !strstr(text, CODE[i]);
        if (plain) return unescape(arena, text, strlen(text));
    }
    return NULL;
}

/* The Jinja string that begins with this quote; NULL: it does not end. */
static const char *string_at(Arena *arena, const char *quote) {
    if (!*quote) return NULL;
    const char *end = quote + 1;
    while (*end && *end != *quote) end += *end == '\\' && end[1] ? 2 : 1;
    return *end ? unescape(arena, quote + 1, (size_t)(end - quote - 1)) : NULL;
}

/* The first Jinja string after the last question whether an answer is asked for. */
static const char *generation_of(Arena *arena, const char *jinja) {
    const char *last = NULL;
    for (const char *at = jinja; (at = strstr(at, "add_generation_prompt")); at++) last = at;
    const char *from = last ? strstr(last, "{{") : NULL;
    if (!from) return NULL;
    return string_at(arena, from + strcspn(from, "'\""));
}

/* ---- the formats ---- */

static void open_chatml(Chat *chat, const char *jinja) {
    chat->f = CHATML;
    chat->default_system = constant_system(&chat->arena, jinja);
    chat->drop_thoughts = chat->strip_after_thoughts = has(jinja, "</think>") && has(jinja, "split('</think>')");
    const char *generation = generation_of(&chat->arena, jinja);
    if (generation && strncmp(generation, CHATML.generation, strlen(CHATML.generation)) == 0)
        chat->f.generation = generation;
    if (strncmp(jinja, "{{ bos_token }}", 15) == 0 || strncmp(jinja, "{{bos_token}}", 13) == 0)
        chat->f.start = BOS;
}

/* Llama 3.1 and later always write a system turn with two dates; the second is today's in 3.2, where whet takes
 * the template's own constant, so that a run is the same on every day. */
static void open_llama3(Chat *chat, const char *jinja) {
    chat->f = LLAMA3;
    if (!has(jinja, "Cutting Knowledge Date")) return;
    chat->system_always = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
    chat->default_system = "";
}

static void open_llama2(Chat *chat, const char *jinja) {
    chat->f = LLAMA2;
    if (!has(jinja, "bos_token + '[INST]"))
        chat->f.start = has(jinja, "bos_token") ? BOS : "", chat->f.user[0] = "[INST] ";
    /* the switch of Llama 2's own template, and the constant that it turns on */
    const char *on = strstr(jinja, "elif true == true"), *text = on ? strstr(on, "set system_message = ") : NULL;
    if (text) chat->default_system = string_at(&chat->arena, text + strcspn(text, "'\""));
}

static void open_mistral(Chat *chat, const char *jinja) {
    Format *f = &chat->f;
    *f = MISTRAL;
    if (quotes(jinja, " [INST] ")) f->user[0] = " [INST] ";
    if (!quotes(jinja, " [INST] ") && !quotes(jinja, "[INST] ")) f->user[0] = "[INST]";
    if (quotes(jinja, "[/INST]")) f->user[1] = "[/INST]";
    if (has(jinja, "[SYSTEM_PROMPT]")) {
        f->place = SYSTEM_TURN;
        f->system[0] = quotes(jinja, "[SYSTEM_PROMPT] ") ? "[SYSTEM_PROMPT] " : "[SYSTEM_PROMPT]";
        f->system[1] = "[/SYSTEM_PROMPT]";
        f->any_order = !has(jinja, "alternate");
    } else if (has(jinja, "system_message + "))
        f->place = has(jinja, "loop.last and system_message") || has(jinja, "loop.last and messages[0]")
                       ? SYSTEM_LAST_USER
                       : SYSTEM_FIRST_USER;
    f->trim_answer = has(jinja, "|trim") || has(jinja, "| trim");
    if (has(jinja, "' ' + message") || has(jinja, "\" \" + message")) f->answer[0] = " ";
    if (has(jinja, "eos_token + ' '") || has(jinja, "eos_token + \" \"")) f->answer[1] = EOS " ";
}

static void open_gemma(Chat *chat, const char *jinja) {
    chat->f = GEMMA;
    if (!has(jinja, "bos_token")) chat->f.start = "";
    if (has(jinja, "first_user_prefix")) chat->f.place = SYSTEM_FIRST_USER;
}

static void open_phi3(Chat *chat, const char *jinja) {
    bool together = has(jinja, "'<|' + message['role'] + '|>'");
    bool lines = has(jinja, "'|>' + '\\n'") || has(jinja, "'|>' + '\n'");
    chat->f = together && !lines ? PHI4_MINI : PHI3;
    if (strncmp(jinja, "{{ bos_token }}", 15) == 0) chat->f.start = BOS;
    if (!has(jinja, "system") && !together) chat->f.place = SYSTEM_LEFT_OUT;
}

static void open_deepseek(Chat *chat, const char *jinja) {
    chat->f = DEEPSEEK;
    const char *generation = generation_of(&chat->arena, jinja);
    if (generation && strncmp(generation, DEEPSEEK.generation, strlen(DEEPSEEK.generation)) == 0)
        chat->f.generation = generation;
    chat->drop_thoughts = has(jinja, "split('</think>')");
}

static void open_deepseek_llm(Chat *chat, const char *jinja) {
    (void)jinja;
    chat->f = DEEPSEEK_LLM;
}

static const struct {
    const char *signs[3]; /* all of them stand in the template */
    void (*open)(Chat *chat, const char *jinja);
} KNOWN[] = {
    {{"<|im_start|>", "<|im_sep|>", NULL}, NULL},
    {{"<|im_start|>", "<|im_end|>", NULL}, open_chatml},
    {{"<|start_header_id|>", "<|eot_id|>", NULL}, open_llama3},
    {{"[INST]", "<<SYS>>", "eos_token"}, open_llama2},
    {{"[INST]", "[/INST]", "eos_token"}, open_mistral},
    {{"<start_of_turn>", "<end_of_turn>", "model"}, open_gemma},
    {{"<｜User｜>", "<｜Assistant｜>", NULL}, open_deepseek},
    {{"<|end|>", "<|assistant|>", "<|user|>"}, open_phi3},
    {{"<|end|>", "'<|' + message['role'] + '|>'", NULL}, open_phi3},
    {{"'User: '", "'Assistant: '", "'Assistant:'"}, open_deepseek_llm},
};
/* What only templates with rules of their own have. */
static const char *const STRANGE[] = {"reasoning_mode", "thinking_budget",        "model_identity",
                                      "<|channel|>",    "default_system_message", "not thinking",
                                      "documents",      "messages[idx]"};

Chat *chat_open(const char *jinja, const char *bos, const char *eos, Err *err) {
    Chat *chat = MEM_NEW(Chat);
    chat->bos = arena_text(&chat->arena, bos, strlen(bos));
    chat->eos = arena_text(&chat->arena, eos, strlen(eos));
    bool strange = false, known = false;
    for (size_t i = 0; i < sizeof STRANGE / sizeof *STRANGE; i++) strange |= has(jinja, STRANGE[i]);
    strange |= has(jinja, "strftime_now") && !has(jinja, "Cutting Knowledge Date");
    for (size_t i = 0; !strange && !known && i < sizeof KNOWN / sizeof *KNOWN; i++) {
        known = true;
        for (int s = 0; s < 3 && KNOWN[i].signs[s]; s++) known &= has(jinja, KNOWN[i].signs[s]);
        if (!known) continue;
        if (KNOWN[i].open)
            KNOWN[i].open(chat, jinja);
        else
            chat->f = PHI4;
    }
    if (known) return chat;
    chat_close(chat);
    int n = (int)strcspn(jinja, "\n");
    err_set(err,
            "the model's chat template (\"%.*s%s\") is of no known format (ChatML, Llama 2 and 3, Mistral, Gemma, "
            "Phi, "
            "DeepSeek): give prompt_template, a text with {problem} in it",
            n > 80 ? 80 : n, jinja, n > 80 ? "..." : "");
    return NULL;
}

const char *chat_name(const Chat *chat) { return chat->f.name; }

void chat_close(Chat *chat) {
    if (!chat) return;
    arena_free(&chat->arena);
    free(chat);
}

/* ---- rendering ---- */

static void put_mark(const Chat *chat, ChatText *out, const char *mark) {
    for (; *mark; mark++) {
        if (*mark == *BOS)
            buf_text(&out->text, chat->bos);
        else if (*mark == *EOS)
            buf_text(&out->text, chat->eos);
        else
            buf_char(&out->text, *mark);
    }
}

static bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static void put_plain(ChatText *out, const char *text, bool trim_front, bool trim_back) {
    size_t n = strlen(text);
    while (trim_front && n && is_blank(*text)) text++, n--;
    while (trim_back && n && is_blank(text[n - 1])) n--;
    if (!n) return;
    if (out->n == out->room) {
        out->room = out->room ? 2 * out->room : 8;
        out->plain = mem_grow(out->plain, (size_t)out->room, sizeof *out->plain);
    }
    out->plain[out->n++] = (ChatRange){out->text.n, out->text.n + n};
    buf_add(&out->text, text, n);
}

/* What is left of an earlier answer when its thoughts are dropped. */
static const char *without_thoughts(const Chat *chat, const char *text) {
    static const char END[] = "</think>";
    if (!chat->drop_thoughts) return text;
    for (const char *at; (at = strstr(text, END));) {
        text = at + sizeof END - 1;
        if (chat->strip_after_thoughts && !strstr(text, END)) text += strspn(text, "\n");
    }
    return text;
}

static bool turns_check(const Chat *chat, const ChatTurn *turns, int n, Err *err) {
    bool system = n > 0 && strcmp(turns[0].role, "system") == 0;
    if (n <= system || strcmp(turns[n - 1].role, "user") != 0)
        return err_set(err, "the last message of a prompt must be the user's");
    if (system && chat->f.place == SYSTEM_REFUSED)
        return err_set(err, "the model's chat format (%s) has no system message: put it into the user's",
                       chat->f.name);
    for (int i = system; i < n; i++) {
        bool user = strcmp(turns[i].role, "user") == 0, answer = strcmp(turns[i].role, "assistant") == 0;
        if (!user && !answer)
            return err_set(err,
                           "message %d has the role \"%.40s\": a prompt has one system message at most, first, "
                           "then user and assistant",
                           i + 1, turns[i].role);
        if (!chat->f.any_order && user != ((i - system) % 2 == 0))
            return err_set(
                err,
                "message %d has the role \"%.40s\": the model's chat format (%s) wants user and assistant "
                "in turn",
                i + 1, turns[i].role, chat->f.name);
    }
    return true;
}

static void put_system(const Chat *chat, ChatText *out, const char *system, bool trim) {
    put_mark(chat, out, chat->f.system[0]);
    if (chat->system_always) put_mark(chat, out, chat->system_always);
    put_plain(out, system, trim, trim);
    put_mark(chat, out, chat->f.system[1]);
}

static void put_user(const Chat *chat, ChatText *out, const char *system, const char *text) {
    const Format *f = &chat->f;
    put_mark(chat, out, f->user[0]);
    if (system) put_system(chat, out, system, false);
    put_plain(out, text, f->trim_user && !(system && f->joined), f->trim_user);
    put_mark(chat, out, f->user[1]);
}

bool chat_render(const Chat *chat, const ChatTurn *turns, int n, ChatText *out, Err *err) {
    if (!turns_check(chat, turns, n, err)) return false;
    buf_clear(&out->text);
    out->n = 0;
    const Format *f = &chat->f;
    const char *system = chat->default_system;
    if (strcmp(turns[0].role, "system") == 0) system = turns[0].text, turns++, n--;
    put_mark(chat, out, f->start);
    if (system && f->place == SYSTEM_TURN) put_system(chat, out, system, f->trim_system);
    for (int i = 0; i < n; i++) {
        bool holds = (f->place == SYSTEM_FIRST_USER && i == 0) || (f->place == SYSTEM_LAST_USER && i == n - 1);
        if (strcmp(turns[i].role, "user") == 0) {
            put_user(chat, out, holds ? system : NULL, turns[i].text);
            continue;
        }
        const char *text = without_thoughts(chat, turns[i].text);
        put_mark(chat, out, f->answer[0]);
        put_plain(out, text, f->trim_answer, f->trim_answer);
        put_mark(chat, out, f->answer[1]);
    }
    put_mark(chat, out, f->generation);
    return true;
}

char *chat_prompt_template(const Chat *chat, const char *system, Err *err) {
    ChatText text = {0};
    const ChatTurn turns[] = {{"system", system}, {"user", "{problem}"}};
    bool good = system ? chat_render(chat, turns, 2, &text, err) : chat_render(chat, turns + 1, 1, &text, err);
    char *result = good ? mem_text(text.text.p) : NULL;
    chat_text_free(&text);
    return result;
}

void chat_text_free(ChatText *text) {
    buf_free(&text->text);
    free(text->plain);
    *text = (ChatText){0};
}
