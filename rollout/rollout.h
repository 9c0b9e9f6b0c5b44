/* rollout.h: the room that runs the policy.
 *
 * Knows: model files, the network's forward pass, tokens, KV memory, sampling. Must never know: problems, scores,
 * losses, the store. It receives and returns arrays of tokens.
 * Structs: Conf (a model as data), ModelFile (an open model on disk), Tokenizer, Params and Policy (weights on a
 * device), Batch and Tape (one forward pass), Engine, Request and Sample (continuous batching).
 * Ownership: each struct that has an _open or _load has a _close that frees it; a Sample belongs to who takes it.
 * Tested by tests/test_rollout_*.c.
 */
#ifndef WHET_ROLLOUT_H
#define WHET_ROLLOUT_H

#include "kernels/base.h"
#include "kernels/kernels.h"

/* ---- a model as data ---- */

/* One table of rotary positions: the speeds of its pairs (x[i], x[i + turned/2]) and how they were stretched for
 * more positions than the model first learnt. */
typedef enum { ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_YARN, ROPE_LONG, ROPE_LLAMA3 } RopeKind;
typedef struct {
    RopeKind kind;
    int turned; /* features of a head that turn, from the first on */
    double theta, factor;
    double original;  /* positions before the stretching */
    double low, high; /* llama3: low and high_freq_factor; yarn: beta_slow and beta_fast */
    double attention; /* factor on cos and sin; 0: what the kind says */
    double mscale, mscale_all;
    bool whole; /* yarn: its range is rounded to whole pairs */
    float *shorter,
        *longer; /* long: turned/2 factors for sequences of up to `original` positions, and for others */
} Rope;

/* One layer. No name of a model family appears outside conf*.c. */
typedef struct {
    int rope;   /* which of the model's tables turns q and k; -1: none */
    int window; /* keys that a query sees, itself included; 0: all before it */
    GluKind glu;
    bool qkv_bias, out_bias, mlp_bias;
    bool qk_norm;     /* each head of q and k is normed before it turns */
    bool post_norms;  /* what attention and feed-forward give is normed before it is added */
    bool fused;       /* q, k and v are one parameter, gate and up another */
    unsigned adapted; /* which linears have a low-rank adapter: bits of adapter.c's table */
} LayerConf;

/* Low-rank adapters (LoRA: Hu et al. 2021, arXiv 2106.09685): y = x W^T + bias + s (x A^T) B^T, with A [r, inputs]
 * and B [outputs, r]; s = alpha / r, or alpha / sqrt(r) (rsLoRA: Kalajdzievski 2023, arXiv 2312.03732). */
typedef struct {
    int r; /* 0: the model has none */
    double alpha;
    bool rslora;
} Lora;

typedef struct {
    char architecture[64]; /* config.json's architectures[0], e.g. "LlamaForCausalLM": for saving only */
    char model_type[64];   /* e.g. "llama": for saving only */
    int dim, hidden, n_layers, n_heads, n_kv_heads, head_dim, vocab;
    int max_positions;
    float norm_eps;
    bool norms_from_one;       /* norms multiply by 1 + w */
    float embed_scale;         /* the embedding's rows are multiplied by it */
    double attn_scalar;        /* scores are q k / sqrt(attn_scalar) */
    float attn_cap, final_cap; /* soft caps of scores and of logits; 0: none */
    Rope ropes[2];
    int n_ropes;
    bool tied;                   /* the head is the embedding */
    int bos, eos[8], n_eos, pad; /* token ids; -1: none */
    LayerConf *layers;           /* n_layers */
    Lora lora;
} Conf;

/* A config.json alone, for weights at random; conf_free. */
bool conf_open(const char *path, Conf *conf, Err *err);
void conf_free(Conf *conf);

/* The speeds of a table, float32 as transformers computes them (turned/2 of them), for sequences of up to
 * `positions` tokens: dynamic and long tables depend on it. Returns the factor on cos and sin. */
double rope_speeds(const Conf *conf, const Rope *rope, int positions, float *speeds);

/* A model on disk: a GGUF file or a Hugging Face folder. Nothing is read into memory but headers; weights are
 * mapped. */
