-- schema.sql: the tables of OUTPUT_DIR/run.db, and their documentation.
--
-- All that a run sampled, how it was judged and what was learnt from it. The trainer reads back what it wrote here,
-- so what a query shows is what was trained on. One training step is one transaction: a step is here whole or not at
-- all.
--
-- Everything but times is a function of the run: two runs of the same recipe on the same path hold the same rows,
-- ids included. Times stand in attempts, step_seconds, scores.microseconds, step_verdicts.microseconds and
-- evals.seconds, and nowhere else; what `whet rescore` adds later (score_sets, rescores, rescore_parts) is no part of
-- the run.
--
-- Arrays are blobs: little-endian numbers of 4 bytes, first every number's lowest byte, then every second one, and so
-- on, as a zlib stream (so they take less room). In Python:
--     numpy.frombuffer(zlib.decompress(blob), "u1").reshape(4, -1).T.copy().view("<i4")[:, 0]    tokens
--     numpy.frombuffer(zlib.decompress(blob), "u1").reshape(4, -1).T.copy().view("<f4")[:, 0]    log-probabilities
-- A REAL that is not a number is NULL (and -0.0 becomes 0.0).
-- Views stand at the end; they answer the usual questions and are good starting points for others. They read the
-- summaries, which are written with each step, so that they answer at once also when there are a million samples.

PRAGMA application_id = 2003330420; -- "whet"
PRAGMA user_version = 2;            -- raised whenever a table changes; a newer store is refused, never guessed at

-- ---- runs ------------------------------------------------------------------------------------------------------

-- One training run: what was asked for, and what decides its bits.
CREATE TABLE runs (
    id          INTEGER PRIMARY KEY,
    recipe      TEXT NOT NULL,      -- as resolved, a JSON object: recipe ->> '$.learning_rate'
    path        TEXT NOT NULL,      -- device path, such as avx512_bf16: results are bit-equal only on the same one
    version     TEXT NOT NULL,      -- of whet
    weight_hash TEXT NOT NULL       -- of the weights before the first step
);

-- One start of the program for a run; the first has from_step 0, each resumption the step of its checkpoint.
CREATE TABLE attempts (
    id         INTEGER PRIMARY KEY,
    run        INTEGER NOT NULL REFERENCES runs,
    from_step  INTEGER NOT NULL,
    path       TEXT NOT NULL,
    version    TEXT NOT NULL,
    threads    INTEGER NOT NULL,
    started_at TEXT NOT NULL,       -- UTC, ISO 8601
    ended_at   TEXT,                -- NULL: still running, or killed
    outcome    TEXT                 -- finished, interrupted, failed; NULL: still running, or killed
);
CREATE INDEX attempts_run ON attempts (run);

-- ---- steps -----------------------------------------------------------------------------------------------------

-- One training step, counted from 1: groups sampled and judged, and what was learnt from. With several updates from
-- one batch of samples, the first of them has the groups; advantages say which samples each of them consumed.
CREATE TABLE steps (
    run         INTEGER NOT NULL REFERENCES runs,
    step        INTEGER NOT NULL,
    version     INTEGER NOT NULL,   -- of the policy after the step: counts updates of the weights
    weight_hash TEXT NOT NULL,      -- of the weights after the step: learning it again must reach the same
    moment_hash TEXT NOT NULL,      -- of AdamW's moments after the step, likewise
    path        TEXT NOT NULL,      -- device path that it was sampled and learnt on
    PRIMARY KEY (run, step)
) WITHOUT ROWID;

-- Its metrics under TRL's names (reward, completions/mean_length, clip_ratio/low_mean, loss, grad_norm, ...).
CREATE TABLE step_metrics (
    run   INTEGER NOT NULL,
    step  INTEGER NOT NULL,
    name  TEXT NOT NULL,
    value REAL,
    PRIMARY KEY (run, step, name),
    FOREIGN KEY (run, step) REFERENCES steps
) WITHOUT ROWID;

