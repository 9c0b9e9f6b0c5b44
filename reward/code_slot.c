/* code_slot.c: takes one job at a time through its stages: compile, run the tests, ask the judge or the checker.
 *
 * Never blocks: the worker polls the slot's descriptors and calls slot_step. What a stage's end means is said here
 * and nowhere else. A stage that was cut off by something that is not the program's doing makes the job start
 * again, once. Tested by tests/test_reward_code.c and test_reward_sandbox.c. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reward/code.h"

enum { PIPE_OUT, PIPE_ERR, PIPE_VERDICT };
enum { EXIT_MEMORY = 81, EXIT_PROCESSES = 82, EXIT_COMPILE = 83 }; /* as box.py has them */
enum { KEEP_ERR = 2048, KEEP_VERDICT = 8 << 20, ATTEMPTS = 2 };
enum { JUDGE_ROWS = 500 }; /* then a new judge process: what tests may leave behind in it stays small */

/* Bounded by processor time first: a busy machine must not turn programs into errors. */
static const Limits compiler_limits = {.wall_s = 20,
                                       .cpu_s = 8,
                                       .memory = 2ll << 30,
                                       .space = 4ll << 30,
                                       .file = 64 << 20,
                                       .disk = 128 << 20,
                                       .output = 64 << 20,
                                       .procs = 16};
static const Limits judge_limits = {.wall_s = 1e9,
                                    .cpu_s = 3600,
                                    .memory = 2ll << 30,
                                    .space = 2ll << 30,
                                    .file = 1 << 20,
                                    .disk = 1 << 20,
                                    .output = KEEP_VERDICT,
                                    .procs = 4};