typedef struct ModelFile ModelFile;
ModelFile *model_file_open(const char *path, Err *err); /* checks headers, shapes, sizes, supported architecture */
const Conf *model_file_conf(const ModelFile *file);     /* owned by the file */
/* Whether the file has a tensor of this Hugging Face name ("model.layers.0.self_attn.q_proj.weight"), and its
 * shape (rows x cols; a vector is 1 x n). */
bool model_file_has(const ModelFile *file, const char *name, int *rows, int *cols);
/* Writes the tensor as float32, row-major, in Hugging Face's order of rows (a GGUF's permuted q and k are put
 * back); quantised types are dequantised. False and err on NaN or infinity, a wrong shape, or a type that is not
 * supported. */
bool model_file_read(const ModelFile *file, const char *name, int rows, int cols, float *out, Err *err);
const char *model_file_chat_template(const ModelFile *file); /* the jinja text as found, or NULL */
/* A plain-text template with {problem} saved with a checkpoint (whet_template.txt), or NULL. */
const char *model_file_prompt_template(const ModelFile *file);
const char *model_file_path(const ModelFile *file);
uint64_t model_file_hash(const ModelFile *file); /* of its tensors as they are stored, adapters left out */
void model_file_close(ModelFile *file);

/* ---- low-rank adapters of a model file ----
 * A folder in PEFT's layout (adapter_config.json, adapter_model.safetensors) names its base model; the base's
 * ModelFile takes the adapters: its Conf then has them, and model_file_read gives their tensors, named
 * "model.layers.0.self_attn.q_proj.lora_A.weight" and "...lora_B.weight". */

/* Whether the folder holds adapters and no model. *base: the name or path of the base model, the caller's; NULL
 * when it holds none. False and err when adapter_config.json can't be read. */
bool adapter_base(const char *folder, char **base, Err *err);
/* Lays the folder's adapters over the open base model. */
bool model_file_adapt(ModelFile *file, const char *folder, Err *err);
/* Lays new ones over it, as PEFT begins: A uniform within 1 / sqrt(inputs), a function of seed, name and place; B
 * zero. targets (NULL-terminated): the last names of linears ("q_proj"), or "all-linear". `base` is how
 * adapter_config.json will call the base model. */
bool model_file_adapt_new(ModelFile *file, const Lora *lora, const char *const *targets, const char *base,
                          uint64_t seed, Err *err);
const char *model_file_base(const ModelFile *file); /* how they call the base model; NULL without adapters */
/* From now on the Conf has no adapters, and model_file_read gives W + s B A, summed in double and rounded once. */
void model_file_merge(ModelFile *file);
double lora_scale(const Lora *lora);

/* ---- tokenizer ---- */

typedef struct Tokenizer Tokenizer;
Tokenizer *tokenizer_open(const ModelFile *file, Err *err);
Tokenizer *tokenizer_open_json(const char *path, Err *err); /* a tokenizer.json alone */
/* Appends the ids of text to *ids (grown with mem_grow; *n counts them, *room is its capacity). With `special`,
 * added tokens are recognised in the text, as Hugging Face does; without, the text is plain. The tokenizer's own
 * BOS/EOS post-processing is not applied: see tokenizer_frame. */
void tokenizer_encode(const Tokenizer *tok, const char *text, size_t n, bool special, int **ids, int *count,
                      int *room);
/* Ids that the tokenizer's own settings put before and after every text (usually none or one BOS): up to 4 each.
 */
void tokenizer_frame(const Tokenizer *tok, int before[4], int *n_before, int after[4], int *n_after);
/* Appends the bytes of the ids; with skip_special, added special tokens are left out. */
void tokenizer_decode(const Tokenizer *tok, const int *ids, int n, bool skip_special, Buf *out);
/* The bytes of one token (a view; not NUL-terminated), also for special tokens. */
const char *tokenizer_piece(const Tokenizer *tok, int id, size_t *n);
bool tokenizer_is_special(const Tokenizer *tok, int id);
int tokenizer_find(const Tokenizer *tok, const char *piece); /* id of an added token by its text, or -1 */
int tokenizer_vocab(const Tokenizer *tok);                   /* largest id + 1 */
/* Writes tokenizer.json and tokenizer_config.json (with the chat template, when not NULL) that Hugging Face's
 * AutoTokenizer loads to the same ids, also when the tokenizer came from a GGUF. */
