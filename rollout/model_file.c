/* model_file.c: a model on disk, whichever container holds it.
 *
 * Opening finds every tensor that the Conf asks for and checks its shape, so that reading can fail on values only.
 * What a family is called stays in conf.c, bytes and number formats in gguf.c, safetensors.c and stored.c.
 * Tested by tests/test_rollout_files.c.
 */
#include "rollout/internal.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

enum { MOST_SHARDS = 10000 };

typedef struct {
    TensorSpec spec;
    const StoredTensor *stored;
    const StoredTensor *scales; /* of FP8: one factor for each block of scale_rows x scale_cols values */
    const char *where;          /* the file it lies in */
} Found;

struct ModelFile {
    char *path;
    Conf conf;
    int scale_rows, scale_cols; /* config.json's weight_block_size; 0: the weights are not FP8 */
    Gguf *gguf;                 /* or: */
    Safetensors **shards;
    char **shard_paths;
    int n_shards;
    Found *found; /* sorted by Hugging Face's name */
    int n_found;
    char *chat_template, *prompt_template;
    Adapter *adapter; /* NULL: none */
    bool merged;      /* the adapter is a part of the weights */
    Arena arena;
};

static char *path_in(Arena *arena, const char *folder, const char *name) {
    return arena_format(arena, "%s/%s", folder, name);
}

/* ---- the tensors ---- */

static int by_name(const void *a, const void *b) {
    return strcmp(((const Found *)a)->spec.name, ((const Found *)b)->spec.name);
}

static bool found_check(const Found *found, Err *err) {
    const TensorSpec *spec = &found->spec;
    const StoredTensor *t = found->stored;
    if (t->rows != spec->rows || t->cols != spec->cols)
        return err_set(
            err, "%s: the tensor %s is %d x %d, the settings ask for %d x %d: the file is broken, fetch it again",
            found->where, t->name, t->rows, t->cols, spec->rows, spec->cols);
    if (t->type == STORED_OTHER)
        return err_set(
            err,
            "%s: the tensor %s has the type %s, which is not supported (F64, F32, F16, BF16, FP8 e4m3, and in "
            "GGUF Q4_0 to Q8_0, Q2_K to Q8_K, IQ4_NL, IQ4_XS are): convert the model",
            found->where, t->name, t->type_name);
    return true;
}

/* A tensor of the folder; *where becomes the file that holds it or should. */
static const StoredTensor *shard_find(const ModelFile *file, const json_t *index, const char *name,
                                      const char **where) {
    const char *shard = index ? json_string_value(json_object_get(index, name)) : NULL;
    for (int s = 0; s < file->n_shards; s++) {
        if (index && (!shard || strcmp(strrchr(file->shard_paths[s], '/') + 1, shard) != 0)) continue;
        *where = file->shard_paths[s];
        return safetensors_tensor(file->shards[s], name);
    }
    return NULL;
}

/* The factors of an FP8 matrix: NAME_scale_inv, a float32 for each block. */
static bool scales_find(const ModelFile *file, const json_t *index, Found *found, Err *err) {
    const TensorSpec *spec = &found->spec;
    char name[sizeof spec->name + 16];
    snprintf(name, sizeof name, "%s_scale_inv", spec->name);
    if (file->scale_rows == 0)
        return err_set(err, "%s: the tensor %s is FP8 but config.json has no weight_block_size: not supported",
                       found->where, spec->name);
    const char *where = found->where;
    found->scales = shard_find(file, index, name, &where);
    int rows = (spec->rows - 1) / file->scale_rows + 1, cols = (spec->cols - 1) / file->scale_cols + 1;
    if (!found->scales || found->scales->rows != rows || found->scales->cols != cols ||
        found->scales->type == STORED_OTHER || found->scales->type == STORED_E4M3)
        return err_set(err,
                       "%s: the FP8 tensor %s needs the tensor %s with %d x %d numbers: fetch the model again",
                       where, spec->name, name, rows, cols);
    return true;
}

