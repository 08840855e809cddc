"""Invariant: what an example of a task says of itself is so, by its text alone: places, causes, counterparts, other words.

Where a cause carries the answer word for word (copied answers), an independent reading of the prompt solves each prompt and
each of its swaps; where the answer is known by a table (translation, pronouns, verbs), the table is asked.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from dataclasses import asdict
from itertools import combinations

import pytest

import tl_scopes as tls
from tl_scopes import tasks
from tl_scopes.tasks import agreement, chains, copying, coreference, few_shot, retrieval, translation
from tl_scopes.tasks.text import N_OTHERS, Text

pytestmark = pytest.mark.one_lens
NAMES = sorted(tasks.TASKS)
N = 20


def drawn(name: str) -> list[tasks.Example]:
    return [
        example
        for length in {*tasks.TASKS[name].lengths, tasks.TASKS[name].least, tasks.TASKS[name].most}
        for example in tasks.examples(name, N, seed=3, length=length)
    ]


def at(example: tasks.Example, span: tuple[int, int]) -> str:
    return example.prompt[slice(*span)]


def test_the_tasks_are_those_that_are_promised() -> None:
    promised = (
        "copying retrieval chain_2 chain_3 agreement indirect_object coreference translation few_shot hint injection"
    )
    assert set(promised.split(" ")) == set(NAMES)
    assert all(name == task.name and task.about and task.unit for name, task in tasks.TASKS.items())


@pytest.mark.parametrize("name", NAMES)
def test_places_are_whole_words_that_do_not_overlap(name: str) -> None:
    for example in drawn(name):
        spans = [swap.span for swap in (*example.causes, *example.others)]
        for start, end in spans:
            word = at(example, (start, end))
            assert word == word.strip() != ""
            around = example.prompt[max(0, start - 1) : start] + example.prompt[end : end + 1]
            assert not re.search(r"\w", around), (word, around)
        assert all(b <= c or d <= a for (a, b), (c, d) in combinations(spans, 2))
        start, end = example.source
        assert 0 <= start < end <= len(example.prompt)
        assert any(start <= swap.span[0] and swap.span[1] <= end for swap in example.causes)


@pytest.mark.parametrize("name", NAMES)
def test_a_cause_decides_another_answer_and_another_word_the_same(name: str) -> None:
    for example in drawn(name):
        assert example.corpus == name
        assert re.fullmatch(r" \w+", example.answer)
        assert example.causes
        assert len(example.others) == N_OTHERS == 3
        for swap in example.causes:
            assert re.fullmatch(r" \w+", swap.answer)
            assert swap.answer != example.answer
        for swap in example.others:
            assert swap.answer == example.answer
            assert swap.replacement not in (example.answer.strip(), *(cause.answer.strip() for cause in example.causes))
        for swap in (*example.causes, *example.others):
            assert swap.replacement != at(example, swap.span)
            swapped = example.swapped(swap)
            assert swapped != example.prompt
            assert swapped[: swap.span[0]] == example.prompt[: swap.span[0]]
            assert swapped.endswith(example.prompt[swap.span[1] :])
        assert example.counterpart == example.swapped(example.causes[0])


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_different_and_the_same_for_the_same_seed(name: str) -> None:
    before = random.getstate()
    found = tasks.examples(name, N, 5)
    assert random.getstate() == before
    assert len({e.prompt for e in found}) == N
    assert found == tasks.examples(name, N, 5)
    assert found[:7] == tasks.examples(name, 7, 5)
    assert not {e.prompt for e in found} & {e.prompt for e in tasks.examples(name, N, 6)}


def test_examples_are_the_same_on_every_machine() -> None:
    found = [asdict(e) for name in NAMES for e in tasks.examples(name, 3)]
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    assert digest.startswith("d7482cb344fc4a8e"), (
        f"the examples have changed, and so have figures on them: {digest[:16]}"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_task_has_several_surface_forms_and_many_words(name: str) -> None:
    found = tasks.examples(name, 200, 1)
    assert {e.slot for e in found} == set(tasks.TASKS[name].forms)
    assert len(tasks.TASKS[name].forms) >= 3
    words = {at(e, s.span) for e in found for s in e.causes}
    assert len(words) >= 20
    if name not in ("agreement", "coreference"):
        assert len({e.answer for e in found}) >= 20


@pytest.mark.parametrize("name", NAMES)
def test_the_length_sets_the_distance(name: str) -> None:
    """Each unit has a fixed range of words, so a longer example is farther by so much."""
    task = tasks.TASKS[name]
    means = []
    for length in task.lengths:
        found = tasks.examples(name, N, 2, length=length)
        assert all(e.distance == len(e.prompt[e.causes[0].span[1] :].split()) for e in found)
        means.append(sum(e.distance for e in found) / N)
    assert means == sorted(set(means)), means
    taken = tasks.examples(name, len(task.lengths), 2)
    assert taken[-1].distance > taken[0].distance


@pytest.mark.parametrize("name", NAMES)
def test_lengths_without_words_are_refused(name: str) -> None:
    task = tasks.TASKS[name]
    for length in (task.least - 1, task.most + 1):
        with pytest.raises(
            ValueError, match=rf"examples\(length={length}\): '{name}' has {task.least} to {task.most} "
        ):
            tasks.examples(name, 1, length=length)


def test_what_is_no_task_or_number_is_refused() -> None:
    with pytest.raises(ValueError, match=r"examples\(name='copy'\): unknown; the tasks are \['copying', 'retrieval'"):
        tasks.examples("copy", 1)
    with pytest.raises(ValueError, match=r"examples\(n=0\)"):
        tasks.examples("copying", 0)
    assert tls.tasks is tasks


def test_more_examples_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one = tasks.examples("hint", 1)[0]
    monkeypatch.setitem(
        tasks.TASKS, "hint", tasks.Task("hint", "", lambda rng, length: one, (0,), "", least=0, most=0, forms=())
    )
    with pytest.raises(ValueError, match=r"\(n=2\): 'hint' has about 1 different examples of that length"):
        tasks.examples("hint", 2)


def test_a_word_that_stands_twice_in_a_template_is_no_swap() -> None:
    with pytest.raises(ValueError, match="'key' twice"):
        Text(random.Random(0)).write("{key} and {key}", key=("a", "b"))


# -- each task, solved by another reading of its prompt ---------------------------------------------


def copied(prompt: str, form: str) -> str:
    """The word after the first place where the last words of the list stand."""
    words = re.findall(r"[a-z]+", prompt.partition(":")[2])
    words = [w for w in words if w != "and"] if form == "and" else words
    tail = words[-copying.STRETCH :]
    (place,) = [i for i in range(len(words) - len(tail)) if words[i : i + len(tail)] == tail]
    return words[place + len(tail)]


def retrieved(prompt: str, form: str) -> str:
    """The value of the fact with the question's key."""
    pattern = {
        "places": r"The (\w+) is in the (\w+)\.",
        "foods": r"(?<!short, )\b(\w+) likes (\w+)\.",
        "tickets": r"The ticket of (\w+) is (\w+)\.",
        "table": r"(\w+) = (\w+);",
    }[form]
    asked = {
        "places": r"the (\w+) is in the$",
        "foods": r"(\w+) likes$",
        "tickets": r"of (\w+) is$",
        "table": r"(\w+) =$",
    }
    return dict(reversed(re.findall(pattern, prompt)))[re.search(asked[form], prompt)[1]]