bool tokenizer_save(const Tokenizer *tok, const Conf *conf, const char *chat_template, const char *folder,
                    Err *err);
void tokenizer_close(Tokenizer *tok);

/* ---- writing a model ---- */

typedef struct Policy Policy; /* below */

/* One .safetensors file, mapped, for what is no model: the optimizer's state. */
typedef struct Safetensors Safetensors;
Safetensors *safetensors_open(const char *path, Err *err);
/* False and err when the tensor is missing, has another shape, or holds NaN or infinity. */
bool safetensors_read(const Safetensors *file, const char *name, int rows, int cols, float *out, Err *err);
const char *safetensors_metadata(const Safetensors *file, const char *key); /* NULL when missing */
void safetensors_close(Safetensors *file);

/* Gives row-major float32 of the tensor `index`; returns false to stop with err. */
typedef bool TensorReader(void *self, int index, float *out, Err *err);
typedef struct {
    const char *name; /* Hugging Face name */
    int rows, cols;   /* vector: rows is 1 and is_vector is true */
    bool is_vector;
} TensorEntry;
/* Writes one .safetensors file of float32 (or bfloat16, rounded to nearest even) tensors, and syncs it. Used for
 * weights and for the optimizer's state. `metadata` is pairs {key, value, ..., NULL} or NULL. */
bool safetensors_write(const char *path, const TensorEntry *entries, int n, bool bfloat16, TensorReader *read,
                       void *self, const char *const *metadata, Err *err);
/* config.json, generation_config.json, tokenizer.json, tokenizer_config.json, model.safetensors and, when given,
 * whet_template.txt into an existing folder, each synced. `bfloat16` chooses the stored type. */
bool model_save(const char *folder, const Conf *conf, const Tokenizer *tok, const char *chat_template,
                const char *prompt_template, const TensorEntry *entries, int n, bool bfloat16, TensorReader *read,
                void *self, Err *err);
/* A policy's adapters in PEFT's layout, with the tokenizer's files and whet_template.txt beside them. */
bool adapter_save(const char *folder, Policy *policy, const Tokenizer *tok, const char *chat_template,
                  const char *prompt_template, Err *err);
/* Writes an open model anew, as a Hugging Face folder (made if need be; dtype "f32", "f16", "bf16"; weights cut
 * into files of at most shard_bytes) or as one GGUF file (also "q8_0", "q4_0"). What the format can't say is
 * refused. */
bool model_export_hf(const ModelFile *file, const Tokenizer *tok, const char *dtype, int64_t shard_bytes,
                     const char *folder, Err *err);
bool model_export_gguf(const ModelFile *file, const Tokenizer *tok, const char *dtype, const char *path, Err *err);

/* ---- weights on a device ---- */

/* One row of the table of parameters, in the order of the forward pass. Trained rows have float32 master, gradient
 * and moments, each in one contiguous buffer at `offset`; frozen rows exist only as the compute copy. */
typedef struct {
    char name[96]; /* Hugging Face name */
    int rows, cols;
    bool is_vector; /* norms and biases: used in float32 as they are; matrices are packed into a Mat */
    bool trained;
    int adapter_of; /* the row of the weight that it adapts; -1: it is no adapter */
    int64_t offset; /* elements into the trained buffers; -1 when frozen */
} Param;

typedef struct {
    Param *items;
    int n;
    int64_t n_trained, n_all; /* elements; n_trained with each row rounded up to a multiple of 16 */
} Params;

/* One product of a layer. Parameters that read the same input (q, k, v; gate, up) are parts of one matrix. */
typedef struct {
    Mat mat;
    Mat int8;                  /* the sampler's copy of it, where PolicyConf asks for one; n is 0 elsewhere */
    Ten bias;                  /* [1, mat.n], or TEN_NONE */
    int parts;                 /* in the order of the matrix's rows */
    int weight[3], bias_of[3]; /* rows of Params; bias_of is -1 where there is none */
    /* The adapters of all parts as two matrices: low_a [R, k] has each part's A below the last one's; low_b [n, R]
     * has each part's B in its own rows and columns, and zeros elsewhere. low_a.n is 0 where there is none. */
    Mat low_a, low_b;
    int a[3], b[3]; /* rows of Params; -1: the part has none */
} Linear;

