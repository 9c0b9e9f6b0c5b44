/* internal.h: what the readers and writers of model files share inside rollout/.
 *
 * Knows: mapped files, stored tensors and their number formats, the two containers (GGUF, safetensors), the list
 * of tensors that a Conf asks for. Nothing of it is seen outside the room. Ownership: a Mapped owns its mapping;
 * Gguf and Safetensors own their tables and mappings; names and metadata that they hand out live as long as they
 * do. Tested by tests/test_rollout_files.c.
 */
#ifndef WHET_ROLLOUT_INTERNAL_H
#define WHET_ROLLOUT_INTERNAL_H

#include "rollout/rollout.h"

#include <jansson.h>

/* ---- files (stored.c)
 * -------------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *p;
    size_t n;
} Mapped;

/* Maps a regular file that is not empty; err says which file and why otherwise. */
bool file_map(Mapped *map, const char *path, Err *err);
void file_unmap(Mapped *map);
bool file_exists(const char *path);
/* Reads a JSON file whose top is an object; duplicate keys are refused. NULL and err otherwise. */
json_t *json_file(const char *path, Err *err);
/* A file that is being written from front to back, as PATH.part: what PATH held stays until sink_close has synced
 * the new one to the disk, for it may be the very file that is read. sink_close says whether all went well; if
 * not, or if not `ok`, there is no new file. What is no regular file (/dev/stdout) is written as it is. */
typedef struct {
    int fd;
    const char *path;
    char *final, *part; /* NULL: written as it is */
    uint64_t n;         /* bytes so far */
    Err *err;
} Sink;
bool sink_open(Sink *sink, const char *path, Err *err);
bool sink_add(Sink *sink, const void *bytes, size_t n);
bool sink_close(Sink *sink, bool ok);
/* Writes the bytes and syncs them to the disk. */
bool file_write(const char *path, const void *bytes, size_t n, Err *err);
bool json_write(const char *path, const json_t *value, Err *err);

/* ---- stored tensors (stored.c; number formats: formats.c)
 * ----------------------------------------------------------------------------------- */

typedef enum {
    STORED_F32,
    STORED_F64,
    STORED_F16,
    STORED_BF16,
    STORED_E4M3, /* an FP8 without infinities; its scales are a tensor of their own */
    STORED_Q4_0,
    STORED_Q4_1,
    STORED_Q5_0,
    STORED_Q5_1,
    STORED_Q8_0,
    STORED_Q2_K,
    STORED_Q3_K,
    STORED_Q4_K,
    STORED_Q5_K,
    STORED_Q6_K,
    STORED_Q8_K,
    STORED_IQ4_NL,
    STORED_IQ4_XS,
    STORED_OTHER
} StoredType;

typedef struct {
    const char *name;      /* as the container names it */
    const char *type_name; /* for messages */
    StoredType type;       /* STORED_OTHER: known to be there, can't be read */
    int rows, cols;        /* -1 when the shape has more than two axes */
    bool is_vector;        /* rows is 1 */
    const uint8_t *bytes;  /* NULL for STORED_OTHER */
} StoredTensor;

/* Bytes of a tensor; false when a row is no whole number of blocks or the count overflows. */
bool stored_bytes(StoredType type, uint64_t rows, uint64_t cols, uint64_t *bytes);
/* Decodes one row to float32; false when a value is NaN or infinite. */
bool stored_row(const StoredTensor *tensor, int row, float *out);
/* Encodes n values as F32, F16, BF16, Q8_0 or Q4_0 (n: whole blocks); false when one is NaN, infinite or too large
 * for the type. The bits are those of the gguf package. */
bool stored_encode(StoredType type, const float *in, size_t n, uint8_t *out);
/* Sorts by name and refuses duplicates; `where` is the file, for the message. */
bool stored_sort(StoredTensor *tensors, int n, const char *where, Err *err);
const StoredTensor *stored_find(const StoredTensor *tensors, int n, const char *name);

/* Where a tensor lies in its file; overlapping ones are refused. Sorts the spans. */
typedef struct {
    uint64_t begin, end;
    const char *name;
} Span;
bool spans_check(Span *spans, int n, const char *where, Err *err);

/* ---- containers
 * -------------------------------------------------------------------------------------------------- */

typedef struct {
    const char *p; /* not NUL-terminated */
    size_t n;
} View;