/* Looks up every tensor of the Conf. `index` maps names to shards; NULL: all lie in the first or in the GGUF. */
static bool tensors_find(ModelFile *file, const json_t *index, Err *err) {
    TensorSpec *specs;
    int n = conf_tensors(&file->conf, &specs);
    file->found = MEM_ARRAY(Found, n);
    bool ok = true;
    for (int i = 0; ok && i < n; i++) {
        Found *found = &file->found[file->n_found++];
        *found = (Found){.spec = specs[i], .where = file->path};
        const char *name = file->gguf ? specs[i].gguf : specs[i].name;
        if (file->gguf)
            found->stored = gguf_tensor(file->gguf, name);
        else
            found->stored = shard_find(file, index, name, &found->where);
        if (!found->stored)
            ok = err_set(err, "%s: the tensor %s is missing: the model is incomplete, fetch it again",
                         found->where, name);
        else
            ok = found_check(found, err) &&
                 (found->stored->type != STORED_E4M3 || scales_find(file, index, found, err));
    }
    free(specs);
    if (ok) qsort(file->found, (size_t)n, sizeof(Found), by_name);
    return ok;
}

static const Found *tensor_find(const ModelFile *file, const char *name) {
    Found key = {0};
    if (strlen(name) >= sizeof key.spec.name) return NULL;
    strcpy(key.spec.name, name);
    return bsearch(&key, file->found, (size_t)file->n_found, sizeof key, by_name);
}

bool model_file_has(const ModelFile *file, const char *name, int *rows, int *cols) {
    const Found *found = tensor_find(file, name);
    if (!found) return false;
    *rows = found->spec.rows;
    *cols = found->spec.cols;
    return true;
}

/* GGUF's llama files hold the rows of a head so that the two values of a rotary pair are neighbours; Hugging Face
 * holds first all first values, then all second ones. Returns where a row of Hugging Face's order lies. */
int row_turned(int row, int heads, int rows) {
    int head_dim = rows / heads, head = row / head_dim, i = row % head_dim, half = head_dim / 2;
    return head * head_dim + (i < half ? 2 * i : 2 * (i - half) + 1);
}

/* Multiplies a decoded FP8 matrix by its blocks' factors. */
static bool scales_apply(const Found *found, int scale_rows, int scale_cols, float *out) {
    int rows = found->spec.rows, cols = found->spec.cols;
    float *factors = MEM_ARRAY(float, found->scales->cols);
    bool ok = true;
    for (int r = 0; ok && r < rows; r++, out += cols) {
        if (r % scale_rows == 0) ok = stored_row(found->scales, r / scale_rows, factors);
        for (int c = 0; ok && c < cols; c++) out[c] *= factors[c / scale_cols];
    }
    free(factors);
    return ok;
}

/* Out of a GGUF, turned rows are put back, and of a norm of 1 + w the 1 is taken off. */
static bool found_read(const Found *found, bool from_gguf, float *out) {
    bool turned = from_gguf && found->spec.turned_heads > 0;
    const StoredTensor *t = found->stored;
    int heads = found->spec.turned_heads;
    if (turned && t->is_vector) { /* a bias: its columns are the rows of the matrix */
        float *row = MEM_ARRAY(float, t->cols);
        bool ok = stored_row(t, 0, row);
        for (int i = 0; i < t->cols; i++) out[i] = row[row_turned(i, heads, t->cols)];
        free(row);
        return ok;
    }
    for (int r = 0; r < t->rows; r++)
        if (!stored_row(t, turned ? row_turned(r, heads, t->rows) : r, out + (size_t)r * (size_t)t->cols))
            return false;
    for (int i = 0; from_gguf && found->spec.from_one && i < t->cols; i++) out[i] -= 1.0f;
    return true;
}

