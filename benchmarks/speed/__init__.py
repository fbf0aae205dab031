"""Side-by-side timings against peers, on one core.

Importing this package sets one thread for every numerical library, because each reads its setting when it is loaded;
`python -m benchmarks.speed.<name>` imports the package first.
"""

import os

THREAD_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "JAX_PLATFORMS": "cpu",
}
os.environ.update(THREAD_SETTINGS)
