/* math.c: the judge of mathematical answers: is the answer in this completion equal to the expected one?
 *
 * It extracts the texts that may be the answer, parses both sides, and compares them type by type. It answers at
 * once, in bounded time and memory for any input (see math_parts.h for the bounds), needs no other process, and is
 * safe to call from several threads. It knows nothing of tests, tokens or training.
 * Tested by tests/test_reward_math.c, tests/score.sh and tests/fuzz/.
 */
#include <math.h>
#include <string.h>

#include "reward/math_parts.h"
#include "reward/reward.h"

typedef struct {
    const RewardConf *conf;
    const RewardItem *item;
    Arena arena;
    Budget budget;
    const char *verdict, *reason;
    ScoreClass class;
    const char *extracted;     /* the text that was judged */
    const char *how;           /* how it was found */
    const Node *gold, *answer; /* both normal forms, where they exist */
    bool rounds;
} Judging;

static void conclude(Judging *j, ScoreClass class, const char *verdict, const char *reason) {
    j->class = class;
    j->verdict = verdict;
    j->reason = reason;
}

/* ---- the gold answer ---- */

static Node *text_parse(Judging *j, const char *text, unsigned reading, Parse *parse) {
    *parse = (Parse){.arena = &j->arena, .reading = reading};
    return math_parse(parse, text, strlen(text));
}

/* The first candidate that can be parsed; its text in *text. */
static Node *candidates_parse(Judging *j, const Candidates *candidates, const char **text, const char **how,
                              Parse *parse) {
    for (int i = 0; i < candidates->n; i++) {
        Node *node = text_parse(j, candidates->c[i].text, 0, parse);
        if (!node) continue;
        *text = candidates->c[i].text;
        *how = candidates->c[i].how;
        return node;
    }
    return NULL;
}

/* Words without any mathematics, such as "two lines": they are compared as text. */
static bool is_words(const char *text) {
    int letters = 0, words = 0, run = 0;
    for (const char *p = text; *p; p++) {
        bool letter = ((unsigned char)*p | 32) >= 'a' && ((unsigned char)*p | 32) <= 'z';
        if (!letter && !strchr(" -'.,!?", *p)) return false;
        run = letter ? run + 1 : 0;
        letters += letter;
        words += run == 1;
        if (run == 2 && word_find(p - 1, 2).kind == WORD_FN) return false;
    }
    return words >= 1 && letters >= 3 && letters > 2 * words;
}

static Node *words_node(Judging *j, const char *text) {
    size_t n = strlen(text);
    if (!is_words(text) || n > 300) return NULL;
    Word word = word_find(text, n);
    if (word.kind == WORD_CONST || word.kind == WORD_GREEK) return NULL;
    return node_text(&j->arena, NODE_TEXT, text, n);
}

/* ---- echoes ---- */

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* Text without blanks, dollars and \left, \right: so that an echo of the problem is found however it is spaced. */
static void squeeze(Buf *out, const char *text, size_t max) {
    for (const char *p = text; *p && out->n < max; p++) {
        if (strchr(" \t\n$", *p)) continue;
        if (!strncmp(p, "\\left", 5) && !is_letter(p[5]))
            p += 4;
        else if (!strncmp(p, "\\right", 6) && !is_letter(p[6]))
            p += 5;
        else if (!strncmp(p, "\\,", 2) || !strncmp(p, "\\!", 2) || !strncmp(p, "\\;", 2))
            p++;
        else if (!strncmp(p, "\\dfrac", 6)) {
            buf_text(out, "\\frac");
            p += 5;
        } else
            buf_char(out, *p);
    }
    if (!out->p) buf_text(out, "");
}

