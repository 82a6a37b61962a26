"""What of a model's text is spoken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.voice.speakable import NOTHING_TO_SAY, Piece, SpeakableText


def pieces(*deltas: str) -> list[Piece]:
    text = SpeakableText()
    found = [piece for delta in deltas for piece in text.feed(delta)]
    return found + text.flush()


def said(text: str) -> str:
    return " ".join(piece.spoken for piece in pieces(text) if piece.spoken)


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        # Emphasis, headings, quotations
        ("**Five** minutes.", "Five minutes."),
        ("This is ***very*** __big__, ~~not~~ _small_.", "This is very big, not small."),
        ("# Answer #\n\nIt is `here`.", "Answer. It is here."),
        ("> He said _yes_.", "He said yes."),
        ("Before.\n\n---\n\n***\nAfter\n===", "Before. After."),
        ("Stop **now. Please** go.", "Stop now. Please go."),
        ("It is **bold", "It is bold."),
        # Lists
        ("1. Open the lid.\n2. Press *start*.", "Open the lid. Press start."),
        ("You need:\n\n- milk\n* *two* eggs\n+ salt", "You need: milk. two eggs. salt."),
        ("- [ ] Eat\n- [x] Sleep\n  - Rest", "Eat. Sleep. Rest."),
        ("5. That is all.", "5. That is all."),
        ("**1. Open it**\n**2.** Shut it.\n### 3. Go\n> 4. On", "Open it. Shut it. Go. On."),
        ("Is it:\n\na) one\nb) two\n• three", "Is it: a, one. b, two. three."),
        ("It was\n\n1999. A good year.", "It was. 1999. A good year."),
        # Tables
        ("| a | b |\n|---|:-:|\n| 1 | 2 |", "a, b. 1, 2."),
        ("Name | Age\n--- | ---\nJoe | 5", "Name, Age. Joe, 5."),
        # Code
        ("Use this:\n```python\nprint('a. b')\n```\nDone.", "Use this: Done."),
        ("Use this:\n```python\nprint('a. b')", "Use this:"),
        ("Use this:```py\nprint()\n``` or that.", "Use this: or that."),
        ("<think>\nHe asks. So?\n</think>\n\n**Hello**.", "Hello."),
        ("Set `x = 5` and `a_b`.", "Set x equals 5 and a b."),
        ("Call `print()` with `--fast`.", "Call print with fast."),
        ("It is ==new== and H~2~O.", "It is new and H 2 O."),
        # Links and addresses
        ("See [the page](https://a.org/b?c=d).", "See the page."),
        (
            "See [the page][1] and ![a cat](cat.png).\n\n[1]: https://a.org",
            "See the page and a cat.",
        ),
        ("[**It**](https://a.org/b_(c)) is ![so](d(e).png).", "It is so."),
        ("It is so [1], and so[^2] or[1][2].", "It is so, and so or."),
        ("Go to https://www.example.org/a_b?c=d. Now.", "Go to example dot org. Now."),
        (
            "See <http://x.org>, www.nasa.gov/a or b.com!",
            "See x dot org, nasa dot gov or b dot com!",
        ),
        ("Write to joe.b@mail.com.", "Write to joe dot b at mail dot com."),
        ("It is a_b@c.org.", "It is a underscore b at c dot org."),
        ("At ws://localhost:8765/a, or b.de.", "At localhost, or b dot de."),
        ("In C, .NET and so on.", "In C, .NET and so on."),
        # Formulas
        (
            r"\( x^2 = 4 \) and $\frac{a}{b}$, $$\sqrt{16} \times 4$$.",
            "x squared equals 4 and a over b, the square root of 16 times 4.",
        ),
        (r"$\frac{1}{2}$ or $\boxed{42}$.", "1 over 2 or 42."),
        (
            r"$\boxed{5}$, \(a \le b\), \[\frac{-b \pm \sqrt{b^2-4}}{2}\]",
            "5, a at most b, -b plus or minus the square root of b squared minus 4 over 2.",
        ),
        (
            "A bill of $5 = 5 dollars and $10.",
            "A bill of 5 dollars equals 5 dollars and 10 dollars.",
        ),
        (
            "2**10 is 1024, x**2, (a + b) ** 2.",
            "2 to the power of 10 is 1024, x squared, a + b squared.",
        ),
        ("**x**2 and the 5 **big** ones.", "x2 and the 5 big ones."),
        ("So $x + 5$ and $n/2$, or 5$.", "So x + 5 and n over 2, or 5 dollars."),
        ("It is 5 \u00b5s.", "It is 5 microseconds."),
        # HTML
        ("Dear <your name>, 3 <b or so.", "Dear your name, 3 b or so."),
        ("So <b>bold</b><br/>and<!-- no --> new.", "So bold and new."),
        ("<speak>So<break time='1s'/> it is</speak></s><|im_end|>.", "So it is."),
        (
            "Salt &amp; pepper&nbsp;&mdash; it&#39;s 3 &lt; 4.",
            "Salt and pepper, it's 3 less than 4.",
        ),
        # Emoji and emoticons
        ("Well done! 🎉👍🏽 Bye 👩‍🚀.", "Well done! Bye."),
        ("Ok :) fine ;-), I <3 it ❤️ 🇫🇷 1️⃣", "Ok fine, I it 1."),
        (r"Well ¯\_(ツ)_/¯ T_T, yes.", "Well, yes."),
        (f"The {'9' * 200}th of it.", "The of it."),
        # Letters of other scripts, and Latin ones in disguise
        ("Hello is こんにちは (konnichiwa), or שלום.", "Hello is, konnichiwa, or."),
        ("你好。" * 40, NOTHING_TO_SAY),
        ("Привет! Как дела?", NOTHING_TO_SAY),
        ("Ça va, Zoë? Naïve ﬁn, α.", "Ça va, Zoë? Naïve fin, α."),
        ("𝐁𝐨𝐥𝐝 𝒶𝓃𝒹 ｗｉｄｅ，\u3000ｓｏ！ H₂O ②.", "Bold and wide, so! H2O 2."),
        ("6′2″ and 3″.", "6 feet 2 inches and 3 inches."),
        # Stage directions and brackets
        ("*smiles* Hello (laughs softly) there.", "Hello there."),
        ("[clears throat] *softly sighs* Yes. (Laughter.)", "Yes."),
        ("He *laughs* a lot. Say *smile*. *Waves* are high.", None),
        ("Stay (think of it) and (raises the risk) go (clear it).", None),
        ("I'm Ava *waves hand* — hi! And she *laughs*.", "I'm Ava, hi! And she laughs."),
        ("Well, *nods his head and smiles warmly*.", "Well."),
        ("*Important*: the cat (a tabby) sat.", "Important: the cat, a tabby, sat."),
        ("Open the file(s) [here] {now}.", "Open the files here now."),
        ("Dear [Your Name],\nsee: (a) it (b).", "Dear Your Name, see: a, it, b."),
        ("*leans in closer* Look! *takes a sip of tea* *adjusts her glasses* Yes.", "Look! Yes."),
        ("(a + b)^2 is so.", "a + b squared is so."),
        ("F = (20 * 1.8) + 32 and f(x) = 2(x).", "F equals 20 times 1.8 + 32 and f x equals 2 x."),
        ("It is (not closed yet.", "It is, not closed yet."),
        # Dashes and dots
        ("well—no - yes -- so – it...", "well, no, yes, so, it."),
        ("Wait… what", "Wait, what."),
        ("It is 3.14…; or so...?", "It is 3.14; or so?"),
        ("B♭ and F♯.", "B flat and F sharp."),
    ],
)
def test_what_is_for_the_eye_is_not_spoken(text: str, spoken: str | None) -> None:
    words = text.replace("*", "").replace(" (", ", ").replace(")", ",").replace(",.", ".")
    assert said(text) == (words if spoken is None else spoken)


@pytest.mark.parametrize("text", ["", " \n", "🎉", "```\ncode\n```", "***", "| - |", "*smiles*"])
def test_a_reply_without_words_says_so(text: str) -> None:
    assert pieces(text) == [Piece(text, NOTHING_TO_SAY)]


def test_what_is_shown_is_what_was_written() -> None:
    written = "# One\n\n```\na\n\nb\n```\n**Two**, 5 km.\n---\n"
    assert pieces(written) == [
        Piece("# One\n", "One."),
        Piece("\n```\na\n\nb\n```\n**Two**, 5 km.\n", "Two, 5 kilometers."),
        Piece("---\n", ""),
    ]


def test_code_that_never_ends_is_shown_while_it_comes() -> None:
    text = SpeakableText()
    shown = [piece for _ in range(1000) for piece in text.feed("a = [1]\n```x\n")]
    assert len(shown) > 5
    assert max(len(piece.shown) for piece in shown) < 1300


def test_the_first_words_are_spoken_before_their_mark_is_closed() -> None:
    text = SpeakableText()
    assert [p.spoken for p in text.feed("**It is *so. [And (now")] == ["It is so."]
    assert [p.spoken for p in text.feed(" what? I")] == ["And, now what?"]


ALPHABET = st.sampled_from(
    [*"aBc .,!?\n35-*_#`~>|<()[]{}\"'…—=@^\\/$%&:;", "```\n", "Dr. ", "http://a.b/c", "**", "&lt;"]
)
TEXTS = st.one_of(st.lists(ALPHABET, max_size=60).map("".join), st.text(max_size=60))


@given(TEXTS, st.data())
def test_deltas_do_not_matter_and_no_markup_is_spoken(text: str, data: st.DataObject) -> None:
    at = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    deltas = [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]
    found = pieces(*deltas)
    assert found == pieces(text)
    assert "".join(piece.shown for piece in found) == text
    assert any(piece.spoken for piece in found)
    for piece in found:
        assert not set(piece.spoken) & set("*_#`|<>~^=@\\()[]{}\n\t")
        assert piece.spoken == " ".join(piece.spoken.split())
        assert not piece.spoken or any(map(str.isalnum, piece.spoken))


WORDS = st.sampled_from("the cat sat on a mat and it was so happy that we all ran home".split())


@given(st.lists(st.tuples(WORDS, st.sampled_from(["", "", "", ",", ".", "?", ";"])), min_size=1))
def test_prose_is_kept_word_by_word(words: list[tuple[str, str]]) -> None:
    text = " ".join(word + mark for word, mark in words)
    assert said(text) == text + ("" if words[-1][1] else ".")


@pytest.mark.parametrize(
    "kind", ["[", "(", "<a ", "*a ", "1/", "1-", "&#", "a@", "a.", "http://", "!["]
)
@pytest.mark.timeout(20)
def test_no_text_takes_long(kind: str) -> None:
    """Each rule reads a bounded piece; 100,000 characters take about a second."""
    pieces(kind * (100_000 // len(kind)))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("One two. Three fo", ["One two."]),
        ('One two. "Three four."', ["One two.", '"Three four."']),
        ("One tw", ["One tw"]),
    ],
)
def test_a_sentence_that_was_being_written_is_left_out_at_a_cut(
    written: str, said: list[str]
) -> None:
    text = SpeakableText()
    pieces = [*text.feed(written), *text.cut()]
    assert [piece.shown.strip() for piece in pieces] == said
