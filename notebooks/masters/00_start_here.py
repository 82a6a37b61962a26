# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 0. Start here
#
# *Ten minutes to hear it, ten more to understand it. Needs: this checkout, set up with `make
# lab`. No network, no GPU. A microphone is welcome, and nothing depends on it.*
#
# ## What you will be able to do
#
# - **talk** to a voice server on your own machine, and **see** where a spoken second goes;
# - **compute** the three numbers that the course is about: dead air, error rate, level;
# - **say** why a small model mishears, and what that has to do with your server (nothing).
#
# ## How a chapter works
#
# This is your own copy: change whatever you like. Run the cells from top to bottom, with Shift and
# Enter.
#
# An *exercise* is a function to write: put your lines in place of `raise NotImplementedError`, and
# run the cell. The cell behind it calls `check`, which tries your function and says ✔, or what it
# expected and what came. Change and run both as often as you like. For a hint, make a cell of your
# own (Esc, then B) with, for instance, `hint("ch0.error_rate")`; another call gives the next hint,
# and `solution("ch0.error_rate")` shows a solution.
#
# Commands *in a terminal* are for labkit's folder. JupyterLab has a terminal (File, New, Terminal);
# it begins in the folder of your copies, so type `cd ..` first.

# %%
from labkit import recording, say, show, start_labkit
from labkit.course import (
    begin,
    check,
    hint,
    measured,
    microphone,
    predict,
    progress,
    quiz,
    solution,
)

await begin(0)

# %% [markdown]
# ## Is this machine ready?
#
# This loads each of the three models in a process of its own, and looks at what else labkit
# needs. Every line should say *ok*; where one does not, it says what to do.

# %%
from labkit.doctor import run_checks
from labkit.voice.models import models_of

for found in await run_checks(models_of("embedded")):
    print("ok  " if found.ok else "FAIL", f"{found.name:10} {found.detail}. {found.mend}")

# %% [markdown]
# ## Predict
#
# In a moment you say a sentence to a server here. It finds out what you said, thinks of an
# answer, and speaks it; all of that on this machine.
#
# How long is it silent, from your last word to the first sound of the reply, in milliseconds?
# Write your guess in place of the `...`, and run the cell; where you leave the `...`, a box below the
# cell asks for the number, and *Run All* waits for it. You may change it until the measurement is made;
# then it is locked. If you have made the measurement first, you may still predict, once: it will be
# noted that you did so afterwards.

# %% guess="500"
predict("ch0.dead_air_ms", ...)

# %% [markdown]
# ## Hear it
#
# This starts labkit's server, in a process of its own, and says a recording to it at the pace of
# speech. Below, *said* and *reply* can be played; *heard* is what the recogniser understood. The
# rows under them are buttons: each plays the turn from there. `turn.play_from("asr_done")` does
# the same in a cell.

# %%
server = await start_labkit()
turn = await say(recording("slt-01"), server)
turn

# %% [markdown]
# ## See it
#
# Two waveforms on one axis of time: what was said, then the reply. The gap between them is the
# **dead air**.

# %%
waveform = turn.plot_waveform()

# %% [markdown]
# Where does it go? The waterfall takes it apart. Each bar begins where the one above it ends; the
# longest bar is where work pays.

# %%
waterfall = turn.plot_waterfall()

# %% [markdown]
# | bar | what happens in it |
# |---|---|
# | packetisation | the last chunk has to be full before it can be sent |
# | uplink, downlink | on the way, here within one machine |
# | ASR | speech recognition: audio becomes words. Where somebody speaks, a small detector has found before |
# | LLM | a language model writes an answer, word by word, up to the end of its first sentence |
# | TTS | a voice speaks that sentence |
# | leading silence | the reply has begun, and is silent itself |
#
# ## How well does it hear?
#
# Six recordings, by voices that the recogniser has never met. Which one is misheard?

