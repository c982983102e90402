"""Every switch is checked by type, range and choices, whichever way it comes: --set, --vary, Python."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pgm.cache.errors import UserError
from pgm.trainer.data.missing import Missing
from pgm.trainer.head import FusionConfig, PgMConfig
from pgm.trainer.head.switches import Range, changed, hints_of, is_switch, switches_of, taken_apart
from pgm.trainer.methods import Shape, choose, known_methods
from pgm.trainer.protocol import Protocol
from pgm.trainer.run.request import Request, resolve
from pgm.trainer.studies.ablation import ablation
from pgm.trainer.studies.engine.plan import plan_table

SHAPE = Shape({"text": 6, "vision": 5}, 4)
WRONG = [
    ("pgm", "warmup", 5, "warmup is a number, at least 0 and below 1, not 5"),
    ("pgm", "epochs", 2.5, r"epochs is a whole number, at least 1, not 2\.5"),
    ("pgm", "epochs", 0, "epochs is a whole number, at least 1, not 0"),
    ("pgm", "epochs", True, "epochs is a whole number, at least 1, not True"),
    ("pgm", "alpha", -1, "alpha is a number, at least 0, not -1"),
    ("pgm", "lr", float("nan"), "lr is a number, above 0, not nan"),
    ("pgm", "lr_decoder", float("inf"), "lr_decoder is a number, at least 0, not inf"),
    ("pgm", "dropout", 1.0, "dropout is a number, at least 0 and below 1, not 1"),
    ("pgm", "mask_constant", 1.0, "mask_constant is a number, at most 0, not 1"),
    ("pgm", "standardize", 1, "standardize is true or false, not 1"),
    ("pgm", "without", ("decodr",), r"without is one of .*, not 'decodr'\. Did you mean 'decoder'\?"),
    ("pgm", "classes", 7, r"No switch 'classes'"),
    ("single:text", "modality", "vision", r"No switch 'modality'"),
    ("qmf", "ranking", -0.5, r"ranking is a number, at least 0, not -0\.5"),
    ("pmr", "undecided", 1.5, r"undecided is a whole number, at least 0, not 1\.5"),
    ("mla", "ridge", "constnt", r"ridge is one of released, constant, not 'constnt'\. Did you mean 'constant'\?"),
]


@pytest.mark.parametrize(("method", "name", "value", "message"), WRONG)
def test_a_wrong_value_is_refused_naming_what_is_allowed(
    toy: Path, method: str, name: str, value: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        resolve(Request(toy, Path("unused"), method=method, settings={name: value}))


@pytest.mark.parametrize("option", ["warmup=5", "epochs=2.5", "alpha=-1", "lr=nan", "without=decodr", "standardize=2"])
def test_set_and_vary_refuse_what_python_refuses(toy: Path, option: str) -> None:
    name, _, text = option.partition("=")
    with pytest.raises(UserError, match=f"^{name} is ") as by_set:
        resolve(Request(toy, Path("unused"), settings={name: text}))
    with pytest.raises(UserError) as by_vary:
        plan_table(ablation([option]), Request(toy, Path("unused")), seeds=1)
    assert str(by_vary.value) == str(by_set.value)


def test_without_is_read_from_text_as_it_is_given_in_python(toy: Path) -> None:
    def run_of(value: Any) -> str:
        return resolve(Request(toy, Path("unused"), settings={"without": value})).run.id

    assert run_of("decoder") == run_of(("decoder",)) == run_of(["decoder"])
    assert run_of("decoder+uni_learner") == run_of(("decoder", "uni_learner"))
    assert run_of("none") == run_of(()) != run_of("decoder")
    varied = plan_table(ablation(["without=decoder,none"]), Request(toy, Path("unused")), seeds=1)
    assert [cell.run.id for cell in varied.cells] == [run_of(()), run_of("decoder"), run_of(())]


def test_equal_values_of_another_kind_are_one_name(toy: Path) -> None:
    def run_of(**settings: Any) -> str:
        return resolve(Request(toy, Path("unused"), settings=settings)).run.id

    assert run_of(lr=1) == run_of(lr=1.0) == run_of(lr="1") == run_of(lr=np.float64(1))
    assert run_of(epochs=3) == run_of(epochs=np.int64(3)) == run_of(epochs="3")


def configurations() -> list[Any]:
    """Every configuration there is, those nested in another included."""
    found: list[Any] = [Protocol(), Missing(0.1)]
    for name in known_methods(("text",)):
        scores = name.startswith(("self_mm", "mmim"))
        shape = Shape({"text": 6}, 4) if name == "single:text" else Shape(SHAPE.widths, 1) if scores else SHAPE
        config = choose(name, "small", shape, {})[0]
        parts = [getattr(config, field.name) for field in dataclasses.fields(config)]
        found += [part for part in parts if dataclasses.is_dataclass(part)] or [config]
    return found


def test_every_number_of_every_configuration_has_a_range_and_no_switch_goes_unchecked() -> None:
    numbers = 0
    for config in configurations():
        for name, hint in hints_of(type(config)).items():
            kind, marks = taken_apart(hint)
            if kind in (int, float):
                numbers += 1
                assert any(isinstance(mark, Range) for mark in marks), f"{type(config).__name__}.{name} has no range"
            if is_switch(hint):
                # An object is no value of any switch; `dataclasses.replace` is what every way in goes through.
                with pytest.raises(UserError, match=f"^{name} is "):
                    dataclasses.replace(config, **{name: object()})
    assert numbers > 100


def test_settings_that_are_no_switch_come_back() -> None:
    config, rest = changed(Protocol(), {"epochs": "7", "ranking": 2, "iterations": "1"})
    assert config.epochs == 7
    assert rest == {"ranking": 2, "iterations": "1"}


def test_what_the_data_decide_is_no_switch() -> None:
    assert not {"modalities", "classes", "branches", "modality"} & {
        name for config in configurations() for name in switches_of(config)
    }
    with pytest.raises(UserError, match="classes is a whole number, at least 1, not 0"):
        FusionConfig(("text",), classes=0)
    with pytest.raises(UserError, match="iterations is a whole number"):
        PgMConfig({"text": 6}, iterations=1.5)  # type: ignore[arg-type]
