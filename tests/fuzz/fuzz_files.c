/* fuzz_files.c: libFuzzer targets of all that is read of a model, one for each value of PARSER: GGUF (with its
 * tokenizer), SAFETENSORS, CONFIG (config.json), TOKENIZER (tokenizer.json), CHAT (a chat template). Anything may be
 * refused, with one line; nothing may crash. Built and run by tests/fuzz_files.sh. */
#include "rl/chat.h"
#include "rollout/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What saves an adapter asks a device for it, which is not linked here. */
bool policy_read(void *policy, int param, float *out, Err *err) {
    (void)policy, (void)param, (void)out, (void)err;
    CHECK(false, "there is no device here");
}

static void check_line(const Err *err) {
    CHECK(err->msg[0] && !strchr(err->msg, '\n'), "refused by \"%s\"", err->msg);
}

static void try_tokenizer(Tokenizer *tok, const Err *err) {
    static const char TEXT[] = "What is 7 + 8?  <s> na\xc3\xafve \xe4\xb8\x96\xe7\x95\x8c \xff\n\n\tx";
    if (!tok) {
        check_line(err);
        return;
    }
    int *ids = NULL, n = 0, room = 0;
    Buf out = {0};
    tokenizer_encode(tok, TEXT, sizeof TEXT - 1, true, &ids, &n, &room);
    tokenizer_decode(tok, ids, n, false, &out);
    buf_free(&out);
    free(ids);
    tokenizer_close(tok);
}

static void try_gguf(const char *path) {
    Err err = {0};
    ModelFile *file = model_file_open(path, &err);
    if (!file) {
        check_line(&err);
        return;
    }
    try_tokenizer(tokenizer_open(file, &err), &err);
    TensorSpec *specs;
    int n = conf_tensors(model_file_conf(file), &specs);
    for (int i = 0; i < n; i++) {
        float *out = MEM_ARRAY(float, (size_t)specs[i].rows *(size_t)specs[i].cols);
        model_file_read(file, specs[i].name, specs[i].rows, specs[i].cols, out, &err);
        free(out);
    }
    free(specs);
    model_file_close(file);
}

static void try_safetensors(const char *path) {
    Err err = {0};
    float out[64];
    Safetensors *file = safetensors_open(path, &err);
    if (!file) {
        check_line(&err);
        return;
    }
    const StoredTensor *t = safetensors_tensor(file, "a");
    if (t && t->bytes && t->cols <= 64 && t->rows > 0) stored_row(t, t->rows - 1, out);
    safetensors_close(file);
}

static void try_config(const char *text, size_t n) {
    Err err = {0};
    Conf conf = {0};
    json_t *config = json_loadb(text, n, 0, NULL);
    if (config && !conf_from_json(&conf, config, config, "config.json", &err)) check_line(&err);
    conf_free(&conf);
    json_decref(config);
}

static void try_chat(const char *text, size_t n) {
    Err err = {0};
    char *jinja = mem_text_n(text, n);
    Chat *chat = chat_open(jinja, "<s>", "</s>", &err);
    char *prompt = chat ? chat_prompt_template(chat, NULL, &err) : NULL;
    if (!prompt) check_line(&err);
    free(prompt);
    chat_close(chat);
    free(jinja);
}

enum { GGUF, SAFETENSORS, CONFIG, TOKENIZER, CHAT };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    Err err = {0};
    snprintf(path, sizeof path, "/dev/shm/whet-fuzz-%d.gguf", (int)getpid());
    if (PARSER != CONFIG && PARSER != CHAT) {
        FILE *file = fopen(path, "wb");
        CHECK(file && fwrite(data, 1, size, file) == size, "%s can't be written", path);
        fclose(file);
    }
    switch (PARSER) {
    case GGUF: try_gguf(path); break;
    case SAFETENSORS: try_safetensors(path); break;
    case CONFIG: try_config((const char *)data, size); break;
    case TOKENIZER: try_tokenizer(tokenizer_open_json(path, &err), &err); break;
    case CHAT: try_chat((const char *)data, size); break;
    }
    unlink(path);
    return 0;
}
