/* tokens.h: what the files of the tokenizer share inside rollout/.
 *
 * Knows: BPE on bytes and on characters (pieces, merges, added tokens), the splitting of text into words, the framing tokens. It
 * never learns of tensors or devices. Ownership: a Tokenizer owns everything below it; a Splitter is owned by its
 * Tokenizer; a Builder borrows texts from what it is built out of and lives while that is read. Tested by
 * tests/test_rollout_tokenizer.c.
 */
#ifndef WHET_ROLLOUT_TOKENS_H
#define WHET_ROLLOUT_TOKENS_H

#include "rollout/internal.h"

#define BLANK_MARK "\xe2\x96\x81" /* U+2581, SentencePiece's blank */
enum {
    TYPE_NORMAL = 1,
    TYPE_UNKNOWN,
    TYPE_CONTROL,
    TYPE_USER,
    TYPE_UNUSED,
    TYPE_BYTE
}; /* tokenizer.ggml.token_type */

enum { MOST_TOKENS = 1 << 22 };

typedef struct {
    const char *p; /* bytes; NULL: no token has this id */
    int n;
    bool raw; /* an added token, or a text outside the byte alphabet: the bytes are the text itself */
    bool special;
    bool byte; /* SentencePiece's <0xXX> */
} Piece;

typedef struct {
    int id;
    const char *p; /* what is looked for: normalised where `normalized` */
    size_t n;
    View text; /* as written; p NULL: the same */
    bool single_word, lstrip, rstrip, normalized, special;
} Added;

typedef struct {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: free */
    uint32_t rank;
    int id; /* of the merged piece */
} Merge;

/* What a split does with its matches, in Hugging Face's words. */
typedef enum { KEEP_ISOLATED, KEEP_REMOVED, KEEP_CONTIGUOUS } Keep;

/* When SentencePiece's mark of a blank is put before a text: always (before each piece of text between added
 * tokens), unless one is there already, or that only where the whole text begins. */
typedef enum { MARK_NEVER, MARK_ALWAYS, MARK_UNLESS, MARK_FIRST } Mark;

typedef struct {
    uint32_t c; /* a character; UINT32_MAX: free */
    int id;
} CharId;

typedef struct Splitter Splitter;

struct Tokenizer {
    Arena arena;
    Piece *pieces;
    int n_ids;
    int byte_ids[256]; /* the piece of each single byte, or -1 */
    bool chars;        /* SentencePiece's way: words begin as characters; those without a piece as bytes */
    CharId *char_ids;  /* then: hash table of the pieces of one character */
    size_t n_chars;    /* its size, a power of two */
    Mark mark;         /* before the text */
    bool marks;        /* the normaliser writes blanks as marks */
    bool meta;         /* or the pre-tokenizer does */
    bool strip;        /* decoding drops a blank in front */
    int unk;           /* piece for a byte without one; -1: such bytes are dropped, as Hugging Face does */
    bool fuse_unk;
    bool whole_words; /* "ignore_merges": a word that is a piece is not merged */
    int *words;       /* then: hash table of ids by bytes */
    size_t n_words;   /* its size, a power of two; 0 without */
    Merge *merges;    /* hash table by pair */
    size_t merge_room;
    int (*merge_list)[3]; /* left, right and what they become, in order of rank: for saving */
    int n_merges;
    Added *added; /* longest first */
    int n_added;
    bool added_first[2][256]; /* [normalized]: bytes that an added token begins with */
    int normal_form;          /* utf8proc's options, 0: none */
    const char *normal_name;  /* "NFC", ... or NULL */
    Splitter *splitter;
    int before[4], n_before, after[4], n_after;
    char *json; /* tokenizer.json as read, to be saved as it was; NULL when it came from a GGUF */
    size_t json_n;
    json_t *config;         /* tokenizer_config.json as read, or NULL */
    const char *split_name; /* of a GGUF: row of the table of splits */
};

