/* tokenizer.c: BPE on bytes, or on characters with a fallback to bytes (SentencePiece's way): text to ids and
 * back, exactly as Hugging Face's tokenizers do it.
 *
 * Added tokens are cut out first, then text is normalised, split into words (split.c) and merged. Text that is no
 * valid UTF-8, which Hugging Face never sees, keeps its bytes: each broken run is a word of its own. The tables
 * are built by vocabulary.c. Encoding takes no lock and keeps no state: any number of threads may share a
 * Tokenizer. Tested by tests/test_rollout_tokenizer.c.
 */
#include "rollout/tokens.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { SHORT_WORD = 48 }; /* bytes up to which a word is merged by plain search */
#define NO_RANK UINT32_MAX

typedef struct {
    const Tokenizer *tok;
    int **ids, *count, *room; /* the caller's */
    bool begins;              /* nothing of the text came before */
} Encoder;

static void id_add(Encoder *e, int id) {
    if (*e->count == *e->room) {
        *e->room = *e->room ? 2 * *e->room : 64;
        *e->ids = mem_grow(*e->ids, (size_t)*e->room, sizeof(int));
    }
    (*e->ids)[(*e->count)++] = id;
}

/* ---- characters ---- */

/* The character at a place; -1 where there is none. */
static utf8proc_int32_t char_at(const char *p, size_t n) {
    utf8proc_int32_t c;
    return n && utf8proc_iterate((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)(n < 4 ? n : 4), &c) > 0 ? c : -1;
}

static size_t utf8_length(utf8proc_int32_t c) { return c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4; }

/* ---- merging a word ---- */

static const Merge *merge_find(const Tokenizer *tok, int left, int right) {
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t slot = (size_t)(pair * 0x9e3779b97f4a7c15u >> 20) & (tok->merge_room - 1);
    while (tok->merges[slot].pair != pair) {
        if (tok->merges[slot].pair == UINT64_MAX) return NULL;
        slot = (slot + 1) & (tok->merge_room - 1);
    }
    return &tok->merges[slot];
}

/* The pieces of the single bytes; a byte without one is the unknown token or nothing. */
static int word_bytes(const Tokenizer *tok, const char *p, size_t n, int *ids) {
    int length = 0;
    bool unknown = false;
    for (size_t i = 0; i < n; i++) {
        int id = tok->byte_ids[(unsigned char)p[i]];
        bool known = id >= 0;
        if (!known && tok->unk >= 0 && !(unknown && tok->fuse_unk)) id = tok->unk;
        if (id >= 0) ids[length++] = id;
        unknown = !known;
    }
    return length;
}

/* The pieces of the characters; one without is its bytes. Broken UTF-8 is bytes as well. */
static int word_chars(const Tokenizer *tok, const char *p, size_t n, int *ids) {
    int length = 0;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c = char_at(p + i, n - i);
        int id = c < 0 ? -1 : char_find(tok, (uint32_t)c);
        size_t bytes = c < 0 ? 1 : utf8_length(c);
        if (id >= 0) ids[length++] = id;
        for (size_t k = 0; id < 0 && k < bytes; k++) ids[length++] = tok->byte_ids[(unsigned char)p[i + k]];
        i += bytes;
    }
    return length;
}

static int word_start(const Tokenizer *tok, const char *p, size_t n, int *ids) {
    return tok->chars ? word_chars(tok, p, n, ids) : word_bytes(tok, p, n, ids);
}

static uint32_t rank_of(const Tokenizer *tok, int left, int right) {
    const Merge *merge = merge_find(tok, left, right);
    return merge ? merge->rank : NO_RANK;
}

/* Merges the pair of lowest rank, leftmost first, until none is left. */
static void word_short(Encoder *e, const char *p, size_t n) {
    int ids[SHORT_WORD];
    uint32_t ranks[SHORT_WORD]; /* of the pair that begins here */
    int length = word_start(e->tok, p, n, ids);
    for (int i = 0; i + 1 < length; i++) ranks[i] = rank_of(e->tok, ids[i], ids[i + 1]);
    while (length > 1) {
        int best = 0;
        for (int i = 1; i + 1 < length; i++)
            if (ranks[i] < ranks[best]) best = i;
        if (ranks[best] == NO_RANK) break;
        ids[best] = merge_find(e->tok, ids[best], ids[best + 1])->id;
        size_t rest = (size_t)(length - best - 2); /* what lies after the pair */
        memmove(ids + best + 1, ids + best + 2, rest * sizeof *ids);
        memmove(ranks + best + 1, ranks + best + 2, rest * sizeof *ranks);
        length--;
        if (best > 0) ranks[best - 1] = rank_of(e->tok, ids[best - 1], ids[best]);
        if (best + 1 < length) ranks[best] = rank_of(e->tok, ids[best], ids[best + 1]);
    }
    for (int i = 0; i < length; i++) id_add(e, ids[i]);
}

