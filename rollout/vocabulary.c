/* vocabulary.c: builds a Tokenizer's tables out of the texts of a model file: pieces, merges, added tokens.
 *
 * The byte alphabet is GPT-2's: every byte has a printable character of its own, so that a piece is a text. What
 * the files look like is tokenizer_json.c's and tokenizer_gguf.c's business. Tested by
 * tests/test_rollout_tokenizer.c.
 */
#include "rollout/tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* ---- the byte alphabet ----
 * Printable Latin-1 stands for itself; the 68 other bytes take U+0100, U+0101, ... in order. */

static bool byte_is_itself(int byte) {
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

static int byte_to_char(int byte) {
    if (byte_is_itself(byte)) return byte;
    if (byte <= 0x20) return 0x100 + byte;
    if (byte <= 0xa0) return 0x100 + 0x21 + (byte - 0x7f);
    return 0x100 + 67; /* 0xad */
}

static int char_to_byte(uint32_t c) {
    if (c < 256) return byte_is_itself((int)c) ? (int)c : -1;
    if (c <= 0x120) return (int)c - 0x100;
    if (c <= 0x142) return (int)c - 0x121 + 0x7f;
    return c == 0x143 ? 0xad : -1;
}

void alphabet_spell(Buf *out, const char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        int c = byte_to_char((unsigned char)p[i]);
        if (c < 0x80)
            buf_char(out, (char)c);
        else {
            buf_char(out, (char)(0xc0 | c >> 6));
            buf_char(out, (char)(0x80 | (c & 0x3f)));
        }
    }
}

void piece_spell(const Tokenizer *tok, int id, Buf *out) {
    const Piece *piece = &tok->pieces[id];
    if (piece->byte)
        buf_format(out, "<0x%02X>", (unsigned char)piece->p[0]);
    else if (tok->chars && !piece->raw)
        for (int i = 0; i < piece->n; i++)
            piece->p[i] == ' ' ? buf_text(out, BLANK_MARK) : buf_char(out, piece->p[i]);
    else if (piece->raw)
        buf_add(out, piece->p, (size_t)piece->n);
    else
        alphabet_spell(out, piece->p, (size_t)piece->n);
}

/* The bytes that a text in the alphabet stands for; -1 when a character is outside it. The alphabet's characters
 * take one or two bytes of UTF-8. */
static int alphabet_read(char *out, const char *text, size_t n) {
    int length = 0;
    for (size_t i = 0; i < n;) {
        unsigned char a = (unsigned char)text[i], b = i + 1 < n ? (unsigned char)text[i + 1] : 0;
        uint32_t c = a;
        if (a >= 0x80) {
            if ((a & 0xe0) != 0xc0 || (b & 0xc0) != 0x80) return -1;
            c = (uint32_t)(a & 0x1f) << 6 | (b & 0x3f);
        }
        int byte = char_to_byte(c);
        if (byte < 0) return -1;
        out[length++] = (char)byte;
        i += a >= 0x80 ? 2 : 1;
    }
    return length;
}

/* The byte that <0xXX> stands for, or -1. */
static int byte_read(const char *text, size_t n) {
    static const char DIGITS[] = "0123456789ABCDEF";
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    const char *high = memchr(DIGITS, text[3], 16), *low = memchr(DIGITS, text[4], 16);
    return high && low ? (int)(high - DIGITS) * 16 + (int)(low - DIGITS) : -1;
}

/* A SentencePiece model's text: <0xXX> is a byte, the mark a blank. */
static void spm_read(Piece *piece, char *bytes, const char *text, size_t n) {
    int byte = byte_read(text, n), length = 0;
    piece->byte = byte >= 0;
    if (byte >= 0) bytes[length++] = (char)byte;
    for (size_t i = 0; i < n && byte < 0;) {
        bool blank = n - i >= 3 && memcmp(text + i, BLANK_MARK, 3) == 0;
        bytes[length++] = blank ? ' ' : text[i];
        i += blank ? 3 : 1;
    }
    piece->p = bytes;
    piece->n = length;
}

/* ---- the table of texts ---- */

static size_t table_slot(const Builder *b, const char *text, size_t n) {
    size_t slot = (size_t)XXH3_64bits(text, n) & (b->room - 1);
    while (b->table[slot] >= 0) {
        const View *other = &b->texts[b->table[slot]];
        if (other->n == n && memcmp(other->p, text, n) == 0) break;
        slot = (slot + 1) & (b->room - 1);
    }
    return slot;
}

static size_t power_of_two(size_t least) {
    size_t room = 16;
    while (room < least) room *= 2;
    return room;
}

void builder_open(Builder *b, Tokenizer *tok, int n, const char *where) {
    CHECK(n >= 0 && n <= MOST_TOKENS, "%d ids", n);
    *b = (Builder){.tok = tok, .where = where, .room = power_of_two(2 * (size_t)n)};
    b->texts = MEM_ARRAY(View, n);
    b->table = MEM_ARRAY(int, b->room);
    for (size_t i = 0; i < b->room; i++) b->table[i] = -1;
    tok->pieces = MEM_ARRAY(Piece, n);
    tok->n_ids = n;
}