typedef struct Gguf Gguf;
Gguf *gguf_open(const char *path, Err *err); /* of a split model: the first file; the others are opened with it */
int gguf_part(const char *path); /* the number in the name of a part of a split model, from 1; 0: none */
void gguf_close(Gguf *gguf);
const StoredTensor *gguf_tensor(const Gguf *gguf, const char *name);
/* Metadata: false when the key is missing or of another kind. */
bool gguf_has(const Gguf *gguf, const char *key);
bool gguf_int(const Gguf *gguf, const char *key, int64_t *out); /* any integer type, or bool */
bool gguf_float(const Gguf *gguf, const char *key, double *out);
bool gguf_text(const Gguf *gguf, const char *key, View *out);
/* Arrays: *out is allocated, the caller frees it; the views point into the file. */
bool gguf_texts(const Gguf *gguf, const char *key, View **out, int *n);
bool gguf_ints(const Gguf *gguf, const char *key, int32_t **out, int *n);
bool gguf_floats(const Gguf *gguf, const char *key, float **out, int *n);

const StoredTensor *safetensors_tensor(const Safetensors *file, const char *name);
int safetensors_all(const Safetensors *file, const StoredTensor **tensors); /* their number; sorted by name */
/* safetensors_write in any type that is plain numbers: F32, F16, BF16. */
bool safetensors_write_as(const char *path, const TensorEntry *entries, int n, StoredType type, TensorReader *read,
                          void *self, const char *const *metadata, Err *err);

/* ---- writing a GGUF (gguf_write.c) ----
 * Keys and tensors are gathered, then written; the count of both comes first in the file. */
typedef struct {
    Buf pairs;
    int n_pairs;
} GgufKeys;
void gguf_put_int(GgufKeys *keys, const char *key, uint32_t value);
void gguf_put_float(GgufKeys *keys, const char *key, float value);
void gguf_put_bool(GgufKeys *keys, const char *key, bool value);
void gguf_put_text(GgufKeys *keys, const char *key, const char *text, size_t n);
/* An array: begin with the count, then as many items. */
void gguf_put_texts(GgufKeys *keys, const char *key, uint64_t n);
void gguf_put_item(GgufKeys *keys, const char *text, size_t n);
void gguf_put_ints(GgufKeys *keys, const char *key, const int32_t *values, uint64_t n);
void gguf_put_floats(GgufKeys *keys, const char *key, const float *values, uint64_t n);

/* tokenizer_export.c: the tokenizer as llama.cpp wants it, with unused tokens up to `vocab`. False and err when
 * GGUF has no name for what it does. */
bool tokenizer_to_gguf(const Tokenizer *tok, const Conf *conf, GgufKeys *keys, Err *err);

/* ---- conf.c
 * ------------------------------------------------------------------------------------------------------ */

/* What makes a family of models: how it is called, what its files leave out, and its parts. */
typedef struct {
    const char *architecture, *type, *gguf; /* config.json's architectures and model_type; general.architecture */
    bool turned;                            /* GGUF holds the rows of q and k with rotary pairs side by side */
    bool attention_bias, mlp_bias;          /* these keys of config.json are honoured */
    bool qkv_bias, qk_norm, fused, tied;
    bool gemma;   /* norms of 1 + w before and after, scaled embedding, GELU, query_pre_attn_scalar */
    bool partial; /* partial_rotary_factor is honoured */
    int kv_heads, head_dim, positions, original; /* what a config.json leaves out; 0: follows from the rest */
    double theta, local_theta, eps;              /* local: a second table for the layers with a window */
    float attn_cap, final_cap;
    enum {
        WINDOWS_NONE,
        WINDOWS_ALL,      /* every layer, if there is a sliding_window */
        WINDOWS_LATER,    /* with use_sliding_window, from max_window_layers on */
        WINDOWS_TURNS,    /* all layers but each `every`-th */
        WINDOWS_UNTURNED, /* with use_sliding_window, the layers without rotary positions */
    } windows;
    int window, every;
    int unturned; /* each so-manieth layer has no rotary positions; 0: none */
} Family;

const char *families_text(void); /* for messages */
const Family *family_of(const char *architecture,
                        const char *type); /* by the first that is given; NULL: unknown */