static void fd_drop(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

bool slot_open(Slot *slot, int number, const char *python, bool weak, bool quick, Cache *cache, Err *err) {
    *slot = (Slot){.pipes = {-1, -1, -1}, .program = -1, .channel = -1, .cache = cache};
    for (int i = 0; i < 2; i++) slot->boxes[i].control = -1;
    for (int i = 0; i < 2; i++) {
        BoxConf conf = {.role = (BoxRole)i, .number = 2 * number + i, .weak = weak, .quick = quick};
        snprintf(conf.python, sizeof conf.python, "%s", python);
        if (!box_open(&slot->boxes[i], &conf, err)) return false;
    }
    return true;
}

static void stage_clear(Slot *slot) {
    for (int i = 0; i < 3; i++) fd_drop(&slot->pipes[i]);
    fd_drop(&slot->channel);
    for (int i = 0; i < 3; i++) buf_clear(&slot->texts[i]);
    slot->n_out = 0;
    slot->next_watch = 0;
}

void slot_close(Slot *slot) {
    stage_clear(slot);
    fd_drop(&slot->program);
    for (int i = 0; i < 2; i++) {
        fd_drop(&slot->cells[i].pidfd);
        box_close(&slot->boxes[i]);
    }
    for (int i = 0; i < slot->n_dropped; i++) waitpid(slot->dropped[i], NULL, 0);
    for (int i = 0; i < 3; i++) buf_free(&slot->texts[i]);
}

/* ---- descriptors of a stage -----------------------------------------------------------------------------------
 */

static int memory_file(const char *text, size_t n) {
    int fd = memfd_create("text", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    for (size_t at = 0; fd >= 0 && at < n;) {
        ssize_t wrote = write(fd, text + at, n - at);
        if (wrote <= 0)
            fd_drop(&fd);
        else
            at += (size_t)wrote;
    }
    if (fd >= 0) {
        lseek(fd, 0, SEEK_SET);
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
    }
    return fd;
}

/* The reading end stays here and never blocks; the other is for the cell. */
static int pipe_make(int *keep) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return -1;
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    *keep = ends[0];
    return ends[1];
}

static bool fds_good(const int *fds, int n) {
    for (int i = 0; i < n; i++)
        if (fds[i] < 0) return false;
    return true;
}

static void fds_close(int *fds, int n) {
    for (int i = 0; i < n; i++) fd_drop(&fds[i]);
}

/* Starts a cell with these descriptors, which are gone afterwards. A cell that does not start counts as broken:
 * slot_step finds that and begins again. */
static void cell_begin(Slot *slot, BoxRole role, const char *kind, const char *extra, const Limits *limits,
                       int fds[4]) {
    Err err = {{0}};
    bool ok =
        fds_good(fds, 4) && cell_start(&slot->cells[role], &slot->boxes[role], kind, extra, limits, fds, &err);
    if (!ok)
        slot->cells[role] = (Cell){.box = &slot->boxes[role], .limits = *limits, .end = END_BROKEN, .pidfd = -1};
    fds_close(fds, 4);
}

static int null_open(void) { return open("/dev/null", O_RDWR | O_CLOEXEC); }

/* ---- stages: beginning ----------------------------------------------------------------------------------------
 */

static void stage_compile(Slot *slot) {
    stage_clear(slot);
    slot->phase = SLOT_COMPILE;
    slot->program = memfd_create("program", MFD_CLOEXEC);
    int fds[4] = {null_open(), fcntl(slot->program, F_DUPFD_CLOEXEC, 0), pipe_make(&slot->pipes[PIPE_ERR]),
                  memory_file(slot->job->code, strlen(slot->job->code))};
    cell_begin(slot, BOX_CANDIDATE, "compile", slot->job->language->compiler, &compiler_limits, fds);
}

static void stage_output(Slot *slot) {
    Job *job = slot->job;
    const json_t *input = json_object_get(json_array_get(job->cases, (size_t)slot->test), "stdin");
    const char *text = json_string_value(input);
    stage_clear(slot);
    slot->phase = SLOT_OUTPUT;
    bool compiled = job->language->suffix != NULL;
    int program = compiled ? fcntl(cache_get(slot->cache, job), F_DUPFD_CLOEXEC, 0)
                           : memory_file(job->code, strlen(job->code));
    int fds[4] = {memory_file(text ? text : "", json_string_length(input)), pipe_make(&slot->pipes[PIPE_OUT]),
                  pipe_make(&slot->pipes[PIPE_ERR]), program};
    cell_begin(slot, BOX_CANDIDATE, compiled ? "exec" : "script", "", &job->limits, fds);
}

static void nonce_make(char nonce[33]) {
    unsigned char bytes[16];
    CHECK(getrandom(bytes, sizeof bytes, 0) == sizeof bytes, "getrandom: %d", errno);
    for (int i = 0; i < 16; i++) sprintf(nonce + 2 * i, "%02x", bytes[i]);
}

static int judge_payload(Slot *slot, json_t *payload) {
    nonce_make(slot->nonce);
    json_object_set_new(payload, "nonce", json_string(slot->nonce));
    char *text = json_dumps(payload, JSON_COMPACT);
    int fd = memory_file(text, strlen(text));
    free(text);
    json_decref(payload);
    return fd;
}

/* The program's code behind the 8 bytes that mark its side's records. */
static int serve_payload(const char *code, const unsigned char token[8]) {
    Buf buf = {0};
    buf_add(&buf, token, 8);
    buf_text(&buf, code);
    int fd = memory_file(buf.p, buf.n);
    buf_free(&buf);
    return fd;
}

static void stage_calls(Slot *slot) {
    Job *job = slot->job;
    unsigned char token[8];
    char hex[17];
    int channel[2] = {-1, -1};
    stage_clear(slot);
    slot->phase = SLOT_CALLS;
    slot->judged++;
    CHECK(getrandom(token, sizeof token, 0) == sizeof token, "getrandom: %d", errno);
    for (int i = 0; i < 8; i++) sprintf(hex + 2 * i, "%02x", token[i]);
    json_t *payload = json_pack("{s:s}", "token", hex);
    static const char *const keys[] = {"asserts", "check", "setup", "entry_point"};
    for (int i = 0; i < 4; i++) {
        json_t *value = json_object_get(job->row, keys[i]);
        if (value && !json_is_null(value)) json_object_set(payload, keys[i], value);
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) != 0) channel[0] = channel[1] = -1;
    slot->channel = fcntl(channel[0], F_DUPFD_CLOEXEC, 0);
    int judge[4] = {channel[0], pipe_make(&slot->pipes[PIPE_VERDICT]), null_open(), judge_payload(slot, payload)};
    int run[4] = {channel[1], pipe_make(&slot->pipes[PIPE_OUT]), pipe_make(&slot->pipes[PIPE_ERR]),
                  serve_payload(job->code, token)};
    cell_begin(slot, BOX_CANDIDATE, "serve", "", &job->limits, run);
    cell_begin(slot, BOX_JUDGE, "judge", "", &judge_limits, judge);
}