typedef struct {
    Ten gain;  /* [1, width], as the network multiplies by it; TEN_NONE where the layer has no such norm */
    int param; /* row of Params; -1: none */
} Norm;

typedef struct {
    Norm norm1, norm2;   /* before attention and before the feed-forward */
    Norm post1, post2;   /* after them */
    Norm q_norm, k_norm; /* of one head */
    Linear qkv, out, gate_up, down;
} LayerWeights;

struct Policy {
    Conf conf;
    DType type; /* compute type: K_REAL or K_BF16 */
    Dev *dev;
    Params params;
    LayerWeights *layers;
    MatHome matrices;  /* the memory of all of them */
    MatHome int8s;     /* the memory of those of int8; fwd.p is NULL where there are none */
    Mat embed, head;   /* head is a view of embed when tied */
    bool adapters_off; /* forward leaves them out: the base model in the same memory */
    Ten norm;          /* final norm */
    int p_embed, p_head, p_norm;
    int max_positions;     /* longest sequence */
    Ten cos[2], sin[2];    /* of each rotary table: [max_positions, turned/2] */
    Ten ones;              /* [1, most of dim and head_dim] where norms multiply by 1 + w */
    Ten vectors;           /* [1, ...] float32: home of frozen vectors and of biases as the products want them */
    Ten master;            /* [n_trained / 16, 16] float32, or TEN_NONE; rows begin at multiples of 16 elements */
    Ten block;             /* [1, ...] float32: where a part's B gets the width of low_b; or TEN_NONE */
    int64_t version;       /* counts updates */
    const ModelFile *file; /* where frozen parameters came from; NULL for random ones */
};

typedef struct {
    DType type;
    bool train; /* masters, and the second packed copy that backward needs; of a model with adapters, these alone
                   learn */
    bool int8;  /* the layers' matrices also as int8 (kernels.h), which the engine then samples with; without
                   `train` in the place of the others. Head, embedding and adapters stay as they are */
    const char *const
        *frozen;       /* glob patterns of parameter names that are not trained, NULL-terminated, or NULL */
    int max_positions; /* longest sequence */
} PolicyConf;

/* The most bytes of the device that policy_load holds at once: part of the memory plan. (While it loads, frozen
 * parameters pass through up to 4 MiB that are free afterwards.) */
size_t policy_bytes(const Dev *dev, const Conf *conf, const PolicyConf *policy_conf);
Policy *policy_load(Dev *dev, const ModelFile *file, const PolicyConf *conf, Err *err);
Policy *policy_random(Dev *dev, const Conf *model, const PolicyConf *conf, uint64_t seed,
                      Err *err);  /* benches, tests */
void policy_pack(Policy *policy); /* makes the compute copies of all trained rows from the masters */
Ten policy_master(const Policy *policy, int param); /* view [rows, cols] of a trained row */
/* The table alone, without any weights. */
Params params_of(const Conf *model, const PolicyConf *conf);
void params_free(Params *params);
/* A trained row's view inside another buffer of the same layout (gradients, moments). */
Ten params_view(const Params *params, int param, Ten buffer);
/* Reads any parameter as float32: trained ones from the master, frozen ones from the model's file, which must
 * still be open. */
bool policy_read(void *policy, int param, float *out, Err *err); /* a TensorReader over params */
void policy_close(Policy *policy);

/* ---- one forward pass ---- */

/* What backward needs of one layer, for each row of the batch. */
typedef struct {
    Ten x, rstd1;        /* [M, dim] K_REAL input of the layer; [M, 1] */
    Ten qk, rstd_qk;     /* [M, (heads + kv_heads) head_dim] K_REAL before their norms; [M, heads + kv_heads] */
    Ten q, o, lse;       /* compute type; lse K_REAL [M, heads] */
    Ten attn, rstd_attn; /* [M, dim] K_REAL what attention gives, before its norm; [M, 1] */
    Ten mid, rstd2;      /* [M, dim] K_REAL after attention */
    Ten gate_up;         /* compute type [M, 2 hidden] */
    Ten ffn, rstd_ffn;   /* [M, dim] K_REAL what the feed-forward gives, before its norm; [M, 1] */
} LayerTape;             /* nothing but tensors; TEN_NONE where the model has no such norm */
LayerTape layer_tape_rows(const LayerTape *tape, int first, int n); /* views of these rows */

