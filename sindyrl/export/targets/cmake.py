"""A plain folder for CMake: ``add_subdirectory(policy)`` and ``target_link_libraries(firmware policy)``.

On its own it builds the library and its self-test: ``cmake -B build && cmake --build build && ctest --test-dir build``.
Without CMake, the two C files and the header compile as they are.
"""

from __future__ import annotations

from sindyrl.export.artifact import Artifact

CHECK = "CMake configures, builds with warnings as errors, and ctest runs the self-test."

_TEXT = """{banner}
cmake_minimum_required(VERSION 3.15)
project({name} VERSION {release} LANGUAGES C)

# On its own: optimized, with the self-test. Inside another project: the library alone.
if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR)
  set({macro}_ALONE TRUE)
  if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release)
  endif()
endif()

add_library({name} STATIC {sources})
target_include_directories({name} PUBLIC "${{CMAKE_CURRENT_SOURCE_DIR}}")
set_target_properties({name} PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
# Contraction off: a*b + c rounds twice, so that every compiler returns the verified bits.
target_compile_options({name} PRIVATE
  $<$<C_COMPILER_ID:GNU,Clang,AppleClang,ARMClang>:-ffp-contract=off -fno-fast-math>
  $<$<C_COMPILER_ID:GNU,Clang,AppleClang,ARMClang>:-Wall -Wextra -Wconversion -Wdouble-promotion>
  $<$<C_COMPILER_ID:MSVC>:/fp:precise /W3>)
if(UNIX)
  target_link_libraries({name} PUBLIC m)
endif()

if({macro}_ALONE)
  enable_testing()
  add_executable({name}_selftest {self_test})
  target_compile_definitions({name}_selftest PRIVATE {macro}_SELFTEST_MAIN)
  set_target_properties({name}_selftest PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
  target_link_libraries({name}_selftest PRIVATE {name})
  add_test(NAME {name}_selftest COMMAND {name}_selftest)
endif()
"""


def files(artifact: Artifact) -> dict[str, str | bytes]:
    """``CMakeLists.txt`` and the C."""
    text = _TEXT.format(
        banner="\n".join(artifact.banner("# ")),
        name=artifact.name,
        macro=artifact.name.upper(),
        release=artifact.release,
        sources=" ".join(artifact.sources),
        self_test=artifact.file_names[2],
    )
    return {"CMakeLists.txt": text, **artifact.texts}
