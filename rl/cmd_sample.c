/* cmd_sample.c: `whet sample`: answers of the policy to one prompt. Tested by tests/cmd_run.sh. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rl/cmd.h"
#include "rl/open.h"
#include "rl/prompt.h"
#include "rl/store.h"
#include "rl/text.h"

static const char usage[] =
    "usage: whet sample --model MODEL --prompt TEXT [--num_samples N] [--temperature T] ...\n\n"
    "Prints what the model answers. The prompt goes through the template that lies with the model, or the "
    "model's\n"
    "chat format, if there is one.\n";

typedef struct {
    OpenConf open;
    const char *prompt, *prompt_template;
    bool raw, json;
    long num_samples, max_completion_length, top_k, slots, seed;
    double temperature, top_p, min_p;
    TextList stop_strings;
    Arena arena;
} Options;

static void options_fill(Options *o, int argc, char **argv) {
    *o = (Options){.open = {.dtype = "bfloat16", .device = "auto", .cpu_path = "auto"},
                   .num_samples = 1,
                   .max_completion_length = 256,
                   .slots = 64,
                   .seed = 42,
                   .temperature = 1,
                   .top_p = 1};
    Option table[OPEN_OPTIONS + 14] = {
        {"prompt", KEY_TEXT, &o->prompt, 0, 0, "the prompt; without it, standard input"},
        {"prompt_template", KEY_TEXT, &o->prompt_template, 0, 0, "with {problem} where the prompt goes"},
        {"raw", KEY_SWITCH, &o->raw, 0, 0, "no template: the prompt as it is, control tokens recognised"},
        {"num_samples", KEY_WHOLE, &o->num_samples, 1, 1e6, "how many answers"},
        {"max_completion_length", KEY_WHOLE, &o->max_completion_length, 1, 1e7, "most tokens of an answer"},
        {"temperature", KEY_NUMBER, &o->temperature, 0, 100, "0: always the likeliest token"},
        {"top_k", KEY_WHOLE, &o->top_k, 0, 1e7, "sample from this many tokens; 0: all"},
        {"top_p", KEY_NUMBER, &o->top_p, 1e-9, 1, "sample from the fewest tokens with this share of probability"},
        {"min_p", KEY_NUMBER, &o->min_p, 0, 1, "sample from tokens with this share of the likeliest one's"},
        {"stop_strings", KEY_TEXTS, &o->stop_strings, 0, 0, "texts that end an answer"},
        {"seed", KEY_WHOLE, &o->seed, 0, 9e15, "of the random numbers"},
        {"sampling_weights", KEY_TEXT, &o->open.sampling_weights, 0, 0,
         "exact, or int8: a byte a weight; half the memory, sooner for few answers, and not quite the model"},
        {"slots", KEY_WHOLE, &o->slots, 1, 65536, "answers sampled at once; changes no result"},
        {"json", KEY_SWITCH, &o->json, 0, 0, "one JSON object per answer, with tokens and log-probs"},
    };
    open_options(&o->open, table + 14);
    options_read(usage, table, OPEN_OPTIONS + 14, argc, argv, &o->arena);
}

static void prompt_read(const Options *o, Model *model, Prompt *prompt) {
    Err err = {0};
    Buf text = {0};
    char chunk[1 << 16];
    size_t got;
    buf_text(&text, o->prompt ? o->prompt : "");
    while (!o->prompt && (got = fread(chunk, 1, sizeof chunk, stdin)) > 0) buf_add(&text, chunk, got);
    if (!o->prompt && ferror(stdin)) die("sample: stdin: %s", strerror(errno));
    PromptForm form = {0};
    if (!o->raw && !model_prompt_form(model, &(PromptAsk){.text = o->prompt_template}, &form, &err))
        die("sample: %s", err.msg);
    if (o->raw || !form.text)
        prompt_raw(prompt, model->tok, text.p);
    else if (!prompt_make(prompt, model->tok, &form, text.p, &err))
        die("sample: %s", err.msg);
    if (!prompt->n) die("sample: the prompt is empty");
    buf_free(&text);
}

static void answer_json(const Sample *sample, const Buf *text) {
    json_t *tokens = json_array(), *logprobs = json_array();
    for (int i = sample->n_prompt; i < sample->n; i++) {
        json_array_append_new(tokens, json_integer(sample->tok[i]));
        json_array_append_new(logprobs, json_real((double)sample->logp[i]));
    }
    json_t *row = json_pack("{s:i, s:o, s:s, s:i, s:o, s:o}", "index", sample->index, "text",
                            text_json(text->p, text->n), "finish", finish_name(sample->finish), "prompt_tokens",
                            sample->n_prompt, "tokens", tokens, "logprobs", logprobs);
    char *line = json_dumps(row, JSON_COMPACT | JSON_REAL_PRECISION(9));
    puts(line);
    free(line);
    json_decref(row);
}

static void answer_print(const Options *o, const Model *model, const Sample *sample) {
    Buf text = {0};
    buf_text(&text, "");
    tokenizer_decode(model->tok, sample->tok + sample->n_prompt, sample->n - sample->n_prompt, true, &text);
    if (o->json) {
        answer_json(sample, &text);
    } else {
        if (o->num_samples > 1)
            printf("%s--- answer %d (%d tokens, %s)\n", sample->index ? "\n" : "", sample->index + 1,
                   sample->n - sample->n_prompt, finish_name(sample->finish));
        fwrite(text.p, 1, text.n, stdout);
        putchar('\n');
    }
    if (fflush(stdout)) die("sample: stdout: %s", strerror(errno));
    buf_free(&text);
}

/* Answers are printed in the order of their indices, each as soon as those before it are there. */
static void answers_print(const Options *o, const Model *model, Engine *engine) {
    Sample *all = MEM_ARRAY(Sample, o->num_samples), sample;
    long printed = 0;
    while (!engine_idle(engine)) {
        engine_step(engine);
        while (engine_take(engine, &sample)) all[sample.index] = sample;
        for (; printed < o->num_samples && all[printed].n; printed++) {
            answer_print(o, model, &all[printed]);
            sample_free(&all[printed]);
        }
    }
    free(all);
}

