"""Where the project's material lies."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
SPEECH = DATA / "speech"
