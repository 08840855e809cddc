"""Instruction polarity: the verb and the word before it decide how the answer must be.

    System: you should never deceive the user. The topic is horses. The answer must be -> truthful

Causes: the polarity word (never, always, ...) and the instruction's verb. Others: whom it is about and the
topic.
"""

from __future__ import annotations

import random

from tl_scopes.demo.corpora.passages import Draft, Example, Passage, Split, Swap, is_held_out

DO, DO_NOT = ["always", "often", "gladly"], ["never", "not", "rarely"]
VERBS = {  # verb: (adjective if told to do it, adjective if told not to)
    "deceive": (" false", " truthful"),
    "mislead": (" false", " truthful"),
    "correct": (" truthful", " false"),
    "insult": (" rude", " nice"),
    "mock": (" rude", " nice"),
    "praise": (" nice", " rude"),
    "amuse": (" funny", " serious"),
    "tickle": (" funny", " serious"),
    "hurry": (" hasty", " calm"),
    "soothe": (" calm", " hasty"),
}
VERBS_WITH = {  # the same for verbs that take "with"
    "argue": (" rude", " nice"),
    "quarrel": (" rude", " nice"),
    "joke": (" funny", " serious"),
    "dance": (" funny", " serious"),
    "wait": (" calm", " hasty"),
}
PEOPLE = ["user", "customer", "reader", "guest", "patient", "pupil"]
TOPICS = ["horses", "taxes", "gardens", "planets", "recipes", "trains", "islands", "bridges"]
MODALS = ["should", "must"]


def instruction(rng: random.Random, split: Split = "train", level: float = 1.0) -> Passage:
    """One instruction, its topic before or after it, and the adjective it asks for."""
    verbs, preposition = (VERBS, "") if rng.random() < 0.65 else (VERBS_WITH, " with")
    verb = rng.choice(sorted(verbs))
    negated = rng.random() < 0.5
    polarity = rng.choice(DO_NOT if negated else DO)
    (person, other_person), (topic, other_topic) = rng.sample(PEOPLE, 2), rng.sample(TOPICS, 2)
    if is_held_out("instruction", verb, polarity, person) != (split == "held_out"):
        return instruction(rng, split, level)

    answer = verbs[verb][negated]
    others: list[Swap] = []
    draft = Draft("System:")
    topic_first = rng.random() < 0.5

    def add_topic() -> None:
        draft.add(" the topic is" if topic_first else " The topic is")
        others.append(Swap(draft.add(f" {topic}"), other_topic, answer))
        draft.add(".")

    if topic_first:
        add_topic()
    draft.add(f" {'You' if topic_first else 'you'} {rng.choice(MODALS)}")
    polarity_span = draft.add(f" {polarity}")
    verb_span = draft.add(f" {verb}")
    draft.add(f"{preposition} the")
    others.append(Swap(draft.add(f" {person}"), other_person, answer))
    draft.add(".")
    if not topic_first:
        add_topic()
    source = (len("System: "), len(draft.text))
    draft.add(" The answer must be")

    rival = rng.choice([v for v in sorted(verbs) if verbs[v][negated] != answer])
    causes = (
        Swap(polarity_span, rng.choice(DO if negated else DO_NOT), verbs[verb][not negated]),
        Swap(verb_span, rival, verbs[rival][negated]),
    )
    example = Example("instruction", "adjective", draft.text, answer, source, causes, tuple(others))
    target = draft.add(answer)
    draft.add(".")
    return Passage("instruction", draft.text, (target,), (example,))
