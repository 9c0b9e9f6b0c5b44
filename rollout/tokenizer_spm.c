/* tokenizer_spm.c: what a SentencePiece model in a GGUF leaves unsaid: the merges behind its scores, and the
 * pipeline as tokenizer.json spells it.
 *
 * SentencePiece joins the neighbours whose joined text has the best score, leftmost first. So every way of cutting
 * a piece into two pieces is a merge, and pieces of one score share a rank. Tested by
 * tests/test_rollout_tokenizer.c.
 */
#include "rollout/tokens.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    float score;
    int left, right, id;
    size_t n_left;
} Cut;

typedef struct {
    Cut *items;
    size_t n, room;
} Cuts;

static void cut_add(Cuts *cuts, Cut cut) {
    if (cuts->n == cuts->room) {
        cuts->room = cuts->room ? 2 * cuts->room : 4096;
        cuts->items = mem_grow(cuts->items, cuts->room, sizeof *cuts->items);
    }
    cuts->items[cuts->n++] = cut;
}

/* Best score first; then the order in which Hugging Face lists the cuts of one piece. */
static int by_score(const void *a, const void *b) {
    const Cut *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return (x->n_left < y->n_left) - (x->n_left > y->n_left);
}

static bool is_text(const int32_t *types, int id) { return types[id] == TYPE_NORMAL || types[id] == TYPE_USER; }

bool merges_from_scores(Builder *b, const float *scores, const int32_t *types, int n, Err *err) {
    Cuts cuts = {0};
    for (int id = 0; id < n; id++) {
        View text = b->texts[id];
        if (!text.p || !is_text(types, id)) continue;
        if (!(scores[id] >= -1e30f && scores[id] <= 1e30f)) {
            free(cuts.items);
            return err_set(err, "%s: the score of token %d is no number: fetch the file again", b->where, id);
        }
        for (size_t at = 1; at < text.n && text.n <= 256; at++) {
            if (((unsigned char)text.p[at] & 0xc0) == 0x80) continue;
            int left = builder_find(b, text.p, at), right = builder_find(b, text.p + at, text.n - at);
            if (left >= 0 && right >= 0 && is_text(types, left) && is_text(types, right))
                cut_add(&cuts, (Cut){scores[id], left, right, id, at});
        }
    }
    if (cuts.n) qsort(cuts.items, cuts.n, sizeof *cuts.items, by_score);
    bool ok = true;
    uint32_t rank = 0;
    for (size_t i = 0; ok && i < cuts.n; i++) {
        const Cut *cut = &cuts.items[i];
        if (i && cut->score != cuts.items[i - 1].score) rank++;
        ok = builder_merge_ids(b, cut->left, cut->right, cut->id, rank, err);
    }
    free(cuts.items);
    return ok;
}

/* ---- as tokenizer.json spells it ---- */

static json_t *replace(const char *from, const char *to) {
    return json_pack("{s:s,s:{s:s},s:s}", "type", "Replace", "pattern", "String", from, "content", to);
}

json_t *spm_normalizer(const Tokenizer *tok) {
    if (tok->mark == MARK_NEVER) return replace(" ", BLANK_MARK);
    return json_pack("{s:s,s:[{s:s,s:s},o]}", "type", "Sequence", "normalizers", "type", "Prepend", "prepend",
                     BLANK_MARK, replace(" ", BLANK_MARK));
}

json_t *spm_decoder(const Tokenizer *tok) {
    json_t *list = json_pack("[o,{s:s},{s:s}]", replace(BLANK_MARK, " "), "type", "ByteFallback", "type", "Fuse");
    if (tok->strip)
        json_array_append_new(
            list, json_pack("{s:s,s:s,s:i,s:i}", "type", "Strip", "content", " ", "start", 1, "stop", 0));
    return json_pack("{s:s,s:o}", "type", "Sequence", "decoders", list);
}
