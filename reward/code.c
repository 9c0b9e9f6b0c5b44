/* code.c: the caller's side of the code rewarder: sends rows to the worker process, takes scores, starts a new
 * worker when one dies. Runs nothing itself and waits for nothing beyond a deadline.
 *
 * The worker is this very program, started anew (/proc/self/exe) under another name by posix_spawn, before any
 * main() has run. So it begins small however large the caller has become, inherits no thread, lock or memory,
 * needs no second file beside the program, and a new one can be started in the middle of a run; it works in every
 * program that links this room. Tested by tests/test_reward_code.c. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reward/code.h"

extern char **environ;

enum { ATTEMPTS = 2, STARTS_MAX = 30 };
static const double start_seconds = 60, silence_seconds = 30;

typedef struct {
    int64_t ticket;
    char *message; /* as it was sent, for another worker; NULL: this place is free */
    size_t n;
    int attempts; /* workers that died while they ran it */
    bool started;
} Pending;

typedef struct {
    int64_t ticket;
    RewardScore score;
} Answer;

typedef struct {
    RewardConf conf;
    bool share; /* the value is the share of passed tests */
    pid_t pid;  /* 0: none */
    int fd;
    Buf in, out;
    size_t out_at;
    Pending *pending; /* the index is the number by which the worker knows it */
    uint32_t n_pending, room;
    uint32_t *free_places, n_free;
    Answer *answers; /* taken from the worker, not yet by the caller */
    size_t n_answers, answers_at, answers_room;
    double silence; /* time spent waiting since the worker was last heard */
    int failed_starts;
    unsigned layers;
    bool told_layers;
} Code;

/* The hidden command. A constructor, so that no main() needs to know of it. */
__attribute__((constructor)) static void worker_if_named(int argc, char **argv) {
    if (argc == 4 && !strcmp(argv[0], WORKER_NAME))
        exit(worker_main(argv[1][0] == 'w', atoi(argv[2]), (unsigned)atoi(argv[3])));
}

/* ---- the worker's life ----------------------------------------------------------------------------------------
 */

static bool worker_spawn(Code *code, Err *err) {
    int ends[2];
    char slots[16], layers[16];
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, all;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return err_set(err, "code: cannot make a socket: %s", strerror(errno));
    snprintf(slots, sizeof slots, "%d", code->conf.workers);
    snprintf(layers, sizeof layers, "%u", code->layers); /* measured once, by the first worker */
    char *argv[] = {WORKER_NAME, code->conf.allow_weak_sandbox ? "weak" : "full", slots, layers, NULL};
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], WORKER_FD);
    posix_spawn_file_actions_addclosefrom_np(&actions, WORKER_FD + 1);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    int rc = posix_spawn(&code->pid, "/proc/self/exe", &actions, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    code->fd = ends[0];
    code->silence = 0;
    if (rc == 0) return true;
    close(code->fd);
    code->fd = -1;
    code->pid = 0;
    return err_set(err, "code: cannot start the worker process: %s", strerror(rc));
}