/* ---- split.c
 * ----------------------------------------------------------------------------------------------------- */

#define PATTERN_GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

typedef void WordSink(void *self, const char *text, size_t n);
Splitter *splitter_new(void);
/* Appends a step; `literal`: the pattern is a plain string. False and err when PCRE2 can't compile it. */
bool splitter_add(Splitter *splitter, const char *pattern, size_t n, bool literal, Keep keep, bool invert,
                  const char *where, Err *err);
/* Runs all steps over text (valid UTF-8) and hands each word to the sink, in order. */
void splitter_run(const Splitter *splitter, const char *text, size_t n, WordSink *sink, void *self);
void splitter_free(Splitter *splitter);
/* Length of the longest prefix that is valid UTF-8. */
size_t utf8_valid(const char *text, size_t n);

/* ---- vocabulary.c
 * ------------------------------------------------------------------------------------------------ */

typedef struct {
    Tokenizer *tok;
    const char *where;
    View *texts; /* by id, as the file spells them; p NULL: none */
    int *table;  /* hash table of ids by text */
    size_t room;
    Buf joined;
} Builder;

/* `n` is an upper bound of ids. */
void builder_open(Builder *builder, Tokenizer *tok, int n, const char *where);
void builder_close(Builder *builder);
bool builder_piece(Builder *builder, int id, const char *text, size_t n, Err *err);
bool builder_merge(Builder *builder, View left, View right, Err *err); /* in order of rank */
/* A merge with a rank of its own, which others may share. */
bool builder_merge_ids(Builder *builder, int left, int right, int id, uint32_t rank, Err *err);
bool builder_added(Builder *builder, const Added *added, Err *err);
int builder_find(const Builder *builder, const char *text, size_t n); /* id or -1 */
/* After all: the tables that encoding uses. */
bool builder_finish(Builder *builder, Err *err);
/* The id of a piece by its bytes, when whole_words is set; or -1. */
int token_find(const Tokenizer *tok, const char *p, size_t n);
/* The piece of one character (Tokenizer.chars), or -1. */
int char_find(const Tokenizer *tok, uint32_t c);
/* Appends bytes in the spelling of the byte alphabet. */
void alphabet_spell(Buf *out, const char *p, size_t n);
/* Appends a piece as model files spell it. */
void piece_spell(const Tokenizer *tok, int id, Buf *out);

/* Appends text as the normaliser leaves it; `begins`: nothing of the text came before. */
void tokenizer_normalize(const Tokenizer *tok, const char *text, size_t n, bool begins,
                         Buf *out); /* tokenizer.c */

/* ---- the two sources
 * --------------------------------------------------------------------------------------------- */

bool tokenizer_from_json(Tokenizer *tok, const json_t *root, const char *where, Err *err); /* tokenizer_json.c */
/* The parts before the model; normalizer may be NULL. */
bool tokenizer_read_pipeline(Tokenizer *tok, const json_t *pre_tokenizer, const json_t *normalizer,
                             const char *where, Err *err);                               /* tokenizer_json.c */
bool tokenizer_from_gguf(Tokenizer *tok, const Gguf *gguf, const char *where, Err *err); /* tokenizer_gguf.c */
/* The merges that a SentencePiece model's scores stand for. tokenizer_spm.c */
bool merges_from_scores(Builder *builder, const float *scores, const int32_t *types, int n, Err *err);
/* tokenizer.json's normalizer and decoder of a SentencePiece model that came from a GGUF. tokenizer_spm.c */
json_t *spm_normalizer(const Tokenizer *tok);
json_t *spm_decoder(const Tokenizer *tok);
json_t *gguf_pre_tokenizer(const char *split_name); /* as tokenizer.json spells it */
/* GGUF's name for the steps and normaliser of a tokenizer that came from a tokenizer.json; NULL: it has none. */
const char *gguf_split_name(const Tokenizer *tok);

#endif
