/* open.c: opens device, model file, tokenizer and weights for all commands. Tested by tests/cmd_run.sh. */
#include "rl/open.h"

#include "rl/chat.h"
#include "rl/pull.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void open_options(OpenConf *conf, Option options[OPEN_OPTIONS]) {
    const Option all[OPEN_OPTIONS] = {
        {"model", KEY_TEXT, &conf->model, 0, 0, "a Hugging Face folder, a .gguf file, or ORG/MODEL in the cache"},
        {"dtype", KEY_TEXT, &conf->dtype, 0, 0, "what is computed in: float32 or bfloat16"},
        {"device", KEY_TEXT, &conf->device, 0, 0, "auto (a GPU if there is one), cpu, cuda, cuda:N"},
        {"cpu_path", KEY_TEXT, &conf->cpu_path, 0, 0,
         "instruction set: auto, plain, avx2, avx512, avx512_bf16, avx512_bf16_plain, amx, amx_plain"},
        {"threads", KEY_WHOLE, &conf->threads, 0, 256, "0: as many as cores"},
        {"max_memory", KEY_BYTES, &conf->max_memory, 0, 0,
         "most bytes to take (8G, 500M), of those that are free"},
    };
    memcpy(options, all, sizeof all);
}

/* ---- memory ---- */

/* The number that stands in a file after `key` (or at its beginning); -1 when there is none. */
static int64_t number_in(const char *path, const char *key) {
    FILE *file = fopen(path, "r");
    char line[256];
    long long value = -1;
    while (file && value < 0 && fgets(line, sizeof line, file))
        if (strncmp(line, key, strlen(key)) != 0 || sscanf(line + strlen(key), "%lld", &value) != 1) value = -1;
    if (file) fclose(file);
    return value;
}

int64_t memory_free(void) {
    int64_t machine = number_in("/proc/meminfo", "MemAvailable:");
    int64_t most = number_in("/sys/fs/cgroup/memory.max", ""),
            used = number_in("/sys/fs/cgroup/memory.current", "");
    int64_t pages = number_in("/sys/fs/cgroup/memory.stat", "inactive_file "); /* given back when asked for */
    int64_t all = machine < 0 ? INT64_MAX : machine * 1024;
    int64_t group = most < 0 || used < 0 ? INT64_MAX : most - used + (pages > 0 ? pages : 0);
    return all < group ? all : group;
}

/* ---- open ---- */

static bool type_read(const char *dtype, DType *type, Err *err) {
    *type = dtype && strcmp(dtype, "float32") == 0 ? K_REAL : K_BF16;
    if (!dtype || *type == K_REAL || strcmp(dtype, "bfloat16") == 0) return true;
    return err_set(err, "dtype %s is not known; use float32 or bfloat16", dtype);
}

bool model_int8(const OpenConf *conf, const Dev *dev, bool *int8, Err *err) {
    const char *weights = conf->sampling_weights;
    *int8 = weights && strcmp(weights, "int8") == 0;
    if (weights && !*int8 && strcmp(weights, "exact") != 0)
        return err_set(err, "sampling_weights %s is not known; use exact or int8", weights);
    return !*int8 || k_has_int8(dev) ||
           err_set(err,
                   "sampling_weights int8 is for the CPU, and this is %s: say device cpu, or leave it at exact",
                   dev_path(dev));
}

static ModelFile *file_named(const char *name, bool adapters, Err *err);

/* A model's file or folder; or a folder of adapters: their base model, with them. */
static ModelFile *file_at(const char *path, bool adapters, Err *err) {
    char *base;
    if (!adapter_base(path, &base, err)) return NULL;
    if (!base) return model_file_open(path, err);
    Err why = {0};
    ModelFile *file = adapters ? file_named(base, false, &why) : NULL;
    if (!adapters)
        err_set(err, "%s: this folder holds adapters, no model", path);
    else if (!file)
        err_set(err, "%s: the base model that adapter_config.json names (base_model_name_or_path): %s", path,
                why.msg);
    free(base);
    if (!file || model_file_adapt(file, path, err)) return file;
    model_file_close(file);
    return NULL;
}

static ModelFile *file_named(const char *name, bool adapters, Err *err) {
    struct stat st;
    bool there = stat(name, &st) == 0;
    char *cached = there ? NULL : cache_find(name);
    ModelFile *file = NULL;
    if (there || cached)
        file = file_at(cached ? cached : name, adapters, err);
    else if (cache_name(name))
        err_set(
            err,
            "%s: there is no such model file or folder, nor a model of that name in the cache: check the path, "
            "or run `whet pull %s`",
            name, name);
    else
        file = model_file_open(name, err);
    free(cached);
    return file;
}