/* Does the answer repeat an expression of the problem where the expected answer is a simpler one? */
static bool is_echo(Judging *j) {
    if (!j->item->problem || !j->answer || !j->gold) return false;
    const Node *value = j->answer->kind == NODE_CHAIN ? j->answer->kids[j->answer->n - 1] : j->answer;
    while (value->kind == NODE_NEG || value->kind == NODE_UNIT) value = value->kids[0];
    bool fraction =
        value->kind == NODE_DIV && value->kids[0]->kind == NODE_NUMBER && value->kids[1]->kind == NODE_NUMBER;
    if (fraction || node_count(value) < 3 || node_count(value) <= node_count(j->gold)) return false;
    Buf problem = {0}, answer = {0}, gold = {0};
    squeeze(&problem, j->item->problem, 65536);
    squeeze(&answer, j->extracted, TEXT_MAX);
    squeeze(&gold, j->item->answer, TEXT_MAX);
    while (answer.n && strchr(".,", answer.p[answer.n - 1])) answer.p[--answer.n] = 0;
    bool echo = answer.n >= 3 && strcmp(answer.p, gold.p) && strstr(problem.p, answer.p);
    buf_free(&problem);
    buf_free(&answer);
    buf_free(&gold);
    return echo;
}

static bool asks_rounding(const char *problem) {
    static const char *const words[] = {"round", "nearest", "decimal place", "approximat", "significant"};
    for (const char *p = problem; p && *p && p - problem < 65536; p++)
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
            if ((*p | 32) == words[i][0] && text_alike(p, words[i], strlen(words[i]))) return true;
    return false;
}

/* ---- comparing ---- */

static bool speaks_of_i(const Node *node) {
    if (node->kind == NODE_CONST && node->op == CONST_I) return true;
    for (int i = 0; i < node->n; i++)
        if (speaks_of_i(node->kids[i])) return true;
    return false;
}

static Verdict pair_compare(Judging *j, const Node *gold, const Node *answer) {
    Compare compare = {.arena = &j->arena, .budget = &j->budget, .rounds = j->rounds};
    compare.complex = speaks_of_i(gold) || speaks_of_i(answer);
    Node *g = math_fold(&j->arena, &j->budget, (Node *)gold),
         *a = math_fold(&j->arena, &j->budget, (Node *)answer);
    return math_equal(&compare, g, a);
}

/* Compares under every reading that either text allows; the first that is right wins. */
static Verdict readings_compare(Judging *j, const char *gold_text, const Node *gold, unsigned gold_could,
                                const char *text, const Node *answer, unsigned could) {
    Verdict verdict = pair_compare(j, gold, answer);
    if (verdict_right(verdict)) return verdict;
    for (unsigned bit = 1; bit <= READ_SCIENTIFIC; bit *= 2) {
        Parse parse;
        if (could & bit) {
            Node *other = text_parse(j, text, bit, &parse);
            Verdict v = other ? pair_compare(j, gold, other) : VERDICT_DIFFERENT;
            if (verdict_right(v)) return v;
        }
        if (gold_could & bit & ~(unsigned)READ_DECIMAL_COMMA) {
            Node *other = text_parse(j, gold_text, bit, &parse);
            Verdict v = other ? pair_compare(j, other, answer) : VERDICT_DIFFERENT;
            if (verdict_right(v)) return v;
        }
    }
    return verdict;
}

static void verdict_conclude(Judging *j, Verdict verdict) {
    switch (verdict) {
    case VERDICT_EXACT:
        conclude(j, SCORE_RIGHT, "equal-exact", "the same value, compared exactly");
        break;
    case VERDICT_SYMBOLIC:
        conclude(j, SCORE_RIGHT, "equal-symbolic", "the same expression");
        break;
    case VERDICT_NUMERIC:
        conclude(j, SCORE_RIGHT, "equal-numeric", "the same value, compared in high precision");
        break;
    case VERDICT_DIFFERENT:
        conclude(j, SCORE_WRONG, "different", "another value than the expected one");
        break;
    case VERDICT_TOO_LARGE:
        conclude(j, SCORE_WRONG, "answer-too-large", "too large to be compared within the limits");
        break;
    }
    Budget budget = {.work = WORK_MAX};
    if (verdict == VERDICT_TOO_LARGE && !value_measurable(&budget, j->gold))
        conclude(j, SCORE_UNJUDGED, "gold-too-large",
                 "the expected answer is too large to be compared within the limits");
    if (verdict_right(verdict) && is_echo(j))
        conclude(j, SCORE_WRONG, "different", "repeats an expression of the problem where a simpler one is asked");
}

