"""The process in which a server to be drilled runs; `labkit.drills.target` starts it."""

import asyncio
import gc
import json
import logging
import sys
import zlib

from labkit.audio.pcm import encode_s16le
from labkit.drills.target import PipelineName, settings_of
from labkit.server.app import VoiceServer, serve_until_signal
from labkit.voice.loading import load_pipeline
from labkit.voice.models import resolve
from labkit.voice.pipeline import EchoPipeline, VoicePipeline
from labkit.voice.scripted import ScriptedAsr, ScriptedTts, scripted_engines
from labkit.voice.turn import Pipeline


def scripted_pipeline() -> VoicePipeline:
    """Engines that hear the checksum of what was said, and repeat it."""
    asr = ScriptedAsr(lambda audio: f"{len(audio)} samples {zlib.crc32(encode_s16le(audio)):08x}")
    return VoicePipeline(scripted_engines(asr, tts=ScriptedTts(seconds_per_word=0.02)))


def _pipeline_of(name: PipelineName, model_set: str) -> Pipeline:
    match name:
        case "echo":
            return EchoPipeline()
        case "scripted":
            return scripted_pipeline()
        case "voice":
            return load_pipeline(resolve(model_set))


def _announce(server: VoiceServer) -> None:
    sys.stdout.write(f"the target is ready at {server.url}\n")
    sys.stdout.flush()


def main() -> None:
    """Run the server until it is told to end; its log goes to stderr."""
    told = json.loads(sys.argv[1])
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("websockets").setLevel(logging.WARNING)
    settings = settings_of(told["settings"])
    pipeline = _pipeline_of(told["pipeline"], told["model_set"])
    gc.collect()
    gc.freeze()  # as `labkit serve` does
    asyncio.run(serve_until_signal(pipeline, settings, _announce))


if __name__ == "__main__":
    main()
