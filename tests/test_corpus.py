"""The toy corpus: stable, disjoint between splits, right in what it says and computes."""

import doctest
import itertools
import re
import subprocess
import sys

import pytest

from fusion_core import corpus
from fusion_core.corpus import function_kinds, problems, stories
from fusion_core.corpus.__main__ import main
from fusion_core.corpus.names import Draw

EVERY = (*corpus.DOMAINS, "mixed")
EQUATION = re.compile(r"Step \d+: (.+ = .+)")
ORDER = re.compile(r"Step 1: (\w+(?: > \w+)+)")


def first(domain: str, split: str, n: int, seed: int = 0) -> list[str]:
    return list(itertools.islice(corpus.documents(domain, split, seed=seed), n))


def value(expression: str) -> float:
    """Evaluates `a * b / c + d` by hand, left to right within each precedence."""
    total = 0.0
    for sign, term in re.findall(r"(^|[+-]) ?([\d */]+)", expression):
        product = 1.0
        for operator, factor in re.findall(r"(^|[*/]) ?(\d+)", term.strip()):
            product = product / int(factor) if operator == "/" else product * int(factor)
        total += -product if sign == "-" else product
    return total


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text)


def run(code: str) -> dict:
    """Executes a document of our own making, doctests included; asserts in it raise."""
    space: dict = {}
    exec(compile(code, "document", "exec"), space)
    functions = [
        thing for thing in space.values() if getattr(thing, "__doc__", None) and callable(thing)
    ]
    runner = doctest.DocTestRunner(verbose=False)
    for thing in functions:
        for example in doctest.DocTestFinder().find(
            thing, thing.__name__, globs=space, module=False
        ):
            assert runner.run(example, out=lambda text: None).failed == 0
    assert functions
    return space


@pytest.mark.parametrize("domain", EVERY)
@pytest.mark.parametrize("split", corpus.SPLITS)
def test_documents_are_stable_plain_and_of_the_promised_size(domain, split):
    documents = first(domain, split, 200)
    assert documents == first(domain, split, 200)
    assert documents != first(domain, split, 200, seed=1)
    assert len(set(documents)) == len(documents)
    for text in documents:
        assert 150 <= len(text.encode()) <= 720
        assert text == text.strip()
        assert corpus.SEPARATOR not in text


def test_documents_do_not_depend_on_the_process():
    code = (
        "import hashlib, itertools; from fusion_core import corpus; "
        "print(hashlib.sha256('|'.join(t for d in (*corpus.DOMAINS, 'mixed') for t in "
        "itertools.islice(corpus.documents(d, 'test'), 50)).encode()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": salt, "PYTHONPATH": ":".join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for salt in ("1", "2")
    }
    assert len(seen) == 1


def test_text_is_the_longest_beginning_of_the_stream_that_fits():
    taken = corpus.text("mixed", "train", 5_000, seed=3)
    size = sum(len(text.encode()) for text in taken)
    stream = first("mixed", "train", len(taken) + 1, seed=3)
    assert taken == stream[:-1]
    assert size <= 5_000 < size + len(stream[-1].encode())
    assert corpus.text("code", "test", 10) == []


@pytest.mark.parametrize("kind", corpus.ENTITY_KINDS)
def test_no_name_belongs_to_two_splits(kind):
    lists = [corpus.entities(kind, split) for split in corpus.SPLITS]
    for names in lists:
        assert len(names) >= 10
        assert len(set(names)) == len(names)
    for one, other in itertools.combinations(lists, 2):
        assert not set(one) & set(other)


@pytest.mark.parametrize("domain", EVERY)
def test_no_split_mentions_a_name_of_another_or_shares_a_window_with_one(domain):
    names = {
        split: {name for kind in corpus.ENTITY_KINDS for name in corpus.entities(kind, split)}
        for split in corpus.SPLITS
    }
    windows: dict[str, set[str]] = {}
    for split in corpus.SPLITS:
        foreign = set().union(*(names[other] for other in corpus.SPLITS if other != split))
        windows[split] = set()
        for text in first(domain, split, 400):
            said = words(text)
            assert not foreign & set(said)
            for i in range(len(said) - 7):
                if names[split] & set(said[i : i + 8]):
                    windows[split].add(" ".join(said[i : i + 8]))
        assert len(windows[split]) > 1000
    for one, other in itertools.combinations(windows.values(), 2):
        assert not one & other


def test_no_pair_of_numbers_belongs_to_two_splits():
    draws = {split: Draw("pairs", split) for split in corpus.SPLITS}
    pairs = {
        split: {draw.pair((2, 9), (3, 19)) for _ in range(300)} for split, draw in draws.items()
    }
    for one, other in itertools.combinations(pairs.values(), 2):
        assert not one & other
    assert {a for a, _ in pairs["test"]} <= {a for a, _ in pairs["train"]}


def test_each_domain_has_many_forms():
    assert len(problems.KINDS) >= 10
    assert len(stories.FORMS) >= 10
    assert len(function_kinds.KINDS) >= 10


