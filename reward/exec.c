/* exec.c: the judge that is a program of the user's: JSON lines to its standard input, JSON lines from its
 * standard output. Named exec:COMMAND in reward_funcs; COMMAND is split at blanks, and quotes hold words together.
 *
 * A request:  {"id": 7, "problem": ..., "prompt": ..., "completion": ..., "answer": ..., "kind": ..., "group": 0,
 *              "index": 3, "n_tokens": 31, "finish": "stop", "fields": {the row of the data set}}
 * A reply:    {"id": 7, "reward": 0.5}   in any order; null: it cannot be judged. "class" (right, wrong, unjudged;
 *             else right when the reward is above 0) and "reason" may be added; all else is kept as detail.
 *
 * The program is kept alive, in exec_workers copies with up to exec_parallel requests each. Whatever it does costs
 * no run: a copy that is silent for exec_deadline seconds (longer while it starts), dies, floods, or writes what
 * is no reply (after its first one: before it, a greeting is borne) is killed with its process group and started
 * anew. The oldest of its requests may have been to blame and is tried once more, alone; what fails twice is
 * unjudged and says why. A program that fails FAILURES_MAX times without one good reply between leaves all that
 * waits unjudged.
 *
 * Runs in the caller's thread, inside submit and poll, and waits for nothing beyond what poll is told to.
 * Tested by tests/test_reward_exec.c and tests/exec_rewarder.sh.
 */
#include "reward/reward.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utf8proc.h>

enum {
    ATTEMPTS = 2,
    FAILURES_MAX = 10,
    FAILURES_FIRST = 3,       /* of a program that never gave a good reply */
    LINE_MAX_BYTES = 4 << 20, /* of a reply */
    NOISE_MAX = 1000,         /* lines that answer nothing, between two that do */
    READ_AT_ONCE = 1 << 20,
    SAID_BYTES = 200, /* of the end of what it wrote to standard error, for the reason */
};
static const double start_seconds = 30; /* on top of the deadline for a copy's first reply, until it is known */
static const double gap_seconds = 1;    /* between two looks at a copy: more than this is not its silence */
static const double close_seconds = 1;  /* for copies to end by themselves */

typedef struct {
    int64_t ticket, id; /* the caller's number; the request's, new for each attempt */
    json_t *request;
    int attempts;
    double sent_at;
} Item;

typedef struct {
    Item **at;
    size_t n, first, room; /* at[first .. n) wait */
} Items;

typedef struct {
    pid_t pid; /* 0: not running */
    int to, from, said_by;
    Buf out; /* still to be written */
    size_t out_at;
    Buf in;   /* the beginning of a line */
    Buf said; /* the end of what it wrote to standard error */
    Items flight;
    bool alone;     /* what it works on is tried for the second time */
    double silence; /* since its last good reply or since it had nothing to do */
    int noise;      /* lines since then that answer nothing */
    bool replied, rubbish;
    double started_at;
} Child;

typedef struct {
    int64_t ticket;
    RewardScore score;
} Answer;

typedef struct {
    char *text; /* the command */
    char **argv;
    double deadline;
    int parallel, n;
    Child *children;
    Items fresh, suspects;
    Answer *answers; /* answers[answered .. n_answers) wait to be taken */
    size_t n_answers, answered, room;
    int64_t next_id;
    int failures;            /* in a row */
    bool replied;            /* ever */
    double looked_at, start; /* start: seconds that a copy may take to start */
} Exec;

/* ---- items -------------------------------------------------------------------------------------------------- */

static void items_push(Items *items, Item *item) {
    if (items->first > 0 && items->first == items->n) items->first = items->n = 0;
    if (items->n == items->room)
        items->at = mem_grow(items->at, items->room = 2 * items->room + 16, sizeof(Item *));
    items->at[items->n++] = item;
}

static Item *items_pop(Items *items) { return items->first < items->n ? items->at[items->first++] : NULL; }
static void items_put_back(Items *items, Item *item) {
    if (items->first == 0) {
        items_push(items, item); /* for its room */
        memmove(items->at + 1, items->at, (items->n - 1) * sizeof *items->at);
        items->at[0] = item;
    } else {
        items->at[--items->first] = item;
    }
}
static size_t items_count(const Items *items) { return items->n - items->first; }

