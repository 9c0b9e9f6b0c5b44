/* format.c: the judge of R1's format: `<think>...</think>` and then `<answer>...</answer>`.
 *
 * Each tag occurs exactly once, in this order, and nothing but whitespace stands outside. Where the prompt itself
 * ends with <think>, the completion begins inside the thought. What the tags hold is not judged here.
 * Tested by tests/test_reward_format.c.
 */
#include "reward/shape.h"

#include <string.h>

static bool space_only(const char *p, const char *end) {
    for (; p < end; p++)
        if (!strchr(" \t\r\n\v\f", *p)) return false;
    return true;
}

bool prompt_opens_thought(const char *prompt) {
    if (!prompt) return false;
    size_t n = strlen(prompt);
    while (n && strchr(" \t\r\n\v\f", prompt[n - 1])) n--;
    return n >= 7 && !memcmp(prompt + n - 7, "<think>", 7);
}

/* The tag's only place in the text, or NULL and what is wrong with it. */
static const char *tag_once(const char *text, const char *tag, const char *none, const char *many,
                            const char **fault) {
    const char *at = strstr(text, tag);
    if (!at) {
        if (!*fault) *fault = none;
        return NULL;
    }
    if (strstr(at + 1, tag)) {
        if (!*fault) *fault = many;
        return NULL;
    }
    return at;
}

/* NULL when the completion has the format, else what is wrong with it. */
static const char *format_fault(const char *prompt, const char *text) {
    const char *fault = NULL, *think = text;
    if (!prompt_opens_thought(prompt)) {
        think = tag_once(text, "<think>", "no <think>", "several <think>", &fault);
    } else if (strstr(text, "<think>")) {
        return "a second <think> after that of the prompt";
    }
    const char *end = tag_once(text, "</think>", "no </think>", "several </think>", &fault);
    const char *answer = tag_once(text, "<answer>", "no <answer>", "several <answer>", &fault);
    const char *last = tag_once(text, "</answer>", "no </answer>", "several </answer>", &fault);
    if (fault) return fault;
    if (think > end || end > answer || answer > last) return "tags in the wrong order";
    if (!space_only(text, think)) return "text before <think>";
    if (!space_only(end + 8, answer)) return "text between </think> and <answer>";
    if (!space_only(last + 9, last + strlen(last))) return "text after </answer>";
    return NULL;
}

static void format_judge(const RewardConf *conf, const RewardItem *item, RewardScore *score) {
    (void)conf;
    const char *fault = format_fault(item->prompt, item->completion);
    score->class = fault ? SCORE_WRONG : SCORE_RIGHT;
    score->value = fault ? 0 : 1;
    score->verdict = fault ? "wrong-format" : "format";
    score->reason = mem_text(fault ? fault : "<think> and <answer>, each once, in order, nothing outside");
    score->detail = NULL;
}

const JudgeKind judge_format = {.name = "format", .judge = format_judge};