/* Room for batches of up to max_rows rows. With `recompute` only x is kept per layer and one shared LayerTape
 * holds the rest, which backward makes anew: the same gradients, bit for bit, in less memory. */
typedef struct {
    int max_rows, n_layers;
    bool recompute;
    LayerTape *layers; /* when recompute: only x is set; the rest lies in `scratch` */
    LayerTape scratch;
    Ten last; /* [max_rows, dim] K_REAL: the residual stream after the last layer */
} Tape;

size_t tape_bytes(const Conf *conf, DType type, int max_rows, bool recompute);
Tape *tape_open(Policy *policy, int max_rows, bool recompute, Err *err);
void tape_close(Policy *policy, Tape *tape);

/* The activations that every forward pass needs, for batches of up to max_rows rows. */
typedef struct {
    int max_rows;
    Ten x, normed, qkv, act; /* [max_rows, dim] K_REAL; compute-type inputs of products; ... */
    Ten low_sum, low;        /* [max_rows, R] K_REAL and compute type: between an adapter's matrices */
    Ten branch;              /* [max_rows, dim] K_REAL, before a norm of it: own.attn and own.ffn */
    LayerTape own;           /* used where there is no tape */
    bool int8;               /* multiply with the matrices of int8 */
} Work;
int lora_width(const Conf *conf); /* the most columns between an adapter's matrices; 0 without adapters */
size_t work_bytes(const Conf *conf, DType type, int max_rows);
bool work_open(Work *work, Policy *policy, int max_rows, Err *err);
void work_close(Work *work, Policy *policy);

/* The only forward pass of the program: embeds rows->tok, runs every layer, puts keys and values into kv, and
 * returns the residual stream after the last layer, [rows->m, dim] K_REAL: tape->last, or work->x without a tape.
 */
Ten forward(Policy *policy, const Rows *rows, Kv *kv, Tape *tape, Work *work);
/* Every product of a layer: y = x W^T + bias + residual (TEN_NONE: none; may be y), and what adapters add. */
void forward_linear(Policy *policy, Ten y, Ten x, const Linear *linear, Ten residual, Work *work);
/* s x A^T of a linear with adapters, rounded once to the compute type: a view of work->low. */
Ten forward_low(Policy *policy, Ten x, const Linear *linear, Work *work);
/* One layer of it, from x to out (which may be x); fills kept's tensors but for kept->x. With out = TEN_NONE it
 * stops once they are filled: backward calls it so to recompute. */
void forward_layer(Policy *policy, int layer, const Rows *rows, Kv *kv, Ten x, Ten out, const LayerTape *kept,
                   Work *work);
/* The final norm of chosen rows, ready for the head: y[n, dim] compute type, rstd[n, 1] (or TEN_NONE); picked[n,
 * dim] K_REAL takes the rows before the norm. */
void forward_final(Policy *policy, Ten y, Ten rstd, Ten picked, Ten stream, const int *index);

/* ---- pages of keys and values ---- */

/* Which pages are free, and how many sequences hold each. */
typedef struct {
    int *holders, *free, n_pages, n_free;
} Pages;
void pages_open(Pages *pages, int n);
int pages_take(Pages *pages);            /* one holder; -1 when none is free */
void pages_hold(Pages *pages, int page); /* one more holder */
void pages_drop(Pages *pages, int page); /* one fewer; free at none */
void pages_close(Pages *pages);

/* ---- sets of kept ids ----
 * What top_k, top_p and min_p kept of the vocabulary for each token of a sample, as bytes: for each token the
 * number of runs of ids, then for each run how many ids lie between it and the one before, and its length less 1;
 * each number as 7 bits a byte, low bits first, the top bit set where more follow. As bits they are a row of
 * k_logprob's kept. */

