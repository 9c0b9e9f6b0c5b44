/* eval.c: samples answers to problems, has them judged while others are still sampled, and counts. Tested by
 * tests/test_rl_eval.c. */
#include "rl/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rl/prompt.h"
#include "rl/report.h"

typedef struct {
    const EvalConf *conf;
    StoreEval *eval;
    int parts;
    RewardScore *scores; /* [answers x parts] */
} Run;

double pass_at_k(int n, int c, int k) {
    CHECK(k >= 1 && k <= n && c >= 0 && c <= n, "%d of %d, k %d", c, n, k);
    double none = 1;
    for (int j = 0; j < k; j++) none *= n - c - j > 0 ? (double)(n - c - j) / (n - j) : 0;
    return 1 - none;
}

static long problems_of(Source *source, long n) {
    long all = source_size(source);
    return n > 0 && n < all ? n : all;
}

long eval_longest_prompt(const Tokenizer *tok, Source *source, long n, const PromptForm *form, Err *err) {
    Prompt prompt = {0};
    long longest = 0, count = problems_of(source, n);
    for (long i = 0; i < count && longest >= 0; i++) {
        bool good = prompt_make(&prompt, tok, form, source_at(source, (uint64_t)i)->problem, err);
        longest = !good ? -1 : prompt.n > longest ? prompt.n : longest;
    }
    prompt_free(&prompt);
    return longest;
}

/* ---- sampling ---- */

static bool problem_submit(const EvalConf *conf, const Prompt *prompt, long place, int64_t ticket, Err *err) {
    Request request = {.ticket = ticket,
                       .prompt = prompt->ids,
                       .n_prompt = prompt->n,
                       .group = conf->num_samples,
                       .key = rng_mix(conf->key, (uint64_t)place),
                       .temperature = (real)conf->temperature,
                       .top_k = conf->top_k,
                       .top_p = (real)conf->top_p,
                       .min_p = (real)conf->min_p,
                       .max_new = conf->max_new,
                       .stop = conf->stop};
    return engine_submit(conf->engine, &request, err);
}

/* Queues all problems whose prompts leave room for an answer; their answers stand side by side. */
static bool problems_submit(Run *run, Evaluation *evaluation, Err *err) {
    const EvalConf *conf = run->conf;
    long count = problems_of(conf->source, conf->n), taken = 0;
    Prompt prompt = {0};
    bool good = true;
    run->eval->answers = arena_alloc(&run->eval->arena, (size_t)(count * conf->num_samples), sizeof(StoreAnswer));
    for (long i = 0; good && i < count; i++) {
        const Problem *problem = source_at(conf->source, (uint64_t)i);
        good = prompt_make(&prompt, conf->tok, &conf->form, problem->problem, err);
        if (!good) break;
        if (!prompt.n || prompt.n + conf->max_new > conf->max_tokens) {
            evaluation->left_out++;
            continue;
        }
        for (int s = 0; s < conf->num_samples; s++)
            run->eval->answers[taken * conf->num_samples + s].problem = *problem;
        good = problem_submit(conf, &prompt, i, taken++, err);
    }
    prompt_free(&prompt);
    run->eval->n_answers = (int)(taken * conf->num_samples);
    if (good && !taken)
        return err_set(err, "%s: no problem has a prompt that leaves room for an answer of %d tokens", conf->name,
                       conf->max_new);
    return good;
}

/* Decodes a finished sample into its answer and hands it to the judges. */
static bool sample_judge(Run *run, const Sample *sample, Err *err) {
    const EvalConf *conf = run->conf;
    int64_t at = sample->ticket * conf->num_samples + sample->index;
    StoreAnswer *answer = &run->eval->answers[at];
    Buf text = {0};
    answer->n_tokens = sample->n - sample->n_prompt;
    answer->finish = sample->finish;
    tokenizer_decode(conf->tok, sample->tok + sample->n_prompt, answer->n_tokens, true, &text);
    answer->text = arena_text(&run->eval->arena, text.p ? text.p : "", text.n);
    answer->text_n = text.n;
    buf_free(&text);
    RewardItem item = {.problem = answer->problem.problem,
                       .kind = answer->problem.kind,
                       .completion = answer->text,
                       .answer = answer->problem.answer,
                       .fields = answer->problem.fields,
                       .group = sample->ticket,
                       .index = sample->index,
                       .n_tokens = answer->n_tokens,
                       .finish = finish_name(answer->finish)};
    return reward_submit(conf->reward, &item, 1, at, err);
}