/* ---- merging a long word: the same order out of a heap of (rank, place), in n log n ---- */

typedef struct {
    uint64_t *items;
    size_t n, room;
} Heap;

static void heap_push(Heap *heap, uint64_t item) {
    if (heap->n == heap->room) {
        heap->room = heap->room ? 2 * heap->room : 256;
        heap->items = mem_grow(heap->items, heap->room, sizeof *heap->items);
    }
    size_t at = heap->n++;
    for (; at > 0 && heap->items[(at - 1) / 2] > item; at = (at - 1) / 2)
        heap->items[at] = heap->items[(at - 1) / 2];
    heap->items[at] = item;
}

static uint64_t heap_pop(Heap *heap) {
    uint64_t top = heap->items[0], item = heap->items[--heap->n];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < heap->n; at = child) {
        if (child + 1 < heap->n && heap->items[child + 1] < heap->items[child]) child++;
        if (heap->items[child] >= item) break;
        heap->items[at] = heap->items[child];
    }
    heap->items[at] = item;
    return top;
}

typedef struct {
    int id, previous, next; /* -1 ends the list; id -1: merged away */
} Link;

static void pair_push(Heap *heap, const Tokenizer *tok, const Link *links, int at) {
    if (at < 0 || links[at].next < 0) return;
    uint32_t rank = rank_of(tok, links[at].id, links[links[at].next].id);
    if (rank != NO_RANK) heap_push(heap, (uint64_t)rank << 32 | (uint32_t)at);
}

static void word_long(Encoder *e, const char *p, size_t n) {
    CHECK(n < 1u << 30, "a word of %zu bytes", n);
    int *ids = MEM_ARRAY(int, n);
    int length = word_start(e->tok, p, n, ids);
    Link *links = MEM_ARRAY(Link, length);
    Heap heap = {0};
    for (int i = 0; i < length; i++) links[i] = (Link){ids[i], i - 1, i + 1 < length ? i + 1 : -1};
    for (int i = 0; i < length; i++) pair_push(&heap, e->tok, links, i);
    while (heap.n) {
        uint64_t item = heap_pop(&heap);
        int at = (int)(uint32_t)item, next = links[at].next;
        if (links[at].id < 0 || next < 0) continue;
        const Merge *merge = merge_find(e->tok, links[at].id, links[next].id);
        if (!merge || merge->rank != (uint32_t)(item >> 32)) continue; /* the pair is another one by now */
        links[at].id = merge->id;
        links[at].next = links[next].next;
        links[next].id = -1;
        if (links[at].next >= 0) links[links[at].next].previous = at;
        pair_push(&heap, e->tok, links, links[at].previous);
        pair_push(&heap, e->tok, links, at);
    }
    for (int i = 0; i < length; i = links[i].next) {
        id_add(e, links[i].id);
        if (links[i].next < 0) break;
    }
    free(heap.items);
    free(links);
    free(ids);
}

static void word_encode(void *self, const char *p, size_t n) {
    Encoder *e = self;
    if (e->tok->n_words) {
        int id = token_find(e->tok, p, n);
        if (id >= 0) {
            id_add(e, id);
            return;
        }
    }
    if (n <= SHORT_WORD)
        word_short(e, p, n);
    else
        word_long(e, p, n);
}

/* ---- added tokens ---- */

/* The character that ends at a place. */
static utf8proc_int32_t char_before(const char *text, size_t at, size_t *begin) {
    for (size_t back = 1; back <= 4 && back <= at; back++) {
        if (((unsigned char)text[at - back] & 0xc0) == 0x80) continue;
        *begin = at - back;
        return char_at(text + at - back, back);
    }
    return -1;
}

/* \w of the regular expressions that Hugging Face uses here: letters, marks, decimal and letter numbers,
 * connectors, joiners, and the circled and squared letters, which are symbols by category. */
static bool is_word_char(utf8proc_int32_t c) {
    static const utf8proc_int32_t RANGES[][2] = {
        {0x200c, 0x200d}, {0x24b6, 0x24e9}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189}};
    if (c < 0) return false;
    for (size_t i = 0; i < sizeof RANGES / sizeof *RANGES; i++)
        if (c >= RANGES[i][0] && c <= RANGES[i][1]) return true;
    utf8proc_category_t kind = utf8proc_category(c);
    return (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_NL) || kind == UTF8PROC_CATEGORY_PC;
}

static bool is_space(utf8proc_int32_t c) {
    if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
    utf8proc_category_t kind = utf8proc_category(c);
    return c == 0x85 || (kind >= UTF8PROC_CATEGORY_ZS && kind <= UTF8PROC_CATEGORY_ZP);
}

