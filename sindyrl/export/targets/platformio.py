"""A PlatformIO library: copy the folder into a project's ``lib``, name it in ``lib_deps``, or ``pio pkg pack`` it.

The manifest follows https://docs.platformio.org/en/latest/manifests/library-json/index.html. Its build flags hold for
this library alone: contraction off, so that the board returns the verified bits.
"""

from __future__ import annotations

import json

from sindyrl.export.artifact import FREEDOM, Artifact
from sindyrl.export.source import MARK

CHECK = "`pio pkg pack` accepts the folder where PlatformIO is installed; the manifest's rules are checked everywhere."


def files(artifact: Artifact) -> dict[str, str | bytes]:
    """``library.json``, and the C in ``src``."""
    about = f"{MARK} {artifact.version} from the map {artifact.digest[:16]}. {FREEDOM} {artifact.title}"
    manifest = {
        "name": artifact.name,
        "version": artifact.release,
        "description": about[:1000],
        "keywords": ["control", "closed-form", "sindyrl"],
        "headers": [artifact.file_names[0]],
        "frameworks": ["*"],
        "platforms": ["*"],
        "build": {"srcDir": "src", "includeDir": "src", "flags": ["-ffp-contract=off", "-fno-fast-math"]},
    }
    return {
        "library.json": json.dumps(manifest, indent=2) + "\n",
        **{f"src/{name}": text for name, text in artifact.texts.items()},
    }