bool model_file_read(const ModelFile *file, const char *name, int rows, int cols, float *out, Err *err) {
    if (file->adapter && adapter_tensor(name)) return adapter_read(file->adapter, name, rows, cols, out, err);
    const Found *found = tensor_find(file, name);
    if (!found) return err_set(err, "%s: the tensor %.100s is missing: the model is incomplete", file->path, name);
    if (found->spec.rows != rows || found->spec.cols != cols)
        return err_set(err, "%s: the tensor %s is %d x %d, not %d x %d", found->where, found->stored->name,
                       found->spec.rows, found->spec.cols, rows, cols);
    if (found_read(found, file->gguf != NULL, out) &&
        (!found->scales || scales_apply(found, file->scale_rows, file->scale_cols, out)))
        return !file->merged || adapter_add(file->adapter, name, rows, cols, out, err);
    return err_set(err, "%s: the tensor %s holds NaN or infinity: the model is broken, take another one",
                   found->where, found->stored->name);
}

bool model_file_read_gain(const ModelFile *file, const char *name, int cols, float *out, Err *err) {
    if (!model_file_read(file, name, 1, cols, out, err)) return false;
    if (file->gguf) return stored_row(tensor_find(file, name)->stored, 0, out); /* as it is, to the last bit */
    for (int i = 0; i < cols; i++) out[i] += 1.0f;
    return true;
}

/* ---- a Hugging Face folder ---- */

static bool shard_open(ModelFile *file, const char *name, Err *err) {
    char *path = path_in(&file->arena, file->path, name);
    Safetensors *shard = safetensors_open(path, err);
    if (!shard) return false;
    file->shard_paths[file->n_shards] = path;
    file->shards[file->n_shards++] = shard;
    return true;
}

/* The files named by weight_map, each once. */
static bool shards_open(ModelFile *file, const json_t *map, const char *where, Err *err) {
    const char *tensor;
    json_t *value, *seen = json_object();
    bool ok =
        json_object_size(map) > 0 || err_set(err, "%s: weight_map is missing or empty: fetch it again", where);
    json_object_foreach((json_t *)map, tensor, value) {
        const char *name = json_string_value(value);
        if (!ok) break;
        if (!name || !name[0] || strchr(name, '/') || name[0] == '.')
            ok = err_set(err, "%s: weight_map gives %.100s no plain file name: fetch it again", where, tensor);
        else if (!json_object_get(seen, name)) {
            json_object_set_new(seen, name, json_true());
            if (json_object_size(seen) > MOST_SHARDS)
                ok = err_set(err, "%s: names too many files: fetch it again", where);
        }
    }
    file->shards = MEM_ARRAY(Safetensors *, json_object_size(seen));
    file->shard_paths = MEM_ARRAY(char *, json_object_size(seen));
    json_object_foreach(seen, tensor, value) ok = ok && shard_open(file, tensor, err);
    json_decref(seen);
    return ok;
}

static bool weights_open(ModelFile *file, Err *err) {
    char *single = path_in(&file->arena, file->path, "model.safetensors");
    char *many = path_in(&file->arena, file->path, "model.safetensors.index.json");
    if (file_exists(single) || !file_exists(many)) {
        if (!file_exists(single))
            return err_set(err,
                           "%s: has neither model.safetensors nor model.safetensors.index.json: fetch the weights "
                           "(other formats are not supported)",
                           file->path);
        file->shards = MEM_ARRAY(Safetensors *, 1);
        file->shard_paths = MEM_ARRAY(char *, 1);
        return shard_open(file, "model.safetensors", err) && tensors_find(file, NULL, err);
    }
    json_t *index = json_file(many, err);
    if (!index) return false;
    const json_t *map = json_object_get(index, "weight_map");
    bool ok = shards_open(file, map, many, err) && tensors_find(file, map, err);
    json_decref(index);
    return ok;
}

