"""Documents that mix the domains, as real text does, so that no source is right from end to end."""

import textwrap
from collections.abc import Callable

from fusion_core.corpus import functions, problems, stories
from fusion_core.corpus.names import Draw


def _first_sentences(text: str, limit: int) -> str:
    """Cuts a story after the last whole sentence within the limit."""
    kept = ""
    for sentence in text.replace("\n\n", " ").split(". "):
        if kept and len(kept) + len(sentence) > limit:
            break
        kept += f"{sentence.rstrip('.')}. "
    kept = kept.strip().replace('".', '"').replace("?.", "?").replace("!.", "!")
    return kept + '"' if kept.count('"') % 2 else kept


def _story_then_problem(draw: Draw) -> str:
    item = problems.problem(draw)
    opening = _first_sentences(stories.story(draw), 200)
    link = draw.one(["On the way to school, there was a problem to solve.", "Then came a sum."])
    return f"{opening} {link}\nProblem: {item.statement}\n{problems.solution(item)}"


def _problem_then_story(draw: Draw) -> str:
    item = problems.problem(draw)
    return f"Problem: {item.statement}\n{problems.solution(item)}\n\n{stories.story(draw)}"


def _function_with_story(draw: Draw) -> str:
    words = _first_sentences(stories.story(draw), 200)
    intro = textwrap.indent(textwrap.fill(words, 84), "    ") + "\n\n"
    return functions.source(functions.function(draw), intro)


def _function_with_problem(draw: Draw) -> str:
    item = problems.problem(draw)
    lines = [f"Problem: {item.statement}", *problems.solution(item).splitlines()]
    intro = textwrap.indent("\n".join(lines), "    ") + "\n\n"
    return functions.source(functions.function(draw), intro)


def _story_then_function(draw: Draw) -> str:
    words = _first_sentences(stories.story(draw), 220)
    who = draw.name("villager")
    code = functions.document(draw)
    return f"{words} That night {who} wrote a little program.\n\n{code}"


def _solved_by_function(draw: Draw) -> str:
    item = problems.problem(draw)
    name = f"solve_{draw.name('identifier')}"
    about = f"Problem: {item.statement}"
    work = "".join(f"    # Step {i}: {line}\n" for i, line in enumerate(item.work, 1))
    value = item.answer if item.answer.isdigit() else f'"{item.answer}"'
    answer = item.work[-1].split(" = ")[0] if item.answer.isdigit() else value
    check = f"assert {name}() == {value}"
    return f'def {name}():\n    """{about}"""\n{work}    return {answer}\n\n{check}'


FORMS: tuple[Callable[[Draw], str], ...] = (
    _story_then_problem,
    _problem_then_story,
    _function_with_story,
    _function_with_problem,
    _story_then_function,
    _solved_by_function,
)


def document(draw: Draw) -> str:
    """Writes one document in which two or three domains meet."""
    return draw.one(FORMS)(draw)
