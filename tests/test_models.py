"""The values that travel between routes, services and stores."""

from dataclasses import fields
from typing import Any

import pytest

from app.models import Scope

FILTERS = [field.name for field in fields(Scope) if field.name != "projects"]


@pytest.mark.parametrize("name", FILTERS)
def test_any_filter_makes_a_scope_more_than_projects(name: str) -> None:
    given: dict[str, Any] = {name: ""}
    assert not Scope(**given).is_of_whole_projects
    assert not Scope(projects=["shop"], **given).is_of_whole_projects


def test_projects_are_no_filter() -> None:
    assert Scope().is_of_whole_projects
    assert Scope(projects=["shop"]).is_of_whole_projects
