"""The first cell of a chapter: which server it goes on with."""

from pathlib import Path

import pytest

from labkit.course.cards import begin
from labkit.course.folder import Progress
from labkit.course.keep import kept_chapters, kept_sections, server_file, write_sections
from labkit.course.masters import section_chapters, sections


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path / "mine"))


async def test_an_empty_folder_gets_the_solution() -> None:
    said = await begin(4, in_kernel=False)
    assert "builds on the solution of the earlier ones" in said.markdown
    assert f"The solution has been written to `{server_file()}`." in said.markdown
    assert kept_sections() == sections(3)
    assert kept_chapters() == section_chapters(3)


async def test_the_solution_that_is_there_is_taken_for_no_work_of_the_learner() -> None:
    await begin(4, in_kernel=False)
    said = await begin(4, in_kernel=False)
    assert "builds on the solution of the earlier ones, which is in" in said.markdown
    assert not Progress.load().checks


async def test_what_was_put_aside_is_never_overwritten() -> None:
    for own in ("FIRST", "SECOND"):
        write_sections({"imports": own})
        await begin(4, in_kernel=False)
    asides = sorted(server_file().parent.glob("server_before_04*.py"))
    assert [path.read_text(encoding="utf-8").split()[-1] for path in asides] == ["FIRST", "SECOND"]


@pytest.mark.parametrize("earlier", [1, 2])
async def test_an_earlier_chapter_says_that_the_server_is_ahead_of_it(earlier: int) -> None:
    await begin(5, in_kernel=False)
    said = await begin(earlier, in_kernel=False)
    assert "is a server of chapter 4 already" in said.markdown
    assert kept_sections() == sections(4)


async def test_a_server_with_a_stub_is_put_aside() -> None:
    write_sections(sections(3, stubs=["ch3.decode"]))
    own = server_file().read_text(encoding="utf-8")
    said = await begin(4, in_kernel=False)
    assert "still waits to be written" in said.markdown
    aside = server_file().with_name("server_before_04.py")
    assert aside.read_text(encoding="utf-8") == own
    assert kept_sections() == sections(3)


@pytest.mark.parametrize("written", [["lasting"], ["lasting", "begin", "stream", "come_back"]])
async def test_a_chapter_that_was_begun_goes_on_where_it_was(written: list[str]) -> None:
    given = sections(4, stubs=["ch4.put", "ch4.come_back"])
    write_sections({**sections(3), **{name: given[name] for name in written}})
    before = kept_sections()
    said = await begin(4, in_kernel=False)
    assert "goes on with your own server" in said.markdown
    assert kept_sections() == before
    assert not server_file().with_name("server_before_04.py").exists()
