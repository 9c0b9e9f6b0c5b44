/* recipe_print.c: writes recipes, as YAML for people and as JSON for the store, and the help of the keys. A value
 * is written the same way in both: JSON's values are YAML too. Tested by tests/test_rl_recipe.c.
 */
#include "rl/recipe.h"

#include <float.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_COLUMN = 34, HELP_WIDTH = 110 };

/* The shortest decimal that reads back as the same double, with a point, which YAML asks of a number with e. */
static void number_print(Buf *out, double value) {
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    const char *e = strchr(text, 'e');
    if (!e || strchr(text, '.'))
        buf_text(out, text);
    else
        buf_format(out, "%.*s.0%s", (int)(e - text), text, e);
}

static void text_print(Buf *out, const char *text) {
    json_t *string = json_string(text);
    CHECK(string, "not UTF-8: %s", text); /* recipe.c lets nothing else in */
    char *quoted = json_dumps(string, JSON_ENCODE_ANY);
    buf_text(out, quoted);
    free(quoted);
    json_decref(string);
}

static void value_print(Buf *out, const Recipe *recipe, const RecipeKey *key, const char *none) {
    const void *field = (const char *)recipe + key->at;
    const char *text;
    const TextList *texts;
    const NumberList *numbers;
    switch (key->type) {
    case KEY_TEXT:
        if ((text = *(char *const *)field))
            text_print(out, text);
        else
            buf_text(out, none);
        return;
    case KEY_WHOLE:
        buf_format(out, "%ld", *(const long *)field);
        return;
    case KEY_BYTES:
        buf_format(out, "%" PRId64, *(const int64_t *)field);
        return;
    case KEY_NUMBER:
        number_print(out, *(const double *)field);
        return;
    case KEY_SWITCH:
        buf_text(out, *(const bool *)field ? "true" : "false");
        return;
    case KEY_TEXTS:
        texts = field;
        buf_char(out, '[');
        for (int i = 0; i < texts->n; i++) {
            if (i) buf_text(out, ", ");
            text_print(out, texts->at[i]);
        }
        buf_char(out, ']');
        return;
    case KEY_NUMBERS:
        numbers = field;
        buf_char(out, '[');
        for (int i = 0; i < numbers->n; i++) {
            if (i) buf_text(out, ", ");
            number_print(out, numbers->at[i]);
        }
        buf_char(out, ']');
        return;
    }
}

void recipe_yaml(const Recipe *recipe, Buf *out) {
    for (int i = 0; i < recipe_n_keys; i++) {
        if (recipe_keys[i].fate != KEY_HONOURED) continue;
        buf_format(out, "%s: ", recipe_keys[i].name);
        value_print(out, recipe, &recipe_keys[i], "\"\"");
        buf_char(out, '\n');
    }
}

void recipe_json(const Recipe *recipe, Buf *out) {
    const char *before = "{";
    for (int i = 0; i < recipe_n_keys; i++) {
        if (recipe_keys[i].fate != KEY_HONOURED) continue;
        buf_format(out, "%s\"%s\": ", before, recipe_keys[i].name);
        value_print(out, recipe, &recipe_keys[i], "null");
        before = ", ";
    }
    buf_char(out, '}');
}

/* ---- help ---- */

/* Words with blanks between them, broken before HELP_WIDTH, indented to HELP_COLUMN. */
static void words_print(Buf *out, const char *text) {
    int column = HELP_COLUMN;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (column > HELP_COLUMN && column + 1 + n > HELP_WIDTH) {
            buf_format(out, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        }
        if (column > HELP_COLUMN) buf_char(out, ' '), column++;
        buf_add(out, text, (size_t)n);
        column += n;
        text += n;
        text += strspn(text, " ");
    }
    buf_char(out, '\n');
}

static void key_print(Buf *out, const RecipeKey *key) {
    size_t start = out->n;
    buf_format(out, "  --%s", key->name);
    int pad = HELP_COLUMN - (int)(out->n - start);
    if (pad < 2) buf_char(out, '\n'), pad = HELP_COLUMN;
    buf_format(out, "%*s", pad, "");
    Buf words = {0};
    buf_text(&words, key->help);
    if (key->allowed) {
        char values[120];
        recipe_key_words(key, values, sizeof values);
        buf_format(&words, " (%s; default %s)", values, key->fallback);
    } else if (key->fallback) {
        buf_format(&words, " (default %s)", key->fallback);
    }
    words_print(out, words.p);
    buf_free(&words);
}

void recipe_help(Buf *out) {
    buf_text(out,
             "A recipe is a YAML file of `key: value`; every key is also a flag and then overrides the file.\n"
             "Lists are [a, b] in YAML and a,b as a flag. Names are TRL's where TRL has them.\n");
    bool wanted = false;
    for (int i = 0; i < recipe_n_keys; i++) {
        if (recipe_keys[i].fate == KEY_HEADING) {
            wanted = i + 1 < recipe_n_keys && recipe_keys[i + 1].fate == KEY_HONOURED;
            if (wanted) buf_format(out, "\n%s\n", recipe_keys[i].name);
        } else if (wanted) {
            key_print(out, &recipe_keys[i]);
        }
    }
    buf_text(out, "\nTRL's other keys are borne with a line that says why they change nothing, or refused.\n");
}