/* The longest added token of the kind that begins at `at`. */
static const Added *added_at(const Tokenizer *tok, bool normalized, const char *text, size_t n, size_t at) {
    if (!tok->added_first[normalized][(unsigned char)text[at]]) return NULL;
    for (int i = 0; i < tok->n_added; i++) {
        const Added *added = &tok->added[i];
        if (added->normalized == normalized && added->n <= n - at && memcmp(added->p, text + at, added->n) == 0)
            return added;
    }
    return NULL;
}

typedef void GapEncode(Encoder *e, const char *text, size_t n);

/* Cuts text at the added tokens of one kind; what lies between goes to `gap`. */
static void added_cut(Encoder *e, bool normalized, const char *text, size_t n, GapEncode *gap) {
    size_t done = 0;
    for (size_t at = 0; at < n;) {
        const Added *added = added_at(e->tok, normalized, text, n, at);
        if (!added) {
            at++;
            continue;
        }
        size_t begin = at, end = at + added->n, previous;
        at = end;
        if (added->single_word &&
            (is_word_char(char_before(text, begin, &previous)) || is_word_char(char_at(text + end, n - end))))
            continue;
        if (added->lstrip)
            while (begin > done && is_space(char_before(text, begin, &previous))) begin = previous;
        if (begin < done) begin = done;
        if (added->rstrip)
            for (utf8proc_int32_t c; end < n && (c = char_at(text + end, n - end)) >= 0 && is_space(c);)
                end += utf8_length(c);
        if (begin > done) gap(e, text + done, begin - done);
        id_add(e, added->id);
        e->begins = false;
        done = at = end;
    }
    if (done < n) gap(e, text + done, n - done);
}

/* ---- text between added tokens ---- */

/* Blanks written as marks, and the mark before the text. */
static void marks_put(const Tokenizer *tok, const char *text, size_t n, bool begins, Buf *out) {
    bool there = n && (text[0] == ' ' || (n >= 3 && memcmp(text, BLANK_MARK, 3) == 0));
    bool put = tok->mark == MARK_ALWAYS || (tok->mark == MARK_UNLESS && !there) ||
               (tok->mark == MARK_FIRST && begins && !there);
    if (put) buf_text(out, BLANK_MARK);
    for (size_t i = 0; i < n; i++) text[i] == ' ' ? buf_text(out, BLANK_MARK) : buf_char(out, text[i]);
}

static void words_encode(Encoder *e, const char *text, size_t n) {
    Buf marked = {0};
    if (e->tok->meta) {
        marks_put(e->tok, text, n, e->begins, &marked);
        text = marked.p;
        n = marked.n;
    }
    splitter_run(e->tok->splitter, text, n, word_encode, e);
    e->begins = false;
    buf_free(&marked);
}

static bool is_ascii(const char *text, size_t n) {
    unsigned char any = 0;
    for (size_t i = 0; i < n; i++) any |= (unsigned char)text[i];
    return any < 0x80;
}

void tokenizer_normalize(const Tokenizer *tok, const char *text, size_t n, bool begins, Buf *out) {
    utf8proc_uint8_t *normal = NULL;
    if (tok->normal_form && !is_ascii(text, n)) {
        utf8proc_ssize_t length = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &normal,
                                               (utf8proc_option_t)tok->normal_form);
        if (length >= 0) {
            text = (const char *)normal;
            n = (size_t)length;
        }
    }
    if (tok->marks)
        marks_put(tok, text, n, begins, out);
    else
        buf_add(out, text, n);
    free(normal);
}

static void normal_encode(Encoder *e, const char *text, size_t n, bool special) {
    Buf normal = {0};
    if (e->tok->marks || (e->tok->normal_form && !is_ascii(text, n))) {
        tokenizer_normalize(e->tok, text, n, e->begins, &normal);
        text = normal.p;
        n = normal.n;
    }
    if (special)
        added_cut(e, true, text, n, words_encode);
    else
        words_encode(e, text, n);
    buf_free(&normal);
}

static void gap_encode(Encoder *e, const char *text, size_t n, bool special) {
    for (size_t at = 0; at < n;) {
        size_t valid = utf8_valid(text + at, n - at), broken = at + valid;
        if (valid) normal_encode(e, text + at, valid, special);
        for (at = broken; at < n && utf8_valid(text + at, n - at < 4 ? n - at : 4) == 0;) at++;
        if (at > broken) word_encode(e, text + broken, at - broken);
    }
}

static void gap_special(Encoder *e, const char *text, size_t n) { gap_encode(e, text, n, true); }

