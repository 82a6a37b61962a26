"""From the files of models to a pipeline that is warm, with as many threads as there are cores."""

import os
from pathlib import Path
from typing import Final

from threadpoolctl import threadpool_limits

from labkit.voice.chat_server import ChatServerLlm
from labkit.voice.engines import Engines
from labkit.voice.history import Message
from labkit.voice.llama import LlamaLlm
from labkit.voice.models import ModelPaths, resolve
from labkit.voice.pipeline import VoicePipeline
from labkit.voice.piper import PiperTts
from labkit.voice.reply import ReplyRules
from labkit.voice.scheduling import Stop, engine_thread
from labkit.voice.silero import SileroVad
from labkit.voice.whisper import FasterWhisperAsr

_ENGINES: Final = 3
_MOST: Final = 4
"""Further threads gain little with models of these sizes."""
_LOOKS: Final = "1000"
_CGROUP: Final = Path("/sys/fs/cgroup")


def load_engines(
    paths: ModelPaths, *, threads: int | None = None, fit_window: bool = True
) -> Engines:
    """Load the four engines and warm them up. Blocks for seconds.

    Args:
        paths: The models.
        threads: CPU threads of each engine; by default `default_threads()`, and `most_threads()`
            of the language model while it works alone.
        fit_window: Cut the recogniser's window to the utterance, as far as the model bears it.

    Raises:
        ModelBrokenError: A model does not load.
    """
    limit_spinning()
    # A thread that ends: those that libraries start for it are as polite, and OpenMP's end with it.
    # While they are there, it takes the cores for overbooked, and others sleep at each operation.
    with engine_thread("load") as thread:
        return thread.submit(_load, paths, threads, fit_window).result()


def _load(paths: ModelPaths, threads: int | None, fit_window: bool) -> Engines:
    few = threads or default_threads()
    asr = FasterWhisperAsr(paths.asr, threads=few, fit_window=fit_window)
    engines = Engines(
        vad=SileroVad(),
        asr=asr,
        llm=ChatServerLlm(paths.llm)
        if isinstance(paths.llm, str)
        else LlamaLlm(paths.llm, threads=few, alone=threads or most_threads()),
        tts=PiperTts(paths.tts, threads=few),
        longest_stretch_s=asr.window.longest_s,
    )
    engines.warm_up()
    if paths.system:
        # Read now, it need not be read while the first caller waits.
        stop = Stop()
        told = [Message("system", paths.system), Message("user", "Hi")]
        for piece in engines.reply(told, stop):
            if piece:  # else it still reads
                stop.set()
    return engines


def load_pipeline(
    paths: ModelPaths | str = "embedded", *, threads: int | None = None, fit_window: bool = True
) -> VoicePipeline:
    """A pipeline over engines that `load_engines` has loaded, of the models or the set named."""
    paths = resolve(paths) if isinstance(paths, str) else paths
    engines = load_engines(paths, threads=threads, fit_window=fit_window)
    calls = max(1, usable_cores() // (threads or default_threads()))
    pipeline = VoicePipeline(engines, reply_rules=ReplyRules(system=paths.system), calls=calls)
    pipeline.warm_up()
    return pipeline


# -- threads ---------------------------------------------------------------------------------------


def default_threads(cores: int | None = None) -> int:
    """Threads of each engine: a third of the cores, at least one, four at most.

    The three engines work at once: a reply is written while its first sentence is spoken, and
    another caller is heard meanwhile. More threads than cores are costly, and for llama.cpp they
    can be ruin: its threads meet after every operation, some thousand times a token, and where one
    of them has no core the others wait. So the threads of all three engines together are never more
    than the cores. Where the language model works alone, it has more of them: `most_threads`.

    With the embedded models, in turns in one run, on two cores that other programs used as well
    (load 9 to 12):

    ======================================  ========  =========  ======================
    call                                    1 thread  2 threads  processor time, 1 → 2
    ======================================  ========  =========  ======================
    an utterance recognised, median of 58     178 ms     169 ms  62 → 77 ms
    a sentence spoken, median of 58           107 ms     156 ms  32 → 56 ms
    ======================================  ========  =========  ======================

    Args:
        cores: Cores that there are; by default those that this process may use.
    """
    cores = usable_cores() if cores is None else cores
    return max(1, min(_MOST, cores // _ENGINES))


def most_threads(cores: int | None = None) -> int:
    """Threads of the language model while no other engine works, four at most.

    Where there are more than two cores, one is left to the rest of the server and to its callers.

    A token of SmolLM2-135M on two cores, median in ms, and its processor time. Llama.cpp's own
    threads wait for each other in a loop that looks again and again, OpenMP's look for a while, and
    then sleep (`limit_spinning`):

    =====================  ========  ==============  =================  ===============
    beside it on the cores  1 thread  2 of its own    2 of OpenMP, 300   2, 1,000 looks
    =====================  ========  ==============  =================  ===============
    nothing                    15.6  8.8             12.1               9.2
    one busy program           16.2  16.0            21.4               28.0
    two busy programs          23.8  96.0            21.5               29.4
    =====================  ========  ==============  =================  ===============

    With embedded models and ten busy programs two threads of its own took 144 ms a token of
    processor time, and one thread 1.2.

    Args:
        cores: Cores that there are; by default those that this process may use.
    """
    cores = usable_cores() if cores is None else cores
    return max(1, min(_MOST, cores, max(2, cores - 1)))


def limit_spinning() -> None:
    """Let no thread of a library keep a core busy while it only waits.

    Before any library brings OpenMP, which reads this once: its threads look only shortly for each
    other before they sleep. By default GCC's look for milliseconds, and where other programs use
    the cores as well, that is how long each operation takes.

    And numpy's OpenBLAS has one thread: its others look for work for 30 ms behind every product of
    matrices, such as a recogniser's spectrogram. On two cores, with the embedded models, that was a
    third of all that the server computed, and it took the core from the voice's first words: 45 ms
    from the end of an utterance to the first audio, and 35 without. The products are small.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", _LOOKS)
    threadpool_limits(1, user_api="blas")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores that this process may use, at least one.

    That is fewer than the machine has where the process is bound to some of them, or where a
    container's share of the time is limited, of which Linux tells in the folder `cgroup`.
    """
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = _share(cgroup)
    return max(1, min(bound or 1, bound or 1 if share is None else int(share)))


def _share(cgroup: Path) -> float | None:
    """Cores' worth of time that a container is given; None where nothing limits it."""
    for name in ("cpu.max", "cpu/cpu.cfs_quota_us"):
        try:
            quota, *period = (cgroup / name).read_text(encoding="ascii").split()
            if not period:
                period = [(cgroup / "cpu/cpu.cfs_period_us").read_text(encoding="ascii")]
            if int(quota) > 0:
                return int(quota) / int(period[0])
        except (OSError, ValueError):
            continue
    return None
