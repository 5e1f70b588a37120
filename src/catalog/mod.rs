//! Models of GPUs: what each can do, by PCI id and by name.

pub mod model;

pub use model::{Architecture, DeviceId, MigModel, Model, PartitionModel, ProfileSpec, Technology};