void tokenizer_encode(const Tokenizer *tok, const char *text, size_t n, bool special, int **ids, int *count,
                      int *room) {
    Encoder e = {tok, ids, count, room, true};
    if (special)
        added_cut(&e, false, text, n, gap_special);
    else
        gap_encode(&e, text, n, false);
}

/* ---- ids to text, and questions ---- */

const char *tokenizer_piece(const Tokenizer *tok, int id, size_t *n) {
    *n = 0;
    if (id < 0 || id >= tok->n_ids || !tok->pieces[id].p) return "";
    *n = (size_t)tok->pieces[id].n;
    return tok->pieces[id].p;
}

bool tokenizer_is_special(const Tokenizer *tok, int id) {
    return id >= 0 && id < tok->n_ids && tok->pieces[id].special;
}

void tokenizer_decode(const Tokenizer *tok, const int *ids, int n, bool skip_special, Buf *out) {
    size_t begin = out->n;
    for (int i = 0; i < n; i++) {
        size_t length;
        const char *piece = tokenizer_piece(tok, ids[i], &length);
        if (!(skip_special && tokenizer_is_special(tok, ids[i]))) buf_add(out, piece, length);
    }
    if (tok->strip && out->n > begin && out->p[begin] == ' ') {
        memmove(out->p + begin, out->p + begin + 1, out->n - begin); /* the NUL as well */
        out->n--;
    }
}

void tokenizer_frame(const Tokenizer *tok, int before[4], int *n_before, int after[4], int *n_after) {
    memcpy(before, tok->before, sizeof tok->before);
    memcpy(after, tok->after, sizeof tok->after);
    *n_before = tok->n_before;
    *n_after = tok->n_after;
}

int tokenizer_find(const Tokenizer *tok, const char *piece) {
    for (int i = 0; i < tok->n_added; i++)
        if (tok->added[i].text.n == strlen(piece) && memcmp(tok->added[i].text.p, piece, strlen(piece)) == 0)
            return tok->added[i].id;
    return -1;
}

int tokenizer_vocab(const Tokenizer *tok) { return tok->n_ids; }

/* ---- opening ---- */

static Tokenizer *tokenizer_new(void) {
    Tokenizer *tok = MEM_NEW(Tokenizer);
    tok->unk = -1;
    tok->splitter = splitter_new();
    return tok;
}

static bool json_open(Tokenizer *tok, const char *path, Err *err) {
    Mapped map;
    if (!file_map(&map, path, err)) return false;
    tok->json = mem_text_n((const char *)map.p, map.n);
    tok->json_n = map.n;
    file_unmap(&map);
    json_error_t at;
    json_t *root = json_loadb(tok->json, tok->json_n, JSON_REJECT_DUPLICATES, &at);
    bool ok =
        root != NULL || err_set(err, "%s: not valid JSON (line %d: %s): fetch it again", path, at.line, at.text);
    ok = ok && tokenizer_from_json(tok, root, path, err);
    json_decref(root);
    return ok;
}

Tokenizer *tokenizer_open_json(const char *path, Err *err) {
    Tokenizer *tok = tokenizer_new();
    if (json_open(tok, path, err)) return tok;
    tokenizer_close(tok);
    return NULL;
}

static bool folder_open(Tokenizer *tok, const char *folder, Err *err) {
    Arena arena = {0};
    char *path = arena_format(&arena, "%s/tokenizer.json", folder);
    char *config = arena_format(&arena, "%s/tokenizer_config.json", folder);
    bool ok = file_exists(path) ||
              err_set(err, "%s: the tokenizer is missing: fetch tokenizer.json beside the model", path);
    ok = ok && json_open(tok, path, err);
    if (ok && file_exists(config)) ok = (tok->config = json_file(config, err)) != NULL;
    arena_free(&arena);
    return ok;
}

Tokenizer *tokenizer_open(const ModelFile *file, Err *err) {
    Tokenizer *tok = tokenizer_new();
    const char *path = model_file_path(file);
    const Gguf *gguf = model_file_gguf(file);
    bool ok = gguf ? tokenizer_from_gguf(tok, gguf, path, err) : folder_open(tok, path, err);
    int vocab = model_file_conf(file)->vocab;
    if (ok && tok->n_ids > vocab)
        ok = err_set(err, "%s: the tokenizer has ids up to %d but the model only %d: they don't belong together",
                     path, tok->n_ids - 1, vocab);
    if (ok) return tok;
    tokenizer_close(tok);
    return NULL;
}

void tokenizer_close(Tokenizer *tok) {
    if (!tok) return;
    splitter_free(tok->splitter);
    free(tok->pieces);
    free(tok->char_ids);
    free(tok->words);
    free(tok->merges);
    free(tok->merge_list);
    free(tok->added);
    free(tok->json);
    json_decref(tok->config);
    arena_free(&tok->arena);
    free(tok);
}
