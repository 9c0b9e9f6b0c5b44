/* tokenizer_save.c: writes tokenizer.json and tokenizer_config.json, which Hugging Face's AutoTokenizer loads to
 * the same ids.
 *
 * What came from a tokenizer.json is saved as it was; what came from a GGUF is spelled out from the tables.
 * Tested by tests/test_rollout_tokenizer.c and tests/long_export.sh.
 */
#include "rollout/tokens.h"

#include <stdlib.h>
#include <string.h>

/* ---- tokenizer.json out of the tables ---- */

static json_t *text_of(const Tokenizer *tok, int id) {
    Buf text = {0};
    piece_spell(tok, id, &text);
    json_t *value = json_stringn(text.p, text.n);
    buf_free(&text);
    return value;
}

static json_t *make_added(const Tokenizer *tok) {
    json_t *list = json_array();
    for (int id = 0; id < tok->n_ids; id++)
        for (int i = 0; tok->pieces[id].raw && i < tok->n_added; i++) {
            const Added *a = &tok->added[i];
            if (a->id != id) continue;
            json_array_append_new(list,
                                  json_pack("{s:i,s:s%,s:b,s:b,s:b,s:b,s:b}", "id", a->id, "content", a->p, a->n,
                                            "single_word", a->single_word, "lstrip", a->lstrip, "rstrip",
                                            a->rstrip, "normalized", a->normalized, "special", a->special));
        }
    return list;
}

static json_t *make_model(const Tokenizer *tok) {
    json_t *vocab = json_object(), *merges = json_array();
    for (int id = 0; id < tok->n_ids; id++) {
        if (!tok->pieces[id].p) continue;
        json_t *text = text_of(tok, id);
        if (text) json_object_setn_new(vocab, json_string_value(text), json_string_length(text), json_integer(id));
        json_decref(text);
    }
    for (int i = 0; i < tok->n_merges; i++)
        json_array_append_new(
            merges, json_pack("[o,o]", text_of(tok, tok->merge_list[i][0]), text_of(tok, tok->merge_list[i][1])));
    json_t *unk = tok->unk < 0 ? json_null() : text_of(tok, tok->unk);
    return json_pack("{s:s,s:n,s:o,s:n,s:n,s:b,s:b,s:b,s:o,s:o}", "type", "BPE", "dropout", "unk_token", unk,
                     "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", tok->chars, "byte_fallback",
                     tok->chars, "ignore_merges", tok->whole_words, "vocab", vocab, "merges", merges);
}

static void template_add(const Tokenizer *tok, json_t *single, json_t *specials, const int *ids, int n) {
    for (int i = 0; i < n; i++) {
        json_t *text = text_of(tok, ids[i]);
        const char *name = json_string_value(text);
        json_array_append_new(single, json_pack("{s:{s:s,s:i}}", "SpecialToken", "id", name, "type_id", 0));
        json_object_set_new(specials, name,
                            json_pack("{s:s,s:[i],s:[s]}", "id", name, "ids", ids[i], "tokens", name));
        json_decref(text);
    }
}

static json_t *make_template(const Tokenizer *tok) {
    if (tok->n_before + tok->n_after == 0) return json_null();
    json_t *single = json_array(), *specials = json_object();
    template_add(tok, single, specials, tok->before, tok->n_before);
    json_array_append_new(single, json_pack("{s:{s:s,s:i}}", "Sequence", "id", "A", "type_id", 0));
    template_add(tok, single, specials, tok->after, tok->n_after);
    json_t *pair = json_deep_copy(single);
    json_array_append_new(pair, json_pack("{s:{s:s,s:i}}", "Sequence", "id", "B", "type_id", 0));
    return json_pack("{s:s,s:o,s:o,s:o}", "type", "TemplateProcessing", "single", single, "pair", pair,
                     "special_tokens", specials);
}

static json_t *make_root(const Tokenizer *tok) {
    json_t *root = json_pack("{s:s,s:n,s:n}", "version", "1.0", "truncation", "padding");
    json_object_set_new(root, "added_tokens", make_added(tok));
    json_object_set_new(root, "normalizer",
                        tok->chars         ? spm_normalizer(tok)
                        : tok->normal_name ? json_pack("{s:s}", "type", tok->normal_name)
                                           : json_null());
    json_object_set_new(root, "pre_tokenizer", tok->chars ? json_null() : gguf_pre_tokenizer(tok->split_name));
    json_object_set_new(root, "post_processor", make_template(tok));
    json_object_set_new(root, "decoder",
                        tok->chars ? spm_decoder(tok)
                                   : json_pack("{s:s,s:b,s:b,s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                                               "trim_offsets", 1, "use_regex", 1));
    json_object_set_new(root, "model", make_model(tok));
    return root;
}

/* ---- tokenizer_config.json ---- */

static void set_token(json_t *config, const Tokenizer *tok, const char *key, int id) {
    if (json_object_get(config, key) || id < 0 || id >= tok->n_ids || !tok->pieces[id].p) return;
    json_t *text = text_of(tok, id);
    if (text) json_object_set_new(config, key, text);
}

/* The settings that the tokenizer came with; the class is always the one that takes tokenizer.json as it stands
 * (others build their own pipeline out of the vocabulary, without the split into digits for example). */
static json_t *make_config(const Tokenizer *tok, const Conf *conf, const char *chat_template) {
    json_t *config = tok->config ? json_deep_copy(tok->config) : json_object();
    json_object_set_new(config, "tokenizer_class", json_string("PreTrainedTokenizerFast"));
    json_object_del(config, "auto_map");
    json_object_del(config, "chat_template");
    if (chat_template) json_object_set_new(config, "chat_template", json_string(chat_template));
    if (!json_object_get(config, "clean_up_tokenization_spaces"))
        json_object_set_new(config, "clean_up_tokenization_spaces", json_false());
    if (!json_object_get(config, "model_max_length"))
        json_object_set_new(config, "model_max_length", json_integer(conf->max_positions));
    set_token(config, tok, "bos_token", conf->bos);
    set_token(config, tok, "eos_token", conf->n_eos ? conf->eos[0] : -1);
    set_token(config, tok, "pad_token", conf->pad);
    return config;
}

bool tokenizer_save(const Tokenizer *tok, const Conf *conf, const char *chat_template, const char *folder,
                    Err *err) {
    Arena arena = {0};
    char *path = arena_format(&arena, "%s/tokenizer.json", folder);
    bool ok;
    if (tok->json)
        ok = file_write(path, tok->json, tok->json_n, err);
    else {
        json_t *root = make_root(tok);
        ok = json_write(path, root, err);
        json_decref(root);
    }
    json_t *config = make_config(tok, conf, chat_template);
    ok = ok && json_write(arena_format(&arena, "%s/tokenizer_config.json", folder), config, err);
    json_decref(config);
    arena_free(&arena);
    return ok;
}
