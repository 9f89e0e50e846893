"""Environment variables of worker processes: what Python and libraries need to run, and what the verifier declares.

A verifier is trusted code, but what it runs over is not, and a token that it cannot see cannot end up in a reason, a
log or a request. So everything that is not listed here stays out, unless `@rlvr.verifier(env=[…])` declares it or an
option refers to it (`env:NAME`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rlvr.secret_options import names_secret

NAMES = frozenset({
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LANG", "LANGUAGE", "TZ",
    "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX",
    "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "NVIDIA_VISIBLE_DEVICES",
    "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_DATASETS_CACHE", "HF_DATASETS_OFFLINE",
    "TRANSFORMERS_OFFLINE", "TOKENIZERS_PARALLELISM", "TORCH_HOME", "NLTK_DATA",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
})  # fmt: skip
PREFIXES = ("LC_", "PYTHON", "OMP_", "MKL_", "OPENBLAS_", "NUMEXPR_", "KMP_", "MALLOC_", "XDG_")


def worker_environment(environment: Mapping[str, str], declared: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables that a worker may see, and those of `declared` that are set."""
    wanted = set(declared)
    return {
        name: value
        for name, value in environment.items()
        if name in wanted or ((name in NAMES or name.startswith(PREFIXES)) and not names_secret(name))
    }
