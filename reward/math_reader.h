/* math_reader.h: what the files of the parser share: the place in the text and the grammar's entry points.
 *
 * A Reader walks once over a plain text (see text_plain). A function that fails sets the fault and returns NULL;
 * whoever sees NULL returns NULL.
 */
#ifndef WHET_MATH_READER_H
#define WHET_MATH_READER_H

#include "reward/math_parts.h"

typedef struct {
    Parse *parse;
    Arena *arena;
    const char *start, *p, *end;
    int depth;                /* brackets, braces and functions around this place */
    int brackets;             /* of these, brackets that may hold a list */
    int bars;                 /* absolute values that are open in the innermost bracket */
    bool matrix;              /* inside a matrix: & and \\ end an entry */
    bool rows;                /* inside aligned rows: \\ ends a row, & means nothing */
    bool bound_i;             /* i is a summation variable here */
    const char *differential; /* inside an integral: the letter after d, once seen */
    bool integral;
    bool commas;       /* thousands may be separated by commas here */
    const char *money; /* the place behind a dollar sign */
    int work;          /* atoms read; a bound on backtracking */
} Reader;

Node *reader_fail(Reader *r, const char *fault);

/* math_lex.c */
void skip_blank(Reader *r);                   /* blanks and commands without meaning */
bool at_command(Reader *r, const char *name); /* is \name here? */
bool take_command(Reader *r, const char *name);
bool take_char(Reader *r, char c);       /* after blanks */
char peek(Reader *r);                    /* after blanks; 0 at the end */
Span peek_command(Reader *r);            /* the letters after a backslash here, or none */
Span peek_word(Reader *r);               /* a run of letters here, or none */
bool take_braces(Reader *r, Span *in);   /* {...}: its content unread */
bool at_separator(Reader *r, bool take); /* , ; and or */
Node *read_number(Reader *r);

/* math_parse.c */
Node *read_list(Reader *r); /* items between separators */
Node *read_item(Reader *r); /* relations between set expressions */
Node *read_sum(Reader *r);
Node *read_product(Reader *r); /* factors side by side */
Node *read_braced(Reader *r);  /* {list} */

/* math_atom.c */
bool at_atom(Reader *r);
Node *read_factor(Reader *r);   /* an atom with its powers, factorials, primes, percent signs */
Node *read_script(Reader *r);   /* of ^ and _: the same, with runs of digits and a sign */
Node *read_argument(Reader *r); /* of \frac and roots: braces, one digit or one atom */

/* math_bind.c */
Node *read_bind(Reader *r, Function fn); /* after \\sum and the like */
Node *read_derivative(Reader *r);        /* after \\frac; NULL and no fault when it is none */
bool at_differential(Reader *r);
bool take_differential(Reader *r); /* dx, inside an integral */

/* math_group.c */
Node *read_bracket(Reader *r); /* ( [ \{ */
Node *read_bars(Reader *r, const char *close);
Node *read_environment(Reader *r); /* \begin{...} */

#endif