/* Takes the scores that are ready, waiting up to `seconds` for the first. */
static bool scores_take(Run *run, double seconds, Err *err) {
    int64_t ticket;
    int part, got;
    RewardScore score;
    while ((got = reward_poll(run->conf->reward, seconds, &ticket, &part, &score, err)) > 0) {
        run->scores[ticket * run->parts + part] = score;
        reward_score_free(&run->scores[ticket * run->parts + part]);
        seconds = 0;
    }
    return got == 0;
}

static bool answers_make(Run *run, Err *err) {
    const EvalConf *conf = run->conf;
    long done = 0;
    Sample sample;
    while (!engine_idle(conf->engine)) {
        engine_step(conf->engine);
        for (; engine_take(conf->engine, &sample); done++) {
            bool good = sample_judge(run, &sample, err);
            sample_free(&sample);
            if (!good) return false;
        }
        if (!scores_take(run, 0, err)) return false;
        if (conf->progress) conf->progress(conf->self, done, run->eval->n_answers);
    }
    while (reward_pending(conf->reward) > 0)
        if (!scores_take(run, 1, err)) return false;
    return true;
}

/* ---- counting ---- */

static void answer_total(const Run *run, StoreAnswer *answer, const RewardScore *scores) {
    int first = 0; /* the part that says right or wrong */
    while (first + 1 < run->parts && !reward_asked(&scores[first])) first++;
    answer->verdict = scores[first].verdict;
    answer->reward = reward_total(scores, run->conf->weights, run->parts, &answer->class);
}

/* Mean over the problems with at least k judged answers. */
static void pass_add(Evaluation *evaluation, int k, const int *judged, const int *right, int problems) {
    double sum = 0;
    int n = 0;
    for (int i = 0; i < problems; i++)
        if (judged[i] >= k) sum += pass_at_k(judged[i], right[i], k), n++;
    if (!n || evaluation->n_pass == PASS_MAX) return;
    evaluation->pass[evaluation->n_pass].k = k;
    evaluation->pass[evaluation->n_pass++].share = sum / n;
}

static void answers_count(const Run *run, Evaluation *evaluation) {
    StoreEval *eval = run->eval;
    int k = run->conf->num_samples, problems = eval->n_answers / k, all_right = 0;
    int *judged = MEM_ARRAY(int, problems), *right = MEM_ARRAY(int, problems);
    double reward = 0, tokens = 0, clipped = 0;
    for (int i = 0; i < eval->n_answers; i++) {
        StoreAnswer *answer = &eval->answers[i];
        answer_total(run, answer, &run->scores[(size_t)i * (size_t)run->parts]);
        tokens += answer->n_tokens;
        clipped += answer->finish == FINISH_LENGTH;
        if (answer->class == SCORE_UNJUDGED) continue;
        reward += answer->reward;
        judged[i / k]++;
        right[i / k] += answer->class == SCORE_RIGHT;
    }
    for (int i = 0; i < problems; i++) {
        eval->n += judged[i], all_right += right[i];
        evaluation->problems += judged[i] > 0;
    }
    evaluation->unjudged = eval->n_answers - eval->n;
    evaluation->reward = eval->n ? reward / eval->n : NAN;
    evaluation->clipped = clipped / eval->n_answers;
    eval->mean_length = tokens / eval->n_answers;
    eval->accuracy = eval->n ? (double)all_right / eval->n : NAN;
    /* Answers to one problem hang together: the interval counts problems, which is exact for one answer each. */
    double of = (double)evaluation->problems;
    wilson_interval(eval->n ? eval->accuracy * of : 0, of, &eval->ci_low, &eval->ci_high);
    for (int j = 1; k > 1 && j < k; j *= 2) pass_add(evaluation, j, judged, right, problems);
    if (k > 1) pass_add(evaluation, k, judged, right, problems);
    free(judged);
    free(right);
}

bool evaluate(const EvalConf *conf, Evaluation *evaluation, Err *err) {
    double began = clock_seconds();
    *evaluation = (Evaluation){.eval = {.name = conf->name}};
    Run run = {.conf = conf, .eval = &evaluation->eval, .parts = reward_parts(conf->reward)};
    bool good = problems_submit(&run, evaluation, err);
    if (good) {
        run.scores = MEM_ARRAY(RewardScore, (size_t)run.eval->n_answers * (size_t)run.parts);
        good = answers_make(&run, err);
    }
    if (good)
        answers_count(&run, evaluation);
    else
        engine_cancel(conf->engine);
    free(run.scores);
    evaluation->eval.seconds = clock_seconds() - began;
    if (!good) store_eval_free(&evaluation->eval);
    return good;
}