/* ---- options ---- */

/* The gold answer is the letter of an option: looks for the letter that the completion settles on. */
static bool options_judge(Judging *j, char gold, const Candidates *candidates) {
    char letter = 0;
    for (int i = 0; i < candidates->n && !letter; i++) {
        letter = option_letter(candidates->c[i].text);
        if (letter) j->how = candidates->c[i].how;
        if (!letter && strstr(candidates->c[i].how, "box")) return false; /* a box that holds no letter */
    }
    if (!letter && !j->conf->strict) {
        letter = option_settled(&j->arena, j->item->completion);
        j->how = "option";
    }
    if (!letter) return false;
    char text[2] = {letter, 0};
    j->extracted = arena_text(&j->arena, text, 1);
    if (letter == gold)
        conclude(j, SCORE_RIGHT, "equal-exact", "the same option");
    else
        conclude(j, SCORE_WRONG, "different", "another option");
    return true;
}

/* The gold answer is a small letter, and the completion's only letter stands alone as a capital: an option as
 * well. */
static bool small_letter_judge(Judging *j, const char *gold, const Candidates *candidates) {
    if (gold[0] < 'a' || gold[0] > 'z' || gold[1] || j->conf->strict) return false;
    bool loose = !candidates->n || text_alike(candidates->c[0].how, "last", 4);
    const char *first = loose ? "" : candidates->c[0].text;
    char letter = loose ? option_settled(&j->arena, j->item->completion) : first[1] ? 0 : first[0];
    if (letter != gold[0] - 32) return false;
    char text[2] = {letter, 0};
    j->extracted = arena_text(&j->arena, text, 1);
    j->how = "option";
    conclude(j, SCORE_RIGHT, "equal-exact", "the same option");
    return true;
}

/* ---- the judgement ---- */

typedef struct {
    const char *text;
    Node *node;
    unsigned could;
} Side;

static bool gold_read(Judging *j, Side *gold) {
    if (!j->item->answer || !*j->item->answer)
        return conclude(j, SCORE_UNJUDGED, "unparseable-gold", "no expected answer"), false;
    Candidates candidates;
    gold_extract(&j->arena, j->item->answer, &candidates);
    const char *how;
    Parse parse = {0};
    gold->node = candidates_parse(j, &candidates, &gold->text, &how, &parse);
    if (gold->node) {
        gold->could = parse.could;
        Node *words = words_node(j, gold->text);
        if (words && (gold->node->kind == NODE_MUL || gold->node->kind == NODE_UNIT)) gold->node = words;
        j->gold = gold->node;
        return true;
    }
    bool large = candidates.n && strlen(candidates.c[0].text) > TEXT_MAX;
    if (large)
        conclude(j, SCORE_UNJUDGED, "gold-too-large", "the expected answer is longer than an answer may be");
    else
        conclude(j, SCORE_UNJUDGED, "unparseable-gold",
                 parse.fault ? parse.fault : "nothing found in the expected answer");
    return false;
}

static bool answer_read(Judging *j, const Candidates *candidates, Side *answer) {
    Parse parse = {0};
    answer->node = candidates_parse(j, candidates, &answer->text, &j->how, &parse);
    if (answer->node) {
        answer->could = parse.could;
        j->answer = answer->node;
        j->extracted = answer->text;
        return true;
    }
    if (!candidates->n) {
        const char *reason = candidates->thought_only ? "the thought never ends"
                             : j->conf->strict        ? "no closed box"
                                                      : "nothing that looks like an answer";
        conclude(j, SCORE_WRONG, "no-answer", reason);
        return false;
    }
    j->extracted = candidates->c[0].text;
    j->how = candidates->c[0].how;
    if (strlen(j->extracted) > TEXT_MAX)
        conclude(j, SCORE_WRONG, "answer-too-large", "longer than an answer may be");
    else
        conclude(j, SCORE_WRONG, "unparseable-answer", parse.fault ? parse.fault : "not understood");
    return false;
}