-- What looked wrong with it (rl/guard.h has the thresholds): one line that says what it means and what to try.
--   SELECT step, name, line FROM step_guards;
CREATE TABLE step_guards (
    run  INTEGER NOT NULL,
    step INTEGER NOT NULL,
    name TEXT NOT NULL,
    line TEXT NOT NULL,
    PRIMARY KEY (run, step, name),
    FOREIGN KEY (run, step) REFERENCES steps
) WITHOUT ROWID;

-- How long its phases took (sample, judge, forward, backward, ...).
CREATE TABLE step_seconds (
    run     INTEGER NOT NULL,
    step    INTEGER NOT NULL,
    phase   TEXT NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (run, step, phase),
    FOREIGN KEY (run, step) REFERENCES steps
) WITHOUT ROWID;

-- ---- what was asked --------------------------------------------------------------------------------------------

-- Problems that were used at least once, in the order of their first use.
CREATE TABLE problems (
    id      INTEGER PRIMARY KEY,
    source  TEXT NOT NULL,          -- the file or generator, as the recipe names it
    name    TEXT NOT NULL,          -- its id inside the source
    kind    TEXT NOT NULL,
    problem TEXT NOT NULL,
    answer  TEXT,                   -- the expected answer
    fields  TEXT                    -- the whole row of the source, a JSON object; NULL for generated problems
);
CREATE INDEX problems_name ON problems (source, name);

-- One problem put to the policy: its samples share the prompt.
CREATE TABLE groups (
    id            INTEGER PRIMARY KEY,
    run           INTEGER NOT NULL,
    step          INTEGER NOT NULL,
    position      INTEGER NOT NULL, -- inside the step, from 0: the order in which it was learnt from; last come those
                                    -- that dynamic_sampling passed over
    problem_id    INTEGER NOT NULL REFERENCES problems,
    place         INTEGER NOT NULL, -- in the endless order of the source
    key           INTEGER NOT NULL, -- of its random numbers
    prompt        TEXT NOT NULL,    -- the rendered template
    n_prompt      INTEGER NOT NULL, -- its length in tokens
    prompt_tokens BLOB NOT NULL,
    reward_mean   REAL,             -- over judged samples; NULL when there are none
    reward_std    REAL,             -- sample standard deviation (n - 1)
    judged        INTEGER NOT NULL, -- samples that could be judged
    signal        INTEGER NOT NULL, -- 1: rewards differ, so there is something to learn
    UNIQUE (step, run, position),
    FOREIGN KEY (run, step) REFERENCES steps
);
CREATE INDEX groups_problem ON groups (problem_id);

-- ---- what was answered -----------------------------------------------------------------------------------------

-- One answer. The arrays hold one element for each token after the group's prompt.
CREATE TABLE samples (
    id             INTEGER PRIMARY KEY,
    group_id       INTEGER NOT NULL REFERENCES groups,
    number         INTEGER NOT NULL, -- inside the group, from 0
    parent_id      INTEGER REFERENCES samples, -- the sample that this one goes on from
    stage          TEXT NOT NULL,    -- what it was sampled for: train; baseline: the greedy answer of ReMax
    n_prompt       INTEGER NOT NULL, -- tokens before the policy's own (the group's prompt, or more)
    n_tokens       INTEGER NOT NULL, -- tokens after n_prompt: the length of the answer
    tokens         BLOB NOT NULL,
    logprobs       BLOB NOT NULL,    -- log-softmax of logits/temperature over the whole vocabulary
    draw_logprobs  BLOB,             -- inside the set that top_k, top_p and min_p kept: then the loss's; NULL: the same
    kept           BLOB,             -- those sets, one a token: a zlib stream of what rollout/rollout.h says; NULL:
                                     -- nothing was cut off
    segments       TEXT NOT NULL,    -- JSON: [{"start", "n", "role", "trained", "version"}, ...], prompt included
    text           TEXT NOT NULL,    -- the answer, decoded; U+FFFD for what is no UTF-8
    finish         TEXT NOT NULL,    -- stop, length, cancelled
    policy_version INTEGER NOT NULL, -- of the policy that wrote its last token
    reward         REAL,             -- weighted sum of the scores, less the KL of kl_in_reward; NULL: unjudged, and not
                                     -- learnt from
    class          TEXT NOT NULL CHECK (class IN ('right', 'wrong', 'unjudged')),
    UNIQUE (group_id, number)
);
CREATE INDEX samples_class ON samples (class, n_tokens DESC);