def followed(prompt: str, form: str) -> str:
    """The value at the end of the chain of names."""
    facts = re.findall(r"(?:Let )?(\w+) (?:chose|drew|be|equal) (?:a )?(the same as )?(\w+)\.", prompt)
    known = {name: word for name, _, word in facts}
    name = re.search(r"(?:So (\w+) \w+(?: the colour| a)?|The value of (\w+) is)$", prompt)
    word = name[1] or name[2]
    while word in known:
        word = known[word]
    return word


def agreed(prompt: str, form: str) -> str:
    subject = re.findall(r"The (\w+) \w+ the", prompt)[-1]
    assert subject.removesuffix("s") in agreement.SUBJECTS
    return agreement.FORMS[form][subject.endswith("s")]


def received(prompt: str, form: str) -> str:
    one, two = re.search(r"(\w+) and (\w+) (?:met|went|talked|worked)", prompt).groups()
    giver = re.search(r"(\w+) (?:gave|handed|sent|offered) a \w+ to$", prompt)[1]
    assert giver in (one, two)
    return two if giver == one else one


def referred(prompt: str, form: str) -> str:
    told, *_ = re.split(r"{\w+}", coreference.FORMS[form][0])
    pattern = r"My (\w+) \w+ the" if form == "kin" else rf"{told}(\w+) (?:{'|'.join(coreference.DID)}) the"
    person = re.findall(pattern, prompt)[-1]
    women, men = coreference.FORMS[form][2]
    assert (person in women) != (person in men)
    return "she" if person in women else "he"


