/* code_worker.c: the standing worker process: takes jobs from the caller, gives them to slots, answers in any
 * order.
 *
 * One thread, one poll; nothing here blocks. It ends when the caller's socket closes, and its boxes end with it.
 * It is the caller's own program, started anew with another name (see code.c), so it shares no memory with a
 * trainer. Tested by tests/test_reward_code.c. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "reward/code.h"

enum { SLOTS_MAX = 64 };
static const double beat_seconds = 2;

typedef struct {
    int n_slots, most_slots;
    char python[256];
    Slot slots[SLOTS_MAX];
    Cache *cache;
    Job *first, **last; /* jobs that wait */
    int64_t n_jobs;     /* taken and not answered */
    Buf in, out;
    size_t out_at;
    double beat;
    char *weak; /* names of the layers that are missing, or NULL */
} Worker;

/* ---- answers --------------------------------------------------------------------------------------------------
 */

static void answer(Worker *w, Job *job) {
    size_t start;
    Verdict verdict = job_verdict(job);
    job->weak = w->weak;
    char *detail = job_detail(job);
    wire_begin(&w->out, 'R', &start);
    wire_u32(&w->out, job->id);
    wire_u32(&w->out, (uint32_t)verdict);
    wire_f64(&w->out, job_value(job));
    wire_f64(&w->out, job->seconds);
    wire_text(&w->out, job_reason(job));
    wire_text(&w->out, detail);
    wire_end(&w->out, start);
    free(detail);
    job_free(job);
    w->n_jobs--;
}

static void tell(Worker *w, char letter, uint32_t number, const char *text) {
    size_t start;
    wire_begin(&w->out, letter, &start);
    wire_u32(&w->out, number);
    wire_text(&w->out, text);
    wire_end(&w->out, start);
}

/* ---- jobs -----------------------------------------------------------------------------------------------------
 */

static void job_take(Worker *w, WireReader *r) {
    uint32_t id = wire_read_u32(r), attempts = wire_read_u32(r), share = wire_read_u32(r);
    char *completion = wire_read_text(r), *prompt = wire_read_text(r), *fields = wire_read_text(r);
    Job *job = job_new(completion, prompt, fields, share);
    job->id = id;
    job->attempts = (int)attempts;
    *w->last = job;
    w->last = &job->next;
    w->n_jobs++;
    free(completion), free(prompt), free(fields);
}

static void jobs_give(Worker *w) {
    for (int i = 0; i < w->n_slots && w->first; i++) {
        Slot *slot = &w->slots[i];
        if (slot->phase != SLOT_IDLE) continue;
        Job *job = w->first;
        w->first = job->next;
        if (!w->first) w->last = &w->first;
        tell(w, 'S', job->id, NULL);
        slot_take(slot, job);
    }
}

/* When every slot has been in one run for long, those runs mostly sleep or hang: one slot more, so that they delay
 * nobody. */
static void slots_grow(Worker *w, double now) {
    Err err = {{0}};
    for (int i = 0; i < w->n_slots; i++)
        if (!slot_is_slow(&w->slots[i], now)) return;
    if (!w->first || w->n_slots >= w->most_slots) return;
    Slot *slot = &w->slots[w->n_slots];
    if (slot_open(slot, w->n_slots, w->python, w->weak != NULL, true, w->cache, &err))
        w->n_slots++;
    else
        slot_close(slot), w->most_slots = w->n_slots; /* the machine gives no more */
}

static void jobs_collect(Worker *w) {
    for (int i = 0; i < w->n_slots; i++) {
        Slot *slot = &w->slots[i];
        if (slot->phase != SLOT_FINISHED) continue;
        answer(w, slot->job);
        slot_release(slot);
    }
}

/* ---- the caller's socket --------------------------------------------------------------------------------------
 */

static bool input_read(Worker *w) {
    char bytes[65536], letter;
    WireReader reader;
    size_t at = 0;
    for (int i = 0; i < 64; i++) {
        ssize_t n = recv(WORKER_FD, bytes, sizeof bytes, MSG_DONTWAIT);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return false;
        if (n < 0) break;
        buf_add(&w->in, bytes, (size_t)n);
    }
    while (wire_next(&w->in, &at, &letter, &reader))
        if (letter == 'J') job_take(w, &reader);
    if (at) {
        memmove(w->in.p, w->in.p + at, w->in.n - at);
        w->in.n -= at;
    }
    return true;
}

static bool output_write(Worker *w) {
    while (w->out_at < w->out.n) {
        ssize_t n = send(WORKER_FD, w->out.p + w->out_at, w->out.n - w->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR)) return true;
        if (n < 0) return false;
        w->out_at += (size_t)n;
    }
    buf_clear(&w->out);
    w->out_at = 0;
    return true;
}

