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
# # 5. The latency exercise
#
# *About 15 minutes, three of which the machine talks to itself. Needs: this checkout, set up with
# `make lab`. No network, no GPU, no microphone.*
#
# ## What you will be able to do
#
# - **measure** the time from the end of speech to the first sound of the reply, on this machine;
# - **split** that time into its parts, and say which part is worth your work;
# - **predict** from the chunk size alone how much of the wait is packetisation, and check it;
# - **say** why audio over WebSockets usually travels in messages of 20 to 100 ms.

# %% [markdown]
# ## The question
#
# A microphone delivers audio in blocks. A block can only be sent once it is full, so when you
# stop speaking somewhere inside a block, the rest of that block still has to pass before the
# server can know that you are done. Your last word falls anywhere in its block with equal chance:
# on average **half a block** is still to come.
#
# Smaller blocks mean less waiting, but more messages, more bytes of headers, and more work for
# the server. That is the trade which you are going to measure.
#
# ### Predict first
#
# Write your guesses down before you run anything; a measurement that confirms nothing teaches
# little. How long, in milliseconds, from the last word to the first sound of the reply, with
# blocks of 40 ms? And how much longer with blocks of 500 ms?

# %%
my_guess_ms = 400
my_extra_at_500_ms = 230

# %% [markdown]
# ## One turn
#
# Before many turns, a single one. This cell starts labkit's server and says a recording to it;
# then it shows what was heard and answered, and lets you play both sides.

# %%
from IPython.display import Markdown, display

from labkit import exercise_figures, recording, run_exercise, say, show, start_labkit

server = await start_labkit()
turn = await say(recording("ked-01"), server)
turn

# %% [markdown]
# The wait lies between the two waveforms: dead air, in which nobody says anything. The waterfall
# shows what it consists of; the bar at the top is the one that your chunk size decides on.

# %%
turn.plot_waveform()
turn.plot_waterfall()
server.stop()

# %% [markdown]
# ## Run it
#
# The exercise starts labkit's server **in a process of its own**: a server inside this kernel
# would stand still whenever a cell computes, and you would measure the notebook. Then it says
# recorded sentences to it, at the pace of speech, each in nine sizes of blocks in random order.
# Sizes are compared sentence by sentence: what two sentences differ in is far more than what a
# block adds, and would bury it.
#
# The engines are real: faster-whisper hears, llama.cpp answers, Piper speaks, with the small
# models that come with the course.

# %%
result = await run_exercise(quick=True, out="../results")
figures = exercise_figures(result)

# %% [markdown]
# A few of the turns, so that you know what was said and answered:

# %%
for row in [row for row in result.rows if not row.warmup][:5]:
    print(f"{row.voice:12} said  {row.said}")
    print(f"{'':12} heard {row.transcript}")
    print(f"{'':12} reply {row.reply_text}  ({row.ttfa_ms:.0f} ms)\n")

# %% [markdown]
# ## What chunk size trades

# %%
small, large = result.sizes[0], result.sizes[-1]
show(
    figures["tradeoff"],
    alt="Added wait, messages, headers and server CPU by chunk size from 10 to 500 ms; the added "
    "wait follows half a chunk, the costs fall steeply up to 40 ms and little after; below, a bar "
    "of the parts of the rest of the wait.",
)
display(
    Markdown(
        f"{result.conclusion} The server's CPU time while it listens goes from "
        f"{small.cpu_ms_per_s:.1f} to {large.cpu_ms_per_s:.1f} ms per second of audio."
    )
)

# %% [markdown]
# The dotted line is no fit. It is the packetisation model: half a chunk more. Where the measured
# differences follow it, packetisation explains the whole effect of the chunk size; the bar below
# shows where the rest of the wait goes, in which the chunk size has no part.
#
# The orange dashes are the same for a server that finds the end of your speech by itself. Its
# detector judges frames of 32 ms, so blocks of 32 ms wait for nothing else.
#
# Look at the right side, too: below 20 ms every message carries more header than it is worth,
# and above 100 ms there is hardly anything left to save. Between the two lies the shaded band.
# Headers do not just fall: 40 ms of audio fit into one TCP segment, 50 ms take two.

# %% [markdown]
# ## Where the time goes

# %%
labkit = result.servers[0]
parts = sorted(labkit.parts.items(), key=lambda part: -part[1])
show(
    figures["waterfall"],
    alt="Waterfall of one turn at 40 ms chunks: each stage is a bar that begins where the "
    "one before it ended.",
)
largest = " and ".join(
    f"{stage.label} ({milliseconds:.0f} ms)" for stage, milliseconds in parts[:2]
)
display(
    Markdown(
        f"At 40 ms chunks the parts add up to {labkit.wait_ms:.0f} ms. The two largest "
        f"are {largest}: work on anything else cannot save more than the rest."
    )
)

# %% [markdown]
# ## Not only the median
#
# People remember the slow answers. Here is every turn; a colour is a sentence. See how much
# sentences differ, and how little the lines of two sentences differ in shape: that is why each is
# compared with itself.

# %%
show(
    figures["turns"],
    alt="Every turn as a dot over its chunk size, the turns of a sentence joined by a line; the "
    "lines lie apart and rise alike.",
)
slowest = max(row.ttfa_ms for row in result.rows if row.ttfa_ms and not row.warmup)
display(
    Markdown(
        f"The slowest of {labkit.turns} turns took {slowest:.0f} ms. The quick run has too few "
        "turns of a size for a 95th percentile; `make exercise` has enough."
    )
)

# %% [markdown]
# ## Your prediction

# %%
measured = labkit.middle.wait.value
extra = large.effect.value - labkit.middle.effect.value
display(
    Markdown(
        "| | predicted | measured |\n|---|---|---|\n"
        f"| 40 ms chunks, median | {my_guess_ms} ms | {measured:.0f} ms |\n"
        f"| more at {large.chunk_ms} ms | {my_extra_at_500_ms} ms | {extra:.0f} ms |\n"
        f"| the model says | | {(large.chunk_ms - 40) / 2:.0f} ms |"
    )
)

# %% [markdown]
# ## To take away
#
# | chunk | waits for it on average | messages a second | when |
# |---|---|---|---|
# | 10 ms | 5 ms | 100 | a local network, and every millisecond counts |
# | 20 to 100 ms | 10 to 50 ms | 50 to 10 | nearly always |
# | 500 ms | 250 ms | 2 | dictation, where nobody waits for an answer |
#
# ## Clean up
#
# The server ended with the run. Nothing is left to stop; the results stay in `results/`, and
# `make exercise ARGS="--baseline naive"` sets a server beside it that does everything in its
# handler.
