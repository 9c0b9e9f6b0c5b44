/* shape.c: judges of an answer's shape: its length, its repetitions, its tags and steps. What it says is judged by
 * others; `cosine` asks one of them.
 *
 * Names and formulas are TRL's (trl/rewards) and open-r1's (src/open_r1/rewards.py), where they differ TRL's; but
 * repetitions are of words, as in open-r1. Tested by tests/test_reward_shape.c.
 */
#include "reward/shape.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

const RewardShape reward_shape_default = {.overlong_max = 1280,
                                          .overlong_cache = 256,
                                          .cosine_max = 1000,
                                          .cosine_min_wrong = -1,
                                          .cosine_max_wrong = -0.5,
                                          .cosine_min_correct = 0.5,
                                          .cosine_max_correct = 1,
                                          .repetition_n = 3,
                                          .repetition_penalty = -1,
                                          .language = "en"};

const RewardShape *shape_of(const RewardConf *conf) { return conf->shape ? conf->shape : &reward_shape_default; }

void score_set(RewardScore *score, double value, bool right, const char *verdict, char *reason) {
    *score = (RewardScore){
        .value = value, .class = right ? SCORE_RIGHT : SCORE_WRONG, .verdict = verdict, .reason = reason};
}

void score_unjudged(RewardScore *score, const char *verdict, const char *reason) {
    *score = (RewardScore){.value = NAN, .class = SCORE_UNJUDGED, .verdict = verdict, .reason = mem_text(reason)};
}

char *text_format(const char *format, ...) {
    va_list args;
    char *text = NULL;
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0) die("out of memory");
    va_end(args);
    return text;
}

static bool length_known(const RewardItem *item, RewardScore *score) {
    if (item->n_tokens > 0 || !*item->completion) return true;
    score_unjudged(score, "no-length", "the row does not say how many tokens the answer has: give it n_tokens");
    return false;
}

/* ---- length ---- */

/* DAPO's soft punishment (arXiv 2503.14476, eq. 13): 0 up to max - cache tokens, down to -1 at max and beyond. */
static void overlong_judge(const RewardConf *conf, const RewardItem *item, RewardScore *score) {
    const RewardShape *shape = shape_of(conf);
    double most = shape->overlong_max, cache = shape->overlong_cache, n = item->n_tokens, value = 0;
    if (!length_known(item, score)) return;
    if (n > most)
        value = -1;
    else if (n > most - cache)
        value = (most - cache - n) / cache;
    score_set(score, value, value == 0, value == 0 ? "short-enough" : "overlong",
              text_format("%d tokens, free are %g, most %g", item->n_tokens, most - cache, most));
}

/* "Demystifying Long Chain-of-Thought Reasoning" (arXiv 2502.03373), with TRL's bound: a right answer is worth
 * more the shorter it is, a wrong one less. */
static void cosine_judge(const RewardConf *conf, const RewardItem *item, RewardScore *score) {
    const RewardShape *shape = shape_of(conf);
    if (!length_known(item, score)) return;
    RewardScore truth = {0};
    (conf->truth ? conf->truth : judge_math.judge)(conf, item, &truth);
    if (truth.class == SCORE_UNJUDGED) {
        *score = truth;
        return;
    }
    bool right = truth.class == SCORE_RIGHT;
    double low = right ? shape->cosine_min_correct : shape->cosine_max_wrong;
    double high = right ? shape->cosine_max_correct : shape->cosine_min_wrong;
    double part = fmin((double)item->n_tokens / (double)shape->cosine_max, 1);
    score_set(score, low + 0.5 * (high - low) * (1 + cos(part * M_PI)), right, truth.verdict,
              text_format("%s, %d tokens of %ld", right ? "right" : "wrong", item->n_tokens, shape->cosine_max));
    reward_score_free(&truth);
}

/* ---- repetition ---- */