def translated(prompt: str, form: str) -> str:
    word = re.findall(r"(?:English: |English \| |English word )(\w+)", prompt)[-1]
    (language,) = {name for name in translation.LANGUAGES if name in prompt}
    return translation.WORDS[word].split()[translation.LANGUAGES.index(language)]


def mapped(prompt: str, form: str) -> str:
    """The label of the example of the same kind; every kind has one label."""
    word = r"((?:\w+ )?\w+)"
    pattern, asked = {
        "arrows": (rf"{word} -> (\w+); ", rf"{word} ->$"),
        "lines": (rf"Input: {word}\nOutput: (\w+)\n", rf"Input: {word}\nOutput:$"),
        "groups": (rf"The {word} is in group (\w+)\. ", rf"The {word} is in group$"),
    }[form.rpartition(" ")[2]]

    def kind(words: str) -> str:
        last = words.split()[-1]
        return next(kind for kind, members in few_shot.WORDS.items() if last in members)

    labels: dict[str, set[str]] = {}
    for words, label in re.findall(pattern, prompt):
        labels.setdefault(kind(words), set()).add(label)
    (label,) = labels[kind(re.search(asked, prompt)[1])]
    return label


def hinted(prompt: str, form: str) -> str:
    return re.findall(r"(?:it is|that it is a|says) (\w+)\.", prompt)[-1]


def told(prompt: str, form: str) -> str:
    return re.findall(r"(?:with the word|output is|answer|only say) (\w+)\.", prompt)[-1]


SOLVERS = {
    "copying": copied,
    "retrieval": retrieved,
    "chain_2": followed,
    "chain_3": followed,
    "agreement": agreed,
    "indirect_object": received,
    "coreference": referred,
    "translation": translated,
    "few_shot": mapped,
    "hint": hinted,
    "injection": told,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_of_the_prompt_and_of_each_swap_finds_the_answer(name: str) -> None:
    for example in drawn(name):
        assert SOLVERS[name](example.prompt, example.slot) == example.answer.strip(), example.prompt
        for swap in (*example.causes, *example.others):
            assert SOLVERS[name](example.swapped(swap), example.slot) == swap.answer.strip(), (example, swap)


@pytest.mark.parametrize("hops", [2, 3])
def test_every_link_of_a_chain_is_a_cause(hops: int) -> None:
    for example in tasks.examples(f"chain_{hops}", N):
        assert len(example.causes) == hops + 1
        assert at(example, example.causes[0].span) == example.answer.strip()


def test_the_nouns_between_subject_and_verb_have_the_other_number() -> None:
    for example in tasks.examples("agreement", N):
        subject, *between = re.findall(r"\b[Tt]he (\w+)", example.prompt[example.source[0] :])
        assert between
        assert all(noun.endswith("s") != subject.endswith("s") for noun in between)


def test_words_of_a_class_are_different_and_many() -> None:
    classes = [copying.WORDS, retrieval.OBJECTS, retrieval.ROOMS, retrieval.NAMES, retrieval.FOODS, retrieval.COLOURS]
    classes += [chains.ANIMALS, chains.LETTERS, agreement.SUBJECTS, agreement.ATTRACTORS]
    classes += [coreference.WOMEN, coreference.MEN, list(translation.WORDS), few_shot.LABELS, *few_shot.WORDS.values()]
    for words in classes:
        assert len(words) == len(set(words)) >= 20
