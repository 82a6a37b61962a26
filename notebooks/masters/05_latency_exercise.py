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
# *About 40 minutes; for five of them the machine talks to itself, and you may read on. Needs: this
# checkout, set up with `make lab`. No network, no GPU, no microphone.*
#
# ## What you will be able to do
#
# - **compute** from raw marks how long a caller waited, and for what;
# - **measure** how chunk size trades against latency, on your own server and on others;
# - **tell** an effect from noise, and a prediction that holds from one that does not;
# - **explain** why 50 ms of audio cost more headers than 40, and why two writes can cost 40 ms;
# - **argue** from your own data why voice travels in messages of 20 to 100 ms.

# %%
import labkit
from labkit import Bench, recording, run_exercise, say, show, start_mine, stop_servers
from labkit.course import (
    begin,
    check,
    hint,
    lab_report,
    latency,
    measured,
    predict,
    predicted,
    quiz,
    solution,
)

await begin(5, in_kernel=False)  # your server runs in a process of its own, not in this kernel

# %% [markdown]
# ## What broke last time
#
# Your server streams, refuses and keeps its callers apart. Is it *fast*? Nobody knows, and nobody can
# tell by looking at it. People leave about 200 ms between two speakers (Stivers and others, 2009, in ten
# languages); a server has to come near that.
#
# ## The question
#
# A microphone delivers audio in chunks, and a chunk can only be sent once it is full. When you stop
# speaking somewhere inside a chunk, the rest of it still has to pass before the server can know.
# Small chunks wait less, but every message has its cost. How large should a chunk be?
#
# **Predict first**, here and in the whole chapter. A measurement that confirms nothing teaches little.
# Cells that measure go no further before you have predicted, and lock what you said.

# %% [markdown] card="ch5.predict"
# The card of the exercise.

# %% [markdown]
# 1. From your last word to the first sound of the reply: how long, with your server and chunks of 40 ms?
# 2. How much later does the server know your words with chunks of 500 ms than with chunks of 20? (This one
#    ends at the transcript, not at the first sound: what comes after the words varies more than chunks do.)
# 3. How many times as long does the naive server of chapter 1 take as yours?

# %% exercise="ch5.predict"
predict("ch5.wait_ms", ...)
predict("ch5.added_at_500_ms", ...)
predict("ch5.naive_times", ...)

# %% solution="ch5.predict"
predict("ch5.wait_ms", 400)
predict("ch5.added_at_500_ms", 240)
predict("ch5.naive_times", 3)

# %% [markdown]
# ## One turn, and its marks
#
# Your server, in a process of its own, answers one recording. A *mark* is an instant of a turn, in
# nanoseconds of a clock that only ever goes forward; where it starts counting means nothing.

# %%
predicted("ch5.wait_ms", "ch5.added_at_500_ms", "ch5.naive_times")
server = await start_mine()
await say(recording("slt-deep-08"), server)  # the first turn of a server is slower than the others
turn = await say(recording("ked-01"), server)
measured("ch5.wait_ms", turn.trace.ttfa_ms())
for mark, at_ns in sorted(turn.trace.marks.items(), key=lambda one: one[1]):
    print(f"{at_ns:>20,}  {mark}")
turn.plot_waveform()
turn

# %% [markdown]
# Look at the two waveforms: the wait is the dead air between them. `end_of_speech` is known from the
# recording, not from the server: whoever measures from a server's own event measures less than people
# hear. `first_audio_heard` is where the reply stops being silent, which is later than its first byte.

# %% [markdown] card="ch5.marks"
# The card of the exercise.

# %% exercise="ch5.marks"
ORDER = [
    "end_of_speech",
    "end_stream_sent",
    "end_stream_received",
    "asr_done",
    "llm_first_token",
    "llm_first_sentence",
    "tts_first_audio",
    "first_audio_received",
    "first_audio_heard",
]


def wait_ms(marks):
    """How long the caller waited for the first sound, in ms: the TTFA."""
    raise NotImplementedError("from which mark to which?")


def packetisation_ms(marks):
    """How long the last chunk took to fill and to go out, in ms."""
    raise NotImplementedError("from which mark to which?")


def parts_ms(marks):
    """What the wait consists of: the mark that ends a part → ms since the mark of ORDER before it.

    A server need not tell all marks: a part begins at the last one that is there. So the parts
    always add up to the wait.
    """
    raise NotImplementedError("take each mark that is there with the one before it")


# %% solution="ch5.marks"
ORDER = [
    "end_of_speech",
    "end_stream_sent",
    "end_stream_received",
    "asr_done",
    "llm_first_token",
    "llm_first_sentence",
    "tts_first_audio",
    "first_audio_received",
    "first_audio_heard",
]