-- Its log-probabilities under the weights that learn, before its first update, where others drew it: weights of int8
-- (sampling_weights), or another run (from_store). One for each token of the policy's own.
CREATE TABLE learner_logprobs (
    sample_id INTEGER PRIMARY KEY REFERENCES samples,
    logprobs  BLOB NOT NULL
);

-- What each part of the reward said of a sample.
CREATE TABLE scores (
    sample_id    INTEGER NOT NULL REFERENCES samples,
    part         INTEGER NOT NULL,   -- place in reward_funcs, from 0
    name         TEXT NOT NULL,      -- as reward_funcs names it
    value        REAL,               -- before its weight; NULL: unjudged
    class        TEXT NOT NULL CHECK (class IN ('right', 'wrong', 'unjudged')),
    verdict      TEXT,               -- equal-exact, no-answer, ...
    reason       TEXT,               -- a sentence
    detail       TEXT,               -- a JSON object
    microseconds REAL NOT NULL,      -- what judging took
    PRIMARY KEY (sample_id, part)
) WITHOUT ROWID;
CREATE INDEX scores_verdict ON scores (name, verdict);

-- What was learnt from: the step that consumed a sample, and with which advantage.
CREATE TABLE advantages (
    run       INTEGER NOT NULL,
    step      INTEGER NOT NULL,
    sample_id INTEGER NOT NULL REFERENCES samples,
    advantage REAL NOT NULL,
    PRIMARY KEY (run, step, sample_id),
    FOREIGN KEY (run, step) REFERENCES steps
) WITHOUT ROWID;
CREATE INDEX advantages_sample ON advantages (sample_id);

-- ---- what other rewards would have said ---------------------------------------------------------------------------

-- One `whet rescore`: the samples of a run judged anew, by other rewards. What was learnt from stays as it was.
CREATE TABLE score_sets (
    id       INTEGER PRIMARY KEY,
    run      INTEGER NOT NULL REFERENCES runs,
    rewards  TEXT NOT NULL,          -- JSON: {"reward_funcs": [...], "reward_weights": [...], "scale_rewards": ...}
    version  TEXT NOT NULL,          -- of whet
    made_at  TEXT NOT NULL           -- UTC, ISO 8601
);
CREATE INDEX score_sets_run ON score_sets (run);

-- What the set says of a sample, beside what samples and advantages hold.
CREATE TABLE rescores (
    set_id    INTEGER NOT NULL REFERENCES score_sets ON DELETE CASCADE,
    sample_id INTEGER NOT NULL REFERENCES samples,
    reward    REAL,                  -- NULL: unjudged
    class     TEXT NOT NULL CHECK (class IN ('right', 'wrong', 'unjudged')),
    advantage REAL,                  -- with which the sample would have been learnt from; NULL: unjudged
    PRIMARY KEY (set_id, sample_id)
) WITHOUT ROWID;

-- Its parts, like scores.
CREATE TABLE rescore_parts (
    set_id       INTEGER NOT NULL,
    sample_id    INTEGER NOT NULL,
    part         INTEGER NOT NULL,
    name         TEXT NOT NULL,
    value        REAL,
    class        TEXT NOT NULL CHECK (class IN ('right', 'wrong', 'unjudged')),
    verdict      TEXT,
    reason       TEXT,
    detail       TEXT,
    microseconds REAL NOT NULL,
    PRIMARY KEY (set_id, sample_id, part),
    FOREIGN KEY (set_id, sample_id) REFERENCES rescores ON DELETE CASCADE
) WITHOUT ROWID;