/* Takes the item of this id out, NULL when there is none. */
static Item *items_take(Items *items, int64_t id) {
    for (size_t i = items->first; i < items->n; i++) {
        Item *item = items->at[i];
        if (item->id != id) continue;
        memmove(&items->at[i], &items->at[i + 1], (items->n - i - 1) * sizeof *items->at);
        items->n--;
        return item;
    }
    return NULL;
}

static void item_free(Item *item) {
    json_decref(item->request);
    free(item);
}

/* Any bytes as a JSON string; what is no UTF-8 becomes U+FFFD. */
static json_t *text_or_null(const char *text) {
    if (!text) return json_null();
    json_t *string = json_string(text);
    if (string) return string;
    Buf good = {0};
    for (size_t i = 0, n = strlen(text); i < n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t took =
            utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(n - i), &c);
        if (took > 0)
            buf_add(&good, text + i, (size_t)took);
        else
            buf_text(&good, "\xef\xbf\xbd");
        i += took > 0 ? (size_t)took : 1;
    }
    string = json_string(good.p);
    buf_free(&good);
    return string;
}

static json_t *request_make(const RewardItem *item) {
    json_t *fields = item->fields ? json_loads(item->fields, JSON_ALLOW_NUL, NULL) : NULL;
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:I, s:i, s:i, s:o, s:o}", "problem", text_or_null(item->problem),
                     "prompt", text_or_null(item->prompt), "completion", text_or_null(item->completion), "answer",
                     text_or_null(item->answer), "kind", text_or_null(item->kind), "group",
                     (json_int_t)item->group, "index", item->index, "n_tokens", item->n_tokens, "finish",
                     text_or_null(item->finish), "fields", fields ? fields : json_null());
}

/* ---- answers ------------------------------------------------------------------------------------------------ */

static void answer_push(Exec *exec, Item *item, RewardScore score) {
    if (exec->answered > 0 && exec->answered == exec->n_answers) exec->answered = exec->n_answers = 0;
    if (exec->n_answers == exec->room)
        exec->answers = mem_grow(exec->answers, exec->room = 2 * exec->room + 16, sizeof *exec->answers);
    exec->answers[exec->n_answers++] = (Answer){item->ticket, score};
    item_free(item);
}

static void item_unjudged(Exec *exec, Item *item, const char *verdict, const char *why) {
    Buf reason = {0};
    buf_format(&reason, "%s: %s", exec->text, why);
    answer_push(exec, item,
                (RewardScore){.value = NAN, .class = SCORE_UNJUDGED, .verdict = verdict, .reason = reason.p});
}

/* An attempt that came to nothing. */
static void item_failed(Exec *exec, Item *item, const char *verdict, const char *why) {
    if (++item->attempts >= ATTEMPTS)
        item_unjudged(exec, item, verdict, why);
    else
        items_push(&exec->suspects, item);
}

/* ---- the program -------------------------------------------------------------------------------------------- */

/* Words apart at blanks; "..." and '...' hold them together. One block: the array, then the words. */
static char **words_of(const char *text) {
    size_t n = strlen(text);
    char **words = mem_alloc(n / 2 + 2 + (n + 2) / sizeof(char *) + 1, sizeof(char *));
    char *to = (char *)(words + n / 2 + 2), quote = 0;
    int count = 0;
    for (const char *p = text; *p;) {
        while (*p == ' ' || *p == '\t') p++;
        if (!*p) break;
        words[count++] = to;
        for (; *p && (quote || (*p != ' ' && *p != '\t')); p++) {
            if (quote ? *p == quote : *p == '"' || *p == '\'')
                quote = quote ? 0 : *p;
            else
                *to++ = *p;
        }
        *to++ = 0;
    }
    return words;
}

/* vfork, as the caller may hold gigabytes; the child shares our memory until it has become the program, so that
 * what it failed with can be read here. It dies with us and has a process group of its own. */