def wait_ms(marks):
    """How long the caller waited for the first sound, in ms: the TTFA."""
    return (marks["first_audio_heard"] - marks["end_of_speech"]) / 1e6


def packetisation_ms(marks):
    """How long the last chunk took to fill and to go out, in ms."""
    return (marks["end_stream_sent"] - marks["end_of_speech"]) / 1e6


def parts_ms(marks):
    """What the wait consists of: the mark that ends a part → ms since the mark of ORDER before it.

    A server need not tell all marks: a part begins at the last one that is there. So the parts
    always add up to the wait.
    """
    there = [mark for mark in ORDER if mark in marks]
    return {
        end: (marks[end] - marks[start]) / 1e6 for start, end in zip(there, there[1:], strict=False)
    }


# %%
await check("ch5.wait", wait_ms)

# %%
await check("ch5.packetisation", packetisation_ms)

# %%
await check("ch5.marks_add_up", parts_ms)

# %% [markdown]
# Now your own turn, by your own functions, beside what labkit computes from the same marks.

# %%
predicted("ch5.wait_ms")
marks = turn.trace.marks
for end, span in parts_ms(marks).items():
    print(f"{span:8.1f} ms  until {end}")
print(f"{wait_ms(marks):8.1f} ms  in all; labkit says {turn.trace.ttfa_ms():.1f} ms")
print(f"{packetisation_ms(marks):8.1f} ms  of it because the last chunk was not full yet")

# %% [markdown]
# Your server tells no marks of its own, so everything between the request and the first byte is one
# part. labkit's server tells where that time goes; you will see it beside yours.
#
# ## What a message weighs
#
# Chunks of a millisecond would hardly wait at all. But each message has headers, and how many bytes
# those are can be computed.

# %% [markdown] card="ch5.headers"
# The card of the exercise.


# %% exercise="ch5.headers"
def headers_percent(chunk_ms):
    """Headers of one message, in percent of its audio (32 bytes a millisecond)."""
    raise NotImplementedError("how many segments does the message need, header included?")