static void stage_checker(Slot *slot) {
    Job *job = slot->job;
    json_t *cases = json_array();
    stage_clear(slot);
    slot->phase = SLOT_CHECKER;
    for (int i = 0; i < job->n_tests; i++) {
        const TestResult *r = &job->results[i];
        if (!r->output) continue;
        const json_t *one = json_array_get(job->cases, (size_t)i);
        json_t *output = json_stringn(r->output, r->n_output), *input = json_object_get(one, "stdin");
        json_array_append_new(cases, json_pack("{s:o, s:O, s:O}", "output", output ? output : json_string(""),
                                               "stdin", input ? input : json_object_get(one, "stdout"), "expected",
                                               json_object_get(one, "stdout")));
    }
    json_t *payload = json_pack("{s:s, s:o}", "checker", job->checker, "cases", cases);
    int fds[4] = {null_open(), pipe_make(&slot->pipes[PIPE_VERDICT]), null_open(), judge_payload(slot, payload)};
    Limits limits = judge_limits;
    limits.wall_s = 30;
    cell_begin(slot, BOX_JUDGE, "judge", "", &limits, fds);
}

static void job_begin(Slot *slot) {
    Job *job = slot->job;
    slot->test = 0;
    job->seconds = 0;
    for (int i = 0; i < 2; i++) slot->cells[i] = (Cell){.pidfd = -1};
    if (job->calls)
        stage_calls(slot);
    else if (job->language->suffix && cache_get(slot->cache, job) < 0)
        stage_compile(slot);
    else
        stage_output(slot);
}

void slot_take(Slot *slot, Job *job) {
    slot->job = job;
    if (job->fault || !job->code)
        slot->phase = SLOT_FINISHED;
    else
        job_begin(slot);
}

/* ---- stages: end ----------------------------------------------------------------------------------------------
 */

static bool says_no_memory(const Slot *slot) {
    const Buf *err = &slot->texts[PIPE_ERR];
    return err->n && (strstr(err->p, "bad_alloc") || strstr(err->p, "MemoryError"));
}

/* What the end of a run means when it is not simply exit status 0. */
static Verdict end_verdict(const Slot *slot, const Cell *cell) {
    bool python = !slot->job->language->suffix;
    switch (cell->end) {
    case END_WALL:
    case END_CPU:
        return VERDICT_TIME;
    case END_MEMORY:
        return VERDICT_MEMORY;
    case END_OUTPUT:
        return VERDICT_OUTPUT;
    default:
        break;
    }
    if (WIFSIGNALED(cell->status) && WTERMSIG(cell->status) == SIGXCPU) return VERDICT_TIME;
    int code = WIFEXITED(cell->status) ? WEXITSTATUS(cell->status) : -1;
    if (python && code == EXIT_MEMORY) return VERDICT_MEMORY;
    if (python && code == EXIT_COMPILE) return VERDICT_COMPILE;
    if (cell->crowded || (python && code == EXIT_PROCESSES)) return VERDICT_PROCESSES;
    if (WIFSIGNALED(cell->status) && (says_no_memory(slot) || cell->peak > cell->limits.memory / 10 * 8))
        return VERDICT_MEMORY;
    return VERDICT_RUNTIME;
}

