from pathlib import Path

import pytest

from app.errors import SourceError
from app.sources import find_below


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "imports"
    (folder / "team").mkdir(parents=True)
    (folder / "team" / "memory.db").write_text("inside")
    (tmp_path / "secret.db").write_text("outside")
    return folder


@pytest.mark.parametrize("name", ["team/memory.db", "./team/../team/memory.db", "{folder}/team/memory.db"])
def test_a_file_below_the_folder_is_found_by_relative_and_absolute_names(folder: Path, name: str) -> None:
    assert find_below(folder, name.format(folder=folder)) == folder / "team" / "memory.db"


def test_a_link_that_stays_below_the_folder_is_followed(folder: Path) -> None:
    (folder / "latest.db").symlink_to(folder / "team" / "memory.db")
    assert find_below(folder, "latest.db") == folder / "team" / "memory.db"


def test_a_folder_that_is_itself_a_link_works(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert find_below(tmp_path / "link", "team/memory.db") == folder / "team" / "memory.db"


@pytest.mark.parametrize("there", ["../secret.db", "{outside}/secret.db", "team/../../secret.db"])
def test_outside_the_answer_is_the_same_whether_or_not_the_file_exists(
    folder: Path, tmp_path: Path, there: str
) -> None:
    answers = []
    for name in (there, there.replace("secret", "absent")):
        with pytest.raises(SourceError) as caught:
            find_below(folder, name.format(outside=tmp_path))
        answers.append(str(caught.value).replace("absent", "secret"))
    assert "does not lie below" in answers[0]
    assert answers[0] == answers[1]


def test_a_link_out_of_the_folder_counts_as_outside(folder: Path, tmp_path: Path) -> None:
    (folder / "escape.db").symlink_to(tmp_path / "secret.db")
    with pytest.raises(SourceError, match="does not lie below"):
        find_below(folder, "escape.db")


@pytest.mark.parametrize("name", ["absent.db", "team", "", "."])
def test_what_is_no_file_below_the_folder_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(SourceError, match="there is no file"):
        find_below(folder, name)


@pytest.mark.parametrize("name", ["nul\0.db", "x" * 5000, "loop.db"])
def test_a_name_that_no_file_can_have_is_refused(folder: Path, name: str) -> None:
    (folder / "loop.db").symlink_to(folder / "loop.db")
    with pytest.raises(SourceError, match="no usable file name"):
        find_below(folder, name)