static pid_t program_start(char *const *argv, const int fds[3], volatile int *failed) {
    sigset_t none;
    sigemptyset(&none);
    pid_t pid = vfork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    if (dup2(fds[0], 0) >= 0 && dup2(fds[1], 1) >= 0 && dup2(fds[2], 2) >= 0) execvp(argv[0], argv);
    *failed = errno;
    _exit(127);
}

static bool child_start(Exec *exec, Child *child, Err *err) {
    int in[2], out[2], said[2];
    if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(said, O_CLOEXEC))
        return err_set(err, "reward program \"%s\": no pipe: %s", exec->text, strerror(errno));
    volatile int failed = 0;
    pid_t pid = program_start(exec->argv, (int[3]){in[0], out[1], said[1]}, &failed);
    if (pid < 0) failed = errno;
    close(in[0]), close(out[1]), close(said[1]);
    *child = (Child){.pid = pid > 0 ? pid : 0,
                     .to = in[1],
                     .from = out[0],
                     .said_by = said[0],
                     .in = child->in,
                     .out = child->out,
                     .said = child->said,
                     .flight = child->flight,
                     .started_at = clock_seconds()};
    buf_clear(&child->in), buf_clear(&child->out), buf_clear(&child->said);
    const int ours[3] = {child->to, child->from, child->said_by};
    for (int i = 0; i < 3; i++) fcntl(ours[i], F_SETFL, O_NONBLOCK);
    if (!failed) return true;
    if (pid > 0) waitpid(pid, NULL, 0);
    for (int i = 0; i < 3; i++) close(ours[i]);
    child->pid = 0;
    return err_set(err,
                   "reward program \"%s\" cannot be started: %s: give its path (./my_reward.py) and let it be "
                   "executable",
                   exec->text, strerror(failed));
}

static void child_end(Child *child) {
    close(child->to), close(child->from), close(child->said_by);
    kill(-child->pid, SIGKILL);
    kill(child->pid, SIGKILL); /* before its setpgid */
    waitpid(child->pid, NULL, 0);
    child->pid = 0;
    child->alone = false;
}

static int failures_most(const Exec *exec) { return exec->replied ? FAILURES_MAX : FAILURES_FIRST; }

static void give_up(Exec *exec, const char *verdict, const char *why) {
    char line[512];
    snprintf(line, sizeof line, "%d failures in a row, the last: %s", exec->failures, why);
    for (Item *item; (item = items_pop(&exec->suspects)) || (item = items_pop(&exec->fresh));)
        item_unjudged(exec, item, verdict, line);
    exec->failures = failures_most(exec) - ATTEMPTS; /* what comes later is tried, but not as long */
}

static void child_fail(Exec *exec, Child *child, const char *verdict, const char *why) {
    char line[512], said[SAID_BYTES + 1] = "";
    size_t n = child->said.n < SAID_BYTES ? child->said.n : SAID_BYTES;
    if (n) memcpy(said, child->said.p + child->said.n - n, n);
    for (size_t i = n; i > 0 && strchr(" \n", said[i - 1]); i--) said[i - 1] = 0;
    for (char *p = said; *p; p++)
        if ((unsigned char)*p < 32 || (unsigned char)*p > 126) *p = *p == '\n' ? ' ' : '?';
    snprintf(line, sizeof line, "%s%s%s", why, *said ? "; it said: " : "", said);
    child_end(child);
    Item *oldest = items_pop(&child->flight);
    while (items_count(&child->flight)) items_put_back(&exec->fresh, child->flight.at[--child->flight.n]);
    if (oldest) item_failed(exec, oldest, verdict, line);
    if (++exec->failures >= failures_most(exec)) give_up(exec, verdict, line);
}

/* ---- what it says ------------------------------------------------------------------------------------------- */

/* What a reply says beside the fields that have a place of their own; NULL for nothing. */
static char *detail_of(json_t *reply) {
    static const char *const known[] = {"id", "reward", "class", "reason", "verdict"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) json_object_del(reply, known[i]);
    return json_object_size(reply) ? json_dumps(reply, JSON_COMPACT) : NULL;
}