static void worker_end(Code *code) {
    if (code->pid > 0) {
        kill(code->pid, SIGKILL);
        while (waitpid(code->pid, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    if (code->fd >= 0) close(code->fd);
    code->pid = 0;
    code->fd = -1;
    buf_clear(&code->in);
    buf_clear(&code->out);
    code->out_at = 0;
}

/* ---- what waits -----------------------------------------------------------------------------------------------
 */

static void answer_add(Code *code, int64_t ticket, RewardScore score) {
    if (code->answers_at && code->answers_at == code->n_answers) code->answers_at = code->n_answers = 0;
    if (code->n_answers == code->answers_room) {
        code->answers_room = code->answers_room ? 2 * code->answers_room : 64;
        code->answers = mem_grow(code->answers, code->answers_room, sizeof *code->answers);
    }
    code->answers[code->n_answers++] = (Answer){ticket, score};
}

static Pending *pending_add(Code *code, uint32_t *id) {
    if (code->n_free) {
        *id = code->free_places[--code->n_free];
    } else {
        if (code->n_pending == code->room) {
            code->room = code->room ? 2 * code->room : 64;
            code->pending = mem_grow(code->pending, code->room, sizeof *code->pending);
            code->free_places = mem_grow(code->free_places, code->room, sizeof *code->free_places);
        }
        *id = code->n_pending++;
    }
    code->pending[*id] = (Pending){0};
    return &code->pending[*id];
}

static void pending_drop(Code *code, uint32_t id) {
    free(code->pending[id].message);
    code->pending[id].message = NULL;
    code->free_places[code->n_free++] = id;
}

static void give_up(Code *code, uint32_t id, const char *why) {
    RewardScore score = {
        .value = NAN, .class = SCORE_UNJUDGED, .verdict = verdict_name(VERDICT_SANDBOX), .reason = mem_text(why)};
    answer_add(code, code->pending[id].ticket, score);
    pending_drop(code, id);
}

/* The number of attempts stands after length, letter and id; see job_take. */
static void message_send(Code *code, Pending *p) {
    uint32_t attempts = (uint32_t)p->attempts;
    memcpy(p->message + 9, &attempts, 4);
    p->started = false;
    buf_add(&code->out, p->message, p->n);
}

/* The worker has died or hangs: what it ran has lost an attempt; all that waits goes to a new one. */
static bool worker_again(Code *code, Err *err) {
    worker_end(code);
    for (uint32_t id = 0; id < code->n_pending; id++) {
        Pending *p = &code->pending[id];
        if (!p->message) continue;
        if (p->started && ++p->attempts >= ATTEMPTS) give_up(code, id, "the worker process was killed twice");
    }
    if (++code->failed_starts > STARTS_MAX)
        return err_set(err, "code: the worker process dies whenever it starts");
    if (!worker_spawn(code, err)) return false;
    for (uint32_t id = 0; id < code->n_pending; id++)
        if (code->pending[id].message) message_send(code, &code->pending[id]);
    return true;
}

/* ---- messages -------------------------------------------------------------------------------------------------
 */

static void score_take(Code *code, WireReader *r) {
    uint32_t id = wire_read_u32(r), verdict = wire_read_u32(r);
    double value = wire_read_f64(r), seconds = wire_read_f64(r);
    char *reason = wire_read_text(r), *detail = wire_read_text(r);
    if (r->bad || id >= code->n_pending || !code->pending[id].message || verdict >= VERDICT_COUNT) {
        free(reason);
        free(detail);
        return;
    }
    RewardScore score = {.value = value,
                         .verdict = verdict_name((Verdict)verdict),
                         .reason = reason,
                         .detail = detail,
                         .microseconds = 1e6 * seconds};
    score.class = verdict == VERDICT_PASS      ? SCORE_RIGHT
                  : verdict == VERDICT_SANDBOX ? SCORE_UNJUDGED
                                               : SCORE_WRONG;
    answer_add(code, code->pending[id].ticket, score);
    pending_drop(code, id);
}

static void layers_tell(Code *code, uint32_t layers, const char *missing) {
    Buf text = {0};
    code->layers = layers;
    layers_text(layers, &text);
    if (!code->told_layers)
        fprintf(stderr, "whet: code sandbox holds: %s%s%s\n", text.n ? text.p : "nothing",
                missing ? "; WEAK, it lacks: " : "", missing ? missing : "");
    code->told_layers = true;
    buf_free(&text);
}

/* False when the worker says that it can't work. */
static bool message_take(Code *code, char letter, WireReader *r, Err *err) {
    if (letter == 'R') {
        score_take(code, r);
        return true;
    }
    uint32_t number = wire_read_u32(r);
    char *text = wire_read_text(r);
    bool ok = letter != 'F' || err_set(err, "%s", text ? text : "code: the worker can't work");
    if (letter == 'H') layers_tell(code, number, text), code->failed_starts = 0;
    if (letter == 'S' && number < code->n_pending) code->pending[number].started = true;
    free(text);
    return ok;
}

static bool output_write(Code *code) {
    while (code->out_at < code->out.n) {
        ssize_t n =
            send(code->fd, code->out.p + code->out_at, code->out.n - code->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
        if (n < 0) return false;
        code->out_at += (size_t)n;
    }
    buf_clear(&code->out);
    code->out_at = 0;
    return true;
}

/* 1: something came; 0: nothing; -1: the worker is gone; -2: it refuses to work, and says why. */
static int input_read(Code *code, Err *err) {
    char bytes[65536], letter;
    WireReader reader;
    size_t at = 0;
    ssize_t n = recv(code->fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (n <= 0) return -1;
    code->silence = 0;
    buf_add(&code->in, bytes, (size_t)n);
    bool ok = true;
    while (ok && wire_next(&code->in, &at, &letter, &reader)) ok = message_take(code, letter, &reader, err);
    memmove(code->in.p, code->in.p + at, code->in.n - at);
    code->in.n -= at;
    return ok ? 1 : -2;
}

/* ---- the judge's interface ------------------------------------------------------------------------------------
 */

/* Gives the worker two seconds to end by itself, which it does when its socket closes. */
static void worker_leave(Code *code) {
    if (code->fd >= 0) close(code->fd);
    code->fd = -1;
    for (int i = 0; code->pid > 0 && i < 200; i++) {
        if (waitpid(code->pid, NULL, WNOHANG) != 0)
            code->pid = 0;
        else
            poll(NULL, 0, 10);
    }
    worker_end(code);
}

static void code_close(void *self) {
    Code *code = self;
    worker_leave(code);
    for (uint32_t id = 0; id < code->n_pending; id++) free(code->pending[id].message);
    for (size_t i = code->answers_at; i < code->n_answers; i++) reward_score_free(&code->answers[i].score);
    free(code->pending);
    free(code->free_places);
    free(code->answers);
    buf_free(&code->in);
    buf_free(&code->out);
    free(code);
}

static void *code_open(const RewardConf *conf, const char *argument, Err *err) {
    (void)argument;
    Code *code = MEM_NEW(Code);
    code->conf = *conf;
    code->fd = -1;
    bool ok = worker_spawn(code, err);
    double give_up_at = clock_seconds() + start_seconds;
    while (ok && !code->told_layers) {
        struct pollfd p = {.fd = code->fd, .events = POLLIN};
        poll(&p, 1, 100);
        int got = input_read(code, err);
        if (got == -1)
            ok = err_set(err, "code: the worker process died while it started");
        else if (got == -2)
            ok = false;
        else if (clock_seconds() > give_up_at)
            ok = err_set(err, "code: the worker process hangs while it starts");
    }
    if (ok) return code;
    code_close(code);
    return NULL;
}

static bool code_submit(void *self, int64_t ticket, const RewardItem *item, Err *err) {
    Code *code = self;
    uint32_t id;
    size_t start;
    Buf message = {0};
    Pending *p = pending_add(code, &id);
    wire_begin(&message, 'J', &start);
    wire_u32(&message, id);
    wire_u32(&message, 0); /* attempts */
    wire_u32(&message, code->share);
    wire_text(&message, item->completion ? item->completion : "");
    wire_text(&message, item->prompt);
    wire_text(&message, item->fields);
    wire_end(&message, start);
    *p = (Pending){.ticket = ticket, .message = message.p, .n = message.n};
    message_send(code, p);
    if (code->fd >= 0 && output_write(code)) return true;
    return worker_again(code, err);
}

static bool take_answer(Code *code, int64_t *ticket, RewardScore *score) {
    if (code->answers_at == code->n_answers) return false;
    Answer *a = &code->answers[code->answers_at++];
    *ticket = a->ticket;
    *score = a->score;
    return true;
}

/* One exchange with the worker, of at most `seconds`. False: err says why nothing more will come. */
static bool exchange(Code *code, double seconds, Err *err) {
    double before = clock_seconds();
    bool alive = code->fd >= 0 && output_write(code);
    if (alive) {
        short out = code->out_at < code->out.n ? POLLOUT : 0;
        struct pollfd p = {.fd = code->fd, .events = POLLIN | out};
        poll(&p, 1, (int)ceil(1000 * fmin(seconds, 1)));
        int got = input_read(code, err);
        alive = got >=
                0; /* it worked once, so that a worker which says that it can't was disturbed while it started */
        if (got == 0) code->silence += clock_seconds() - before;
    }
    return (alive && code->silence < silence_seconds) || worker_again(code, err);
}

static int code_poll(void *self, double seconds, int64_t *ticket, RewardScore *score, Err *err) {
    Code *code = self;
    double until = clock_seconds() + seconds, now;
    bool asked = false;
    for (;;) {
        if (take_answer(code, ticket, score)) return 1;
        if (code->n_free == code->n_pending) return 0;
        now = clock_seconds();
        if (asked && now >= until) return 0;
        if (!exchange(code, fmax(0, until - now), err)) return -1;
        asked = true;
    }
}

static void *code_share_open(const RewardConf *conf, const char *argument, Err *err) {
    Code *code = code_open(conf, argument, err);
    if (code) code->share = true;
    return code;
}

const JudgeKind judge_code = {
    .name = "code", .open = code_open, .submit = code_submit, .poll = code_poll, .close = code_close};
const JudgeKind judge_code_share = {
    .name = "code_share", .open = code_share_open, .submit = code_submit, .poll = code_poll, .close = code_close};
