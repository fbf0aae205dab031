"""An Arduino library: copy the folder into the sketchbook's ``libraries`` folder, or import it as a ZIP in the IDE.

A sketch then says ``#include <policy.h>``; the header has its own ``extern "C"``. "File > Examples > policy > SelfTest"
prints whether the board gives the known answers, and how long one call takes.
The layout follows revision 2.2 of the Arduino library specification: https://docs.arduino.cc/arduino-cli/library-specification
Arduino's cores choose the compiler's options; where they fuse a*b + c, results stay within the stated bound.
"""

from __future__ import annotations

from sindyrl.export.artifact import FREEDOM, Artifact, starting_value
from sindyrl.export.source import MARK

CHECK = (
    "The tests hold the folder against the rules of the Arduino library specification and run the sketch on the host."
)

_PROPERTIES = """{banner}
name={name}
version={release}
author=sindyrl
maintainer=the owner of this folder
sentence=The closed-form map {title}, as plain C.
paragraph={mark}. {freedom}
category=Signal Input/Output
# The specification demands an address; put your own here before you publish the library.
url=https://example.com/{name}
architectures=*
includes={name}.h
"""

_SKETCH = """{banner}
// Prints whether this board gives the known answers of {name}, and how long one call takes.
#include <{name}.h>

static {kind} state[{n}] = {{{values}}}; // {inputs}
static {kind} out[{m}]; // {outputs}

void setup() {{
  Serial.begin(115200);
}}

void loop() {{
  const int failures = {name}_selftest();
  if (failures == 0) {{
    Serial.println("self-test passed");
  }} else {{
    Serial.print("self-test failed, outputs: ");
    Serial.println(failures);
  }}

  const unsigned long start = micros();
  for (int repeat = 0; repeat < 1000; repeat++) {{
    {name}(state, out);
  }}
  Serial.print("nanoseconds per call: ");
  Serial.println(micros() - start);
  for (int index = 0; index < {m}; index++) {{
    Serial.println(out[index]{digits});
  }}
  delay(5000);
}}
"""


def files(artifact: Artifact) -> dict[str, str | bytes]:
    """``library.properties``, ``keywords.txt``, the C in ``src``, and a sketch.

    Raises ValueError for a name that begins with "arduino", which the specification reserves.
    """
    name = artifact.name
    if name.lower().startswith("arduino"):
        raise ValueError(f"`name` must not begin with 'arduino' in an Arduino library: it is reserved. Got {name!r}.")
    properties = _PROPERTIES.format(
        banner="\n".join(artifact.banner("# ")),
        name=name,
        release=artifact.release,
        title=artifact.title.partition(": ")[2],
        mark=MARK,
        freedom=FREEDOM,
    )
    keywords = "\n".join([*artifact.banner("# "), f"{name}\tKEYWORD2", f"{name}_selftest\tKEYWORD2", ""])
    return {
        "library.properties": properties,
        "keywords.txt": keywords,
        **{f"src/{file}": text for file, text in artifact.texts.items()},
        "examples/SelfTest/SelfTest.ino": _sketch(artifact),
    }


def _sketch(artifact: Artifact) -> str:
    form, floating = artifact.form, artifact.number.startswith("float")
    count = len(artifact.states)
    values = [*artifact.initial, *(starting_value(signal) for signal in form.inputs[count:])]
    return _SKETCH.format(
        banner="\n".join(artifact.banner("// ")),
        name=artifact.name,
        kind=artifact.c_type,
        n=max(len(form.inputs), 1),
        m=len(form.outputs),
        values=", ".join(repr(value) if floating else "0" for value in values) or "0",
        inputs=", ".join(form.input_names) or "no inputs",
        outputs=", ".join(form.output_names),
        digits=", 6" if floating else "",
    )
