//! A fleet without hardware: hosts that live in folders behind an SSH server
//! in this process, with vendor tools that keep real state.
//!
//! `spec` reads the `sim:` variable, `host` makes a machine's folder from it,
//! `server` speaks SSH, `shell` confines what runs, `tools` are the stand-ins
//! for `nvidia-smi` and its like (this binary under another name), `intel` what Intel's kernel
//! drivers show and take, `kube` a cluster, `vgpu` what NVIDIA's vGPU host driver does, `units` plays the service
//! manager, `umockdev` replays recorded hosts, `fault` breaks things on purpose. The stand-ins
//! reproduce what real tools were seen
//! to print and do; they know nothing of how the rest of `deploy` reads them.

mod amd;
mod confine;
mod cut;
mod fault;
mod fleet;
mod host;
mod intel;
mod iommu;
mod kube;
mod machine;
mod product;
mod server;
mod spec;
pub mod tools;
mod umockdev;
mod units;
mod vgpu;

pub use confine::{Confinement, SHELL_NAME, confinement};
pub use fault::{AmdFault, Fault, NvidiaFault, OperatorFault, break_host, mend, reset};
pub use fleet::{Endpoint, Fleet, Options, default_state_dir, make, root_of};
pub use spec::is_simulated;