static bool has_words(const Node *node) {
    if (node->kind == NODE_TEXT) return true;
    if (node->kind == NODE_UNIT) return false;
    Buf letters = {0};
    bool words = node->kind == NODE_MUL && node_letters(node, &letters) && letters.n > 2;
    buf_free(&letters);
    for (int i = 0; i < node->n && !words; i++) words = has_words(node->kids[i]);
    return words;
}

static void item_judge(Judging *j) {
    Side gold, answer;
    if (!gold_read(j, &gold)) return;
    Candidates candidates;
    answer_extract(&j->arena, j->item->completion, j->conf->strict, has_words(gold.node), &candidates);
    char option = option_letter(gold.text);
    if (option && options_judge(j, option, &candidates)) return;
    if (small_letter_judge(j, gold.text, &candidates)) return;
    if (!answer_read(j, &candidates, &answer)) return;
    Node *words = words_node(j, answer.text);
    if (words && (answer.node->kind == NODE_MUL || answer.node->kind == NODE_UNIT))
        j->answer = answer.node = words;
    verdict_conclude(
        j, readings_compare(j, gold.text, gold.node, gold.could, answer.text, answer.node, answer.could));
}

/* ---- results ---- */

/* A JSON string; bytes that are no UTF-8 become the replacement character. */
static void quoted_add(Buf *buf, const char *text) {
    buf_char(buf, '"');
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2, good = 1;
        if (*p == '"' || *p == '\\')
            buf_char(buf, '\\'), buf_char(buf, (char)*p);
        else if (*p == '\n')
            buf_text(buf, "\\n");
        else if (*p < 0x20 || *p == 0x7f)
            buf_format(buf, "\\u%04x", *p);
        else if (*p < 0x80)
            buf_char(buf, (char)*p);
        else {
            while (good < n && (p[good] & 0xc0) == 0x80) good++;
            bool valid = p[0] >= 0xc2 && p[0] <= 0xf4 && good == n && !(p[0] == 0xe0 && p[1] < 0xa0) &&
                         !(p[0] == 0xed && p[1] > 0x9f) && !(p[0] == 0xf0 && p[1] < 0x90) &&
                         !(p[0] == 0xf4 && p[1] > 0x8f);
            if (valid)
                buf_add(buf, p, n), p += n - 1;
            else
                buf_text(buf, "\xef\xbf\xbd");
        }
    }
    buf_char(buf, '"');
}

static void form_add(Buf *buf, const char *key, const Node *node) {
    if (!node) return;
    Buf form = {0};
    node_print(&form, node);
    buf_format(buf, ",\"%s\":", key);
    quoted_add(buf, form.p);
    buf_free(&form);
}

static char *detail_text(const Judging *j) {
    Buf buf = {0};
    buf_text(&buf, "{\"extracted\":");
    if (j->extracted)
        quoted_add(&buf, j->extracted);
    else
        buf_text(&buf, "null");
    if (j->conf->explain) {
        buf_text(&buf, ",\"found\":");
        quoted_add(&buf, j->how ? j->how : "nothing");
        form_add(&buf, "answer_form", j->answer);
        form_add(&buf, "gold_form", j->gold);
    }
    buf_char(&buf, '}');
    return buf.p;
}

static void math_judge(const RewardConf *conf, const RewardItem *item, RewardScore *score) {
    Judging j = {.conf = conf, .item = item, .budget = {.work = WORK_MAX}};
    j.rounds = asks_rounding(item->problem);
    item_judge(&j);
    score->class = j.class;
    score->value = j.class == SCORE_UNJUDGED ? (double)NAN : j.class == SCORE_RIGHT;
    score->verdict = j.verdict;
    score->reason = mem_text(j.reason);
    score->detail = detail_text(&j);
    arena_free(&j.arena);
}

const JudgeKind judge_math = {.truth = true, .name = "math", .judge = math_judge};
