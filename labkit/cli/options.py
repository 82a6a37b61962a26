"""Options that several commands have."""

from typing import Annotated

import typer

from labkit.voice.models import SETS

__all__ = ["AsrOption", "LlmOption", "SetOption", "TtsOption"]

SetOption = Annotated[str, typer.Option("--models", help=f"Set of models: {', '.join(SETS)}.")]
AsrOption = Annotated[str | None, typer.Option(help="Another recogniser, such as base.en.")]
LlmOption = Annotated[str | None, typer.Option(help="Another language model, such as x.gguf.")]
TtsOption = Annotated[str | None, typer.Option(help="Another voice: en_US-lessac-medium.")]
