/* cmd_eval.c: `whet eval`: how many problems of a file a model solves. Tested by tests/cmd_run.sh. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rl/cmd.h"
#include "rl/eval.h"
#include "rl/open.h"

static const char usage[] =
    "usage: whet eval --model MODEL --data FILE [--num_samples N --temperature T] [--json] ...\n\n"
    "Asks the model every problem of a .jsonl or .jsonl.gz file (or of generate:SPEC) and judges the answers. "
    "The\n"
    "template that lies with the model is used, unless --prompt_template says otherwise.\n";

typedef struct {
    OpenConf open;
    SourceConf source;
    const char *prompt_template;
    bool json;
    long num_samples, max_completion_length, top_k, slots, seed, exec_workers, exec_parallel;
    double temperature, top_p, min_p, exec_deadline;
    TextList stop_strings, reward_funcs;
    NumberList reward_weights;
    Arena arena;
} Options;

static void options_fill(Options *o, int argc, char **argv) {
    static const char *math[] = {"math"};
    *o = (Options){.source = {.max_skipped = 100},
                   .open = {.dtype = "bfloat16", .device = "auto", .cpu_path = "auto"},
                   .num_samples = 1,
                   .max_completion_length = 256,
                   .slots = 64,
                   .seed = 42,
                   .top_p = 1,
                   .exec_workers = 1,
                   .exec_parallel = 8,
                   .exec_deadline = 30,
                   .reward_funcs = {math, 1}};
    Option table[OPEN_OPTIONS + 23] = {
        {"data", KEY_TEXT, &o->source.name, 0, 0, "a .jsonl or .jsonl.gz file, or generate:SPEC"},
        {"held_out", KEY_SWITCH, &o->source.held_out, 0, 0, "generate: the part that is held out"},
        {"problem_key", KEY_TEXT, &o->source.problem_key, 0, 0, "column; default: problem, question or prompt"},
        {"answer_key", KEY_TEXT, &o->source.answer_key, 0, 0, "column; default: answer or solution"},
        {"max_samples", KEY_WHOLE, &o->source.max_problems, 0, 1e9, "only the first so many problems; 0: all"},
        {"max_skipped", KEY_WHOLE, &o->source.max_skipped, 1, 1e9, "broken rows borne before the file is refused"},
        {"prompt_template", KEY_TEXT, &o->prompt_template, 0, 0, "with {problem} where the problem goes"},
        {"num_samples", KEY_WHOLE, &o->num_samples, 1, 1e5, "answers to each problem"},
        {"max_completion_length", KEY_WHOLE, &o->max_completion_length, 1, 1e7, "most tokens of an answer"},
        {"temperature", KEY_NUMBER, &o->temperature, 0, 100, "0: always the likeliest token"},
        {"top_k", KEY_WHOLE, &o->top_k, 0, 1e7, "sample from this many tokens; 0: all"},
        {"top_p", KEY_NUMBER, &o->top_p, 1e-9, 1, "sample from the fewest tokens with this share of probability"},
        {"min_p", KEY_NUMBER, &o->min_p, 0, 1, "sample from tokens with this share of the likeliest one's"},
        {"stop_strings", KEY_TEXTS, &o->stop_strings, 0, 0, "texts that end an answer"},
        {"reward_funcs", KEY_TEXTS, &o->reward_funcs, 0, 0, "judges; the first decides what is right"},
        {"reward_weights", KEY_NUMBERS, &o->reward_weights, 0, 0, "a weight for each of them (default: 1)"},
        {"reward_exec_workers", KEY_WHOLE, &o->exec_workers, 1, 256, "copies of an exec: program"},
        {"reward_exec_parallel", KEY_WHOLE, &o->exec_parallel, 1, 4096, "answers that each is given at a time"},
        {"reward_exec_deadline", KEY_NUMBER, &o->exec_deadline, 1e-3, 1e6, "seconds that each may be silent"},
        {"seed", KEY_WHOLE, &o->seed, 0, 9e15, "of the random numbers"},
        {"sampling_weights", KEY_TEXT, &o->open.sampling_weights, 0, 0,
         "exact, or int8: a byte a weight; half the memory, sooner for few answers, and not quite the model"},
        {"slots", KEY_WHOLE, &o->slots, 1, 65536, "answers sampled at once; changes no result"},
        {"json", KEY_SWITCH, &o->json, 0, 0, "the result as one line of JSON"},
    };
    open_options(&o->open, table + 23);
    options_read(usage, table, OPEN_OPTIONS + 23, argc, argv, &o->arena);
    if (!o->source.name) die("eval: --data is needed: a .jsonl file or generate:SPEC");
    if (o->reward_weights.n && o->reward_weights.n != o->reward_funcs.n)
        die("eval: --reward_weights has %d numbers for %d of --reward_funcs", o->reward_weights.n,
            o->reward_funcs.n);
    o->source.seed = (uint64_t)o->seed;
}

static void progress(void *self, long done, long total) {
    double *last = self, now = clock_seconds();
    if (now - *last < 0.2 && done < total) return;
    *last = now;
    fprintf(stderr, "\reval: %ld of %ld answers%s", done, total, done == total ? "\n" : "");
}

static json_t *number_or_null(double value) { return isnan(value) ? json_null() : json_real(value); }

static void json_print(const Options *o, const Evaluation *e) {
    const StoreEval *eval = &e->eval;
    json_t *pass = json_object();
    for (int i = 0; i < e->n_pass; i++) {
        char key[16];
        snprintf(key, sizeof key, "%d", e->pass[i].k);
        json_object_set_new(pass, key, json_real(e->pass[i].share));
    }
    json_t *row =
        json_pack("{s:I, s:o, s:f, s:f, s:i, s:i, s:I, s:f, s:f, s:f, s:o, s:f}", "n", (json_int_t)e->problems,
                  "accuracy", number_or_null(eval->accuracy), "ci_low", eval->ci_low, "ci_high", eval->ci_high,
                  "samples", eval->n, "unjudged", e->unjudged, "left_out", (json_int_t)e->left_out, "temperature",
                  o->temperature, "mean_length", eval->mean_length, "clipped_ratio", e->clipped, "reward",
                  number_or_null(e->reward), "seconds", eval->seconds);
    if (e->n_pass) json_object_set(row, "pass_at", pass);
    char *line = json_dumps(row, JSON_REAL_PRECISION(9));
    puts(line);
    free(line);
    json_decref(pass);
    json_decref(row);
}

static void text_print(const Options *o, const Evaluation *e) {
    const StoreEval *eval = &e->eval;
    if (!eval->n) {
        printf("%s: none of %d answers could be judged\n", eval->name, eval->n_answers);
        return;
    }
    printf("%s: %.1f %% of %ld problems right (95 %% interval %.1f to %.1f)", eval->name, 100 * eval->accuracy,
           e->problems, 100 * eval->ci_low, 100 * eval->ci_high);
    if (o->num_samples > 1) printf(", %ld answers each", o->num_samples);
    printf("\nmean reward %.4f, mean length %.1f tokens, %.1f %% cut off, %d unjudged; %.1f s\n", e->reward,
           eval->mean_length, 100 * e->clipped, e->unjudged, eval->seconds);
    for (int i = 0; i < e->n_pass; i++)
        printf("%spass@%d %.1f %%%s", i ? ", " : "", e->pass[i].k, 100 * e->pass[i].share,
               i + 1 == e->n_pass ? "\n" : "");
}

static void notes_print(const Options *o, const Source *source, const Evaluation *e) {
    if (source_skipped(source))
        fprintf(stderr, "eval: %ld rows skipped: %s\n", source_skipped(source), source_skipped_note(source));
    if (e->left_out)
        fprintf(stderr, "eval: %ld problems left out: their prompts leave no room for %ld tokens\n", e->left_out,
                o->max_completion_length);
    for (int i = 0, said = 0; i < e->eval.n_answers && !said; i++) {
        if (e->eval.answers[i].class != SCORE_UNJUDGED) continue;
        fprintf(stderr, "eval: %d answers could not be judged: %s\n", e->unjudged, e->eval.answers[i].verdict);
        said = 1;
    }
}

/* Opens what the evaluation needs in the order in which things may be wrong: the data before the weights. */
static bool eval_run(const Options *o, Err *err) {
    Model model;
    if (!model_open(&model, &o->open, err)) return false;
    Source *source = source_open(&o->source, err);
    RewardConf reward_conf = {.exec_workers = (int)o->exec_workers,
                              .exec_parallel = (int)o->exec_parallel,
                              .exec_deadline = o->exec_deadline};
    Reward *reward = source ? reward_open(o->reward_funcs.at, o->reward_funcs.n, &reward_conf, err) : NULL;
    PromptForm form = {0};
    bool asked = reward && model_prompt_form(&model, &(PromptAsk){.text = o->prompt_template}, &form, err);
    long longest = asked ? eval_longest_prompt(model.tok, source, 0, &form, err) : -1;
    EngineConf conf = {.slots = (int)o->slots};
    Engine *engine = longest >= 0 ? model_engine(&model, longest, o->max_completion_length, &conf, err) : NULL;
    double last = 0;
    EvalConf eval = {.name = o->source.name,
                     .source = source,
                     .form = form,
                     .tok = model.tok,
                     .engine = engine,
                     .max_tokens = conf.max_tokens,
                     .reward = reward,
                     .weights = o->reward_weights.n ? o->reward_weights.at : NULL,
                     .num_samples = (int)o->num_samples,
                     .temperature = o->temperature,
                     .top_k = (int)o->top_k,
                     .top_p = o->top_p,
                     .min_p = o->min_p,
                     .max_new = (int)o->max_completion_length,
                     .stop = o->stop_strings.at,
                     .key = rng_mix((uint64_t)o->seed, 1),
                     .progress = isatty(STDERR_FILENO) ? progress : NULL,
                     .self = &last};
    Evaluation evaluation;
    bool good = engine && evaluate(&eval, &evaluation, err);
    if (good) {
        notes_print(o, source, &evaluation);
        (o->json ? json_print : text_print)(o, &evaluation);
        store_eval_free(&evaluation.eval);
        if (fflush(stdout)) good = err_set(err, "stdout: %s", strerror(errno));
    }
    engine_close(engine);
    if (reward) reward_close(reward);
    if (source) source_close(source);
    model_close(&model);
    return good;
}

int cmd_eval(int argc, char **argv) {
    Options o;
    options_fill(&o, argc, argv);
    Err err = {0};
    if (!eval_run(&o, &err)) die("eval: %s", err.msg);
    arena_free(&o.arena);
    return 0;
}
