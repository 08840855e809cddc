"""Each care that a trap asks for is held by that trap's own test.

Invariant: with one care removed from the source of the package, the trap's test in `test_traps.py` fails; untouched,
it passes. A mutation whose test still passes is a hole in the tests, and an error here.

A mutation replaces text inside one function: it is compiled anew in its own module and put wherever the package
holds the original, for the length of the test. The text must occur exactly once, so a mutation cannot rot into one
that changes nothing. A failure is a failed assertion or a refusal that did not come; a mutation may name in addition
the error that the lost care ends in, and nothing else counts.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import textwrap
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import test_traps as traps
import torch

import tl_scopes

pytestmark = pytest.mark.usefixtures("unchecked")


@dataclass(frozen=True)
class Mutation:
    """One care removed: `edits` (old text, new text) in the source of `where`, "module:function" or with a class, and
    in `further` functions where the care is spread over several."""

    trap: Callable[[str], None]
    where: str
    edits: tuple[tuple[str, str], ...]
    also: type[Exception] | tuple[type[Exception], ...] = ()
    kinds: tuple[str, ...] = ("hooked", "bridge")
    further: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = ()


MUTATIONS: dict[str, Mutation] = {
    "01 constant norm never seen": Mutation(
        traps.test_trap_01_native_unit_gain_has_a_fisher_scope_but_no_temperature_scope,
        "model.state:ModelState.constant_norm",
        (("return spread < 1e-4 and flat_bias", "return False"),),
    ),
    "01 folded temperature answered": Mutation(
        traps.test_trap_01_folded_norm_is_refused,
        "model.state:require_temperature",
        (("if not state.constant_norm:", "if True:"),),
    ),
    "01 folded fisher answered": Mutation(
        traps.test_trap_01_folded_norm_is_refused,
        "model.state:require_fisher",
        (("if state.folded_norm:", "if False:"),),
    ),
    "01 every constant norm taken for a folded one": Mutation(
        traps.test_trap_01_native_unit_gain_has_a_fisher_scope_but_no_temperature_scope,
        "model.state:require_fisher",
        (("if state.folded_norm:", "if state.constant_norm:"),),
        also=ValueError,
    ),
    "01 centring not said": Mutation(
        traps.test_trap_01_centred_unembedding_is_said_in_the_result,
        "directions.logits:Semantic.rows",
        (("elif state.centred_unembedding:", "elif False:"),),
    ),
    "01 state of the model kept for ever": Mutation(
        traps.test_trap_01_folding_after_the_first_call_is_noticed,
        "model.state:model_state",
        (("if held is None or not all(map(_same, held[0], now)):", "if held is None:"),),
    ),
    "02 logits at every position": Mutation(
        traps.test_trap_02_logits_exist_at_the_explained_positions_only,
        "model.recorder:Recorder.predictions",
        (
            ("logits[0].detach()", "logits[self.rows, self.columns].detach()"),
            ('slope = _read_out_slope(self.picked["raw_logits"], logits)', "slope = None"),
        ),
        further=(("model.recorder:Recorder.read_out", (("return y[None] if", "return activation if"),)),),
    ),
    "03 parameters not frozen": Mutation(
        traps.test_trap_03_parameters_are_frozen_during_the_pass_and_only_then,
        "model.hooks:differentiable",
        (("parameter.requires_grad_(False)", "pass"),),
    ),
    "03 parameters not restored": Mutation(
        traps.test_trap_03_parameters_are_frozen_during_the_pass_and_only_then,
        "model.hooks:differentiable",
        (("stack.callback(lambda: [p.requires_grad_(True) for p in trainable])", "pass"),),
    ),
    "03 every parameter thawed": Mutation(
        traps.test_trap_03_parameters_are_frozen_during_the_pass_and_only_then,
        "model.hooks:differentiable",
        (("for p in weights(model) if p.requires_grad]", "for p in weights(model)]"),),
    ),
    "03 hooks left behind on error": Mutation(
        traps.test_trap_03_an_error_leaves_the_model_as_it_was,
        "model.hooks:attached",
        (("    finally:\n", "    except ZeroDivisionError:\n"),),
    ),
    "03 parameters not restored on error": Mutation(
        traps.test_trap_03_an_error_leaves_the_model_as_it_was,
        "model.hooks:differentiable",
        (
            ("stack.callback(lambda: [p.requires_grad_(True) for p in trainable])", "pass"),
            ("        yield", "        yield\n        [p.requires_grad_(True) for p in trainable]"),
        ),
    ),
    "03 grad mode not switched on": Mutation(
        traps.test_trap_03_scopes_work_where_gradients_are_switched_off,
        "model.hooks:differentiable",
        (("stack.enter_context(torch.enable_grad())", "pass"),),
        also=(ValueError, RuntimeError),
    ),
    "03 inference mode not left": Mutation(
        traps.test_trap_03_scopes_work_where_gradients_are_switched_off,
        "model.lock:plain_modes",
        (("stack.enter_context(torch.inference_mode(False))", "pass"),),
        also=(ValueError, RuntimeError),
    ),
    "04 dropout answered": Mutation(
        traps.test_trap_04_active_dropout_is_refused_and_training_mode_without_it_is_not,
        "model.state:refuse_unusable",
        (("        if active:\n", "        if False:\n"),),
        kinds=("bridge",),
    ),
    "04 all training refused": Mutation(
        traps.test_trap_04_active_dropout_is_refused_and_training_mode_without_it_is_not,
        "model.state:refuse_unusable",
        (("        if active:\n", "        if True:\n"),),
        also=ValueError,
    ),
    "05 first piece of a target taken": Mutation(
        traps.test_trap_05_a_target_that_is_not_one_token_is_refused_with_its_pieces,
        "model.targets:_named",
        (("if len(ids) == 1 and", "if ids and"),),
    ),
    "05 unknown token taken": Mutation(
        traps.test_trap_05_a_target_that_is_not_one_token_is_refused_with_its_pieces,
        "model.targets:_named",
        (("and ids[0] != unknown", ""),),
    ),
    "05 vocabulary not checked": Mutation(
        traps.test_trap_05_a_target_that_is_not_one_token_is_refused_with_its_pieces,
        "model.targets:_target_id",
        (("if not 0 <= target < model.W_U.shape[1]:", "if False:"),),
        also=IndexError,
    ),
    "05 leading space stripped": Mutation(
        traps.test_trap_05_the_leading_space_is_part_of_a_target,
        "model.targets:_named",
        (("pieces(model.tokenizer, text)", "pieces(model.tokenizer, text.strip())"),),
        also=ValueError,
    ),
    "05 chosen target not said": Mutation(
        traps.test_trap_05_no_target_is_the_top_prediction_and_the_result_says_so,
        "directions.base:target_note",
        (('("Where no target was given, the model\'s own top prediction is explained.",)', "()"),),
    ),
    "05 id 0 taken for None": Mutation(
        traps.test_trap_05_token_id_0_is_a_target_like_any_other,
        "directions.base:chosen_target",
        (("if target is None else target", "if not target else target"),),
    ),
    "06 BOS dropped from the scores": Mutation(
        traps.test_trap_06_bos_keeps_its_score_and_views_may_leave_it_out,
        "kernel.explain:_Explanation._measured",
        (
            (
                "scored = row.score(norms)",
                "scored = row.score(norms.index_fill(1, torch.tensor(list(prompt.special)), 0))",
            ),
        ),
    ),
    "06 leaving out deletes the score": Mutation(
        traps.test_trap_06_bos_keeps_its_score_and_views_may_leave_it_out,
        "results.attribution:Attribution.without",
        (
            (
                "hidden=self.hidden | chosen)",
                "hidden=self.hidden | chosen, scores=self.scores.new_tensor([0.0 if p in chosen else s "
                "for p, s in enumerate(self.scores.tolist())]))",
            ),
        ),
    ),
    "06 left out tokens ranked": Mutation(
        traps.test_trap_06_bos_keeps_its_score_and_views_may_leave_it_out,
        "results.attribution:Attribution.shown",
        ((" if p not in self.hidden", ""),),
    ),
    "07 padding attended to": Mutation(
        # right-padded, a causal model needs no mask; left-padded without one it is wrong
        traps.test_trap_07_prompts_of_unequal_length_score_as_they_do_alone,
        "kernel.explain:_Explanation.of",
        (
            (
                "pad_right(texts.all)",
                "torch.stack([t.roll(len(t) - len(p.tokens)) for t, p in zip(pad_right(texts.all), texts.all)])",
            ),
            (
                "texts.columns",
                "texts.columns + torch.tensor([max(len(q.tokens) for q in texts.all) - len(p.tokens) for p in texts.all])",
            ),
        ),
        also=ValueError,  # influence of padding is refused
        further=(
            (
                "kernel.pulled_rows:Backwards.rows",
                ((" text, : len(prompt.tokens)]", " text, -len(prompt.tokens) :]"),),
            ),
        ),
    ),
    "07 scores on padding": Mutation(
        traps.test_trap_07_prompts_of_unequal_length_score_as_they_do_alone,
        "kernel.pulled_rows:Backwards.rows",
        ((" text, : len(prompt.tokens)]", " text]"),),
        also=(ValueError, RuntimeError),
    ),
    "07 last column read": Mutation(
        traps.test_trap_07_lists_of_strings_are_padded_as_lists_of_tokens,
        "kernel.explain:_Explanation.of",
        (("texts.columns", "torch.full_like(texts.columns, pad_right(texts.all).shape[1] - 1)"),),
        also=ValueError,
    ),
    "07 results in the order of length": Mutation(
        traps.test_trap_07_prompts_of_unequal_length_score_as_they_do_alone,
        "kernel.explain:explain_inside",
        (("return [results[i] for i in range(len(prompts))]", "return list(results.values())"),),
    ),
    "07 another prompt's target": Mutation(
        traps.test_trap_07_prompts_of_unequal_length_score_as_they_do_alone,
        "kernel.shared_forward:Texts.stacked",
        (("in zip(asked, self.slices,", "in zip(asked[::-1], self.slices,"),),
    ),
    "08 computed in the model's dtype": Mutation(
        traps.test_trap_08_norm_softmax_fisher_and_scores_are_float32_in_half_precision,
        "numerics.precision:compute_dtype",
        (("torch.float64 if dtype == torch.float64 else torch.float32", "dtype"),),
        also=RuntimeError,
    ),
    "08 squares in the model's dtype": Mutation(
        traps.test_trap_08_norm_softmax_fisher_and_scores_are_float32_in_half_precision,
        "numerics.norms:row_norms",
        (("to_float64(gradients)", "gradients.bfloat16()"),),
    ),
    "08 softmax in half precision": Mutation(
        traps.test_trap_08_norm_softmax_fisher_and_scores_are_float32_in_half_precision,
        "model.predictions:Logits.walked",
        (("(z - new[:, None]).exp_()", "(z - new[:, None]).bfloat16().exp_()"),),
    ),
    "08 fisher in half precision": Mutation(
        traps.test_trap_08_norm_softmax_fisher_and_scores_are_float32_in_half_precision,
        "numerics.fisher_information:FisherInformation._centred_chunks_float64",
        (("yield self.exact_tail[at], ", "yield self.exact_tail[at].bfloat16().double(), "),),
    ),
    "08 cotangent not scaled": Mutation(
        traps.test_trap_08_small_gradients_do_not_flush_to_zero_in_float16,
        "kernel.pull_back:pull_back",
        (
            (
                "exponent = torch.where(norms > 0, COTANGENT_EXPONENT - torch.frexp(norms).exponent, 0)",
                "exponent = torch.zeros_like(norms, dtype=torch.int32)",
            ),
        ),
    ),
    "09 cap and scale ignored": Mutation(
        traps.test_trap_09_soft_cap_and_scale_are_in_the_directions,
        "model.recorder:_read_out_slope",
        (("if logits is raw or not raw.requires_grad:", "if True:"),),
    ),
    "09 cap ignored in the target's row": Mutation(
        traps.test_trap_09_soft_cap_and_scale_are_in_the_directions,
        "model.predictions:Predictions.logit_rows",
        (("w * self.own_slopes(targets)[:, None]", "w"),),
    ),
    "09 cap ignored in Fisher": Mutation(
        traps.test_trap_09_soft_cap_and_scale_are_in_the_directions,
        "directions.base:ReadOut.fisher",
        (("self.logits.to(device), slope,", "self.logits.to(device), None,"),),
    ),
    "09 probabilities of raw logits": Mutation(
        traps.test_trap_09_soft_cap_and_scale_are_in_the_directions,
        "model.recorder:Recorder.predictions",
        (("logits[0].detach()", 'self.picked["raw_logits"][0].detach()'),),
    ),
    "09 inexact temperature not said": Mutation(
        traps.test_trap_09_soft_cap_and_scale_are_in_the_directions,
        "directions.temperature:Temperature.rows",
        (("exact = read.predictions.linear and not state.unembedding_bias", "exact = True"),),
    ),
    "09 bias of the unembedding dropped": Mutation(
        traps.test_trap_09_unembedding_bias_after_folding_is_in_the_logits,
        "model.recorder:Recorder.predictions",
        (("logits[0].detach()", "logits[0].detach() - model.b_U.detach()"),),
    ),
    "10 entries keyed by text": Mutation(
        traps.test_trap_10_repeated_tokens_are_separate_entries,
        "results.attribution:Attribution.top",
        (("sorted(self.shown, key", "sorted({self.str_tokens[p]: p for p in self.shown}.values(), key"),),
    ),
    "10 one token squeezed away": Mutation(
        traps.test_trap_10_one_token_prompts_have_one_score,
        "model.prompts:_flat",
        (("item[0] if item.ndim == 2 and item.shape[0] == 1 else item", "item.squeeze()"),),
        also=ValueError,
    ),
    "10 length not checked": Mutation(
        traps.test_trap_10_prompts_longer_than_the_context_are_refused_not_cut,
        "model.prompts:_checked_ids",
        (("if len(tokens) > model.cfg.n_ctx:", "if False:"),),
        also=(RuntimeError, IndexError),
    ),
    "10 long text cut": Mutation(
        traps.test_trap_10_prompts_longer_than_the_context_are_refused_not_cut,
        "model.prompts:_read",
        (("truncate=False", "truncate=True"),),
    ),
    "10 no tokens let through": Mutation(
        traps.test_trap_10_prompts_without_tokens_are_refused,
        "model.prompts:_checked_ids",
        (("if not len(tokens):", "if False:"),),
        also=(RuntimeError, IndexError, ValueError, ZeroDivisionError),
    ),
    "accepted prompts not swapped": Mutation(
        traps.test_accepted_prompts_follow_every_swapped_cause,
        "evaluation.acceptance:acceptance",
        (("follows = tuple(bool(found) and all(found) for found in followed)", "follows = says"),),
    ),
}


def apply(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mutate every function that the mutation names."""
    for where, edits in ((mutation.where, mutation.edits), *mutation.further):
        replace_function(where, edits, monkeypatch)
    # what was computed of a model before is not to hide the mutant
    monkeypatch.setattr(importlib.import_module("tl_scopes.model.state"), "_STATES", weakref.WeakKeyDictionary())


