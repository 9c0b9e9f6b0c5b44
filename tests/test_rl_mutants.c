/* test_rl_mutants.c: mutated model files, tokenizers, configs and chat templates: each is refused with one line,
 * or opens and can be read, encoded with and loaded; nothing crashes.
 *
 * Half of the mutations know the structure: a value, a length, a count, a key of a GGUF's or safetensors' header,
 * a node of a JSON file; the rest is any byte, a cut, a gap or a copy. A short run by default; the long one, which
 * prints what was refused and what opened:
 *
 *     make VARIANT=asan build/asan/tests/test_rl_mutants && WHET_MUTANTS=100000 build/asan/tests/test_rl_mutants
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "rl/chat.h"
#include "rollout/internal.h"

#define GOLDENS "tests/goldens/"
static char folder[64]; /* where the mutants lie */

/* ---- bytes ---- */

static Buf bytes_read(const char *path) {
    Buf all = {0};
    gzFile file = gzopen(path, "rb"); /* also what is not packed */
    if (!file) fail_msg("%s can't be read", path);
    char part[65536];
    for (int k; (k = gzread(file, part, sizeof part)) > 0;) buf_add(&all, part, (size_t)k);
    gzclose(file);
    return all;
}

static void bytes_write(const char *path, const char *p, size_t n) {
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(p, 1, n, file) != n || fclose(file)) fail_msg("%s can't be written", path);
}

static void copy_of(Buf *out, const Buf *in) {
    buf_clear(out);
    buf_add(out, in->p, in->n);
}

/* Puts n bytes in the place of `gone` bytes. */
static void splice(Buf *buf, size_t at, size_t gone, const char *p, size_t n) {
    Buf out = {0};
    buf_add(&out, buf->p, at);
    buf_add(&out, p, n);
    buf_add(&out, buf->p + at + gone, buf->n - at - gone);
    buf_free(buf);
    *buf = out;
}

/* Any byte, mostly near the front, where the headers are. */
static void mutate_bytes(Rng *rng, Buf *buf) {
    if (!buf->n) return;
    size_t at = rng_below(rng, rng_below(rng, 4) && buf->n > 2000 ? 2000 : buf->n);
    size_t n = 1 + rng_below(rng, 16);
    if (n > buf->n - at) n = buf->n - at;
    char some[16];
    for (size_t i = 0; i < sizeof some; i++) some[i] = (char)rng_below(rng, 256);
    switch (rng_below(rng, 7)) {
    case 0:
        buf->p[at] = some[0];
        break;
    case 1:
        buf->p[at] = (char)(buf->p[at] ^ 1 << rng_below(rng, 8));
        break;
    case 2:
        buf->p[at] = "0123456789{}[]\",:-\\enltu'%"[rng_below(rng, 26)];
        break;
    case 3:
        splice(buf, at, buf->n - at, NULL, 0);
        break;
    case 4:
        splice(buf, at, n, NULL, 0);
        break;
    case 5:
        splice(buf, at, 0, some, n);
        break;
    default: {
        char *from = mem_text_n(buf->p + at, n);
        splice(buf, rng_below(rng, buf->n), 0, from, n);
        free(from);
    }
    }
}

/* ---- the structure of JSON ---- */

static json_t *odd_value(Rng *rng, const json_t *now, json_t *root) {
    static const double REALS[] = {0, -1, 0.5, 1e-300, 1e300, 3.5e38, -1e-9, 1e9};
    static const json_int_t INTS[] = {0,         1,         -1,        2,         255,       257,      65536,
                                      INT32_MAX, INT32_MIN, 1ll << 31, 1ll << 40, INT64_MAX, INT64_MIN};
    static const char *const TEXTS[] = {"",  "a",       "F32",  "null", "\xc4\xa0", "(?<",   ".*",
                                        "[", "default", "yarn", "/",    "../x",     "<0x0A>"};
    switch (rng_below(rng, 9)) {
    case 0:
        return json_null();
    case 1:
        return json_boolean((int)rng_below(rng, 2));
    case 2:
        return json_real(REALS[rng_below(rng, 8)]);
    case 3:
        return json_string(TEXTS[rng_below(rng, 13)]);
    case 4:
        return rng_below(rng, 2) ? json_array() : json_object();
    case 5:
        return json_deep_copy(root);
    case 6:
        return json_is_integer(now) ? json_integer(json_integer_value(now) ^ (json_int_t)1 << rng_below(rng, 12))
                                    : json_integer(7);
    case 7:
        return json_pack("[O,O]", now, now);
    default:
        return json_integer(INTS[rng_below(rng, 13)]);
    }
}

