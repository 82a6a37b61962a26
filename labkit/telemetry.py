"""Nothing phones home: switch off what libraries would send, before they are imported.

onnxruntime looks up a telemetry host and leaves a device id in the home folder when it is imported
(since 1.29, on Linux and macOS), unless it finds `ORT_DISABLE_TELEMETRY` then; the decision holds
for the life of the process. huggingface_hub tells the hub more than the download needs.
"""

import os
import sys


def switch_off() -> None:
    """Switch telemetry off in this process and in the ones that it starts.

    `import labkit` calls it, so it comes first in every process that uses labkit. Where
    onnxruntime was imported before, only what it would send from now on can be stopped.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    if (loaded := sys.modules.get("onnxruntime")) is not None:
        loaded.disable_telemetry_events()
