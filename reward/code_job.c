/* code_job.c: one row as a job: what it holds, which limits, what its results come to. Runs nothing.
 * Tested by tests/test_reward_code.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "reward/code.h"

enum { TESTS_MAX = 10000 };

static const char *const names[VERDICT_COUNT] = {"pass",         "wrong-answer",  "time-limit",    "memory-limit",
                                                 "output-limit", "process-limit", "runtime-error", "compile-error",
                                                 "no-code",      "sandbox-error"};

const char *verdict_name(Verdict verdict) {
    CHECK((unsigned)verdict < VERDICT_COUNT, "verdict %d", (int)verdict);
    return names[verdict];
}

Verdict verdict_named(const char *name) {
    for (int i = 0; i < VERDICT_COUNT; i++)
        if (!strcmp(names[i], name)) return (Verdict)i;
    return VERDICT_COUNT;
}

/* The table of languages: to add one, add its row. */
static const Language languages[] = {
    {{"python", "python3", "py", "py3", "python 3"}, NULL, NULL, NULL},
    {{"c", "c11", "c17", "gcc"},
     "c",
     ", \"suffix\": \"c\", \"argv\": [\"/usr/bin/gcc\", \"-O2\", \"-std=gnu17\", \"-w\", \"-fmax-errors=3\"],"
     " \"libs\": [\"-lm\", \"-pthread\"]",
     "main("},
    {{"cpp", "c++", "cxx", "cc", "c++17", "g++"},
     "cpp",
     ", \"suffix\": \"cpp\", \"argv\": [\"/usr/bin/g++\", \"-O2\", \"-std=gnu++20\", \"-w\", \"-fmax-errors=3\"],"
     " \"libs\": [\"-lm\", \"-pthread\"]",
     "main("},
};

bool language_has_name(const Language *language, const char *name, size_t n) {
    for (int i = 0; i < 8 && language->names[i]; i++)
        if (strlen(language->names[i]) == n && !strncasecmp(language->names[i], name, n)) return true;
    return false;
}

const Language *language_find(const char *name) {
    for (size_t i = 0; i < sizeof languages / sizeof *languages; i++)
        if (language_has_name(&languages[i], name, strlen(name))) return &languages[i];
    return NULL;
}

static const char *text_of(const json_t *row, const char *key) {
    return json_string_value(json_object_get(row, key));
}

static double limit_of(const json_t *row, const char *key, double standard, double most) {
    const json_t *value = json_object_get(json_object_get(row, "limits"), key);
    double limit = json_is_number(value) ? json_number_value(value) : standard;
    return isfinite(limit) && limit > 0 ? fmin(limit, most) : standard;
}

static void limits_read(Job *job) {
    Limits *l = &job->limits;
    l->wall_s = limit_of(job->row, "wall_s", 10, 3600);
    l->cpu_s = limit_of(job->row, "cpu_s", 10, 3600);
    l->memory = (int64_t)(limit_of(job->row, "mem_mib", 512, 1 << 20) * (1 << 20));
    l->output = (int64_t)(limit_of(job->row, "stdout_kib", 1024, 1 << 20) * 1024);
    l->file = (int64_t)(limit_of(job->row, "file_kib", 1024, 1 << 20) * 1024);
    l->procs = (int)limit_of(job->row, "procs", 16, 1024);
    if (l->procs < 1) l->procs = 1;
    l->disk = 4 * l->file + (64 << 10);
    /* Python refuses what it can't have, and says so. Compiled programs seldom look at what malloc gives, so they
     * may ask for more and are stopped when they use it. */
    bool compiled = job->language && job->language->suffix;
    l->space = compiled ? 2 * l->memory + (256 << 20) : l->memory + (64 << 20);
    if (!compiled) l->memory = l->space;
}

static const char *compare_read(Job *job) {
    const char *name = text_of(job->row, "compare");
    const json_t *tolerance = json_object_get(job->row, "tolerance");
    job->tolerance = json_is_number(tolerance) ? json_number_value(tolerance) : 1e-6;
    if (json_is_number(tolerance)) job->compare = COMPARE_FLOATS;
    if (!name) return NULL;
    if (!strcmp(name, "lines"))
        job->compare = COMPARE_LINES;
    else if (!strcmp(name, "tokens"))
        job->compare = COMPARE_TOKENS;
    else if (!strcmp(name, "floats") || !strcmp(name, "float"))
        job->compare = COMPARE_FLOATS;
    else
        return "unknown \"compare\": known are lines, tokens, floats";
    return NULL;
}

static const char *cases_check(const json_t *cases) {
    size_t i;
    const json_t *one;
    json_array_foreach(cases, i, one) {
        if (!json_is_string(json_object_get(one, "stdout"))) return "a test has no \"stdout\"";
        const json_t *input = json_object_get(one, "stdin");
        if (input && !json_is_string(input) && !json_is_null(input)) return "a test's \"stdin\" is no text";
    }
    return NULL;
}

/* Data sets keep their tests as texts too: asserts, or a definition of check and its call. */
static void tests_adopt(Job *job) {
    json_t *tests = json_object_get(job->row, "tests"), *first = json_array_get(tests, 0);
    if (!json_is_string(first)) return;
    bool check = strstr(json_string_value(first), "def check(") != NULL;
    json_object_set(job->row, check ? "check" : "asserts", check ? first : tests);
    json_object_del(job->row, "tests");
}