/* Walks down from the root by chance and changes what it stops at. */
static void mutate_node(Rng *rng, json_t *root) {
    json_t *at = root;
    for (int depth = 0; depth < 12; depth++) {
        size_t n = json_is_object(at) ? json_object_size(at) : json_array_size(at);
        if (!n) return;
        size_t k = rng_below(rng, rng_below(rng, 2) && n > 8 ? 8 : n);
        void *iter = json_object_iter(at);
        for (size_t i = 0; iter && i < k; i++) iter = json_object_iter_next(at, iter);
        json_t *child = iter ? json_object_iter_value(iter) : json_array_get(at, k);
        bool inner = json_is_object(child) || json_is_array(child);
        if (inner && rng_below(rng, 5)) {
            at = child;
            continue;
        }
        json_t *value = odd_value(rng, child, child);
        bool remove = rng_below(rng, 6) == 0, more = rng_below(rng, 6) == 0;
        if (iter) {
            char *key = mem_text(json_object_iter_key(iter));
            if (remove)
                json_object_del(at, key);
            else if (more)
                key[rng_below(rng, strlen(key) + 1) % (strlen(key) + !*key)] = 'x',
                                                                     json_object_set(at, key, child);
            else
                json_object_set(at, key, value);
            free(key);
        } else if (remove)
            json_array_remove(at, k);
        else if (more)
            json_array_insert(at, k, child);
        else
            json_array_set(at, k, value);
        json_decref(value);
        return;
    }
}

static void mutate_json(Rng *rng, Buf *buf) {
    json_t *root = json_loadb(buf->p, buf->n, 0, NULL);
    if (!root) return;
    mutate_node(rng, root);
    char *text = json_dumps(root, JSON_COMPACT);
    if (text) splice(buf, 0, buf->n, text, strlen(text));
    free(text);
    json_decref(root);
}

/* The header of a safetensors file, whose length usually follows. */
static void mutate_safetensors(Rng *rng, Buf *buf) {
    uint64_t n;
    if (buf->n < 8 || (memcpy(&n, buf->p, 8), n > buf->n - 8)) return;
    Buf header = {0};
    buf_add(&header, buf->p + 8, n);
    mutate_json(rng, &header);
    uint64_t length = rng_below(rng, 8) ? header.n : header.n + rng_below(rng, 9) - 4;
    splice(buf, 8, n, header.p, header.n);
    memcpy(buf->p, &length, 8);
    buf_free(&header);
}

/* ---- the structure of a GGUF ---- */

typedef struct {
    size_t at, size;
} Field;
typedef struct {
    const Buf *file;
    size_t at;
    Field *fields;
    int n, room;
} Walk;

static uint64_t walk(Walk *w, size_t size, bool keep) {
    uint64_t value = 0;
    assert_true(w->at + size <= w->file->n);
    memcpy(&value, w->file->p + w->at, size < 8 ? size : 8);
    if (keep) {
        if (w->n == w->room)
            w->room = w->room ? 2 * w->room : 256, w->fields = mem_grow(w->fields, (size_t)w->room, sizeof(Field));
        w->fields[w->n++] = (Field){w->at, size};
    }
    w->at += size;
    return value;
}

static void walk_text(Walk *w, bool keep) {
    uint64_t n = walk(w, 8, keep);
    walk(w, n, keep && n);
}

