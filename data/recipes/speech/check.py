"""Check by ear of another kind that each recording says what its manifest says.

`pocketsphinx` hears every utterance with a grammar of all the sentences, and must choose the
right one::

    python data/recipes/speech/check.py data/speech

It needs the packages `pocketsphinx` and `festival`, which pronounces words that the dictionary
of pocketsphinx lacks.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from pocketsphinx import Decoder

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from labkit.audio.pcm import encode_s16le, read_audio
from labkit.measure.recordings import Kind, load_manifest


def main() -> None:
    """Hear every utterance of a folder; exit 1 where one is taken for another."""
    parser = argparse.ArgumentParser(description="Hear the test recordings with pocketsphinx.")
    parser.add_argument("folder", type=Path)
    recordings = load_manifest(parser.parse_args().folder)
    utterances = [recording for recording in recordings if recording.kind is Kind.UTTERANCE]
    decoder = listener([utterance.text for utterance in utterances])
    mistaken = 0
    for utterance in utterances:
        heard = hear(decoder, encode_s16le(read_audio(utterance.path)))
        if heard != utterance.text:
            mistaken += 1
            print(f"{utterance.name}: says {utterance.text!r}, heard {heard!r}")
    print(f"{len(utterances) - mistaken} of {len(utterances)} utterances understood")
    sys.exit(mistaken > 0)


def listener(sentences: list[str]) -> Decoder:
    """A decoder that hears one of `sentences`."""
    decoder = Decoder(samprate=16_000, lm=None, loglevel="FATAL")
    for word in sorted({word for sentence in sentences for word in sentence.split()}):
        if decoder.lookup_word(word) is None:
            decoder.add_word(word, pronunciation(word), True)
    choices = " | ".join(sentences)
    decoder.add_jsgf_string("said", f"#JSGF V1.0;\ngrammar said;\npublic <said> = {choices};\n")
    decoder.activate_search("said")
    return decoder


def hear(decoder: Decoder, pcm: bytes) -> str:
    """The sentence that the decoder takes `pcm` for, empty for none."""
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    return decoder.hyp().hypstr if decoder.hyp() else ""


def pronunciation(word: str) -> str:
    """The phones of `word` after Festival's rules, in the names of pocketsphinx."""
    program = f'(voice_kal_diphone)(print (lex.lookup "{word}"))'
    out = subprocess.run(
        ["festival", "--pipe"], input=program, capture_output=True, text=True, check=True
    ).stdout
    return " ".join(_phones(re.findall(r"[a-z]+", out.split("((", 1)[1])))


def _phones(names: Iterable[str]) -> Iterable[str]:
    return ("AH" if name == "ax" else name.upper() for name in names)


if __name__ == "__main__":
    main()
