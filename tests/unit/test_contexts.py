"""The rules by which a place belongs to contexts, and which contexts get adapters of their own."""

from __future__ import annotations

import pytest

from npllm import contexts
from npllm.types import Place


def place(language: str = "python", project: str = "/w") -> Place:
    return Place("file:///w/a.py", "a.py", language, project, 0)


def test_a_place_belongs_to_several_contexts_the_most_specific_first() -> None:
    text = "import pytest\nfrom django.db import models\nimport djangoish, numpyro\n"
    assert contexts.of(place(), text) == (
        "project:/w",
        "framework:django",
        "framework:pytest",
        "language:python",
        "generic",
    )
    assert contexts.of(place("", ""), text) == ("language:plaintext", "generic")
    kinds = [contexts.kind(name) for name in contexts.of(place(), text)]
    assert list(dict.fromkeys(kinds)) == list(contexts.KINDS)


@pytest.mark.parametrize(
    ("language", "text", "found"),
    [
        ("python", "    import torch  # inside a function", ("framework:pytorch",)),
        ("python", "# import torch\ntext = 'import flask'\nimportant = flask", ()),
        ("typescriptreact", "import React, { useState } from 'react';", ("framework:react",)),
        ("javascript", 'const { app } = require("express");', ("framework:express",)),
        ("typescript", 'import { Page } from "@playwright/test"', ("framework:playwright",)),
        ("go", 'import "react"', ()),
    ],
)
def test_frameworks_are_told_by_imports(language: str, text: str, found: tuple[str, ...]) -> None:
    assert contexts.frameworks(language, text) == found


def test_a_family_that_would_be_the_same_as_another_is_not_trained() -> None:
    one = {"project:/a": 50, "framework:pytest": 10, "language:python": 50, "generic": 50}
    assert contexts.trained(one, contexts.kinds("language+project")) == ("language:python",)
    two = {"project:/a": 30, "project:/b": 20, "language:python": 49, "language:go": 1, "generic": 50}
    assert contexts.trained(two, contexts.kinds("language+project")) == (
        "language:python",
        "language:go",
        "project:/a",
        "project:/b",
    )
    assert contexts.trained(two, contexts.kinds("language")) == ("language:python", "language:go")
    assert contexts.trained(one, contexts.kinds("all")) == ("language:python", "framework:pytest")
    mixed = {"language:python": 25, "language:go": 25, "generic": 50}
    assert contexts.trained(mixed, contexts.kinds("all"))[0] == "generic", "the most general is trained first"
    assert contexts.trained({}, contexts.KINDS) == ()