@pytest.mark.parametrize("domain", ["reasoning", "mixed"])
@pytest.mark.parametrize("split", corpus.SPLITS)
def test_every_line_of_work_is_right_and_leads_to_the_answer(domain, split):
    checked = 0
    for text in first(domain, split, 300):
        for line in EQUATION.findall(text):
            sides = [value(side) for side in line.split(" = ")]
            assert len(set(sides)) == 1, line
            checked += 1
        for last, answer in re.findall(r"Step \d+: ([^\n]+)\n *Answer: (\d+)", text):
            assert last.endswith(f"= {answer}")
    assert checked > 100


@pytest.mark.parametrize("split", corpus.SPLITS)
def test_orders_follow_from_their_clues(split):
    checked = 0
    for text in first("reasoning", split, 300):
        for part in text.split("\n\n"):
            if not (found := ORDER.search(part)):
                continue
            chain = found[1].split(" > ")
            clues = re.findall(r"(\w+) is (?:\w+ than|ahead of) (\w+)\.", part)
            assert set(clues) == set(itertools.pairwise(chain))
            top = re.search(r"Who is (tallest|oldest|fastest|heaviest|first)\?", part)
            assert part.endswith(f"Answer: {chain[0] if top else chain[-1]}")
            checked += 1
    assert checked > 5


@pytest.mark.parametrize("split", corpus.SPLITS)
def test_code_runs_and_its_examples_hold(split):
    for text in first("code", split, 200):
        run(text)


def test_code_inside_mixed_documents_runs_too():
    found = [text[text.index("def ") :] for text in first("mixed", "test", 200) if "def " in text]
    assert len(found) > 50
    for code in found:
        run(code)


def test_mixed_documents_mix():
    marks = {"reasoning": "Problem: ", "code": "def "}
    for text in first("mixed", "validation", 100):
        present = [mark for mark in marks.values() if mark in text]
        names = {
            name
            for kind in ("villager", "pet", "town")
            for name in corpus.entities(kind, "validation")
        }
        assert len(present) + bool(names & set(words(text))) >= 2


@pytest.mark.parametrize("domain", corpus.DOMAINS)
def test_text_beyond_ascii_is_there_but_rare(domain):
    everything = "".join(first(domain, "train", 2000))
    beyond = sum(1 for letter in everything if ord(letter) > 127)
    floor = 0 if domain == "code" else 20
    assert floor <= beyond <= 0.02 * len(everything)


@pytest.mark.parametrize("domain", corpus.DOMAINS)
@pytest.mark.parametrize("split", corpus.SPLITS)
def test_questions_are_well_formed_stable_and_spread(domain, split):
    asked = corpus.questions(domain, split, 100)
    assert asked == corpus.questions(domain, split, 100)
    assert {question.answer for question in asked} == {0, 1, 2, 3}
    for question in asked:
        assert len(question.choices) == 4
        assert all(choice[0] == " " and choice[1] != " " for choice in question.choices)
        assert question.prompt == question.prompt.rstrip()


def test_arithmetic_questions_have_the_right_answer():
    for question in corpus.questions("reasoning", "test", 200):
        right = question.choices[question.answer]
        if question.prompt.endswith("="):
            last = question.prompt.rsplit(": ", 1)[1].removesuffix(" =")
            assert value(last.split(" = ")[-1]) == int(right)
        else:
            assert (
                right.strip()
                in ORDER.search(question.prompt)[1].split(" > ")[
                    :: len(ORDER.search(question.prompt)[1].split(" > ")) - 1
                ]
            )


def test_commonsense_questions_agree_with_the_stories():
    told = "\n".join(first("commonsense", "train", 4000))
    known = wrong = 0
    for question in corpus.questions("commonsense", "test", 60):
        ask = question.prompt.rsplit(". ", 1)[1]
        claims = [f"{ask}{choice}" in told for choice in question.choices]
        known += claims[question.answer]
        wrong += sum(claims) - claims[question.answer]
    assert known >= 50
    assert wrong == 0


def test_code_questions_have_the_right_answer():
    for question in corpus.questions("code", "test", 100):
        body, call = question.prompt.rsplit("\nassert ", 1)
        space = run(body)
        result = eval(call.removesuffix(" =="), space)
        assert [eval(choice.strip()) == result for choice in question.choices].index(True) == (
            question.answer
        )
        assert sum(eval(choice.strip()) == result for choice in question.choices) == 1


@pytest.mark.parametrize(
    ("domain", "split"), [("poetry", "train"), ("code", "dev"), ("../code", "test")]
)
def test_unknown_domains_and_splits_are_refused(domain, split):
    with pytest.raises(ValueError, match="choose from"):
        corpus.documents(domain, split)
    with pytest.raises(ValueError, match="choose from"):
        corpus.questions(domain, split, 1)


def test_a_question_checks_itself():
    with pytest.raises(ValueError, match="differ"):
        corpus.Question("1 + 1 =", (" 2", " 2"), 0)
    with pytest.raises(ValueError, match="index"):
        corpus.Question("1 + 1 =", (" 2", " 3"), 2)


def test_the_command_writes_a_document_file(tmp_path):
    out = tmp_path / "mixed.txt"
    main(["--domain", "mixed", "--split", "test", "--bytes", "4000", "--out", str(out)])
    parts = out.read_bytes().decode().removesuffix("\n").split(f"\n{corpus.SEPARATOR}\n")
    assert parts == corpus.text("mixed", "test", 4000)