ModelFile *model_file_named(const char *name, Err *err) { return file_named(name, true, err); }

bool model_open(Model *model, const OpenConf *conf, Err *err) {
    *model = (Model){0};
    if (!conf->model) return err_set(err, "--model is needed: a Hugging Face folder or a .gguf file");
    if (!type_read(conf->dtype, &model->type, err)) return false;
    DevConf dev = {.device = conf->device, .path = conf->cpu_path, .threads = (int)conf->threads};
    model->dev = dev_open(&dev, err);
    if (model->dev && model_int8(conf, model->dev, &model->int8, err))
        model->file = model_file_named(conf->model, err);
    if (model->file) model->tok = tokenizer_open(model->file, err);
    if (model->tok) {
        int64_t left = dev_left(model->dev), there = left < 0 ? memory_free() : left;
        model->memory = conf->max_memory > 0 && conf->max_memory < there ? conf->max_memory : there;
        dev_limit(model->dev, (size_t)model->memory);
        return true;
    }
    model_close(model);
    return false;
}

bool model_load(Model *model, PolicyConf *conf, size_t more, Err *err) {
    conf->type = model->type;
    size_t weights = policy_bytes(model->dev, model_file_conf(model->file), conf);
    if (weights + more > (size_t)model->memory)
        return err_set(
            err,
            "%.2f GB of memory are needed (%.2f GB for the weights) and %.2f GB may be taken: use fewer "
            "--slots, shorter sequences or a smaller model",
            (double)(weights + more) * 1e-9, (double)weights * 1e-9, (double)model->memory * 1e-9);
    model->policy = policy_load(model->dev, model->file, conf, err);
    return model->policy != NULL;
}

Engine *model_engine(Model *model, long n_prompt, long max_new, EngineConf *conf, Err *err) {
    const Conf *model_conf = model_file_conf(model->file);
    int most = model_conf->max_positions;
    conf->max_tokens = n_prompt < most && max_new < most - n_prompt ? (int)(n_prompt + max_new) : most;
    PolicyConf policy = {.type = model->type, .int8 = model->int8, .max_positions = conf->max_tokens};
    size_t weights = policy_bytes(model->dev, model_conf, &policy), more;
    for (;; conf->slots /= 2) {
        more = engine_bytes(model->dev, model_conf, model->type, conf) +
               workspace_bytes(model->dev, model_conf, engine_rows(model->dev, conf));
        if (weights + more <= (size_t)model->memory || conf->slots == 1) break;
    }
    if (!model_load(model, &policy, more, err)) return NULL;
    return engine_open(model->policy, model->tok, conf, err);
}

/* The text of a control token of the model; "" for none. */
static char *token_text(const Tokenizer *tok, int id) {
    size_t n;
    const char *p = tokenizer_piece(tok, id, &n);
    return mem_text_n(p, n);
}

bool model_prompt_form(Model *model, const PromptAsk *ask, PromptForm *out, Err *err) {
    const char *jinja = ask->chat_template ? ask->chat_template : model_file_chat_template(model->file);
    bool chat = ask->chat_template || ask->system; /* the chat format is to make them, whatever else there is */
    *out = (PromptForm){.text = ask->text || chat ? ask->text : model_file_prompt_template(model->file),
                        .system = ask->system};
    if (!jinja)
        return !chat || err_set(err, "system_prompt: the model has no chat format: write it into prompt_template");
    const Conf *conf = model_file_conf(model->file);
    char *bos = token_text(model->tok, conf->bos), *eos = token_text(model->tok, conf->n_eos ? conf->eos[0] : -1);
    Err why = {0};
    chat_close(model->chat);
    free(model->chat_prompt);
    model->chat = chat_open(jinja, bos, eos, &why);
    model->chat_prompt = model->chat ? chat_prompt_template(model->chat, ask->system, &why) : NULL;
    free(bos);
    free(eos);
    if (!out->text && !model->chat_prompt) return err_set(err, "%s", why.msg);
    if (!out->text) out->text = model->chat_prompt;
    if (model->chat_prompt && strcmp(out->text, model->chat_prompt) == 0) out->chat = model->chat;
    return true;
}

void model_close(Model *model) {
    free(model->chat_prompt);
    chat_close(model->chat);
    policy_close(model->policy);
    if (model->tok) tokenizer_close(model->tok);
    if (model->file) model_file_close(model->file);
    dev_close(model->dev);
    *model = (Model){0};
}