static bool is_blank(utf8proc_int32_t c) {
    if (c < 128) return c == ' ' || (c >= 9 && c <= 13) || (c >= 28 && c <= 31);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

static int by_number(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* A hash of each word, in lower case; words are what blanks part. */
static uint64_t *words_of(const char *text, long *n) {
    uint64_t *words = NULL, word = 0;
    size_t room = 0;
    *n = 0;
    for (const char *p = text; p;) {
        utf8proc_int32_t c = 0;
        utf8proc_ssize_t bytes = utf8proc_iterate((const utf8proc_uint8_t *)p, -1, &c);
        if (bytes <= 0) bytes = 1, c = 0xfffd;
        bool end = !*p || is_blank(c);
        if (end && word) {
            if ((size_t)*n == room) words = mem_grow(words, room = room ? 2 * room : 256, sizeof *words);
            words[(*n)++] = word;
            word = 0;
        } else if (!end) {
            word = rng_mix(word, (uint64_t)utf8proc_tolower(c) + 1);
        }
        p = *p ? p + bytes : NULL;
    }
    return words;
}

/* (1 - different / all) of the n-grams of words, times the greatest penalty. */
static void repetition_judge(const RewardConf *conf, const RewardItem *item, RewardScore *score) {
    const RewardShape *shape = shape_of(conf);
    long words, grams, different = 0;
    uint64_t *word = words_of(item->completion, &words);
    grams = words - shape->repetition_n + 1;
    if (grams <= 0) {
        score_set(score, 0, true, "too-short", text_format("%ld words", words));
        free(word);
        return;
    }
    for (long i = 0; i < grams; i++) {
        uint64_t gram = 0;
        for (long k = 0; k < shape->repetition_n; k++) gram = rng_mix(gram, word[i + k]);
        word[i] = gram; /* what follows reads only later words */
    }
    qsort(word, (size_t)grams, sizeof *word, by_number);
    for (long i = 0; i < grams; i++) different += i == 0 || word[i] != word[i - 1];
    double repeated = 1 - (double)different / (double)grams;
    score_set(score, repeated == 0 ? 0 : repeated * shape->repetition_penalty, repeated == 0,
              repeated == 0 ? "no-repetition" : "repetition",
              text_format("%ld of %ld groups of %ld words are different", different, grams, shape->repetition_n));
    free(word);
}

/* ---- tags and steps ---- */

static int count_of(const char *text, const char *piece) {
    int count = 0;
    for (const char *p = text; (p = strstr(p, piece)); p += strlen(piece)) count++;
    return count;
}

/* open-r1: a quarter for each of R1's four tags that stands where it belongs, once. Where the prompt ends with
 * <think>, the first is the prompt's. */
static void tag_count_judge(const RewardConf *conf, const RewardItem *item, RewardScore *score) {
    static const char *const tags[] = {"<think>\n", "\n</think>\n", "\n<answer>\n", "\n</answer>"};
    (void)conf;
    int good = 0;
    for (int i = 0; i < 4; i++)
        good += count_of(item->completion, tags[i]) + (i == 0 && prompt_opens_thought(item->prompt)) == 1;
    score_set(score, good / 4.0, good == 4, good == 4 ? "all-tags" : "tags-missing",
              text_format("%d of 4 tags stand where they belong", good));
}

/* TRL's think_format_reward: the answer begins with <think>, which comes once, and has a </think>. */
static void think_format_judge(const RewardConf *conf, const RewardItem *item, RewardScore *score) {
    (void)conf;
    const char *text = item->completion;
    bool begins = !strncmp(text, "<think>", 7);
    if (begins) text += 7;
    bool good =
        (begins || prompt_opens_thought(item->prompt)) && !strstr(text, "<think>") && strstr(text, "</think>");
    score_set(score, good, good, good ? "format" : "wrong-format",
              mem_text(good ? "<think> and </think>" : "not <think>...</think> and then the answer"));
}

static const char *blanks_skip(const char *p) {
    while (is_blank(*p)) p++;
    return p;
}

/* The length of a mark of a step at p, or 0. */
static size_t step_at(const char *text, const char *p) {
    static const char *const words[] = {"First,", "Second,", "Next,", "Finally,", "\n-", "\n*"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strncmp(p, words[i], strlen(words[i]))) return strlen(words[i]);
    const char *digits = !strncmp(p, "Step ", 5) ? p + 5 : p == text ? p : NULL;
    size_t n = digits ? strspn(digits, "0123456789") : 0;
    if (n && digits[n] == (digits == p ? '.' : ':')) return (size_t)(digits - p) + n + 1;
    return 0;
}

/* open-r1: a third for each mark of a step, at most 1. */
static void steps_judge(const RewardConf *conf, const RewardItem *item, RewardScore *score) {
    (void)conf;
    int count = 0;
    for (const char *p = item->completion; *p;) {
        size_t n = step_at(item->completion, p);
        count += n > 0;
        p += n ? n : 1;
    }
    score_set(score, fmin(1, count / 3.0), count >= 3, count >= 3 ? "steps" : "few-steps",
              text_format("%d marks of steps", count));
}

/* TRL's reasoning_accuracy_reward: only what comes after the last </think> is judged; without one it is wrong. */
static void reasoning_judge(const RewardConf *conf, const RewardItem *item, RewardScore *score) {
    const char *end = NULL;
    for (const char *p = item->completion; (p = strstr(p, "</think>")); p += 8) end = p + 8;
    if (!end) {
        score_set(score, 0, false, "no-think-end", mem_text("no </think>: the reasoning did not end"));
        return;
    }
    RewardItem rest = *item;
    rest.completion = blanks_skip(end);
    judge_math.judge(conf, &rest, score);
}

const JudgeKind judge_overlong = {.name = "soft_overlong", .judge = overlong_judge};
const JudgeKind judge_cosine = {.name = "cosine", .judge = cosine_judge};
const JudgeKind judge_repetition = {.name = "repetition", .judge = repetition_judge};
const JudgeKind judge_tag_count = {.name = "tag_count", .judge = tag_count_judge};
const JudgeKind judge_think_format = {.name = "think_format", .judge = think_format_judge};
const JudgeKind judge_steps = {.name = "reasoning_steps", .judge = steps_judge};
const JudgeKind judge_reasoning = {.name = "reasoning_accuracy", .judge = reasoning_judge, .truth = true};
