"""Regular expressions of recipes end, and mean what Python's `re` makes of them."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftplug import DataError, Pattern, RecipeError
from sftplug.recipe import load_recipe

LETTERS = "a" * 300 + "!"
EXPONENTIAL = [
    ("(a+)+$", LETTERS),
    ("(a|aa)+$", LETTERS),
    ("(a|a?)+$", LETTERS),
    ("((a*)*)*c", LETTERS),
    ("(([^q]+)+)+q", "It is red, or it is blue. " * 20),
    (r"^(\w+\s?)*$", "one word and another " * 40 + "?"),
    (r"(?=(.*)*y)x", "x" * 3_000),
    (r"(.*)(.*)(.*)(.*)(.*)z\1", "ab" * 2_000),
    ("(a{1,90}){1,90}b", "a" * 4_000),
]


@pytest.mark.parametrize(("pattern", "text"), EXPONENTIAL, ids=[pattern for pattern, _ in EXPONENTIAL])
def test_an_expression_ends_or_is_stopped_after_a_second(pattern, text):
    begun = time.process_time()
    try:
        ended = len(list(Pattern(pattern).finditer(text))) < 2
    except DataError as error:
        ended = re.search(r"takes more than 1 s on a text of [\d,]+ characters, '.*: it tries the same", str(error))
    assert ended
    assert time.process_time() - begun < 10


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("((((x{80}){80}){80}){80}){80}", "repeats its pieces 3,486,784,401 times at least; 10,000 are allowed"),
        ("(?:ab|c){500000}", "repeats its pieces 1,500,003 times at least"),
        ("(?:" * 60 + "z" + "+)" * 60, "times at least; 10,000 are allowed"),
        ("b" * 20_000, "is longer than 10,000 characters"),
        ("(" * 4_000 + ")" * 4_000, "is not a regular expression: maximum recursion depth exceeded"),
        ("a{99999999999999999999}", "is not a regular expression: the repetition number is too large"),
        ("(unclosed", "is not a regular expression: missing ), unterminated subpattern"),
        (r"\p{Lu}", r"is not a regular expression: bad escape \p"),
        ("(?R)", "is not a regular expression: unknown extension ?R"),
        ("[[:alpha:]]+", "is not a regular expression: Possible nested set"),
    ],
    ids=lambda value: value[:24],
)
def test_what_is_none_or_would_fill_memory_is_refused_when_it_is_written(pattern, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Pattern(pattern)


PIECES = st.sampled_from(
    ["a", "b", ".", r"\w", r"\s", r"\b", "[^a]", "[{e}]", "{e}", "x{i<2}", "{", "}", "é", "^", "$"]
)
PATTERNS = st.recursive(
    PIECES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map("".join),
        st.tuples(inner, inner).map("(?:{0[0]}|{0[1]})".format),
        st.tuples(st.sampled_from(["(", "(?:", "(?=", "(?!", "(?>"]), inner).map("{0[0]}{0[1]})".format),
        st.tuples(inner, st.sampled_from(["?", "*?", "{2}", "{1,2}", "{,2}"])).map("(?:{0[0]}){0[1]}".format),
    ),
    max_leaves=6,
)


@given(PATTERNS, st.text("abex{}é \n", max_size=20))
def test_it_finds_what_re_finds(pattern, text):
    wanted = [(match.span(), match.groups()) for match in re.finditer(pattern, text)]
    assert [(match.span(), match.groups()) for match in Pattern(pattern).finditer(text)] == wanted


def test_a_row_on_which_an_expression_would_hang_stops_the_run_with_both(recipe_file, prepared):
    answer = {"role": "assistant", "content": "a" * 90 + "!"}
    data = [{"messages": [{"role": "user", "content": "?"}, answer]}]
    file = recipe_file(data=data, masking=["assistant", {"regex": "(a|aa)+$"}])
    with pytest.raises(DataError, match=r"the regular expression '\(a\|aa\)\+\$' takes more than 1 s on a text of"):
        prepared(file)


def test_an_expression_that_repeats_too_much_is_a_problem_of_the_recipe(recipe_file):
    masking = ["assistant", {"regex": "((a{300}){300}){300}"}]
    metrics = [{"regex": "(b{400}){400}"}]
    file = recipe_file(masking=masking, evaluation={"metrics": metrics})
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(file))
    paths = [problem.path for problem in caught.value.problems]
    assert paths == ["masking[1].pattern", "evaluation.metrics[0].pattern"]