/* The last line of stderr is what says most. */
static const char *end_reason(Slot *slot, const Cell *cell, char *text, size_t room) {
    Buf *err = &slot->texts[PIPE_ERR];
    while (err->n && (err->p[err->n - 1] == '\n' || err->p[err->n - 1] == ' ')) err->p[--err->n] = '\0';
    const char *line = err->n ? strrchr(err->p, '\n') : NULL;
    line = line ? line + 1 : err->n ? err->p : "";
    bool told = !slot->job->language->suffix && WIFEXITED(cell->status) &&
                WEXITSTATUS(cell->status) >= EXIT_MEMORY &&
                WEXITSTATUS(cell->status) <= EXIT_COMPILE; /* these numbers are between box.py and us */
    if (cell->end != END_EXIT)
        snprintf(text, room, "stopped at a limit");
    else if (told && *line)
        snprintf(text, room, "%.300s", line);
    else if (WIFSIGNALED(cell->status))
        snprintf(text, room, "signal %d %.300s", WTERMSIG(cell->status), line);
    else
        snprintf(text, room, "exit status %d %.300s", WEXITSTATUS(cell->status), line);
    return text;
}

static void next_stage_output(Slot *slot) {
    Job *job = slot->job;
    Verdict last = job->results[slot->test].verdict;
    /* After a limit the other tests are not run: a program that hangs must not hang once for each of them. */
    bool stop = last == VERDICT_TIME || last == VERDICT_MEMORY || last == VERDICT_OUTPUT ||
                last == VERDICT_PROCESSES ||
                (last != VERDICT_PASS && !job->share && job->seconds > job->limits.wall_s);
    slot->test++;
    if (slot->test < job->n_tests && !stop) return stage_output(slot);
    bool any = false;
    for (int i = 0; i < job->n_tests; i++) any |= job->results[i].output != NULL;
    if (job->checker && any)
        stage_checker(slot);
    else
        slot->phase = SLOT_FINISHED;
}

static void finish_output(Slot *slot) {
    Job *job = slot->job;
    const Cell *cell = &slot->cells[BOX_CANDIDATE];
    Buf *out = &slot->texts[PIPE_OUT];
    const json_t *expected = json_object_get(json_array_get(job->cases, (size_t)slot->test), "stdout");
    char text[400];
    bool fine = cell->end == END_EXIT && WIFEXITED(cell->status) && WEXITSTATUS(cell->status) == 0;
    if (!fine) {
        job_set(job, slot->test, end_verdict(slot, cell), cell->seconds,
                end_reason(slot, cell, text, sizeof text));
    } else if (job->checker) {
        job_set(job, slot->test, VERDICT_PASS, cell->seconds, NULL);
        job->results[slot->test].output = mem_text_n(out->n ? out->p : "", out->n);
        job->results[slot->test].n_output = out->n;
    } else {
        bool right = outputs_equal(json_string_value(expected), json_string_length(expected), out->n ? out->p : "",
                                   out->n, job->compare, job->tolerance);
        job_set(job, slot->test, right ? VERDICT_PASS : VERDICT_WRONG_ANSWER, cell->seconds,
                right ? NULL : "the output differs");
    }
    next_stage_output(slot);
}