def mutated_source(original: Any, where: str, edits: tuple[tuple[str, str], ...]) -> str:
    """The source of a function, every edit made: each text occurs once."""
    function = getattr(original, "func", None) or getattr(original, "fget", None) or original
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    for old, new in edits:
        assert source.count(old) == 1, f"{where} has {old!r} {source.count(old)} times, not once"
        source = source.replace(old, new)
    return source


def place(where: str) -> tuple[Any, Any, list[str]]:
    """The module of "module:function", what holds the function there, and the path to it."""
    module_name, _, inside = where.partition(":")
    path = inside.split(".")
    module = importlib.import_module(f"tl_scopes.{module_name}")
    return module, functools.reduce(getattr, path[:-1], module), path


def replace_function(where: str, edits: tuple[tuple[str, str], ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the mutated function wherever the package holds the original."""
    module, holder, (*path, name) = place(where)
    original = inspect.getattr_static(holder, name)
    source = mutated_source(original, where, edits)
    made: dict[str, Any] = {}
    code = f"from __future__ import annotations\n{source}"
    exec(compile(code, f"<mutated {where}>", "exec"), vars(module), made)
    mutant = made[name]
    if path:
        monkeypatch.setattr(holder, name, mutant)
        if isinstance(mutant, functools.cached_property):
            mutant.__set_name__(holder, name)
    else:
        for held_by in [m for n, m in sys.modules.items() if n.split(".")[0] == tl_scopes.__name__]:
            for attribute in [a for a, value in vars(held_by).items() if value is original]:
                monkeypatch.setattr(held_by, attribute, mutant)


@functools.cache
def passes_untouched(trap: Callable[[str], None], kind: str) -> bool:
    trap(kind)
    return True


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_a_mutation_removes_is_in_the_source(name: str) -> None:
    mutation = MUTATIONS[name]
    for where, edits in ((mutation.where, mutation.edits), *mutation.further):
        _, holder, path = place(where)
        mutated_source(inspect.getattr_static(holder, path[-1]), where, edits)


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_the_trap_notices_that_its_care_is_gone(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation = MUTATIONS[name]
    if kind not in mutation.kinds:
        assert kind == "hooked", "HookedTransformer has no dropout"
        return
    assert passes_untouched(mutation.trap, kind)
    apply(mutation, monkeypatch)
    try:
        with torch.random.fork_rng(devices=[]):  # dropout draws
            mutation.trap(kind)
    except (AssertionError, pytest.fail.Exception, *_types(mutation.also)):
        return
    pytest.fail(f"mutation {name!r} of {mutation.where} survives {mutation.trap.__name__}")


def _types(also: type[Exception] | tuple[type[Exception], ...]) -> tuple[type[Exception], ...]:
    return also if isinstance(also, tuple) else (also,)


def test_every_trap_has_a_mutation() -> None:
    tested = {name for name in vars(traps) if name.startswith("test_")}
    assert {name[:12] for name in tested if "_trap_" in name} == {f"test_trap_{n:02d}" for n in range(1, 11)}
    assert tested == {mutation.trap.__name__ for mutation in MUTATIONS.values()}
