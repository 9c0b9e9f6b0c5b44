/* text.h: bytes as UTF-8 and as JSON texts.
 *
 * Knows: UTF-8. Must never know: what the text is about. Tested by tests/test_rl_eval.c.
 */
#ifndef WHET_RL_TEXT_H
#define WHET_RL_TEXT_H

#include "kernels/base.h"

#include <jansson.h>

/* Adds the bytes; what is no UTF-8 becomes U+FFFD, as where Hugging Face decodes tokens. */
void text_utf8(Buf *out, const char *bytes, size_t n);
/* A JSON string of the bytes, likewise. */
json_t *text_json(const char *bytes, size_t n);

#endif