/* The whole of a small text file, or NULL. */
static char *text_read(const char *path) {
    Mapped map;
    if (!file_map(&map, path, NULL)) return NULL;
    char *text = mem_text_n((const char *)map.p, map.n);
    file_unmap(&map);
    return text;
}

/* chat_template.jinja, or the key of tokenizer_config.json (a text, or a list of named ones). */
static char *chat_template_read(Arena *arena, const char *folder) {
    char *text = text_read(path_in(arena, folder, "chat_template.jinja"));
    if (text) return text;
    json_t *config = json_file(path_in(arena, folder, "tokenizer_config.json"), NULL);
    const json_t *value = json_object_get(config, "chat_template"), *item;
    size_t i;
    json_array_foreach(value, i, item) {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && strcmp(name, "default") == 0) value = json_object_get(item, "template");
        if (json_is_string(value)) break;
    }
    if (json_is_string(value)) text = mem_text(json_string_value(value));
    json_decref(config);
    return text;
}

/* FP8 with a factor for each block of values is the one way of quantising a folder that is read. */
static bool block_size_read(ModelFile *file, const json_t *config, const char *where, Err *err) {
    const json_t *how = json_object_get(config, "quantization_config");
    if (!json_is_object(how)) return true;
    const char *method = json_string_value(json_object_get(how, "quant_method"));
    const json_t *block = json_object_get(how, "weight_block_size");
    json_int_t rows = json_integer_value(json_array_get(block, 0)),
               cols = json_integer_value(json_array_get(block, 1));
    if (!method || strcmp(method, "fp8") != 0 || json_array_size(block) != 2 || rows < 1 || cols < 1 ||
        rows > 1 << 20 || cols > 1 << 20)
        return err_set(err,
                       "%s: this way of quantising (\"%.60s\") is not supported (fp8 with weight_block_size is): "
                       "give the model "
                       "in float16, bfloat16 or float32, or a GGUF",
                       where, method ? method : "?");
    file->scale_rows = (int)rows, file->scale_cols = (int)cols;
    return true;
}

static bool folder_open(ModelFile *file, Err *err) {
    char *config_path = path_in(&file->arena, file->path, "config.json");
    char *generation_path = path_in(&file->arena, file->path, "generation_config.json");
    json_t *config = json_file(config_path, err), *generation = NULL;
    if (!config) return false;
    bool ok = true;
    if (file_exists(generation_path)) {
        generation = json_file(generation_path, err);
        ok = generation != NULL;
    }
    ok = ok && conf_from_json(&file->conf, config, generation, config_path, err) &&
         block_size_read(file, config, config_path, err) && weights_open(file, err);
    json_decref(config);
    json_decref(generation);
    if (!ok) return false;
    file->chat_template = chat_template_read(&file->arena, file->path);
    file->prompt_template = text_read(path_in(&file->arena, file->path, "whet_template.txt"));
    return true;
}

/* ---- opening ---- */

static bool gguf_file_open(ModelFile *file, Err *err) {
    file->gguf = gguf_open(file->path, err);
    if (!file->gguf || !conf_from_gguf(&file->conf, file->gguf, file->path, err) || !tensors_find(file, NULL, err))
        return false;
    View text;
    if (gguf_text(file->gguf, "tokenizer.chat_template", &text)) file->chat_template = mem_text_n(text.p, text.n);
    if (gguf_text(file->gguf, "whet.prompt_template", &text)) file->prompt_template = mem_text_n(text.p, text.n);
    return true;
}

/* A folder with no config.json but one GGUF file, or one that is split, stands for that file. */
static char *gguf_inside(const char *folder) {
    DIR *dir = opendir(folder);
    if (!dir) return NULL;
    Buf buf = {0};
    int n = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t length = strlen(entry->d_name);
        if (length < 6 || strcmp(entry->d_name + length - 5, ".gguf") != 0 || gguf_part(entry->d_name) > 1)
            continue;
        buf_clear(&buf);
        buf_format(&buf, "%s/%s", folder, entry->d_name);
        n++;
    }
    closedir(dir);
    if (n == 1) return buf.p;
    buf_free(&buf);
    return NULL;
}