/* What is wrong with a reply, or NULL. */
static const char *reply_score(const json_t *reply, RewardScore *score) {
    const json_t *value = json_object_get(reply, "reward");
    const char *class = json_string_value(json_object_get(reply, "class"));
    const char *reason = json_string_value(json_object_get(reply, "reason"));
    *score = (RewardScore){.value = NAN, .class = SCORE_UNJUDGED, .verdict = "unjudged"};
    if (!value) return "a reply without \"reward\"";
    if (json_is_boolean(value))
        score->value = json_is_true(value);
    else if (json_is_number(value))
        score->value = json_number_value(value);
    else if (!json_is_null(value))
        return "a \"reward\" that is no number";
    if (!isnan(score->value)) score->class = score->value > 0 ? SCORE_RIGHT : SCORE_WRONG;
    for (int c = SCORE_RIGHT; class && c <= SCORE_UNJUDGED; c++)
        if (!strcmp(class, score_class_name((ScoreClass)c))) {
            if (isnan(score->value) && c != SCORE_UNJUDGED) return "a \"class\" without a reward";
            score->class = (ScoreClass)c, class = NULL;
        }
    if (class) return "a \"class\" that is not right, wrong or unjudged";
    if (score->class == SCORE_UNJUDGED)
        score->value = NAN;
    else
        score->verdict = score->class == SCORE_RIGHT ? "right" : "wrong";
    score->reason = reason ? mem_text(reason) : NULL;
    return NULL;
}

/* Python writes NaN where JSON has null. */
static json_t *reply_with_nan(const char *line) {
    Buf buf = {0};
    for (const char *nan; (nan = strstr(line, ": NaN")); line = nan + 5) {
        buf_add(&buf, line, (size_t)(nan - line));
        buf_text(&buf, ": null");
    }
    if (!buf.n) return NULL;
    buf_text(&buf, line);
    json_t *reply = json_loadb(buf.p, buf.n, 0, NULL);
    buf_free(&buf);
    return reply;
}

static void line_read(Exec *exec, Child *child, const char *line, size_t n) {
    json_t *reply = json_loadb(line, n, JSON_ALLOW_NUL, NULL);
    if (!reply) reply = reply_with_nan(line);
    const json_t *id = json_object_get(reply, "id");
    child->noise++;
    Item *item = json_is_integer(id) ? items_take(&child->flight, json_integer_value(id)) : NULL;
    if (!json_is_integer(id)) {
        child->rubbish = child->replied && items_count(&child->flight) > 0;
        buf_clear(&child->said);
        buf_format(&child->said, "%.120s (standard error is the place for it)", line);
    }
    if (item) {
        RewardScore score;
        const char *fault = reply_score(reply, &score);
        if (fault) {
            item_failed(exec, item, "rubbish", fault);
        } else {
            score.detail = detail_of(reply);
            score.microseconds = 1e6 * (clock_seconds() - item->sent_at);
            answer_push(exec, item, score);
            exec->failures = child->noise = 0;
            if (!child->replied) exec->start = fmin(start_seconds, 4 * (clock_seconds() - child->started_at));
            child->replied = exec->replied = true;
        }
        child->silence = 0;
        if (items_count(&child->flight) == 0) child->alone = false;
    }
    json_decref(reply);
}