static void finish_compile(Slot *slot) {
    const Cell *cell = &slot->cells[BOX_CANDIDATE];
    char text[400];
    if (cell->end == END_EXIT && WIFEXITED(cell->status) && WEXITSTATUS(cell->status) == 0) {
        fcntl(slot->program, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
        cache_put(slot->cache, slot->job, slot->program);
        slot->program = -1;
        return stage_output(slot);
    }
    fd_drop(&slot->program);
    Buf *err = &slot->texts[PIPE_ERR];
    const char *said = err->n ? strstr(err->p, "error:") : NULL;
    snprintf(text, sizeof text, "%.300s",
             cell->end != END_EXIT ? "the compiler reached a limit"
             : said                ? said
                                   : "the compiler failed");
    text[strcspn(text, "\n")] = '\0';
    job_set_rest(slot->job, 0, VERDICT_COMPILE, text);
    slot->phase = SLOT_FINISHED;
}

/* The judge's message, if it is whole and has the nonce. */
static json_t *verdict_read(const Slot *slot) {
    const Buf *text = &slot->texts[PIPE_VERDICT];
    json_t *told = text->n ? json_loadb(text->p, text->n, 0, NULL) : NULL;
    const char *nonce = json_string_value(json_object_get(told, "nonce"));
    if (nonce && !strcmp(nonce, slot->nonce)) return told;
    json_decref(told);
    return NULL;
}

static int results_take(Job *job, const json_t *results, const int *which) {
    int n = 0;
    size_t i;
    const json_t *one;
    json_array_foreach(results, i, one) {
        int test = which ? which[i] : (int)i;
        if ((int)i >= job->n_tests) break;
        const char *name = json_string_value(json_array_get(one, 0));
        Verdict verdict = verdict_named(name ? name : "");
        if (verdict >= VERDICT_SANDBOX) break;
        job_set(job, test, verdict, json_number_value(json_array_get(one, 1)),
                json_string_value(json_array_get(one, 2)));
        n++;
    }
    return n;
}

static void finish_calls(Slot *slot, json_t *told) {
    Job *job = slot->job;
    const Cell *cell = &slot->cells[BOX_CANDIDATE];
    const char *state = json_string_value(json_object_get(told, "state"));
    char text[400];
    if (state && !strcmp(state, "unusable")) {
        job->fault = "the row's tests are no Python that can be parsed";
    } else {
        int n = results_take(job, json_object_get(told, "results"), NULL);
        bool flooded = cell->end == END_OUTPUT;
        if (flooded && n == job->n_tests) n--; /* what it wrote was counted after the last verdict */
        if (n < job->n_tests && state && !strcmp(state, "judged") && n > 0 && !flooded) {
            job_set_rest(job, n, job->results[n - 1].verdict, job->results[n - 1].reason);
        } else if (n < job->n_tests) {
            const char *why = cell->end == END_TAKEN ? "the program closed its channel"
                                                     : end_reason(slot, cell, text, sizeof text);
            job_set_rest(job, n, end_verdict(slot, cell), why);
        }
    }
    slot->phase = SLOT_FINISHED;
}

static void finish_checker(Slot *slot, json_t *told) {
    Job *job = slot->job;
    int *which = MEM_ARRAY(int, job->n_tests), n = 0;
    for (int i = 0; i < job->n_tests; i++)
        if (job->results[i].output) which[n++] = i;
    const char *state = json_string_value(json_object_get(told, "state"));
    const json_t *results = json_object_get(told, "results");
    if (!state || strcmp(state, "judged") || (int)json_array_size(results) != n)
        job->fault = "the row's checker does not run";
    else
        results_take(job, results, which);
    free(which);
    slot->phase = SLOT_FINISHED;
}

/* ---- reading and watching -------------------------------------------------------------------------------------
 */

static size_t keep_limit(const Slot *slot, int pipe) {
    if (pipe == PIPE_ERR) return KEEP_ERR;
    if (pipe == PIPE_VERDICT) return KEEP_VERDICT;
    return slot->phase == SLOT_OUTPUT ? (size_t)slot->job->limits.output : 0;
}

/* Reads what is there, keeps what is wanted. Returns at the end of what is there; a flood ends it too. */
static void pipe_read(Slot *slot, int pipe, int rounds) {
    char bytes[65536];
    while (slot->pipes[pipe] >= 0 && rounds-- > 0) {
        ssize_t n = read(slot->pipes[pipe], bytes, sizeof bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            fd_drop(&slot->pipes[pipe]);
            return;
        }
        Buf *text = &slot->texts[pipe];
        size_t room =
            keep_limit(slot, pipe) - (text->n < keep_limit(slot, pipe) ? text->n : keep_limit(slot, pipe));
        buf_add(text, bytes, (size_t)n < room ? (size_t)n : room);
        if (pipe != PIPE_OUT) continue;
        slot->n_out += n;
        if (slot->n_out > slot->job->limits.output) cell_kill(&slot->cells[BOX_CANDIDATE], END_OUTPUT);
    }
}

static void boxes_read(Slot *slot) {
    for (int i = 0; i < 2; i++) {
        Box *box = &slot->boxes[i];
        if (box->control < 0) continue;
        for (int k = 0; k < 4; k++)
            if (!box_read(box, &slot->cells[i])) {
                box_close(box);
                break;
            }
    }
}

/* Kills a box without waiting for its end, which the kernel may take long over when memory is full. */
static void box_drop(Slot *slot, BoxRole role) {
    Box *box = &slot->boxes[role];
    if (slot->n_dropped == SLOT_DROPPED) {
        waitpid(slot->dropped[0], NULL, 0);
        memmove(slot->dropped, slot->dropped + 1, sizeof *slot->dropped * (size_t)--slot->n_dropped);
    }
    if (box->pid > 0) {
        kill(box->pid, SIGKILL);
        slot->dropped[slot->n_dropped++] = box->pid;
    }
    box->pid = 0;
    box_close(box);
}

static void dropped_reap(Slot *slot) {
    int n = 0;
    for (int i = 0; i < slot->n_dropped; i++)
        if (waitpid(slot->dropped[i], NULL, WNOHANG) == 0) slot->dropped[n++] = slot->dropped[i];
    slot->n_dropped = n;
}

/* A box that does not tell the end of what was killed, or does not begin, is given up. */
static void boxes_rescue(Slot *slot, double now) {
    for (int i = 0; i < 2; i++) {
        Cell *cell = &slot->cells[i];
        bool stuck = (cell->killed > 0 && now - cell->killed > 1) || (cell->pid == 0 && now - cell->started > 10);
        if (!cell->active || !stuck) continue;
        box_drop(slot, (BoxRole)i);
        fd_drop(&cell->pidfd);
        cell->active = false;
        if (cell->seconds == 0) cell->seconds = now - cell->started;
        if (cell->end == END_NONE) cell->end = END_BROKEN;
    }
}

/* The judge says that the program closed the channel: mostly because it ended, and its own end says more. */
static bool judge_says_gone(const Slot *slot) {
    const Buf *text = &slot->texts[PIPE_VERDICT];
    return text->n && strstr(text->p, "\"state\": \"gone\"");
}

/* The two cells of a calls stage end together: the verdict ends the candidate; the candidate's end leaves the
 * judge just the time to say so. */
static void calls_settle(Slot *slot, double now) {
    Cell *run = &slot->cells[BOX_CANDIDATE], *judge = &slot->cells[BOX_JUDGE];
    if (judge->active) slot->judge_seen = now;
    if (!judge->active && run->active && run->killed == 0) {
        pipe_read(slot, PIPE_VERDICT, 1 << 10);
        if (!judge_says_gone(slot) || now - slot->judge_seen > 0.2) cell_kill(run, END_TAKEN);
    }
    bool over = !run->active || run->end != END_NONE;
    if (!over || !judge->active) return;
    if (run->killed > 0 && slot->channel >= 0) shutdown(slot->channel, SHUT_RDWR); /* the judge need not wait */
    if (run->killed > 0) fd_drop(&slot->channel);
    if (run->killed == 0) run->killed = now; /* from here the judge's time counts */
    if (now - run->killed > 0.15) cell_kill(judge, END_TAKEN);
}

static bool boxes_renew(Slot *slot, Err *err) {
    if (slot->judged > JUDGE_ROWS) box_drop(slot, BOX_JUDGE), slot->judged = 0;
    for (int i = 0; i < 2; i++) {
        BoxConf conf = slot->boxes[i].conf;
        conf.quick = true;
        if (slot->boxes[i].control < 0 && !box_open(&slot->boxes[i], &conf, err)) return false;
    }
    return true;
}

/* Something else than the program ended the stage: once more from the beginning, then give up. */
static void job_again(Slot *slot) {
    Err err = {{0}};
    Job *job = slot->job;
    stage_clear(slot);
    fd_drop(&slot->program);
    if (!boxes_renew(slot, &err))
        job->fault = "the sandbox can't be started again";
    else if (++job->attempts >= ATTEMPTS)
        job->fault = "the sandbox was killed twice";
    if (job->fault) {
        slot->phase = SLOT_FINISHED;
        return;
    }
    job_restart(job);
    job_begin(slot);
}

/* The run was stopped at a limit: its verdict stands, however long its processes take to be gone. */
static bool limit_was_hit(const Cell *cell) {
    return cell->end == END_WALL || cell->end == END_CPU || cell->end == END_MEMORY || cell->end == END_OUTPUT;
}

static bool stage_is_over(const Slot *slot) {
    const Cell *run = &slot->cells[BOX_CANDIDATE], *judge = &slot->cells[BOX_JUDGE];
    if (!run->active && !judge->active) return true;
    if (slot->phase == SLOT_CHECKER || !limit_was_hit(run)) return false;
    if (slot->phase == SLOT_OUTPUT) return !slot->job->checker;
    return slot->phase == SLOT_COMPILE || !judge->active || judge->killed > 0;
}

static void stage_finish(Slot *slot) {
    Job *job = slot->job;
    Cell *run = &slot->cells[BOX_CANDIDATE], *judge = &slot->cells[BOX_JUDGE];
    bool judging = slot->phase == SLOT_CALLS || slot->phase == SLOT_CHECKER,
         with_run = slot->phase != SLOT_CHECKER;
    for (int i = 0; i < 3; i++) pipe_read(slot, i, 1 << 20);
    /* Counted now, after its end: the verdict must not depend on who was first. */
    if (with_run && !limit_was_hit(run) && run->end != END_BROKEN && slot->n_out > slot->job->limits.output)
        run->end = END_OUTPUT;
    json_t *told = judging ? verdict_read(slot) : NULL;
    bool whole = told && !strcmp(json_string_value(json_object_get(told, "state")), "judged");
    bool broken = (with_run && run->end == END_BROKEN && !whole) ||
                  (judging && judge->end == END_BROKEN && !told && !limit_was_hit(run));
    if (with_run) {
        job->seconds += run->seconds;
        job->bytes += slot->n_out;
        if (run->peak > job->peak) job->peak = run->peak;
    }
    Err err = {{0}};
    if (broken || (!limit_was_hit(run) && !boxes_renew(slot, &err)))
        job_again(slot);
    else if (slot->phase == SLOT_COMPILE)
        finish_compile(slot);
    else if (slot->phase == SLOT_OUTPUT)
        finish_output(slot);
    else if (slot->phase == SLOT_CALLS)
        finish_calls(slot, told);
    else
        finish_checker(slot, told);
    json_decref(told);
}

bool slot_is_slow(const Slot *slot, double now) {
    const Cell *run = &slot->cells[BOX_CANDIDATE];
    bool running = (slot->phase == SLOT_OUTPUT || slot->phase == SLOT_CALLS) && run->active && run->pid != 0;
    return running && now - run->started > 0.5;
}

void slot_fds(const Slot *slot, int fds[SLOT_FDS]) {
    for (int i = 0; i < 2; i++) fds[i] = slot->boxes[i].control;
    for (int i = 0; i < 3; i++) fds[2 + i] = slot->pipes[i];
}

/* Between two jobs: waits for the last processes of the old one, renews boxes that were killed meanwhile. */
static void slot_rest(Slot *slot, double now) {
    Err err = {{0}};
    boxes_rescue(slot, now);
    if (slot->cells[0].active || slot->cells[1].active) return;
    if (slot->phase == SLOT_CLEANING) {
        stage_clear(slot);
        slot->phase = SLOT_IDLE;
    }
    boxes_renew(slot, &err); /* when this fails, the next job says so */
}

void slot_release(Slot *slot) {
    slot->job = NULL;
    slot->phase = slot->cells[0].active || slot->cells[1].active ? SLOT_CLEANING : SLOT_IDLE;
}

void slot_step(Slot *slot, double now) {
    boxes_read(slot);
    dropped_reap(slot);
    if (!slot->job) return slot_rest(slot, now);
    if (slot->phase == SLOT_FINISHED) return;
    for (int i = 0; i < 3; i++) pipe_read(slot, i, 16);
    if (now >= slot->next_watch) {
        slot->next_watch = now + 0.01;
        for (int i = 0; i < 2; i++) cell_watch(&slot->cells[i], now);
    }
    if (slot->phase == SLOT_CALLS) calls_settle(slot, now);
    boxes_rescue(slot, now);
    if (stage_is_over(slot)) stage_finish(slot);
}
