"""The first cell of a chapter: which server it goes on with."""

from pathlib import Path

import pytest

from labkit.course.cards import begin
from labkit.course.keep import kept_sections, server_file, write_sections
from labkit.course.masters import sections


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABKIT_MINE", str(tmp_path / "mine"))


async def test_an_empty_folder_gets_the_solution() -> None:
    said = await begin(4, in_kernel=False)
    assert "builds on the solution of the earlier ones" in said.markdown
    assert kept_sections() == sections(3)


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