/* Reads what is there, a bounded piece. False when the program has closed its output. */
static bool child_read(Exec *exec, Child *child) {
    size_t room = 1 << 16, total = 0;
    char *piece = MEM_ARRAY(char, room);
    ssize_t got = -1;
    while (total < READ_AT_ONCE && (got = read(child->said_by, piece, room)) > 0) {
        total += (size_t)got;
        buf_add(&child->said, piece, (size_t)got);
        if (child->said.n <= 2 * SAID_BYTES) continue;
        memmove(child->said.p, child->said.p + child->said.n - SAID_BYTES, SAID_BYTES);
        child->said.n = SAID_BYTES;
    }
    if (got == 0) {
        close(child->said_by);
        child->said_by = -1; /* poll passes over it */
    }
    for (total = 0; total < READ_AT_ONCE && (got = read(child->from, piece, room)) > 0; total += (size_t)got)
        buf_add(&child->in, piece, (size_t)got);
    bool open = !(got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR));
    free(piece);
    size_t at = 0;
    for (char *end;
         child->in.n > at && !child->rubbish && (end = memchr(child->in.p + at, '\n', child->in.n - at));) {
        *end = 0;
        size_t n = (size_t)(end - child->in.p) - at;
        if (n > 0) line_read(exec, child, child->in.p + at, n);
        at += n + 1;
    }
    if (at > 0) {
        memmove(child->in.p, child->in.p + at, child->in.n - at);
        child->in.n -= at;
    }
    return open;
}

/* ---- giving it work ----------------------------------------------------------------------------------------- */

static void item_send(Exec *exec, Child *child, Item *item) {
    item->id = exec->next_id++;
    item->sent_at = clock_seconds();
    json_object_set_new(item->request, "id", json_integer(item->id));
    char *line = json_dumps(item->request, JSON_COMPACT);
    if (items_count(&child->flight) == 0) child->silence = 0;
    buf_text(&child->out, line);
    buf_char(&child->out, '\n');
    items_push(&child->flight, item);
    free(line);
}

static void child_feed(Exec *exec, Child *child) {
    Err err = {0};
    bool idle = items_count(&child->flight) == 0;
    if (!items_count(&exec->fresh) && !(idle && items_count(&exec->suspects))) return;
    if (child->alone) return;
    if (!child->pid && !child_start(exec, child, &err)) {
        if (++exec->failures >= failures_most(exec)) give_up(exec, "no-start", err.msg);
        return;
    }
    Item *item = idle ? items_pop(&exec->suspects) : NULL;
    child->alone = item != NULL;
    if (item) item_send(exec, child, item);
    while (!child->alone && items_count(&child->flight) < (size_t)exec->parallel &&
           (item = items_pop(&exec->fresh)))
        item_send(exec, child, item);
}

/* Writes what fits. A reader that is gone must not end us with SIGPIPE, nor change how the program takes it. */
static void child_write(Child *child) {
    sigset_t pipe_set, before, pending;
    sigemptyset(&pipe_set), sigaddset(&pipe_set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_set, &before);
    sigpending(&pending);
    ssize_t wrote;
    while (child->out_at < child->out.n &&
           (wrote = write(child->to, child->out.p + child->out_at, child->out.n - child->out_at)) > 0)
        child->out_at += (size_t)wrote;
    if (!sigismember(&pending, SIGPIPE))
        while (sigtimedwait(&pipe_set, NULL, &(struct timespec){0}) > 0) {
        }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (child->out_at == child->out.n) buf_clear(&child->out), child->out_at = 0;
}

/* Looks at every copy once. */
static void look(Exec *exec) {
    double now = clock_seconds(), gap = fmin(now - exec->looked_at, gap_seconds);
    exec->looked_at = now;
    for (int i = 0; i < exec->n; i++) {
        Child *child = &exec->children[i];
        if (child->pid) {
            child->silence += gap;
            bool open = child_read(exec, child);
            const Item *oldest = items_count(&child->flight) ? child->flight.at[child->flight.first] : NULL;
            char why[96];
            snprintf(why, sizeof why, "no answer within %g s (reward_exec_deadline)", exec->deadline);
            if (!open && !oldest)
                child_end(child); /* it ended between two requests: fine */
            else if (!open)
                child_fail(exec, child, "died", "the program ended before it had answered");
            else if (child->rubbish)
                child_fail(exec, child, "rubbish", "the program wrote a line that is no reply");
            else if (child->in.n > LINE_MAX_BYTES || child->noise > NOISE_MAX)
                child_fail(exec, child, "flood", "the program writes and answers nothing");
            else if (oldest && (child->silence > exec->deadline + (child->replied ? 0 : exec->start) ||
                                now - oldest->sent_at > exec->deadline * (exec->parallel + 1) + exec->start))
                child_fail(exec, child, "timeout", why);
        }
        child_feed(exec, child);
        if (child->pid) child_write(child);
    }
}