# %%
turns = [
    await say(recording(name), server)
    for name in ("kal-01", "ked-lively-01", "slt-03", "ked-08", "slt-deep-01", "kal-calm-01")
]
for one in turns:
    print(f"said   {one.said}\nheard  {one.heard}\nreply  {one.reply}\n")

# %% [markdown]
# Your prediction meets the median of these six turns. The very first turn is left out: one sentence
# tells less than six.

# %%
measured("ch0.dead_air_ms", sorted(one.trace.ttfa_ms() for one in turns)[len(turns) // 2])

# %% [markdown]
# These models are tiny. With public ones of 220 MB (`make tiny`, in a terminal), two cores need
# about a second. Between people, the gap is about 200 ms, in ten languages (Stivers and others,
# 2009).
#
# What went wrong there? The recogniser is tiny: it was trained for this course, on sentences
# about timers, lights, names, numbers and WebSockets, so that it fits into the repository. A word
# that it hardly knows becomes one that it knows well, in a sentence that sounds right. Large
# models do the same, less often. The server did nothing wrong: it delivered every sample.
#
# So we count. The usual number is the **word error rate**: words that are wrong, missing or too
# many, over the words that were said. Of one sentence, `word_errors(said, heard)` gives both, as
# two numbers: its errors, and its words.

# %% [markdown] card="ch0.error_rate"
# The card of the exercise.

# %% exercise="ch0.error_rate"
from labkit.measure.wer import word_errors


def error_rate(pairs):
    """The word error rate of a list of pairs: what was said, and what was heard."""
    raise NotImplementedError("all wrong words, divided by all words that were said")


# %% solution="ch0.error_rate"
from labkit.measure.wer import word_errors


def error_rate(pairs):
    """The word error rate of a list of pairs: what was said, and what was heard."""
    counts = [word_errors(said, heard) for said, heard in pairs]
    return sum(wrong for wrong, _ in counts) / sum(words for _, words in counts)


# %%
await check("ch0.error_rate", error_rate)

# %% [markdown]
# Now of the turns that you have just heard:

# %%
rate = error_rate([(one.said, one.heard) for one in turns])
print(f"{rate:.0%} of the words in {len(turns)} sentences were misheard.")

# %% [markdown]
# Six sentences say little about a recogniser: one word more changes the number a lot. `make
# models`, in a terminal, counts it on all 54 sentences of the course.
#
# ## When is the reply heard?
#
# The first byte of a reply is no sound yet: speech begins with a little silence. **TTFB**, the
# time to the first byte, is what a server can measure. **TTFA**, the time to the first audio, is
# what you hear.

# %% [markdown] card="ch0.dead_air"
# The card of the exercise.

# %% exercise="ch0.dead_air"
import numpy as np


def dead_air(end_of_speech_s, first_byte_s, reply):
    """Seconds from the end of speech to the first sample of `reply` that is heard.

    That is the first one louder than 0.01, of either sign; a second has 16,000 samples.
    """
    raise NotImplementedError(
        "the time to the first byte, and the silence at the reply's beginning"
    )


# %% solution="ch0.dead_air"
import numpy as np


def dead_air(end_of_speech_s, first_byte_s, reply):
    """Seconds from the end of speech to the first sample of `reply` that is heard.

    That is the first one louder than 0.01, of either sign; a second has 16,000 samples.
    """
    silent = np.flatnonzero(np.abs(reply) > 0.01)[0]
    return first_byte_s - end_of_speech_s + silent / 16_000


# %%
await check("ch0.dead_air", dead_air)

# %% [markdown]
# Your function on the turns from above, as a picture. Each bar is one turn; its light part is
# silence that the voice itself has put before its first word.

# %%
from labkit.measure.figures import BLUE, SKY, axes, figure_of, tidy

ax = axes(None, height=2.8)
waits_ms = []
for row, one in enumerate(turns):
    first_byte_s = one.trace.ttfb_ms() / 1000
    waits_ms.append(1000 * dead_air(0, first_byte_s, one.reply_audio))
    ax.barh(row, one.trace.ttfb_ms(), color=BLUE, label="to the first byte" if row == 0 else None)
    ax.barh(
        row,
        waits_ms[-1] - one.trace.ttfb_ms(),
        left=one.trace.ttfb_ms(),
        color=SKY,
        hatch="//",
        label="the reply's own silence" if row == 0 else None,
    )
ax.set_yticks(range(len(turns)), [one.recording.name for one in turns])
ax.set_xlim(0, 1.5 * max(waits_ms))  # with room for the legend
ax.legend()
tidy(ax, "Dead air of each turn", "ms", "", grid="x")
show(
    figure_of(ax),
    alt="Dead air of each turn as a bar of two parts: the time to the first byte, and the silence "
    "at the beginning of the reply.",
)
print(f"Dead air: {min(waits_ms):.0f} to {max(waits_ms):.0f} ms.")

# %% [markdown]
# ## Your own voice
#
# Press *Record*, say one sentence in English, press *Stop*; then run the cell below. Your browser
# asks whether this page may listen. What you say stays on this machine.
#
# Without a microphone, run the cells all the same: a recording is said instead, and the next cell
# says so. `microphone("my.wav")` takes a file of yours.

# %%
voice = microphone()
voice

# %%
spoken = voice.recording()
print(voice.source)
own = await say(spoken, server)
own

# %% [markdown]
# Were you understood? The embedded recogniser has heard synthetic voices only, and knows
# sentences about timers, lights, numbers and WebSockets. Try "set a timer for ten minutes". For
# your own voice there are public models: `make tiny` in a terminal, then
# `start_labkit("--models", "tiny")`.
#
# ## What the browser does to your voice
#
# A browser may change what the microphone gives, before anybody sees a sample: it removes what
# the loudspeaker plays (*echo cancellation*), steady noise (*noise suppression*), and differences
# of level (*gain control*). Each has a switch above, which counts from the next recording on. To
# see what they do, you need a number.

# %% [markdown] card="ch0.level"
# The card of the exercise.


# %% exercise="ch0.level"
def level_db(samples):
    """Level in decibels below full scale: 0 for the power 1, −20 for a hundredth of it."""
    raise NotImplementedError("ten times the decimal logarithm of the mean of the squared samples")


# %% solution="ch0.level"
def level_db(samples):
    """Level in decibels below full scale: 0 for the power 1, −20 for a hundredth of it."""
    return 10 * np.log10(np.mean(samples**2))


# %%
await check("ch0.level", level_db)

# %% [markdown]
# Record the same sentence twice, quietly: first with gain control, then without. Run this after
# each.

# %%
from labkit.audio.pcm import read_audio
from labkit.measure.figures import plot_waveform

spoken = voice.recording()
samples = read_audio(spoken.path)
title = f"{spoken.name}: {level_db(samples):.1f} dB on average"
ax = plot_waveform(samples, 16_000, title=title)
show(figure_of(ax), alt=f"Waveform of what was recorded last. {title}.")

# %% [markdown]
# With gain control, a quiet sentence comes out about as loud as a loud one, and so does the noise
# in its pauses. That is pleasant to listen to, and hard on whoever has to find the end of your
# speech by its level.
#
# ## Recap
#
# | word | means | here |
# |---|---|---|
# | dead air | silence from the last word to the first sound | your prediction, and what came out |
# | TTFB | from the last word to the first byte | what a server can measure |
# | TTFA | the same to the first audible sample | what you hear |
# | ASR, LLM, TTS | recogniser, language model, voice | three bars of the waterfall |
# | word error rate | wrong words over words said | of your six sentences |
# | level | mean power in decibels | what gain control changes |

# %%
progress()

# %% [markdown]
# ## Quiz
#
# Choose, and read why, for the wrong answers, too.

# %%
quiz("ch0")

# %% [markdown]
# ## Clean up

# %%
server.stop()

# %% [markdown]
# **Next:** `01_server`, in which you build such a server yourself, beginning with one that works
# and has five faults.
