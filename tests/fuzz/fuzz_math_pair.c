/* fuzz_math_pair.c: libFuzzer target of the whole math judge: the first line is the expected answer, the rest the
 * completion. The verdict must be whole, and the same when asked again. Run by tests/fuzz.sh and `make fuzz`. */
#include <stdlib.h>
#include <string.h>

#include "reward/reward.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *line = size ? memchr(data, '\n', size) : NULL;
    size_t first = line ? (size_t)(line - data) : size;
    char *gold = mem_text_n((const char *)data, first),
         *completion = mem_text_n((const char *)data + first, size - first);
    const char *verdict = NULL;
    for (int i = 0; i < 2; i++) {
        RewardConf conf = {.explain = true};
        RewardItem item = {.answer = gold, .completion = completion};
        RewardScore score;
        judge_math.judge(&conf, &item, &score);
        CHECK((score.class == SCORE_UNJUDGED) == (score.value != score.value), "class %d with value %g",
              (int)score.class, score.value);
        CHECK(!verdict || !strcmp(verdict, score.verdict), "%s, then %s", verdict, score.verdict);
        verdict = score.verdict;
        free(score.reason);
        free(score.detail);
    }
    free(gold);
    free(completion);
    return 0;
}