/* What is wrong with the row's tests, or NULL. */
static const char *tests_read(Job *job) {
    tests_adopt(job);
    json_t *tests = json_object_get(job->row, "tests"), *asserts = json_object_get(job->row, "asserts");
    bool check = text_of(job->row, "check") != NULL;
    if (check + json_is_array(tests) + json_is_array(asserts) != 1)
        return "a row needs one of \"tests\", \"asserts\" and \"check\"";
    job->calls = !json_is_array(tests);
    job->cases = tests;
    job->checker = text_of(job->row, "checker");
    size_t n = check ? 1 : json_array_size(job->calls ? asserts : tests);
    if (n == 0) return "the row has no tests";
    if (n > TESTS_MAX) return "the row has more than 10,000 tests";
    job->n_tests = (int)n;
    job->results = MEM_ARRAY(TestResult, n);
    if (job->calls && job->language->suffix)
        return "asserts and check are for Python; other languages need \"tests\"";
    if (check && !text_of(job->row, "entry_point")) return "\"check\" needs an \"entry_point\"";
    return job->calls ? NULL : cases_check(tests);
}

static const char *row_read(Job *job, const char *completion, const char *prompt) {
    if (!json_is_object(job->row)) return "the row is not a JSON object";
    const char *language = text_of(job->row, "language"), *own_prompt = text_of(job->row, "prompt");
    job->language = language_find(language ? language : "python");
    if (!job->language) return "unknown \"language\"; known are python, c, cpp";
    const char *fault = tests_read(job);
    if (!fault) fault = compare_read(job);
    limits_read(job);
    if (completion)
        job->code = code_extract(completion, own_prompt ? own_prompt : prompt, text_of(job->row, "entry_point"),
                                 job->language);
    return fault;
}

Job *job_new(const char *completion, const char *prompt, const char *fields, bool share) {
    Job *job = MEM_NEW(Job);
    job->share = share;
    job->row = fields ? json_loads(fields, JSON_ALLOW_NUL, NULL) : NULL;
    job->fault = row_read(job, completion, prompt);
    return job;
}

static void results_clear(Job *job) {
    for (int i = 0; i < job->n_tests && job->results; i++) {
        free(job->results[i].reason);
        free(job->results[i].output);
        job->results[i] = (TestResult){0};
    }
}

void job_restart(Job *job) {
    results_clear(job);
    job->bytes = job->peak = 0;
}

void job_free(Job *job) {
    results_clear(job);
    free(job->results);
    free(job->code);
    json_decref(job->row);
    free(job);
}

/* Texts of programs are any bytes; what is passed on is UTF-8 without control characters. */
static char *clean_text(const char *text) {
    json_t *fine = json_string(text);
    char *copy = mem_text(text);
    for (char *p = copy; *p; p++)
        if ((unsigned char)*p < 32 || (!fine && (unsigned char)*p > 126)) *p = *p == '\n' ? ' ' : '?';
    json_decref(fine);
    return copy;
}

void job_set(Job *job, int test, Verdict verdict, double seconds, const char *reason) {
    CHECK(test >= 0 && test < job->n_tests, "test %d of %d", test, job->n_tests);
    TestResult *r = &job->results[test];
    free(r->reason);
    r->verdict = verdict;
    r->run = true;
    r->seconds = seconds;
    r->reason = reason && *reason ? clean_text(reason) : NULL;
}

void job_set_rest(Job *job, int from, Verdict verdict, const char *reason) {
    for (int i = from; i < job->n_tests; i++) job_set(job, i, verdict, 0, reason);
}

static const TestResult *first_failure(const Job *job) {
    for (int i = 0; i < job->n_tests; i++)
        if (!job->results[i].run || job->results[i].verdict != VERDICT_PASS) return &job->results[i];
    return NULL;
}

Verdict job_verdict(const Job *job) {
    if (job->fault) return VERDICT_SANDBOX;
    if (!job->code) return VERDICT_NO_CODE;
    const TestResult *r = first_failure(job);
    return r ? (r->run ? r->verdict : VERDICT_SANDBOX) : VERDICT_PASS;
}

const char *job_reason(const Job *job) {
    if (job->fault) return job->fault;
    if (!job->code) return "the response holds no program in this language";
    const TestResult *r = first_failure(job);
    return r ? r->reason : NULL;
}

static int n_passed(const Job *job) {
    int n = 0;
    for (int i = 0; i < job->n_tests; i++) n += job->results[i].run && job->results[i].verdict == VERDICT_PASS;
    return n;
}

double job_value(const Job *job) {
    Verdict verdict = job_verdict(job);
    if (verdict == VERDICT_SANDBOX) return NAN;
    if (verdict == VERDICT_NO_CODE) return 0;
    if (job->share) return (double)n_passed(job) / job->n_tests;
    return verdict == VERDICT_PASS;
}

char *job_detail(const Job *job) {
    json_t *detail = json_object(), *tests = json_array();
    for (int i = 0; i < job->n_tests && job->code && !job->fault; i++) {
        const TestResult *r = &job->results[i];
        json_t *one = json_pack("{s:s}", "verdict", r->run ? verdict_name(r->verdict) : "not-run");
        if (r->run) json_object_set_new(one, "seconds", json_real(round(r->seconds * 1e6) / 1e6));
        if (r->reason) json_object_set_new(one, "reason", json_string(r->reason));
        json_array_append_new(tests, one);
    }
    json_object_set_new(detail, "results", tests);
    json_object_set_new(detail, "passed", json_integer(n_passed(job)));
    json_object_set_new(detail, "seconds", json_real(round(job->seconds * 1e6) / 1e6));
    json_object_set_new(detail, "bytes", json_integer(job->bytes));
    json_object_set_new(detail, "peak_bytes", json_integer(job->peak));
    if (job->weak) json_object_set_new(detail, "weak_sandbox_without", json_string(job->weak));
    char *text = json_dumps(detail, JSON_COMPACT | JSON_REAL_PRECISION(6));
    json_decref(detail);
    return text;
}
