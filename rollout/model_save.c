/* model_save.c: writes a whole Hugging Face folder: of a policy's weights, or of another model file.
 *
 * Tested by tests/test_rollout_files.c, tests/test_rollout_export.c and tests/long_export.sh.
 */
#include "rollout/internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const METADATA[] = {"format", "pt", NULL};

/* Everything but the weights. */
static bool texts_save(const char *folder, const Conf *conf, const Tokenizer *tok, const char *chat_template,
                       const char *prompt_template, StoredType type, Err *err) {
    Arena arena = {0};
    bool ok = conf_write(conf, folder, type, err) && tokenizer_save(tok, conf, chat_template, folder, err);
    if (ok && prompt_template)
        ok = file_write(arena_format(&arena, "%s/whet_template.txt", folder), prompt_template,
                        strlen(prompt_template), err);
    arena_free(&arena);
    return ok;
}

bool model_save(const char *folder, const Conf *conf, const Tokenizer *tok, const char *chat_template,
                const char *prompt_template, const TensorEntry *entries, int n, bool bfloat16, TensorReader *read,
                void *self, Err *err) {
    StoredType type = bfloat16 ? STORED_BF16 : STORED_F32;
    Arena arena = {0};
    bool ok = texts_save(folder, conf, tok, chat_template, prompt_template, type, err) &&
              safetensors_write_as(arena_format(&arena, "%s/model.safetensors", folder), entries, n, type, read,
                                   self, METADATA, err);
    arena_free(&arena);
    return ok;
}

/* ---- from one file to another ---- */

typedef struct {
    const ModelFile *file;
    TensorEntry *entries; /* of the shard that is being written */
} Source;

static bool source_read(void *self, int index, float *out, Err *err) {
    const Source *source = self;
    const TensorEntry *e = &source->entries[index];
    return model_file_read(source->file, e->name, e->rows, e->cols, out, err);
}

/* Cuts the tensors into shards of at most so many bytes (or one tensor); returns how many and, for each tensor,
 * the shard it is in. */
static int shards_cut(const TensorEntry *entries, int n, int64_t item, int64_t most, int *shard) {
    int64_t bytes = 0;
    int count = 1;
    for (int i = 0; i < n; i++) {
        int64_t size = (int64_t)entries[i].rows * entries[i].cols * item;
        if (bytes && bytes + size > most) bytes = 0, count++;
        bytes += size;
        shard[i] = count;
    }
    return count;
}

static void shard_name(char name[64], int i, int count) {
    if (count == 1)
        snprintf(name, 64, "model.safetensors");
    else
        snprintf(name, 64, "model-%05d-of-%05d.safetensors", i, count);
}

static bool index_write(const char *folder, const TensorEntry *entries, int n, int64_t item, const int *shard,
                        int count, Err *err) {
    if (count == 1) return true;
    char name[64];
    int64_t total = 0;
    json_t *map = json_object();
    for (int i = 0; i < n; i++) {
        shard_name(name, shard[i], count);
        json_object_set_new(map, entries[i].name, json_string(name));
        total += (int64_t)entries[i].rows * entries[i].cols * item;
    }
    json_t *index = json_pack("{s:{s:I},s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    Arena arena = {0};
    bool ok = json_write(arena_format(&arena, "%s/model.safetensors.index.json", folder), index, err);
    arena_free(&arena);
    json_decref(index);
    return ok;
}

static bool weights_export(const ModelFile *file, StoredType type, int64_t shard_bytes, const char *folder,
                           Err *err) {
    TensorSpec *specs;
    int n = conf_tensors(model_file_conf(file), &specs), *shard = MEM_ARRAY(int, n);
    TensorEntry *entries = MEM_ARRAY(TensorEntry, n);
    for (int i = 0; i < n; i++)
        entries[i] = (TensorEntry){specs[i].name, specs[i].rows, specs[i].cols, specs[i].is_vector};
    int64_t item = type == STORED_F32 ? 4 : 2;
    int count = shards_cut(entries, n, item, shard_bytes, shard);
    Arena arena = {0};
    char name[64];
    bool ok = true;
    for (int s = 1, from = 0, to = 0; ok && s <= count; s++, from = to) {
        while (to < n && shard[to] == s) to++;
        Source source = {file, entries + from};
        shard_name(name, s, count);
        ok = safetensors_write_as(arena_format(&arena, "%s/%s", folder, name), entries + from, to - from, type,
                                  source_read, &source, METADATA, err);
    }
    ok = ok && index_write(folder, entries, n, item, shard, count, err);
    arena_free(&arena);
    free(specs), free(entries), free(shard);
    return ok;
}

bool model_export_hf(const ModelFile *file, const Tokenizer *tok, const char *dtype, int64_t shard_bytes,
                     const char *folder, Err *err) {
    StoredType type = strcmp(dtype, "f32") == 0    ? STORED_F32
                      : strcmp(dtype, "f16") == 0  ? STORED_F16
                      : strcmp(dtype, "bf16") == 0 ? STORED_BF16
                                                   : STORED_OTHER;
    if (type == STORED_OTHER)
        return err_set(
            err, "the dtype \"%.40s\" can't be written to a Hugging Face folder (f32, f16 and bf16 can)", dtype);
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return err_set(err, "%s: can't be made (%s)", folder, strerror(errno));
    return texts_save(folder, model_file_conf(file), tok, model_file_chat_template(file),
                      model_file_prompt_template(file), type, err) &&
           weights_export(file, type, shard_bytes, folder, err);
}