/* ---- the judge ---------------------------------------------------------------------------------------------- */

static void exec_close(void *self) {
    Exec *exec = self;
    double end = clock_seconds() + close_seconds;
    for (int i = 0; i < exec->n; i++)
        if (exec->children[i].pid) {
            close(exec->children[i].to);
            exec->children[i].to = -1;
        }
    for (int i = 0; i < exec->n; i++) {
        Child *child = &exec->children[i];
        siginfo_t info = {0};
        while (child->pid && clock_seconds() < end && items_count(&child->flight) == 0 &&
               waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == 0)
            poll(NULL, 0, 5);
        if (child->pid) child_end(child);
        for (Item *item; (item = items_pop(&child->flight));) item_free(item);
        free(child->flight.at);
        buf_free(&child->in), buf_free(&child->out), buf_free(&child->said);
    }
    for (Item *item; (item = items_pop(&exec->suspects)) || (item = items_pop(&exec->fresh));) item_free(item);
    for (; exec->answered < exec->n_answers; exec->answered++)
        reward_score_free(&exec->answers[exec->answered].score);
    free(exec->suspects.at), free(exec->fresh.at), free(exec->answers);
    free(exec->children), free(exec->argv), free(exec->text);
    free(exec);
}

static void *exec_open(const RewardConf *conf, const char *command, Err *err) {
    Exec *exec = MEM_NEW(Exec);
    exec->text = mem_text(command);
    exec->argv = words_of(command);
    exec->deadline = conf->exec_deadline > 0 ? conf->exec_deadline : 30;
    exec->parallel = conf->exec_parallel > 0 ? conf->exec_parallel : 8;
    exec->n = conf->exec_workers > 0 ? conf->exec_workers : 1;
    exec->children = MEM_ARRAY(Child, exec->n);
    exec->looked_at = clock_seconds();
    exec->start = start_seconds;
    bool good =
        exec->argv[0] != NULL || err_set(err, "reward_funcs: exec: names no program; write exec:./my_reward.py");
    if (good && child_start(exec, &exec->children[0], err)) return exec;
    exec_close(exec);
    return NULL;
}

static bool exec_submit(void *self, int64_t ticket, const RewardItem *item, Err *err) {
    (void)err;
    Exec *exec = self;
    Item *mine = MEM_NEW(Item);
    *mine = (Item){.ticket = ticket, .request = request_make(item)};
    items_push(&exec->fresh, mine);
    look(exec);
    return true;
}

static bool exec_take(Exec *exec, int64_t *ticket, RewardScore *score) {
    if (exec->answered == exec->n_answers) return false;
    *ticket = exec->answers[exec->answered].ticket;
    *score = exec->answers[exec->answered++].score;
    return true;
}

static int exec_poll(void *self, double seconds, int64_t *ticket, RewardScore *score, Err *err) {
    (void)err;
    Exec *exec = self;
    double end = clock_seconds() + seconds;
    for (;;) {
        if (exec_take(exec, ticket, score)) return 1;
        look(exec);
        if (exec_take(exec, ticket, score)) return 1;
        double left = end - clock_seconds();
        if (left <= 0) return 0;
        struct pollfd *fds = MEM_ARRAY(struct pollfd, 3 * exec->n);
        nfds_t n = 0;
        for (int i = 0; i < exec->n; i++) {
            const Child *child = &exec->children[i];
            if (!child->pid) continue;
            fds[n++] = (struct pollfd){.fd = child->from, .events = POLLIN};
            fds[n++] = (struct pollfd){.fd = child->said_by, .events = POLLIN};
            if (child->out.n) fds[n++] = (struct pollfd){.fd = child->to, .events = POLLOUT};
        }
        poll(fds, n, (int)(1000 * fmin(left, 0.1)) + 1);
        free(fds);
    }
}

const JudgeKind judge_exec = {
    .name = "exec", .open = exec_open, .submit = exec_submit, .poll = exec_poll, .close = exec_close};
