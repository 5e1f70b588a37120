//! The user's variables (`containers_gpu_*`, `gpu_policy`), typed and checked.