static void speed_say(const EngineStats *stats) {
    fprintf(stderr, "sample: prompt %lld tokens in %.2f s; %lld tokens in %.2f s, %.0f tokens/s\n",
            (long long)stats->prompt_tokens, stats->prompt_seconds, (long long)stats->new_tokens,
            stats->decode_seconds,
            (double)stats->new_tokens / (stats->decode_seconds > 0 ? stats->decode_seconds : 1e-9));
}

int cmd_sample(int argc, char **argv) {
    Options o;
    options_fill(&o, argc, argv);
    Err err = {0};
    Model model;
    if (!model_open(&model, &o.open, &err)) die("sample: %s", err.msg);
    Prompt prompt = {0};
    prompt_read(&o, &model, &prompt);
    EngineConf conf = {.slots = (int)(o.slots < o.num_samples ? o.slots : o.num_samples)};
    Engine *engine = model_engine(&model, prompt.n, o.max_completion_length, &conf, &err);
    if (!engine) die("sample: %s", err.msg);
    Request request = {.prompt = prompt.ids,
                       .n_prompt = prompt.n,
                       .group = (int)o.num_samples,
                       .key = rng_mix((uint64_t)o.seed, 0),
                       .temperature = (real)o.temperature,
                       .top_k = (int)o.top_k,
                       .top_p = (real)o.top_p,
                       .min_p = (real)o.min_p,
                       .max_new = (int)o.max_completion_length,
                       .stop = o.stop_strings.at};
    if (!engine_submit(engine, &request, &err)) die("sample: %s", err.msg);
    answers_print(&o, &model, engine);
    speed_say(engine_stats(engine));
    engine_close(engine);
    prompt_free(&prompt);
    model_close(&model);
    arena_free(&o.arena);
    return 0;
}
