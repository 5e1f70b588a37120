//! The user's variables (`containers_gpu_*`, `gpu_policy`), typed and checked.

pub mod discovery;

pub use discovery::{Discovery, DiscoveryMethod, VendorDetection};