/* ---- the loop -------------------------------------------------------------------------------------------------
 */

static void wait_for_news(Worker *w) {
    struct pollfd polls[1 + SLOTS_MAX * SLOT_FDS];
    int n = 0, fds[SLOT_FDS];
    bool busy = false;
    short out = w->out_at < w->out.n ? POLLOUT : 0;
    polls[n++] = (struct pollfd){.fd = WORKER_FD, .events = POLLIN | out};
    for (int i = 0; i < w->n_slots; i++) {
        slot_fds(&w->slots[i], fds);
        busy |= w->slots[i].phase != SLOT_IDLE;
        for (int k = 0; k < SLOT_FDS; k++)
            if (fds[k] >= 0) polls[n++] = (struct pollfd){.fd = fds[k], .events = POLLIN};
    }
    poll(polls, (nfds_t)n, busy ? 10 : -1);
}

static void run(Worker *w) {
    for (;;) {
        double now = clock_seconds();
        if (w->n_jobs && now > w->beat) {
            tell(w, 'T', 0, NULL);
            w->beat = now + beat_seconds;
        }
        if (!output_write(w)) return;
        wait_for_news(w);
        if (!input_read(w)) return;
        now = clock_seconds();
        for (int i = 0; i < w->n_slots; i++) slot_step(&w->slots[i], now);
        jobs_collect(w);
        slots_grow(w, now);
        jobs_give(w);
        jobs_collect(w); /* rows without a program are finished at once */
    }
}

/* ---- start ----------------------------------------------------------------------------------------------------
 */

static int cores(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

/* All that is asked for is needed, but for Landlock, which only newer kernels have. */
static bool layers_check(Worker *w, bool weak, unsigned *layers, Err *err) {
    unsigned all = (1u << LAYER_COUNT) - 1, needed = all & ~(1u << LAYER_LANDLOCK);
    Buf missing = {0};
    if (!*layers && !layers_measure(&w->slots[0].boxes[BOX_CANDIDATE], layers, err)) return false;
    layers_text(needed & ~*layers, &missing);
    if (missing.n && !weak)
        err_set(err,
                "code sandbox: this machine does not give: %s; candidates are not run without (or give "
                "--allow_weak_sandbox)",
                missing.p);
    bool ok = !missing.n || weak;
    if (missing.n && weak) w->weak = mem_text(missing.p);
    buf_free(&missing);
    return ok;
}

static bool start(Worker *w, bool weak, int slots, unsigned *layers, Err *err) {
    w->last = &w->first;
    w->cache = cache_new();
    int want = slots > 0 ? slots : cores();
    want = want < SLOTS_MAX ? want : SLOTS_MAX;
    w->most_slots = slots > 0 ? want : 4 * want < SLOTS_MAX ? 4 * want : SLOTS_MAX;
    if (!box_find_python(w->python, sizeof w->python, err)) return false;
    for (; w->n_slots < want; w->n_slots++)
        if (!slot_open(&w->slots[w->n_slots], w->n_slots, w->python, weak, false, w->cache, err)) {
            w->n_slots++; /* so that what it opened is closed */
            return false;
        }
    return layers_check(w, weak, layers, err);
}

static void finish(Worker *w) {
    for (int i = 0; i < w->n_slots; i++) /* all at once, then wait for each */
        for (int k = 0; k < 2; k++)
            if (w->slots[i].boxes[k].pid > 0) kill(w->slots[i].boxes[k].pid, SIGKILL);
    for (int i = 0; i < w->n_slots; i++) {
        if (w->slots[i].job) job_free(w->slots[i].job);
        slot_close(&w->slots[i]);
    }
    while (w->first) {
        Job *job = w->first;
        w->first = job->next;
        job_free(job);
    }
    cache_free(w->cache);
    buf_free(&w->in);
    buf_free(&w->out);
    free(w->weak);
    free(w);
}

int worker_main(bool weak, int slots, unsigned layers) {
    Worker *w = MEM_NEW(Worker);
    Err err = {{0}};
    signal(SIGPIPE, SIG_IGN);
    setsid(); /* Ctrl-C is the trainer's, which still wants this step judged */
    prctl(PR_SET_NAME, WORKER_NAME);
    bool ok = start(w, weak, slots, &layers, &err);
    tell(w, ok ? 'H' : 'F', layers, ok ? w->weak : err.msg);
    fcntl(WORKER_FD, F_SETFL, 0);
    if (ok)
        run(w);
    else
        output_write(w);
    finish(w);
    return ok ? 0 : 1;
}