const Family *family_of_gguf(View name);
const Family *family_of_conf(const Conf *conf);
void family_apply(const Family *family, Conf *conf);             /* the names and what depends on nothing else */
void conf_layers(const Family *family, Conf *conf, GluKind glu); /* makes the layers, without windows and tables */
bool conf_check(Conf *conf, const char *where, Err *err);
bool range_check(const char *where, const char *what, int64_t value, int64_t most, Err *err); /* 1 .. most */
bool number_check(const char *where, const char *what, double value, double least, double most, Err *err);

typedef struct {
    char name[96], gguf[64]; /* Hugging Face's and GGUF's name */
    int rows, cols;
    bool is_vector;
    bool from_one;    /* a norm that multiplies by 1 + w, which is what GGUF holds */
    int turned_heads; /* > 0: GGUF holds the rows of this many heads with rotary pairs side by side */
} TensorSpec;

Conf conf_copy(const Conf *conf); /* the caller's; conf_free */
/* The tensors of the model, in the order of the forward pass; the caller frees *specs. */
int conf_tensors(const Conf *conf, TensorSpec **specs);

/* ---- rope.c
 * ------------------------------------------------------------------------------------------------------ */

bool rope_check(const Rope *rope, int head_dim, const char *where, Err *err);
/* settings: rope_parameters or rope_scaling, or NULL. What they leave out: theta, original, and part, the share of
 * a head that turns (0: a family whose heads turn as a whole). The caller frees it with rope_free, also on
 * failure. */
bool rope_from_json(Rope *rope, const json_t *settings, double theta, double original, double part, int head_dim,
                    const char *where, Err *err);
json_t *rope_to_json(const Rope *rope); /* rope_scaling in the spelling of transformers 4, which 5 reads as well */
Rope rope_copy(const Rope *rope);
void rope_free(Rope *rope);

/* ---- conf_json.c
 * ------------------------------------------------------------------------------------------------------ */

bool conf_from_json(Conf *conf, const json_t *config, const json_t *generation, const char *where, Err *err);
/* config.json and generation_config.json; `type` is that of the weights: F32, F16 or BF16. */
bool conf_write(const Conf *conf, const char *folder, StoredType type, Err *err);
/* A number of the object, or `otherwise` when the key is missing or null; err when it is something else. */
bool json_number(const json_t *object, const char *key, double otherwise, double *out, const char *where,
                 Err *err);
json_t *json_of_float(float value); /* the shortest decimal that reads back as the same float */

/* ---- conf_gguf.c
 * ------------------------------------------------------------------------------------------------------ */

bool conf_from_gguf(Conf *conf, const Gguf *gguf, const char *where, Err *err);
/* Tensors of factors beside the weights: rotary tables. */
typedef struct {
    const char *name;
    float *values;
    int n;
} GgufFactors;
/* Everything that GGUF keeps of a Conf; the values of the factors are the caller's. False and err when GGUF can't
 * say it. */
bool conf_to_gguf(const Conf *conf, GgufKeys *keys, GgufFactors factors[2], int *n_factors, Err *err);

/* ---- adapter.c
 * ------------------------------------------------------------------------------------------------------ */

typedef struct Adapter Adapter;
/* Both mark the linears in conf and set its lora. */
Adapter *adapter_open(Conf *conf, const char *folder, Err *err);
Adapter *adapter_new(Conf *conf, const Lora *lora, const char *const *targets, const char *base, uint64_t seed,
                     Err *err);
void adapter_close(Adapter *adapter); /* NULL is fine */
const char *adapter_base_name(const Adapter *adapter);
bool adapter_tensor(const char *name); /* whether it is the name of an A or a B */
bool adapter_read(const Adapter *adapter, const char *name, int rows, int cols, float *out, Err *err);
/* Adds s B A to the weight of this name; nothing where it has no adapter. */
bool adapter_add(const Adapter *adapter, const char *name, int rows, int cols, float *w, Err *err);
unsigned lora_bit(const char *linear); /* of "self_attn.q_proj" in LayerConf.adapted; 0: it can have none */

/* ---- model_file.c
 * ------------------------------------------------------------------------------------------------ */

const Gguf *model_file_gguf(const ModelFile *file); /* NULL for a folder */
/* A norm that multiplies by 1 + w, as GGUF holds it: 1 + w. */
bool model_file_read_gain(const ModelFile *file, const char *name, int cols, float *out, Err *err);
/* Where GGUF keeps a row of a turned matrix of so many rows and heads. */
int row_turned(int row, int heads, int rows);

#endif
