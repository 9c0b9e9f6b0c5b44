/* shape.h: what the small judges share: scores, and where an answer stands in a completion. Private to reward. */
#ifndef WHET_REWARD_SHAPE_H
#define WHET_REWARD_SHAPE_H

#include <stdarg.h>

#include "reward/reward.h"

const RewardShape *shape_of(const RewardConf *conf);
void score_set(RewardScore *score, double value, bool right, const char *verdict, char *reason); /* owns reason */
void score_unjudged(RewardScore *score, const char *verdict, const char *reason);
char *text_format(const char *format, ...) FORMAT_LIKE(1, 2); /* the caller's */
bool prompt_opens_thought(const char *prompt);                /* it ends with <think> */

/* The answer proper: what the last <answer> tag holds, else the last \boxed{}; else the whole text after the last
 * </think>, with *marked false. A view of the text. */
const char *answer_region(const char *text, size_t *n, bool *marked);

#endif