void builder_close(Builder *b) {
    free(b->texts);
    free(b->table);
    buf_free(&b->joined);
}

int builder_find(const Builder *b, const char *text, size_t n) { return b->table[table_slot(b, text, n)]; }

bool builder_piece(Builder *b, int id, const char *text, size_t n, Err *err) {
    Tokenizer *tok = b->tok;
    if (id < 0 || id >= tok->n_ids || b->texts[id].p)
        return err_set(
            err, "%s: the token id %d is there twice or out of range: the vocabulary is broken, fetch it again",
            b->where, id);
    size_t slot = table_slot(b, text, n);
    if (b->table[slot] >= 0 || n == 0 || n > 1 << 20)
        return err_set(
            err,
            "%s: the token \"%.*s\" is there twice, empty or too long: the vocabulary is broken, fetch it "
            "again",
            b->where, n > 60 ? 60 : (int)n, text);
    b->table[slot] = id;
    b->texts[id] = (View){text, n};
    char *bytes = arena_alloc(&tok->arena, n + 1, 1);
    if (tok->chars) {
        spm_read(&tok->pieces[id], bytes, text, n);
        return true;
    }
    int length = alphabet_read(bytes, text, n);
    if (length < 0) memcpy(bytes, text, n);
    tok->pieces[id] = (Piece){.p = bytes, .n = length < 0 ? (int)n : length, .raw = length < 0};
    return true;
}

/* ---- merges ---- */

static size_t merge_slot(const Tokenizer *tok, uint64_t pair) {
    size_t slot = (size_t)(pair * 0x9e3779b97f4a7c15u >> 20) & (tok->merge_room - 1);
    while (tok->merges[slot].pair != UINT64_MAX && tok->merges[slot].pair != pair)
        slot = (slot + 1) & (tok->merge_room - 1);
    return slot;
}

static void merge_room(Tokenizer *tok) {
    if (tok->merge_room > 2 * (size_t)tok->n_merges) return;
    size_t old_room = tok->merge_room;
    Merge *old = tok->merges;
    tok->merge_room = old_room ? old_room * 4 : 1024;
    tok->merges = MEM_ARRAY(Merge, tok->merge_room);
    for (size_t i = 0; i < tok->merge_room; i++) tok->merges[i].pair = UINT64_MAX;
    for (size_t i = 0; i < old_room; i++)
        if (old[i].pair != UINT64_MAX) tok->merges[merge_slot(tok, old[i].pair)] = old[i];
    tok->merge_list = mem_grow(tok->merge_list, tok->merge_room, sizeof *tok->merge_list);
    free(old);
}

bool builder_merge(Builder *b, View left, View right, Err *err) {
    Tokenizer *tok = b->tok;
    buf_clear(&b->joined);
    buf_add(&b->joined, left.p, left.n);
    buf_add(&b->joined, right.p, right.n);
    int l = builder_find(b, left.p, left.n), r = builder_find(b, right.p, right.n);
    int id = builder_find(b, b->joined.p, b->joined.n);
    if (l < 0 || r < 0 || id < 0)
        return err_set(
            err,
            "%s: merge number %d (\"%.*s\" and \"%.*s\") names a token that is not in the vocabulary: fetch "
            "it again",
            b->where, tok->n_merges + 1, left.n > 60 ? 60 : (int)left.n, left.p, right.n > 60 ? 60 : (int)right.n,
            right.p);
    return builder_merge_ids(b, l, r, id, (uint32_t)tok->n_merges, err);
}

bool builder_merge_ids(Builder *b, int left, int right, int id, uint32_t rank, Err *err) {
    Tokenizer *tok = b->tok;
    if (tok->n_merges >= MOST_TOKENS)
        return err_set(err, "%s: more than %d merges: fetch it again", b->where, MOST_TOKENS);
    merge_room(tok);
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    tok->merges[merge_slot(tok, pair)] = (Merge){pair, rank, id};
    tok->merge_list[tok->n_merges][0] = left;
    tok->merge_list[tok->n_merges][1] = right;
    tok->merge_list[tok->n_merges++][2] = id;
    return true;
}

/* ---- added tokens ---- */

bool builder_added(Builder *b, const Added *added, Err *err) {
    Tokenizer *tok = b->tok;
    if (added->n == 0) return true; /* Hugging Face ignores them as well */
    if (added->id < 0 || added->id >= tok->n_ids || added->n > 1 << 20)
        return err_set(err, "%s: the added token \"%.*s\" has the id %d, which is out of range: fetch it again",
                       b->where, added->n > 60 ? 60 : (int)added->n, added->p, added->id);
    for (int i = 0; i < tok->n_added; i++)
        if (tok->added[i].n == added->n && memcmp(tok->added[i].p, added->p, added->n) == 0)
            return err_set(err, "%s: the added token \"%.*s\" is there twice: fetch it again", b->where,
                           added->n > 60 ? 60 : (int)added->n, added->p);
    tok->added = mem_grow(tok->added, (size_t)tok->n_added + 1, sizeof(Added));
    Added *own = &tok->added[tok->n_added++];
    *own = *added;
    own->p = arena_text(&tok->arena, added->p, added->n);
    own->text = (View){own->p, own->n};
    if (added->text.p) own->text = (View){arena_text(&tok->arena, added->text.p, added->text.n), added->text.n};
    tok->pieces[added->id] =
        (Piece){.p = own->text.p, .n = (int)own->text.n, .raw = true, .special = added->special};
    return true;
}