/* A value of a type; of an array the first few items are fields. */
static void walk_value(Walk *w, uint64_t type, bool keep) {
    static const size_t SIZES[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    assert_true(type < 13);
    if (type == 8) walk_text(w, keep);
    if (SIZES[type]) walk(w, SIZES[type], keep);
    if (type != 9) return;
    uint64_t items = walk(w, 4, keep), n = walk(w, 8, keep);
    for (uint64_t i = 0; i < n; i++) walk_value(w, items, i < 6 || i + 1 == n);
}

/* Everything in the header of a sound file. */
static Walk gguf_walk(const Buf *file) {
    Walk w = {.file = file, .at = 4};
    walk(&w, 4, true);
    uint64_t tensors = walk(&w, 8, true), keys = walk(&w, 8, true);
    for (uint64_t i = 0; i < keys; i++) {
        walk_text(&w, true);
        walk_value(&w, walk(&w, 4, true), true);
    }
    for (uint64_t i = 0; i < tensors; i++) {
        walk_text(&w, true);
        uint64_t axes = walk(&w, 4, true);
        for (uint64_t a = 0; a < axes; a++) walk(&w, 8, true);
        walk(&w, 4, true);
        walk(&w, 8, true);
    }
    return w;
}

static void mutate_gguf(Rng *rng, Buf *buf, const Walk *w) {
    static const uint64_t ODD[] = {0,         1,        2,          3,          7,         8,
                                   9,         31,       33,         64,         255,       65535,
                                   INT32_MAX, 1u << 31, UINT32_MAX, 1ull << 40, INT64_MAX, UINT64_MAX};
    Field f = w->fields[rng_below(rng, (uint64_t)w->n)], other = w->fields[rng_below(rng, (uint64_t)w->n)];
    if (f.at + f.size > buf->n || other.at + other.size > buf->n) return;
    uint64_t value = 0;
    size_t n = f.size < 8 ? f.size : 8;
    memcpy(&value, buf->p + f.at, n);
    switch (rng_below(rng, 6)) {
    case 0:
        value = ODD[rng_below(rng, 18)];
        break;
    case 1:
        value += rng_below(rng, 2) ? 1 : UINT64_MAX;
        break;
    case 2:
        value ^= 1ull << rng_below(rng, 8 * n);
        break;
    case 3:
        memcpy(&value, buf->p + other.at, n < other.size ? n : other.size);
        break;
    case 4:
        splice(buf, f.at, f.size, NULL, 0);
        return;
    default: {
        char *from = mem_text_n(buf->p + other.at, other.size);
        splice(buf, f.at, rng_below(rng, 2) ? f.size : 0, from, other.size);
        free(from);
        return;
    }
    }
    memcpy(buf->p + f.at, &value, n);
}

/* ---- what a mutant must bear ---- */

static void check_line(const Err *err, const char *what) {
    if (!err->msg[0] || strchr(err->msg, '\n')) fail_msg("%s is refused by \"%s\"", what, err->msg);
}

static bool try_tokenizer(Tokenizer *tok, const Err *err) {
    static const char TEXT[] =
        "<|begin_of_text|>What is 7 + 8?  <s> na\xc3\xafve \xe4\xb8\x96\xe7\x95\x8c \xff\n\n\tx";
    if (!tok) {
        check_line(err, "a tokenizer");
        return false;
    }
    int *ids = NULL, n = 0, room = 0, frame[8], before, after;
    Buf out = {0};
    tokenizer_encode(tok, TEXT, sizeof TEXT - 1, true, &ids, &n, &room);
    tokenizer_decode(tok, ids, n, false, &out);
    tokenizer_frame(tok, frame, &before, frame + 4, &after);
    buf_free(&out);
    free(ids);
    tokenizer_close(tok);
    return true;
}

/* A model as a command takes it: file, tokenizer, every tensor, and (now and then: it is slow) on the device. */
static bool try_model(Dev *dev, const char *path, bool load) {
    Err err = {0};
    ModelFile *file = model_file_open(path, &err);
    if (!file) {
        check_line(&err, path);
        return false;
    }
    const char *jinja = model_file_chat_template(file);
    if (jinja) chat_close(chat_open(jinja, "<s>", "</s>", &err));
    bool good = try_tokenizer(tokenizer_open(file, &err), &err);
    TensorSpec *specs;
    int n = conf_tensors(model_file_conf(file), &specs);
    for (int i = 0; i < n && good; i++) {
        float *out = MEM_ARRAY(float, (size_t)specs[i].rows *(size_t)specs[i].cols);
        good = model_file_read(file, specs[i].name, specs[i].rows, specs[i].cols, out, &err);
        if (!good) check_line(&err, path);
        free(out);
    }
    free(specs);
    if (good && load) {
        Policy *policy = policy_load(dev, file, &(PolicyConf){.type = K_REAL, .max_positions = 64}, &err);
        if (!policy) check_line(&err, path);
        if (policy) policy_close(policy);
    }
    model_file_close(file);
    return good;
}

static bool try_config(const Buf *text) {
    Err err = {0};
    Conf conf = {0};
    json_t *config = json_loadb(text->p, text->n, 0, NULL);
    bool good = json_is_object(config) && conf_from_json(&conf, config, config, "config.json", &err);
    if (json_is_object(config) && !good) check_line(&err, "config.json");
    conf_free(&conf);
    json_decref(config);
    return good;
}

static bool try_chat(const Buf *text) {
    static const ChatTurn TURNS[] = {
        {"system", "S"}, {"user", "a </think> b"}, {"assistant", ""}, {"user", "{problem}"}};
    Err err = {0};
    char *jinja = mem_text_n(text->p, text->n);
    Chat *chat = chat_open(jinja, "<s>", "</s>", &err);
    if (!chat) check_line(&err, "a chat template");
    ChatText out = {0};
    if (chat && !chat_render(chat, TURNS, 4, &out, &err)) check_line(&err, "a conversation");
    for (int i = 0; i < out.n; i++)
        assert_true(out.plain[i].begin <= out.plain[i].end && out.plain[i].end <= out.text.n);
    chat_text_free(&out);
    bool good = chat != NULL;
    chat_close(chat);
    free(jinja);
    return good;
}

/* ---- the test ---- */

typedef enum { A_GGUF, A_SAFETENSORS, A_JSON, A_TOKENIZER, A_CONFIG, A_CHAT } What;
typedef struct {
    What what;
    const char *model, *file; /* a folder of the goldens and a file in it; NULL: the seeds stand in memory */
    unsigned share;
} Kind;
static const Kind KINDS[] = {
    {A_GGUF, "", "tiny.gguf", 4},
    {A_GGUF, "", "tiny-spm.gguf", 4},
    {A_GGUF, "tiny-split", "tiny-split-00001-of-00003.gguf", 2},
    {A_GGUF, "tiny-split", "tiny-split-00003-of-00003.gguf", 1},
    {A_SAFETENSORS, "tiny-biased", "model.safetensors", 3},
    {A_SAFETENSORS, "tiny-fp8", "model.safetensors", 2},
    {A_JSON, "tiny-biased", "config.json", 2},
    {A_JSON, "tiny-fp8", "config.json", 1},
    {A_JSON, "tiny-biased", "generation_config.json", 1},
    {A_JSON, "tiny-biased", "tokenizer.json", 2},
    {A_JSON, "tiny-biased", "tokenizer_config.json", 1},
    {A_JSON, "tiny-untied", "model.safetensors.index.json", 1},
    {A_TOKENIZER, "", "tokenizer-llama3.json", 2},
    {A_TOKENIZER, "", "tokenizer-qwen2.json", 2},
    {A_CONFIG, NULL, NULL, 4},
    {A_CHAT, NULL, NULL, 2},
};
enum { N_KINDS = sizeof KINDS / sizeof *KINDS };

/* The texts that are inside a golden's rows: the configs of all families, the chat templates. */
static Buf *seeds_of(What what, size_t *n) {
    Buf text = bytes_read(what == A_CONFIG ? GOLDENS "family-goldens.json.gz" : GOLDENS "chat-goldens.json.gz");
    json_t *rows = json_loadb(text.p, text.n, 0, NULL), *row;
    assert_non_null(rows);
    buf_free(&text);
    *n = json_array_size(rows);
    Buf *seeds = MEM_ARRAY(Buf, *n);
    size_t i;
    json_array_foreach(rows, i, row) {
        char *dump = what == A_CONFIG ? json_dumps(json_object_get(row, "config"), 0)
                                      : mem_text(json_string_value(json_object_get(row, "template")));
        buf_text(&seeds[i], dump);
        free(dump);
    }
    json_decref(rows);
    return seeds;
}

/* Copies what the model needs into a folder of its own. `file` is where the mutants will lie, `model` what is
 * opened. */
static void place_make(const Kind *kind, Arena *arena, const char **model, const char **file) {
    bool whole = kind->model[0] && kind->what != A_GGUF; /* a folder of the goldens */
    const char *from = whole ? arena_format(arena, "%s/", kind->model) : kind->model[0] ? kind->model : kind->file;
    char *place = arena_format(arena, "%s/%s-%s", folder, kind->model, kind->file);
    assert_int_equal(system(arena_format(arena, "mkdir %s && cp " GOLDENS "%s* %s/", place, from, place)), 0);
    *file = arena_format(arena, "%s/%s", place, kind->file);
    *model = kind->what != A_GGUF ? place : *file;
    if (strstr(*model, "-00003-of")) /* a split model is opened by its first part */
        *model = arena_format(arena, "%s/tiny-split-00001-of-00003.gguf", place);
}

static int mutants(Dev *dev, const Kind *kind, int rounds, uint64_t key) {
    const char *model = NULL, *file = NULL;
    Arena arena = {0};
    if (kind->model) place_make(kind, &arena, &model, &file);
    size_t n_seeds = 1;
    Buf *seeds = kind->model ? MEM_NEW(Buf) : seeds_of(kind->what, &n_seeds), bad = {0};
    if (kind->model) *seeds = bytes_read(file);
    Walk walked = {0};
    if (kind->what == A_GGUF) walked = gguf_walk(seeds);
    Rng rng = {.key = key};
    int opened = 0;
    for (int round = 0; round < rounds; round++) {
        copy_of(&bad, &seeds[rng_below(&rng, n_seeds)]);
        for (uint64_t k = 1 + rng_below(&rng, 3); k > 0; k--) {
            if (rng_below(&rng, 2) || kind->what == A_CHAT)
                mutate_bytes(&rng, &bad);
            else if (kind->what == A_GGUF)
                mutate_gguf(&rng, &bad, &walked);
            else if (kind->what == A_SAFETENSORS)
                mutate_safetensors(&rng, &bad);
            else
                mutate_json(&rng, &bad);
        }
        Err err = {0};
        if (kind->model) bytes_write(file, bad.p, bad.n);
        if (kind->what == A_TOKENIZER)
            opened += try_tokenizer(tokenizer_open_json(file, &err), &err);
        else if (kind->what == A_CONFIG)
            opened += try_config(&bad);
        else if (kind->what == A_CHAT)
            opened += try_chat(&bad);
        else
            opened += try_model(dev, model, round % 32 == 0);
    }
    for (size_t i = 0; i < n_seeds; i++) buf_free(&seeds[i]);
    free(seeds), free(walked.fields), buf_free(&bad), arena_free(&arena);
    return opened;
}

static void test_mutants(void **state) {
    (void)state;
    const char *asked = getenv("WHET_MUTANTS");
    int all = asked ? atoi(asked) : 3200, shares = 0, done = 0, open = 0;
    for (int i = 0; i < N_KINDS; i++) shares += (int)KINDS[i].share;
    Err err = {0};
    Dev *dev = dev_open(&(DevConf){.threads = 1}, &err);
    assert_non_null(dev);
    snprintf(folder, sizeof folder, "%s/whet-mutants-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < N_KINDS; i++) {
        int rounds = i + 1 < N_KINDS ? (int)((int64_t)all * KINDS[i].share / shares) : all - done;
        double begin = clock_seconds();
        int opened = mutants(dev, &KINDS[i], rounds, 1000 + (uint64_t)i + (asked ? 77 : 0));
        print_message("%-12s %-32s %6d mutants, %6d still open, %.2f ms each\n",
                      KINDS[i].model ? KINDS[i].model : "",
                      KINDS[i].file             ? KINDS[i].file
                      : KINDS[i].what == A_CHAT ? "chat templates"
                                                : "configs of all families",
                      rounds, opened, 1e3 * (clock_seconds() - begin) / rounds);
        done += rounds, open += opened;
    }
    print_message("%d mutants: %d refused with a line, %d still open\n", done, done - open, open);
    assert_int_equal(done, all);
    assert_true(open > all / 100 && open < all);
    dev_close(dev);
    char command[100];
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mutants)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