# %% solution="ch5.headers"
def headers_percent(chunk_ms):
    """Headers of one message, in percent of its audio (32 bytes a millisecond)."""
    audio = 32 * chunk_ms
    websocket = 6 if audio < 126 else 8
    segments = -(-(audio + websocket) // 1448)
    return 100 * (websocket + 52 * segments) / audio


# %%
await check("ch5.headers", headers_percent)

# %% [markdown]
# Why do 50 ms cost more than 40? Find the two numbers that answer it in this table.

# %%
print("chunk, ms  bytes  headers, %")
for chunk_ms in (10, 20, 32, 40, 50, 80, 100, 250, 500):
    print(f"{chunk_ms:9}  {32 * chunk_ms:5}  {headers_percent(chunk_ms):10.1f}")

# %% [markdown]
# 1,280 bytes and a header fit into the 1,448 of one segment; 1,600 do not. All the same, even a fifth
# more of 256 kbit/s is little to any network of today: what small messages really cost is work for
# each of them, at both ends.
#
# ## The exercise
#
# Three servers take turns: yours, labkit's, and the naive one. Each is told the *same* recordings in
# every chunk size, in random order, at the pace of speech. Sizes are compared recording by recording,
# since recordings differ by far more than a chunk adds. This short run takes two and a half minutes.
#
# It has 63 turns: three recordings, each said six times to three servers (20 and 500 ms twice, once with
# the end early in a chunk and once late), are 54. Nine more, one a server and recording, only warm up and
# count nowhere. So a figure shows 18 turns of each server.

# %%
predicted("ch5.wait_ms", "ch5.added_at_500_ms", "ch5.naive_times")
await stop_servers()  # nothing else should need the processor
result = await run_exercise(
    mine=True,
    baseline=True,
    quick=True,
    blocks=3,
    chunk_sizes_ms=(20, 40, 100, 500),
    out="../results",
)
yours, *others = result.servers
figures = labkit.exercise_figures(result)
show(
    figures["tradeoff"],
    alt="What the chunk size adds to the wait of three servers, with intervals, beside a dotted line "
    "for half a chunk more; messages, headers and server CPU, which fall as chunks grow; below, a "
    "bar of the parts of the rest of the wait for each server.",
)
print(*result.sentences(), sep="\n")

# %% [markdown]
# The dotted line is no fit: it is half a chunk more, which arithmetic predicts. Look whether the
# intervals of your points hold it. Where they are wide, the machine had other work, or three recordings
# are too few: close what you can and run the cell again, or take the whole run. Then look at the bars:
# the chunk size has no part in them.
#
# The orange dashes are for a server that finds the end of your speech by itself. Its detector judges
# 32 ms at a time, so chunks of 20 ms are judged when those that end at 40, 80 and 100 ms are there.
#
# The whole run, with all nine sizes, takes nine minutes:
# `.venv/bin/labkit exercise --server mine/server.py --baseline naive` in a terminal, or
# `await run_exercise(mine=True, baseline=True)` in a cell.

# %%
predicted("ch5.wait_ms", "ch5.added_at_500_ms", "ch5.naive_times")
show(
    figures["waterfall"],
    alt="Waterfalls of the three servers at 40 ms chunks: each stage is a bar that begins where the "
    "one before it ended.",
)
show(
    figures["turns"],
    alt="Every turn as a dot over its chunk size, server beside server; a line joins the turns of a "
    "recording.",
)
naive = next(one for one in others if one.name == "naive")
print("Up to the transcript:", measured("ch5.added_at_500_ms", yours.sizes[-1].effect.value))
print("Mean waits:", measured("ch5.naive_times", naive.wait_ms / yours.wait_ms))
print(f"The mean wait for your server with 40 ms chunks is {yours.wait_ms:.0f} ms.")

# %% [markdown]
# In the last figure a colour is a recording. How far the lines lie apart is what recordings differ in;
# how they rise is what the chunk size does. Where two dots of one colour lie far apart at 500 ms, the
# speech ended early in a chunk in one turn, and late in the other. Three recordings are far too few for a
# 95th percentile.
#
# ## Over a network
#
# So far client and server were one machine. Predict: how much longer does one wait for your server over
# 4g (20 to 35 ms each way), all else being equal?

# %% exercise="ch5.predict"
predict("ch5.more_on_4g_ms", ...)

# %% solution="ch5.predict"
predict("ch5.more_on_4g_ms", 60)

# %% [markdown]
# Your server alone, over two networks, with the same recordings as before. Each takes 50 seconds.

# %%
predicted("ch5.more_on_4g_ms")
over = {"loopback": result}
for network in ("4g", "3g"):
    over[network] = await run_exercise(
        mine=True,
        labkit=False,
        quick=True,
        blocks=3,
        chunk_sizes_ms=(20, 100, 500),
        network=network,
        out="../results",
    )
networks = latency.by_network(over)
show(
    latency.networks_figure(networks),
    alt="Left, waits by chunk size over loopback, 4g and 3g, a line for each; right, what the chunk "
    "size adds over each of them, beside half a chunk more.",
)
print(f"500 ms of audio take {latency.way_out_ms(500, '3g'):.0f} ms to go out over 3g,")
print(
    f"and {latency.way_out_ms(500, '4g'):.0f} ms over 4g; 20 ms take {latency.way_out_ms(20, '3g'):.0f} over 3g."
)
measured("ch5.more_on_4g_ms", latency.longer_ms(result, over["4g"]))

# %% [markdown]
# A network moves the whole line up: a way there, a way back. (Where the measured number is below zero, or far above
# what a network adds, the machine had less or more to do than when loopback was measured.) The chunk size decides how steep the line is.
# Over 3g it is steeper than half a chunk, since the last chunk also has to go out, and a large one
# takes long on a thin line.
#
# Try others. The sliders choose, the button says one recording three times and draws it; without
# clicking it is `await bench.measure(chunk_ms=100, network="wifi")` and `bench.draw()`.

# %%
predicted("ch5.more_on_4g_ms")
bench = Bench(await start_mine(), recording("slt-deep-08"))
print(await bench.measure(chunk_ms=20))
print(await bench.measure(chunk_ms=100, network="wifi"))
bench

# %% [markdown]
# ## Break it: two writes
#
# A client sends a chunk in one write and `ping` in the next, and waits for `pong`. That is what happens
# where a message and its header are written one after the other. On loopback a round trip takes well
# under a millisecond on an idle machine. `TCP_NODELAY` is switched off, as it is in a plain socket.
# How long does the `pong` take, in milliseconds?

# %% exercise="ch5.predict"
predict("ch5.two_writes_ms", ...)

# %% solution="ch5.predict"
predict("ch5.two_writes_ms", 1)

# %%
from statistics import median

predicted("ch5.two_writes_ms", "ch5.more_on_4g_ms")
two_writes = await latency.measure_two_writes(await start_mine())
show(
    latency.plot_two_writes(two_writes).figure,
    alt="Every round trip as a mark, a row for each way to write: one write or two, TCP_NODELAY on "
    "or off.",
)
slow, quick = median(two_writes[2, False]), median(two_writes[2, True])
print(f"Two writes take {slow:.1f} ms without TCP_NODELAY, and {quick:.1f} ms with it.")
measured("ch5.two_writes_ms", slow)

# %% [markdown]
# *Nagle's algorithm* holds back a write that does not fill a segment while an earlier one is not
# acknowledged. The other side delays that acknowledgement by up to 40 ms, in the hope of an answer to
# send with it; but there is no answer before the second write is there. Each waits for the other.
#
# Two ways out: `TCP_NODELAY`, which asyncio switches on for you, and one write for what belongs
# together. Chunks that nobody answers never meet this, which is why it shows up late.
#
# ## Conclude
#
# What do your own data say? Look at the table that the conclusion is drawn from.

# %%
predicted("ch5.added_at_500_ms")
rows = latency.table(yours)
print("chunk, ms  added, ms  95 % interval  half a chunk  headers, %")
for row in rows:
    interval = f"{row['low_ms']:.0f} to {row['high_ms']:.0f}"
    print(
        f"{row['chunk_ms']:9}  {row['added_ms']:9.1f}  {interval:>13}  {row['predicted_ms']:12.1f}  "
        f"{row['headers_percent']:10.1f}"
    )

# %% [markdown]
# The next exercise asks whether half a chunk predicts what was measured, within a tenth. Why a tenth? Half a chunk
# counts the waiting only, and a large chunk brings some work at once. And
# three blocks are few: by chance, all three lie on the same side of the truth one time in four, however
# close together. So an interval of 245 to 249 ms does not refute 240.

# %% [markdown] card="ch5.conclusion"
# The card of the exercise.


# %% exercise="ch5.conclusion"
def conclude(rows, most_added_ms, most_headers_percent):
    """What a table says, as a dict. Rows are dicts, as in the cell above; low_ms and high_ms are the interval.

    - sizes_ms: the chunk sizes that add at most so much, with headers of at most so much; a list,
      smallest first;
    - clear: whether what the largest chunks add is more than noise: 0 is not in the interval;
    - explained: whether half a chunk explains it: predicted_ms is in the interval, or outside by a tenth
      of predicted_ms at most.
    """
    raise NotImplementedError("which rows keep both limits? what does the largest chunk say?")


# %% solution="ch5.conclusion"
def conclude(rows, most_added_ms, most_headers_percent):
    """What a table says, as a dict."""
    largest = max(rows, key=lambda row: row["chunk_ms"])
    half_ms = largest["predicted_ms"]
    slack_ms = 0.1 * half_ms
    return {
        "sizes_ms": sorted(
            row["chunk_ms"]
            for row in rows
            if row["added_ms"] <= most_added_ms and row["headers_percent"] <= most_headers_percent
        ),
        "clear": not largest["low_ms"] <= 0 <= largest["high_ms"],
        "explained": largest["low_ms"] - slack_ms <= half_ms <= largest["high_ms"] + slack_ms,
    }


# %%
await check("ch5.conclusion", conclude)

# %% [markdown]
# Choose the two limits yourself. How much added wait would you notice, and how much overhead would you pay?
# Where do *your* data put the band, and would you draw it where it is usual, at 20 to 100 ms? Say why,
# in two or three sentences: which cost falls to the left, which to the right, and from where on is
# there hardly anything left to gain?

# %%
most_added_ms, most_headers_percent = 50, 10
my_words = ""  # your own two or three sentences, between the quotes

# %%
predicted(*latency.PREDICTED)
concluded = conclude(rows, most_added_ms, most_headers_percent)
print(concluded)
lab_report(
    servers=result,
    networks=networks,
    rows=rows,
    two_writes=two_writes,
    concluded=concluded,
    words=my_words,
)

# %% [markdown]
# The report is one page and one file; print it, or send it to somebody. Were your predictions made
# first?

# %%
await check("ch5.predicted_first", labkit.course.predictions_of("ch5"))

# %% [markdown]
# ## Recap
#
# | chunk | waits for it on average | messages a second | when |
# |---|---|---|---|
# | 10 ms | 5 ms | 100 | a local network, and every millisecond counts |
# | 20 to 100 ms | 10 to 50 ms | 50 to 10 | nearly always |
# | 500 ms | 250 ms | 2 | dictation, where nobody waits for an answer |
#
# The chunk size is a small part of the wait. The large parts are models, and what you do with them.
#
# ## Quiz

# %%
quiz("ch5")

# %% [markdown]
# ## Clean up

# %%
await stop_servers()

# %% [markdown]
# ## Next
#
# Here the client said when it was done. A microphone does not: the server has to find out, by waiting.
# That wait is longer than everything that you have measured here. Chapter 6 is about it.