static int by_length(const void *a, const void *b) {
    const Added *x = a, *y = b;
    if (x->n != y->n) return x->n < y->n ? 1 : -1;
    return memcmp(x->p, y->p, x->n);
}

/* ---- whole words ---- */

static size_t word_slot(const Tokenizer *tok, const char *p, size_t n) {
    size_t slot = (size_t)XXH3_64bits(p, n) & (tok->n_words - 1);
    while (tok->words[slot] >= 0) {
        const Piece *piece = &tok->pieces[tok->words[slot]];
        if ((size_t)piece->n == n && memcmp(piece->p, p, n) == 0) break;
        slot = (slot + 1) & (tok->n_words - 1);
    }
    return slot;
}

int token_find(const Tokenizer *tok, const char *p, size_t n) { return tok->words[word_slot(tok, p, n)]; }

/* ---- characters ---- */

int char_find(const Tokenizer *tok, uint32_t c) {
    size_t slot = (size_t)(c * 0x9e3779b1u) & (tok->n_chars - 1);
    while (tok->char_ids[slot].c != c) {
        if (tok->char_ids[slot].c == UINT32_MAX) return -1;
        slot = (slot + 1) & (tok->n_chars - 1);
    }
    return tok->char_ids[slot].id;
}

static bool chars_finish(Builder *b, Err *err) {
    Tokenizer *tok = b->tok;
    tok->n_chars = power_of_two(2 * (size_t)tok->n_ids);
    tok->char_ids = MEM_ARRAY(CharId, tok->n_chars);
    for (size_t i = 0; i < tok->n_chars; i++) tok->char_ids[i] = (CharId){UINT32_MAX, -1};
    for (int id = 0; id < tok->n_ids; id++) {
        utf8proc_int32_t c;
        View text = b->texts[id];
        if (!text.p || utf8_valid(text.p, text.n) != text.n ||
            (size_t)utf8proc_iterate((const utf8proc_uint8_t *)text.p, (utf8proc_ssize_t)text.n, &c) != text.n)
            continue;
        size_t slot = (size_t)((uint32_t)c * 0x9e3779b1u) & (tok->n_chars - 1);
        while (tok->char_ids[slot].c != UINT32_MAX) slot = (slot + 1) & (tok->n_chars - 1);
        tok->char_ids[slot] = (CharId){(uint32_t)c, id};
    }
    char name[8];
    for (int byte = 0; byte < 256; byte++) {
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        tok->byte_ids[byte] = builder_find(b, name, 6);
        if (tok->byte_ids[byte] < 0)
            return err_set(err,
                           "%s: the token %s is missing: not a tokenizer that falls back to bytes, which is "
                           "what is supported",
                           b->where, name);
    }
    return true;
}

static bool bytes_finish(Builder *b, Err *err) {
    Tokenizer *tok = b->tok;
    int bytes = 0;
    for (int byte = 0; byte < 256; byte++) {
        Buf text = {0};
        char c = (char)byte;
        alphabet_spell(&text, &c, 1);
        tok->byte_ids[byte] = builder_find(b, text.p, text.n);
        bytes += tok->byte_ids[byte] >= 0;
        buf_free(&text);
    }
    return bytes >= 128 ||
           err_set(err,
                   "%s: only %d of the 256 bytes are tokens: not a byte-level BPE, which is what is supported",
                   b->where, bytes);
}

/* ---- the end ---- */

bool builder_finish(Builder *b, Err *err) {
    Tokenizer *tok = b->tok;
    while (tok->n_ids > 0 && !tok->pieces[tok->n_ids - 1].p) tok->n_ids--;
    if (!(tok->chars ? chars_finish(b, err) : bytes_finish(b, err))) return false;
    merge_room(tok);
    if (tok->n_added) qsort(tok->added, (size_t)tok->n_added, sizeof(Added), by_length);
    for (int i = 0; i < tok->n_added; i++)
        tok->added_first[tok->added[i].normalized][(unsigned char)tok->added[i].p[0]] = true;
    if (!tok->whole_words) return true;
    tok->n_words = power_of_two(2 * (size_t)tok->n_ids);
    tok->words = MEM_ARRAY(int, tok->n_words);
    for (size_t i = 0; i < tok->n_words; i++) tok->words[i] = -1;
    for (int id = 0; id < tok->n_ids; id++)
        if (tok->pieces[id].p && !tok->pieces[id].raw)
            tok->words[word_slot(tok, tok->pieces[id].p, (size_t)tok->pieces[id].n)] = id;
    return true;
}