ModelFile *model_file_open(const char *path, Err *err) {
    struct stat st;
    ModelFile *file = MEM_NEW(ModelFile);
    file->path = mem_text(path);
    bool ok;
    if (stat(path, &st) != 0)
        ok = err_set(err, "%s: there is no such model file or folder: check the path", path);
    else if (!S_ISDIR(st.st_mode))
        ok = gguf_file_open(file, err);
    else if (file_exists(path_in(&file->arena, path, "config.json")))
        ok = folder_open(file, err);
    else {
        char *inside = gguf_inside(path);
        if (inside) {
            free(file->path);
            file->path = inside;
        }
        ok =
            inside
                ? gguf_file_open(file, err)
                : err_set(err,
                          "%s: no config.json in this folder, and not exactly one .gguf file: give a GGUF file or "
                          "a Hugging Face folder",
                          path);
    }
    if (ok) return file;
    model_file_close(file);
    return NULL;
}

void model_file_close(ModelFile *file) {
    if (!file) return;
    gguf_close(file->gguf);
    for (int i = 0; i < file->n_shards; i++) safetensors_close(file->shards[i]);
    free(file->shards);
    free(file->shard_paths);
    free(file->found);
    conf_free(&file->conf);
    free(file->chat_template);
    free(file->prompt_template);
    free(file->path);
    adapter_close(file->adapter);
    arena_free(&file->arena);
    free(file);
}

/* ---- adapters ---- */

/* The templates that lie with the adapters are those that they learnt with. */
static void text_replace(char **text, char *by) {
    if (!by) return;
    free(*text);
    *text = by;
}

bool model_file_adapt(ModelFile *file, const char *folder, Err *err) {
    CHECK(!file->adapter, "%s has adapters already", file->path);
    file->adapter = adapter_open(&file->conf, folder, err);
    if (!file->adapter) return false;
    text_replace(&file->chat_template, chat_template_read(&file->arena, folder));
    text_replace(&file->prompt_template, text_read(path_in(&file->arena, folder, "whet_template.txt")));
    return true;
}

bool model_file_adapt_new(ModelFile *file, const Lora *lora, const char *const *targets, const char *base,
                          uint64_t seed, Err *err) {
    CHECK(!file->adapter, "%s has adapters already", file->path);
    file->adapter = adapter_new(&file->conf, lora, targets, base, seed, err);
    return file->adapter != NULL;
}

const char *model_file_base(const ModelFile *file) {
    return file->adapter && !file->merged ? adapter_base_name(file->adapter) : NULL;
}

void model_file_merge(ModelFile *file) {
    if (!file->adapter) return;
    file->merged = true;
    file->conf.lora = (Lora){0};
    for (int l = 0; l < file->conf.n_layers; l++) file->conf.layers[l].adapted = 0;
}

const Conf *model_file_conf(const ModelFile *file) { return &file->conf; }
const Gguf *model_file_gguf(const ModelFile *file) { return file->gguf; }
uint64_t model_file_hash(const ModelFile *file) {
    uint64_t hash = 0, bytes;
    for (int i = 0; i < file->n_found; i++) {
        const StoredTensor *t = file->found[i].stored;
        if (!t->bytes || !stored_bytes(t->type, (uint64_t)t->rows, (uint64_t)t->cols, &bytes)) continue;
        hash = XXH3_64bits_withSeed(t->bytes, bytes, rng_mix(hash, (uint64_t)t->type));
    }
    return hash;
}

const char *model_file_path(const ModelFile *file) { return file->path; }
const char *model_file_chat_template(const ModelFile *file) { return file->chat_template; }
const char *model_file_prompt_template(const ModelFile *file) { return file->prompt_template; }