-- ---- evaluations -----------------------------------------------------------------------------------------------

-- Accuracy on problems that are not trained on, measured after a step (0: the untouched model).
CREATE TABLE evals (
    run         INTEGER NOT NULL REFERENCES runs,
    step        INTEGER NOT NULL,
    name        TEXT NOT NULL,       -- of the data
    n           INTEGER NOT NULL,    -- answers judged
    accuracy    REAL,                -- a fraction
    ci_low      REAL,                -- Wilson interval, 95 %
    ci_high     REAL,
    mean_length REAL,                -- tokens of an answer
    seconds     REAL NOT NULL,
    PRIMARY KEY (run, step, name)
) WITHOUT ROWID;

CREATE TABLE eval_answers (
    run      INTEGER NOT NULL,
    step     INTEGER NOT NULL,
    name     TEXT NOT NULL,
    position INTEGER NOT NULL,
    problem_id INTEGER NOT NULL REFERENCES problems,
    text     TEXT NOT NULL,
    n_tokens INTEGER NOT NULL,
    finish   TEXT NOT NULL,
    reward   REAL,
    class    TEXT NOT NULL CHECK (class IN ('right', 'wrong', 'unjudged')),
    verdict  TEXT,
    PRIMARY KEY (run, step, name, position),
    FOREIGN KEY (run, step, name) REFERENCES evals ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX eval_answers_problem ON eval_answers (problem_id);

-- ---- summaries -------------------------------------------------------------------------------------------------

-- What a step's groups and samples add up to; written with the step.
CREATE TABLE step_summary (
    run         INTEGER NOT NULL,
    step        INTEGER NOT NULL,
    groups      INTEGER NOT NULL,
    samples     INTEGER NOT NULL,
    rewarded    INTEGER NOT NULL,    -- samples that have a reward
    reward      REAL NOT NULL,       -- sum of these rewards
    n_right     INTEGER NOT NULL,
    unjudged    INTEGER NOT NULL,
    clipped     INTEGER NOT NULL,    -- ended by length
    tokens      INTEGER NOT NULL,
    with_signal INTEGER NOT NULL,    -- groups whose rewards differ
    all_right   INTEGER NOT NULL,    -- of the others, groups with right answers only
    all_wrong   INTEGER NOT NULL,
    PRIMARY KEY (run, step),
    FOREIGN KEY (run, step) REFERENCES steps
) WITHOUT ROWID;

-- What the answers to a problem add up to, those that could be judged.
CREATE TABLE problem_summary (
    problem_id  INTEGER PRIMARY KEY REFERENCES problems,
    asked       INTEGER NOT NULL,
    n_right     INTEGER NOT NULL,
    reward      REAL NOT NULL,       -- sum
    first_step  INTEGER NOT NULL,
    last_step   INTEGER NOT NULL,
    right_share REAL AS (1.0 * n_right / asked)
);
CREATE INDEX problem_summary_share ON problem_summary (right_share, asked DESC, problem_id);

-- How often each part of the reward said what, in each step.
CREATE TABLE step_verdicts (
    run          INTEGER NOT NULL,
    step         INTEGER NOT NULL,
    name         TEXT NOT NULL,
    class        TEXT NOT NULL,
    verdict      TEXT,
    n            INTEGER NOT NULL,
    value        REAL,               -- mean
    microseconds REAL NOT NULL,      -- mean
    FOREIGN KEY (run, step) REFERENCES steps
);
CREATE INDEX step_verdicts_step ON step_verdicts (run, step);

-- ---- views -----------------------------------------------------------------------------------------------------

-- Every answer beside its problem:
--   SELECT problem, answer, text FROM answers WHERE step = 20 AND class = 'wrong';
CREATE VIEW answers AS
SELECT s.id AS sample_id, g.run, g.step, g.position, s.number, p.problem, p.answer, s.text,
       +s.class AS class, -- the plus: a step is a better way to its answers than a class
       s.reward,
       (SELECT a.advantage FROM advantages a WHERE a.sample_id = s.id ORDER BY a.step LIMIT 1) AS advantage,
       s.n_tokens, s.finish, p.id AS problem_id, p.kind
FROM samples s
JOIN groups g ON g.id = s.group_id
JOIN problems p ON p.id = g.problem_id
WHERE s.stage = 'train';

-- How the run went:
--   SELECT * FROM reward_by_step;
CREATE VIEW reward_by_step AS
SELECT run, step, reward / rewarded AS reward, 1.0 * n_right / samples AS accuracy, 1.0 * tokens / samples AS mean_length,
       1.0 * clipped / samples AS clipped_ratio, unjudged,
       tokens / (SELECT sum(seconds) FROM step_seconds t WHERE t.run = y.run AND t.step = y.step AND t.phase = 'step')
           AS tokens_per_second
FROM step_summary y;

-- Problems by how rarely they are solved:
--   SELECT problem, asked, right_share FROM hardest_problems LIMIT 10;
CREATE VIEW hardest_problems AS
SELECT p.id AS problem_id, p.problem, p.answer, p.kind, y.asked, y.right_share, y.reward / y.asked AS reward,
       y.first_step, y.last_step
FROM problem_summary y CROSS JOIN problems p ON p.id = y.problem_id
ORDER BY y.right_share, y.asked DESC, y.problem_id;

-- Right answers, the longest first (ORDER BY n_tokens for the shortest):
--   SELECT n_tokens, problem, text FROM longest_right LIMIT 3;
CREATE VIEW longest_right AS
SELECT s.n_tokens, g.step, p.problem, p.answer, s.text, s.id AS sample_id, g.run
FROM samples s CROSS JOIN groups g ON g.id = s.group_id CROSS JOIN problems p ON p.id = g.problem_id
WHERE s.class = 'right' AND s.stage = 'train'
ORDER BY s.n_tokens DESC, s.id;

-- Why answers were judged as they were:
--   SELECT name, verdict, sum(n) FROM verdicts GROUP BY name, verdict ORDER BY 3 DESC;
CREATE VIEW verdicts AS SELECT run, step, name, class, verdict, n, value, microseconds FROM step_verdicts;

-- How much of each step there was to learn from:
--   SELECT step, with_signal, all_right, all_wrong FROM signal_by_step;
CREATE VIEW signal_by_step AS SELECT run, step, groups, with_signal, all_right, all_wrong FROM step_summary;

-- Answers to the same problems at the first and at the last evaluation:
--   SELECT problem, before, after FROM before_after WHERE class_before = 'wrong' AND class_after = 'right';
CREATE VIEW before_after AS
SELECT b.run, b.name, p.problem, p.answer, b.text AS before, a.text AS after, b.class AS class_before,
       a.class AS class_after, b.step AS step_before, a.step AS step_after, b.position
FROM (SELECT run, name, min(step) AS first, max(step) AS last FROM evals GROUP BY run, name) e
CROSS JOIN eval_answers b ON b.run = e.run AND b.step = e.first AND b.name = e.name
CROSS JOIN eval_answers a ON a.run = e.run AND a.step = e.last AND a.name = e.name AND a.position = b.position
CROSS JOIN problems p ON p.id = b.problem_id;

-- Every answer with the rewards that it was learnt from and those of a later `whet rescore`:
--   SELECT problem, text, reward, new_reward FROM side_by_side WHERE set_id = 1 AND class <> new_class;
CREATE VIEW side_by_side AS
SELECT r.set_id, s.id AS sample_id, g.run, g.step, g.position, s.number, p.problem, p.answer, s.text, s.reward,
       r.reward AS new_reward, s.class, r.class AS new_class,
       (SELECT a.advantage FROM advantages a WHERE a.sample_id = s.id ORDER BY a.step LIMIT 1) AS advantage,
       r.advantage AS new_advantage
FROM rescores r
JOIN samples s ON s.id = r.sample_id
JOIN groups g ON g.id = s.group_id
JOIN problems p ON p.id = g.problem_id;
