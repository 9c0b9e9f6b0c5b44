/* options.c: reads the flags of commands from tables. Tested by tests/cmd_run.sh. */
#include "rl/options.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_ROOM = 64 };

typedef struct {
    const char *command;
    const Option *options;
    int n;
    Arena *arena;
} Reader;

static const Option *option_find(const Reader *reader, const char *name) {
    for (int i = 0; i < reader->n; i++)
        if (strcmp(reader->options[i].name, name) == 0) return &reader->options[i];
    return NULL;
}

static _Noreturn void option_unknown(const Reader *reader, const char *name) {
    const char *near = NULL;
    int best = (int)strlen(name) / 3 > 2 ? (int)strlen(name) / 3 + 1 : 3;
    for (int i = 0; i < reader->n; i++) {
        int distance = name_distance(name, reader->options[i].name);
        if (distance < best) best = distance, near = reader->options[i].name;
    }
    if (near) die("%s: there is no option --%s; did you mean --%s?", reader->command, name, near);
    die("%s: there is no option --%s; `whet %s --help` lists them", reader->command, name, reader->command);
}

static double number_read(const Reader *reader, const Option *option, const char *text) {
    char *end;
    double value = strtod(text, &end);
    bool whole = option->type == KEY_WHOLE;
    if (end == text || *end || !isfinite(value) || (whole && value != floor(value)))
        die("%s: --%s is %s and must be a %s", reader->command, option->name, text,
            whole ? "whole number" : "number");
    if (option->type != KEY_NUMBERS && (value < option->low || value > option->high))
        die("%s: --%s is %s and must be from %.10g to %.10g", reader->command, option->name, text, option->low,
            option->high);
    return value;
}

static void value_put(const Reader *reader, const Option *option, const char *text) {
    switch (option->type) {
    case KEY_TEXT:
        *(const char **)option->to = text;
        return;
    case KEY_WHOLE:
        *(long *)option->to = (long)number_read(reader, option, text);
        return;
    case KEY_NUMBER:
        *(double *)option->to = number_read(reader, option, text);
        return;
    case KEY_BYTES:
        if (!bytes_read(text, option->to))
            die("%s: --%s is %s and must be a size such as 8G or 500M", reader->command, option->name, text);
        return;
    default:
        CHECK(false, "--%s has type %d", option->name, (int)option->type);
    }
}

/* The values are added to what earlier flags of the name gave; one value alone is cut at its commas. */
static void list_put(const Reader *reader, const Option *option, int n, char *const *values) {
    TextList texts = {0};
    int most = 0;
    for (int i = 0; i < n; i++)
        for (const char *p = values[i]; p; p = strchr(p + 1, ',')) most++;
    texts.at = arena_alloc(reader->arena, (size_t)most + 1, sizeof *texts.at);
    for (int i = 0; i < n; i++)
        for (const char *p = values[i]; *p;) {
            size_t length = n == 1 ? strcspn(p, ",") : strlen(p);
            texts.at[texts.n++] = arena_text(reader->arena, p, length);
            p += length + (p[length] != 0);
        }
    if (!texts.n) die("%s: --%s wants a value", reader->command, option->name);
    if (option->type == KEY_TEXTS) {
        *(TextList *)option->to = texts;
        return;
    }
    NumberList numbers = {arena_alloc(reader->arena, (size_t)texts.n, sizeof *numbers.at), texts.n};
    for (int i = 0; i < texts.n; i++) numbers.at[i] = number_read(reader, option, texts.at[i]);
    *(NumberList *)option->to = numbers;
}

static bool is_list(const Option *option) { return option->type == KEY_TEXTS || option->type == KEY_NUMBERS; }

/* A flag and its values; returns how many arguments they are. */
static int flag_read(const Reader *reader, int n, char *const *args) {
    char name[NAME_ROOM];
    if (strncmp(args[0], "--", 2) != 0)
        die("%s: %.80s: a flag was expected here; `whet %s --help` lists them", reader->command, args[0],
            reader->command);
    size_t length = strcspn(args[0] + 2, "=");
    snprintf(name, sizeof name, "%.*s", (int)length, args[0] + 2);
    for (char *c = name; *c; c++)
        if (*c == '-') *c = '_';
    char *inside = args[0][2 + length] ? args[0] + 3 + length : NULL;
    const Option *option = option_find(reader, name);
    bool off = !option && strncmp(name, "no_", 3) == 0 && (option = option_find(reader, name + 3)) != NULL;
    if (!option || (off && option->type != KEY_SWITCH)) option_unknown(reader, name);
    if (option->type == KEY_SWITCH) {
        if (inside) die("%s: --%s takes no value", reader->command, name);
        *(bool *)option->to = !off;
        return 1;
    }
    int taken = 0;
    while (!inside && taken + 1 < n && (taken == 0 || (is_list(option) && strncmp(args[taken + 1], "--", 2) != 0)))
        taken++;
    if (!inside && !taken) die("%s: --%s wants a value", reader->command, name);
    if (is_list(option))
        list_put(reader, option, inside ? 1 : taken, inside ? &inside : args + 1);
    else
        value_put(reader, option, inside ? inside : args[1]);
    return 1 + taken;
}

/* ---- help ---- */

static void default_print(const Option *option) {
    switch (option->type) {
    case KEY_TEXT:
        if (*(const char **)option->to) printf(" (default: %s)", *(const char **)option->to);
        return;
    case KEY_WHOLE:
        printf(" (default: %ld)", *(long *)option->to);
        return;
    case KEY_NUMBER:
        printf(" (default: %g)", *(double *)option->to);
        return;
    case KEY_TEXTS: {
        const TextList *list = option->to;
        for (int i = 0; i < list->n; i++) printf("%s%s", i ? "," : " (default: ", list->at[i]);
        if (list->n) printf(")");
        return;
    }
    default:
        return;
    }
}

static _Noreturn void help_print(const char *usage, const Reader *reader) {
    fputs(usage, stdout);
    for (int i = 0; i < reader->n; i++) {
        const Option *option = &reader->options[i];
        printf("  --%-22s %s", option->name, option->help);
        default_print(option);
        printf("\n");
    }
    exit(0);
}

void options_read(const char *usage, const Option *options, int n, int argc, char **argv, Arena *arena) {
    Reader reader = {argv[0], options, n, arena};
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0) help_print(usage, &reader);
    for (int i = 1; i < argc;) i += flag_read(&reader, argc - i, argv + i);
}