void kept_write(Buf *out, const int32_t *bits, int vocab); /* appends one token's set */
/* One token's set as bits[KEPT_WORDS(vocab)] (NULL: it is passed over). Returns what follows it, or NULL where the
 * bytes are no set of ids below vocab. */
const unsigned char *kept_read(const unsigned char *at, const unsigned char *end, int32_t *bits, int vocab);
/* Where each of n tokens' sets begins in `kept`; false where the bytes are not n sets. */
bool kept_index(size_t *at, const unsigned char *kept, size_t bytes, int n, int vocab);

/* ---- the engine ---- */

typedef enum { ROLE_PROMPT, ROLE_MODEL, ROLE_TOOL } Role;
/* A sample is segments: one kind of sample serves one turn and many, sampling ahead of learning, and SFT. */
typedef struct {
    int start, n;
    Role role;
    bool trained;
    int64_t version; /* of the policy that made it */
} Segment;

typedef enum { FINISH_STOP, FINISH_LENGTH, FINISH_CANCELLED } Finish; /* stop: EOS or a stop string */

typedef struct {
    int64_t ticket;  /* of its request */
    int index;       /* inside the request's group */
    int n_prompt, n; /* tokens: prompt, and in all */
    int *tok;        /* [n] */
    real *logp; /* [n]: log-softmax of logits/temperature over the whole vocabulary, the one that the loss uses; 0
                   for the prompt */
    real *draw_logp; /* [n]: over the kept set */
    unsigned char
        *kept; /* the kept sets of tokens n_prompt .. n-1; NULL: nothing was cut off, or they were not asked for */
    size_t kept_n; /* bytes */
    Segment segments[4];
    int n_segments;
    Finish finish;
} Sample;
void sample_free(Sample *sample);

typedef struct {
    int64_t ticket; /* the caller's */
    const int *prompt;
    int n_prompt; /* >= 1; further tokens of a sequence to be continued may stand in it */
    int group;    /* how many samples */
    int index0;   /* index of the first one */
    uint64_t key; /* of the random numbers: rng_mix of run seed, step and problem. A token's number is a function
                     of (key, index, position) and of nothing else */
    real temperature; /* 0: greedy */
    int top_k;
    real top_p, min_p;
    int max_new;             /* tokens */
    const char *const *stop; /* stop strings, NULL-terminated, or NULL; the completion ends with the token that
                                completes one, and the token stays */
} Request;

typedef struct {
    int slots;       /* sequences decoded at once */
    int prompt_rows; /* rows of a prompt batch; 0: 512 */
    int max_tokens;  /* longest sequence, prompt included */
    bool keep_sets;  /* samples carry their kept sets */
} EngineConf;

typedef struct Engine Engine;
size_t engine_bytes(const Dev *dev, const Conf *conf, DType type, const EngineConf *engine_conf);
/* k_workspace_bytes of a model's widths. */
size_t workspace_bytes(const Dev *dev, const Conf *conf, int rows);
int engine_rows(const Dev *dev, const EngineConf *engine_conf); /* the most of a batch */
Engine *engine_open(Policy *policy, const Tokenizer *tok, const EngineConf *conf, Err *err);
/* Queues a request (its arrays are copied). False and err when it cannot fit. */
bool engine_submit(Engine *engine, const Request *request, Err *err);
/* Computes prompts for free slots, then one token for every slot. Returns the number of samples that finished and
 * can be taken. */
int engine_step(Engine *engine);
bool engine_take(Engine *engine,
                 Sample *sample);       /* in the order in which they finished; the caller's from then on */
bool engine_idle(const Engine *engine); /* nothing queued, nothing running */
void engine_cancel(Engine *engine);     /* drops all that is queued or running */
typedef struct {
    int64_t steps, slot_steps, busy_slot_steps; /* decode steps; slots x steps, and those that had a sequence, both
                                                   counted only while requests were waiting */
    int64_t prompt_tokens, new_tokens;
    double prompt_seconds, decode_seconds;
} EngineStats;
/* Whether it samples with the weights that learn also where the policy has copies of int8, while it is idle. */
void engine_exact(Engine *engine, bool on);
const EngineStats *engine_stats(const Engine *engine);
void engine_stats_reset(Engine *engine);
void engine_close(Engine *engine);

#endif
