/* tokenizer_export.c: a Tokenizer as the keys of a GGUF, in llama.cpp's spelling.
 *
 * GGUF keeps how text is split only as a name, so a tokenizer whose steps have no name there is refused. Tested by
 * tests/test_rollout_export.c.
 */
#include "rollout/tokens.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int type_of(const Tokenizer *tok, int id) {
    if (id >= tok->n_ids || !tok->pieces[id].p) return TYPE_UNUSED;
    if (tok->chars && id == tok->unk) return TYPE_UNKNOWN;
    if (tok->pieces[id].special) return TYPE_CONTROL;
    for (int i = 0; i < tok->n_added; i++)
        if (tok->added[i].id == id) return TYPE_USER;
    return tok->pieces[id].byte ? TYPE_BYTE : TYPE_NORMAL;
}

static void put_pieces(const Tokenizer *tok, int vocab, GgufKeys *keys) {
    Buf text = {0};
    int32_t *types = MEM_ARRAY(int32_t, vocab);
    gguf_put_texts(keys, "tokenizer.ggml.tokens", (uint64_t)vocab);
    for (int id = 0; id < vocab; id++) {
        types[id] = type_of(tok, id);
        buf_clear(&text);
        if (types[id] == TYPE_UNUSED)
            buf_format(&text, "[PAD%d]", id);
        else
            piece_spell(tok, id, &text);
        gguf_put_item(keys, text.p, text.n);
    }
    gguf_put_ints(keys, "tokenizer.ggml.token_type", types, (uint64_t)vocab);
    free(types);
    buf_free(&text);
}

static void put_merges(const Tokenizer *tok, GgufKeys *keys) {
    Buf text = {0};
    gguf_put_texts(keys, "tokenizer.ggml.merges", (uint64_t)tok->n_merges);
    for (int i = 0; i < tok->n_merges; i++) {
        buf_clear(&text);
        piece_spell(tok, tok->merge_list[i][0], &text);
        buf_char(&text, ' ');
        piece_spell(tok, tok->merge_list[i][1], &text);
        gguf_put_item(keys, text.p, text.n);
    }
    buf_free(&text);
}

static void put_id(GgufKeys *keys, const char *key, int id) {
    if (id >= 0) gguf_put_int(keys, key, (uint32_t)id);
}

/* The tokens around every text: one BOS before, one EOS after, or nothing. */
static bool put_frame(const Tokenizer *tok, const Conf *conf, GgufKeys *keys, Err *err) {
    int bos = tok->n_before ? tok->before[0] : conf->bos, eos = tok->n_after ? tok->after[0] : -1;
    if (tok->n_before > 1 || tok->n_after > 1 || (eos >= 0 && (conf->n_eos == 0 || eos != conf->eos[0])))
        return err_set(err, "the tokenizer puts more around a text than a BOS and an EOS, which a GGUF can't say: "
                            "export to hf");
    if (conf->n_eos > 3)
        return err_set(err, "the model ends at %d tokens and a GGUF names three at most: export to hf",
                       conf->n_eos);
    put_id(keys, "tokenizer.ggml.bos_token_id", bos);
    if (conf->n_eos > 0) put_id(keys, "tokenizer.ggml.eos_token_id", conf->eos[0]);
    if (conf->n_eos > 1) put_id(keys, "tokenizer.ggml.eot_token_id", conf->eos[1]);
    if (conf->n_eos > 2) put_id(keys, "tokenizer.ggml.eom_token_id", conf->eos[2]);
    put_id(keys, "tokenizer.ggml.padding_token_id", conf->pad);
    gguf_put_bool(keys, "tokenizer.ggml.add_bos_token", tok->n_before > 0);
    gguf_put_bool(keys, "tokenizer.ggml.add_eos_token", tok->n_after > 0);
    return true;
}

/* SentencePiece's scores: the earlier a piece is first made, the higher. */
static void put_scores(const Tokenizer *tok, int vocab, GgufKeys *keys) {
    float *scores = MEM_ARRAY(float, vocab);
    bool *made = MEM_ARRAY(bool, vocab);
    for (int i = 0; i < tok->n_merges; i++) {
        int id = tok->merge_list[i][2];
        if (!made[id]) scores[id] = -(float)(i + 1);
        made[id] = true;
    }
    for (int id = 0; id < vocab; id++)
        if (!made[id] && id < tok->n_ids && tok->pieces[id].p && !tok->pieces[id].byte)
            scores[id] = tok->pieces[id].raw ? 0 : -(float)(tok->n_merges + 1);
    gguf_put_floats(keys, "tokenizer.ggml.scores", scores, (uint64_t)vocab);
    free(scores);
    free(made);
}

/* llama.cpp puts a mark before every piece of text or before none; a mark only where the text begins, or unless
 * there is a blank, becomes the former, as llama.cpp's own converter has it. */
static void put_spm(const Tokenizer *tok, int vocab, GgufKeys *keys) {
    gguf_put_text(keys, "tokenizer.ggml.model", "llama", 5);
    gguf_put_text(keys, "tokenizer.ggml.pre", "default", 7);
    gguf_put_bool(keys, "tokenizer.ggml.add_space_prefix", tok->mark != MARK_NEVER);
    put_pieces(tok, vocab, keys);
    put_scores(tok, vocab, keys);
    put_id(keys, "tokenizer.ggml.unknown_token_id", tok->unk);
}

static bool put_bpe(const Tokenizer *tok, int vocab, GgufKeys *keys, Err *err) {
    const char *split = tok->split_name ? tok->split_name : gguf_split_name(tok);
    if (!split)
        return err_set(err, "the way in which the tokenizer splits text has no name in GGUF: export to hf");
    gguf_put_text(keys, "tokenizer.ggml.model", "gpt2", 4);
    gguf_put_text(keys, "tokenizer.ggml.pre", split, strlen(split));
    put_pieces(tok, vocab, keys);
    put_merges(tok, keys);
    return true;
}

bool tokenizer_to_gguf(const Tokenizer *tok, const Conf *conf, GgufKeys *keys, Err *err) {
    if (tok->chars)
        put_spm(tok, conf->vocab, keys);
    else if (!put_bpe(tok, conf->vocab, keys, err))
        return false;
    return put_frame(tok, conf, keys, err);
}
